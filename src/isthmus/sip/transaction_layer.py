"""The transaction layer: messages and time in, events and bytes out (RFC 3261 section 17).

It matches messages to transactions, absorbs repeats, answers what needs no user (merged requests, CANCEL, 100 Trying)
and drops finished transactions down to what their last timer needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from isthmus.errors import SipParseError
from isthmus.sip import client_transaction, server_transaction
from isthmus.sip.client_transaction import ClientInput, ClientTransaction
from isthmus.sip.headers import MAGIC_COOKIE
from isthmus.sip.matching import build_cancel, client_key, complete_via, fingerprint, server_key
from isthmus.sip.message import SipMessage, SipRequest, SipResponse, build_response
from isthmus.sip.server_transaction import ServerInput, ServerTransaction
from isthmus.sip.timers import Afterlife, Expiring, TimerQueue, TimerTable

# Requests we hold unanswered. At 5,000 a second this is ten seconds of a stalled store: beyond it nobody waits any
# more, and each costs about 5 KB.
MAXIMUM_PENDING = 50_000
# Final responses kept against repeats. 5,000 a second for the 32 s of Timer J are 160,000: 85 MB, measured. When more
# come, the oldest are forgotten: a repeat that late is a client that lost every earlier answer.
MAXIMUM_COMPLETED = 200_000
RETRY_AFTER_SECONDS = 10


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A new request; answer it with `TransactionLayer.send_response`."""

    transaction: ServerTransaction
    request: SipRequest
    flow: Any


@dataclass(frozen=True, slots=True)
class CancelReceived:
    """An INVITE that is still unanswered was cancelled: answer it 487. The CANCEL has its 200 already.

    Attributes:
        transaction: of the INVITE.
        request: the CANCEL, for its Reason header field (RFC 3326).
    """

    transaction: ServerTransaction
    request: SipRequest


