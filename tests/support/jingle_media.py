"""Real media for the Jingle test client: ICE, DTLS-SRTP, RTP and codecs of aiortc, by its objects instead of SDP."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import functools
import threading
from collections.abc import Sequence
from types import SimpleNamespace

import aioice.ice
import aiortc.rtcrtpreceiver
import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceServer,
    RTCIceTransport,
    RTCRtpReceiver,
    RTCRtpSender,
)
from aiortc.codecs import CODECS
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtpCodecParameters,
    RTCRtpReceiveParameters,
    RTCRtpSendParameters,
)
from aiortc.rtcrtpreceiver import RemoteStreamTrack

from tests.support.jingle_xml import Candidate, Payload, Transport
from tests.support.tones import NOTHING, Sound, tone

_RATE = 48_000
_FRAME = 960  # samples in 20 ms
_FRAMES_PER_SECOND = 15
_KEPT_FRAMES = 500  # ten seconds of sound; plays look at the last half second
_CLOSING_SECONDS = 6.0  # gathering takes five at most, everything else is local

# aiortc decodes in threads that the interpreter would wait for at its end, whether anybody stops them or not: a play
# that broke off must end all the same.
_threading = SimpleNamespace(Thread=functools.partial(threading.Thread, daemon=True), Event=threading.Event)
aiortc.rtcrtpreceiver.threading = _threading  # type: ignore[assignment, attr-defined]


def use_addresses(*addresses: str) -> None:
    """Let ICE gather at these addresses alone. aioice leaves loopback out, and an address of the machine may change."""
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: list(addresses)


class Voice(MediaStreamTrack):
    """A sine tone as a microphone. `is_muted` makes it silent; `is_paused` sends nothing at all."""

    kind = "audio"

    def __init__(self, hertz: float) -> None:
        super().__init__()
        self.hertz = hertz
        self.is_muted = False
        self.is_paused = False
        self._sent = 0
        self._started_at = 0.0

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        self._started_at = self._started_at or loop.time()
        while True:
            await asyncio.sleep(max(0.0, self._started_at + self._sent / _RATE - loop.time()))
            if self.readyState != "live":
                raise MediaStreamError
            start, self._sent = self._sent, self._sent + _FRAME
            if not self.is_paused:
                break
        samples = tone(self.hertz, _FRAME / _RATE, _RATE, start=start)
        frame = av.AudioFrame.from_ndarray((samples * (not self.is_muted)).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _RATE, start, fractions.Fraction(1, _RATE)
        return frame


class Camera(MediaStreamTrack):
    """A picture of 320 by 240 whose brightness wanders."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self.is_muted = False
        self.is_paused = False
        self._sent = 0
        self._started_at = 0.0

    async def recv(self) -> av.VideoFrame:
        loop = asyncio.get_running_loop()
        self._started_at = self._started_at or loop.time()
        while True:
            await asyncio.sleep(max(0.0, self._started_at + self._sent / _FRAMES_PER_SECOND - loop.time()))
            if self.readyState != "live":
                raise MediaStreamError
            self._sent += 1
            if not self.is_paused:
                break
        luma = 0 if self.is_muted else (self._sent * 8) % 256
        picture = np.full((240, 320, 3), luma, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = self._sent * 90_000 // _FRAMES_PER_SECOND
        frame.time_base = fractions.Fraction(1, 90_000)
        return frame


class Senses:
    """What arrived: the sound of the last seconds, and how many pictures."""

    def __init__(self) -> None:
        self.pictures = 0
        self._pieces: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = []
        self._rate = _RATE

    def heard(self) -> Sound:
        return Sound(np.concatenate(self._pieces), self._rate) if self._pieces else NOTHING

    async def follow(self, track: MediaStreamTrack) -> None:
        """Take everything of a track until it ends."""
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, av.VideoFrame):
                self.pictures += 1
            elif isinstance(frame, av.AudioFrame):
                self._take(frame)

    def _take(self, frame: av.AudioFrame) -> None:
        if frame.sample_rate != self._rate:
            self._pieces, self._rate = [], frame.sample_rate
        samples = frame.to_ndarray().reshape(-1)[:: len(frame.layout.channels)]
        self._pieces.append(samples.astype(np.float64))
        del self._pieces[:-_KEPT_FRAMES]


