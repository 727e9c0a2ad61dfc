"""A SIP user agent of few words: sends exactly the octets it is given and keeps what comes back.

It answers requests like a neighbour that takes everything, and can repeat its own as RFC 3261 section 17.1.2 wants.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import cast

from isthmus.sip.digest import answer_challenge
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.parser import parse_message

SECONDS = 15.0
_numbers = itertools.count(1)


def private_address() -> str:
    """A loopback address that no other test of this machine is likely to use."""
    return f"127.{random.randint(2, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"


def request_octets(
    method: str,
    uri: str,
    *,
    sender: str = "",
    recipient: str = "",
    via: str = "UDP 127.0.0.1:5060",
    body: bytes = b"",
    headers: Iterable[str] = (),
    call_id: str = "",
    content_type: str = "text/plain",
    cseq: int = 1,
) -> bytes:
    """Return a well-formed request.

    Args:
        sender, recipient: of From and To, without sip:; the recipient is the Request-URI's if empty.
        via: transport and sent-by.
        headers: further lines.
    """
    number = next(_numbers)
    sender = sender or "probe@probe.invalid"
    recipient = recipient or uri.removeprefix("sip:")
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/{via};branch=z9hG4bK-fault-{number}-{random.getrandbits(40):x};rport",
        "Max-Forwards: 70",
        f"From: <sip:{sender}>;tag=f{number}",
        f"To: <sip:{recipient}>",
        f"Call-ID: {call_id or f'fault-{number}-{random.getrandbits(64):x}'}",
        f"CSeq: {cseq} {method}",
        *headers,
        *([f"Content-Type: {content_type}"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class SipAgent(asyncio.DatagramProtocol):
    """A UDP socket.

    Attributes:
        responses, requests: everything that came and could be read, in order.
        unreadable: what could not.
        on_request: decides how a request is answered (status); 0 keeps silent.
    """

    def __init__(self) -> None:
        self.responses: list[SipResponse] = []
        self.requests: list[SipRequest] = []
        self.unreadable: list[bytes] = []
        self.on_request: Callable[[SipRequest], int] = lambda request: 200
        self.on_response: Callable[[SipResponse], None] = lambda response: None
        self._arrived = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        opened: socket.socket = transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.host, self.port = opened.getsockname()[:2]

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        try:
            message = parse_message(data)
        except Exception:
            self.unreadable.append(data)
            return
        if isinstance(message, SipResponse):
            self.responses.append(message)
            self.on_response(message)
        else:
            self.requests.append(message)
            status = self.on_request(message)
            if status:
                self._transport.sendto(build_response(message, status, to_tag="agent").to_bytes(), address)
        self._arrived.set()

    def error_received(self, error: Exception) -> None:
        """ICMP: the gateway is not there at the moment."""

    def send(self, data: bytes, target: tuple[str, int]) -> None:
        self._transport.sendto(data, target)

    @property
    def via(self) -> str:
        """Transport and sent-by of our Via."""
        return f"UDP {self.host}:{self.port}"

    async def response(self, matches: Callable[[SipResponse], bool], seconds: float = SECONDS) -> SipResponse:
        """Return and take the first response that matches."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for response in self.responses:
                        if matches(response):
                            self.responses.remove(response)
                            return response
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"no response within {seconds:.0f} s") from None

    async def expect_request(self, matches: Callable[[SipRequest], bool], seconds: float = SECONDS) -> SipRequest:
        """Return the first request that matches, now or when it comes."""
        try:
            async with asyncio.timeout(seconds):
                while not any(map(matches, self.requests)):
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"no such request within {seconds:.0f} s among {self.requests}") from None
        return next(filter(matches, self.requests))

    async def exchange(self, data: bytes, target: tuple[str, int], seconds: float = SECONDS) -> SipResponse:
        """Send a request, repeated like any client's, and return its final response."""
        # By hand: what is malformed is sent as well.
        names = (b"(?:Call-ID|i)", b"CSeq")
        call_id, number = (re.search(rb"(?i)\r\n%b[ \t]*:[ \t]*([^\r]*)" % name, data) for name in names)
        assert call_id is not None
        assert number is not None
        wanted = (call_id[1].decode(), number[1].decode())

        def is_answer(response: SipResponse) -> bool:
            got = (response.headers.get("Call-ID"), response.headers.get("CSeq"))
            return got == wanted and response.status >= 200

        repeating = asyncio.create_task(self._repeat(data, target))
        try:
            return await self.response(is_answer, seconds)
        finally:
            repeating.cancel()

    async def _repeat(self, data: bytes, target: tuple[str, int]) -> None:
        pause = 0.5
        while True:
            self.send(data, target)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 4.0)

    async def authenticated(
        self, data: bytes, target: tuple[str, int], username: str, password: str
    ) -> tuple[SipResponse, SipResponse]:
        """Send, answer the challenge, and return the challenge and the response to the second attempt."""
        challenge = await self.exchange(data, target)
        assert challenge.status == 401, challenge.status
        return challenge, await self.exchange(self.with_credentials(data, challenge, username, password), target)

    def with_credentials(self, data: bytes, challenge: SipResponse, username: str, password: str) -> bytes:
        """The request once more, with the answer to a challenge."""
        request = parse_message(data)
        assert isinstance(request, SipRequest)
        retry = answer_challenge(request, challenge, username=username, password=password, cnonce=f"{next(_numbers)}")
        assert retry is not None
        retry.headers.prepend("Via", f"SIP/2.0/{self.via};branch=z9hG4bK-again-{random.getrandbits(48):x};rport")
        return retry.to_bytes()

    async def is_served(self, target: tuple[str, int], seconds: float = SECONDS) -> None:
        """Ask OPTIONS and fail if it is not answered with 200."""
        probe = request_octets("OPTIONS", f"sip:{target[0]}:{target[1]}", via=self.via)
        response = await self.exchange(probe, target, seconds)
        assert response.status == 200, response.status

    def close(self) -> None:
        self._transport.close()


@asynccontextmanager
async def sip_agent(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[SipAgent]:
    """An agent on a UDP port."""
    _, agent = await asyncio.get_running_loop().create_datagram_endpoint(SipAgent, local_addr=(host, port))
    try:
        yield agent
    finally:
        agent.close()
