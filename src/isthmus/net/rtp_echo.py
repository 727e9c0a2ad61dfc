"""The end of a call that plays back what it hears: an RTP socket behind the media relay, for the echo address.

It knows no codec: packets go back as they came, a moment later, under a source identifier of our own, because a client
that finds its own takes them for a loop and drops them (RFC 3550 section 8.2).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from isthmus.errors import RelayError
from isthmus.sdp.offer_answer import common_codecs, mirrored, next_version, rejecting
from isthmus.sdp.session_description import (
    Attribute,
    Codec,
    MediaDescription,
    SdpError,
    SessionDescription,
    SessionOrigin,
)

# Long enough to tell the echo from one's own voice.
DELAY_SECONDS = 0.4
# Each holds a socket and the packets of the delay; somebody who tries a phone does not need more.
MAXIMUM_CALLS = 50
# Sound is 50 packets a second; what comes faster is no sound, and is not sent back.
MAXIMUM_WAITING = 100
# Larger than any packet of sound, and what a network carries in one piece.
MAXIMUM_OCTETS = 1_500
# A caller has a new source after a hold or a transfer, but not with every packet.
MAXIMUM_SOURCES = 16

_HEADER_OCTETS = 12
_RTCP_TYPES = range(192, 224)  # RFC 5761 section 4


class EchoedStream:
    """Rewrites the packets of one caller; no I/O.

    Args:
        new_source: returns 32 random bits.
    """

    def __init__(self, new_source: Callable[[], int]) -> None:
        self._new_source = new_source
        self._sources: dict[int, int] = {}

    def echo(self, packet: bytes) -> bytes | None:
        """Return what to send back, None for what is no RTP (RFC 3550 section 5.1) or too much."""
        if not _HEADER_OCTETS < len(packet) <= MAXIMUM_OCTETS or packet[0] >> 6 != 2 or packet[1] in _RTCP_TYPES:
            return None
        (source,) = struct.unpack_from("!I", packet, 8)
        if source not in self._sources:
            if len(self._sources) >= MAXIMUM_SOURCES:
                return None
            self._sources[source] = self._new_source()
        return packet[:8] + struct.pack("!I", self._sources[source]) + packet[_HEADER_OCTETS:]


class EchoCall:
    """One call to the echo.

    Args:
        socket: what plays back.
        host: the address it is on.
        ended: called once when the call is over.
    """

    def __init__(self, socket: EchoSocket, host: str, ended: Callable[[EchoCall], None]) -> None:
        self._socket = socket
        self._host = host
        self._ended = ended
        self._last: SessionDescription | None = None

    def answer(self, offer: SessionDescription) -> SessionDescription:
        """Answer an offer, the first or one that changes the media. Raises SdpError."""
        index, codecs = _sound(offer)
        made = _answer(offer, index, codecs, self._host, self._socket.port)
        self._last = made if self._last is None else next_version(made, self._last)
        return self._last

    def close(self) -> None:
        """End it; harmless when it has ended."""
        self._socket.close()
        self._ended(self)


class RtpEcho:
    """Answers offers of plain RTP.

    Args:
        delay_seconds: how much later the voice comes back.
    """

    def __init__(self, *, delay_seconds: float = DELAY_SECONDS) -> None:
        self._delay_seconds = delay_seconds
        self._calls: set[EchoCall] = set()

    @property
    def calls(self) -> int:
        """How many there are now."""
        return len(self._calls)

    async def open(self, offer: SessionDescription) -> EchoCall:
        """Take a call; its `answer` to the offer is the next step.

        Args:
            offer: with RTP/AVP, as the relay writes it.

        Raises:
            SdpError: there is no sound in it that could be played back.
            RelayError: too many calls, or the relay's address is on no network of ours.
        """
        index, _ = _sound(offer)
        if len(self._calls) >= MAXIMUM_CALLS:
            raise RelayError("too many people listen to their echo")
        host = _our_address(offer.address(offer.media[index]))
        socket = EchoSocket(self._delay_seconds)
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: socket, local_addr=(host, 0))
        except OSError as error:
            raise RelayError(f"the echo cannot listen on {host}: {error.strerror}") from error
        call = EchoCall(socket, host, self._calls.discard)
        self._calls.add(call)
        return call

    def close(self) -> None:
        """End all calls."""
        for call in tuple(self._calls):
            call.close()


class EchoSocket(asyncio.DatagramProtocol):
    """The socket of one call; it belongs to whoever sends first, which is the relay: nobody else knows it."""

    def __init__(self, delay_seconds: float) -> None:
        self._delay_seconds = delay_seconds
        self._stream = EchoedStream(lambda: secrets.randbits(32))
        self._peer: tuple[str | Any, int] | None = None
        self._waiting: set[asyncio.TimerHandle] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)  # not a subclass of it in asyncio
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Send it back, a moment later."""
        self._peer = self._peer or addr
        echoed = self._stream.echo(data) if addr == self._peer else None
        if echoed is None or len(self._waiting) >= MAXIMUM_WAITING:
            return

        def send() -> None:
            self._waiting.discard(handle)
            if self._transport is not None:
                self._transport.sendto(echoed, addr)

        handle = asyncio.get_running_loop().call_later(self._delay_seconds, send)
        self._waiting.add(handle)

    def close(self) -> None:
        """Send nothing more; harmless when closed."""
        for handle in self._waiting:
            handle.cancel()
        self._waiting.clear()
        if self._transport is not None:
            self._transport.close()
            self._transport = None


