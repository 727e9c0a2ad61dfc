"""What a Jingle session and a call proposal take, as tables over (state, what came) (XEP-0166 section 5, XEP-0353).

A pair that is not listed is a decision as well: for sessions out of order, for proposals nothing at all.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto

from isthmus.interworking.jingle_message import Finish, JingleMessage, Proceed, Reject, Retract, Ringing


class SessionState(StrEnum):
    """Life of one session (STANDARDS: IDLE and the proposal before it are `ProposalState`)."""

    INITIATED = "initiated"  # our session-initiate is on its way, not acknowledged
    PENDING = "pending"  # initiated, nobody is told to be alerted yet
    RINGING = "ringing"
    ACTIVE = "active"  # accepted; also while the acceptance of ours is not acknowledged
    ENDED = "ended"


class Verdict(Enum):
    """What becomes of an action that arrived."""

    TAKE = auto()
    ACKNOWLEDGE = auto()  # advisory, or nothing we act on
    OUT_OF_ORDER = auto()  # unexpected-request with out-of-order (XEP-0166 section 10)
    UNKNOWN_SESSION = auto()  # item-not-found with unknown-session


_S, _V = SessionState, Verdict
_ALWAYS = {
    "description-info": _V.ACKNOWLEDGE,
    "security-info": _V.ACKNOWLEDGE,
    "session-info": _V.TAKE,
    "session-terminate": _V.TAKE,
    "transport-info": _V.TAKE,
}
# Before the answer media are not renegotiated: no client does it, and SIP could not follow without 100rel.
_WAITING_FOR_ANSWER = {
    **_ALWAYS,
    "session-accept": _V.TAKE,
    # A responder that takes the call without the video says so first (XEP-0166 section 7.2.5).
    "content-remove": _V.TAKE,
}
_CHANGES = {
    "content-accept": _V.TAKE,
    "content-add": _V.TAKE,
    "content-modify": _V.TAKE,
    "content-reject": _V.TAKE,
    "content-remove": _V.TAKE,
    "transport-accept": _V.TAKE,
    "transport-reject": _V.TAKE,
    "transport-replace": _V.TAKE,
}

# What the responder may send, when we are the initiator.
FROM_RESPONDER: dict[SessionState, dict[str, Verdict]] = {
    _S.INITIATED: _WAITING_FOR_ANSWER,
    _S.PENDING: _WAITING_FOR_ANSWER,
    _S.RINGING: _WAITING_FOR_ANSWER,
    _S.ACTIVE: {**_ALWAYS, **_CHANGES},
}
# What the initiator may send, when we are the responder.
FROM_INITIATOR: dict[SessionState, dict[str, Verdict]] = {
    _S.PENDING: _ALWAYS,
    _S.RINGING: _ALWAYS,
    _S.ACTIVE: {**_ALWAYS, **_CHANGES},
}


def verdict_on(state: SessionState, action: str, *, is_initiator: bool) -> Verdict:
    """Return what becomes of an action.

    Args:
        state: of the session.
        action: of the `<jingle/>` that came; unknown ones are out of order.
        is_initiator: we are.
    """
    if state is _S.ENDED:
        return _V.UNKNOWN_SESSION
    table = FROM_RESPONDER if is_initiator else FROM_INITIATOR
    return table.get(state, {}).get(action, _V.OUT_OF_ORDER)


class ProposalState(StrEnum):
    """Life of a proposal (XEP-0353), ours or theirs."""

    PROPOSED = "proposed"
    RINGING = "ringing"
    PROCEEDED = "proceeded"  # the session takes over
    ENDED = "ended"


class ProposalStep(Enum):
    """What a message about a proposal makes us do."""

    IGNORE = auto()
    RING = auto()
    INITIATE = auto()  # one device takes it: session-initiate goes there
    REJECT = auto()  # a person said no
    WITHDRAW = auto()  # the proposer gave up
    FINISH = auto()  # the session is over, or has moved
    BOUNCE = auto()  # the proposal could not be delivered


class Returned:
    """Stands in the tables for a message of ours that came back as an error."""


RETURNED = Returned

_P, _D = ProposalState, ProposalStep
# Our proposal, and what devices of the other person say. `accept` is what devices told each other before version 0.4;
# a second `proceed` lost the race and is owed nothing.
OURS: dict[tuple[ProposalState, type], ProposalStep] = {
    (_P.PROPOSED, Ringing): _D.RING,
    (_P.PROPOSED, Proceed): _D.INITIATE,
    (_P.PROPOSED, Reject): _D.REJECT,
    (_P.PROPOSED, RETURNED): _D.BOUNCE,
    (_P.PROPOSED, Finish): _D.FINISH,
    (_P.RINGING, Proceed): _D.INITIATE,
    (_P.RINGING, Reject): _D.REJECT,
    # Stored for an absent device while another one rings: only the first word of a server counts.
    (_P.RINGING, RETURNED): _D.IGNORE,
    (_P.RINGING, Finish): _D.FINISH,
    (_P.PROCEEDED, Reject): _D.REJECT,  # by the device that proceeded; others are ignored
    (_P.PROCEEDED, Finish): _D.FINISH,
}
# Their proposal: answered with `proceed` at once, so it is never in PROPOSED or RINGING.
THEIRS: dict[tuple[ProposalState, type], ProposalStep] = {
    (_P.PROCEEDED, Retract): _D.WITHDRAW,
    (_P.PROCEEDED, Finish): _D.FINISH,
    (_P.PROCEEDED, RETURNED): _D.BOUNCE,  # our `proceed` did not reach the device
}


def step_for(state: ProposalState, message: JingleMessage, *, is_ours: bool, is_returned: bool = False) -> ProposalStep:
    """Return what a message about a proposal makes us do; what is not listed is ignored.

    Args:
        state: of the proposal.
        message: what came.
        is_ours: we proposed.
        is_returned: the message is one of ours that came back as an error.
    """
    kind = RETURNED if is_returned else type(message)
    return (OURS if is_ours else THEIRS).get((state, kind), _D.IGNORE)
