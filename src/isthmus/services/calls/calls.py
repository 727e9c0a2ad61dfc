"""Every call there is: takes those that arrive, finds whom to ring, and tells the others what becomes of them."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from isthmus.config import CallSettings
from isthmus.metrics import Metrics
from isthmus.model import (
    Address,
    Availability,
    EndCause,
    Ending,
    MediaForm,
    Origin,
    Presence,
    PresenceSource,
    Realm,
)
from isthmus.ports import Bus, Clock, MediaRelay
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.admission import CallAdmission, Policing, Relations
from isthmus.services.calls.call import Call, CallWatcher
from isthmus.services.calls.call_events import CallTerms
from isthmus.services.calls.leg import IncomingCall, Leg, LegTransferRequested
from isthmus.services.calls.media_path import encryption_missing
from isthmus.services.calls.records import CallRecords
from isthmus.services.calls.ringing import Invitation, Ring, Ringer
from isthmus.services.calls.transfer import DialogName, Transfers
from isthmus.services.directory import Directory
from isthmus.services.events import CallEnded, PolicyChanged, UserRemoved
from isthmus.services.loop_protection import LoopProtection
from isthmus.trace import Trace

_log = structlog.get_logger(__name__)


class CallPresence(Protocol):
    """The part of `services.presence_agent` that is told of calls."""

    def call_state_changed(self, presentity: Address, presence: Presence | None) -> None:
        """The person is in a call, or not any more."""


class Calls(CallWatcher):
    """All calls of this process.

    Attributes:
        live: calls that are not over, by id.
    """

    def __init__(
        self,
        directory: Directory,
        policing: Policing,
        relations: Relations,
        loops: LoopProtection,
        bus: Bus,
        clock: Clock,
        trace: Trace,
        settings: CallSettings,
        *,
        relay: MediaRelay | None,
        presence: CallPresence,
        records: CallRecords,
        find_leg: Callable[[DialogName], Leg | None],
        metrics: Metrics | None = None,
    ) -> None:
        self._directory = directory
        self._bus = bus
        self._clock = clock
        self._trace = trace
        self._settings = settings
        self._relay = relay
        self._presence = presence
        self._records = records
        self._metrics = metrics or Metrics()
        self._in_calls: Counter[Address] = Counter()
        self._talking: Counter[Address] = Counter()
        self._admission = CallAdmission(directory, policing, relations, loops, settings, self._in_calls)
        self._ringers: dict[Realm, Ringer] = {}
        self._echo: Ringer | None = None
        self._is_closing = False
        self.live: dict[str, Call] = {}
        self._transfers = Transfers(
            clock,
            trace,
            self.live,
            admit=self._admit_transfer,
            rings_of=self.rings_of,
            find_leg=find_leg,
            shown_as=self._shown_as,
        )
        bus.register(PolicyChanged, self._policy_changed)
        bus.register(UserRemoved, self._user_removed)

    # --- what is plugged in ---

    def ring_with(self, ringer: Ringer, *realms: Realm) -> None:
        """Let `ringer` find the devices of people of these realms."""
        for realm in realms:
            self._ringers[realm] = ringer

    def echo_with(self, ringer: Ringer) -> None:
        """Let `ringer` answer calls to the echo addresses."""
        self._echo = ringer

    # --- calls that arrive ---

    def receive(self, incoming: IncomingCall) -> None:
        """Take a call whose caller is proven (`CallSink`)."""
        call_id = secrets.token_hex(8)
        if incoming.replaces is not None:
            refused = self._transfers.replace(incoming)
            if refused is not None:
                self._refuse(call_id, incoming, refused)
            return
        terms = self._terms(incoming)
        if isinstance(terms, Ending):
            self._refuse(call_id, incoming, terms)
            return
        self._start(call_id, incoming, terms)

    def _start(self, call_id: str, incoming: IncomingCall, terms: CallTerms) -> None:
        call = Call(call_id, incoming, terms, relay=self._relay, watcher=self, clock=self._clock, trace=self._trace)
        self.live[call_id] = call
        for person in {call.caller, call.callee}:
            self._in_calls[person] += 1
        call.note("begins", rule="call.begun")
        self._metrics.calls_begun.add(self._direction(call))
        incoming.leg.attach(call.leg_event)
        call.begin(self.rings_of(Invitation.of(incoming), terms))

    def _terms(self, incoming: IncomingCall) -> CallTerms | Ending:
        if self._is_closing or not self._settings.enabled:
            text = "No more calls are taken." if self._is_closing else "Calls are switched off here."
            return Ending(EndCause.OVERLOADED, text, Origin.LOCAL, "calls.off")
        terms = self._admission.decide(incoming, len(self.live))
        is_clear = incoming.offer is not None and incoming.leg.form is MediaForm.RTP
        if isinstance(terms, CallTerms) and terms.needs_encryption and is_clear:
            return encryption_missing()
        return terms

    async def rings_of(self, invitation: Invitation, terms: CallTerms) -> list[Ring] | Ending:
        """Return the devices of the callee, or why nothing can be rung."""
        callee = invitation.callee
        is_echo = self._directory.is_echo(callee)
        ringer = self._echo if is_echo else self._ringers.get(self._directory.realm_of(callee.domain))
        rings = [] if ringer is None else await ringer.rings(invitation)
        if terms.needs_encryption and not is_echo:
            rings = [Ring(ring.make, tuple(form for form in ring.forms if form is not MediaForm.RTP)) for ring in rings]
            if rings and not any(ring.forms for ring in rings):
                text = "Policy requires encrypted media, and no device of the person called has them."
                return Ending(EndCause.SECURITY, text, Origin.POLICY, "encryption.required")
        if not rings:
            return Ending(EndCause.UNREACHABLE, "", Origin.NO_DEVICE, "no-device")
        return rings[: min(self._settings.maximum_devices, invitation.breadth)]

    def _refuse(self, call_id: str, incoming: IncomingCall, ending: Ending) -> None:
        self._trace.decision(
            f"call {call_id} from {incoming.caller} to {incoming.callee} refused: {ending.cause.value} {ending.text}",
            people=(str(incoming.caller), str(incoming.callee)),
            rule=ending.rule,
            call_id=call_id,
        )
        incoming.leg.attach(_ignore)
        incoming.leg.refuse(ending)
        self._metrics.calls_ended.add(ending.cause.value)
        self._records.refused(call_id, incoming, ending)

    # --- what becomes of them (CallWatcher) ---

    def talking(self, call: Call) -> None:
        """Two people talk: their presence says so."""
        self._metrics.call_setup.observe(self._clock.wall() - call.started_at, self._direction(call))
        for person in {call.caller, call.callee}:
            self._talking[person] += 1
            if self._talking[person] == 1:
                self._show(
                    person, Presence(Availability.IN_A_CALL, since=self._clock.wall(), source=PresenceSource.CALL)
                )
        self._records.talking(call)

    def ended(self, call: Call) -> None:
        """Keep the record; tell the callee of a call that was missed."""
        self.live.pop(call.id, None)
        for person in {call.caller, call.callee}:
            self._leave(person, was_talking=call.answered_at is not None)
        self._metrics.calls_ended.add(call.ending.cause.value)
        self._records.ended(call)
        if call.answered_at is None:
            self._tell_missed(call.caller, call.callee, call.ending)

    def replaced(self, call: Call, old: Address, new: Address) -> None:
        """A transfer put somebody else in the place of one of the two."""
        self._leave(old, was_talking=call.answered_at is not None)
        self._in_calls[new] += 1
        self._begin_to_talk(new)
        self._records.talking(call)

    def transfer_requested(self, call: Call, leg: Leg, event: LegTransferRequested) -> None:
        """One end wants the other one connected to somebody else."""
        self._transfers.requested(call, leg, event)

    def _begin_to_talk(self, person: Address) -> None:
        self._talking[person] += 1
        if self._talking[person] == 1:
            since = self._clock.wall()
            self._show(person, Presence(Availability.IN_A_CALL, since=since, source=PresenceSource.CALL))

    def _leave(self, person: Address, *, was_talking: bool) -> None:
        self._in_calls[person] -= 1
        if self._in_calls[person] <= 0:
            del self._in_calls[person]
        if was_talking:
            self._talking[person] -= 1
            if self._talking[person] <= 0:
                del self._talking[person]
                self._show(person, None)

    def _admit_transfer(self, caller: Address, callee: Address, offer: SessionDescription) -> CallTerms | Ending:
        return self._admission.decide_pair(caller, callee, offer)

    def _shown_as(self, remaining: Address, transferor: Address, target: Address) -> Address:
        """A consumer is shown to consumers as whoever transfers: we can speak to them only as people of ours."""
        is_foreign_pair = not (
            self._directory.is_business(remaining.domain) or self._directory.is_business(target.domain)
        )
        return transferor if is_foreign_pair else remaining

    def _tell_missed(self, caller: Address, callee: Address, ending: Ending) -> None:
        if ending.cause in _MISSED and not self._directory.is_automaton(callee):
            self._bus.send(callee, CallEnded(caller, callee, self._clock.wall(), ending))

    def _show(self, person: Address, presence: Presence | None) -> None:
        if self._directory.is_known_user(person):
            self._presence.call_state_changed(person, presence)

    def _direction(self, call: Call) -> str:
        if not self._directory.is_business(call.caller.domain):
            return "to-business"
        return "internal" if self._directory.is_business(call.callee.domain) else "to-consumer"

    # --- what changes around them ---

    def _policy_changed(self, _: Address, event: PolicyChanged) -> None:
        """Verdicts may differ: calls that are no longer allowed end, video that is no longer allowed goes."""
        for call in tuple(self.live.values()):
            if event.address is not None and event.address not in (call.caller, call.callee):
                continue
            audio = self._admission.may_use(call.caller, call.callee, "audio")
            video = self._admission.may_use(call.caller, call.callee, "video")
            used = call.media or ("audio",)
            if not (audio if "audio" in used else video):
                refused = audio if not audio else video
                call.end(Ending(EndCause.FORBIDDEN, refused.text, Origin.POLICY, refused.rule))
            elif not video and "video" not in call.barred:
                call.bar(frozenset({"video"}))

    def _user_removed(self, address: Address, _: UserRemoved) -> None:
        for call in self.calls_of(address):
            call.end(Ending(EndCause.FORBIDDEN, "The account was closed.", Origin.POLICY, "user.removed"))

    # --- for the administrator ---

    def calls_of(self, person: Address) -> list[Call]:
        """The live calls of one person."""
        return [call for call in tuple(self.live.values()) if person in (call.caller, call.callee)]

    def number_of_calls(self) -> float:
        """How many calls there are now."""
        return float(len(self.live))

    async def stop(self) -> None:
        """End every call, and return when both sides were told and the relay is free."""
        self._is_closing = True
        calls = tuple(self.live.values())
        for call in calls:
            call.end(Ending(EndCause.CONNECTIVITY, "The service is being restarted.", Origin.LOCAL))
        await _all_over(calls)


async def _all_over(calls: Iterable[Call]) -> None:
    for call in calls:
        await call.over()


def _ignore(_leg: Leg, _event: object) -> None:
    """A refused leg has nothing more to say."""


# What a person missed: nobody took it, and nobody said no.
_MISSED = frozenset({EndCause.CANCELLED, EndCause.NO_ANSWER, EndCause.UNREACHABLE, EndCause.BUSY, EndCause.HUNG_UP})