@dataclass(frozen=True, slots=True)
class AckReceived:
    """The ACK of a 2xx: it belongs to the dialog, not to a transaction (section 13.3.1.4)."""

    request: SipRequest
    flow: Any


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A response to our request: any number of provisional ones, then a final one; an INVITE may get several 2xx."""

    transaction: ClientTransaction
    response: SipResponse


@dataclass(frozen=True, slots=True)
class StrayResponse:
    """A response without a transaction that could take it: a 2xx of a late fork wants ACK and BYE, others nothing."""

    response: SipResponse
    flow: Any


@dataclass(frozen=True, slots=True)
class TransactionTimedOut:
    """Client: no final response within 64*T1 (to be treated as 408, section 8.1.3.1). Server: nobody acknowledged
    our failure response, or the user did not answer while the client still waited."""

    transaction: ClientTransaction | ServerTransaction


@dataclass(frozen=True, slots=True)
class TransactionFailed:
    """The flow broke (to be treated as 503, section 8.1.3.1)."""

    transaction: ClientTransaction | ServerTransaction


Event: TypeAlias = (
    RequestReceived
    | CancelReceived
    | AckReceived
    | ResponseReceived
    | StrayResponse
    | TransactionTimedOut
    | TransactionFailed
)


class TransactionLayer:
    """All transactions of one endpoint.

    Drive it like this: call a method with `now` (monotonic seconds), then write `outgoing()`, act on `events()`, and
    arm one timer for `next_deadline()`.

    A flow is any hashable value with `is_stream`, `remote_host` and `remote_port` (`ports.Flow`).
    """

    def __init__(
        self,
        *,
        timers: TimerTable | None = None,
        new_branch: Callable[[], str],
        maximum_pending: int = MAXIMUM_PENDING,
        maximum_completed: int = MAXIMUM_COMPLETED,
    ) -> None:
        self.timers = timers or TimerTable()
        self.timer_queue = TimerQueue()
        self.maximum_pending = maximum_pending
        self._new_branch = new_branch
        self._clients: dict[str, ClientTransaction] = {}
        self._servers: dict[str, ServerTransaction] = {}
        # Transactions to be told when their flow breaks.
        self._on_flow: dict[Any, set[ClientTransaction | ServerTransaction]] = {}
        self._merge_keys: set[int] = set()
        # Timers J and K, and the fingerprints of requests in Timer J.
        self._answers: Afterlife[str, bytes] = Afterlife(self.timers.timeout, maximum_completed)
        self._answered_merge_keys: Afterlife[int, bool] = Afterlife(self.timers.timeout, maximum_completed)
        self._absorbing: Afterlife[str, bool] = Afterlife(self.timers.t4, maximum_completed)
        self._afterlives: tuple[Expiring, ...] = (self._answers, self._answered_merge_keys, self._absorbing)
        self._events: list[Event] = []
        self._outgoing: list[tuple[bytes, Any]] = []

    @property
    def pending(self) -> int:
        """Number of transactions, both sides, that are not finished; zero means a restart loses nothing."""
        return len(self._clients) + len(self._servers)

    @property
    def completed(self) -> int:
        """Number of final responses kept against repeats."""
        return len(self._answers)

    @property
    def has_news(self) -> bool:
        """True when there is something to write or to tell."""
        return bool(self._outgoing or self._events)

    def events(self) -> list[Event]:
        """Return what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def outgoing(self) -> list[tuple[bytes, Any]]:
        """Return the bytes to write since the last call, each with its flow, in order."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    # --- from the transport -----------------------------------------------------------------------------------

    def receive(self, message: SipMessage, flow: Any, now: float) -> None:
        """Take a parsed message. Never raises: what cannot be matched or answered for its malformed Via is dropped."""
        try:
            if isinstance(message, SipRequest):
                self._receive_request(message, flow, now)
            else:
                self._receive_response(message, flow, now)
        except SipParseError:
            # Without Via, or CSeq in a response, there is nobody to answer and nothing to match (section 18.1.2).
            return

    def transport_failed(self, flow: Any, now: float) -> None:
        """Tell every transaction on `flow` that it broke (connection lost, ICMP error: section 18.4)."""
        for transaction in tuple(self._on_flow.get(flow, ())):
            if isinstance(transaction, ClientTransaction):
                transaction.step(ClientInput.TRANSPORT_ERROR, self, now)
            else:
                transaction.step(ServerInput.TRANSPORT_ERROR, self, now)

    def _receive_request(self, request: SipRequest, flow: Any, now: float) -> None:
        via = request.top_via
        method = request.method
        key = server_key(request, via, "INVITE" if method == "ACK" else method)
        transaction = self._servers.get(key)
        if transaction is not None:
            transaction.receive_again(request, self, now)
            return
        answer = self._answers.get(key)
        if answer is not None:
            self._outgoing.append((answer, flow))
            return
        complete_via(request, via, flow)
        if method == "ACK":
            self._events.append(AckReceived(request, flow))
        elif len(self._servers) >= self.maximum_pending:
            self._refuse_statelessly(request, flow)
        else:
            self._open(request, flow, key, now)

    def _open(self, request: SipRequest, flow: Any, key: str, now: float) -> None:
        is_cancel = request.method == "CANCEL"
        # A forked INVITE has a CANCEL on every branch: they are never merged.
        merge_key = 0 if is_cancel else fingerprint(request)
        is_merged = merge_key and (merge_key in self._merge_keys or merge_key in self._answered_merge_keys)
        transaction = ServerTransaction(
            request, flow, key, merge_key=0 if is_merged else merge_key, is_stream=flow.is_stream, now=now
        )
        self._servers[key] = transaction
        if transaction.is_invite:
            self._watch_flow(transaction)
        transaction.start(self, now)
        if is_merged:
            self.send_response(transaction, build_response(request, 482, to_tag=self._new_tag()), now)
        elif is_cancel:
            self._answer_cancel(transaction, now)
        else:
            if merge_key:
                self._merge_keys.add(merge_key)
            self._events.append(RequestReceived(transaction, request, flow))

    def _answer_cancel(self, transaction: ServerTransaction, now: float) -> None:
        request = transaction.request
        invite = self._servers.get(server_key(request, request.top_via, "INVITE"))
        # Section 9.2. A CANCEL for anything but INVITE has no effect; 481 says so.
        status = 481 if invite is None else 200
        self.send_response(transaction, build_response(request, status, to_tag=self._new_tag()), now)
        if invite is not None and not invite.is_answered:
            self._events.append(CancelReceived(invite, request))

    def _refuse_statelessly(self, request: SipRequest, flow: Any) -> None:
        response = build_response(
            request, 503, headers=[("Retry-After", str(RETRY_AFTER_SECONDS))], to_tag=self._new_tag()
        )
        self._outgoing.append((response.to_bytes(), flow))

    def _receive_response(self, response: SipResponse, flow: Any, now: float) -> None:
        vias = response.vias
        if len(vias) != 1:
            return  # section 8.1.3.3: it was not meant for us
        key = client_key(vias[0], response.cseq.method)
        transaction = self._clients.get(key)
        if transaction is not None:
            transaction.step(client_transaction.input_of(response), self, now, response)
        elif key not in self._absorbing:
            self._events.append(StrayResponse(response, flow))

    # --- from the transaction user ----------------------------------------------------------------------------

    def send_request(self, request: SipRequest, flow: Any, now: float) -> ClientTransaction:
        """Send a request (not ACK) in a new client transaction; its top Via must be ours, with a fresh branch."""
        is_stream = flow.is_stream
        key = client_key(request.top_via, request.method)
        transaction = ClientTransaction(request, flow, key, is_stream=is_stream)
        self._clients[key] = transaction
        self._watch_flow(transaction)
        transaction.start(self, now, is_stream=is_stream)
        return transaction

    def send_response(self, transaction: ServerTransaction, response: SipResponse, now: float) -> None:
        """Answer a request. A response the state does not allow (a second final one, any after a timeout) is dropped.

        A 408 to a request other than INVITE is not sent: it would only come too late (RFC 4320 section 4.2).
        """
        if response.status == 408 and not transaction.is_invite:
            transaction.step(ServerInput.TIMER_ANSWER, self, now)
        else:
            transaction.step(server_transaction.input_of(response.status), self, now, response)

    def send_statelessly(self, message: SipMessage, flow: Any) -> None:
        """Send a message outside any transaction: the ACK of a 2xx, or the answer to an unparseable request."""
        self._outgoing.append((message.to_bytes(), flow))

    def cancel(self, transaction: ClientTransaction, now: float, reason: str = "") -> None:
        """Cancel an INVITE: at once, or when the first provisional response came. No effect after a final response.

        The outcome is an ordinary event: 487, a 2xx that was faster, or a timeout 64*T1 after the CANCEL.

        Args:
            reason: value of its Reason header field (RFC 3326).
        """
        transaction.cancel_reason = reason
        transaction.step(ClientInput.CANCEL, self, now)

    # --- time -------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `handle_timer` should be called, or None. It may be early, never late."""
        earliest = self.timer_queue.next_deadline()
        for afterlife in self._afterlives:
            deadline = afterlife.next_deadline()
            if deadline is not None and (earliest is None or deadline < earliest):
                earliest = deadline
        return earliest

    def handle_timer(self, now: float) -> None:
        """Fire what is due."""
        for afterlife in self._afterlives:
            afterlife.expire(now)
        for machine, timer in self.timer_queue.due(now):
            if isinstance(machine, ClientTransaction | ServerTransaction):
                machine.step(timer, self, now)

    # --- what transactions ask for (ClientOutlet, ServerOutlet) -------------------------------------------------

    def write(self, data: bytes, flow: Any) -> None:
        """Queue bytes."""
        self._outgoing.append((data, flow))

    def response_received(self, transaction: ClientTransaction, response: SipResponse) -> None:
        """Tell the user, except of CANCELs, which the layer sends itself."""
        if transaction.request.method != "CANCEL":
            self._events.append(ResponseReceived(transaction, response))

    def stray_response(self, response: SipResponse, flow: Any) -> None:
        """Tell the user."""
        self._events.append(StrayResponse(response, flow))

    def ack_received(self, request: SipRequest, flow: Any) -> None:
        """Tell the user."""
        self._events.append(AckReceived(request, flow))

    def timed_out(self, transaction: ClientTransaction | ServerTransaction) -> None:
        """Tell the user."""
        if transaction.request.method != "CANCEL":
            self._events.append(TransactionTimedOut(transaction))

    def failed(self, transaction: ClientTransaction | ServerTransaction) -> None:
        """Tell the user."""
        if transaction.request.method != "CANCEL":
            self._events.append(TransactionFailed(transaction))

    def start_cancel(self, transaction: ClientTransaction, now: float) -> None:
        """Send the CANCEL of an INVITE where the INVITE went."""
        self.send_request(build_cancel(transaction.request, transaction.cancel_reason), transaction.flow, now)

    def completed_client(self, transaction: ClientTransaction, now: float) -> None:
        """Keep only the key for the length of Timer K."""
        self._absorbing.add(transaction.key, True, now)
        self.terminated(transaction)

    def absorb(self, transaction: ServerTransaction, now: float) -> None:
        """Keep only key and response for the length of Timer J."""
        self._answers.add(transaction.key, transaction.data, now)
        if transaction.merge_key:
            self._answered_merge_keys.add(transaction.merge_key, True, now)
        self.terminated(transaction)

    def terminated(self, transaction: ClientTransaction | ServerTransaction) -> None:
        """Forget a transaction."""
        if isinstance(transaction, ClientTransaction):
            self._clients.pop(transaction.key, None)
        else:
            self._servers.pop(transaction.key, None)
            self._merge_keys.discard(transaction.merge_key)
            if not transaction.is_invite:
                return
        watchers = self._on_flow.get(transaction.flow)
        if watchers is not None:
            watchers.discard(transaction)
            if not watchers:
                del self._on_flow[transaction.flow]

    def _watch_flow(self, transaction: ClientTransaction | ServerTransaction) -> None:
        watchers = self._on_flow.get(transaction.flow)
        if watchers is None:
            self._on_flow[transaction.flow] = {transaction}
        else:
            watchers.add(transaction)

    def _new_tag(self) -> str:
        return self._new_branch().removeprefix(MAGIC_COOKIE)
