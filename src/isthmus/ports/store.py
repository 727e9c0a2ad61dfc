"""Durable state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from isthmus.model import Address, Authorisation, Failure, User
from isthmus.ports.records import (
    AuditRecord,
    Binding,
    CallRecord,
    Crossing,
    DomainRule,
    Journal,
    PolicySetting,
    Publication,
    SubscriptionRecord,
)
from isthmus.ports.xmpp import Photo


class Store(Protocol):
    """Durable state. Every method raises StoreError when it cannot keep its promise.

    `save_*` and `delete_*` return when durable. `note_*` are written behind (within a second) and may be lost in a
    crash: soft state only.
    """

    @property
    def journal(self) -> Journal:
        """The message journal of this store."""

    async def open(self) -> None:
        """Create or migrate the schema. Raises StoreError with the remedy (locked, read-only, full, newer schema)."""

    async def close(self) -> None:
        """Flush what is written behind and close."""

    async def users(self, domain: str = "") -> Sequence[User]:
        """All hosted users, or those of one domain, by address."""

    async def save_user(self, user: User) -> None:
        """Insert or replace."""

    async def delete_user(self, address: Address) -> None:
        """Remove the user, bindings, publications and photo (not contacts)."""

    async def photo_hashes(self) -> Sequence[tuple[Address, str]]:
        """Who has a photo, and its `sha1` (loaded at start)."""

    async def photo(self, address: Address) -> Photo | None:
        """The photo of a hosted user."""

    async def save_photo(self, address: Address, photo: Photo) -> None:
        """Insert or replace."""

    async def delete_photo(self, address: Address) -> None:
        """Forget it; no error when absent."""

    async def consumers(self) -> Sequence[User]:
        """Consumer accounts made with `consumer add` (no digests)."""

    async def save_consumer(self, user: User) -> None:
        """Insert or replace."""

    async def authorisations(self) -> Sequence[Authorisation]:
        """All of them (loaded at start)."""

    async def save_authorisation(self, authorisation: Authorisation) -> None:
        """Insert or replace by (watcher, presentity)."""

    async def delete_authorisation(self, watcher: Address, presentity: Address) -> None:
        """Forget it; no error when absent."""

    async def blocks(self) -> Sequence[tuple[Address, Address]]:
        """All (owner, blocked peer) pairs."""

    async def save_block(self, owner: Address, peer: Address) -> None:
        """Owner blocks peer."""

    async def delete_block(self, owner: Address, peer: Address) -> None:
        """Owner unblocks peer."""

    async def bindings(self) -> Sequence[Binding]:
        """Unexpired registrations (loaded at start)."""

    async def save_bindings(self, address: Address, bindings: Sequence[Binding]) -> None:
        """Replace all bindings of one user at once (all-or-nothing, RFC 3261 section 10.3 step 7)."""

    async def publications(self) -> Sequence[Publication]:
        """Unexpired publications (loaded at start)."""

    def note_publication(self, publication: Publication) -> None:
        """Insert or replace by (address, etag), written behind."""

    def note_publication_gone(self, address: Address, etag: str) -> None:
        """Forget, written behind."""

    async def subscriptions(self, *, after: str = "", limit: int = 0) -> Sequence[SubscriptionRecord]:
        """Unexpired notifier subscriptions by key (loaded at start).

        Args:
            after: only those with a greater key.
            limit: only so many, as there may be a hundred thousand; 0 for all.
        """

    def note_subscription(self, record: SubscriptionRecord) -> None:
        """Insert or replace by key, written behind."""

    def note_subscription_gone(self, key: str) -> None:
        """Forget, written behind."""

    async def policy_settings(self) -> Sequence[PolicySetting]:
        """All of them."""

    async def save_policy_settings(self, changed: Sequence[PolicySetting], removed: Sequence[PolicySetting]) -> None:
        """Apply one change atomically."""

    async def domain_rules(self) -> Sequence[DomainRule]:
        """All of them."""

    async def save_domain_rule(self, rule: DomainRule) -> None:
        """Insert or replace by domain."""

    async def delete_domain_rule(self, domain: str) -> None:
        """Forget it."""

    def note_crossing(
        self, sender: Address, recipient: Address, kind: str, at: float, failure: Failure | None = None
    ) -> None:
        """Count one crossing or failure, coalesced in memory and written behind."""

    async def crossings(self, one: Address, other: Address) -> Sequence[Crossing]:
        """Totals between two people, both directions, including what is not yet written."""

    def note_call(self, record: CallRecord, expires_at: float) -> None:
        """Insert or replace the record of a call that is over, until `expires_at` (Unix seconds), written behind."""

    async def calls(self, *, person: Address | None = None, limit: int = 100) -> Sequence[CallRecord]:
        """Calls that are over, newest first; those of one person, or of everybody. Erases what has expired."""

    async def call(self, call_id: str) -> CallRecord | None:
        """One of them."""

    def note_live_call(self, call_id: str, state: Mapping[str, Any]) -> None:
        """Keep what is needed to end a live call cleanly after a crash, written behind."""

    def note_live_call_gone(self, call_id: str) -> None:
        """Forget it, written behind."""

    async def live_calls(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """The calls that were live when the last run ended."""

    async def save_audit(self, record: AuditRecord) -> None:
        """Append to the audit log."""

    async def audit(self, limit: int = 100) -> Sequence[AuditRecord]:
        """Newest first."""
