"""One call: the caller's leg, the legs that ring, and the one that answered; its states are a table.

Everything that happens to a call waits in one queue and is worked off in order, so that media operations of a call
never overtake each other and a CANCEL never meets a half-made answer. What has no row is a decision, too: see
`IGNORED`. Legs that no longer count (they lost the race, or were cancelled) keep being listened to until they end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import structlog

from isthmus.errors import IsthmusError
from isthmus.model import Address, EndCause, Ending, MediaForm, Origin
from isthmus.ports import Clock, MediaQuality, MediaRelay, TimerHandle
from isthmus.sdp.offer_answer import form_of, template_offer
from isthmus.services.calls.branches import Branches
from isthmus.services.calls.call_events import (
    CallState,
    CallTerms,
    EndRequested,
    Happening,
    LegReplaced,
    LegTaken,
    MediaBarred,
    RingingTooLong,
    Role,
)
from isthmus.services.calls.leg import (
    IncomingCall,
    Leg,
    LegAccepted,
    LegAnswered,
    LegCandidates,
    LegConfirmed,
    LegDigit,
    LegEnded,
    LegEvent,
    LegOffered,
    LegOfferRefused,
    LegProgressed,
    LegRinging,
    LegSignal,
    LegSignalled,
    LegTransferRequested,
)
from isthmus.services.calls.media_path import (
    CallMedia,
    MediaPath,
    NoPathError,
    PathKind,
    encryption_missing,
    media_in_use,
    without,
)
from isthmus.services.calls.negotiation import Negotiation
from isthmus.services.calls.ringing import Ring
from isthmus.trace import Trace

_log = structlog.get_logger(__name__)

# More than a person does in a second; a peer that floods a call with events is not listened to any more.
MAXIMUM_QUEUED_EVENTS = 1_000


class CallWatcher:
    """Is told what becomes of a call; the service overrides what it needs."""

    def ringing(self, call: Call) -> None:
        """A device of the callee alerts somebody."""

    def talking(self, call: Call) -> None:
        """Somebody answered and the caller knows."""

    def ended(self, call: Call) -> None:
        """It is over; `call.ending` says why."""

    def replaced(self, call: Call, old: Address, new: Address) -> None:
        """A transfer put somebody else in the place of one of the two."""

    def transfer_requested(self, call: Call, leg: Leg, event: LegTransferRequested) -> None:
        """One end wants the other one connected to somebody else."""


class Call:
    """A call from its first ring to its end.

    Attributes:
        id: for trace, records and the administrator.
        caller, callee: the people.
        state: see `CallState`.
        started_at, answered_at, ended_at: Unix seconds; None for what has not happened.
        ending: why it ended.
        media: kinds of media in use; barred: kinds that may not be used; needs_encryption: nor may media in clear.
        ways: finds ways for media; path: the one in use, once somebody answered; path_kind: how it goes.
        device: which device answered.
        counted: what the relay counted.
        negotiation: offers and answers of the two ends.
    """

    def __init__(
        self,
        call_id: str,
        incoming: IncomingCall,
        terms: CallTerms,
        *,
        relay: MediaRelay | None,
        watcher: CallWatcher,
        clock: Clock,
        trace: Trace,
    ) -> None:
        self.id = call_id
        self.caller, self.callee = incoming.caller, incoming.callee
        self.terms = terms
        self.state = CallState.RINGING
        self.started_at: float = clock.wall()
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.ending = Ending(EndCause.FAILED)
        self.media: tuple[str, ...] = ()
        self.barred: frozenset[str] = terms.barred
        self.needs_encryption = terms.needs_encryption
        self.path: MediaPath | None = None
        self.path_kind = PathKind.AUTO
        self.device = ""
        self.counted: tuple[MediaQuality, ...] = ()
        self.negotiation = Negotiation(self)
        self.caller_leg: Leg = incoming.leg
        self.callee_leg: Leg | None = None
        self._has_rung = False
        self._is_late_offer = incoming.offer is None
        # The callee must be offered something before anybody has answered (RFC 3261 section 13.2.1).
        self._offer = incoming.offer or template_offer(MediaForm.RTP, audio=True, video="video" not in terms.barred)
        # Nobody can answer a template directly: the relay stands in for the caller until it says where it is.
        wanted = PathKind.RELAYED if self._is_late_offer else terms.path
        self.ways = CallMedia(relay, self._relay_lost)
        self._branches = Branches(self.caller_leg, self.ways, wanted, self.leg_event)
        self._watcher = watcher
        self._clock = clock
        self._trace = trace
        self._queue: deque[tuple[Leg | None, Happening]] = deque()
        self._work: asyncio.Task[None] | None = None
        self._ring_timer: TimerHandle | None = None
        self._over = asyncio.Event()

    def __str__(self) -> str:
        return f"call {self.id} from {self.caller} to {self.callee}"

    @property
    def people(self) -> tuple[str, str]:
        """For the trace."""
        return str(self.caller), str(self.callee)

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The two ends of an answered call, else the caller's alone."""
        return (self.caller_leg,) if self.callee_leg is None else (self.caller_leg, self.callee_leg)

    @property
    def media_path(self) -> MediaPath:
        """The way between the two ends of an answered call."""
        assert self.path is not None
        return self.path

    def other(self, leg: Leg) -> Leg:
        """The leg at the other end of an answered call."""
        assert self.callee_leg is not None
        return self.callee_leg if leg is self.caller_leg else self.caller_leg

    def note(self, text: str, rule: str = "") -> None:
        """Write to the trace."""
        self._trace.decision(f"{self}: {text}", people=self.people, rule=rule, call_id=self.id)

    # --- from outside ---

    def begin(self, rings: Awaitable[Sequence[Ring] | Ending]) -> None:
        """Ring these devices, as soon as it is known which; the ending says why there are none."""
        if not self._is_late_offer:
            self.negotiation.said[self.caller_leg.key] = self._offer
        self._ring_timer = self._clock.call_later(self.terms.ring_seconds, lambda: self.happen(None, RingingTooLong()))
        self._start(self._ring_all(rings))

    def leg_event(self, leg: Leg, event: LegEvent) -> None:
        """Take what a leg tells (`LegSink`)."""
        self.happen(leg, event)

    def end(self, ending: Ending) -> None:
        """End the call, whatever its state."""
        self.happen(None, EndRequested(ending))

    def bar(self, media: frozenset[str]) -> None:
        """Take media out of the call that policy no longer allows."""
        self.happen(None, MediaBarred(media))

    async def over(self) -> None:
        """Return when everything is released."""
        await self._over.wait()

    # --- one thing after the other ---

    def happen(self, leg: Leg | None, event: Happening) -> None:
        """Queue what happened."""
        if len(self._queue) >= MAXIMUM_QUEUED_EVENTS:
            return
        self._queue.append((leg, event))
        if self._work is None:
            self._start(None)

    def happen_next(self, leg: Leg, event: LegOffered) -> None:
        """Work this off before everything else."""
        self._queue.appendleft((leg, event))

    def _start(self, first: Awaitable[None] | None) -> None:
        self._work = asyncio.ensure_future(self._work_off(first))

    async def _work_off(self, first: Awaitable[None] | None) -> None:
        try:
            if first is not None:
                await self._guarded(first)
            while self._queue:
                leg, event = self._queue.popleft()
                action = ROWS[self.state].get((self._role(leg), type(event)))
                if action is not None:
                    await self._guarded(action(self, leg, event))
        finally:
            self._work = None
        if self._queue:
            self._start(None)

    async def _guarded(self, action: Awaitable[None]) -> None:
        try:
            await action
        except (IsthmusError, NoPathError) as error:
            await self._finish(Ending(EndCause.OVERLOADED, str(error), Origin.LOCAL), None)
        except Exception:
            _log.exception("a call failed", call=self.id)
            await self._finish(Ending(EndCause.FAILED, "", Origin.LOCAL), None)

    def _role(self, leg: Leg | None) -> Role | None:
        if leg is None:
            return None
        if leg is self.caller_leg:
            return Role.CALLER
        if leg is self.callee_leg:
            return Role.CALLEE
        return Role.RINGING if leg in self._branches else Role.LATE

    # --- ringing ---

    async def _ring_all(self, finding: Awaitable[Sequence[Ring] | Ending]) -> None:
        rings = await finding
        if isinstance(rings, Ending):
            await self._finish(rings, None)
            return
        for ring in rings:
            await self._branches.ring(ring, without(self._offer, self.barred))
        await self._refuse_when_nobody_is_left()

    def _relay_lost(self) -> None:
        self.end(Ending(EndCause.CONNECTIVITY, "No media are coming any more.", Origin.LOCAL))

    async def _tell_ringing(self, _leg: Leg, _event: LegRinging | LegProgressed) -> None:
        if not self._has_rung:
            self._has_rung = True
            self._watcher.ringing(self)
        self.caller_leg.ring()

    async def _pass_early_media(self, leg: Leg, event: LegProgressed) -> None:
        if len(self._branches) > 1 or self._is_late_offer:
            await self._tell_ringing(leg, event)  # whose of them would it be?
            return
        leg.form = form_of(event.early)
        path = self._branches[leg].path
        self.caller_leg.progress(await path.answer(event.early, by=leg, to=self.caller_leg))

    async def _take_answer(self, leg: Leg, event: LegAccepted) -> None:
        """The first device that answers gets the call; the others stop ringing (edge case 33)."""
        branch = self._branches.pop(leg)
        self.state = CallState.ANSWERED
        self.callee_leg, self.path, self.path_kind = leg, branch.path, branch.path.kind
        self.device = event.device or leg.device
        self._branches.stop(Ending(EndCause.ANSWERED_ELSEWHERE))
        leg.form = form_of(event.answer)
        if self.needs_encryption and leg.form is MediaForm.RTP:
            await self._finish(encryption_missing(), None)
            return
        said, told = self.negotiation.said, self.negotiation.told
        said[leg.key], told[leg.key] = event.answer, branch.offer
        answer = told[self.caller_leg.key] = await branch.path.answer(event.answer, by=leg, to=self.caller_leg)
        self.media = media_in_use(answer)
        if not self.media:
            await self._finish(Ending(EndCause.MEDIA_MISMATCH), None)
            return
        self.note(f"answered{f' on {self.device}' if self.device else ''}, media {self.path_kind.value}")
        self.caller_leg.accept(answer)
        for fragment in branch.held:
            self.caller_leg.add_candidates(fragment)

    async def _branch_ended(self, leg: Leg, event: LegEnded) -> None:
        ending = event.ending
        if not await self._branches.ended(leg, ending, without(self._offer, self.barred)):
            self.note(f"{leg.key} will not answer: {ending.cause.value} {ending.text}".rstrip())
        if ending.status >= 600:
            # RFC 3261 section 16.7 step 5: a 6xx speaks for the person, not for one device.
            self._branches.stop(Ending(EndCause.ANSWERED_ELSEWHERE, "The call was refused on another device."))
        await self._refuse_when_nobody_is_left()

    async def _refuse_when_nobody_is_left(self) -> None:
        if self.state is CallState.RINGING and not len(self._branches):
            await self._finish(self._branches.best_refusal(), None)

    async def _nobody_answered(self, _leg: None, _event: RingingTooLong) -> None:
        cause = EndCause.NO_ANSWER if self._has_rung else EndCause.UNREACHABLE
        await self._finish(Ending(cause, "", Origin.TIMEOUT), None)

    async def _end_late_answer(self, leg: Leg, _event: LegAccepted) -> None:
        leg.hang_up(Ending(EndCause.ANSWERED_ELSEWHERE))  # its answer crossed our cancel

    # --- candidates ---

    async def _candidates_of_caller(self, _leg: Leg, event: LegCandidates) -> None:
        is_relay_told = False
        for branch in self._branches.all():
            if branch.path.kind is PathKind.RELAYED and is_relay_told:
                continue
            passed_on = await branch.path.add_candidates(event.fragment, by=self.caller_leg)
            if passed_on is None:
                is_relay_told = True
            else:
                branch.leg.add_candidates(passed_on)

    async def _hold_candidates(self, leg: Leg, event: LegCandidates) -> None:
        branch = self._branches[leg]
        passed_on = await branch.path.add_candidates(event.fragment, by=leg)
        if passed_on is not None:
            branch.hold(passed_on)

    async def _pass_candidates(self, leg: Leg, event: LegCandidates) -> None:
        passed_on = await self.media_path.add_candidates(event.fragment, by=leg)
        if passed_on is not None:
            self.other(leg).add_candidates(passed_on)

    # --- in the call ---

    async def _confirmed(self, leg: Leg, event: LegConfirmed) -> None:
        if event.answer is not None:
            if self.needs_encryption and form_of(event.answer) is MediaForm.RTP:
                await self._finish(encryption_missing(), None)
                return
            await self.negotiation.connect_late_offer(leg, self.other(leg), event.answer)
        self.state = CallState.TALKING
        self.answered_at = self._clock.wall()
        self._stop_ring_timer()
        self._watcher.talking(self)
        self.negotiation.take_waiting()

    async def _replacement_confirmed(self, _leg: Leg, _event: LegConfirmed) -> None:
        self.negotiation.take_waiting()

    async def _pass_signal(self, leg: Leg, event: LegSignalled) -> None:
        if event.signal is not LegSignal.RINGING:
            self.other(leg).signal(event.signal)

    async def _pass_digit(self, leg: Leg, event: LegDigit) -> None:
        self.other(leg).send_digit(event.digit, event.milliseconds)

    async def _bar_media(self, _leg: None, event: MediaBarred) -> None:
        self.barred |= event.media
        if self.state is CallState.TALKING:
            await self.negotiation.bar()

    async def _refuse_early_offer(self, leg: Leg, _event: LegOffered) -> None:
        leg.refuse_offer(Ending(EndCause.FAILED, "The call is not answered yet.", Origin.LOCAL, status=491))

    # --- transfers ---

    async def _ask_for_transfer(self, leg: Leg, event: LegTransferRequested) -> None:
        self._watcher.transfer_requested(self, leg, event)

    async def _refuse_transfer(self, _leg: Leg, event: LegTransferRequested) -> None:
        event.progress(0, Ending(EndCause.FAILED, "Only a call that was answered can be transferred.", Origin.LOCAL))

    async def _replace_leg(self, _leg: None, event: LegReplaced) -> None:
        """Another leg takes the place of one of ours (RFC 5589, RFC 3891)."""
        if event.old not in self.legs:
            event.new.hang_up(Ending(EndCause.FAILED, "The call was over already.", Origin.LOCAL))
            return
        remaining = self.other(event.old)
        if event.old is self.caller_leg:
            gone, self.caller_leg, self.caller = self.caller, event.new, event.party
        else:
            gone, self.callee_leg, self.callee = self.callee, event.new, event.party
        self.path, self.path_kind = event.path, event.path.kind
        event.new.attach(self.leg_event)
        event.old.hang_up(Ending(EndCause.TRANSFERRED, "", Origin.LOCAL))
        await self.negotiation.replace(event.new, remaining, event.description, event.told)
        self.note(f"{event.old.key} is replaced by {event.new.key}, media {self.path_kind.value}")
        await self.ways.drop(event.old)
        self._watcher.replaced(self, gone, event.party)

    async def _let_go(self, _leg: None, event: LegTaken) -> None:
        """One of our legs belongs to another call now: end the other one, and leave that one alone."""
        if event.leg in self.legs:
            await self._finish(Ending(EndCause.TRANSFERRED, "", Origin.LOCAL), event.leg)

    # --- the end ---

    async def _one_end_ended(self, leg: Leg, event: LegEnded) -> None:
        await self._finish(event.ending, leg)

    async def _end_as_requested(self, _leg: None, event: EndRequested) -> None:
        await self._finish(event.ending, None)

    async def _finish(self, ending: Ending, ended: Leg | None) -> None:
        """End every leg but `ended`, which is over already; release the media; tell the watcher."""
        if self.state is CallState.ENDED:
            return
        before, self.state = self.state, CallState.ENDED
        self.ending = ending
        self.ended_at = self._clock.wall()
        self._stop_ring_timer()
        self._branches.stop(Ending(EndCause.CANCELLED, ending.text) if ended is self.caller_leg else ending)
        if ended is not self.caller_leg:
            if before is CallState.RINGING:
                self.caller_leg.refuse(ending)
            else:
                self.caller_leg.hang_up(ending)
        if self.callee_leg is not None and ended is not self.callee_leg:
            self.callee_leg.hang_up(ending)
        self.counted = await self.ways.close()
        self.note(f"ended: {ending.cause.value}{f' ({ending.text})' if ending.text else ''}", rule=ending.rule)
        self._watcher.ended(self)
        self._over.set()

    def _stop_ring_timer(self) -> None:
        if self._ring_timer is not None:
            self._ring_timer.cancel()
            self._ring_timer = None


