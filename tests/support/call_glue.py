"""Two SIP legs tied together without anything between them: the smallest call there can be."""

from __future__ import annotations

from isthmus.model import EndCause, Ending
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import (
    IncomingCall,
    Leg,
    LegAccepted,
    LegAnswered,
    LegCandidates,
    LegDigit,
    LegEnded,
    LegEvent,
    LegOffered,
    LegOfferRefused,
    LegProgressed,
    LegRinging,
)
from isthmus.services.calls.ringing import Invitation
from isthmus.services.calls.sip.ringer import SipRinger


class Glue:
    """One call between the caller's leg and the first device that rings.

    Attributes:
        told: (is it the caller's leg, event), in order.
    """

    def __init__(self, call: IncomingCall, ringer: SipRinger, late_offer: SessionDescription) -> None:
        self.told: list[tuple[bool, LegEvent]] = []
        self.is_answered = False
        self._late_offer = late_offer
        self.caller = call.leg
        (ring, *_) = ringer.devices(Invitation.of(call))
        self.callee = ring.make(ring.forms[0])
        self._over: set[str] = set()
        self.caller.attach(self._heard)
        self.callee.attach(self._heard)
        if self.caller.key not in self._over:
            self.callee.invite(call.offer or late_offer)

    @property
    def is_over(self) -> bool:
        """Both legs have ended."""
        return len(self._over) == 2

    def kinds(self, *, is_caller: bool) -> list[str]:
        """The names of what one leg told."""
        return [type(event).__name__ for is_first, event in self.told if is_first is is_caller]

    def hang_up(self) -> None:
        """End the call from the middle."""
        self.caller.hang_up(Ending(EndCause.HUNG_UP))
        self.callee.hang_up(Ending(EndCause.HUNG_UP))

    def _heard(self, leg: Leg, event: LegEvent) -> None:
        is_caller = leg is self.caller
        assert leg.key not in self._over, f"{event} after the end"
        self.told.append((is_caller, event))
        other = self.callee if is_caller else self.caller
        if isinstance(event, LegEnded):
            self._over.add(leg.key)
        if other.key not in self._over:
            self._pass_on(other, event)

    def _pass_on(self, other: Leg, event: LegEvent) -> None:
        match event:
            case LegRinging():
                other.ring()
            case LegProgressed(early):
                other.progress(early)
            case LegAccepted(answer):
                self.is_answered = True
                other.accept(answer)
            case LegOffered(offer):
                other.offer(offer or self._late_offer)
            case LegAnswered(answer):
                other.answer(answer)
            case LegOfferRefused(ending):
                other.refuse_offer(ending)
            case LegCandidates(fragment):
                other.add_candidates(fragment)
            case LegDigit(digit, milliseconds):
                other.send_digit(digit, milliseconds)
            case LegEnded(ending):
                other.hang_up(ending)
            case _:
                pass
