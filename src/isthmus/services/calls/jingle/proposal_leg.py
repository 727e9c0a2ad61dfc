"""The leg towards all devices of a consumer at once: they are asked who takes the call (XEP-0353 version 0.8).

The proposal goes to the bare JID, so that the consumer's server reaches every device, also one that sleeps or that we
know nothing of (edge case 32). The first that proceeds gets the session, under the same id.
"""

from __future__ import annotations

from isthmus.interworking.addresses import address_to_jid
from isthmus.interworking.call_endings import ending_from_failure, ending_from_jingle, ending_to_jingle
from isthmus.interworking.jingle_message import Finish, JingleMessage, Propose, Reject, Retract
from isthmus.model import Address, EndCause, Ending, Failure, Origin
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.jingle.callee_leg import JingleCalleeLeg
from isthmus.services.calls.jingle.leg import JingleSurroundings
from isthmus.services.calls.jingle.registry import ProposalName
from isthmus.services.calls.jingle.states import ProposalState, ProposalStep, step_for
from isthmus.xmpp.stanza import element

_STEP = ProposalStep


class JingleProposalLeg(JingleCalleeLeg):
    """A proposal of ours, and the session that it leads to.

    Args:
        around: what it needs from outside.
        ours: our person, who calls.
        our_jid: our full JID.
        party: the consumer.
        capabilities: what the caller's device can do (XEP-0115), shown to a consumer who does not see its presence;
            "" when that is not needed.
    """

    is_ours = True

    def __init__(
        self,
        around: JingleSurroundings,
        *,
        ours: Address,
        our_jid: str,
        party: Address,
        capabilities: str = "",
    ) -> None:
        super().__init__(around, ours=ours, our_jid=our_jid, party=party, peer_jid="", device="")
        self.proposal = ProposalState.PROPOSED
        self._capabilities = capabilities
        self.when_over(self._say_goodbye)

    @property
    def proposal_name(self) -> ProposalName:
        """What messages of this proposal are found by."""
        return ProposalName(self.ours, self.party, self.sid)

    # --- towards the callee ---

    def invite(self, offer: SessionDescription) -> None:
        """Ask all devices."""
        if not self.around.wire.is_up(self.ours.domain):
            self.end(Ending(EndCause.CONNECTIVITY, "The XMPP server cannot be reached.", Origin.LOCAL))
            return
        self._offer = offer
        self.around.registry.add_proposal(self.proposal_name, self)
        if self._capabilities:
            # Directed presence: the devices see whom they would talk to, and what it can do (RFC 6121 section 4.6).
            self._tell_presence("")
        media = tuple(dict.fromkeys(section.media for section in offer.media if not section.is_rejected))
        self._say(Propose(self.sid, media), address_to_jid(self.party))

    def cancel(self, ending: Ending) -> None:
        """Stop ringing."""
        if self._has_session:
            self.terminate(ending)
            return
        if self.proposal is not ProposalState.ENDED:
            self._retract(ending)
        self.end(ending)

    def lose_tie(self) -> None:
        """The other person proposed at the same time, and that proposal goes first (XEP-0353 section 4)."""
        ending = Ending(EndCause.BUSY, "Both of you called at the same moment; the other call goes on.")
        self._say(Retract(self.sid, "expired", is_tie_break=True), address_to_jid(self.party))
        self.end(ending)

    def _retract(self, ending: Ending) -> None:
        reason, text = ending_to_jingle(ending)
        self._say(Retract(self.sid, reason, text), address_to_jid(self.party))

    # --- what the devices say ---

    def take(self, message: JingleMessage, sender: str, device: str, failure: Failure | None) -> None:
        """Take a message about this proposal.

        Args:
            message: what it says.
            sender, device: full JID and resource of who says it.
            failure: of a message that came back.
        """
        step = step_for(self.proposal, message, is_ours=True, is_returned=failure is not None)
        if self._has_session and sender != self.peer_jid:
            return  # a device that was not fast enough (edge case 33)
        if step is _STEP.RING:
            self.proposal = ProposalState.RINGING
            self.peer_rings()
        elif step is _STEP.INITIATE and device:
            self.proposal = ProposalState.PROCEEDED
            self.initiate(sender, device)
        elif step is _STEP.BOUNCE and failure is not None:
            self.end(ending_from_failure(failure))
        elif isinstance(message, Reject) and step is _STEP.REJECT:
            self._rejected(message)
        elif isinstance(message, Finish) and step is _STEP.FINISH:
            self._over(ending_of_finish(message))

    def _rejected(self, message: Reject) -> None:
        ending = ending_from_jingle(message.reason or "decline", message.text)
        if ending.cause not in (EndCause.BUSY, EndCause.UNREACHABLE, EndCause.NO_ANSWER):
            ending = Ending(EndCause.DECLINED, message.text)
        self._over(ending)

    def _over(self, ending: Ending) -> None:
        if self._has_session:
            self.terminate(ending)
        else:
            self.end(ending)

    # --- the end ---

    def _say_goodbye(self, ending: Ending) -> None:
        if self.proposal is ProposalState.ENDED:
            return
        self.proposal = ProposalState.ENDED
        self.around.registry.forget_proposal(self.proposal_name)
        if self._has_session:
            reason, text = ending_to_jingle(ending)
            self._say(Finish(self.sid, reason, text), self.peer_jid)
        if self._capabilities and self._offer is not None:
            self._tell_presence("unavailable")

    def _say(self, message: JingleMessage, recipient: str) -> None:
        self.around.wire.say(message, self.ours.domain, self.our_jid, recipient)

    def _tell_presence(self, kind: str) -> None:
        addresses = {"type": kind or None, "from": self.our_jid, "to": address_to_jid(self.party)}
        self.around.wire.tell(self.ours.domain, element("presence", addresses, "" if kind else self._capabilities))


def ending_of_finish(message: Finish) -> Ending:
    """Return how a call ended that is finished without the end of its session (XEP-0353 section 3)."""
    if message.migrated_to:
        return Ending(EndCause.TRANSFERRED)
    return ending_from_jingle(message.reason, message.text)