# --- the table --------------------------------------------------------------------------------------------------

# Called with the call, the leg (None for what comes from above) and the event that the row is for.
Action: TypeAlias = Callable[..., Awaitable[None]]
Rows: TypeAlias = Mapping[CallState, Mapping[tuple[Role | None, type], Action]]


def _negotiate(action: Action) -> Action:
    return lambda call, leg, event: action(call.negotiation, leg, event)


_S = CallState

_ANSWERED: Mapping[tuple[Role | None, type], Action] = {
    **{
        (role, kind): action
        for role in (Role.CALLER, Role.CALLEE)
        for kind, action in (
            (LegAnswered, _negotiate(Negotiation.answered)),
            (LegOfferRefused, _negotiate(Negotiation.refused)),
            (LegCandidates, Call._pass_candidates),
            (LegSignalled, Call._pass_signal),
            (LegDigit, Call._pass_digit),
            (LegEnded, Call._one_end_ended),
        )
    },
    (Role.LATE, LegAccepted): Call._end_late_answer,
    (None, EndRequested): Call._end_as_requested,
    (None, MediaBarred): Call._bar_media,
    (None, LegReplaced): Call._replace_leg,
    (None, LegTaken): Call._let_go,
    # A leg that takes the place of another one is accepted in the middle of the call.
    (Role.CALLEE, LegConfirmed): Call._replacement_confirmed,
}

