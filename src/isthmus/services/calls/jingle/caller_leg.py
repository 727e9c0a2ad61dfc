"""The leg of a consumer who calls one of our people: their session-initiate has been acknowledged."""

from __future__ import annotations

from isthmus.model import Address
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.services.calls.jingle.leg import JingleLeg, JingleSurroundings, local_failure
from isthmus.services.calls.jingle.states import SessionState
from isthmus.services.calls.jingle.wire import IqOutcome
from isthmus.services.calls.leg import LegConfirmed, LegSignal
from isthmus.xmpp.jingle import Jingle


class JingleCallerLeg(JingleLeg):
    """Implements `leg.CallerLeg`.

    Args:
        around: what it needs from outside.
        ours: whom the consumer calls.
        our_jid: as the consumer addressed us.
        party: the consumer.
        sid: session id.
    """

    def __init__(self, around: JingleSurroundings, *, ours: Address, our_jid: str, party: Address, sid: str) -> None:
        super().__init__(around, ours=ours, our_jid=our_jid, party=party, sid=sid, is_initiator=False)

    def take_initiate(self, jingle: Jingle) -> SessionDescription:
        """Return what the session-initiate offers.

        Raises:
            SdpError: nothing in it can be used; the error's `reason` says it in Jingle's words.
        """
        return self.media.initiated(jingle)

    # --- towards the caller ---

    def ring(self) -> None:
        """Say that somebody is being alerted; the first time only."""
        if self.state is SessionState.PENDING:
            self.state = SessionState.RINGING
            for jingle in self.media.signal(LegSignal.RINGING):
                self.request(jingle)

    def accept(self, answer: SessionDescription) -> None:
        """Answer the call."""
        if self.state not in (SessionState.PENDING, SessionState.RINGING):
            return  # the caller gave up at the same time: the end wins
        try:
            jingle = self.media.accept(answer)
        except SdpError as error:
            self.terminate(local_failure(f"the answer cannot be said in Jingle: {error}"), reason="failed-application")
            return
        self.established()
        self.request(jingle, self._accept_answered)

    def _accept_answered(self, outcome: IqOutcome) -> None:
        if self.state is SessionState.ENDED:
            return
        if outcome.is_result:
            self.tell(LegConfirmed())
        else:
            self.terminate(outcome.ending)
