"""Contacts: who may see whom. Permanent, persisted, and independent of every dialog and stream.

An XMPP *authorisation* is permanent, a SIP *subscription dialog* is soft (RFC 8048): this service owns the
authorisations of both realms, `services.presence_agent` owns the dialogs. Both meet in the two questions
"is `watcher` authorised for `presentity`?" and "what happens when somebody asks, grants, refuses or gives up?".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Protocol

from isthmus.errors import PeerError, StoreError
from isthmus.model import (
    Address,
    Authorisation,
    AuthorisationState,
    Contact,
    Modality,
    Realm,
    Verdict,
)
from isthmus.ports import Bus, Clock, Store, TimerHandle
from isthmus.services.authorisations import Authorisations
from isthmus.services.events import (
    AuthorisationChanged,
    PolicyChanged,
    WatchAnswered,
    WatchGivenUp,
    WatchRequested,
)
from isthmus.trace import Trace

# A person who refused is not asked again for a day, however often a phone repeats its SUBSCRIBE: phones retry
# by themselves, and the person behind the other realm cannot tell that from pestering.
REFUSAL_HOLDS_SECONDS = 86_400.0
MAXIMUM_REMEMBERED_REFUSALS = 50_000
# A full disk is not mended within a second; until it is, what XMPP people answered is kept in memory.
WRITE_AGAIN_SECONDS = 30.0
# So many contacts are re-examined before others get their turn: a change for everybody must not stop the traffic.
POLICY_BATCH = 200


class Policing(Protocol):
    """The part of `services.policing` that contacts ask."""

    def verdict(self, sender: Address, recipient: Address, modality: Modality, *, is_contact: bool) -> Verdict:
        """May this cross now?"""

    def is_blocked(self, owner: Address, peer: Address) -> bool:
        """True when `owner` blocked `peer`."""

    def blocked_by(self, owner: Address) -> list[Address]:
        """Whom `owner` blocked."""

    async def block(self, owner: Address, peer: Address, *, actor: str) -> None:
        """`owner` blocks `peer`, durably. Raises StoreError."""

    async def unblock(self, owner: Address, peer: Address, *, actor: str) -> None:
        """Take a block back, durably. Raises StoreError."""


class People(Protocol):
    """The part of `services.directory` that contacts ask."""

    def realm_of(self, domain: str) -> Realm:
        """Which network a domain belongs to."""

    def is_known_user(self, address: Address) -> bool:
        """True for hosted users that exist and are enabled."""


class Answer(StrEnum):
    """What became of a request to see somebody."""

    GRANTED = "granted"
    WAITING = "waiting"
    REFUSED = "refused"


class Contacts:
    """Owns authorisations and blocks; every change is durable before anybody is told.

    Args:
        maximum_pending: requests that may wait for one person; a flood of strangers stops here (EDGE: enumeration).
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        people: People,
        policing: Policing,
        clock: Clock,
        trace: Trace,
        *,
        maximum_pending: int = 200,
        maximum_watched: int = 1_000,
    ) -> None:
        self._bus = bus
        self._people = people
        self._policing = policing
        self._clock = clock
        self._trace = trace
        self._maximum_pending = maximum_pending
        self._maximum_watched = maximum_watched
        self._rows = Authorisations(store)
        self._refused_at: dict[tuple[Address, Address], float] = {}
        self._unwritten: dict[tuple[Address, Address], WatchAnswered | WatchGivenUp] = {}
        self._unwritten_timer: TimerHandle | None = None
        bus.register(WatchRequested, self._watch_requested)
        bus.register(WatchAnswered, self._watch_answered)
        bus.register(WatchGivenUp, self._watch_given_up)
        bus.register(PolicyChanged, self._policy_changed)

    async def load(self) -> None:
        """Read everything back at start. Raises StoreError."""
        await self._rows.load()

    # --- questions ---

    def authorisation(self, watcher: Address, presentity: Address) -> Authorisation | None:
        """The authorisation row, or None."""
        return self._rows.get(watcher, presentity)

    def state(self, watcher: Address, presentity: Address) -> AuthorisationState | None:
        """PENDING, ACTIVE or None."""
        return self._rows.state(watcher, presentity)

    def watchers_of(self, presentity: Address) -> tuple[Authorisation, ...]:
        """Everybody who asked to see `presentity`, pending and active."""
        return self._rows.of_presentity(presentity)

    def watched_by(self, watcher: Address) -> tuple[Address, ...]:
        """Everybody whom `watcher` asked to see."""
        return self._rows.of_watcher(watcher)

    def pending(self, presentity: Address) -> list[Authorisation]:
        """Requests that wait for `presentity`'s decision, oldest first."""
        waiting = [row for row in self.watchers_of(presentity) if row.state is AuthorisationState.PENDING]
        return sorted(waiting, key=lambda row: row.asked_at)

    def all(self) -> Iterator[Authorisation]:
        """Every authorisation."""
        return self._rows.all()

    def sees(self, watcher: Address, presentity: Address) -> bool:
        """True when `watcher` was granted the presence of `presentity`."""
        return self.state(watcher, presentity) is AuthorisationState.ACTIVE

    def is_contact(self, sender: Address, recipient: Address) -> bool:
        """True when `recipient` wants to hear from `sender`: granted them a view, or asked for theirs."""
        granted = self._rows.get(sender, recipient)
        if granted is not None and granted.state is AuthorisationState.ACTIVE:
            return True
        return self._rows.get(recipient, sender) is not None

    def contacts(self, owner: Address) -> list[Contact]:
        """The contact list of one person in RFC 6121 words (subscription and pending flags), by address."""
        peers = {row.watcher for row in self.watchers_of(owner)} | set(self.watched_by(owner))
        peers |= set(self._policing.blocked_by(owner))
        return [self._contact(owner, peer) for peer in sorted(peers)]

    def _contact(self, owner: Address, peer: Address) -> Contact:
        outward, inward = self.state(owner, peer), self.state(peer, owner)
        active = AuthorisationState.ACTIVE
        words = {(True, True): "both", (True, False): "to", (False, True): "from", (False, False): "none"}
        return Contact(
            owner=owner,
            peer=peer,
            subscription=words[(outward is active, inward is active)],
            is_pending_out=outward is AuthorisationState.PENDING,
            is_pending_in=inward is AuthorisationState.PENDING,
            is_blocked=self._policing.is_blocked(owner, peer),
        )

    # --- asking ---

    async def ask(self, watcher: Address, presentity: Address, note: str = "") -> Answer:
        """`watcher` wants to see `presentity`.

        Repeats while pending change nothing; a repeat after a grant is answered GRANTED (RFC 6121 section 3.1.3).

        Raises:
            PeerError: policy, block or a limit forbids it; the text says which.
            StoreError: it could not be made durable.
        """
        async with self._rows.changing(watcher, presentity):
            row = self._rows.get(watcher, presentity)
            if row is not None:
                return Answer.GRANTED if row.state is AuthorisationState.ACTIVE else Answer.WAITING
            self.check_request(watcher, presentity)
            is_granted = self._is_granted_at_once(watcher, presentity)
            now = self._clock.wall()
            state = AuthorisationState.ACTIVE if is_granted else AuthorisationState.PENDING
            decided_at = now if is_granted else None
            await self._rows.save(Authorisation(watcher, presentity, state, now, decided_at, note[:500]))
            self._refused_at.pop((presentity, watcher), None)  # who asks us may be asked by us again
            self._tell(watcher, presentity, state, "approved" if is_granted else "subscribe", "")
            return Answer.GRANTED if is_granted else Answer.WAITING

    def check_request(self, watcher: Address, presentity: Address) -> None:
        """Raise PeerError when a new request of `watcher` cannot be made; says nothing of existing authorisations."""
        if self._policing.is_blocked(presentity, watcher):
            # The blocked person sees what everybody sees who is not answered (edge case 15); the trace says why.
            self._trace_refusal(watcher, presentity, "contact.blocked", f"{presentity} blocked {watcher}")
            raise PeerError("the contact request was declined", status=403, condition="forbidden")
        is_contact = self.is_contact(watcher, presentity)
        verdict = self._policing.verdict(watcher, presentity, Modality.PRESENCE, is_contact=is_contact)
        if not verdict:
            self._trace_refusal(watcher, presentity, verdict.rule, verdict.text)
            raise PeerError(verdict.text, status=403, condition="policy-violation")
        refused_at = self._refused_at.get((watcher, presentity))
        if refused_at is not None and self._clock.monotonic() - refused_at < REFUSAL_HOLDS_SECONDS:
            self._trace_refusal(watcher, presentity, "contact.refused", f"{presentity} refused within the last day")
            raise PeerError("the contact request was declined", status=403, condition="forbidden")
        if len(self.pending(presentity)) >= self._maximum_pending:
            self._trace_refusal(watcher, presentity, "limit.pending", f"{presentity} has too many requests waiting")
            raise PeerError("too many contact requests are waiting", status=480, condition="resource-constraint")
        if len(self._rows.of_watcher(watcher)) >= self._maximum_watched:
            self._trace_refusal(watcher, presentity, "limit.watched", f"{watcher} watches too many people")
            raise PeerError("the contact list is full", status=403, condition="resource-constraint")

    def _check_exists(self, watcher: Address, presentity: Address) -> None:
        """Answer for nobody as somebody who declined would, and count it as looking for people (edge case 46)."""
        is_hosted = self._people.realm_of(presentity.domain) is Realm.BUSINESS_HOSTED
        if is_hosted and not self._people.is_known_user(presentity):
            verdict = self._policing.verdict(watcher, presentity, Modality.PRESENCE, is_contact=False)
            self._trace_refusal(watcher, presentity, "address.unknown", f"there is no {presentity}")
            text = "the contact request was declined" if verdict else verdict.text
            raise PeerError(text, status=403, condition="forbidden")

    def _is_granted_at_once(self, watcher: Address, presentity: Address) -> bool:
        """Colleagues see each other; and who asked for somebody's presence has agreed to that somebody (edge 14)."""
        both_business = (
            self._people.realm_of(watcher.domain).is_business and self._people.realm_of(presentity.domain).is_business
        )
        if both_business:
            return self._people.realm_of(presentity.domain) is Realm.BUSINESS_HOSTED
        is_ours_to_grant = self._people.realm_of(presentity.domain) is Realm.BUSINESS_HOSTED
        return is_ours_to_grant and self._rows.get(presentity, watcher) is not None

    # --- deciding ---

    async def approve(self, presentity: Address, watcher: Address, *, by: str = "") -> bool:
        """`presentity` lets `watcher` see it. False when nobody asked (pre-approval is a no-op). Raises StoreError."""
        async with self._rows.changing(watcher, presentity):
            row = self._rows.get(watcher, presentity)
            if row is None or row.state is AuthorisationState.ACTIVE:
                return row is not None
            await self._rows.save(replace(row, state=AuthorisationState.ACTIVE, decided_at=self._clock.wall()))
            self._tell(watcher, presentity, AuthorisationState.ACTIVE, "approved", by and f"approved by {by}")
            return True

    async def decline(self, presentity: Address, watcher: Address, *, text: str = "") -> bool:
        """`presentity` refuses or takes back the view of `watcher`. False when there was none. Raises StoreError."""
        has_ended = await self.end(watcher, presentity, "rejected", text)
        if has_ended:
            self._remember_refusal(watcher, presentity)
        return has_ended

    async def end(self, watcher: Address, presentity: Address, reason: str, text: str) -> bool:
        """The authorisation is gone (RFC 3857 event `reason`). False when there was none. Raises StoreError."""
        async with self._rows.changing(watcher, presentity):
            if self._rows.get(watcher, presentity) is None:
                return False
            await self._rows.delete(watcher, presentity)
            self._tell(watcher, presentity, None, reason, text)
            return True

    async def give_up(self, watcher: Address, presentity: Address) -> bool:
        """`watcher` does not want to see `presentity` any more. False when there was nothing. Raises StoreError."""
        self._refused_at.pop((watcher, presentity), None)
        return await self.end(watcher, presentity, "giveup", "the watcher removed the contact")

    async def block(self, owner: Address, peer: Address, *, by: str = "") -> None:
        """`owner` blocks `peer`: both directions end, and nothing from `peer` reaches `owner`. Raises StoreError."""
        # The contact ends before the rules change: a live view that policy hides says so, and the blocked person must
        # see what a declined one sees (edge case 15).
        await self.end(peer, owner, "rejected", "")
        await self.give_up(owner, peer)
        await self._policing.block(owner, peer, actor=by or str(owner))
        self._trace.decision(f"{owner} blocked {peer}", people=(str(owner), str(peer)), rule="contact.blocked")
        await self.end(peer, owner, "rejected", "")  # whatever slipped in while the block was being written

    async def unblock(self, owner: Address, peer: Address, *, by: str = "") -> None:
        """Take a block back; a new request may come. Raises StoreError."""
        await self._policing.unblock(owner, peer, actor=by or str(owner))
        self._refused_at.pop((peer, owner), None)

    # --- what others tell ---

    async def _watch_requested(self, _: Address, event: WatchRequested) -> None:
        had = self.state(event.watcher, event.presentity)
        try:
            if had is None:
                self._check_exists(event.watcher, event.presentity)
            await self.ask(event.watcher, event.presentity, event.note)
        except (PeerError, StoreError) as error:
            reason = "rejected" if isinstance(error, PeerError) else "probation"
            self._tell(event.watcher, event.presentity, None, reason, str(error))
            return
        state = self.state(event.watcher, event.presentity)
        if had is not None and state is not None:
            self._tell(event.watcher, event.presentity, state, "repeated", "")

    async def _watch_answered(self, _: Address, event: WatchAnswered) -> None:
        try:
            if event.is_granted:
                await self.approve(event.presentity, event.watcher)
            else:
                await self.decline(event.presentity, event.watcher)
        except StoreError as error:
            self._write_again(event, error)

    async def _watch_given_up(self, _: Address, event: WatchGivenUp) -> None:
        try:
            await self.give_up(event.watcher, event.presentity)
        except StoreError as error:
            self._write_again(event, error)

    async def _policy_changed(self, _: Address, event: PolicyChanged) -> None:
        """A policy that no longer allows presence hides it; the authorisation survives, so switching back restores."""
        rows = list(self._rows.all() if event.address is None else self._rows.concerning(event.address))
        for number, row in enumerate(rows, start=1):
            if event.domain and event.domain not in (row.watcher.domain, row.presentity.domain):
                continue
            if number % POLICY_BATCH == 0:
                await asyncio.sleep(0)
            state = self.state(row.watcher, row.presentity)
            if state is not None:
                self._tell(row.watcher, row.presentity, state, "policy", "")

    # --- what the store refused ---

    def _write_again(self, event: WatchAnswered | WatchGivenUp, error: StoreError) -> None:
        """Nobody repeats these stanzas to us: what they say is tried until the store takes it or they say otherwise."""
        people = (str(event.watcher), str(event.presentity))
        self._trace.decision(f"{event} could not be made durable, it is tried again: {error}", people=people, mark="!")
        self._unwritten[(event.watcher, event.presentity)] = event
        if self._unwritten_timer is None:
            self._unwritten_timer = self._clock.call_later(WRITE_AGAIN_SECONDS, self._replay_unwritten)

    def _replay_unwritten(self) -> None:
        self._unwritten_timer = None
        events, self._unwritten = self._unwritten, {}
        for event in events.values():
            self._bus.send(event.presentity, event)

    # --- inside ---

    def _remember_refusal(self, watcher: Address, presentity: Address) -> None:
        now = self._clock.monotonic()
        self._refused_at.pop((watcher, presentity), None)  # the oldest stay in front
        while self._refused_at:
            oldest = next(iter(self._refused_at))
            is_held = now - self._refused_at[oldest] < REFUSAL_HOLDS_SECONDS
            if is_held and len(self._refused_at) < MAXIMUM_REMEMBERED_REFUSALS:
                break
            del self._refused_at[oldest]
        self._refused_at[(watcher, presentity)] = now

    def _tell(
        self, watcher: Address, presentity: Address, state: AuthorisationState | None, reason: str, text: str
    ) -> None:
        if reason not in ("policy", "repeated"):
            self._unwritten.pop((watcher, presentity), None)  # this is the later word
            outcome = state.value if state else "ended"
            line = f"{watcher} sees {presentity}: {outcome} ({reason}{': ' + text if text else ''})"
            self._trace.decision(line, people=(str(watcher), str(presentity)), rule=f"contact.{reason}")
        self._bus.send(presentity, AuthorisationChanged(watcher, presentity, state, reason, text))

    def _trace_refusal(self, watcher: Address, presentity: Address, rule: str, text: str) -> None:
        self._trace.decision(
            f"contact request from {watcher} to {presentity} refused: {text}",
            people=(str(watcher), str(presentity)),
            rule=rule,
            mark="!",
        )
