"""Offers and answers of a leg within its session, as actions of Jingle (XEP-0166 section 7.2).

One change at a time in each direction. A change of the peer is acknowledged at once and offered to the call when
nothing else is under way. Glare is decided by XEP-0166 section 7.2.16: the initiator's action goes first, and what we
lose by that is tried again here, unseen by the call.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from isthmus.interworking.call_endings import ending_to_jingle
from isthmus.interworking.jingle_contents import content_names
from isthmus.interworking.jingle_difference import difference
from isthmus.interworking.jingle_sdp import jingle_to_answer, jingle_to_sdp
from isthmus.model import EndCause, Ending, Origin
from isthmus.ports import IqRefusal, TimerHandle
from isthmus.sdp.offer_answer import is_hold, rejecting
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.sdp.trickle import is_ice_restart
from isthmus.services.calls.jingle_changes import (
    HOLD,
    RESTART,
    OurChange,
    PeerChange,
    names_in,
    refusal,
    removal,
    replies,
)
from isthmus.services.calls.jingle_refusals import OUT_OF_ORDER, TIE_BREAK
from isthmus.services.calls.jingle_states import SessionState
from isthmus.services.calls.jingle_wire import IqOutcome
from isthmus.services.calls.jingle_wishes import Wishes, answered_by
from isthmus.services.calls.leg import LegAnswered, LegCandidates, LegOffered, LegOfferRefused, LegSignal
from isthmus.xmpp.jingle import Jingle

if TYPE_CHECKING:
    from isthmus.services.calls.jingle_leg import JingleLeg

# A person may have to be asked whether the camera goes on; the other side's re-INVITE cannot wait for ever.
ANSWER_SECONDS = 60.0
# An action that crossed ours and goes first is on its way; longer than this no two servers hold it back.
YIELD_SECONDS = 2.0
# Changes of the peer that wait for the call; a person does not press buttons faster than this.
MAXIMUM_WAITING = 16

ANSWERS = ("content-accept", "content-reject", "transport-accept", "transport-reject")
CHANGES = ("content-add", "content-modify", "content-remove", "transport-replace")

# What the peer waits with until our side has said something.
_NEED_ANSWERS = ("content-add", "transport-replace")

_GLARE = Ending(EndCause.FAILED, "Both sides changed the media at the same time.", Origin.PEER, status=491)


class JingleNegotiation:
    """Changes of one session's media."""

    def __init__(self, leg: JingleLeg) -> None:
        self._leg = leg
        self._media = leg.media
        self._wishes = Wishes()
        self._ours: OurChange | None = None
        self._next_offer: SessionDescription | None = None
        self._theirs: deque[PeerChange] = deque()
        self._offered: PeerChange | None = None
        self._timer: TimerHandle | None = None
        self._yielding: TimerHandle | None = None

    def close(self) -> None:
        """The leg is over."""
        self._finish_ours()
        self._stop_yielding()
        self._offered = self._next_offer = None
        self._theirs.clear()

    def _go_on(self) -> None:
        """Begin what comes next, when nothing is under way."""
        while self._ours is None and self._offered is None and self._leg.state is SessionState.ACTIVE:
            if self._theirs:
                self._offer_theirs(self._theirs.popleft())
            elif self._next_offer is not None and self._yielding is None:
                offer, self._next_offer = self._next_offer, None
                self._start(offer)
            else:
                return

    # --- our changes ---

    def offer(self, offer: SessionDescription) -> None:
        """Bring the peer to this description; `LegAnswered` or `LegOfferRefused` follows."""
        if self._leg.state is SessionState.ACTIVE:
            self._next_offer = offer
            self._go_on()

    def _start(self, offer: SessionDescription) -> None:
        local, remote = self._media.both
        if len(offer.media) < len(local.media):
            # Made before the peer added media: it speaks of a session that is no more (RFC 3264 section 8).
            self._leg.tell(LegOfferRefused(_GLARE))
            return
        self._wishes.learn(self._media.names, local, remote)
        names = content_names(offer)
        self._wishes.ours_offered(names, offer)
        offer = self._wishes.joint(names, offer)
        try:
            jingles = difference(
                local, offer, is_from_initiator=self._media.is_initiator, creators=self._media.creators
            )
        except SdpError as error:
            self._leg.tell(LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.LOCAL)))
            return
        self._ours = change = OurChange.of(offer, local, jingles)
        self._timer = self._leg.around.clock.call_later(ANSWER_SECONDS, partial(self._too_late, change))
        self._proceed(change)

    def _proceed(self, change: OurChange) -> None:
        """Send the next action when the last one is settled; finish after the last one, or the first that failed."""
        if change is not self._ours or change.is_waiting:
            return
        try:
            change.settle(is_initiator=self._media.is_initiator)
            if change.pending and not change.is_stopped:
                self._send(change, change.send_next(is_initiator=self._media.is_initiator))
                return
        except SdpError as error:
            change.refusal = Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.FORMAT)
        self._finish_ours()
        self._conclude(change)
        self._go_on()

    def _send(self, change: OurChange, jingle: Jingle) -> None:
        if jingle["action"] == "content-add":
            own = "initiator" if self._media.is_initiator else "responder"
            self._media.creators.update(dict.fromkeys(names_in(jingle), own))
        self._leg.request(jingle, partial(self._change_answered, change))
        crossed = next((theirs for theirs in self._theirs if theirs.kind == RESTART), None)
        if change.is_restarting and crossed is not None and crossed.jingle is not None:
            # Two restarts are each other's answer.
            self._theirs.remove(crossed)
            self._media.remote = self._after(crossed.jingle)
            change.is_restarting = False

    def _change_answered(self, change: OurChange, outcome: IqOutcome) -> None:
        if outcome.is_not_implemented and change.is_of_directions:
            # Who does not know content-modify may know the information (XEP-0167 section 8.2); a hold needs no consent,
            # and phones end the call when theirs is refused.
            self._leg.signal(LegSignal.HOLD if is_hold(change.offer) else LegSignal.UNHOLD)
            outcome = IqOutcome()
        change.answered(outcome)
        self._proceed(change)

    def _conclude(self, change: OurChange) -> None:
        try:
            answer = self._answer_to(change)
        except SdpError as error:
            self._leg.tell(LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.FORMAT)))
            return
        if change.has_lost_tie and "content-add" in change.actions:
            self._leg.tell(LegOfferRefused(_GLARE))  # with the peer's media there are more than it speaks of
        elif change.has_lost_tie:
            # Again when the peer's change, which may still be on its way, is done: `senders` is one word for both.
            self._next_offer = self._next_offer or change.offer
            if not self._theirs:
                self._yielding = self._leg.around.clock.call_later(YIELD_SECONDS, self._yielded)
        elif change.refusal is not None:
            self._leg.tell(LegOfferRefused(change.refusal))
        else:
            self._leg.tell(LegAnswered(answer))

    def _yielded(self) -> None:
        self._yielding = None
        self._go_on()

    def _stop_yielding(self) -> None:
        if self._yielding is not None:
            self._yielding.cancel()
            self._yielding = None

    def _answer_to(self, change: OurChange) -> SessionDescription:
        """Note what both sides have come to, and return the peer's part of it. Raises SdpError."""
        said = change.told if change.is_stopped else change.offer
        answer = jingle_to_answer(
            change.accepted,
            offer=said,
            is_from_initiator=not self._media.is_initiator,
            previous=self._media.remote,
        )
        for late in change.late:
            answer = jingle_to_sdp(late, is_from_initiator=not self._media.is_initiator, base=answer)
        sections = [
            rejecting(ours) if theirs.is_rejected else ours
            for ours, theirs in zip(said.media, answer.media, strict=True)
        ]
        self._media.local, self._media.remote = said.with_media(sections), answer
        return answer

    def _too_late(self, change: OurChange) -> None:
        if change is not self._ours:
            return
        if change.adds:
            self._leg.request(removal(self._media, change.offer, change.adds))
        self._finish_ours()
        self._leg.tell(LegOfferRefused(Ending(EndCause.NO_ANSWER, origin=Origin.TIMEOUT)))
        self._go_on()

    def _finish_ours(self) -> None:
        self._ours = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what the peer sends ---

    def receive_answer(self, jingle: Jingle) -> IqRefusal | None:
        """Take one of ANSWERS; None acknowledges it. Raises SdpError."""
        change = self._ours
        if jingle["action"] == "content-reject" and self._is_rejected(names_in(jingle)):
            return None  # after a session-accept without them, in case that was not clear enough
        if change is None:
            return OUT_OF_ORDER
        if jingle["action"] == "transport-accept" and names_in(jingle) & change.transports:
            self._media.remote = self._after(jingle)
        if not change.take(jingle):
            return OUT_OF_ORDER
        self._proceed(change)
        return None

    def _is_rejected(self, names: set[str]) -> bool:
        remote = self._media.remote
        sections = () if remote is None else remote.media
        dead = {name for name, section in zip(self._media.names, sections, strict=False) if section.is_rejected}
        return bool(names) and names <= dead

    def receive_change(self, jingle: Jingle) -> IqRefusal | None:
        """Take one of CHANGES; None acknowledges it."""
        ours, action = self._ours, jingle["action"]
        # Both would wait for the other's answer: as initiator we go first, as the peer does where it is that.
        if ours is not None and self._media.is_initiator and (action in ours.actions or action in _NEED_ANSWERS):
            return TIE_BREAK
        return self._queue(PeerChange(action, jingle))

    def receive_transport(self, jingle: Jingle) -> IqRefusal | None:
        """Take a transport-info: candidates, a restart of ICE, or the answer to ours. Raises SdpError."""
        ours, remote = self._ours, self._media.remote
        if remote is not None and self._leg.state is SessionState.ACTIVE:
            if ours is not None and names_in(jingle) & ours.added:
                ours.late.append(jingle)  # of media that are not accepted yet
                if names_in(jingle) <= ours.added:
                    return None
            after = self._after(jingle)
            if is_ice_restart(after, remote):
                return self._restarted(jingle, after)
        fragment = self._media.candidates_received(jingle)
        if fragment is not None:
            self._leg.tell(LegCandidates(fragment))
        return None

    def _restarted(self, jingle: Jingle, after: SessionDescription) -> IqRefusal | None:
        ours = self._ours
        if ours is not None and ours.is_restarting:
            self._media.remote = after
            ours.is_restarting = False
            self._proceed(ours)
            return None
        if ours is not None and self._media.is_initiator:
            return TIE_BREAK
        return self._queue(PeerChange(RESTART, jingle))

    def peer_holds(self, *, is_held: bool) -> bool:
        """Take a hold or its end that was said without changing `senders`; False when nothing changes by it."""
        waiting = next((change.is_held for change in reversed(self._theirs) if change.kind == HOLD), None)
        if is_held == (self._wishes.is_held if waiting is None else waiting):
            return False
        return self._queue(PeerChange(HOLD, is_held=is_held)) is None

    def _queue(self, change: PeerChange) -> IqRefusal | None:
        if len(self._theirs) >= MAXIMUM_WAITING:
            return OUT_OF_ORDER
        self._theirs.append(change)
        self._go_on()
        return None

    def _after(self, jingle: Jingle) -> SessionDescription:
        """What the peer's media are after an action."""
        return jingle_to_sdp(jingle, is_from_initiator=not self._media.is_initiator, base=self._media.remote)

    # --- changes of the peer ---

    def _offer_theirs(self, change: PeerChange) -> None:
        """Offer a change to the call, unless it is impossible, or ends the session."""
        self._stop_yielding()
        try:
            change.remote = self._remote_with(change)
        except SdpError as error:
            self._leg.note(f"{change.kind} refused: {error}", mark="!")
            self._refuse(change, "failed-application", str(error))
            return
        if not self._media.is_secure(change.remote):
            self._refuse(change, "security-error", "Calls need encryption: DTLS-SRTP (XEP-0320).")
        elif all(section.is_rejected for section in change.remote.media):
            # XEP-0166 section 7.2.5: without contents there is no session.
            self._leg.terminate(Ending(EndCause.HUNG_UP))
        else:
            self._offered = change
            self._leg.tell(LegOffered(change.remote))

    def _remote_with(self, change: PeerChange) -> SessionDescription:
        local, remote = self._media.both
        self._wishes.learn(self._media.names, local, remote)
        if change.jingle is None:
            self._wishes.hold(is_held=change.is_held)
            return self._wishes.theirs_in(content_names(remote), remote)
        after = self._after(change.jingle)
        names = content_names(after)
        if change.kind == "content-add":
            maker = "responder" if self._media.is_initiator else "initiator"
            self._media.creators.update(dict.fromkeys(change.about, maker))
        if change.kind in ("content-add", "content-modify"):
            self._wishes.theirs_said(names, change.about, after)
        return self._wishes.theirs_in(names, after)

    def answer(self, answer: SessionDescription) -> None:
        """Answer what was offered."""
        change, self._offered = self._offered, None
        if change is None or change.remote is None or self._leg.state is SessionState.ENDED:
            return
        names = content_names(change.remote)
        self._wishes.ours_answered(names, answer)
        answer = self._wishes.joint(names, answer)
        try:
            jingles = replies(self._media, change, answer)
        except SdpError as error:
            self._leg.note(f"the answer cannot be said in Jingle: {error}", mark="!")
            self._refuse(change, "failed-application", "")
        else:
            self._media.local = answer
            self._media.remote = answered_by(change.remote, answer)
            for jingle in jingles:
                self._leg.request(jingle)
        self._go_on()

    def refuse(self, ending: Ending) -> None:
        """Keep the media as they were."""
        change, self._offered = self._offered, None
        if change is not None and self._leg.state is not SessionState.ENDED:
            self._refuse(change, *ending_to_jingle(ending))
            self._go_on()

    def _refuse(self, change: PeerChange, reason: str, text: str) -> None:
        jingle = refusal(self._media, change, reason, text)
        if jingle is not None:
            self._leg.request(jingle)
        elif change.kind == "content-remove" and change.remote is not None:
            self._media.remote = change.remote  # those media are gone, whatever we think of it
