"""Transfers, carried out by us (RFC 5589, RFC 3891): the other realm never hears that there was one.

Blind: the target is rung with what the remaining end last said about its media; when somebody answers, the new leg
takes the place of the one that asked. Attended: the leg that Replaces names is at the other end of a second call of
the same person; its partner takes the place. Media of a transferred call go through the relay, which can speak for an
end before that end has said anything new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from isthmus.errors import IsthmusError
from isthmus.model import Address, EndCause, Ending, MediaForm, Origin
from isthmus.ports import Clock, TimerHandle
from isthmus.sdp.offer_answer import form_of
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.branches import Branches
from isthmus.services.calls.call import Call
from isthmus.services.calls.call_events import CallState, CallTerms, LegReplaced, LegTaken
from isthmus.services.calls.leg import (
    IncomingCall,
    Leg,
    LegAccepted,
    LegAnswered,
    LegEnded,
    LegEvent,
    LegOfferRefused,
    LegRinging,
    LegTransferRequested,
)
from isthmus.services.calls.media_path import MediaPath, NoPathError, PathKind, encryption_missing, without
from isthmus.services.calls.ringing import Invitation, Ring
from isthmus.trace import Trace

_log = structlog.get_logger(__name__)

DialogName = tuple[str, str, str]


class Transfers:
    """Carries out what `LegTransferRequested` asks for.

    Args:
        live: calls that are not over, by id.
        admit: terms of a call of the remaining person with the target, or why there may be none.
        rings_of: the devices of the target, or why nothing can be rung.
        find_leg: the leg whose dialog the peer names in Replaces; None when there is none.
        shown_as: whom the target is shown as the caller: the remaining person, or the one who transfers.
    """

    def __init__(
        self,
        clock: Clock,
        trace: Trace,
        live: Mapping[str, Call],
        *,
        admit: Callable[[Address, Address, SessionDescription], CallTerms | Ending],
        rings_of: Callable[[Invitation, CallTerms], Awaitable[list[Ring] | Ending]],
        find_leg: Callable[[DialogName], Leg | None],
        shown_as: Callable[[Address, Address, Address], Address],
    ) -> None:
        self._clock = clock
        self._trace = trace
        self._live = live
        self._admit = admit
        self._rings_of = rings_of
        self._find_leg = find_leg
        self._shown_as = shown_as

    def requested(self, call: Call, leg: Leg, event: LegTransferRequested) -> None:
        """Begin a transfer; `event.progress` hears what becomes of it."""
        self._note(call, f"{leg.party} transfers {call.other(leg).party} to {event.target}")
        if event.replaces is not None:
            self._transfer_to_partner(call, leg, event, event.replaces)
        else:
            self._transfer_to_person(call, leg, event)

    def replace(self, incoming: IncomingCall) -> Ending | None:
        """A call arrived that takes the place of a leg (INVITE with Replaces). Return why it may not, or None."""
        assert incoming.replaces is not None
        leg = self._find_leg(incoming.replaces)
        call = None if leg is None else self._call_of(leg)
        if leg is None or call is None or call.callee_leg is None or incoming.offer is None:
            return Ending(EndCause.NOT_FOUND, "There is no such call.", Origin.PEER, status=481)
        if incoming.is_replacing_early_only:
            return Ending(EndCause.BUSY, "The call was answered already.", Origin.PEER, status=486)
        if incoming.caller != leg.party and incoming.callee not in (leg.party, call.other(leg).party):
            # Only who is in the call, or was sent there by who is, may take a place in it (RFC 3891 section 3).
            return Ending(EndCause.FORBIDDEN, "", Origin.POLICY, "replaces.stranger")
        remaining = call.other(leg)
        terms = self._admit(incoming.caller, remaining.party, incoming.offer)
        if isinstance(terms, Ending):
            return terms
        if terms.needs_encryption and incoming.leg.form is MediaForm.RTP:
            return encryption_missing()
        try:
            path = call.ways.choose(incoming.leg.form, remaining.form, PathKind.RELAYED)
        except (IsthmusError, NoPathError) as error:
            return Ending(EndCause.OVERLOADED, str(error), Origin.LOCAL)
        incoming.leg.attach(call.leg_event)
        call.happen(None, LegReplaced(leg, incoming.leg, path, incoming.offer, None, incoming.caller))
        return None

    # --- blind ---

    def _transfer_to_person(self, call: Call, leg: Leg, event: LegTransferRequested) -> None:
        remaining = call.other(leg)
        if remaining.key not in call.negotiation.said:
            event.progress(0, Ending(EndCause.FAILED, "", Origin.LOCAL))
            return
        said = call.negotiation.spoken(remaining)
        shown = self._shown_as(remaining.party, leg.party, event.target)
        terms = self._admit(shown, event.target, said)
        if isinstance(terms, Ending):
            self._note(call, f"{event.target} cannot be called: {terms.cause.value} {terms.text}", terms.rule)
            event.progress(0, terms)
            return
        rings = self._rings_of(Invitation(shown, event.target, said), terms)
        _Attempt(call, leg, event, terms, clock=self._clock).begin(rings, said)

    # --- attended ---

    def _transfer_to_partner(self, call: Call, leg: Leg, event: LegTransferRequested, name: DialogName) -> None:
        named = self._find_leg(name)
        second = None if named is None else self._call_of(named)
        if named is None or second is None or second is call or second.state is not CallState.TALKING:
            event.progress(0, Ending(EndCause.NOT_FOUND, "There is no such call.", Origin.PEER, status=481))
            return
        if named.party != leg.party:
            event.progress(0, Ending(EndCause.FORBIDDEN, "", Origin.POLICY, "replaces.stranger"))
            return
        partner = second.other(named)
        said = call.negotiation.said.get(call.other(leg).key)
        terms = None if said is None else self._admit(call.other(leg).party, partner.party, said)
        if isinstance(terms, Ending):
            event.progress(0, terms)
            return
        _Join(call, leg, event, second, partner).begin()

    def _call_of(self, leg: Leg) -> Call | None:
        return next((call for call in self._live.values() if leg in call.legs), None)

    def _note(self, call: Call, text: str, rule: str = "") -> None:
        self._trace.decision(f"{call}: {text}", people=call.people, call_id=call.id, rule=rule)


class _Step:
    """What both kinds of transfer share: events are worked off one after the other, and failures are told."""

    def __init__(self, call: Call, leg: Leg, event: LegTransferRequested) -> None:
        self.call, self.leg, self.event = call, leg, event
        self.remaining = call.other(leg)
        self._work: asyncio.Future[None] | None = None
        self.is_done = False

    def run(self, action: Awaitable[None]) -> None:
        """Do it after what is being done."""
        self._work = asyncio.ensure_future(self._after(self._work, action))

    async def _after(self, before: asyncio.Future[None] | None, action: Awaitable[None]) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            await action
        except (IsthmusError, NoPathError) as error:
            self.fail(Ending(EndCause.OVERLOADED, str(error), Origin.LOCAL))
        except Exception:
            _log.exception("a transfer failed", call=self.call.id)
            self.fail(Ending(EndCause.FAILED, "", Origin.LOCAL))

    def fail(self, ending: Ending) -> None:
        """Tell the one who asked, once; the call goes on as it was."""
        if not self.is_done:
            self.is_done = True
            self.event.progress(0, ending)

    def succeed(self, new: Leg, path: MediaPath, description: SessionDescription, told: SessionDescription) -> None:
        """Put the new leg in place, which was `told` of the media of the one that remains."""
        self.is_done = True
        self.event.progress(200, None)
        self.call.happen(None, LegReplaced(self.leg, new, path, description, told, new.party))

    async def restore(self) -> None:
        """The relay has turned the remaining end's media towards the target: turn them back. Nobody is told."""
        call, said = self.call, self.call.negotiation.said
        if call.state is CallState.TALKING and self.leg in call.legs and self.leg.key in said:
            await call.media_path.offer(said[self.remaining.key], by=self.remaining, to=self.leg)
            await call.media_path.answer(said[self.leg.key], by=self.leg, to=self.remaining)

    def choose_path(self, other: Leg) -> MediaPath:
        """Through a relay, always. Raises RelayError, NoPathError."""
        return self.call.ways.choose(self.remaining.form, other.form, PathKind.RELAYED)


