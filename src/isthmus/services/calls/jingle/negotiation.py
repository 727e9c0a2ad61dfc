"""Offers and answers of a leg within its session, as actions of Jingle (XEP-0166 section 7.2).

One change at a time in each direction. A change of the peer is acknowledged at once and offered to the call when
nothing else is under way. Glare is decided by XEP-0166 section 7.2.16: the initiator's action goes first, and what we
lose by that is tried again here, unseen by the call.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from isthmus.interworking.call_endings import ending_to_jingle
from isthmus.interworking.jingle_contents import content_names
from isthmus.model import EndCause, Ending
from isthmus.ports import IqRefusal
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.services.calls.jingle.media import names_in
from isthmus.services.calls.jingle.own_change import restarted_contents
from isthmus.services.calls.jingle.own_changes import OwnChanges
from isthmus.services.calls.jingle.peer_change import (
    HOLD,
    RESTART,
    PeerChange,
    as_told,
    refusal,
    replies,
    with_bundle_restarted,
)
from isthmus.services.calls.jingle.refusals import OUT_OF_ORDER, TIE_BREAK
from isthmus.services.calls.jingle.states import SessionState
from isthmus.services.calls.jingle.wishes import Wishes, answered_by
from isthmus.services.calls.leg import LegCandidates, LegOffered
from isthmus.xmpp.jingle import Jingle

if TYPE_CHECKING:
    from isthmus.services.calls.jingle.leg import JingleLeg

# Changes of the peer that wait for the call; a person does not press buttons faster than this.
MAXIMUM_WAITING = 16

ANSWERS = ("content-accept", "content-reject", "transport-accept", "transport-reject")
CHANGES = ("content-add", "content-modify", "content-remove", "transport-replace")

# What the peer waits with until our side has said something.
_NEED_ANSWERS = ("content-add", "transport-replace")


class JingleNegotiation:
    """Changes of one session's media."""

    def __init__(self, leg: JingleLeg) -> None:
        self._leg = leg
        self._media = leg.media
        self._wishes = Wishes()
        self._ours = OwnChanges(
            leg,
            self._wishes,
            self._go_on,
            crossed_restart=self._take_crossed_restart,
            restart_later=lambda jingle: self._theirs.append(PeerChange(RESTART, jingle)),
        )
        self._theirs: deque[PeerChange] = deque()
        self._offered: PeerChange | None = None

    def close(self) -> None:
        """The leg is over."""
        self._ours.close()
        self._offered = None
        self._theirs.clear()

    def offer(self, offer: SessionDescription) -> None:
        """Bring the peer to this description; `LegAnswered` or `LegOfferRefused` follows."""
        if self._leg.state is SessionState.ACTIVE:
            self._ours.offer(offer)

    def _go_on(self) -> None:
        """Begin what comes next, when nothing is under way."""
        while self._ours.current is None and self._offered is None and self._leg.state is SessionState.ACTIVE:
            if self._theirs:
                self._ours.stop_yielding()
                self._offer_theirs(self._theirs.popleft())
            elif self._ours.is_due:
                self._ours.start()
            else:
                return

    def _take_crossed_restart(self) -> Jingle | None:
        crossed = next((theirs for theirs in self._theirs if theirs.kind == RESTART), None)
        if crossed is None:
            return None
        self._theirs.remove(crossed)
        return crossed.jingle

    # --- what the peer sends ---

    def receive_answer(self, jingle: Jingle) -> IqRefusal | None:
        """Take one of ANSWERS; None acknowledges it. Raises SdpError."""
        if jingle["action"] == "content-reject" and self._is_rejected(names_in(jingle)):
            return None  # after a session-accept without them, in case that was not clear enough
        change = self._ours.current
        if change is None:
            return OUT_OF_ORDER
        if jingle["action"] == "transport-accept" and names_in(jingle) & change.transports:
            self._media.remote = self._media.after(jingle)
        if not change.take(jingle):
            return OUT_OF_ORDER
        self._ours.proceed(change)
        return None

    def _is_rejected(self, names: set[str]) -> bool:
        remote = self._media.remote
        sections = () if remote is None else remote.media
        dead = {name for name, section in zip(self._media.names, sections, strict=False) if section.is_rejected}
        return bool(names) and names <= dead

    def receive_change(self, jingle: Jingle) -> IqRefusal | None:
        """Take one of CHANGES; None acknowledges it."""
        ours, action = self._ours.current, jingle["action"]
        # Both would wait for the other's answer: as initiator we go first, as the peer does where it is that.
        if ours is not None and self._media.is_initiator and (action in ours.actions or action in _NEED_ANSWERS):
            return TIE_BREAK
        refused = self._queue(PeerChange(action, jingle))
        if ours is not None and action == "content-remove":
            ours.forget(names_in(jingle))
            self._ours.proceed(ours)
        return refused

    def receive_transport(self, jingle: Jingle) -> IqRefusal | None:
        """Take a transport-info: candidates, a restart of ICE, or the answer to ours. Raises SdpError."""
        ours, remote = self._ours.current, self._media.remote
        if remote is not None and self._leg.state is SessionState.ACTIVE:
            if ours is not None and names_in(jingle) & ours.added:
                ours.late.append(jingle)  # of media that are not accepted yet
                if names_in(jingle) <= ours.added:
                    return None
            after = self._media.after(jingle)
            if restarted_contents(after, remote):
                return self._restarted(jingle, after)
        fragment = self._media.candidates_received(jingle)
        if fragment is not None:
            self._leg.tell(LegCandidates(fragment))
        return None

    def _restarted(self, jingle: Jingle, after: SessionDescription) -> IqRefusal | None:
        ours = self._ours.current
        if ours is not None and ours.restarts:
            self._ours.restarted(ours, after)
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
        elif change.kind == RESTART and not restarted_contents(change.remote, self._media.both[1]):
            self._media.remote = change.remote  # restarted with the rest of its bundle
        else:
            self._offered = change
            self._leg.tell(LegOffered(change.remote))

    def _remote_with(self, change: PeerChange) -> SessionDescription:
        local, remote = self._media.both
        self._wishes.learn(self._media.names, local, remote)
        if change.jingle is None:
            self._wishes.is_held = change.is_held
            return self._wishes.theirs_in(content_names(remote), remote)
        after = self._media.after(change.jingle)
        if change.kind == RESTART:
            after = with_bundle_restarted(change, after, remote)
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
        answer = as_told(self._wishes.joint(names, answer), self._media.both[0], names, change)
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
