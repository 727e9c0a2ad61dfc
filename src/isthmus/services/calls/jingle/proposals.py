"""Proposals of consumers (XEP-0353), which come although we do not advertise it: a client's cache may be old.

Without an offer nobody can be rung, so the answer is `proceed` at once; ringing, busy and the rest are then said in the
session, and a callee's refusal ends it.
"""

from __future__ import annotations

from typing import Protocol

from isthmus.interworking.call_endings import ending_to_jingle
from isthmus.interworking.jingle_message import Finish, JingleMessage, Proceed, Retract
from isthmus.model import EndCause, Ending, Failure
from isthmus.services.calls.jingle.caller_leg import JingleCallerLeg
from isthmus.services.calls.jingle.leg import JingleLeg, JingleSurroundings
from isthmus.services.calls.jingle.proposal_leg import ending_of_finish
from isthmus.services.calls.jingle.registry import ProposalName, SessionName
from isthmus.services.calls.jingle.states import ProposalState, ProposalStep, step_for

# A client that proceeds sends its session-initiate within a second or two; one that has lost its network never will.
INITIATE_SECONDS = 30.0


class Proposal(Protocol):
    """A proposal in either direction."""

    is_ours: bool

    def take(self, message: JingleMessage, sender: str, device: str, failure: Failure | None) -> None:
        """Take a message about it."""


class ReceivedProposal:
    """A proposal of a consumer.

    Args:
        around: what it needs from outside.
        name: what messages of it are found by.
        our_jid: as whom we answer.
        proposer: full JID of the device that proposed.
        replaced: a session of the same two people that this one takes the place of: the consumer has moved to another
            device.
    """

    is_ours = False

    def __init__(
        self,
        around: JingleSurroundings,
        name: ProposalName,
        our_jid: str,
        proposer: str,
        replaced: JingleLeg | None = None,
    ) -> None:
        self._around = around
        self._name = name
        self._our_jid = our_jid
        self._proposer = proposer
        self._state = ProposalState.PROCEEDED
        self._leg: JingleCallerLeg | None = None
        self.replaced = replaced
        self._timer = around.clock.call_later(INITIATE_SECONDS, self._forget)

    def proceed(self) -> None:
        """Say that the session may come."""
        self._around.registry.add_proposal(self._name, self)
        self._say(Proceed(self._name.id), self._proposer)

    def is_from(self, peer: str) -> bool:
        """True when this device proposed: no other one may send the session."""
        return peer == self._proposer

    def initiated(self, leg: JingleCallerLeg) -> None:
        """The session has come."""
        self._leg = leg
        self._timer.cancel()
        leg.when_over(self._finished)
        if self.replaced is not None:
            self.replaced.when_over(self._migrated)

    def take(self, message: JingleMessage, sender: str, device: str, failure: Failure | None) -> None:
        """Take a message about this proposal; only its proposer has a say."""
        if sender != self._proposer:
            return
        step = step_for(self._state, message, is_ours=False, is_returned=failure is not None)
        if isinstance(message, Retract) and step is ProposalStep.WITHDRAW:
            self._over(Ending(EndCause.CANCELLED, message.text))
        elif isinstance(message, Finish) and step is ProposalStep.FINISH:
            self._over(ending_of_finish(message))
        elif step is ProposalStep.BOUNCE and self._leg is None:
            self._forget()

    def _over(self, ending: Ending) -> None:
        if self._leg is not None:
            self._leg.terminate(ending)
        else:
            self._forget()

    def _forget(self) -> None:
        """No session came; one that comes later is unknown (STANDARDS 1.7.2)."""
        self._around.registry.bury(SessionName(self._name.ours, self._proposer, self._name.id))
        self._close()

    def _finished(self, ending: Ending) -> None:
        if self._state is not ProposalState.ENDED:
            reason, text = ending_to_jingle(ending)
            self._say(Finish(self._name.id, reason, text), self._proposer)
            self._close()

    def _migrated(self, ending: Ending) -> None:
        old = self.replaced
        if old is not None and ending.cause is EndCause.TRANSFERRED:
            self._say(Finish(old.sid, "expired", migrated_to=self._name.id), old.peer_jid)

    def _close(self) -> None:
        self._state = ProposalState.ENDED
        self._timer.cancel()
        self._around.registry.forget_proposal(self._name)

    def _say(self, message: JingleMessage, recipient: str) -> None:
        self._around.wire.say(message, self._name.ours.domain, self._our_jid, recipient)
