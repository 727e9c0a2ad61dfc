"""The doctor's telephone: a small SIP user agent over UDP that registers, writes and listens, like any customer's.

It lives only for one examination and talks to our own listener, so it needs no resolution, no NAT tricks and no timers
beyond the retransmission of a request (RFC 3261 section 17.1.2).
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import cast

from isthmus.errors import RequestTimeoutError, SipParseError, TransportError
from isthmus.sip.digest import answer_challenge
from isthmus.sip.headers import NameAddr
from isthmus.sip.message import SipRequest, SipResponse, build_request, build_response
from isthmus.sip.parser import parse_message
from isthmus.sip.uri import SipUri

ANSWER_SECONDS = 5.0
# Loopback or the local network: T1 of 500 ms (RFC 3261 section 17.1.1.1) is generous.
RETRANSMIT_SECONDS = 0.5


@dataclass(slots=True)
class DoctorPhone(asyncio.DatagramProtocol):
    """One user's phone.

    Attributes:
        user: address of record.
        password: of its account.
        texts: bodies of the messages that arrived.
    """

    user: SipUri
    password: str
    texts: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _transport: asyncio.DatagramTransport | None = None
    _answers: dict[tuple[str, int], asyncio.Future[SipResponse]] = field(default_factory=dict)
    _cseq: int = 0
    _call_id: str = field(default_factory=lambda: secrets.token_hex(16))

    async def open(self, host: str, port: int) -> None:
        """Take a socket towards our listener. Raises TransportError."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(lambda: self, remote_addr=(host, port))
        except OSError as error:
            raise TransportError(f"no UDP towards {host} port {port}: {error.strerror or error}") from error

    def close(self) -> None:
        """Give the socket back."""
        if self._transport is not None:
            self._transport.close()

    async def register(self, expires_seconds: int) -> SipResponse:
        """Register for a while; 0 ends it. Raises RequestTimeoutError."""
        host, port = self._local()
        contact = f"<sip:{self.user.user}@{host}:{port}>;expires={expires_seconds}"
        registrar = SipUri("sip", self.user.host)
        return await self._ask("REGISTER", registrar, self.user, [("Contact", contact)], b"")

    async def write(self, recipient: SipUri, text: str) -> SipResponse:
        """Send a message. Raises RequestTimeoutError."""
        return await self._ask("MESSAGE", recipient, recipient, [], text.encode(), "text/plain")

    async def _ask(
        self, method: str, uri: SipUri, to: SipUri, headers: list[tuple[str, str]], body: bytes, content_type: str = ""
    ) -> SipResponse:
        self._cseq += 2  # room for the repetition with credentials
        request = build_request(
            method,
            uri,
            from_address=NameAddr(self.user, params=(("tag", secrets.token_hex(8)),)),
            to_address=NameAddr(to),
            call_id=self._call_id,
            cseq=self._cseq,
            headers=headers,
            body=body,
            content_type=content_type,
        )
        response = await self._exchange(request)
        again = answer_challenge(
            request,
            response,
            username=self.user.user_decoded,
            password=self.password,
            cnonce=secrets.token_hex(16),
        )
        return response if again is None else await self._exchange(again)

    async def _exchange(self, request: SipRequest) -> SipResponse:
        host, port = self._local()
        request.headers.prepend("Via", f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK{secrets.token_hex(12)};rport")
        key = (request.method, request.cseq.number)
        answer: asyncio.Future[SipResponse] = asyncio.get_running_loop().create_future()
        self._answers[key] = answer
        data = request.to_bytes()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while not answer.done():
                    self._send(data)
                    await asyncio.wait({answer}, timeout=RETRANSMIT_SECONDS)
            return answer.result()
        except TimeoutError:
            raise RequestTimeoutError(f"{request.method} was not answered in {ANSWER_SECONDS:.0f} s") from None
        finally:
            self._answers.pop(key, None)

    def _local(self) -> tuple[str, int]:
        if self._transport is None:
            raise TransportError("the doctor's phone has no socket")
        host, port = self._transport.get_extra_info("sockname")[:2]
        return (f"[{host}]" if ":" in host else str(host)), int(port)

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.sendto(data)

    # --- asyncio.DatagramProtocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        # Event loops are free in what class this is; the endpoint is a datagram one.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def error_received(self, exc: Exception) -> None:
        """Nothing listens there: the request's own time-out tells it."""

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Answers go to who waits; every request is answered 200."""
        try:
            message = parse_message(data)
        except SipParseError:
            return
        if isinstance(message, SipResponse):
            waiting = self._answers.get((message.cseq.method, message.cseq.number))
            if waiting is not None and not waiting.done() and not message.is_provisional:
                waiting.set_result(message)
            return
        self._send(build_response(message, 200, to_tag=secrets.token_hex(8)).to_bytes())
        if message.method == "MESSAGE":
            self.texts.put_nowait(message.body.decode("utf-8", "replace"))
