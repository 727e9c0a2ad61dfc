"""Real sockets around a `NetworkSipEndpoint`: an endpoint on free loopback ports and raw peers that speak bytes."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast

from isthmus.config import Listener, SipSettings, Transport
from isthmus.net.sip_endpoint import NetworkSipEndpoint
from isthmus.ports import Flow, IncomingRequest
from isthmus.sip.fields import NameAddr
from isthmus.sip.message import SipMessage, SipRequest, build_request
from isthmus.sip.parser import StreamParser, parse_message
from isthmus.sip.timers import TimerTable
from isthmus.sip.uri import SipUri
from isthmus.trace import Trace

T = TypeVar("T")

PATIENCE_SECONDS = 5.0
QUICK = TimerTable(t1=0.01, t2=0.04, t4=0.05)

_numbers = itertools.count(1)


def settings(*transports: str, **changes: Any) -> SipSettings:
    """Listeners for these transports on free loopback ports."""
    listeners = tuple(Listener(transport=Transport(name), port=0) for name in transports or ("udp", "tcp"))
    return SipSettings(**{"listeners": listeners, **changes})


class Recorder:
    """The services' side: keeps requests, answers them as told, keeps closed flows and cancelled INVITEs."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.requests: asyncio.Queue[IncomingRequest] = asyncio.Queue()
        self.closed: asyncio.Queue[Flow] = asyncio.Queue()
        self.cancelled: asyncio.Queue[IncomingRequest] = asyncio.Queue()

    def on_request(self, incoming: IncomingRequest) -> None:
        self.requests.put_nowait(incoming)
        if self.status:
            incoming.respond(self.status)

    async def next(self) -> IncomingRequest:
        return await soon(self.requests.get())


async def soon(awaitable: Awaitable[T]) -> T:
    """Await within the patience of a test."""
    return await asyncio.wait_for(awaitable, PATIENCE_SECONDS)


@asynccontextmanager
async def running(
    recorder: Recorder | None = None, config: SipSettings | None = None, **options: Any
) -> AsyncIterator[NetworkSipEndpoint]:
    """A started endpoint, stopped at the end."""
    recorder = recorder or Recorder()
    options.setdefault("trace", Trace(lambda: 0.0))
    options.setdefault("on_request", recorder.on_request)
    options.setdefault("on_flow_closed", recorder.closed.put_nowait)
    options.setdefault("timers", QUICK)
    endpoint = NetworkSipEndpoint(config or settings(), **options)
    await endpoint.start()
    try:
        yield endpoint
    finally:
        await endpoint.stop()


def request_text(
    method: str = "MESSAGE",
    *,
    via: str = "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK{n};rport",
    body: str = "hello",
    extra: Sequence[str] = (),
    number: int = 0,
) -> bytes:
    """A well-formed request with a fresh branch, tag and Call-ID."""
    n = number or next(_numbers)
    return "\r\n".join(
        [
            f"{method} sip:ben@people.test SIP/2.0",
            f"Via: {via.format(n=n)}",
            "Max-Forwards: 70",
            f"From: <sip:ana@corp.test>;tag=t{n}",
            "To: <sip:ben@people.test>",
            f"Call-ID: call-{n}",
            f"CSeq: 1 {method}",
            *extra,
            f"Content-Length: {len(body.encode())}",
            "",
            body,
        ]
    ).encode()


def outgoing(uri: str, method: str = "MESSAGE", body: bytes = b"hello") -> SipRequest:
    """A request of ours, as a service builds it."""
    return build_request(
        method,
        SipUri.parse(uri),
        from_address=NameAddr(SipUri.parse("sip:ana@corp.test"), params=(("tag", "ours"),)),
        to_address=NameAddr(SipUri.parse("sip:ben@people.test")),
        call_id=f"out-{next(_numbers)}",
        cseq=1,
        body=body,
        content_type="text/plain",
    )


class UdpPeer(asyncio.DatagramProtocol):
    """A socket that keeps what it gets and may answer each request by a function from bytes to bytes."""

    def __init__(self, answer: Callable[[SipRequest], bytes | None] | None = None) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.received.put_nowait(data)
        if self._answer is not None and self._transport is not None:
            message = parse_message(data)
            answer = self._answer(message) if isinstance(message, SipRequest) else None
            if answer is not None:
                self._transport.sendto(answer, address)

    @property
    def port(self) -> int:
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(data, address)

    async def next(self) -> bytes:
        return await soon(self.received.get())

    async def next_message(self) -> SipMessage:
        return parse_message(await self.next())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@asynccontextmanager
async def udp_peer(answer: Callable[[SipRequest], bytes | None] | None = None) -> AsyncIterator[UdpPeer]:
    """A UDP peer on a free port."""
    peer = UdpPeer(answer)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: peer, local_addr=("127.0.0.1", 0))
    try:
        yield peer
    finally:
        peer.close()


class StreamPeer:
    """One end of a TCP or TLS connection with whole messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parser = StreamParser()
        self._found: list[SipMessage] = []

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def next_message(self) -> SipMessage:
        while not self._found:
            data = await soon(self.reader.read(65_536))
            assert data, "the connection closed"
            self._found += [item for item in self._parser.feed(data) if hasattr(item, "headers")]  # type: ignore[misc]  # messages have headers, keep-alives and faults have none
        return self._found.pop(0)

    async def is_closed(self) -> bool:
        """Wait for the end of the connection."""
        try:
            while await soon(self.reader.read(65_536)):
                pass
        except ConnectionError:
            pass
        return True

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError, ssl.SSLError):
            await soon(self.writer.wait_closed())


@asynccontextmanager
async def stream_peer(address: tuple[str, int], context: ssl.SSLContext | None = None) -> AsyncIterator[StreamPeer]:
    """A client connected to `address`."""
    peer = StreamPeer(
        *await soon(asyncio.open_connection(*address, ssl=context, server_hostname="" if context else None))
    )
    try:
        yield peer
    finally:
        await peer.close()
