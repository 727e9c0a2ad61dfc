"""One call: the caller's leg, the legs that ring, and the one that answered; its states are a table.

Everything that happens to a call waits in one queue and is worked off in order, so that media operations of a call
never overtake each other and a CANCEL never meets a half-made answer. What has no row is a decision, too: see
`IGNORED`. Legs that no longer count (they lost the race, or were cancelled) keep being listened to until they end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TypeAlias

import structlog

from isthmus.errors import IsthmusError
from isthmus.model import Address, EndCause, Ending, MediaForm, Origin
from isthmus.ports import Clock, MediaQuality, TimerHandle
from isthmus.sdp.offer_answer import form_of, is_same_media, template_offer
from isthmus.sdp.session_description import SessionDescription
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
    MediaPath,
    MediaPaths,
    NoPathError,
    PathKind,
    media_in_use,
    without,
)
from isthmus.services.calls.ringing import Ring
from isthmus.trace import Trace

_log = structlog.get_logger(__name__)

# More than a person does in a second; a peer that floods a call with events ends it.
MAXIMUM_QUEUED_EVENTS = 1_000
# Candidates that a device sent before it answered; a client with many addresses sends some thirty.
MAXIMUM_HELD_CANDIDATES = 64


class CallState(StrEnum):
    """Where a call is."""

    RINGING = "ringing"  # devices are being rung; nobody has answered
    ANSWERED = "answered"  # somebody has, and the caller is being told
    TALKING = "talking"
    ENDED = "ended"


class Role(Enum):
    """What a leg is to the call at the moment an event of it is worked off."""

    CALLER = "caller"
    RINGING = "a leg that rings"
    CALLEE = "the leg that answered"
    LATE = "a leg that no longer counts"


# --- what does not come from a leg ---


@dataclass(frozen=True, slots=True)
class RingingTooLong:
    """Nobody answered in time."""


@dataclass(frozen=True, slots=True)
class EndRequested:
    """Somebody above wants the call to end: policy, the administrator, shutdown, a dead relay."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class MediaBarred:
    """Policy no longer allows these media in the call."""

    media: frozenset[str]


@dataclass(frozen=True, slots=True)
class LegReplaced:
    """A transfer succeeded: another leg takes the place of one of ours, over a path of its own.

    Attributes:
        old, new: the legs; `new` is established, or (with `is_new_waiting`) waits for its answer.
        path: between `new` and the leg that remains.
        description: what `new` said about its media.
        party: the person at the new end.
        is_new_waiting: the new leg asked to take the place (RFC 3891) and waits to be accepted.
    """

    old: Leg
    new: Leg
    path: MediaPath
    description: SessionDescription
    party: Address
    is_new_waiting: bool = False


@dataclass(frozen=True, slots=True)
class LegTaken:
    """A transfer took one of our legs away: the other one is no longer needed."""

    leg: Leg


Happening: TypeAlias = LegEvent | RingingTooLong | EndRequested | MediaBarred | LegReplaced | LegTaken


@dataclass(slots=True)
class Branch:
    """A leg that rings, with the way its media would take."""

    ring: Ring
    leg: Leg
    path: MediaPath
    forms_left: tuple[MediaForm, ...]
    held: list[SessionDescription] = field(default_factory=list)  # candidates that came before the answer


@dataclass(frozen=True, slots=True)
class CallTerms:
    """What was decided about a call before it began.

    Attributes:
        barred: media that may not be used ("video").
        path: how media are to go.
        ring_seconds: how long it may ring.
        needs_encryption: media in clear are not allowed on either side.
    """

    barred: frozenset[str] = frozenset()
    path: PathKind = PathKind.AUTO
    ring_seconds: float = 60.0
    needs_encryption: bool = False


