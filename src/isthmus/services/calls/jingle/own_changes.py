"""Brings the peer of a session to what the call offers, one change after the other (XEP-0166 section 7.2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from isthmus.interworking.jingle_contents import content_names
from isthmus.interworking.jingle_difference import difference
from isthmus.interworking.jingle_sdp import jingle_to_answer, jingle_to_sdp
from isthmus.model import EndCause, Ending, Origin
from isthmus.ports import TimerHandle
from isthmus.sdp.offer_answer import is_hold, rejecting
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.services.calls.jingle.media import names_in
from isthmus.services.calls.jingle.own_change import OurChange, restarted_contents
from isthmus.services.calls.jingle.peer_change import removals
from isthmus.services.calls.jingle.wire import IqOutcome
from isthmus.services.calls.jingle.wishes import Wishes
from isthmus.services.calls.leg import LegAnswered, LegOfferRefused, LegSignal
from isthmus.xmpp.jingle import Jingle

if TYPE_CHECKING:
    from isthmus.services.calls.jingle.leg import JingleLeg

# A person may have to be asked whether the camera goes on; the other side's re-INVITE cannot wait for ever.
ANSWER_SECONDS = 60.0
# An action that crossed ours and goes first is on its way; longer than this no two servers hold it back.
YIELD_SECONDS = 2.0

_GLARE = Ending(EndCause.FAILED, "Both sides changed the media at the same time.", Origin.PEER, status=491)


class OwnChanges:
    """Offers of ours.

    Args:
        leg: whose.
        wishes: of both sides.
        go_on: called when a change is over, or may begin.
        crossed_restart: takes a restart of the peer that waits for us, None when there is none.
        restart_later: lets a restart of the peer wait until our change is over.
    """

    def __init__(
        self,
        leg: JingleLeg,
        wishes: Wishes,
        go_on: Callable[[], None],
        *,
        crossed_restart: Callable[[], Jingle | None],
        restart_later: Callable[[Jingle], None],
    ) -> None:
        self._leg = leg
        self._media = leg.media
        self._wishes = wishes
        self._go_on = go_on
        self._crossed_restart = crossed_restart
        self._restart_later = restart_later
        self.current: OurChange | None = None
        self._next: SessionDescription | None = None
        self._timer: TimerHandle | None = None
        self._yielding: TimerHandle | None = None

    @property
    def is_due(self) -> bool:
        """True when a change waits and may begin as soon as nothing else is under way."""
        return self._next is not None and self._yielding is None

    def close(self) -> None:
        """The leg is over."""
        self._finish()
        self.stop_yielding()
        self._next = None

    def offer(self, offer: SessionDescription) -> None:
        """Make this the next change."""
        self._next = offer
        self._go_on()

    # --- one change ---

    def start(self) -> None:
        """Begin the change that is due."""
        assert self._next is not None, "a change is due"
        offer, self._next = self._next, None
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
            actions = difference(
                local, offer, is_from_initiator=self._media.is_initiator, creators=self._media.creators
            )
        except SdpError as error:
            self._leg.tell(LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.LOCAL)))
            return
        self.current = change = OurChange.of(offer, local, actions)
        self._timer = self._leg.around.clock.call_later(ANSWER_SECONDS, partial(self._too_late, change))
        self.proceed(change)

    def proceed(self, change: OurChange) -> None:
        """Send what is next when the last is settled; finish after the last, or the first that failed."""
        if change is not self.current or change.is_waiting:
            return
        try:
            change.settle(is_initiator=self._media.is_initiator)
            if change.pending and not change.is_stopped:
                self._send(change)
                return
        except SdpError as error:
            change.refusal = Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.FORMAT)
        self._finish()
        self._conclude(change)
        self._go_on()

    def _send(self, change: OurChange) -> None:
        for jingle in change.next_actions(is_initiator=self._media.is_initiator):
            if jingle["action"] == "content-add":
                own = "initiator" if self._media.is_initiator else "responder"
                self._media.creators.update(dict.fromkeys(names_in(jingle), own))
            self._leg.request(jingle, partial(self._answered, change))
        while change.restarts and (crossed := self._crossed_restart()) is not None:
            # Two restarts are each other's answer.
            self.restarted(change, self._media.after(crossed))

    def _answered(self, change: OurChange, outcome: IqOutcome) -> None:
        if outcome.is_not_implemented and change.is_of_directions:
            # Who does not know content-modify may know the information (XEP-0167 section 8.2); a hold needs no consent,
            # and phones end the call when theirs is refused.
            self._leg.signal(LegSignal.HOLD if is_hold(change.offer) else LegSignal.UNHOLD)
            outcome = IqOutcome()
        change.answered(outcome)
        self.proceed(change)

    def restarted(self, change: OurChange, after: SessionDescription) -> None:
        """The peer answered a restart of ICE with new credentials of its own."""
        change.restarted(after, self._media.both[1])
        self._media.remote = after
        self.proceed(change)

    def _too_late(self, change: OurChange) -> None:
        if change is not self.current:
            return
        for jingle in removals(self._media, change.offer, change.adds):
            self._leg.request(jingle)
        self._finish()
        self._leg.tell(LegOfferRefused(Ending(EndCause.NO_ANSWER, origin=Origin.TIMEOUT)))
        self._go_on()

    def _finish(self) -> None:
        self.current = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what became of it ---

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
            self._next = self._next or change.offer
            self._yielding = self._leg.around.clock.call_later(YIELD_SECONDS, self._yielded)
        elif change.refusal is not None:
            self._leg.tell(LegOfferRefused(change.refusal))
        else:
            self._leg.tell(LegAnswered(answer))

    def _answer_to(self, change: OurChange) -> SessionDescription:
        """Note what both sides have come to, and return the peer's part of it. Raises SdpError."""
        said = change.told if change.is_stopped else change.offer
        answer = jingle_to_answer(
            change.accepted,
            offer=said,
            is_from_initiator=not self._media.is_initiator,
            previous=self._media.remote,
        )
        restarts = []
        for late in change.late:
            after = jingle_to_sdp(late, is_from_initiator=not self._media.is_initiator, base=answer)
            if restarted_contents(after, answer):
                restarts.append(late)  # of media that were accepted before: a change of its own
            else:
                answer = after
        sections = [
            rejecting(ours) if theirs.is_rejected else ours
            for ours, theirs in zip(said.media, answer.media, strict=True)
        ]
        self._media.local, self._media.remote = said.with_media(sections), answer
        for late in restarts:
            self._restart_later(late)
        return answer

    def _yielded(self) -> None:
        self._yielding = None
        self._go_on()

    def stop_yielding(self) -> None:
        """The change of the peer that went first has come."""
        if self._yielding is not None:
            self._yielding.cancel()
            self._yielding = None
