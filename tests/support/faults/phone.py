"""A hosted user's phone: registers by digest, keeps its nonce as phones do, writes messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from isthmus.sip.digest import Challenge, build_authorization, choose_challenge
from isthmus.sip.message import SipResponse
from tests.support.faults.gateway import Gateway
from tests.support.faults.sip_agent import SipAgent, private_address, request_octets, sip_agent


class Phone:
    """One device over UDP.

    Args:
        agent: its socket.
        target: the registrar.
        address, password: of its user.

    Attributes:
        challenges: how often it was asked who it is.
    """

    def __init__(self, agent: SipAgent, target: tuple[str, int], address: str, password: str) -> None:
        self.agent = agent
        self.address = address
        self.challenges = 0
        self._target = target
        self._user, _, self._domain = address.partition("@")
        self._password = password
        self._challenge: Challenge | None = None
        self._count = 0

    async def register(self, expires_seconds: int = 3_600) -> SipResponse:
        """Register, with an answer to the challenge if need be; must succeed."""
        contact = f"Contact: <sip:{self._user}@{self.agent.host}:{self.agent.port}>"
        response = await self.request(
            "REGISTER", f"sip:{self._domain}", contact, f"Expires: {expires_seconds}", recipient=self.address
        )
        assert response.status == 200, response.status
        return response

    async def say(self, recipient: str, text: str) -> SipResponse:
        """Send a message."""
        return await self.request("MESSAGE", f"sip:{recipient}", body=text.encode())

    async def request(
        self,
        method: str,
        uri: str,
        *headers: str,
        body: bytes = b"",
        content_type: str = "text/plain",
        recipient: str = "",
        sender: str = "",
    ) -> SipResponse:
        """Send any request and return its final response; proves itself when asked (twice: a nonce may be stale)."""
        for _ in range(3):
            data = request_octets(
                method,
                uri,
                sender=sender or self.address,
                recipient=recipient,
                via=self.agent.via,
                body=body,
                content_type=content_type,
                headers=(*headers, *self.proof(method, uri)),
                cseq=self._count + 1,
            )
            response = await self.agent.exchange(data, self._target)
            if response.status != 401:
                break
            self.challenges += 1
            self.take_challenge(response)
        return response

    def take_challenge(self, response: SipResponse) -> None:
        """Use the nonce of this 401 from now on."""
        self._challenge = choose_challenge(response.headers.get_all("WWW-Authenticate"))
        assert self._challenge is not None
        self._count = 0

    def proof(self, method: str, uri: str, *, password: str = "", nc: int = 0) -> tuple[str, ...]:
        """The Authorization line for the next request with the nonce we have; none without a nonce.

        Args:
            password: another one than the user's.
            nc: another count than the next.
        """
        if self._challenge is None:
            return ()
        self._count += 1
        value = build_authorization(
            self._challenge,
            username=self._user,
            password=password or self._password,
            method=method,
            uri=uri,
            cnonce="c0ffee",
            nc=nc or self._count,
        )
        return (f"Authorization: {value}",)


@asynccontextmanager
async def phone(gateway: Gateway, address: str, password: str, *, host: str = "") -> AsyncIterator[Phone]:
    """A phone on an address of its own, not registered yet."""
    async with sip_agent(host or private_address()) as agent:
        yield Phone(agent, gateway.udp, address, password)
