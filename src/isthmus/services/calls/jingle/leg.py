"""One Jingle session as a leg of a call (XEP-0166, XEP-0167): what both directions share.

`JingleCallerLeg` is a session that a consumer initiated, `JingleCalleeLeg` one that we initiate. Changes of the media
in a call are `JingleNegotiation`'s affair. What arrives is sorted by the table in `states`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from isthmus.errors import PayloadError
from isthmus.interworking.call_endings import ending_from_jingle, ending_to_jingle
from isthmus.model import Address, EndCause, Ending, MediaForm, Origin
from isthmus.ports import Clock, IqRefusal
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.services.calls.jingle.information import DIGIT, RINGING, TRANSFER, Information, information_of
from isthmus.services.calls.jingle.media import JingleMedia
from isthmus.services.calls.jingle.negotiation import ANSWERS, CHANGES, JingleNegotiation
from isthmus.services.calls.jingle.peer_watch import PeerWatch
from isthmus.services.calls.jingle.refusals import OUT_OF_ORDER, UNKNOWN_SESSION, UNSUPPORTED_INFO, refusal_of
from isthmus.services.calls.jingle.registry import JingleRegistry, SessionName
from isthmus.services.calls.jingle.states import SessionState, Verdict, verdict_on
from isthmus.services.calls.jingle.wire import Answered, IqOutcome, JingleWire
from isthmus.services.calls.leg import (
    LegDigit,
    LegEnded,
    LegEvent,
    LegSignal,
    LegSignalled,
    LegSink,
    LegTransferRequested,
)
from isthmus.services.calls.leg_outbox import Outbox
from isthmus.trace import Trace
from isthmus.xmpp.jingle import Jingle

_HOLDS = {"hold": True, "unhold": False, "active": False}
_SIGNALS = {signal.value: signal for signal in LegSignal}


@dataclass(frozen=True, slots=True)
class JingleSurroundings:
    """What every session needs from outside."""

    wire: JingleWire
    registry: JingleRegistry
    clock: Clock
    trace: Trace


class JingleLeg:
    """Implements most of `leg.Leg`; see there for the methods that a `Call` uses.

    Args:
        around: what it needs from outside.
        ours: our person, whom the peer talks to.
        our_jid: as the peer addresses us.
        party: the person at the other end.
        sid: session id.
        is_initiator: we initiate the session (the leg goes to a callee).
    """

    form = MediaForm.WEBRTC
    takes_trickle = True

    def __init__(
        self,
        around: JingleSurroundings,
        *,
        ours: Address,
        our_jid: str,
        party: Address,
        sid: str,
        is_initiator: bool,
    ) -> None:
        self.key = f"jingle-{around.wire.new_id()[:16]}"
        self.party = party
        self.device = ""
        self.is_caller = not is_initiator
        self.ours = ours
        self.our_jid = our_jid
        self.sid = sid
        self.peer_jid = ""  # full JID of the device, once known
        self.state = SessionState.PENDING
        self.around = around
        self.media = JingleMedia(is_initiator=is_initiator)
        self._negotiation = JingleNegotiation(self)
        self._outbox = Outbox(around.clock)
        self._outbox.leg = self
        self._has_session = False
        self._watch = PeerWatch(around.clock, self._ping, self.peer_gone)
        self._farewells: list[Callable[[Ending], None]] = []
        self._received: dict[str, Callable[[Jingle], IqRefusal | None]] = {
            "session-info": self._information,
            "session-terminate": self._terminated,
            "transport-info": self._negotiation.receive_transport,
            **dict.fromkeys(ANSWERS, self._negotiation.receive_answer),
            **dict.fromkeys(CHANGES, self._negotiation.receive_change),
        }

    @property
    def is_initiator(self) -> bool:
        """True when we initiated the session."""
        return self.media.is_initiator

    @property
    def name(self) -> SessionName:
        """What stanzas of this session are found by."""
        return SessionName(self.ours, self.peer_jid, self.sid)

    # --- events ---

    def attach(self, sink: LegSink) -> None:
        """Send events here; what has happened meanwhile follows at once."""
        self._outbox.attach(sink)

    def tell(self, event: LegEvent) -> None:
        """Tell the call, in a later turn: what came is acknowledged first."""
        self._outbox.tell_later(event)

    def to_record(self) -> Mapping[str, Any] | None:
        """Return what the next run needs to end this session."""
        return {
            "kind": "jingle",
            "ours": str(self.ours),
            "our_jid": self.our_jid,
            "party": str(self.party),
            "peer_jid": self.peer_jid,
            "sid": self.sid,
        }

    # --- what the peer sends ---

    def begin(self, peer_jid: str, device: str) -> None:
        """The session exists from now on: with this device."""
        self.peer_jid = peer_jid
        self.device = device
        self._has_session = True
        self.around.registry.add(self.name, self)

    def receive(self, jingle: Jingle) -> IqRefusal | None:
        """Take one action of the peer; None acknowledges it."""
        verdict = verdict_on(self.state, jingle["action"], is_initiator=self.is_initiator)
        if verdict is Verdict.UNKNOWN_SESSION:
            return UNKNOWN_SESSION
        if verdict is Verdict.OUT_OF_ORDER:
            return OUT_OF_ORDER
        if verdict is Verdict.ACKNOWLEDGE:
            return None
        try:
            return self._received[jingle["action"]](jingle)
        except (SdpError, PayloadError) as error:
            self.note(f"{jingle['action']} refused: {error}", mark="!")
            return refusal_of(error)

    def _terminated(self, jingle: Jingle) -> IqRefusal | None:
        reason = jingle.get_plugin("reason", check=True)
        condition, text = (reason["condition"], reason["text"]) if reason is not None else ("", "")
        ending = ending_from_jingle(condition, text)
        if self.state is not SessionState.ACTIVE and ending.cause is EndCause.HUNG_UP:
            # Nobody answered yet: the initiator gave up, the responder said no.
            ending = Ending(EndCause.DECLINED if self.is_initiator else EndCause.CANCELLED, ending.text)
        self.end(ending)
        return None

    def _information(self, jingle: Jingle) -> IqRefusal | None:
        information = information_of(jingle)
        if information is None:
            return UNSUPPORTED_INFO
        if information.kind == RINGING:
            self.peer_rings()
        elif self.state is SessionState.ACTIVE:
            self._information_in_call(information)
        return None

    def _information_in_call(self, information: Information) -> None:
        held = _HOLDS.get(information.kind)
        if held is not None and (self._negotiation.peer_holds(is_held=held) or information.kind != "active"):
            return
        if information.kind == DIGIT:
            self.tell(LegDigit(information.digit, information.milliseconds))
        elif information.kind == TRANSFER and information.target is not None:
            self.tell(LegTransferRequested(information.target, None, self._transfer_progressed))
        elif information.kind in _SIGNALS:
            self.tell(LegSignalled(_SIGNALS[information.kind]))

    def _transfer_progressed(self, status: int, _ending: Ending | None) -> None:
        # XEP-0251 has no progress; the session ends with success when the transfer did.
        self.note(f"transfer: {status}")

    def peer_rings(self) -> None:
        """The peer's device alerts somebody; of interest towards a callee only."""

    def peer_gone(self) -> None:
        """The peer's device has gone offline."""
        self.terminate(Ending(EndCause.CONNECTIVITY, "The other device has gone offline."))

    # --- what we send ---

    def request(self, jingle: Jingle, answered: Answered | None = None) -> None:
        """Send an action of this session; a peer that knows it no more ends the leg."""
        jingle["sid"] = self.sid
        told = partial(self._answered, jingle["action"], answered)
        self.around.wire.request(jingle, self.ours.domain, self.our_jid, self.peer_jid, told)

    def _answered(self, action: str, answered: Answered | None, outcome: IqOutcome) -> None:
        if not outcome.is_result:
            text = outcome.failure.text if outcome.failure is not None else outcome.ending.text or "no answer"
            self.note(f"{action} was not taken ({outcome.condition or text})", mark="!")
        if outcome.is_unknown_session and self.state is not SessionState.ENDED:
            self.end(outcome.ending)
        elif answered is not None:
            answered(outcome)

    def add_candidates(self, fragment: SessionDescription) -> None:
        """Pass on trickled candidates."""
        if self.state is not SessionState.ENDED and self._has_session:
            jingle = self.media.candidates(fragment)
            if jingle is not None:
                self.request(jingle)

    def signal(self, signal: LegSignal) -> None:
        """Tell what needs no negotiation."""
        if self.state is SessionState.ACTIVE:
            for jingle in self.media.signal(signal):
                self.request(jingle)

    def send_digit(self, digit: str, milliseconds: int) -> None:
        """Pass on a digit (XEP-0181); clients that do not know it say so, which harms nothing."""
        if self.state is SessionState.ACTIVE:
            self.request(self.media.digit(digit, milliseconds))

    # --- set-up: what the side that a leg is on does not do ---

    def invite(self, offer: SessionDescription) -> None:
        """Only a callee is rung."""

    def ring(self) -> None:
        """Only a caller is told that somebody is alerted."""

    def progress(self, early: SessionDescription) -> None:
        """Jingle has no answer before the answer: the same as `ring`."""
        self.ring()

    def accept(self, answer: SessionDescription) -> None:
        """Only a caller is answered."""

    def cancel(self, ending: Ending) -> None:
        """Stop ringing."""
        self.terminate(ending)

    def refuse(self, ending: Ending) -> None:
        """Do not take the call."""
        self.terminate(ending)

    # --- media in the call ---

    def offer(self, offer: SessionDescription) -> None:
        """Change the media."""
        self._negotiation.offer(offer)

    def answer(self, answer: SessionDescription) -> None:
        """Answer `LegOffered`."""
        self._negotiation.answer(answer)

    def refuse_offer(self, ending: Ending) -> None:
        """Keep the media as they were."""
        self._negotiation.refuse(ending)

    # --- the end ---

    def hang_up(self, ending: Ending) -> None:
        """End an established leg."""
        self.terminate(ending)

    def when_over(self, farewell: Callable[[Ending], None]) -> None:
        """Call `farewell` when the leg has ended."""
        self._farewells.append(farewell)

    def terminate(self, ending: Ending, *, reason: str = "") -> None:
        """Tell the peer that the session is over, and end the leg.

        Args:
            ending: why.
            reason: element of XEP-0166 section 7.4 that says it better than the one of the ending.
        """
        if self.state is SessionState.ENDED:
            return
        if self._has_session:
            own, text = ending_to_jingle(ending)
            self.request(self.media.terminate(reason or own, text))
        self.end(ending)

    def end(self, ending: Ending) -> None:
        """The leg is over, the peer knows it already."""
        if self.state is SessionState.ENDED:
            return
        self.note(f"ended: {ending.cause.value}", mark="x")
        self.state = SessionState.ENDED
        self._watch.end()
        self._negotiation.close()
        if self._has_session:
            self.around.registry.bury(self.name)
        for farewell in self._farewells:
            farewell(ending)
        self.tell(LegEnded(ending))

    # --- is the peer still there? ---

    def established(self) -> None:
        """The call is answered."""
        self.state = SessionState.ACTIVE
        self._watch.begin()

    def verify(self) -> None:
        """Ask whether the device is still there, as after the link to the server came back."""
        if self.state is not SessionState.ENDED and self._has_session:
            self._watch.look()

    def _ping(self, answered: Answered) -> None:
        self.around.wire.ping(self.ours.domain, self.our_jid, self.peer_jid, answered)

    def note(self, text: str, *, mark: str = "=") -> None:
        """Write to the trace."""
        self.around.trace.wire(
            mark, f"jingle {self.ours.domain}", text, call_id=self.sid, people=(str(self.ours), str(self.party))
        )


def local_failure(text: str) -> Ending:
    """Return the ending for something that went wrong on our side."""
    return Ending(EndCause.FAILED, text, Origin.LOCAL)
