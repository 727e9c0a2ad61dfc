"""The leg towards one device of a consumer whom one of our people calls."""

from __future__ import annotations

from isthmus.model import Address, EndCause, Ending, Origin
from isthmus.ports import IqRefusal
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.services.calls.jingle.leg import JingleLeg, JingleSurroundings, local_failure
from isthmus.services.calls.jingle.states import SessionState
from isthmus.services.calls.jingle.wire import IqOutcome
from isthmus.services.calls.leg import LegAccepted, LegRinging
from isthmus.xmpp.jingle import Jingle

# More trickled candidates than this before a device is found are an error of the caller's client.
MAXIMUM_EARLY_FRAGMENTS = 64


class JingleCalleeLeg(JingleLeg):
    """A session that we initiate.

    Args:
        around: what it needs from outside.
        ours: our person, who calls.
        our_jid: our full JID.
        party: the consumer.
        peer_jid: full JID of the device; "" when it is not known yet.
        device: its resource.
    """

    def __init__(
        self,
        around: JingleSurroundings,
        *,
        ours: Address,
        our_jid: str,
        party: Address,
        peer_jid: str,
        device: str,
    ) -> None:
        super().__init__(around, ours=ours, our_jid=our_jid, party=party, sid=around.wire.new_id(), is_initiator=True)
        self.state = SessionState.INITIATED
        self.peer_jid = peer_jid
        self.device = device
        self._offer: SessionDescription | None = None
        self._early: list[SessionDescription] = []
        self._has_rung = False
        self._received["session-accept"] = self._accepted
        self._received["content-remove"] = self._content_removed

    # --- towards the callee ---

    def invite(self, offer: SessionDescription) -> None:
        """Ring this device."""
        self._offer = offer
        self.initiate(self.peer_jid, self.device)

    def initiate(self, peer_jid: str, device: str) -> None:
        """Send the session-initiate, with all candidates that are known."""
        assert self._offer is not None, "a device is invited with an offer"
        try:
            jingle = self.media.initiate(self._offer)
        except SdpError as error:
            self.end(local_failure(f"the offer cannot be said in Jingle: {error}"))
            return
        self.begin(peer_jid, device)
        jingle["initiator"] = self.our_jid
        self.request(jingle, self._initiate_answered)
        early, self._early = self._early, []
        for fragment in early:
            self.add_candidates(fragment)

    def _initiate_answered(self, outcome: IqOutcome) -> None:
        if self.state is SessionState.ENDED:
            return
        if outcome.is_result:
            if self.state is SessionState.INITIATED:
                self.state = SessionState.PENDING
        elif outcome.is_unanswered:
            # It may have arrived all the same: a device must not ring for a call that is over.
            self.terminate(outcome.ending, reason="timeout")
        else:
            self.end(outcome.ending)

    def add_candidates(self, fragment: SessionDescription) -> None:
        """Pass on trickled candidates; those that come before the session follow its beginning."""
        if self._has_session:
            super().add_candidates(fragment)
        elif len(self._early) < MAXIMUM_EARLY_FRAGMENTS:
            self._early.append(fragment)

    # --- what the device says ---

    def peer_rings(self) -> None:
        """Tell the first alert; more of them say nothing new."""
        if self.state in (SessionState.INITIATED, SessionState.PENDING):
            self.state = SessionState.RINGING
        if self.state is SessionState.RINGING and not self._has_rung:
            self._has_rung = True
            self.tell(LegRinging())

    def _accepted(self, jingle: Jingle) -> IqRefusal | None:
        answer = self.media.accepted(jingle)
        if not self.media.is_secure(answer):
            self.terminate(
                Ending(EndCause.SECURITY, "The other device answered without encryption.", Origin.FORMAT),
                reason="security-error",
            )
            return None
        self.established()
        self.tell(LegAccepted(answer, self.device))
        return None

    def _content_removed(self, jingle: Jingle) -> IqRefusal | None:
        if self.state is SessionState.ACTIVE:
            return self._negotiation.receive_change(jingle)
        if self.media.removed_before_answer(jingle):
            self.terminate(Ending(EndCause.DECLINED, "The other device took none of the media."))
        return None
