"""Client transactions: RFC 3261 section 17.1 with the Accepted state of RFC 6026, as tables.

Four machines (INVITE or not, datagram or stream) share the two tables below; a stream replaces the few rows that
differ. Every (state, input) pair is either a row or stands in the machine's `ignored` table with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import IntEnum
from typing import NamedTuple, Protocol, TypeAlias

from isthmus.sip.matching import build_ack
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.timers import Lane, Timer, TimerQueue, TimerTable


class ClientState(IntEnum):
    """States of RFC 3261 Figures 5 and 6 and RFC 6026 Figure 4."""

    CALLING = 1  # INVITE sent, nothing heard
    TRYING = 2  # other request sent, nothing heard
    PROCEEDING = 3  # a provisional response came
    COMPLETED = 4  # a final response came (INVITE: a failure)
    ACCEPTED = 5  # INVITE: a 2xx came, others may follow from other forks
    TERMINATED = 6


class ClientInput(IntEnum):
    """What can happen to a client transaction."""

    PROVISIONAL = 101
    SUCCESS = 102
    FAILURE = 103
    CANCEL = 104  # the transaction user wants to stop the INVITE
    TRANSPORT_ERROR = 105
    TIMER_A = Timer.A
    TIMER_B = Timer.B
    TIMER_C = Timer.C
    TIMER_D = Timer.D
    TIMER_E = Timer.E
    TIMER_F = Timer.F
    TIMER_K = Timer.K
    TIMER_M = Timer.M


class ClientOutlet(Protocol):
    """What a client transaction needs from its surroundings (the transaction layer)."""

    timers: TimerTable
    timer_queue: TimerQueue

    def write(self, data: bytes, flow: Hashable) -> None:
        """Hand bytes to the transport."""

    def response_received(self, transaction: ClientTransaction, response: SipResponse) -> None:
        """Pass a response up."""

    def stray_response(self, response: SipResponse, flow: Hashable) -> None:
        """Pass up a response that its transaction can no longer take."""

    def timed_out(self, transaction: ClientTransaction) -> None:
        """No final response came in time."""

    def failed(self, transaction: ClientTransaction) -> None:
        """The transport failed."""

    def start_cancel(self, transaction: ClientTransaction, now: float) -> None:
        """Send CANCEL for this INVITE in its own transaction."""

    def completed_client(self, transaction: ClientTransaction, now: float) -> None:
        """A non-INVITE transaction on a datagram transport needs no more than absorbing repeats (Timer K)."""

    def terminated(self, transaction: ClientTransaction) -> None:
        """Forget the transaction."""


class ClientTransaction:
    """One request, sent and waiting.

    Attributes:
        request: as sent.
        flow: where it was sent; every retransmission, ACK and CANCEL goes there too (RFC 3263 section 4.3).
        key: branch and method of CSeq, what responses are matched by (RFC 3261 section 17.1.3).
        is_invite: which of the two machines this is.
        is_cancelled: the transaction user asked to stop; CANCEL follows the first provisional response.
        cancel_reason: Reason of that CANCEL.
    """

    __slots__ = (
        "_ack",
        "_data",
        "_interval",
        "_rows",
        "cancel_reason",
        "flow",
        "is_cancelled",
        "is_invite",
        "key",
        "limit_lane",
        "repeat_lane",
        "request",
        "state",
    )

    def __init__(self, request: SipRequest, flow: Hashable, key: str, *, is_stream: bool) -> None:
        self.request = request
        self.flow = flow
        self.key = key
        self.is_invite = request.method == "INVITE"
        self.is_cancelled = False
        self.cancel_reason = ""
        self.repeat_lane: Lane | None = None
        self.limit_lane: Lane | None = None
        self._ack = b""
        self._data = b""
        self._interval = 0.0
        machine = machine_for(self.is_invite, is_stream)
        self._rows = machine.rows
        self.state = machine.initial

    @property
    def is_over(self) -> bool:
        """True once there is a final response, or none can come any more."""
        return self.state >= ClientState.COMPLETED

    def start(self, outlet: ClientOutlet, now: float, *, is_stream: bool) -> None:
        """Send the request and arm Timers A and B, or E and F."""
        self._data = self.request.to_bytes()
        self._interval = outlet.timers.t1
        outlet.write(self._data, self.flow)
        queue, timers = outlet.timer_queue, outlet.timers
        if self.is_invite:
            queue.arm_limit(self, queue.lane(Timer.B, timers.timeout), now)
            if not is_stream:
                queue.arm_repeat(self, queue.lane(Timer.A, timers.t1), now)
        else:
            queue.arm_limit(self, queue.lane(Timer.F, timers.timeout), now)
            if not is_stream:
                queue.arm_repeat(self, queue.lane(Timer.E, timers.t1), now)

    def step(self, happened: int, outlet: ClientOutlet, now: float, response: SipResponse | None = None) -> None:
        """Take one input (a `ClientInput`, or the `Timer` of the same value) through the table."""
        row = self._rows[self.state].get(happened)
        if row is not None:
            self.state = row.next_state
            for action in row.actions:
                action(self, outlet, now, response)


# --- actions, named by the tables below -------------------------------------------------------------------------

Action: TypeAlias = Callable[[ClientTransaction, ClientOutlet, float, SipResponse | None], None]


def _pass_up(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    if response is not None:
        outlet.response_received(tx, response)


def _pass_up_stray(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    if response is not None:
        outlet.stray_response(response, tx.flow)


def _resend_invite(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    outlet.write(tx._data, tx.flow)
    tx._interval *= 2  # Timer A doubles without a ceiling (section 17.1.1.2)
    queue = outlet.timer_queue
    queue.arm_repeat(tx, queue.lane(Timer.A, tx._interval), now)


def _resend(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    outlet.write(tx._data, tx.flow)
    tx._interval = min(2 * tx._interval, outlet.timers.t2)
    queue = outlet.timer_queue
    queue.arm_repeat(tx, queue.lane(Timer.E, tx._interval), now)


def _slow_down(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    # The running Timer E is left alone: only its next value changes (section 17.1.2.2).
    tx._interval = outlet.timers.t2


def _stop_timers(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    outlet.timer_queue.disarm(tx)


def _restart_c(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    # Timer C is reset by 101 to 199 (section 16.7 step 2); a 100 only starts it. After a CANCEL the limit is 64*T1.
    if tx.is_cancelled or (tx.limit_lane is not None and response is not None and response.status == 100):
        return
    queue = outlet.timer_queue
    queue.arm_limit(tx, queue.lane(Timer.C, outlet.timers.c), now)


def _note_cancel(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    tx.is_cancelled = True


def _cancel_if_wanted(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    if tx.is_cancelled:
        _send_cancel(tx, outlet, now, response)


def _cancel_once(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    if not tx.is_cancelled:
        tx.is_cancelled = True
        _send_cancel(tx, outlet, now, response)


def _send_cancel(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    outlet.start_cancel(tx, now)
    # Section 9.1: without a final response 64*T1 after the CANCEL the INVITE counts as cancelled. Timer B's second job.
    queue = outlet.timer_queue
    queue.arm_limit(tx, queue.lane(Timer.B, outlet.timers.timeout), now)


def _send_ack(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    if response is not None:
        tx._ack = build_ack(tx.request, response).to_bytes()
    outlet.write(tx._ack, tx.flow)


def _start_d(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    queue = outlet.timer_queue
    queue.disarm(tx)
    queue.arm_limit(tx, queue.lane(Timer.D, outlet.timers.d), now)


def _start_m(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    queue = outlet.timer_queue
    queue.disarm(tx)
    queue.arm_limit(tx, queue.lane(Timer.M, outlet.timers.timeout), now)


def _start_k(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    outlet.timer_queue.disarm(tx)
    outlet.completed_client(tx, now)


def _time_out(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    outlet.timed_out(tx)


def _fail(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    outlet.failed(tx)


def _end(tx: ClientTransaction, outlet: ClientOutlet, now: float, response: SipResponse | None) -> None:
    outlet.timer_queue.disarm(tx)
    outlet.terminated(tx)


# --- tables -----------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """What an input leads to: the next state first, then the actions in order."""

    next_state: ClientState
    actions: tuple[Action, ...]


Rows: TypeAlias = Mapping[ClientState, Mapping[int, Row]]


class ClientMachine(NamedTuple):
    """One of the four machines: every pair of `states` and `inputs` is in `rows` or has its reason in `ignored`."""

    initial: ClientState
    rows: Rows
    ignored: Mapping[ClientState, Mapping[int, str]]
    states: tuple[ClientState, ...]
    inputs: tuple[ClientInput, ...]


_S, _I = ClientState, ClientInput

INVITE_ROWS: Rows = {
    _S.CALLING: {
        _I.PROVISIONAL: Row(_S.PROCEEDING, (_stop_timers, _pass_up, _restart_c, _cancel_if_wanted)),
        _I.SUCCESS: Row(_S.ACCEPTED, (_start_m, _pass_up)),
        _I.FAILURE: Row(_S.COMPLETED, (_start_d, _send_ack, _pass_up)),
        # Section 9.1: no CANCEL before a provisional response, it could overtake the INVITE.
        _I.CANCEL: Row(_S.CALLING, (_note_cancel,)),
        _I.TIMER_A: Row(_S.CALLING, (_resend_invite,)),
        _I.TIMER_B: Row(_S.TERMINATED, (_time_out, _end)),
        _I.TRANSPORT_ERROR: Row(_S.TERMINATED, (_fail, _end)),
    },
    _S.PROCEEDING: {
        _I.PROVISIONAL: Row(_S.PROCEEDING, (_pass_up, _restart_c)),
        _I.SUCCESS: Row(_S.ACCEPTED, (_start_m, _pass_up)),
        _I.FAILURE: Row(_S.COMPLETED, (_start_d, _send_ack, _pass_up)),
        _I.CANCEL: Row(_S.PROCEEDING, (_cancel_once,)),
        _I.TIMER_C: Row(_S.PROCEEDING, (_cancel_once,)),
        _I.TIMER_B: Row(_S.TERMINATED, (_time_out, _end)),  # armed here only after a CANCEL
        # Not in Figure 5, where the answer may come on a new connection. Ours cannot: peers behind NAT and browsers
        # answer on the flow of the request or not at all, and a caller should not wait three minutes for nothing.
        _I.TRANSPORT_ERROR: Row(_S.TERMINATED, (_fail, _end)),
    },
    _S.COMPLETED: {
        # A forking proxy forwards a 2xx even after a failure (section 16.7 step 5); someone must ACK it and hang up.
        _I.SUCCESS: Row(_S.COMPLETED, (_pass_up_stray,)),
        _I.FAILURE: Row(_S.COMPLETED, (_send_ack,)),
        _I.TIMER_D: Row(_S.TERMINATED, (_end,)),
        _I.TRANSPORT_ERROR: Row(_S.TERMINATED, (_end,)),  # only an ACK is lost: the user has its answer already
    },
    _S.ACCEPTED: {
        _I.SUCCESS: Row(_S.ACCEPTED, (_pass_up,)),
        _I.TIMER_M: Row(_S.TERMINATED, (_end,)),
    },
    _S.TERMINATED: {},
}

# On a stream nothing is repeated, so Timer D is zero (section 17.1.1.2).
INVITE_STREAM_ROWS: Rows = {
    **INVITE_ROWS,
    _S.CALLING: {**INVITE_ROWS[_S.CALLING], _I.FAILURE: Row(_S.TERMINATED, (_send_ack, _pass_up, _end))},
    _S.PROCEEDING: {**INVITE_ROWS[_S.PROCEEDING], _I.FAILURE: Row(_S.TERMINATED, (_send_ack, _pass_up, _end))},
}

OTHER_ROWS: Rows = {
    _S.TRYING: {
        _I.PROVISIONAL: Row(_S.PROCEEDING, (_slow_down, _pass_up)),
        _I.SUCCESS: Row(_S.COMPLETED, (_start_k, _pass_up)),
        _I.FAILURE: Row(_S.COMPLETED, (_start_k, _pass_up)),
        _I.TIMER_E: Row(_S.TRYING, (_resend,)),
        _I.TIMER_F: Row(_S.TERMINATED, (_time_out, _end)),
        _I.TRANSPORT_ERROR: Row(_S.TERMINATED, (_fail, _end)),
    },
    _S.PROCEEDING: {
        _I.PROVISIONAL: Row(_S.PROCEEDING, (_pass_up,)),
        _I.SUCCESS: Row(_S.COMPLETED, (_start_k, _pass_up)),
        _I.FAILURE: Row(_S.COMPLETED, (_start_k, _pass_up)),
        _I.TIMER_E: Row(_S.PROCEEDING, (_resend,)),
        _I.TIMER_F: Row(_S.TERMINATED, (_time_out, _end)),
        _I.TRANSPORT_ERROR: Row(_S.TERMINATED, (_fail, _end)),
    },
    _S.COMPLETED: {_I.TIMER_K: Row(_S.TERMINATED, (_end,))},
    _S.TERMINATED: {},
}

OTHER_STREAM_ROWS: Rows = {
    **OTHER_ROWS,
    _S.TRYING: {
        **OTHER_ROWS[_S.TRYING],
        _I.SUCCESS: Row(_S.TERMINATED, (_end, _pass_up)),
        _I.FAILURE: Row(_S.TERMINATED, (_end, _pass_up)),
    },
    _S.PROCEEDING: {
        **OTHER_ROWS[_S.PROCEEDING],
        _I.SUCCESS: Row(_S.TERMINATED, (_end, _pass_up)),
        _I.FAILURE: Row(_S.TERMINATED, (_end, _pass_up)),
    },
}

_STOPPED = "this timer was stopped or never started in this state; a late firing means nothing"
_LATE = "the transaction user has its final response; this one is a repeat or out of order"
_OVER = "a terminated transaction is forgotten by the layer; whoever still holds it may not revive it"
_TOO_LATE_TO_CANCEL = "CANCEL has no effect after a final response (section 9.1)"

_INVITE_INPUTS = (
    _I.PROVISIONAL, _I.SUCCESS, _I.FAILURE, _I.CANCEL, _I.TRANSPORT_ERROR,
    _I.TIMER_A, _I.TIMER_B, _I.TIMER_C, _I.TIMER_D, _I.TIMER_M,
)  # fmt: skip
_OTHER_INPUTS = (
    _I.PROVISIONAL, _I.SUCCESS, _I.FAILURE, _I.CANCEL, _I.TRANSPORT_ERROR, _I.TIMER_E, _I.TIMER_F, _I.TIMER_K,
)  # fmt: skip

INVITE_IGNORED: Mapping[ClientState, Mapping[int, str]] = {
    _S.CALLING: {_I.TIMER_C: _STOPPED, _I.TIMER_D: _STOPPED, _I.TIMER_M: _STOPPED},
    _S.PROCEEDING: {_I.TIMER_A: _STOPPED, _I.TIMER_D: _STOPPED, _I.TIMER_M: _STOPPED},
    _S.COMPLETED: {
        _I.PROVISIONAL: _LATE,
        _I.CANCEL: _TOO_LATE_TO_CANCEL,
        **dict.fromkeys((_I.TIMER_A, _I.TIMER_B, _I.TIMER_C, _I.TIMER_M), _STOPPED),
    },
    _S.ACCEPTED: {
        _I.PROVISIONAL: "a fork that still rings after another answered; the proxy cancels it (RFC 6026 section 7.2)",
        _I.FAILURE: "a fork that failed after another answered (RFC 6026 section 7.2)",
        _I.CANCEL: _TOO_LATE_TO_CANCEL,
        _I.TRANSPORT_ERROR: "ACK and BYE for the 2xx travel outside this transaction",
        **dict.fromkeys((_I.TIMER_A, _I.TIMER_B, _I.TIMER_C, _I.TIMER_D), _STOPPED),
    },
    _S.TERMINATED: dict.fromkeys(_INVITE_INPUTS, _OVER),
}

OTHER_IGNORED: Mapping[ClientState, Mapping[int, str]] = {
    _S.TRYING: {_I.TIMER_K: _STOPPED, _I.CANCEL: "only INVITE can be cancelled (section 9.1)"},
    _S.PROCEEDING: {_I.TIMER_K: _STOPPED, _I.CANCEL: "only INVITE can be cancelled (section 9.1)"},
    _S.COMPLETED: {
        **dict.fromkeys((_I.PROVISIONAL, _I.SUCCESS, _I.FAILURE), _LATE),
        _I.CANCEL: _TOO_LATE_TO_CANCEL,
        _I.TRANSPORT_ERROR: "nothing is left to be sent",
        _I.TIMER_E: _STOPPED,
        _I.TIMER_F: _STOPPED,
    },
    _S.TERMINATED: dict.fromkeys(_OTHER_INPUTS, _OVER),
}

_INVITE = ClientMachine(_S.CALLING, INVITE_ROWS, INVITE_IGNORED, tuple(INVITE_ROWS), _INVITE_INPUTS)
_OTHER = ClientMachine(_S.TRYING, OTHER_ROWS, OTHER_IGNORED, tuple(OTHER_ROWS), _OTHER_INPUTS)
_MACHINES = {
    (True, False): _INVITE,
    (True, True): _INVITE._replace(rows=INVITE_STREAM_ROWS),
    (False, False): _OTHER,
    (False, True): _OTHER._replace(rows=OTHER_STREAM_ROWS),
}


def machine_for(is_invite: bool, is_stream: bool) -> ClientMachine:
    """Return the machine for a request and its transport."""
    return _MACHINES[is_invite, is_stream]


def input_of(response: SipResponse) -> ClientInput:
    """Sort a response into the three kinds the tables know."""
    status = response.status
    if status < 200:
        return _I.PROVISIONAL
    return _I.SUCCESS if status < 300 else _I.FAILURE