ROWS: Rows = {
    _S.RINGING: {
        (Role.RINGING, LegRinging): Call._tell_ringing,
        (Role.RINGING, LegProgressed): Call._pass_early_media,
        (Role.RINGING, LegAccepted): Call._take_answer,
        (Role.RINGING, LegCandidates): Call._hold_candidates,
        (Role.RINGING, LegOffered): Call._refuse_early_offer,
        (Role.RINGING, LegTransferRequested): Call._refuse_transfer,
        (Role.RINGING, LegEnded): Call._branch_ended,
        (Role.CALLER, LegCandidates): Call._candidates_of_caller,
        (Role.CALLER, LegOffered): Call._refuse_early_offer,
        (Role.CALLER, LegTransferRequested): Call._refuse_transfer,
        (Role.CALLER, LegEnded): Call._one_end_ended,
        (Role.LATE, LegAccepted): Call._end_late_answer,
        (None, RingingTooLong): Call._nobody_answered,
        (None, EndRequested): Call._end_as_requested,
        (None, MediaBarred): Call._bar_media,
    },
    _S.ANSWERED: {
        **_ANSWERED,
        (Role.CALLER, LegConfirmed): Call._confirmed,
        # The other end may not know yet that it is in a call: the offer waits for the caller's confirmation.
        (Role.CALLER, LegOffered): _negotiate(Negotiation.wait),
        (Role.CALLEE, LegOffered): _negotiate(Negotiation.wait),
        (Role.CALLER, LegTransferRequested): Call._refuse_transfer,
        (Role.CALLEE, LegTransferRequested): Call._refuse_transfer,
        # The caller never confirms what it was told: Timer H of its leg ends it long before; this is the net below.
        (None, RingingTooLong): Call._nobody_answered,
    },
    _S.TALKING: {
        **_ANSWERED,
        (Role.CALLER, LegOffered): _negotiate(Negotiation.offered),
        (Role.CALLEE, LegOffered): _negotiate(Negotiation.offered),
        (Role.CALLER, LegConfirmed): Call._replacement_confirmed,
        (Role.CALLER, LegTransferRequested): Call._ask_for_transfer,
        (Role.CALLEE, LegTransferRequested): Call._ask_for_transfer,
    },
    _S.ENDED: {
        (Role.LATE, LegAccepted): Call._end_late_answer,
    },
}

_ALREADY = "it has happened before, and means nothing a second time"
_NOT_YET = "a leg says this only in an answered call, or only the other kind of leg does"
_OVER = "the leg is told to end, or has ended; nothing depends on what it still says"

IGNORED: Mapping[CallState, str] = {
    _S.RINGING: _NOT_YET,
    _S.ANSWERED: _ALREADY,
    _S.TALKING: _ALREADY,
    _S.ENDED: _OVER,
}
