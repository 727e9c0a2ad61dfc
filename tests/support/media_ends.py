"""Two kinds of ends for media, without any signalling: a phone that speaks RTP, and a browser (aiortc)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import secrets
import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from numpy.typing import NDArray
from pylibsrtp import Policy, Session

from isthmus.sdp.session_description import SessionDescription
from tests.support.jingle_media import Camera, Senses, Voice, use_addresses
from tests.support.tones import NOTHING, Sound, tone

_NAMES = {0: "PCMU/8000", 8: "PCMA/8000", 9: "G722/8000", 101: "telephone-event/8000", 111: "opus/48000/2"}
_PACKET = 160  # samples in 20 ms
_CLOSED = "the phone was not opened"


def encode_ulaw(samples: NDArray[np.int16]) -> bytes:
    """G.711 mu-law (ITU-T G.711 table 2a)."""
    magnitude = np.minimum(np.abs(samples.astype(np.int32)), 32_635) + 132
    exponent = np.maximum(np.floor(np.log2(magnitude)).astype(np.int32) - 7, 0)
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    octets = ~((samples < 0) * 0x80 | exponent << 4 | mantissa) & 0xFF
    return bytes(octets.astype(np.uint8).tobytes())


def decode_ulaw(data: bytes) -> NDArray[np.float64]:
    """The inverse of `encode_ulaw`."""
    octets = ~np.frombuffer(data, np.uint8).astype(np.int32) & 0xFF
    magnitude = (((octets & 0x0F) << 3) + 132) << ((octets & 0x70) >> 4)
    return np.where(octets & 0x80, 132 - magnitude, magnitude - 132).astype(np.float64)


class RtpPhone(asyncio.DatagramProtocol):
    """Speaks a tone in PCMU and hears PCMU; what is in other codecs is only counted.

    Attributes:
        received: payload types in the order of arrival.
        sources: where packets came from.
    """

    def __init__(self, hertz: float, codecs: Sequence[int] = (0, 101)) -> None:
        self.hertz = hertz
        self.codecs = codecs
        self.received: list[int] = []
        self.sources: set[tuple[str, int]] = set()
        self.ssrcs: set[int] = set()
        self._heard = b""
        self._port = 0
        self._peer: tuple[str, int] | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._speaking: asyncio.Task[None] | None = None
        self.ssrc = random.getrandbits(32)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self._port = self._transport.get_extra_info("sockname")[1]

    def describe(self, codecs: Sequence[int] = (), direction: str = "sendrecv") -> SessionDescription:
        """What it says of itself, as an offer or an answer."""
        chosen = codecs or self.codecs
        lines = ["v=0", "o=- 7 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
        lines += [f"m=audio {self._port} RTP/AVP {' '.join(map(str, chosen))}"]
        lines += [f"a=rtpmap:{codec} {_NAMES[codec]}" for codec in chosen]
        return SessionDescription.parse("\r\n".join([*lines, f"a={direction}"]) + "\r\n")

    def speak_to(self, sdp: SessionDescription) -> None:
        """Send to where this description says, from now on."""
        self._peer = sdp.address(sdp.media[0]), sdp.media[0].port
        if self._speaking is None:
            self._speaking = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        assert self._transport is not None, _CLOSED
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(50_000):
            payload = encode_ulaw(tone(self.hertz, 0.02, 8_000, start=number * _PACKET))
            head = struct.pack("!BBHII", 0x80, 0, number & 0xFFFF, number * _PACKET, self.ssrc)
            self._transport.sendto(self._sent(head + payload), self._peer)
            await asyncio.sleep(max(0.0, began + (number + 1) * 0.02 - loop.time()))

    def _sent(self, packet: bytes) -> bytes:
        return packet

    async def be_silent(self) -> None:
        """Send nothing more, as a phone whose battery is empty."""
        if self._speaking is not None:
            self._speaking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._speaking
            self._speaking = None

    async def close(self) -> None:
        await self.be_silent()
        if self._transport is not None:
            self._transport.close()

    def heard(self) -> Sound:
        return Sound(decode_ulaw(self._heard), 8_000) if self._heard else NOTHING

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) > 12 and data[1] & 0x7F not in range(72, 77):  # RTCP on the same port (RFC 5761 section 4)
            self.received.append(data[1] & 0x7F)
            self.sources.add(addr)
            self.ssrcs.add(struct.unpack_from("!I", data, 8)[0])
            if data[1] & 0x7F == 0:
                self._heard = (self._heard + data[12:])[-80_000:]


class SdesPhone(RtpPhone):
    """The same with SRTP, and the keys in the description (RFC 4568)."""

    def __init__(self, hertz: float) -> None:
        super().__init__(hertz)
        self._key = secrets.token_bytes(30)
        self._outbound = Session(Policy(key=self._key, ssrc_type=Policy.SSRC_ANY_OUTBOUND))
        self._inbound: Session | None = None

    def describe(self, codecs: Sequence[int] = (), direction: str = "sendrecv") -> SessionDescription:
        plain = super().describe(codecs, direction)
        key = base64.b64encode(self._key).decode()
        section = plain.media[0].with_attributes({"crypto": f"1 AES_CM_128_HMAC_SHA1_80 inline:{key}"})
        return plain.with_media([replace(section, protocol="RTP/SAVP")])

    def speak_to(self, sdp: SessionDescription) -> None:
        chosen = next(value for value in sdp.media[0].values_of("crypto") if "AES_CM_128_HMAC_SHA1_80" in value)
        key = base64.b64decode(chosen.partition("inline:")[2].partition("|")[0])
        self._inbound = Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_INBOUND))
        super().speak_to(sdp)

    def _sent(self, packet: bytes) -> bytes:
        return bytes(self._outbound.protect(packet))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._inbound is not None and data[1] & 0x7F not in range(72, 77):
            super().datagram_received(bytes(self._inbound.unprotect(data)), addr)


class Browser:
    """Speaks a tone through ICE, DTLS-SRTP and Opus (or what is agreed)."""

    def __init__(self, hertz: float, *, has_camera: bool = False, codecs: Sequence[str] = ()) -> None:
        use_addresses("127.0.0.1")
        self.connection = RTCPeerConnection()
        self.senses = Senses()
        self._tasks: list[asyncio.Task[None]] = []
        self.connection.on("track", lambda track: self._tasks.append(asyncio.create_task(self.senses.follow(track))))
        self.connection.addTrack(Voice(hertz))
        if codecs:
            known = RTCRtpSender.getCapabilities("audio").codecs
            chosen = [codec for codec in known if codec.mimeType.partition("/")[2] in codecs]
            self.connection.getTransceivers()[0].setCodecPreferences(chosen)
        if has_camera:
            self.connection.addTrack(Camera())

    def heard(self) -> Sound:
        return self.senses.heard()

    async def offer(self) -> SessionDescription:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return SessionDescription.parse(self.connection.localDescription.sdp)

    async def answer(self, offer: SessionDescription) -> SessionDescription:
        await self.connection.setRemoteDescription(RTCSessionDescription(offer.to_text(), "offer"))
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        return SessionDescription.parse(self.connection.localDescription.sdp)

    async def take_answer(self, answer: SessionDescription) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer.to_text(), "answer"))

    async def close(self) -> None:
        await self.connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
