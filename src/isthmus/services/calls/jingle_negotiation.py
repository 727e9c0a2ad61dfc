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
from isthmus.services.calls.leg import LegAnswered, LegOffered, LegOfferRefused
from isthmus.xmpp.jingle import Jingle

if TYPE_CHECKING:
    from isthmus.services.calls.jingle_leg import JingleLeg

# A person may have to be asked whether the camera goes on; the other side's re-INVITE cannot wait for ever.
ANSWER_SECONDS = 60.0
# Changes of the peer that wait for the call; a person does not press buttons faster than this.
MAXIMUM_WAITING = 16

ANSWERS = ("content-accept", "content-reject", "transport-accept", "transport-reject")
CHANGES = ("content-add", "content-modify", "content-remove", "transport-replace")

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

    def close(self) -> None:
        """The leg is over."""
        self._finish_ours()
        self._offered = self._next_offer = None
        self._theirs.clear()

    def _go_on(self) -> None:
        """Begin what comes next, when nothing is under way."""
        while self._ours is None and self._offered is None and self._leg.state is SessionState.ACTIVE:
            if self._theirs:
                self._offer_theirs(self._theirs.popleft())
            elif self._next_offer is not None:
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
        change = OurChange(offer, frozenset(jingle["action"] for jingle in jingles), len(jingles))
        change.is_restarting = "transport-info" in change.actions and is_ice_restart(offer, local)
        self._ours = change
        for jingle in jingles:
            if jingle["action"] == "content-add":
                change.adds |= names_in(jingle)
                own = "initiator" if self._media.is_initiator else "responder"
                self._media.creators.update(dict.fromkeys(names_in(jingle), own))
            elif jingle["action"] == "transport-replace":
                change.transports |= names_in(jingle)
            self._leg.request(jingle, partial(self._change_answered, change))
        self._timer = self._leg.around.clock.call_later(ANSWER_SECONDS, partial(self._too_late, change))
        self._look_whether_done(change)

    def _change_answered(self, change: OurChange, outcome: IqOutcome) -> None:
        change.answered(outcome)
        self._look_whether_done(change)

    def _look_whether_done(self, change: OurChange) -> None:
        if change is not self._ours or not change.is_done:
            return
        self._finish_ours()
        if change.has_lost_tie:
            self._retry(change)
        elif change.refusal is not None:
            self._leg.tell(LegOfferRefused(change.refusal))
        else:
            self._take_answer(change)
        self._go_on()

    def _take_answer(self, change: OurChange) -> None:
        try:
            answer = jingle_to_answer(
                change.accepted,
                offer=change.offer,
                is_from_initiator=not self._media.is_initiator,
                previous=self._media.remote,
            )
        except SdpError as error:
            self._leg.tell(LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.FORMAT)))
            return
        self._media.local, self._media.remote = change.offer, answer
        self._leg.tell(LegAnswered(answer))

    def _retry(self, change: OurChange) -> None:
        """Our change waits until the peer's is done; one that added media does not fit any more then."""
        if "content-add" in change.actions:
            self._leg.tell(LegOfferRefused(_GLARE))
        elif self._next_offer is None:
            self._next_offer = change.offer

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
        if change is None:
            return OUT_OF_ORDER
        if jingle["action"] == "transport-accept" and names_in(jingle) & change.transports:
            self._media.remote = self._after(jingle)
        if not change.take(jingle):
            return OUT_OF_ORDER
        self._look_whether_done(change)
        return None

    def receive_change(self, jingle: Jingle) -> IqRefusal | None:
        """Take one of CHANGES; None acknowledges it."""
        ours = self._ours
        if ours is not None and jingle["action"] in ours.actions and self._media.is_initiator:
            return TIE_BREAK
        return self._queue(PeerChange(jingle["action"], jingle))

    def take_restart(self, jingle: Jingle) -> bool:
        """Take a transport-info with new credentials: an ICE restart, or the answer to ours; False for any other.

        Raises:
            SdpError: it cannot be understood.
        """
        if self._leg.state is not SessionState.ACTIVE or self._media.remote is None:
            return False
        after = self._after(jingle)
        if not is_ice_restart(after, self._media.remote):
            return False
        if self._ours is not None and self._ours.is_restarting:
            self._media.remote = after
            self._ours.is_restarting = False
            self._look_whether_done(self._ours)
        else:
            self._queue(PeerChange(RESTART, jingle))
        return True

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
