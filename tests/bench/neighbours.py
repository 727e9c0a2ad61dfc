"""Plays both neighbours of a gateway: an XMPP server that accepts its component (XEP-0114) and a SIP peer on UDP.

Closed loop: at most `window` messages are in flight, each carries the time it was sent in its body. The parsing is as
cheap as it can be, so that the generator is not what is measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

_STAMP = re.compile(rb"t=(\d+);")
_HANDSHAKE = re.compile(rb"<handshake[^>]*>([0-9a-f]*)</handshake>")
_IQ = re.compile(rb"<iq\b[^>]*?(?:/>|>.*?</iq>)", re.DOTALL)
_ATTRIBUTE = re.compile(rb"\b(id|from|to|type)=(?:'([^']*)'|\"([^\"]*)\")")
_STREAM_ID = "bench"
_COPIED = (b"via:", b"from:", b"to:", b"call-id:", b"cseq:", b"v:", b"f:", b"t:", b"i:")


@dataclass
class Run:
    """What one run of messages measured; times in seconds."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    lost: int = 0
    duplicates: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class ComponentServer(asyncio.Protocol):
    """The server end of one component stream; answers pings, hands everything else to `on_data`."""

    def __init__(
        self, domain: str, secret: str, on_data: Callable[[bytes], None], on_ready: Callable[[], None]
    ) -> None:
        self._domain, self._secret, self._on_data, self._on_ready = domain, secret, on_data, on_ready
        self._buffer = b""
        self._is_open = self._is_ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports have no common base
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._is_ready:
            if b"<iq" in data:
                self._answer_queries(data)
            self._on_data(data)
            return
        self._buffer += data
        if not self._is_open and b"<stream:stream" in self._buffer:
            self._is_open = True
            self.transport.write(
                (
                    "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' "
                    f"xmlns='jabber:component:accept' from='{self._domain}' id='{_STREAM_ID}'>"
                ).encode()
            )
        found = _HANDSHAKE.search(self._buffer)
        if found:
            wanted = hashlib.sha1((_STREAM_ID + self._secret).encode(), usedforsecurity=False).hexdigest().encode()
            assert found[1] == wanted, "the component's secret is wrong"
            self._is_ready = True
            self.transport.write(b"<handshake/>")
            self._on_ready()

    def _answer_queries(self, data: bytes) -> None:
        """Every IQ is answered with an empty result: it is the barrier that a gateway may wait for."""
        for query in _IQ.findall(data):
            attributes = {m[1]: m[2] or m[3] or b"" for m in _ATTRIBUTE.finditer(query.partition(b">")[0])}
            if attributes.get(b"type") in (b"get", b"set"):
                self.transport.write(
                    b"<iq type='result' id='%b' from='%b' to='%b'/>"
                    % (attributes.get(b"id", b""), attributes.get(b"to", b""), attributes.get(b"from", b""))
                )


class SipPeer(asyncio.DatagramProtocol):
    """A SIP neighbour on UDP: answers every request 200 and counts the answers to its own."""

    def __init__(self, on_message: Callable[[bytes], object], on_response: Callable[[int], None]) -> None:
        self._on_message, self._on_response = on_message, on_response

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if data.startswith(b"SIP/2.0"):
            self._on_response(int(data[8:11]))
            return
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n")[1:] if line.lower().startswith(_COPIED)]
        lines = [
            line + b";tag=peer" if line[:3].lower() in (b"to:", b"t: ") and b"tag=" not in line else line
            for line in lines
        ]
        self.transport.sendto(b"SIP/2.0 200 OK\r\n" + b"\r\n".join(lines) + b"\r\nContent-Length: 0\r\n\r\n", address)
        self._on_message(body)