class Path:
    """One ICE and DTLS transport.

    Args:
        servers: STUN and TURN servers.
        is_relayed: gather nothing but addresses at TURN servers.
        is_controlling: the side that called.
    """

    def __init__(
        self,
        certificate: RTCCertificate,
        servers: Sequence[RTCIceServer],
        *,
        is_relayed: bool,
        is_controlling: bool,
    ) -> None:
        policy = RTCIceTransportPolicy.RELAY if is_relayed else RTCIceTransportPolicy.ALL
        self.gatherer = RTCIceGatherer(list(servers), policy)
        self.ice = RTCIceTransport(self.gatherer)
        self.ice._connection.ice_controlling = is_controlling
        self.dtls = RTCDtlsTransport(self.ice, [certificate])
        self.remote = Transport()
        self.setup = ""  # our DTLS role, once it is settled
        self.has_connected = asyncio.Event()
        self._has_candidate = asyncio.Event()
        self._gathering: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def local(self, setup: str, *, has_candidates: bool = True) -> Transport:
        """What to tell the other side."""
        if self._gathering is None:
            self._gathering = asyncio.create_task(self.gatherer.gather())
        await asyncio.shield(self._gathering)  # broken off half way, its sockets would be nobody's
        parameters = self.gatherer.getLocalParameters()
        return Transport(
            user=parameters.usernameFragment or "",
            password=parameters.password or "",
            fingerprints=tuple(
                (print_.algorithm, print_.value)
                for print_ in self.dtls.getLocalParameters().fingerprints
                if print_.algorithm == "sha-256"
            ),
            setup=setup,
            candidates=self.candidates() if has_candidates else (),
        )

    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(
                c.foundation,
                c.component,
                c.protocol,
                c.priority,
                c.ip,
                c.port,
                c.type,
                c.relatedAddress or "",
                c.relatedPort or 0,
            )
            for c in self.gatherer.getLocalCandidates()
        )

    async def take(self, remote: Transport) -> None:
        """Take what the other side told: credentials once, candidates as they come."""
        if remote.user and not self.remote.user:
            self.remote = remote
        for c in remote.candidates:
            if c.component != 1 or c.protocol.lower() != "udp":
                continue  # RTCP is multiplexed, and aiortc has no TCP
            await self.ice.addRemoteCandidate(
                RTCIceCandidate(
                    c.component,
                    c.foundation,
                    c.address,
                    c.port,
                    c.priority,
                    "udp",
                    c.type,
                    c.related_address or None,
                    c.related_port or None,
                )
            )
            self._has_candidate.set()

    def connect(self, *, is_client: bool) -> None:
        """Begin the checks and then the handshake; `has_connected` tells when both are through."""
        if self._task is None:
            self.setup = "active" if is_client else "passive"
            self.dtls._set_role("client" if is_client else "server")
            self._task = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        await self._has_candidate.wait()  # aioice gives up at once when it has nobody to ask
        await self.ice.start(RTCIceParameters(self.remote.user, self.remote.password))
        if self.ice.state != "completed":
            return
        prints = [RTCDtlsFingerprint(algorithm, value) for algorithm, value in self.remote.fingerprints]
        await self.dtls.start(RTCDtlsParameters(prints))
        if self.dtls.state == "connected":
            self.has_connected.set()

    @property
    def state(self) -> str:
        return f"ICE {self.ice.state}, DTLS {self.dtls.state}"

    async def close(self) -> None:
        """End it however far it got, in bounded time: what does not end by itself loses its sockets."""
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                if self._gathering is not None:
                    await asyncio.gather(self._gathering, return_exceptions=True)
                if self._task is not None:
                    self._task.cancel()
                    await asyncio.gather(self._task, return_exceptions=True)
                await self.dtls.stop()
                await self.ice.stop()
        except TimeoutError:
            for protocol in self.ice._connection._protocols:
                protocol.transport.close()


