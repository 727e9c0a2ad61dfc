"""The SIP endpoint: one transaction layer between the sockets and the services; implements `ports.SipEndpoint`.

It decides nothing: it feeds the layer, writes what the layer wants written, passes events on, and arms one timer.
A datagram goes from the socket to `on_request` in one call chain, without a task.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isthmus.config import SipSettings
from isthmus.errors import SipParseError
from isthmus.net.sip_connection import ConnectionLimits
from isthmus.net.sip_identifiers import FreshIdentifiers
from isthmus.net.sip_invites import InviteSender
from isthmus.net.sip_received_request import ReceivedAck, ReceivedRequest
from isthmus.net.sip_requests import Answer, RequestSender, TargetResolver
from isthmus.net.sip_resolver import SipResolver
from isthmus.net.sip_transports import SipTransports
from isthmus.net.sip_via import answer_flow
from isthmus.net.sip_wire_trace import WireTrace
from isthmus.ports import Flow, FlowClosedSink, IncomingRequest, InviteSink, NextHop, RequestSink, SentInvite
from isthmus.sip.client_transaction import ClientTransaction
from isthmus.sip.message import SipMessage, SipRequest, SipResponse, build_response
from isthmus.sip.parser import BadMessage, parse_message
from isthmus.sip.server_transaction import ServerTransaction
from isthmus.sip.timers import TimerTable
from isthmus.sip.transaction_layer import (
    AckReceived,
    CancelReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StrayResponse,
    TransactionFailed,
    TransactionLayer,
    TransactionTimedOut,
)
from isthmus.sip.uri import SipUri
from isthmus.sip.validation import check_request, check_response
from isthmus.trace import Trace

_LOG = logging.getLogger(__name__)

CancelSink = Callable[[IncomingRequest, SipRequest], None]
"""Takes the INVITE that was cancelled, and the CANCEL."""


class NetworkSipEndpoint(FreshIdentifiers):
    """SIP over UDP, TCP, TLS and WebSocket.

    Requests come to `on_request` as `ports.IncomingRequest`, checked by `sip.validation.check_request`: what fails is
    answered here, so nobody needs to check again. The ACK of a 2xx comes the same way; its `respond` does nothing.
    CANCEL is answered here, and the INVITE it means is given to `on_cancel`, which answers it 487; without `on_cancel`
    the endpoint does that too.

    To send, `await request(...)`; where a future and a wake-up per request are too much, `request_nowait(...)`.

    Attributes:
        bound: real host and port of the first listener of each transport, by "udp", "tcp", "tls", "ws", "wss".
    """

    def __init__(
        self,
        config: SipSettings,
        *,
        trace: Trace,
        on_request: RequestSink,
        on_flow_closed: FlowClosedSink | None = None,
        on_cancel: CancelSink | None = None,
        resolver: TargetResolver | None = None,
        data_directory: Path = Path(),
        has_trace_bodies: bool = False,
        timers: TimerTable | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            config: listeners, certificates, name servers.
            trace: gets every wire message while somebody listens.
            on_request: takes requests; must not block.
            on_flow_closed: is told of each connection that closed.
            on_cancel: is told of each unanswered INVITE that was cancelled.
            resolver: RFC 3263; None makes one from `config.dns_servers`.
            data_directory: where relative paths of `config.tls` begin.
            has_trace_bodies: let bodies into the trace.
            timers: durations of SIP timers.
            limits: bounds of connections.
        """
        self._layer = TransactionLayer(timers=timers, new_branch=self.new_branch)
        self._transports = SipTransports(config, data_directory, limits or ConnectionLimits(), self)
        self._sender = RequestSender(
            self._transports,
            resolver or SipResolver(config.dns_servers),
            start=self._start_transaction,
            new_branch=self.new_branch,
        )
        self._inviter = InviteSender(self._sender, self._cancel, remember_seconds=self._layer.timers.timeout)
        self._trace = trace
        self._wire = WireTrace(trace, has_bodies=has_trace_bodies)
        self._on_request = on_request
        self._on_flow_closed = on_flow_closed
        self._on_cancel = on_cancel
        self._invites: dict[ServerTransaction, ReceivedRequest] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._is_arming = False
        self._is_draining = False
        self._is_running = False

    @property
    def bound(self) -> dict[str, tuple[str, int]]:
        """Real host and port by transport."""
        return self._transports.bound

    @property
    def pending(self) -> int:
        """Unfinished transactions of both sides."""
        return self._layer.pending

    async def start(self) -> None:
        """Open all listeners. Raises ConfigurationError (address in use, missing certificate, clear-text ws)."""
        self._loop = asyncio.get_running_loop()
        self._transports.open()
        self._is_running = True

    async def stop(self) -> None:
        """Close all listeners and connections; whoever awaits a response gets a TransportError."""
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._inviter.stop()
        self._sender.stop()
        self._transports.close()

    # --- ports.SipEndpoint ----------------------------------------------------------------------------------------

    async def request(self, request: SipRequest, next_hop: NextHop | None = None) -> SipResponse:
        """Send a request and return its final response (see `ports.SipEndpoint.request`)."""
        return await self._sender.request(request, next_hop)

    def request_nowait(self, request: SipRequest, next_hop: NextHop | None, answer: Answer) -> None:
        """Send a request and call `answer` once with the final response or a `TransportError`.

        For the hot path: over a known flow or to a numeric address it costs no future, no task and no wake-up.
        `answer` may be called before this returns, and must not raise.
        """
        self._sender.request_nowait(request, next_hop, answer)

    def invite(self, request: SipRequest, next_hop: NextHop | None, sink: InviteSink) -> SentInvite:
        """Send an INVITE, initial or within a dialog (see `ports.CallSipEndpoint.invite`)."""
        return self._inviter.invite(request, next_hop, sink)

    def send_ack(self, ack: SipRequest, next_hop: NextHop | None = None) -> None:
        """Send the ACK of a 2xx, which belongs to no transaction (RFC 3261 section 13.2.2.4), if it can be sent."""

        def send(flow: Flow) -> None:
            self._layer.send_statelessly(self._sender.prepare(ack, flow), flow)
            self._drain()

        self._sender.send_soon(ack, next_hop, send)

    def contact_uri(self, user: str, transport: str, *, host: str = "") -> SipUri:
        """Return a Contact URI that reaches this process over `transport` (our listener's address).

        Args:
            user: user part, escaped; may be empty.
            transport: wanted transport; without such a listener the first one is named.
            host: instead of the listener's host.
        """
        name, listener_host, port = self._transports.contact(transport)
        params = (("transport", name),) if name != "udp" else ()
        return SipUri("sip", host or listener_host, user=user, port=port, params=params)

    def is_flow_alive(self, flow: Flow) -> bool:
        """False once the stream connection behind `flow` has closed; UDP flows are always alive."""
        return self._transports.is_alive(flow)

    # --- from the transports --------------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, flow: Flow) -> None:
        """Take one UDP datagram."""
        if self._trace.is_listened_to:
            self._wire.note("<", flow, data)
        try:
            message = parse_message(data)
        except BadMessage as error:
            self._refuse(error.partial, error.status, flow)
            return
        self._receive(message, flow)

    def datagrams_drained(self) -> None:
        """Re-arm the timer once for all messages of one read."""
        self._arm()

    def message_received(self, message: SipMessage, flow: Flow) -> None:
        """Take one message of a connection."""
        if self._trace.is_listened_to:
            self._wire.note("<", flow, message.to_bytes())
        self._receive(message, flow)

    def bad_message_received(self, error: BadMessage, flow: Flow) -> None:
        """Answer what can be answered of a message that is none."""
        if self._trace.is_listened_to:
            self._wire.note("!", flow, str(error).encode())
        self._refuse(error.partial, error.status, flow)

    def flow_failed(self, flow: Flow) -> None:
        """ICMP says that nothing is there."""
        self._layer.transport_failed(flow, time.monotonic())
        self._drain()

    def connection_closed(self, flow: Flow) -> None:
        """A connection is gone."""
        if self._trace.is_listened_to:
            self._trace.wire("x", f"sip {flow.transport} {flow.remote_host}:{flow.remote_port}", "connection closed")
        self._layer.transport_failed(flow, time.monotonic())
        self._drain()
        if self._on_flow_closed is not None and self._is_running:
            self._on_flow_closed(flow)

    def _receive(self, message: SipMessage, flow: Flow) -> None:
        if isinstance(message, SipResponse):
            try:
                check_response(message)
            except SipParseError:
                return  # a response is never answered (RFC 4475 section 3.1.2.5 and others)
        else:
            try:
                check_request(message)
            except SipParseError as error:
                self._refuse(message, error.status, flow)
                return
            via = message.top_via
            if flow.connection == 0:
                flow = answer_flow(via, flow, lambda host, port: self._transports.udp_flow(host, port, like=flow))
            elif flow.peer_names and via.param("alias") is not None:
                self._transports.add_alias(flow, via)
        self._layer.receive(message, flow, time.monotonic())
        self._drain()

    def _refuse(self, partial: SipRequest | None, status: int, flow: Flow) -> None:
        """Answer a malformed request without a transaction: repeats get the same answer again."""
        if partial is None or partial.method == "ACK" or status < 400:
            return
        self._layer.send_statelessly(build_response(partial, status, to_tag=self.new_tag()), flow)
        self._drain()

    # --- from and to the layer ------------------------------------------------------------------------------------

    def _start_transaction(self, request: SipRequest, flow: Flow) -> ClientTransaction:
        transaction = self._layer.send_request(request, flow, time.monotonic())
        self._drain()
        self._arm_soon()
        return transaction

    def _cancel(self, transaction: ClientTransaction, reason: str) -> None:
        self._layer.cancel(transaction, time.monotonic(), reason)
        self._drain()
        self._arm_soon()

    def _send_response(self, transaction: ServerTransaction, response: SipResponse) -> None:
        self._layer.send_response(transaction, response, time.monotonic())
        if response.status >= 200 and transaction.is_invite:
            self._invites.pop(transaction, None)
        self._drain()
        self._arm_soon()

    def _drain(self) -> None:
        """Write and tell until the layer is silent; events may make the services answer at once."""
        if self._is_draining:
            return
        layer = self._layer
        self._is_draining = True
        try:
            while layer.has_news:
                for data, flow in layer.outgoing():
                    self._write(data, flow)
                for event in layer.events():
                    self._tell(event)
        finally:
            self._is_draining = False

    def _write(self, data: bytes, flow: Flow) -> None:
        if self._trace.is_listened_to:
            self._wire.note(">", flow, data)
        if not self._transports.send(data, flow):
            self._layer.transport_failed(flow, time.monotonic())

    def _tell(self, event: Event) -> None:
        try:
            _TELL[type(event)](self, event)
        except Exception:  # a mistake in one service must not stop the others' traffic
            _LOG.exception("%s was not taken", type(event).__name__)
            if isinstance(event, RequestReceived) and not event.transaction.is_answered:
                self._layer.send_response(
                    event.transaction, build_response(event.request, 500, to_tag=self.new_tag()), time.monotonic()
                )

    def _tell_request(self, event: RequestReceived) -> None:
        incoming = ReceivedRequest(event.transaction, event.flow, self._send_response, self.new_tag)
        if event.transaction.is_invite:
            self._invites[event.transaction] = incoming
        self._on_request(incoming)

    def _tell_ack(self, event: AckReceived) -> None:
        self._on_request(ReceivedAck(event.request, event.flow, time.monotonic()))

    def _tell_cancel(self, event: CancelReceived) -> None:
        incoming = self._invites.get(event.transaction)
        if incoming is None:
            return
        if self._on_cancel is not None:
            self._on_cancel(incoming, event.request)
        else:
            incoming.respond(487)

    def _tell_response(self, event: ResponseReceived) -> None:
        if not self._sender.response_received(event.transaction, event.response):
            self._inviter.response_received(event.transaction, event.response)

    def _tell_timeout(self, event: TransactionTimedOut) -> None:
        if isinstance(event.transaction, ClientTransaction):
            self._sender.timed_out(event.transaction)
            self._inviter.timed_out(event.transaction)
        else:
            self._invites.pop(event.transaction, None)

    def _tell_failure(self, event: TransactionFailed) -> None:
        if isinstance(event.transaction, ClientTransaction):
            self._sender.failed(event.transaction)
            self._inviter.failed(event.transaction)

    def _tell_stray(self, event: StrayResponse) -> None:
        self._inviter.stray_received(event.response)

    # --- time -----------------------------------------------------------------------------------------------------

    def _arm_soon(self) -> None:
        """Re-arm once for everything that happens in this turn of the loop."""
        if not self._is_arming and self._loop is not None:
            self._is_arming = True
            self._loop.call_soon(self._arm)

    def _arm(self) -> None:
        """Keep one timer for the layer's next deadline; one that fires early only looks again."""
        self._is_arming = False
        deadline = self._layer.next_deadline()
        if deadline is None or deadline >= self._timer_at or not self._is_running or self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        self._layer.handle_timer(time.monotonic())
        self._drain()
        self._arm()


_TELL: dict[type[Event], Callable[[NetworkSipEndpoint, Any], None]] = {
    RequestReceived: NetworkSipEndpoint._tell_request,
    ResponseReceived: NetworkSipEndpoint._tell_response,
    AckReceived: NetworkSipEndpoint._tell_ack,
    CancelReceived: NetworkSipEndpoint._tell_cancel,
    TransactionTimedOut: NetworkSipEndpoint._tell_timeout,
    TransactionFailed: NetworkSipEndpoint._tell_failure,
    StrayResponse: NetworkSipEndpoint._tell_stray,
}
