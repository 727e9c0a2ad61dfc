"""The SIP stack as the services see it: transactions, transports and next-hop resolution are its own affair."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from isthmus.errors import TransportError
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.uri import SipUri


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a SIP message came from and how to answer on the same path (RFC 5626 section 2, RFC 3581).

    Attributes:
        transport: "udp", "tcp", "tls", "ws" or "wss".
        remote_host, remote_port: the peer's real address.
        local_host, local_port: ours.
        connection: id of the stream connection; 0 for UDP. Not valid after a restart.
        peer_names: names proven by the peer's TLS certificate (RFC 5922), empty without client certificate.
    """

    transport: str
    remote_host: str
    remote_port: int
    local_host: str = ""
    local_port: int = 0
    connection: int = 0
    peer_names: tuple[str, ...] = ()

    @property
    def is_stream(self) -> bool:
        """True for connection-oriented transports."""
        return self.transport != "udp"


@dataclass(frozen=True, slots=True)
class NextHop:
    """An explicit place to send a request to, overriding RFC 3263 on the Request-URI.

    At most one of `flow` (answer on this connection or from this socket) and `uri` (resolve this) is set; without both
    the request goes by its Route or Request-URI.
    `tls_names`: names accepted in the peer's certificate; empty means the host of `uri`. Without `uri` they are
    accepted besides the host: a route often leads to a bare address, which no certificate names.
    """

    flow: Flow | None = None
    uri: SipUri | None = None
    tls_names: tuple[str, ...] = ()


class IncomingRequest(Protocol):
    """A request in its server transaction, already de-duplicated; it must be answered exactly once (but 1xx)."""

    request: SipRequest
    flow: Flow
    arrived_at: float  # monotonic

    def respond(
        self,
        status: int,
        reason: str = "",
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
        to_tag: str = "",
    ) -> None:
        """Answer within the transaction. An empty `reason` takes the standard phrase; a To tag is made if absent."""


class SipEndpoint(Protocol):
    """The SIP stack as the services see it: transactions, transports and next-hop resolution are its own affair."""

    async def request(self, request: SipRequest, next_hop: NextHop | None = None) -> SipResponse:
        """Send a request in a client transaction and return its final response.

        The endpoint adds Via, and Max-Forwards when absent. Without `next_hop` the topmost Route or else the
        Request-URI is resolved (RFC 3263, with failover to the next target on timeout, 503 or transport error).

        Raises:
            RequestTimeoutError: no final response within 64*T1.
            TransportError: nowhere to send it.
        """

    def contact_uri(self, user: str, transport: str, *, host: str = "") -> SipUri:
        """Return a Contact URI that reaches this process over `transport` (our listener's address)."""

    def is_flow_alive(self, flow: Flow) -> bool:
        """False once the stream connection behind `flow` has closed; UDP flows are always alive."""

    def new_tag(self) -> str:
        """Return a fresh From/To tag with at least 64 random bits."""

    def new_call_id(self) -> str:
        """Return a fresh Call-ID with at least 128 random bits."""


class LeanSipEndpoint(SipEndpoint, Protocol):
    """An endpoint with a way to send that costs no task: what the message router uses for thousands a second."""

    def request_nowait(
        self,
        request: SipRequest,
        next_hop: NextHop | None,
        done: Callable[[SipResponse | TransportError], None],
    ) -> None:
        """As `SipEndpoint.request`, but call `done` once with the final response or error, after it returned."""


RequestSink = Callable[[IncomingRequest], None]
FlowClosedSink = Callable[[Flow], None]


class InviteSink(Protocol):
    """Takes what becomes of an INVITE. Called in order; must not raise."""

    def provisional(self, response: SipResponse) -> None:
        """A 101 to 199 came (100 is not told)."""

    def accepted(self, response: SipResponse) -> None:
        """A 2xx came; also each further one, from other forks or repeated because our ACK was lost: ACK each."""

    def failed(self, outcome: SipResponse | TransportError) -> None:
        """A final response of 300 to 699 (already ACKed), a timeout, or nothing could be sent.

        Nothing follows but perhaps, for half a minute, a 2xx of a fork that a proxy let through (`accepted`): it wants
        ACK and BYE (RFC 3261 section 16.7 step 5).
        """


class SentInvite(Protocol):
    """An INVITE on its way."""

    def cancel(self, reason: str = "") -> None:
        """Send CANCEL as soon as it is allowed (RFC 3261 section 9.1), with this Reason; no effect after a final
        response. The outcome comes to the sink as usual."""


class CallSipEndpoint(LeanSipEndpoint, Protocol):
    """An endpoint that can also make calls."""

    def invite(self, request: SipRequest, next_hop: NextHop | None, sink: InviteSink) -> SentInvite:
        """Send an INVITE (initial or within a dialog)."""

    def send_ack(self, ack: SipRequest, next_hop: NextHop | None = None) -> None:
        """Send the ACK of a 2xx, which belongs to no transaction (RFC 3261 section 13.2.2.4).

        What cannot be sent is dropped: the peer repeats its 2xx and gets another.
        """
