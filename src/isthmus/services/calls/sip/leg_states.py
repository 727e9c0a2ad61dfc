"""The states of SIP legs as tables; what a leg does on its way is in `sip_leg_caller` and `sip_leg_callee`.

What happens within an established dialog has no states here: see `sip_exchange` for the one offer that may be open.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class CallerState(Enum):
    """What the caller has been told (RFC 3261 section 13.3)."""

    CALLING = "nothing final"
    ACCEPTING = "200, which waits for a PRACK"
    ACCEPTED = "200, not acknowledged yet"
    ESTABLISHED = "200, acknowledged"
    OVER = "a refusal, or the call has ended"


class CallerInput(Enum):
    """What can happen to a caller's leg."""

    ACCEPT = "the callee answered"
    SEND_200 = "nothing stands in the way of the 200"
    ACK = "the caller's device acknowledged it"
    EXPIRE = "the INVITE's Expires has passed"
    GIVE_UP = "CANCEL, early BYE, a broken connection, no PRACK; or the call refuses"
    HANG_UP = "the call, or a late answer without media, ends it"


class CalleeState(Enum):
    """How far the call to a device has come (RFC 3261 section 13.2)."""

    IDLE = "not invited yet"
    CALLING = "invited, no final response"
    ESTABLISHED = "a 2xx came and was acknowledged"
    OVER = "it failed, was cancelled or has ended"


class CalleeInput(Enum):
    """What can happen to a callee's leg."""

    INVITE = "the call wants it to ring"
    ANSWER = "the first 2xx"
    FAIL = "no way is left, or a device has decided"
    CANCEL = "the call no longer wants it"
    HANG_UP = "the call ends it"


_A, _AI = CallerState, CallerInput
_B, _BI = CalleeState, CalleeInput

CALLER_STEPS: Mapping[CallerState, Mapping[CallerInput, CallerState]] = {
    _A.CALLING: {_AI.ACCEPT: _A.ACCEPTING, _AI.EXPIRE: _A.OVER, _AI.GIVE_UP: _A.OVER},
    _A.ACCEPTING: {_AI.SEND_200: _A.ACCEPTED, _AI.GIVE_UP: _A.OVER},
    _A.ACCEPTED: {_AI.ACK: _A.ESTABLISHED, _AI.HANG_UP: _A.OVER},
    _A.ESTABLISHED: {_AI.HANG_UP: _A.OVER},
    _A.OVER: {},
}

_NOT_YET = "there is nothing to acknowledge or to hang up yet"
_ONCE = "a call is answered once"
_TOO_LATE = "after our 200 a CANCEL has no effect (section 9.2), and nothing else refuses the INVITE any more"
_OVER = "nothing follows the end; what crosses it on the wire is answered by the session"

CALLER_IGNORED: Mapping[CallerState, Mapping[CallerInput, str]] = {
    _A.CALLING: dict.fromkeys((_AI.SEND_200, _AI.ACK, _AI.HANG_UP), _NOT_YET),
    _A.ACCEPTING: {
        _AI.ACCEPT: _ONCE,
        _AI.EXPIRE: "somebody has answered in time",
        **dict.fromkeys((_AI.ACK, _AI.HANG_UP), _NOT_YET),
    },
    _A.ACCEPTED: dict.fromkeys((_AI.ACCEPT, _AI.SEND_200), _ONCE) | dict.fromkeys((_AI.EXPIRE, _AI.GIVE_UP), _TOO_LATE),
    _A.ESTABLISHED: dict.fromkeys((_AI.ACCEPT, _AI.SEND_200, _AI.ACK), _ONCE)
    | dict.fromkeys((_AI.EXPIRE, _AI.GIVE_UP), _TOO_LATE),
    _A.OVER: dict.fromkeys(_AI, _OVER),
}

CALLEE_STEPS: Mapping[CalleeState, Mapping[CalleeInput, CalleeState]] = {
    _B.IDLE: {_BI.INVITE: _B.CALLING, _BI.CANCEL: _B.OVER},
    _B.CALLING: {_BI.ANSWER: _B.ESTABLISHED, _BI.FAIL: _B.OVER, _BI.CANCEL: _B.OVER},
    _B.ESTABLISHED: {_BI.HANG_UP: _B.OVER},
    _B.OVER: {},
}

CALLEE_IGNORED: Mapping[CalleeState, Mapping[CalleeInput, str]] = {
    _B.IDLE: dict.fromkeys((_BI.ANSWER, _BI.FAIL, _BI.HANG_UP), "nobody was asked yet"),
    _B.CALLING: {
        _BI.INVITE: "it rings already",
        _BI.HANG_UP: "what is not answered is cancelled",
    },
    _B.ESTABLISHED: {
        _BI.INVITE: "it was invited and has answered",
        _BI.ANSWER: "another fork: it gets ACK and BYE (section 13.2.2.4)",
        _BI.FAIL: "a fork that failed after another answered",
        _BI.CANCEL: "what is answered is hung up (section 9.1)",
    },
    _B.OVER: dict.fromkeys(_BI, "nothing follows the end; a 2xx that still comes gets ACK and BYE"),
}
