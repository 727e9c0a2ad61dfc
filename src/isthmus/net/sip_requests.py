"""The client side of the endpoint: finds a way for each request, sends it, and hands back its final response.

The fast way (a known flow, an open connection, or a numeric address over UDP) runs without a task and without waiting.
Everything else (DNS, connecting, failover) is the slow way, a coroutine over the targets of RFC 3263.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Protocol

from isthmus.config import is_loopback
from isthmus.errors import RequestTimeoutError, SipParseError, TransportError
from isthmus.net.sip_transports import SipTransports
from isthmus.net.sip_via import DEFAULT_PORT, DEFAULT_TLS_PORT
from isthmus.ports import Flow, NextHop
from isthmus.sip.client_transaction import ClientState, ClientTransaction
from isthmus.sip.headers import Headers, Via
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.routing import Target
from isthmus.sip.uri import SipUri

# RFC 3261 section 18.1.1: larger requests go over a congestion-controlled transport, unless the path is known to
# carry them: our own loopback, or a flow the peer chose itself.
LARGEST_DATAGRAM_REQUEST = 1_300
# A target that failed is tried last for this long, so that a dead proxy does not cost every request 32 seconds.
PENALTY_SECONDS = 30.0
MAXIMUM_PENALTIES = 1_024
# The largest payload of UDP over IPv4.
_LARGEST_DATAGRAM = 65_507

Answer = Callable[[SipResponse | TransportError], None]


class TargetResolver(Protocol):
    """RFC 3263 resolution; `net.sip_resolver.SipResolver` is the real one."""

    async def targets(self, uri: SipUri) -> Sequence[Target]:
        """Return where requests for `uri` go, best first; empty when nowhere."""


class RequestSender:
    """Sends requests in client transactions and resolves who waits for them."""

    def __init__(
        self,
        transports: SipTransports,
        resolver: TargetResolver,
        *,
        start: Callable[[SipRequest, Flow], ClientTransaction],
        new_branch: Callable[[], str],
    ) -> None:
        """Prepare.

        Args:
            transports: the sockets.
            resolver: RFC 3263.
            start: puts a request with its Via into a client transaction on a flow.
            new_branch: makes Via branches.
        """
        self._transports = transports
        self._resolver = resolver
        self._start = start
        self._new_branch = new_branch
        self._waiting: dict[ClientTransaction, Answer] = {}
        self._penalties: dict[Target, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what the transaction layer tells -----------------------------------------------------------------------

    def response_received(self, transaction: ClientTransaction, response: SipResponse) -> bool:
        """Pass on a final response; provisional ones only keep the transaction alive. False: nobody waits for it."""
        if response.status < 200:
            return transaction in self._waiting
        answer = self._waiting.pop(transaction, None)
        if answer is None:
            return False
        answer(response)
        return True

    def timed_out(self, transaction: ClientTransaction) -> None:
        """Nobody answered in 64*T1."""
        self._give_up(transaction, RequestTimeoutError(f"{describe(transaction)} was not answered in time"))

    def failed(self, transaction: ClientTransaction) -> None:
        """The flow broke."""
        self._give_up(transaction, TransportError(f"{describe(transaction)} failed: the peer cannot be reached"))

    def stop(self) -> None:
        """Fail everything that waits."""
        for task in self._tasks:
            task.cancel()
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer(TransportError("the SIP endpoint is stopping"))

    def send_soon(self, request: SipRequest, next_hop: NextHop | None, send: Callable[[Flow], None]) -> None:
        """Call `send` with the flow that `request` takes, at once or when it is found; never when there is none."""
        try:
            flow = self.known_flow(request, next_hop)
        except TransportError:
            return
        if flow is not None:
            send(flow)
            return

        async def find() -> None:
            with contextlib.suppress(TransportError):
                send(await self.flow_for(request, next_hop))

        self._run(find())

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _give_up(self, transaction: ClientTransaction, error: TransportError) -> None:
        answer = self._waiting.pop(transaction, None)
        if answer is not None:
            answer(error)

    # --- what the services ask ------------------------------------------------------------------------------------

    def request_nowait(self, request: SipRequest, next_hop: NextHop | None, answer: Answer) -> None:
        """Send and call `answer` once, with the final response or the error; perhaps before this returns."""
        try:
            flow = self.known_flow(request, next_hop)
            if flow is not None:
                self._send(request, flow, answer)
                return
        except TransportError as error:
            answer(error)
            return
        self._run(self._answer_later(request, next_hop, answer))

    async def request(self, request: SipRequest, next_hop: NextHop | None) -> SipResponse:
        """Send and return the final response. Raises RequestTimeoutError, TransportError."""
        flow = self.known_flow(request, next_hop)
        if flow is not None:
            return await self._exchange(request, flow)
        return await self._request_by_targets(request, next_hop)

    async def flow_for(self, request: SipRequest, next_hop: NextHop | None) -> Flow:
        """Return the flow that `request` would take first. Raises TransportError."""
        flow = self.known_flow(request, next_hop)
        if flow is not None:
            return flow
        return await self.flow_to((await self.targets(request, next_hop))[0], request, next_hop)

    def prepare(self, request: SipRequest, flow: Flow) -> SipRequest:
        """Return a copy with our Via on top, and Max-Forwards if it was absent."""
        headers = request.headers
        host, port = self._transports.sent_by(flow)
        parameters: tuple[tuple[str, str | None], ...] = (("branch", self._new_branch()), ("rport", None))
        if self._transports.has_alias(flow):
            parameters += (("alias", None),)  # RFC 5923 section 4: we take requests on this connection as well
        via = Via(flow.transport.upper(), host, port, parameters)
        lines = [("via", "Via", str(via)), *headers.lines]
        if "max-forwards" not in headers:
            lines.insert(1, ("max-forwards", "Max-Forwards", "70"))
        prepared = SipRequest(request.method, request.uri, Headers.of_lines(lines), request.body)
        if "via" not in headers:
            prepared.headers.cache["via"] = [via]
        return prepared

    # --- the fast way ---------------------------------------------------------------------------------------------

    def known_flow(self, request: SipRequest, next_hop: NextHop | None) -> Flow | None:
        """Return the flow when it is known without waiting, None when the slow way must find it.

        Raises:
            TransportError: the connection that it must go over is closed, or it has no SIP destination.
        """
        if next_hop is not None and next_hop.flow is not None:
            flow = next_hop.flow
            if flow.transport == "udp":
                return self._transports.udp_flow(flow.remote_host, flow.remote_port, like=flow)
            if not self._transports.is_alive(flow):
                raise TransportError(f"the {flow.transport} connection with {flow.remote_host} is closed")
            return flow
        uri = destination(request, next_hop)
        host = numeric(uri.host)
        if not host or uri.scheme != "sip" or uri.has_param("maddr"):
            return None
        transport = (uri.param("transport") or "udp").lower()
        if transport in ("tcp", "tls"):
            names = _accepted_names(next_hop, uri.host)
            port = uri.port or (DEFAULT_TLS_PORT if transport == "tls" else DEFAULT_PORT)
            return self._transports.open_stream_flow(transport, host, port, names)
        if transport != "udp" or (not is_loopback(host) and _estimated_size(request) > LARGEST_DATAGRAM_REQUEST):
            return None
        return self._transports.udp_flow(host, uri.port or DEFAULT_PORT)

    def start_transaction(self, request: SipRequest, flow: Flow) -> ClientTransaction:
        """Send a request on a flow. Raises TransportError when it can never fit."""
        if len(request.body) > _LARGEST_DATAGRAM and flow.transport == "udp":
            raise TransportError(f"a {request.method} of {len(request.body)} octets does not fit a UDP datagram")
        return self._start(self.prepare(request, flow), flow)

    def _send(self, request: SipRequest, flow: Flow, answer: Answer) -> ClientTransaction:
        transaction = self.start_transaction(request, flow)
        if transaction.state is ClientState.TERMINATED:  # the write failed at once
            answer(TransportError(f"{describe(transaction)} failed: the peer cannot be reached"))
        else:
            self._waiting[transaction] = answer
        return transaction

    async def _exchange(self, request: SipRequest, flow: Flow) -> SipResponse:
        future: asyncio.Future[SipResponse] = asyncio.get_running_loop().create_future()

        def settle(outcome: SipResponse | TransportError) -> None:
            if future.done():
                return
            if isinstance(outcome, TransportError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        transaction = self._send(request, flow, settle)
        try:
            return await future
        finally:
            self._waiting.pop(transaction, None)

    # --- the slow way ---------------------------------------------------------------------------------------------

    async def _answer_later(self, request: SipRequest, next_hop: NextHop | None, answer: Answer) -> None:
        try:
            answer(await self._request_by_targets(request, next_hop))
        except TransportError as error:
            answer(error)
        except asyncio.CancelledError:  # only by stop(), which may not leave anybody waiting
            answer(TransportError("the SIP endpoint is stopping"))

    async def _request_by_targets(self, request: SipRequest, next_hop: NextHop | None) -> SipResponse:
        """Try one target after the other, each with a new branch (RFC 3263 section 4.3)."""
        failure: TransportError | None = None
        unavailable: SipResponse | None = None
        for target in await self.targets(request, next_hop):
            try:
                response = await self._request_from(target, request, next_hop)
            except TransportError as error:
                self.judge(target, is_working=False)
                failure = error
                continue
            self.judge(target, is_working=response.status != 503)
            if response.status != 503:
                return response
            unavailable = response
        if unavailable is not None:
            return unavailable
        assert failure is not None  # there is at least one target, and it gave neither
        raise failure

    async def _request_from(self, target: Target, request: SipRequest, next_hop: NextHop | None) -> SipResponse:
        return await self._exchange(request, await self.flow_to(target, request, next_hop))

    async def targets(self, request: SipRequest, next_hop: NextHop | None) -> list[Target]:
        """Return where a request can go, best first; lately failed ones last. Raises TransportError for nowhere."""
        uri = destination(request, next_hop)
        targets = list(await self._resolver.targets(uri))
        if not targets:
            raise TransportError(f"{uri.host} has no SIP service that can be reached (DNS: no NAPTR, SRV or address)")
        now = time.monotonic()
        return sorted(targets, key=lambda target: self._penalties.get(target, 0.0) > now)

    async def flow_to(self, target: Target, request: SipRequest, next_hop: NextHop | None) -> Flow:
        """Return a flow to a target; large requests go over TCP where it answers (RFC 3261 section 18.1.1).

        Raises:
            TransportError: no connection comes about.
        """
        names = _accepted_names(next_hop, target.tls_name)
        if target.transport != "udp":
            return await self._transports.stream_flow(target.transport, target.host, target.port, names)
        if not is_loopback(target.host) and _estimated_size(request) > LARGEST_DATAGRAM_REQUEST:
            try:
                return await self._transports.stream_flow("tcp", target.host, target.port)
            except TransportError:
                pass  # the fallback that section 18.1.1 asks for: the peer has no TCP, so it must take fragments
        return self._transports.udp_flow(target.host, target.port)

    def judge(self, target: Target, *, is_working: bool) -> None:
        """Remember that a target failed, or that it works."""
        if is_working:
            self._penalties.pop(target, None)
            return
        if len(self._penalties) >= MAXIMUM_PENALTIES:
            self._penalties.clear()
        self._penalties[target] = time.monotonic() + PENALTY_SECONDS


def destination(request: SipRequest, next_hop: NextHop | None) -> SipUri:
    """Return the URI to resolve: the explicit one, else the topmost Route, else the Request-URI (section 8.1.2).

    Raises:
        TransportError: it is not a SIP URI.
    """
    if next_hop is not None and next_hop.uri is not None:
        return next_hop.uri
    uri = request.uri
    if "route" in request.headers:
        try:
            uri = request.routes[0].uri
        except (SipParseError, IndexError) as error:
            raise TransportError(f"the route set cannot be read: {error}") from error
    if not isinstance(uri, SipUri):
        raise TransportError(f"{uri} is not a SIP URI: there is nowhere to send the {request.method}")
    return uri


def _accepted_names(next_hop: NextHop | None, host: str) -> tuple[str, ...]:
    """Names one of which the peer at `host` must prove over TLS (RFC 5922 section 7.2)."""
    if next_hop is None or not next_hop.tls_names:
        return (host,)
    return next_hop.tls_names if next_hop.uri is not None else (host, *next_hop.tls_names)


@lru_cache(maxsize=4_096)
def numeric(host: str) -> str:
    """Return `host` as a plain address, or "" when it is a name."""
    try:
        return str(ip_address(host))
    except ValueError:
        return ""


def _estimated_size(request: SipRequest) -> int:
    """Octets on the wire, nearly: with start line and the Via to come, as if all were ASCII."""
    lines = request.headers.lines
    return len(request.body) + sum(len(name) + len(value) + 4 for _, name, value in lines) + 250


def describe(transaction: ClientTransaction) -> str:
    """Return method and peer of a transaction, for people."""
    flow = transaction.flow
    where = f"{flow.remote_host} port {flow.remote_port} ({flow.transport})" if isinstance(flow, Flow) else "its peer"
    return f"{transaction.request.method} to {where}"
