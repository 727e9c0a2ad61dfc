"""A call through a relay with ourselves: packets from one end must arrive at the other, and back."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from dataclasses import dataclass
from typing import Any, Protocol

from isthmus.errors import RelayError
from isthmus.interworking.relay_commands import deletion, negotiation
from isthmus.interworking.relay_descriptions import from_relay
from isthmus.model import MediaForm
from isthmus.net.rtpengine_ng import NgAddress
from isthmus.sdp.session_description import Attribute, MediaDescription, SessionDescription, SessionOrigin

PACKETS = 25
INTERVAL_SECONDS = 0.02
# What is on its way when the last one was sent; a relay in another country is still well below it.
LATE_SECONDS = 0.5
_SILENCE = b"\xff" * 160  # 20 ms of PCMU


class Asker(Protocol):
    """The control connection of a relay."""

    async def ask(self, command: dict[str, Any]) -> Any:
        """Send a command. Raises RelayError."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What came of it: packets heard at each end of `sent`, and where the relay took them."""

    sent: int
    heard: tuple[int, int]
    target: str

    @property
    def is_whole(self) -> bool:
        """All but one in ten arrived at both ends: more is lost on a bad line, not by a firewall."""
        return min(self.heard) * 10 >= self.sent * 9

    @property
    def is_nothing(self) -> bool:
        """Nothing arrived at one end."""
        return not min(self.heard)

    def __str__(self) -> str:
        return f"{self.heard[0]} and {self.heard[1]} of {self.sent} packets came through"


class _End(asyncio.DatagramProtocol):
    """One of our two ends; `mark` is its SSRC."""

    def __init__(self, mark: int, other: int) -> None:
        self.mark = mark
        self.numbers: set[int] = set()
        self.has_all = asyncio.Event()
        self._other = other

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if len(data) != 12 + len(_SILENCE) or struct.unpack_from("!I", data, 8)[0] != self._other:
            return
        self.numbers.add(struct.unpack_from("!H", data, 2)[0])
        if len(self.numbers) == PACKETS:
            self.has_all.set()

    async def open(self, host: str) -> asyncio.DatagramTransport:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=(host, 0))
        return transport


class LoopbackCall:
    """One such call.

    Args:
        asker: the relay's control connection.
        control: its address; our end of the way there is where we are.
        target: address that packets are sent to; "": where the relay's descriptions say. A relay that tells people a
            public address is often not reached by it from its own machine.
    """

    def __init__(self, asker: Asker, control: NgAddress, *, target: str = "") -> None:
        self._asker = asker
        self._way = target.strip("[]") or control.host
        self._target = target.strip("[]")
        self._call_id = f"isthmus-doctor-{secrets.token_hex(8)}"

    async def run(self) -> Carried:
        """Make the call and end it.

        Raises:
            RelayError: the relay refuses, or says what cannot be understood.
            SdpError: as above.
            OSError: there is no way to it.
        """
        with socket.socket(socket.AF_INET6 if ":" in self._way else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((self._way, 9))  # sends nothing, but tells which address of ours is on the way
            here: str = probe.getsockname()[0]
        marks = secrets.randbits(32), secrets.randbits(32)
        ends = _End(*marks), _End(*reversed(marks))
        transports = [await end.open(here) for end in ends]
        try:
            places = await self._negotiate(here, [one.get_extra_info("sockname")[1] for one in transports])
            for number in range(PACKETS):
                for end, transport, place in zip(ends, transports, places, strict=True):
                    head = struct.pack("!BBHII", 0x80, 0, number, number * 160, end.mark)
                    transport.sendto(head + _SILENCE, place)
                await asyncio.sleep(INTERVAL_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATE_SECONDS):
                    await asyncio.gather(*(end.has_all.wait() for end in ends))
        finally:
            for transport in transports:
                transport.close()
            with contextlib.suppress(RelayError):
                await self._asker.ask(deletion(self._call_id))
        return Carried(PACKETS, (len(ends[0].numbers), len(ends[1].numbers)), places[0][0])

    async def _negotiate(self, here: str, ports: list[int]) -> list[tuple[str, int]]:
        """Return where each end must send to."""
        offered = await self._rewritten("offer", _description(here, ports[0]))
        answered = await self._rewritten("answer", _description(here, ports[1]))
        return [self._place(answered), self._place(offered)]

    async def _rewritten(self, step: Any, sdp: SessionDescription) -> SessionDescription:
        form = MediaForm.RTP
        reply = await self._asker.ask(
            negotiation(
                step,
                call_id=self._call_id,
                offerer="one",
                answerer="other",
                sdp=sdp.to_text(),
                source=form,
                target=form,
            )
        )
        return from_relay(SessionDescription.parse(str(reply.get("sdp", ""))), target=form)

    def _place(self, sdp: SessionDescription) -> tuple[str, int]:
        if not sdp.media or not sdp.media[0].port:
            raise RelayError("the relay rejects the medium")
        return self._target or sdp.address(sdp.media[0]), sdp.media[0].port


def _description(host: str, port: int) -> SessionDescription:
    family = "IP6" if ":" in host else "IP4"
    section = MediaDescription("audio", port, "RTP/AVP", ("0",), attributes=(Attribute("rtpmap", "0 PCMU/8000"),))
    return SessionDescription(
        origin=SessionOrigin(address_type=family, address=host),
        connection=f"IN {family} {host}",
        media=(section.with_direction("sendrecv"),),
    )