class _Attempt(_Step):
    """Rings the target of a blind transfer."""

    def __init__(self, call: Call, leg: Leg, event: LegTransferRequested, terms: CallTerms, *, clock: Clock) -> None:
        super().__init__(call, leg, event)
        self._terms = terms
        self._clock = clock
        self._timer: TimerHandle | None = None
        self._offer = SessionDescription()
        self._branches = Branches(self.remaining, call.ways, PathKind.RELAYED, self._leg_event)

    def begin(self, rings: Awaitable[list[Ring] | Ending], said: SessionDescription) -> None:
        """Ring every device of the target with what the remaining end said."""
        self.event.progress(100, None)
        self._offer = without(said, self._terms.barred)
        self._timer = self._clock.call_later(self._terms.ring_seconds, lambda: self.run(self._give_up()))
        self.run(self._ring_all(rings))

    async def _ring_all(self, finding: Awaitable[list[Ring] | Ending]) -> None:
        rings = await finding
        if isinstance(rings, Ending):
            await self._end(rings)
            return
        for ring in rings:
            await self._branches.ring(ring, self._offer)
        await self._end_when_nobody_is_left()

    def _leg_event(self, leg: Leg, event: LegEvent) -> None:
        if isinstance(event, LegRinging) and not self.is_done:
            self.event.progress(180, None)
        elif isinstance(event, LegAccepted):
            self.run(self._answered(leg, event))
        elif isinstance(event, LegEnded):
            self.run(self._ended(leg, event))

    async def _answered(self, leg: Leg, event: LegAccepted) -> None:
        if self.is_done or leg not in self._branches:
            leg.hang_up(Ending(EndCause.ANSWERED_ELSEWHERE))
            return
        branch = self._branches.pop(leg)
        self._stop(Ending(EndCause.ANSWERED_ELSEWHERE))
        leg.form = form_of(event.answer)
        self.succeed(leg, branch.path, event.answer, branch.offer)

    async def _ended(self, leg: Leg, event: LegEnded) -> None:
        if leg in self._branches:
            await self._branches.ended(leg, event.ending, self._offer)
            await self._end_when_nobody_is_left()

    async def _end_when_nobody_is_left(self) -> None:
        if not len(self._branches) and not self.is_done:
            await self._end(self._branches.best_refusal())

    async def _give_up(self) -> None:
        if not self.is_done:
            await self._end(Ending(EndCause.NO_ANSWER, "", Origin.TIMEOUT))

    async def _end(self, ending: Ending) -> None:
        self._stop(Ending(EndCause.CANCELLED))
        await self.restore()
        self.fail(ending)

    def _stop(self, ending: Ending) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._branches.stop(ending)


