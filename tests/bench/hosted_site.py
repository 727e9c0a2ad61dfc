"""A hosted domain around the gateway: its people's phones on one side, the consumers' XMPP server on the other."""

from __future__ import annotations

from pathlib import Path

from tests.bench.consumers import Consumers
from tests.bench.phones import Phones
from tests.bench.preload import Preload
from tests.bench.subject import Subject


class HostedSite:
    """Phones, consumers and the gateway between them; implements `subject.Surroundings`.

    Args:
        folder: where the gateway's data directory and log will be.
        people: how many hosted users.
    """

    def __init__(self, folder: Path, people: int) -> None:
        self.phones = Phones(people)
        self.consumers = Consumers()
        self._folder = folder

    @property
    def subject(self) -> Subject:
        """The gateway; exists after `prepare`."""
        return self._subject

    async def prepare(self) -> Preload:
        """Open both sides and return the store to fill before `start`."""
        await self.phones.open()
        await self.consumers.open()
        self.domain, self.secret = self.consumers.domain, self.consumers.secret
        self.component_port, self.sip_port = self.consumers.component_port, self.phones.port
        self._subject = Subject(self._folder / "data", self, kind="hosted")
        preload = Preload(self._subject.data, self.phones, self._subject.sip_port)
        preload.users()
        return preload

    @property
    def sip_target(self) -> tuple[str, int]:
        """Where the gateway listens for SIP."""
        return self.phones.target

    @sip_target.setter
    def sip_target(self, target: tuple[str, int]) -> None:
        self.phones.target = target

    async def start(self) -> float:
        """Start the gateway; returns the seconds until it was ready."""
        return await self._subject.start()

    async def stop(self) -> None:
        await self._subject.stop()
        self.phones.close()
        self.consumers.close()
