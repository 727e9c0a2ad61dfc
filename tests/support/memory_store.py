"""`ports.Store` in memory, complete, with knobs for trouble. Its content outlives `close`, as a disk's does."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from isthmus.errors import StoreError
from isthmus.model import Address, Authorisation, Failure, User
from isthmus.ports import (
    Appended,
    AuditRecord,
    Binding,
    CallRecord,
    Crossing,
    DomainRule,
    JournalEntry,
    Photo,
    PolicySetting,
    Publication,
    SubscriptionRecord,
)

# Twice 64*T1: a sender may retransmit for 32 s (RFC 3261 section 17.1.2.2), and clocks and restarts take their share.
ORIGIN_KEY_SECONDS = 70.0


class MemoryJournal:
    """Implements `ports.Journal`: an append is durable at once.

    Knobs: `fault` (raised by every append and flush while set), `hold()` and `release()` (appends wait in between).
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.entries: dict[int, JournalEntry] = {}
        self.settled: list[int] = []
        self.fault: StoreError | None = None
        self._monotonic = monotonic
        self._sequences = itertools.count(1)
        self._known: dict[str, float | None] = {}  # origin key -> forgotten at; None while the entry is pending
        self._gate = asyncio.Event()
        self._gate.set()

    def hold(self) -> None:
        """Let appends wait, as on a slow disk."""
        self._gate.clear()

    def release(self) -> None:
        """Let waiting appends go on."""
        self._gate.set()

    async def append(self, entry: JournalEntry) -> int:
        await self._gate.wait()
        if self.fault is not None:
            raise self.fault
        now = self._monotonic()
        self._known = {key: until for key, until in self._known.items() if until is None or until > now}
        if entry.origin_key:
            if entry.origin_key in self._known:
                return 0
            self._known[entry.origin_key] = None
        sequence = next(self._sequences)
        self.entries[sequence] = replace(entry, sequence=sequence)
        return sequence

    def append_nowait(self, entry: JournalEntry, appended: Appended) -> None:
        """Answer in a later turn of the loop, as a real store does."""

        def tell(append: asyncio.Future[int]) -> None:
            if append.cancelled():
                return
            try:
                outcome: int | StoreError = append.result()
            except StoreError as error:
                outcome = error
            appended(outcome)

        asyncio.ensure_future(self.append(entry)).add_done_callback(tell)

    def settle(self, sequence: int) -> None:
        entry = self.entries.pop(sequence, None)
        if entry is None:
            return
        self.settled.append(sequence)
        if entry.origin_key:
            self._known[entry.origin_key] = self._monotonic() + ORIGIN_KEY_SECONDS

    async def pending(self) -> Sequence[JournalEntry]:
        if self.fault is not None:
            raise self.fault
        return [self.entries[sequence] for sequence in sorted(self.entries)]

    async def flush(self) -> None:
        if self.fault is not None:
            raise self.fault


