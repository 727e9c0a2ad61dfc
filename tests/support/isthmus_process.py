"""A whole Isthmus as its users run it: `isthmus serve` in an own data directory with its own Prosody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from isthmus.admin.client import ControlClient
from tests.support.baresip import Baresip
from tests.support.certificates import IssuedCertificate
from tests.support.processes import Process, free_port, wait_until
from tests.support.xmpp_client import XmppClient

PASSWORD = "correct-horse-battery"


class IsthmusProcess:
    """One installation.

    Args:
        folder: empty directory; the data directory is made in it.
        settings: lines of TOML put at the end of isthmus.toml (further domains, limits).
        environment: further `ISTHMUS_...` settings, which win over ours.
        xmpp_interface: loopback address of the embedded Prosody's client and server ports.
        tls: serve SIP over TLS and wss as well, with this certificate.
    """

    def __init__(
        self,
        folder: Path,
        settings: str = "",
        *,
        domain: str = "corp.test",
        environment: Mapping[str, str] | None = None,
        xmpp_interface: str = "127.0.0.1",
        tls: IssuedCertificate | None = None,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.domain = domain
        self.settings = settings
        self.xmpp_interface = xmpp_interface
        self.sip_port, self.ws_port = free_port(), free_port()
        self.tls_port, self.wss_port = free_port(), free_port()
        self.c2s_port, self.component_port = free_port(), free_port()
        self.s2s_port, self.http_port, self.web_port = free_port(), free_port(), free_port()
        self.relay_port, self.turn_port = free_port(), free_port()
        self.environment = {
            "ISTHMUS_DATA": str(self.data),
            "ISTHMUS_XMPP__INTERFACE": xmpp_interface,
            "ISTHMUS_XMPP__C2S_PORT": str(self.c2s_port),
            "ISTHMUS_XMPP__S2S_PORT": str(self.s2s_port),
            "ISTHMUS_XMPP__COMPONENT_PORT": str(self.component_port),
            "ISTHMUS_XMPP__WEBSOCKET_PORT": str(self.http_port),
            "ISTHMUS_WEB__PORT": str(self.web_port),
            "ISTHMUS_MEDIA__CONTROL_PORT": str(self.relay_port),
            "ISTHMUS_TURN__PORT": str(self.turn_port),
            "ISTHMUS_SIP__LISTENERS": json.dumps(
                [
                    {"transport": "udp", "host": "127.0.0.1", "port": self.sip_port},
                    {"transport": "tcp", "host": "127.0.0.1", "port": self.sip_port},
                    {"transport": "ws", "host": "127.0.0.1", "port": self.ws_port},
                    *([{"transport": "tls", "host": "127.0.0.1", "port": self.tls_port}] if tls else []),
                    *([{"transport": "wss", "host": "127.0.0.1", "port": self.wss_port}] if tls else []),
                ]
            ),
            **(_tls_settings(tls) if tls else {}),
            **(environment or {}),
        }
        self.process = self._process()

    def _process(self) -> Process:
        command = [sys.executable, "-m", "isthmus.cli", "serve"]
        return Process(command, self.folder / "isthmus.log", environment=self.environment)

    async def initialise(self) -> None:
        """Make the data directory with its configuration unless it is there."""
        if not (self.data / "isthmus.toml").exists():
            await self.cli("init", "--domain", self.domain)
            with (self.data / "isthmus.toml").open("a") as configuration:
                configuration.write(self.settings)

    def install_certificate(self, domain: str, issued: IssuedCertificate) -> None:
        """Put a certificate in the place of the one that the embedded Prosody would make for itself."""
        folder = self.data / "prosody" / "certificates"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(issued.certificate, folder / f"{domain}.crt")
        shutil.copy(issued.private_key, folder / f"{domain}.key")

    async def start(self) -> None:
        """Initialise if new, start, and wait until everything is up."""
        await self.initialise()
        # Removed here already: after a crash the file of the run before would still be there.
        (self.data / "ready").unlink(missing_ok=True)
        await self.process.start()
        await wait_until(
            lambda: (self.data / "ready").exists() or not self.process.is_running,
            "isthmus to be ready",
            30,
            detail=self.process.output,
        )
        assert self.process.is_running, self.process.output()

    async def stop(self) -> int:
        return await self.process.stop(timeout_seconds=20)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[IsthmusProcess]:
        """Started, and stopped at the end whatever happens, a failed start included."""
        try:
            await self.start()
            yield self
        finally:
            await self.stop()

    async def kill(self) -> None:
        """`kill -9`; Prosody stays up, as after a crash."""
        await self.process.kill()

    async def restart(self) -> None:
        """Stop cleanly and start again."""
        await self.stop()
        await self.start()

    async def prosody_pid(self, *, after: int = 0, timeout_seconds: float = 15.0) -> int:
        """The process that Prosody's own file names, another one than `after`.

        Waits while Prosody is between making the file and filling it. Never 0: to a signal that would be all of us.
        """

        def look() -> int | None:
            try:
                found = int((self.data / "prosody" / "prosody.pid").read_text() or 0)
            except FileNotFoundError:
                return None
            return found if found not in (0, after) else None

        pid: int = await wait_until(look, "Prosody to run", timeout_seconds, detail=self.process.output)
        return pid

    async def cli(self, *arguments: str, check: bool = True) -> str:
        """Run `isthmus ARGUMENTS` and return what it prints."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "isthmus.cli",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self.environment},
        )
        output, _ = await child.communicate()
        text = output.decode()
        assert not check or child.returncode == 0, f"isthmus {' '.join(arguments)}: {child.returncode}\n{text}"
        return text

    async def cli_json(self, *arguments: str) -> Any:
        return json.loads(await self.cli(*arguments, "--json"))

    async def add_people(self, *users: str, consumers: tuple[str, ...] = ()) -> None:
        """Make accounts with the password `PASSWORD`, over the control socket like the command line."""
        for user in users:
            await self.operation("user.add", address=user, password=PASSWORD)
        for consumer in consumers:
            await self.operation("consumer.add", address=consumer, password=PASSWORD)

    async def operation(self, operation: str, /, **arguments: object) -> Any:
        """Run one operation of the running server; quicker than starting a program for it."""
        return await asyncio.to_thread(ControlClient(self.data).call, operation, arguments)

    def phone(self, address: str, *contacts: str, transport: str = "udp", publish_seconds: int = 60) -> Baresip:
        """A baresip for this user, with these people in its contact list."""
        name = f"{address.partition('@')[0]}-{transport}-{free_port()}"
        return Baresip(
            self.folder / name,
            address,
            PASSWORD,
            f"127.0.0.1:{self.tls_port if transport == 'tls' else self.sip_port}",
            transport=transport,
            contacts=contacts,
            publish_seconds=publish_seconds,
        )

    def app(self, jid: str) -> XmppClient:
        """An XMPP client for this account (with resource)."""
        return XmppClient(jid, PASSWORD, self.xmpp_interface, self.c2s_port)


def _tls_settings(issued: IssuedCertificate) -> dict[str, str]:
    return {
        "ISTHMUS_SIP__TLS__CERTIFICATE": str(issued.certificate),
        "ISTHMUS_SIP__TLS__PRIVATE_KEY": str(issued.private_key),
    }
