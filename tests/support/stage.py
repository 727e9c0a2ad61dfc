"""The clients of one play: started when they enter, stopped in the opposite order when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Protocol

from tests.support.baresip import Baresip
from tests.support.isthmus_process import IsthmusProcess
from tests.support.processes import wait_until
from tests.support.xmpp_client import XmppClient


class Stoppable(Protocol):
    """Any client."""

    async def stop(self) -> None: ...


class Stage:
    """One running Isthmus with its people; `await clear()` at the end."""

    def __init__(self, isthmus: IsthmusProcess) -> None:
        self.isthmus = isthmus
        self._leaving: list[Stoppable] = []

    def leave_at_the_end(self, client: Stoppable) -> None:
        self._leaving.append(client)

    async def phone(self, address: str, *contacts: str, transport: str = "udp") -> Baresip:
        phone = self.isthmus.phone(address, *contacts, transport=transport)
        self.leave_at_the_end(phone)
        await phone.start()
        return phone

    async def app(self, address: str, resource: str = "app") -> XmppClient:
        app = self.isthmus.app(f"{address}/{resource}")
        self.leave_at_the_end(app)
        await app.start()
        return app

    async def kill(self, pid: int) -> None:
        """End one process of ours at once, as a crash would."""
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), f"process {pid} to be gone")

    async def clear(self) -> None:
        """Stop everybody, also after one that cannot be stopped."""
        async with contextlib.AsyncExitStack() as leaving:
            for client in self._leaving:
                leaving.push_async_callback(client.stop)