class CallWatcher:
    """Is told what becomes of a call; the service overrides what it needs."""

    def ringing(self, call: Call) -> None:
        """A device of the callee alerts somebody."""

    def talking(self, call: Call) -> None:
        """Somebody answered and the caller knows."""

    def ended(self, call: Call) -> None:
        """It is over; `call.ending` says why."""

    def replaced(self, call: Call) -> None:
        """One of its people is another one now."""

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
        media: kinds of media in use.
        path_kind: how the media go, once that is known.
        device: which device answered.
        counted: what the relay counted.
    """

    def __init__(
        self,
        call_id: str,
        incoming: IncomingCall,
        terms: CallTerms,
        *,
        paths: MediaPaths,
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
        self.path_kind = PathKind.AUTO
        self.device = ""
        self.counted: tuple[MediaQuality, ...] = ()
        self.has_rung = False

        self.caller_leg: Leg = incoming.leg
        self.callee_leg: Leg | None = None
        self.path: MediaPath | None = None
        self.barred: frozenset[str] = terms.barred
        self._offer = incoming.offer
        self._is_late_offer = incoming.offer is None
        self._branches: dict[str, Branch] = {}
        self._refusals: list[Ending] = []
        self._negotiating: Leg | None = None  # whose offer the other end is looking at
        self._completing: Leg | None = None  # who is to answer what only the relay needs to know
        self._accepting: Leg | None = None  # who waits to be accepted in place of another
        self._waiting: deque[tuple[Leg, LegOffered]] = deque()
        self._last_said: dict[str, SessionDescription] = {}  # by leg: its own last description
        self._last_told: dict[str, SessionDescription] = {}  # by leg: what we last sent to it
        self._paths = paths
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

    def other(self, leg: Leg) -> Leg:
        """The leg at the other end of an answered call."""
        assert self.callee_leg is not None
        return self.callee_leg if leg is self.caller_leg else self.caller_leg

    def last_said(self, leg: Leg) -> SessionDescription | None:
        """What this end last said about its media."""
        return self._last_said.get(leg.key)

    # --- from outside ---

    def begin(self, rings: Sequence[Ring]) -> None:
        """Ring these devices. Without any the call is refused."""
        if self._offer is not None:
            self._last_said[self.caller_leg.key] = self._offer
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

    def happen(self, leg: Leg | None, event: Happening) -> None:
        """Queue what happened."""
        if len(self._queue) >= MAXIMUM_QUEUED_EVENTS:
            return
        self._queue.append((leg, event))
        if self._work is None:
            self._start(None)

    # --- one thing after the other ---

    def _start(self, first: Awaitable[None] | None) -> None:
        self._work = asyncio.ensure_future(self._work_off(first))

    async def _work_off(self, first: Awaitable[None] | None) -> None:
        try:
            if first is not None:
                await self._guarded(None, first)
            while self._queue:
                leg, event = self._queue.popleft()
                action = self._action(leg, event)
                if action is not None:
                    await self._guarded(leg, action)
        finally:
            self._work = None
        if self._queue:
            self._start(None)

    async def _guarded(self, leg: Leg | None, action: Awaitable[None]) -> None:
        try:
            await action
        except (IsthmusError, NoPathError) as error:
            await self._finish(Ending(EndCause.OVERLOADED, str(error), Origin.LOCAL), leg)
        except Exception:
            _log.exception("a call failed", call=self.id)
            await self._finish(Ending(EndCause.FAILED, "", Origin.LOCAL), leg)

    def _action(self, leg: Leg | None, event: Happening) -> Awaitable[None] | None:
        row = ROWS[self.state].get((self._role(leg), type(event)))
        return None if row is None else row(self, leg, event)

    def _role(self, leg: Leg | None) -> Role | None:
        if leg is None:
            return None
        if leg is self.caller_leg:
            return Role.CALLER
        if leg is self.callee_leg:
            return Role.CALLEE
        return Role.RINGING if leg.key in self._branches else Role.LATE

    # --- ringing ---

    async def _ring_all(self, rings: Sequence[Ring]) -> None:
        if not rings:
            await self._finish(Ending(EndCause.UNREACHABLE, "", Origin.NO_DEVICE), None)
            return
        if self._offer is None:
            # The callee must be offered something before anybody has answered (RFC 3261 section 13.2.1).
            has_video = "video" not in self.barred
            self._offer = template_offer(MediaForm.RTP, audio=True, video=has_video)
        for ring in rings:
            await self._ring(ring, ring.forms)
        await self._refuse_when_nobody_is_left()

    async def _ring(self, ring: Ring, forms: tuple[MediaForm, ...]) -> None:
        """Invite a device with the first form that there is a way for."""
        assert self._offer is not None
        while forms:
            form, forms = forms[0], forms[1:]
            leg = ring.make(form)
            leg.attach(self.leg_event)
            path: MediaPath | None = None
            try:
                path = self._paths.choose(self.caller_leg.form, form, self._wanted_path(), self._relay_lost)
                offer = await path.offer(without(self._offer, self.barred), by=self.caller_leg, to=leg)
            except (IsthmusError, NoPathError) as error:
                if path is not None:
                    await path.close()
                origin = Origin.POLICY if self.terms.path is PathKind.DIRECT else Origin.LOCAL
                self._refusals.append(Ending(EndCause.OVERLOADED, str(error), origin))
                continue
            self._branches[leg.key] = Branch(ring, leg, path, forms)
            self._last_told[leg.key] = offer
            leg.invite(offer)
            return

    def _wanted_path(self) -> PathKind:
        # Nobody can answer a template directly: the relay stands in for the caller until it says where it is.
        return PathKind.RELAYED if self._is_late_offer else self.terms.path

    def _relay_lost(self) -> None:
        self.end(Ending(EndCause.CONNECTIVITY, "No media are coming any more.", Origin.LOCAL))

    async def _tell_ringing(self, _leg: Leg | None, _event: object) -> None:
        if not self.has_rung:
            self.has_rung = True
            self._watcher.ringing(self)
        self.caller_leg.ring()

    async def _pass_early_media(self, leg: Leg, event: LegProgressed) -> None:
        branch = self._branches[leg.key]
        if len(self._branches) > 1 or self._is_late_offer:
            await self._tell_ringing(leg, event)  # whose of them would it be?
            return
        leg.form = form_of(event.early)
        self.caller_leg.progress(await branch.path.answer(event.early, by=leg, to=self.caller_leg))

    async def _take_answer(self, leg: Leg, event: LegAccepted) -> None:
        """The first device that answers gets the call; the others stop ringing (edge case 33)."""
        branch = self._branches.pop(leg.key)
        self.state = CallState.ANSWERED
        self.callee_leg, self.path, self.path_kind = leg, branch.path, branch.path.kind
        self.device = event.device or leg.device
        self._stop_ringing(Ending(EndCause.ANSWERED_ELSEWHERE))
        leg.form = form_of(event.answer)
        self._last_said[leg.key] = event.answer
        answer = await branch.path.answer(event.answer, by=leg, to=self.caller_leg)
        self.media = media_in_use(answer)
        if not self.media:
            ending = Ending(EndCause.MEDIA_MISMATCH, "", Origin.PEER)
            await self._finish(ending, None)
            return
        self._last_told[self.caller_leg.key] = answer
        self._note(f"answered{f' on {self.device}' if self.device else ''}, media {self.path_kind.value}")
        self.caller_leg.accept(answer)
        for fragment in branch.held:
            self.caller_leg.add_candidates(fragment)

    async def _branch_ended(self, leg: Leg, event: LegEnded) -> None:
        branch = self._branches.pop(leg.key)
        await branch.path.close()
        ending = event.ending
        if ending.cause in (EndCause.MEDIA_MISMATCH, EndCause.SECURITY) and branch.forms_left:
            self._note(f"{leg.key} does not take {leg.form.value} media, trying {branch.forms_left[0].value}")
            await self._ring(branch.ring, branch.forms_left)
        else:
            self._refusals.append(ending)
            self._note(f"{leg.key} will not answer: {ending.cause.value} {ending.text}".rstrip())
        if ending.cause is EndCause.DECLINED and ending.status >= 600:
            # RFC 3261 section 16.7 step 5: a 6xx speaks for the person, not for one device.
            self._stop_ringing(Ending(EndCause.ANSWERED_ELSEWHERE, "The call was declined on another device."))
        await self._refuse_when_nobody_is_left()

    async def _refuse_when_nobody_is_left(self) -> None:
        if self._branches or self.state is not CallState.RINGING:
            return
        await self._finish(best_refusal(self._refusals), None)

    def _stop_ringing(self, ending: Ending) -> None:
        for branch in tuple(self._branches.values()):
            branch.leg.cancel(ending)
            self._forget(branch)

    def _forget(self, branch: Branch) -> None:
        self._branches.pop(branch.leg.key, None)
        asyncio.ensure_future(branch.path.close()).add_done_callback(_discard)

    async def _nobody_answered(self, _leg: None, _event: object) -> None:
        cause = EndCause.NO_ANSWER if self.has_rung else EndCause.UNREACHABLE
        await self._finish(Ending(cause, "", Origin.TIMEOUT), None)

    async def _caller_gave_up(self, leg: Leg, event: LegEnded) -> None:
        await self._finish(event.ending, leg)

    async def _end_late_answer(self, leg: Leg, _event: object) -> None:
        leg.hang_up(Ending(EndCause.ANSWERED_ELSEWHERE))  # its answer crossed our cancel

    # --- candidates ---

    async def _candidates_of_caller(self, leg: Leg, event: LegCandidates) -> None:
        for branch in tuple(self._branches.values()):
            passed_on = await branch.path.add_candidates(event.fragment, by=self.caller_leg)
            if passed_on is not None:
                branch.leg.add_candidates(passed_on)

    async def _hold_candidates(self, leg: Leg, event: LegCandidates) -> None:
        branch = self._branches[leg.key]
        passed_on = await branch.path.add_candidates(event.fragment, by=leg)
        if passed_on is not None and len(branch.held) < MAXIMUM_HELD_CANDIDATES:
            branch.held.append(passed_on)

    async def _pass_candidates(self, leg: Leg, event: LegCandidates) -> None:
        assert self.path is not None
        passed_on = await self.path.add_candidates(event.fragment, by=leg)
        if passed_on is not None:
            self.other(leg).add_candidates(passed_on)

    # --- in the call ---

    async def _confirmed(self, _leg: Leg | None, event: LegConfirmed) -> None:
        assert self.path is not None
        assert self.callee_leg is not None
        if event.answer is not None:
            await self._connect_late_offer(event.answer)
        self.state = CallState.TALKING
        self.answered_at = self._clock.wall()
        self._stop_ring_timer()
        self._watcher.talking(self)
        self._take_waiting()

    async def _connect_late_offer(self, answer: SessionDescription) -> None:
        """Only now the caller has said where its media go: the relay hears both ends again, they hear nothing."""
        assert self.path is not None
        assert self.callee_leg is not None
        caller, callee = self.caller_leg, self.callee_leg
        caller.form = form_of(answer)
        self._last_said[caller.key] = answer
        await self.path.offer(without(answer, self.barred), by=caller, to=callee)
        await self.path.answer(self._last_said[callee.key], by=callee, to=caller)

    async def _pass_offer(self, leg: Leg, event: LegOffered) -> None:
        """One end wants other media: the other end is asked (hold, video, other addresses)."""
        assert self.path is not None
        if self._negotiating is not None:
            if self._negotiating is leg:
                leg.refuse_offer(Ending(EndCause.FAILED, "An earlier offer is not answered yet.", status=500))
            else:
                # Both ends at once: they try again at different times (RFC 3261 section 14.1).
                leg.refuse_offer(Ending(EndCause.FAILED, "The other side has just made an offer.", status=491))
            return
        if event.offer is None:
            leg.answer(self._last_told[leg.key])  # what it knows already, as an offer; the answer follows
            return
        other = self.other(leg)
        leg.form = form_of(event.offer)
        self._negotiating = leg
        self._last_said[leg.key] = event.offer
        offer = await self.path.offer(without(event.offer, self.barred), by=leg, to=other)
        self._last_told[other.key] = offer
        other.offer(offer)

    async def _wait_with_offer(self, leg: Leg, event: LegOffered) -> None:
        self._waiting.append((leg, event))

    async def _pass_answer(self, leg: Leg, event: LegAnswered) -> None:
        assert self.path is not None
        self._last_said[leg.key] = event.answer
        asked = self._negotiating
        if asked is None or asked is leg:
            await self._pass_unasked_answer(leg, event.answer)
            return
        self._negotiating = None
        leg.form = form_of(event.answer)
        answer = await self.path.answer(event.answer, by=leg, to=asked)
        self._last_told[asked.key] = answer
        self.media = media_in_use(answer)
        self._note(f"media now {', '.join(self.media) or 'none'}")
        asked.answer(answer)
        self._take_waiting()

    async def _pass_unasked_answer(self, leg: Leg, answer: SessionDescription) -> None:
        """An end answered what we offered ourselves (an offerless re-INVITE, barred video, another end).

        The other end hears of it only when it would notice: a relay hides new addresses from it.
        """
        assert self.path is not None
        other = self.other(leg)
        if self._completing is leg:
            self._completing = None
            await self.path.answer(answer, by=leg, to=other)
            self._take_waiting()
            return
        leg.form = form_of(answer)
        if self._accepting is not None:
            accepted, self._accepting = self._accepting, None
            self._last_told[accepted.key] = await self.path.answer(answer, by=leg, to=accepted)
            accepted.accept(self._last_told[accepted.key])
            return
        offer = await self.path.offer(without(answer, self.barred), by=leg, to=other)
        told = self._last_told.get(other.key)
        if told is not None and is_same_media(offer, told):
            await self.path.answer(self._last_said[other.key], by=other, to=leg)
            self._take_waiting()
            return
        self._completing = other
        self._last_told[other.key] = offer
        other.offer(offer)

    async def _pass_refusal(self, leg: Leg, event: LegOfferRefused) -> None:
        asked, self._negotiating = self._negotiating, None
        self._completing = None
        if asked is not None and asked is not leg:
            asked.refuse_offer(event.ending)
        self._note(f"{leg.key} keeps its media: {event.ending.text or event.ending.cause.value}")
        self._take_waiting()

    def _take_waiting(self) -> None:
        if self._waiting:
            self._queue.appendleft(self._waiting.popleft())

    async def _pass_signal(self, leg: Leg, event: LegSignalled) -> None:
        if event.signal is not LegSignal.RINGING:
            self.other(leg).signal(event.signal)

    async def _pass_digit(self, leg: Leg, event: LegDigit) -> None:
        self.other(leg).send_digit(event.digit, event.milliseconds)

    async def _bar_media(self, _leg: None, event: MediaBarred) -> None:
        self.barred |= event.media
        if self.state is not CallState.TALKING:
            return
        for end in self.legs:
            told = self._last_told.get(end.key)
            if told is not None:
                changed = without(told, self.barred)
                if changed is not told:
                    self._last_told[end.key] = changed
                    end.offer(changed)

    async def _ask_for_transfer(self, leg: Leg, event: LegTransferRequested) -> None:
        self._watcher.transfer_requested(self, leg, event)

    async def _replace_leg(self, _leg: None, event: LegReplaced) -> None:
        """Connect the end that remains to another one, which takes the place of the old (RFC 5589, RFC 3891)."""
        if event.old not in self.legs or self.callee_leg is None:
            event.new.hang_up(Ending(EndCause.FAILED, "The call was over already.", Origin.LOCAL))
            await event.path.close()
            return
        remaining, old_path = self.other(event.old), self.path
        if event.old is self.caller_leg:
            self.caller_leg, self.caller = event.new, event.party
        else:
            self.callee_leg, self.callee = event.new, event.party
        self.path, self.path_kind = event.path, event.path.kind
        self._negotiating = self._completing = None
        self._last_said[event.new.key] = event.description
        event.new.attach(self.leg_event)
        event.old.hang_up(Ending(EndCause.TRANSFERRED, "", Origin.LOCAL))
        if event.is_new_waiting:
            self._accepting = event.new
            offer = await event.path.offer(without(event.description, self.barred), by=event.new, to=remaining)
        else:
            offer = await event.path.answer(event.description, by=event.new, to=remaining)
        self._last_told[remaining.key] = offer
        remaining.offer(offer)
        self._note(f"{event.old.key} is replaced by {event.new.key}, media {self.path_kind.value}")
        if old_path is not None:
            await old_path.close()
        self._watcher.replaced(self)

    async def _replacement_confirmed(self, _leg: Leg, _event: LegConfirmed) -> None:
        self._take_waiting()

    async def _let_go(self, _leg: None, event: LegTaken) -> None:
        """One of our legs belongs to another call now: end the other one, and leave that one alone."""
        if event.leg in self.legs:
            await self._finish(Ending(EndCause.TRANSFERRED, "", Origin.LOCAL), event.leg)

    async def _refuse_transfer(self, _leg: Leg | None, event: LegTransferRequested) -> None:
        event.progress(0, Ending(EndCause.FAILED, "Only a call that was answered can be transferred.", Origin.LOCAL))

    async def _refuse_early_offer(self, leg: Leg, _event: object) -> None:
        leg.refuse_offer(Ending(EndCause.FAILED, "The call is not answered yet.", Origin.LOCAL, status=491))

    # --- the end ---

    async def _one_end_ended(self, leg: Leg, event: LegEnded) -> None:
        await self._finish(event.ending, leg)

    async def _end_as_requested(self, _leg: None, event: EndRequested) -> None:
        await self._finish(event.ending, None)

    async def _finish(self, ending: Ending, ended: Leg | None) -> None:
        """End every leg but `ended`, which is over already; release the media; tell the watcher."""
        if self.state is CallState.ENDED:
            return
        was_answered, self.state = self.state, CallState.ENDED
        self.ending = ending
        self.ended_at = self._clock.wall()
        self._stop_ring_timer()
        self._stop_ringing(Ending(EndCause.CANCELLED, ending.text) if ended is self.caller_leg else ending)
        if ended is not self.caller_leg:
            if was_answered is CallState.RINGING:
                self.caller_leg.refuse(ending)
            else:
                self.caller_leg.hang_up(ending)
        if self.callee_leg is not None and ended is not self.callee_leg:
            self.callee_leg.hang_up(ending)
        if self.path is not None:
            self.counted = await self.path.close()
        self._note(f"ended: {ending.cause.value}{f' ({ending.text})' if ending.text else ''}", rule=ending.rule)
        self._watcher.ended(self)
        self._over.set()

    def _stop_ring_timer(self) -> None:
        if self._ring_timer is not None:
            self._ring_timer.cancel()
            self._ring_timer = None

    def _note(self, text: str, *, rule: str = "") -> None:
        self._trace.decision(f"{self}: {text}", people=self.people, rule=rule, call_id=self.id)


def best_refusal(endings: Sequence[Ending]) -> Ending:
    """Return the refusal that tells the caller most: what a person did before what a machine could not."""
    if not endings:
        return Ending(EndCause.UNREACHABLE, "", Origin.NO_DEVICE)
    return min(endings, key=lambda ending: _RANK.get(ending.cause, len(_RANK)))


_RANK = {
    cause: rank
    for rank, cause in enumerate(
        (
            EndCause.DECLINED,
            EndCause.BUSY,
            EndCause.FORBIDDEN,
            EndCause.SECURITY,
            EndCause.MEDIA_MISMATCH,
            EndCause.NO_ANSWER,
            EndCause.GONE,
            EndCause.NOT_FOUND,
            EndCause.OVERLOADED,
            EndCause.UNREACHABLE,
        )
    )
}


def _discard(done: asyncio.Future[tuple[MediaQuality, ...]]) -> None:
    if not done.cancelled() and done.exception() is not None:
        _log.error("a media path did not close", exc_info=done.exception())


# --- the table --------------------------------------------------------------------------------------------------

# Called with the call, the leg (None for what comes from above) and the event that the row is for.
Action: TypeAlias = Callable[..., Awaitable[None]]
Rows: TypeAlias = Mapping[CallState, Mapping[tuple[Role | None, type], Action]]

_S = CallState

_IN_CALL: Mapping[tuple[Role | None, type], Action] = {
    **{
        (role, kind): action
        for role in (Role.CALLER, Role.CALLEE)
        for kind, action in (
            (LegAnswered, Call._pass_answer),
            (LegOfferRefused, Call._pass_refusal),
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
        (Role.CALLER, LegEnded): Call._caller_gave_up,
        (Role.LATE, LegAccepted): Call._end_late_answer,
        (None, RingingTooLong): Call._nobody_answered,
        (None, EndRequested): Call._end_as_requested,
        (None, MediaBarred): Call._bar_media,
    },
    _S.ANSWERED: {
        **_IN_CALL,
        (Role.CALLER, LegConfirmed): Call._confirmed,
        # The other end may not know yet that it is in a call: the offer waits for the caller's confirmation.
        (Role.CALLER, LegOffered): Call._wait_with_offer,
        (Role.CALLEE, LegOffered): Call._wait_with_offer,
        (Role.CALLER, LegTransferRequested): Call._refuse_transfer,
        (Role.CALLEE, LegTransferRequested): Call._refuse_transfer,
        # The caller never confirms what it was told: Timer H of its leg ends it long before; this is the net below.
        (None, RingingTooLong): Call._nobody_answered,
    },
    _S.TALKING: {
        **_IN_CALL,
        (Role.CALLER, LegOffered): Call._pass_offer,
        (Role.CALLEE, LegOffered): Call._pass_offer,
        (Role.CALLER, LegConfirmed): Call._replacement_confirmed,
        (Role.CALLER, LegTransferRequested): Call._ask_for_transfer,
        (Role.CALLEE, LegTransferRequested): Call._ask_for_transfer,
    },
    _S.ENDED: {
        (Role.LATE, LegAccepted): Call._end_late_answer,
    },
}

_ALREADY = "it has happened before, and means nothing a second time"
_NOT_YET = "a leg says this only in an answered call"
_OVER = "the leg is told to end, or has ended; nothing depends on what it still says"
_OURS = "only the other kind of leg says this"

IGNORED: Mapping[CallState, str] = {
    _S.RINGING: _NOT_YET,
    _S.ANSWERED: _ALREADY,
    _S.TALKING: _ALREADY,
    _S.ENDED: _OVER,
}