class _Join(_Step):
    """Connects the partners of two calls of the same person."""

    def __init__(self, call: Call, leg: Leg, event: LegTransferRequested, second: Call, partner: Leg) -> None:
        super().__init__(call, leg, event)
        self._second = second
        self._partner = partner
        self._path: MediaPath | None = None
        self._offered: SessionDescription | None = None

    def begin(self) -> None:
        """Offer the partner what the remaining end last said."""
        self.event.progress(100, None)
        self.run(self._offer())

    async def _offer(self) -> None:
        if self.remaining.key not in self.call.negotiation.said:
            self.fail(Ending(EndCause.FAILED, "", Origin.LOCAL))
            return
        said = self.call.negotiation.spoken(self.remaining)
        self._path = self.choose_path(self._partner)
        self._offered = await self._path.offer(without(said, self.call.barred), by=self.remaining, to=self._partner)
        self._partner.attach(self._partner_event)
        self._partner.offer(self._offered)

    def _partner_event(self, leg: Leg, event: LegEvent) -> None:
        assert self._path is not None
        if isinstance(event, LegAnswered) and self._offered is not None:
            self._second.happen(None, LegTaken(leg))
            self.succeed(leg, self._path, event.answer, self._offered)
        elif isinstance(event, LegOfferRefused):
            self.run(self._give_back(event.ending))
        else:
            self._second.leg_event(leg, event)
            if isinstance(event, LegEnded):
                self.run(self._give_back(event.ending))

    async def _give_back(self, ending: Ending) -> None:
        self._partner.attach(self._second.leg_event)
        await self.call.ways.drop(self._partner)
        await self.restore()
        self.fail(ending)