def _sound(offer: SessionDescription) -> tuple[int, tuple[Codec, ...]]:
    """Return the index of the section that is played back, and the codec that was offered first."""
    for index, section in enumerate(offer.media):
        if section.media != "audio" or section.is_rejected or section.protocol.upper() not in {"RTP/AVP", "RTP/AVPF"}:
            continue
        voices = common_codecs(section, section)  # without those that carry no sound by themselves
        if voices:
            events = (codec for codec in section.codecs if codec.name.lower() == "telephone-event")
            return index, (voices[0], *(event for event in events if event.clock_rate == voices[0].clock_rate))
    raise SdpError("there is no sound in the offer that could be played back")


def _our_address(relay: str) -> str:
    """Return the address of ours that is on the way to the relay."""
    with socket.socket(socket.AF_INET6 if ":" in relay else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((relay, 9))  # sends nothing
        except OSError as error:
            raise RelayError(f"there is no way to the media relay at {relay}: {error.strerror}") from error
        found: str = probe.getsockname()[0]
        return found


def _answer(
    offer: SessionDescription, index: int, codecs: tuple[Codec, ...], host: str, port: int
) -> SessionDescription:
    lines: list[Attribute] = []
    for codec in codecs:
        channels = f"/{codec.channels}" if codec.channels != 1 else ""
        lines.append(Attribute("rtpmap", f"{codec.payload_type} {codec.name}/{codec.clock_rate}{channels}"))
        if codec.parameters:
            lines.append(Attribute("fmtp", f"{codec.payload_type} {codec.parameters}"))
    lines.append(Attribute("rtcp", str(port)))  # one socket takes both; reports are not answered
    offered = offer.media[index]
    formats = tuple(str(codec.payload_type) for codec in codecs)
    section = MediaDescription("audio", port, offered.protocol, formats, attributes=tuple(lines))
    sections = [rejecting(other) for other in offer.media]
    sections[index] = section.with_direction(mirrored(offer.direction(offered)))
    family = "IP6" if ":" in host else "IP4"
    return SessionDescription(
        origin=SessionOrigin(session_id=str(secrets.randbits(48)), version=1, address_type=family, address=host),
        connection=f"IN {family} {host}",
        media=tuple(sections),
    )