class Neighbours:
    """Both neighbours and the closed loop between them.

    Args:
        domain, secret: of the component.
        sip_target: where the gateway listens on UDP; set before SIP messages are sent.
    """

    def __init__(
        self, domain: str = "corp.test", secret: str = "secret", *, users: int = 100, window: int = 32
    ) -> None:
        self.domain, self.secret, self.users, self.window = domain, secret, users, window
        self.sip_target: tuple[str, int] = ("127.0.0.1", 0)
        self.component_port = self.sip_port = 0
        self._ready = asyncio.Event()
        self._arrivals = ""
        self._tail = b""

    async def open(self) -> None:
        """Listen on free loopback ports."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._accept, "127.0.0.1", 0)
        self.component_port = server.sockets[0].getsockname()[1]
        transport, self._sip = await loop.create_datagram_endpoint(
            lambda: SipPeer(lambda body: self._scan(body, "sip"), self._response), local_addr=("127.0.0.1", 0)
        )
        self.sip_port = transport.get_extra_info("sockname")[1]
        self._server = server

    def close(self) -> None:
        self._server.close()
        self._sip.transport.close()
        if self._ready.is_set():
            self._component.transport.close()
        self._ready.clear()

    def _accept(self) -> ComponentServer:
        self._component = ComponentServer(self.domain, self.secret, self._stanzas, self._ready.set)
        return self._component

    async def component_connected(self, timeout_seconds: float = 60.0) -> None:
        await asyncio.wait_for(self._ready.wait(), timeout_seconds)

    def write_stanza(self, stanza: str) -> None:
        self._component.transport.write(stanza.encode())

    async def measure(self, direction: str, count: int) -> Run:
        """Send `count` messages: "sip-xmpp", "xmpp-sip", or "echo" (to a component that sends them back)."""
        self.run = Run()
        self._count, self._sent, self._in_flight, self._last = count, 0, 0, 0
        self._seen: set[int] = set()
        self._send = {"sip-xmpp": self._send_sip, "xmpp-sip": self._send_xmpp, "echo": self._send_xmpp}[direction]
        self._arrivals = "sip" if direction == "xmpp-sip" else "xmpp"
        self._done = asyncio.Event()
        began = time.perf_counter()
        self._pump()
        while not self._done.is_set():
            before = len(self._seen)
            try:
                await asyncio.wait_for(self._done.wait(), 5)
            except TimeoutError:
                if len(self._seen) == before:
                    self.run.lost += self._in_flight
                    break
        self.run.seconds = time.perf_counter() - began
        self._arrivals = ""
        return self.run

    def _pump(self) -> None:
        while self._in_flight < self.window and self._sent < self._count:
            stamp = max(time.perf_counter_ns(), self._last + 1)
            self._last = stamp
            self._sent += 1
            self._in_flight += 1
            self._send(stamp)
        if len(self._seen) >= self._count:
            self._done.set()

    def _stanzas(self, data: bytes) -> None:
        if self._arrivals != "xmpp":
            return
        data = self._tail + data
        end = self._scan(data, "xmpp")
        self._tail = data[max(end, len(data) - 64) :]

    def _scan(self, data: bytes, kind: str) -> int:
        end = 0
        if kind != self._arrivals:
            return end
        now = time.perf_counter_ns()
        for found in _STAMP.finditer(data):
            end = found.end()
            stamp = int(found[1])
            if stamp in self._seen:
                self.run.duplicates += 1
                continue
            self._seen.add(stamp)
            self.run.latencies.append((now - stamp) / 1e9)
            self._in_flight -= 1
        self._pump()
        return end

    def _response(self, status: int) -> None:
        if status >= 300:
            self.run.errors[str(status)] = self.run.errors.get(str(status), 0) + 1

    def _send_sip(self, stamp: int) -> None:
        number = self._sent % self.users
        body = f"t={stamp}; hello, are we still on for lunch at noon?"
        request = (
            f"MESSAGE sip:ben{number}@people.test SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.sip_port};branch=z9hG4bK{stamp}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:ana{number}@{self.domain}>;tag=f{stamp}\r\nTo: <sip:ben{number}@people.test>\r\n"
            f"Call-ID: {stamp}@bench\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self._sip.transport.sendto(request.encode(), self.sip_target)

    def _send_xmpp(self, stamp: int) -> None:
        number = self._sent % self.users
        self.write_stanza(
            f"<message type='chat' id='m{stamp}' from='ben{number}@people.test/phone' to='ana{number}@{self.domain}'>"
            f"<body>t={stamp}; hello, are we still on for lunch at noon?</body></message>"
        )