class MemoryStore:
    """Implements `ports.Store`.

    Knobs: `fault` (raised by every durable method while set; write-behind methods never raise); the journal has its
    own. `fail_with(error)` and `recover()` set both.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.journal = MemoryJournal(monotonic)
        self.fault: StoreError | None = None
        self.is_open = False
        self._wall = wall
        self._users: dict[Address, User] = {}
        self._photos: dict[Address, Photo] = {}
        self._consumers: dict[Address, User] = {}
        self._authorisations: dict[tuple[Address, Address], Authorisation] = {}
        self._blocks: set[tuple[Address, Address]] = set()
        self._bindings: dict[Address, tuple[Binding, ...]] = {}
        self._publications: dict[tuple[Address, str], Publication] = {}
        self._subscriptions: dict[str, SubscriptionRecord] = {}
        self._settings: dict[tuple[str, str], PolicySetting] = {}
        self._rules: dict[str, DomainRule] = {}
        self._crossings: dict[tuple[Address, Address, str], Crossing] = {}
        self._audit: list[AuditRecord] = []
        self._calls: dict[str, tuple[CallRecord, float]] = {}
        self._live_calls: dict[str, Mapping[str, Any]] = {}

    def fail_with(self, error: StoreError | None = None) -> None:
        """Make the store and its journal fail from now on."""
        self.fault = self.journal.fault = error or StoreError("the disk is full: free some space")

    def recover(self) -> None:
        """Work again."""
        self.fault = self.journal.fault = None

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def open(self) -> None:
        self._check()
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def users(self, domain: str = "") -> Sequence[User]:
        self._check()
        return [self._users[address] for address in sorted(self._users) if domain in ("", address.domain)]

    async def save_user(self, user: User) -> None:
        self._check()
        self._users[user.address] = user

    async def delete_user(self, address: Address) -> None:
        self._check()
        self._users.pop(address, None)
        self._bindings.pop(address, None)
        self._photos.pop(address, None)
        for key in [key for key in self._publications if key[0] == address]:
            del self._publications[key]

    async def photo_hashes(self) -> Sequence[tuple[Address, str]]:
        self._check()
        return [(address, self._photos[address].sha1) for address in sorted(self._photos)]

    async def photo(self, address: Address) -> Photo | None:
        self._check()
        return self._photos.get(address)

    async def save_photo(self, address: Address, photo: Photo) -> None:
        self._check()
        self._photos[address] = photo

    async def delete_photo(self, address: Address) -> None:
        self._check()
        self._photos.pop(address, None)

    async def consumers(self) -> Sequence[User]:
        self._check()
        return [self._consumers[address] for address in sorted(self._consumers)]

    async def save_consumer(self, user: User) -> None:
        self._check()
        self._consumers[user.address] = replace(user, digests={})

    async def authorisations(self) -> Sequence[Authorisation]:
        self._check()
        return [self._authorisations[pair] for pair in sorted(self._authorisations)]

    async def save_authorisation(self, authorisation: Authorisation) -> None:
        self._check()
        self._authorisations[authorisation.watcher, authorisation.presentity] = authorisation

    async def delete_authorisation(self, watcher: Address, presentity: Address) -> None:
        self._check()
        self._authorisations.pop((watcher, presentity), None)

    async def blocks(self) -> Sequence[tuple[Address, Address]]:
        self._check()
        return sorted(self._blocks)

    async def save_block(self, owner: Address, peer: Address) -> None:
        self._check()
        self._blocks.add((owner, peer))

    async def delete_block(self, owner: Address, peer: Address) -> None:
        self._check()
        self._blocks.discard((owner, peer))

    async def bindings(self) -> Sequence[Binding]:
        self._check()
        now = self._wall()
        return [
            binding
            for address in sorted(self._bindings)
            for binding in self._bindings[address]
            if binding.expires_at > now
        ]

    async def save_bindings(self, address: Address, bindings: Sequence[Binding]) -> None:
        self._check()
        self._bindings[address] = tuple(bindings)

    async def publications(self) -> Sequence[Publication]:
        self._check()
        now = self._wall()
        return [
            self._publications[key] for key in sorted(self._publications) if self._publications[key].expires_at > now
        ]

    def note_publication(self, publication: Publication) -> None:
        self._publications[publication.address, publication.etag] = publication

    def note_publication_gone(self, address: Address, etag: str) -> None:
        self._publications.pop((address, etag), None)

    async def subscriptions(self, *, after: str = "", limit: int = 0) -> Sequence[SubscriptionRecord]:
        self._check()
        now = self._wall()
        keys = [key for key in sorted(self._subscriptions) if key > after and self._subscriptions[key].expires_at > now]
        return [self._subscriptions[key] for key in keys[: limit or None]]

    def note_subscription(self, record: SubscriptionRecord) -> None:
        self._subscriptions[record.key] = record

    def note_subscription_gone(self, key: str) -> None:
        self._subscriptions.pop(key, None)

    async def policy_settings(self) -> Sequence[PolicySetting]:
        self._check()
        return [self._settings[key] for key in sorted(self._settings)]

    async def save_policy_settings(self, changed: Sequence[PolicySetting], removed: Sequence[PolicySetting]) -> None:
        self._check()
        for setting in removed:
            self._settings.pop((setting.scope, setting.name), None)
        for setting in changed:
            self._settings[setting.scope, setting.name] = setting

    async def domain_rules(self) -> Sequence[DomainRule]:
        self._check()
        return [self._rules[domain] for domain in sorted(self._rules)]

    async def save_domain_rule(self, rule: DomainRule) -> None:
        self._check()
        self._rules[rule.domain] = rule

    async def delete_domain_rule(self, domain: str) -> None:
        self._check()
        self._rules.pop(domain, None)

    def note_crossing(
        self, sender: Address, recipient: Address, kind: str, at: float, failure: Failure | None = None
    ) -> None:
        key = (sender, recipient, str(kind))
        total = self._crossings.get(key) or Crossing(sender, recipient, str(kind))
        if failure is None:
            total = replace(total, delivered=total.delivered + 1, last_at=at)
        else:
            total = replace(total, failed=total.failed + 1, last_failure_at=at, last_failure=failure.text)
        self._crossings[key] = total

    async def crossings(self, one: Address, other: Address) -> Sequence[Crossing]:
        self._check()
        return [
            self._crossings[key] for key in sorted(self._crossings) if (key[0], key[1]) in ((one, other), (other, one))
        ]

    def note_call(self, record: CallRecord, expires_at: float) -> None:
        self._calls[record.id] = record, expires_at

    async def calls(self, *, person: Address | None = None, limit: int = 100) -> Sequence[CallRecord]:
        self._check()
        now = self._wall()
        found = [record for record, expires_at in self._calls.values() if expires_at > now]
        found = [record for record in found if person in (None, record.caller, record.callee)]
        return sorted(found, key=lambda record: (-record.started_at, record.id))[:limit]

    async def call(self, call_id: str) -> CallRecord | None:
        return next((record for record in await self.calls(limit=len(self._calls)) if record.id == call_id), None)

    def note_live_call(self, call_id: str, state: Mapping[str, Any]) -> None:
        self._live_calls[call_id] = state

    def note_live_call_gone(self, call_id: str) -> None:
        self._live_calls.pop(call_id, None)

    async def live_calls(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        self._check()
        return [(call_id, self._live_calls[call_id]) for call_id in sorted(self._live_calls)]

    async def save_audit(self, record: AuditRecord) -> None:
        self._check()
        self._audit.append(record)

    async def audit(self, limit: int = 100) -> Sequence[AuditRecord]:
        self._check()
        return self._audit[: -limit - 1 : -1] if limit > 0 else []
