"""baresip, an unmodified SIP user agent, run headless and steered over its control port (JSON in netstrings)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.processes import Process, free_port, wait_until

_CONFIGURATION = """\
sip_listen 127.0.0.1:{sip_port}
net_interface 127.0.0.1
poll_method epoll
call_max_calls 4
audio_player aubridge,sink
audio_source ausine,440
audio_alert aubridge,alert
ausrc_srate 48000
ausrc_channels 2
rtp_ports 26000-26400
module_path /usr/lib/baresip/modules
module g711.so
module aubridge.so
module ausine.so
module uuid.so
module_tmp account.so
module_app contact.so
module_app menu.so
module_app presence.so
module_app debug_cmd.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control_port}
"""


@dataclass
class Baresip:
    """One running user agent.

    Args:
        folder: empty directory for its profile.
        address: `ana@corp.test`.
        proxy: where to register, e.g. `127.0.0.1:5060`; "" for one that is called at its own address.
        transport: udp or tcp.
        contacts: addresses whose presence it watches.
    """

    folder: Path
    address: str
    password: str
    proxy: str
    transport: str = "udp"
    contacts: tuple[str, ...] = ()
    register_seconds: int = 60
    publish_seconds: int = 0
    process: Process = field(init=False)
    sip_port: int = field(init=False, default=0)
    events: list[dict[str, Any]] = field(init=False, default_factory=list)
    _writer: asyncio.StreamWriter = field(init=False)
    _listening: asyncio.Task[None] | None = field(init=False, default=None)
    _answers: asyncio.Queue[str] = field(init=False, default_factory=asyncio.Queue)
    _happened: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    async def start(self, *, is_registering: bool = True) -> None:
        """Start and, unless told otherwise, wait for the registration to succeed."""
        self.sip_port, control_port = free_port(), free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "accounts").write_text(self.account() + "\n")
        (self.folder / "contacts").write_text(
            "".join(f'"{c.partition("@")[0]}" <sip:{c}>;presence=p2p\n' for c in self.contacts)
        )
        (self.folder / "config").write_text(self.configuration(control_port))
        self.process = Process(["baresip", "-4", "-v", "-s", "-f", str(self.folder)], self.folder / "output.log")
        await self.process.start()
        reader, self._writer = await self._connect(control_port)
        self._listening = asyncio.create_task(self._listen(reader))
        if is_registering and self.proxy:
            await self.process.wait_for_output("200 OK")

    def account(self) -> str:
        """The line of its account file."""
        user = self.address.partition("@")[0]
        account = f"<sip:{self.address};transport={self.transport}>;auth_user={user};auth_pass={self.password}"
        if self.proxy:
            account += f';outbound="sip:{self.proxy};transport={self.transport}";regint={self.register_seconds}'
        else:
            account += ";regint=0"
        if self.publish_seconds:
            account += f";pubint={self.publish_seconds}"
        return account

    def configuration(self, control_port: int) -> str:
        """The text of its configuration file."""
        return _CONFIGURATION.format(sip_port=self.sip_port, control_port=control_port)

    async def _connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async def attempt() -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return None

        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] = await wait_until(
            attempt, "baresip's control port", detail=lambda: self.process.output()[-2000:]
        )
        return streams

    async def command(self, name: str, parameters: str = "") -> str:
        """Run a command of its menu and return what it prints."""
        request = json.dumps({"command": name, "params": parameters, "token": "t"}).encode()
        self._writer.write(b"%d:%b," % (len(request), request))
        await self._writer.drain()
        return await asyncio.wait_for(self._answers.get(), 10)

    async def expect(self, *types: str, seconds: float = 15.0, parameter: str = "") -> dict[str, Any]:
        """Return and take the first event of one of these types, now or when it comes; earlier ones are dropped.

        Args:
            types: names as baresip gives them, `CALL_ESTABLISHED`.
            parameter: what its `param` must hold.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for position, event in enumerate(self.events):
                        if event["type"] in types and parameter in event.get("param", ""):
                            del self.events[: position + 1]
                            return event
                    self._happened.clear()
                    await self._happened.wait()
        except TimeoutError:
            had = [(event["type"], event.get("param", "")) for event in self.events]
            raise AssertionError(f"baresip: waited {seconds:g} s for {types} {parameter}; had {had}") from None

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int((await reader.readuntil(b":"))[:-1])
                told: dict[str, Any] = json.loads((await reader.readexactly(length + 1))[:-1])
                if told.get("response"):
                    self._answers.put_nowait(str(told.get("data", "")))
                elif told.get("type") != "CALL_RTCP":  # every few seconds, and nobody waits for one
                    self.events.append(told)
                    self._happened.set()

    async def send_message(self, to: str, text: str) -> None:
        """Send a pager-mode MESSAGE to a contact (it must be in the contact list)."""
        await self.select_contact(to)
        await self.command("message", text)

    async def select_contact(self, address: str) -> None:
        """Make `address` the current contact."""
        for _ in range(len(self.contacts) + 1):
            current = await self.command("contact_next")
            if address in current:
                return
        raise AssertionError(f"{address} is not among baresip's contacts: {await self.command('contacts')}")

    async def presence_of(self, address: str) -> str:
        """What its contact list shows for an address: Online, Offline, Busy, Away or Unknown."""
        listing = re.sub(r"\x1b\[[0-9;]*m", "", await self.command("contacts"))
        for line in listing.splitlines():
            if address in line:
                found = re.search(r"\b(Online|Offline|Busy|Away|Unknown)\b", line)
                return found[1] if found else ""
        return ""

    async def wait_for_presence(self, address: str, wanted: str, timeout_seconds: float = 15.0) -> None:
        """Return when the contact list shows `wanted` for `address`."""

        async def shown() -> bool:
            return await self.presence_of(address) == wanted

        await wait_until(shown, f"baresip to show {address} as {wanted}", timeout_seconds, detail=self.seen)

    def seen(self) -> str:
        """What it printed lately, without the echo of our own commands."""
        lines = [line for line in self.process.output().splitlines() if "ctrl_tcp" not in line]
        return "\n".join(lines[-80:])

    async def wait_for_message(self, text: str, *, timeout_seconds: float = 15.0, after: int = 0) -> None:
        """Return when a received message with this text was printed."""
        await self.process.wait_for_output(text, timeout_seconds=timeout_seconds, after=after)

    async def stop(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self._writer.close()
        await self.process.stop()
        if self._listening is not None:
            await self._listening
