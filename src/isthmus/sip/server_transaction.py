"""Server transactions: RFC 3261 section 17.2 with the Accepted state of RFC 6026 and the rules of RFC 4320, as tables.

Four machines (INVITE or not, datagram or stream) share the two tables below; a stream replaces the few rows that
differ. Every (state, input) pair is either a row or stands in the machine's `ignored` table with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import IntEnum
from typing import NamedTuple, Protocol, TypeAlias

from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.timers import Lane, Timer, TimerQueue, TimerTable


class ServerState(IntEnum):
    """States of RFC 3261 Figure 8 and RFC 6026 Figure 5."""

    TRYING = 1  # a request other than INVITE came, nothing was answered
    PROCEEDING = 2  # an INVITE came, or a provisional response went out
    COMPLETED = 3  # a final response went out (INVITE: a failure, not yet acknowledged)
    CONFIRMED = 4  # INVITE: the failure was acknowledged
    ACCEPTED = 5  # INVITE: a 2xx went out
    TERMINATED = 6


class ServerInput(IntEnum):
    """What can happen to a server transaction."""

    REQUEST = 101  # the request again
    LATE_REQUEST = 107  # not INVITE: again, so late that its client repeats it only every T2
    ACK = 102
    PROVISIONAL = 103  # the transaction user answers
    SUCCESS = 104
    FAILURE = 105
    TRANSPORT_ERROR = 106
    TIMER_G = Timer.G
    TIMER_H = Timer.H
    TIMER_I = Timer.I
    TIMER_J = Timer.J
    TIMER_L = Timer.L
    TIMER_TRYING = Timer.TRYING
    TIMER_ANSWER = Timer.ANSWER


class ServerOutlet(Protocol):
    """What a server transaction needs from its surroundings (the transaction layer)."""

    timers: TimerTable
    timer_queue: TimerQueue

    def write(self, data: bytes, flow: Hashable) -> None:
        """Hand bytes to the transport."""

    def ack_received(self, request: SipRequest, flow: Hashable) -> None:
        """Pass up the ACK of a 2xx."""

    def timed_out(self, transaction: ServerTransaction) -> None:
        """No ACK came, or the transaction user did not answer in time."""

    def failed(self, transaction: ServerTransaction) -> None:
        """The transport failed."""

    def absorb(self, transaction: ServerTransaction, now: float) -> None:
        """A non-INVITE transaction needs no more than its final response against repeats (Timer J)."""

    def terminated(self, transaction: ServerTransaction) -> None:
        """Forget the transaction."""


class ServerTransaction:
    """One request, received and to be answered.

    Attributes:
        request: as received, its top Via completed with received and rport (RFC 3581).
        flow: where it came from and where every response goes.
        key: branch, sent-by and method, what repeats are matched by (RFC 3261 section 17.2.3).
        merge_key: fingerprint of From tag, Call-ID and CSeq (section 8.2.2.2); 0 when it cannot be merged.
        is_invite: which of the two machines this is.
        arrived_at: monotonic seconds.
        data: the last response as sent, empty before the first.
    """

    __slots__ = (
        "_interval",
        "_rows",
        "arrived_at",
        "data",
        "flow",
        "is_invite",
        "is_stream",
        "key",
        "limit_lane",
        "merge_key",
        "repeat_lane",
        "request",
        "state",
    )

    def __init__(
        self, request: SipRequest, flow: Hashable, key: str, *, merge_key: int, is_stream: bool, now: float
    ) -> None:
        self.request = request
        self.flow = flow
        self.key = key
        self.merge_key = merge_key
        self.is_invite = request.method == "INVITE"
        self.is_stream = is_stream
        self.arrived_at = now
        self.data = b""
        self.repeat_lane: Lane | None = None
        self.limit_lane: Lane | None = None
        self._interval = 0.0
        machine = _MACHINES[self.is_invite, is_stream]
        self._rows = machine.rows
        self.state = machine.initial

    @property
    def is_answered(self) -> bool:
        """True once a final response was given, or can no longer be."""
        return self.state > ServerState.PROCEEDING

    def start(self, outlet: ServerOutlet, now: float) -> None:
        """Arm the 200 ms to the first response of an INVITE, or the time in which other requests can be answered."""
        queue, timers = outlet.timer_queue, outlet.timers
        if self.is_invite:
            queue.arm_limit(self, queue.lane(Timer.TRYING, timers.trying), now)
        else:
            queue.arm_limit(self, queue.lane(Timer.ANSWER, timers.timeout), now)

    def receive_again(self, request: SipRequest, outlet: ServerOutlet, now: float) -> None:
        """Take a repeat of the request, or the ACK of an INVITE."""
        if request.method == "ACK":
            self.step(ServerInput.ACK, outlet, now, request)
        elif self.is_invite or now < self.arrived_at + outlet.timers.late_trying:
            self.step(ServerInput.REQUEST, outlet, now, request)
        else:
            self.step(ServerInput.LATE_REQUEST, outlet, now, request)

    def step(self, happened: int, outlet: ServerOutlet, now: float, message: Message = None) -> None:
        """Take one input (a `ServerInput`, or the `Timer` of the same value) through the table."""
        row = self._rows[self.state].get(happened)
        if row is not None:
            self.state = row.next_state
            for action in row.actions:
                action(self, outlet, now, message)


Message: TypeAlias = SipRequest | SipResponse | None
Action: TypeAlias = Callable[[ServerTransaction, ServerOutlet, float, Message], None]

# --- actions, named by the tables below -------------------------------------------------------------------------


def _send(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    if message is not None:
        tx.data = message.to_bytes()
        outlet.write(tx.data, tx.flow)


def _resend(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    if tx.data:
        outlet.write(tx.data, tx.flow)


def _send_trying(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    _send(tx, outlet, now, build_response(tx.request, 100))


def _stop_timers(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    outlet.timer_queue.disarm(tx)


def _start_g(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    tx._interval = outlet.timers.t1
    queue = outlet.timer_queue
    queue.arm_repeat(tx, queue.lane(Timer.G, tx._interval), now)


def _restart_g(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    # At least T1: a repeat of no length would never let the queue come to an end.
    tx._interval = min(max(2 * tx._interval, outlet.timers.t1), outlet.timers.t2)
    queue = outlet.timer_queue
    queue.arm_repeat(tx, queue.lane(Timer.G, tx._interval), now)


def _start_h(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    queue = outlet.timer_queue
    queue.arm_limit(tx, queue.lane(Timer.H, outlet.timers.timeout), now)


def _start_i(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    queue = outlet.timer_queue
    queue.disarm(tx)
    queue.arm_limit(tx, queue.lane(Timer.I, outlet.timers.t4), now)


def _start_l(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    queue = outlet.timer_queue
    queue.arm_limit(tx, queue.lane(Timer.L, outlet.timers.timeout), now)


def _start_j(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    outlet.timer_queue.disarm(tx)
    outlet.absorb(tx, now)


def _pass_ack_up(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    if isinstance(message, SipRequest):
        outlet.ack_received(message, tx.flow)


def _time_out(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    outlet.timed_out(tx)


def _fail(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    outlet.failed(tx)


def _end(tx: ServerTransaction, outlet: ServerOutlet, now: float, message: Message) -> None:
    outlet.timer_queue.disarm(tx)
    outlet.terminated(tx)


# --- tables -----------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """What an input leads to: the next state first, then the actions in order."""

    next_state: ServerState
    actions: tuple[Action, ...]


Rows: TypeAlias = Mapping[ServerState, Mapping[int, Row]]
Ignored: TypeAlias = Mapping[ServerState, Mapping[int, str]]


class ServerMachine(NamedTuple):
    """One of the four machines: every pair of `states` and `inputs` is in `rows` or has its reason in `ignored`."""

    initial: ServerState
    rows: Rows
    ignored: Ignored
    states: tuple[ServerState, ...]
    inputs: tuple[ServerInput, ...]


_S, _I = ServerState, ServerInput

INVITE_ROWS: Rows = {
    _S.PROCEEDING: {
        _I.REQUEST: Row(_S.PROCEEDING, (_resend,)),
        _I.TIMER_TRYING: Row(_S.PROCEEDING, (_send_trying,)),
        _I.PROVISIONAL: Row(_S.PROCEEDING, (_stop_timers, _send)),
        _I.SUCCESS: Row(_S.ACCEPTED, (_start_l, _send)),
        _I.FAILURE: Row(_S.COMPLETED, (_start_h, _start_g, _send)),
        # RFC 6026 section 7.1: the user hears of it, the transaction waits for its answer all the same.
        _I.TRANSPORT_ERROR: Row(_S.PROCEEDING, (_fail,)),
    },
    _S.COMPLETED: {
        _I.REQUEST: Row(_S.COMPLETED, (_resend,)),
        _I.ACK: Row(_S.CONFIRMED, (_start_i,)),
        _I.TIMER_G: Row(_S.COMPLETED, (_resend, _restart_g)),
        _I.TIMER_H: Row(_S.TERMINATED, (_time_out, _end)),
        _I.TRANSPORT_ERROR: Row(_S.TERMINATED, (_fail, _end)),
    },
    _S.CONFIRMED: {_I.TIMER_I: Row(_S.TERMINATED, (_end,))},
    _S.ACCEPTED: {
        _I.SUCCESS: Row(_S.ACCEPTED, (_send,)),  # the user repeats its 2xx until ACK, on every transport
        _I.ACK: Row(_S.ACCEPTED, (_pass_ack_up,)),
        _I.TIMER_L: Row(_S.TERMINATED, (_end,)),
        _I.TRANSPORT_ERROR: Row(_S.ACCEPTED, (_fail,)),
    },
    _S.TERMINATED: {},
}

# A stream repeats nothing (Timer G does not run), and Timer I is zero.
INVITE_STREAM_ROWS: Rows = {
    **INVITE_ROWS,
    _S.PROCEEDING: {**INVITE_ROWS[_S.PROCEEDING], _I.FAILURE: Row(_S.COMPLETED, (_start_h, _send))},
    _S.COMPLETED: {**INVITE_ROWS[_S.COMPLETED], _I.ACK: Row(_S.TERMINATED, (_end,))},
}

OTHER_ROWS: Rows = {
    _S.TRYING: {
        _I.LATE_REQUEST: Row(_S.PROCEEDING, (_send_trying,)),
        _I.SUCCESS: Row(_S.COMPLETED, (_send, _start_j)),
        _I.FAILURE: Row(_S.COMPLETED, (_send, _start_j)),
        _I.TIMER_ANSWER: Row(_S.TERMINATED, (_time_out, _end)),
        _I.TRANSPORT_ERROR: Row(_S.TERMINATED, (_fail, _end)),
    },
    _S.PROCEEDING: {
        _I.REQUEST: Row(_S.PROCEEDING, (_resend,)),
        _I.LATE_REQUEST: Row(_S.PROCEEDING, (_resend,)),
        _I.SUCCESS: Row(_S.COMPLETED, (_send, _start_j)),
        _I.FAILURE: Row(_S.COMPLETED, (_send, _start_j)),
        _I.TIMER_ANSWER: Row(_S.TERMINATED, (_time_out, _end)),
        _I.TRANSPORT_ERROR: Row(_S.TERMINATED, (_fail, _end)),
    },
    _S.COMPLETED: {
        # The layer drops the transaction here and answers repeats from its memory of final responses; these rows say
        # what that memory does.
        _I.REQUEST: Row(_S.COMPLETED, (_resend,)),
        _I.LATE_REQUEST: Row(_S.COMPLETED, (_resend,)),
        _I.TIMER_J: Row(_S.TERMINATED, (_end,)),
    },
    _S.TERMINATED: {},
}

OTHER_STREAM_ROWS: Rows = {
    **OTHER_ROWS,
    _S.TRYING: {
        **OTHER_ROWS[_S.TRYING],
        _I.LATE_REQUEST: Row(_S.TRYING, ()),  # no 100 on a stream at any time (RFC 4320 section 4.1)
        _I.SUCCESS: Row(_S.TERMINATED, (_send, _end)),
        _I.FAILURE: Row(_S.TERMINATED, (_send, _end)),
    },
    _S.PROCEEDING: {
        **OTHER_ROWS[_S.PROCEEDING],
        _I.SUCCESS: Row(_S.TERMINATED, (_send, _end)),
        _I.FAILURE: Row(_S.TERMINATED, (_send, _end)),
    },
}

_STOPPED = "this timer was stopped or never started in this state; a late firing means nothing"
_ANSWERED = "a final response was given; there can be only one"
_OVER = "a terminated transaction is forgotten by the layer; whoever still holds it may not revive it"
_NO_PROVISIONALS = "only INVITE has provisional responses; a late 100 is sent by the transaction itself (RFC 4320 4.1)"

_INVITE_INPUTS = (
    _I.REQUEST, _I.ACK, _I.PROVISIONAL, _I.SUCCESS, _I.FAILURE, _I.TRANSPORT_ERROR,
    _I.TIMER_G, _I.TIMER_H, _I.TIMER_I, _I.TIMER_L, _I.TIMER_TRYING,
)  # fmt: skip
_OTHER_INPUTS = (
    _I.REQUEST, _I.LATE_REQUEST, _I.ACK, _I.PROVISIONAL, _I.SUCCESS, _I.FAILURE, _I.TRANSPORT_ERROR,
    _I.TIMER_J, _I.TIMER_ANSWER,
)  # fmt: skip

INVITE_IGNORED: Ignored = {
    _S.PROCEEDING: {
        _I.ACK: "an ACK before any final response acknowledges nothing",
        **dict.fromkeys((_I.TIMER_G, _I.TIMER_H, _I.TIMER_I, _I.TIMER_L), _STOPPED),
    },
    _S.COMPLETED: {
        **dict.fromkeys((_I.PROVISIONAL, _I.SUCCESS, _I.FAILURE), _ANSWERED),
        **dict.fromkeys((_I.TIMER_I, _I.TIMER_L, _I.TIMER_TRYING), _STOPPED),
    },
    _S.CONFIRMED: {
        **dict.fromkeys((_I.REQUEST, _I.ACK), "a repeat from before our answer was acknowledged (Timer I absorbs it)"),
        **dict.fromkeys((_I.PROVISIONAL, _I.SUCCESS, _I.FAILURE), _ANSWERED),
        **dict.fromkeys((_I.TIMER_G, _I.TIMER_H, _I.TIMER_L, _I.TIMER_TRYING), _STOPPED),
        _I.TRANSPORT_ERROR: "nothing is left to be sent",
    },
    _S.ACCEPTED: {
        _I.REQUEST: "a repeat of an INVITE that was accepted; the user repeats the 2xx (RFC 6026 section 7.1)",
        **dict.fromkeys((_I.PROVISIONAL, _I.FAILURE), _ANSWERED),
        **dict.fromkeys((_I.TIMER_G, _I.TIMER_H, _I.TIMER_I, _I.TIMER_TRYING), _STOPPED),
    },
    _S.TERMINATED: dict.fromkeys(_INVITE_INPUTS, _OVER),
}

_NO_ACK = "ACK is matched to INVITE only"
OTHER_IGNORED: Ignored = {
    _S.TRYING: {
        _I.REQUEST: "a 100 would not slow the client down yet, only add load (RFC 4320 section 4.1)",
        _I.ACK: _NO_ACK,
        _I.PROVISIONAL: _NO_PROVISIONALS,
        _I.TIMER_J: _STOPPED,
    },
    _S.PROCEEDING: {_I.ACK: _NO_ACK, _I.PROVISIONAL: _NO_PROVISIONALS, _I.TIMER_J: _STOPPED},
    _S.COMPLETED: {
        _I.ACK: _NO_ACK,
        **dict.fromkeys((_I.PROVISIONAL, _I.SUCCESS, _I.FAILURE), _ANSWERED),
        _I.TRANSPORT_ERROR: "the client will repeat its request, perhaps over a flow that works",
        _I.TIMER_ANSWER: _STOPPED,
    },
    _S.TERMINATED: dict.fromkeys(_OTHER_INPUTS, _OVER),
}

_INVITE = ServerMachine(_S.PROCEEDING, INVITE_ROWS, INVITE_IGNORED, tuple(INVITE_ROWS), _INVITE_INPUTS)
_OTHER = ServerMachine(_S.TRYING, OTHER_ROWS, OTHER_IGNORED, tuple(OTHER_ROWS), _OTHER_INPUTS)
_MACHINES = {
    (True, False): _INVITE,
    (True, True): _INVITE._replace(rows=INVITE_STREAM_ROWS),
    (False, False): _OTHER,
    (False, True): _OTHER._replace(rows=OTHER_STREAM_ROWS),
}


def machine_for(is_invite: bool, is_stream: bool) -> ServerMachine:
    """Return the machine for a request and its transport."""
    return _MACHINES[is_invite, is_stream]


def input_of(status: int) -> ServerInput:
    """Sort a response we are about to send into the three kinds the tables know."""
    if status < 200:
        return _I.PROVISIONAL
    return _I.SUCCESS if status < 300 else _I.FAILURE