class Medium:
    """What is sent and received of one content, once its path is there."""

    def __init__(self, track: Voice | Camera, path: Path, senses: Senses) -> None:
        self.track = track
        self.senses = senses
        self.sender = RTCRtpSender(track, path.dtls)
        self.receiver = RTCRtpReceiver(track.kind, path.dtls)
        self.receiver._set_rtcp_ssrc(self.sender._ssrc)
        self._remote = RemoteStreamTrack(kind=track.kind)
        self.receiver._track = self._remote
        self._tasks: list[asyncio.Task[None]] = []

    def use(self, path: Path) -> None:
        """Take another path, before anything is sent (BUNDLE)."""
        self.sender.setTransport(path.dtls)
        self.receiver.setTransport(path.dtls)

    def start(self, path: Path, send: Sequence[Payload], receive: Sequence[Payload]) -> None:
        """Send and receive as soon as the path is connected.

        Args:
            send: codecs with the numbers of the other side; the first one is used.
            receive: codecs with our numbers.
        """
        self._tasks.append(asyncio.create_task(self._run(path, send, receive)))

    async def _run(self, path: Path, send: Sequence[Payload], receive: Sequence[Payload]) -> None:
        await path.has_connected.wait()
        parameters = RTCRtpSendParameters(codecs=[_parameters(self.track.kind, payload) for payload in send])
        parameters.rtcp.cname, parameters.rtcp.mux = "jingle-client", True
        await self.receiver.receive(
            RTCRtpReceiveParameters(codecs=[_parameters(self.track.kind, payload) for payload in receive])
        )
        await self.sender.send(parameters)
        await self.senses.follow(self._remote)

    async def stop(self) -> None:
        """End it however far it got, in bounded time."""
        self.track.stop()
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_SECONDS):
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await self.receiver.stop()  # first: it ends its thread before it waits for anything
                await self.sender.stop()


def own_payloads(kind: str, names: Sequence[str]) -> tuple[Payload, ...]:
    """Our codecs of these names (`opus`, `PCMU`, `PCMA`, `G722`, `VP8`, `H264`), in this order."""
    return tuple(
        Payload(
            number=codec.payloadType or 0,
            name=codec.name,
            clock_rate=codec.clockRate,
            channels=codec.channels or 1,
            parameters={name: str(value) for name, value in codec.parameters.items()},
            feedback=tuple((f.type, f.parameter or "") for f in codec.rtcpFeedback),
        )
        for name in names
        for codec in CODECS[kind]
        if codec.name.lower() == name.lower()
    )


def common_payloads(ours: Sequence[Payload], theirs: Sequence[Payload]) -> tuple[Payload, ...]:
    """Those of theirs, in their order, that we have as well, for H.264 with the same packetization."""
    return tuple(payload for payload in theirs if any(_is_same(payload, own) for own in ours))


def _is_same(one: Payload, other: Payload) -> bool:
    is_packed = [payload.parameters.get("packetization-mode", "0") for payload in (one, other)]
    return (
        (one.name.lower(), one.clock_rate) == (other.name.lower(), other.clock_rate)
        and (one.name.lower() != "opus" or one.channels == other.channels)
        and (one.name.lower() != "h264" or is_packed[0] == is_packed[1])
    )


def _parameters(kind: str, payload: Payload) -> RTCRtpCodecParameters:
    return RTCRtpCodecParameters(
        mimeType=f"{kind}/{payload.name}",
        clockRate=payload.clock_rate,
        channels=payload.channels if kind == "audio" else None,
        payloadType=payload.number,
        rtcpFeedback=[RTCRtcpFeedback(type=kind_, parameter=subtype or None) for kind_, subtype in payload.feedback],
        parameters=dict(payload.parameters),
    )
