"""Plays both ends of calls through a gateway: a SIP neighbour on UDP that calls, and an XMPP server whose users answer.

Every answer is given at once, so that what a call takes to be set up is what the gateway adds. The parsing is as cheap
as it can be, so that the generator is not what is measured.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from tests.bench.neighbours import ComponentServer

_STANZA = re.compile(rb"<(message|iq)\b(?:[^>]*/>|[^>]*>.*?</\1>)", re.DOTALL)
_FROM, _TO = re.compile(rb"\bfrom='([^']*)'"), re.compile(rb"\bto='([^']*)'")
_PROPOSE = re.compile(rb"<propose\b[^>]*\bid='([^']*)'")
_SID, _CONTENT = re.compile(rb"\bsid='([^']*)'"), re.compile(rb"<content\b[^>]*\bname='([^']*)'")
_PORT = re.compile(rb"m=audio (\d+)")
_COPIED = (b"via:", b"from:", b"to:", b"call-id:", b"cseq:", b"record-route:")

_ACCEPT = (
    "<iq type='set' id='a{sid}' from='{me}' to='{peer}'><jingle xmlns='urn:xmpp:jingle:1' action='session-accept' "
    "responder='{me}' sid='{sid}'><content creator='initiator' name='{name}' senders='both'>"
    "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>{payload}<rtcp-mux/></description>"
    "<transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='ufrg' pwd='passwordpasswordpassword'>"
    "<fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='active'>{fingerprint}</fingerprint>"
    "<candidate foundation='1' component='1' protocol='udp' priority='2130706431' ip='127.0.0.1' port='9' type='host' "
    "generation='0' id='c{sid}'/></transport></content></jingle></iq>"
)
_FINGERPRINT = ":".join(["AB"] * 32)
_PAYLOADS = {
    True: "<payload-type id='0' name='PCMU' clockrate='8000'/>",
    False: "<payload-type id='111' name='opus' clockrate='48000' channels='2'/>",
}
_DIRECT = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:111 opus/48000/2\r\na=mid:0\r\na=rtcp-mux\r\n"
    f"a=setup:actpass\r\na=fingerprint:sha-256 {_FINGERPRINT}\r\na=ice-ufrag:abcd\r\n"
    "a=ice-pwd:passwordpasswordpassword\r\n"
    "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n"
)


@dataclass
class CallRun:
    """What one run of calls measured; times in seconds.

    Attributes:
        delays: from INVITE to its 200, of every call that was answered.
        seconds: from the first INVITE to the last end.
    """

    delays: list[float] = field(default_factory=list)
    seconds: float = 0.0
    ended: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return self.ended / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        ordered = sorted(self.delays)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


@dataclass(slots=True)
class _Calling:
    """One call of ours on its way."""

    number: int
    began: float
    is_kept: bool
    media_port: int


class CallNeighbours(asyncio.DatagramProtocol):
    """The SIP caller, the SIP callee and the XMPP server with its users.

    Args:
        is_relayed: the caller speaks plain RTP, so that a media relay is needed; else ICE and DTLS-SRTP.
    """

    def __init__(self, *, is_relayed: bool, domain: str = "corp.test", secret: str = "secret") -> None:
        self.domain, self.secret, self.is_relayed = domain, secret, is_relayed
        self.sip_target: tuple[str, int] = ("127.0.0.1", 0)
        self.component_port = self.sip_port = 0
        self.callee = "ben{}@people.test"
        self.answer_port: Callable[[], int] = lambda: 9  # where a SIP callee takes its media
        self.relay_ports: dict[int, tuple[int, int]] = {}  # by number of call: where its media go, where they come from
        self._ready = asyncio.Event()
        self._components: list[ComponentServer] = []
        self._calls: dict[bytes, _Calling] = {}
        self._numbers = 0

    # --- life ---

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        self.component_port = self._server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.sip_port = transport.get_extra_info("sockname")[1]

    def close(self) -> None:
        self._server.close()
        self._sip.close()
        for component in self._components:
            component.transport.close()

    async def component_connected(self) -> None:
        await asyncio.wait_for(self._ready.wait(), 60)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sip = cast(asyncio.DatagramTransport, transport)  # uvloop's transports have no common base
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)

    def _accept(self) -> ComponentServer:
        """One stream for each domain of the gateway; what comes on one is answered on it."""
        buffer = bytearray()
        component = ComponentServer(
            self.domain, self.secret, lambda data: self._stanzas(data, buffer, component), self._ready.set
        )
        self._components.append(component)
        return component

    # --- runs ---

    async def as_fast_as_possible(self, count: int, window: int = 16) -> CallRun:
        """Make `count` calls, `window` at a time, each ended as soon as it is answered."""
        return await self._run(count, window, 0.0, is_kept=False)

    async def at_a_rate(self, count: int, per_second: float) -> CallRun:
        """Make `count` calls, one after the other at this rate, whatever becomes of those before."""
        return await self._run(count, count, 1 / per_second, is_kept=False)

    async def keep(self, count: int) -> CallRun:
        """Make `count` calls and leave them standing."""
        return await self._run(count, 16, 0.0, is_kept=True)

    async def _run(self, count: int, window: int, gap: float, *, is_kept: bool) -> CallRun:
        self.run = CallRun()
        self._is_kept = is_kept
        self._room = asyncio.Semaphore(window)
        began = time.perf_counter()
        for number in range(count):
            await self._room.acquire()
            if gap:
                await asyncio.sleep(max(0.0, began + number * gap - time.perf_counter()))
            self._invite()
        for _ in range(window):
            await asyncio.wait_for(self._room.acquire(), 60)
        self.run.seconds = time.perf_counter() - began
        return self.run

    # --- the SIP side ---

    def _invite(self) -> None:
        self._numbers += 1
        number = self._numbers
        port = self.answer_port()
        media = f"m=audio {port} RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\n" if self.is_relayed else _DIRECT
        body = f"v=0\r\no=- {number} 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{media}"
        call_id = f"call{number}@bench"
        self._calls[call_id.encode()] = _Calling(number, time.perf_counter(), self._is_kept, port)
        callee = self.callee.format(number)
        self._send(
            f"INVITE sip:{callee} SIP/2.0\r\n{self._lines(number, 'INVITE', callee)}"
            f"Contact: <sip:ana{number}@127.0.0.1:{self.sip_port}>\r\nContent-Type: application/sdp\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )

    def _lines(self, number: int, method: str, callee: str, tag: str = "") -> str:
        cseq = 2 if method == "BYE" else 1
        return (
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.sip_port};branch=z9hG4bK{method}{number}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:ana{number}@{self.domain}>;tag=f{number}\r\nTo: <sip:{callee}>{tag}\r\n"
            f"Call-ID: call{number}@bench\r\nCSeq: {cseq} {method}\r\n"
        )

    def _send(self, text: str) -> None:
        self._sip.sendto(text.encode(), self.sip_target)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        if data.startswith(b"SIP/2.0"):
            self._response(int(data[8:11]), headers, body)
        elif not data.startswith(b"ACK"):
            self._request(data[: data.index(b" ")], lines, headers, body, address)

    def _response(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        call = self._calls.get(headers[b"call-id"])
        if status < 200 or call is None:
            return
        if headers[b"cseq"].endswith(b"BYE"):
            self._over(headers[b"call-id"])
        elif status >= 300:
            self.run.errors[str(status)] = self.run.errors.get(str(status), 0) + 1
            self._over(headers[b"call-id"])
        else:
            self._answered(call, headers, body)

    def _answered(self, call: _Calling, headers: dict[bytes, bytes], body: bytes) -> None:
        self.run.delays.append(time.perf_counter() - call.began)
        found = _PORT.search(body)
        if found:
            self.relay_ports[call.number] = int(found[1]), call.media_port
        callee, tag = self.callee.format(call.number), headers[b"to"].decode().rpartition(">")[2]
        target = headers[b"contact"].decode().partition("<")[2].partition(">")[0]
        for method in ("ACK",) if call.is_kept else ("ACK", "BYE"):
            lines = self._lines(call.number, method, callee, tag)
            self._send(f"{method} {target} SIP/2.0\r\n{lines}Content-Length: 0\r\n\r\n")
        if call.is_kept:
            self._over(headers[b"call-id"])

    def _over(self, call_id: bytes) -> None:
        if self._calls.pop(call_id, None) is not None:
            self.run.ended += 1
            self._room.release()

    def _request(
        self,
        method: bytes,
        lines: list[bytes],
        headers: dict[bytes, bytes],
        body: bytes,
        address: tuple[str, int],
    ) -> None:
        """A SIP callee answers everything with 200, an INVITE with its media."""
        copied = [line for line in lines[1:] if line.lower().startswith(_COPIED)]
        copied = [
            line + b";tag=callee" if line[:3].lower() == b"to:" and b";tag=" not in line else line for line in copied
        ]
        answer = b""
        if method == b"INVITE":
            port = self.answer_port()
            answer = (
                f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
            ).encode()
            copied += [b"Contact: <sip:callee@127.0.0.1:%d>" % self.sip_port, b"Content-Type: application/sdp"]
        copied.append(b"Content-Length: %d" % len(answer))
        self._sip.sendto(b"SIP/2.0 200 OK\r\n" + b"\r\n".join(copied) + b"\r\n\r\n" + answer, address)

    # --- the XMPP side ---

    def _stanzas(self, data: bytes, buffer: bytearray, component: ComponentServer) -> None:
        buffer += data
        end = 0
        for found in _STANZA.finditer(bytes(buffer)):
            end = found.end()
            self._stanza(found[0], component)
        del buffer[:end]

    def _stanza(self, stanza: bytes, component: ComponentServer) -> None:
        proposed = _PROPOSE.search(stanza)
        head = stanza[: stanza.index(b">")]
        sender, to = _FROM.search(head), _TO.search(head)
        if sender is None or to is None:
            return
        peer, me = sender[1].decode(), to[1].decode().partition("/")[0] + "/phone"
        if proposed:
            component.transport.write(
                f"<message type='chat' from='{me}' to='{peer}'>"
                f"<proceed xmlns='urn:xmpp:jingle-message:0' id='{proposed[1].decode()}'/></message>".encode()
            )
        elif b"session-initiate" in stanza:
            sid, name = _SID.search(stanza), _CONTENT.search(stanza)
            assert sid is not None
            assert name is not None
            component.transport.write(
                _ACCEPT.format(
                    sid=sid[1].decode(),
                    me=me,
                    peer=peer,
                    name=name[1].decode(),
                    payload=_PAYLOADS[self.is_relayed],
                    fingerprint=_FINGERPRINT,
                ).encode()
            )
