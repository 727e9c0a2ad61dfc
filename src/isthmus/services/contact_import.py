"""Take over contact lists of an older federation: each contact is asked for, as if its owner did it today.

Nothing is granted in anybody's name: the person elsewhere answers as to any request, which their server does by itself
where they hold the contact already (RFC 6121 section 3.1.3), and who asks has agreed in return.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from isthmus.errors import AddressError, OperationError, PeerError
from isthmus.interworking.addresses import address_from_legacy
from isthmus.model import Address, AuthorisationState, Realm
from isthmus.ports import AuditRecord, Clock, Store
from isthmus.services.contacts import Answer, People
from isthmus.services.operations import Plain

# One call is one answer on the control socket; callers with more send several.
MAXIMUM_ENTRIES = 1_000


class AskingContacts(Protocol):
    """The part of `services.contacts` that an import uses."""

    async def ask(self, watcher: Address, presentity: Address, note: str = "") -> Answer:
        """Make the request. Raises PeerError, StoreError."""

    def check_request(self, watcher: Address, presentity: Address) -> None:
        """Raise PeerError when a new request could not be made."""

    def state(self, watcher: Address, presentity: Address) -> AuthorisationState | None:
        """PENDING, ACTIVE or None."""


class ContactImport:
    """One operation: `contact.import`. It works without connections, too: what is asked goes out at the next start."""

    def __init__(self, contacts: AskingContacts, people: People, store: Store, clock: Clock) -> None:
        self._contacts = contacts
        self._people = people
        self._store = store
        self._clock = clock

    async def run(
        self, entries: list[tuple[str, str]], gateways: list[str] | None = None, dry_run: bool = False, *, actor: str
    ) -> Plain:
        """Ask for the contacts of older contact lists; what is there already stays as it is.

        Args:
            entries: owner and contact; both may be written as older federations did (`ben(people.test)@msn.com`).
            gateways: domains that stood for the other realm in the old set-up: `ben%people.test@gw.corp.test`.
            dry_run: only tell what would become of each.

        Raises:
            OperationError: too many entries, or a gateway that is no domain.
            StoreError: the disk; what was asked before stays asked, and importing again goes on from there.
        """
        if len(entries) > MAXIMUM_ENTRIES:
            raise OperationError(f"at most {MAXIMUM_ENTRIES} contacts in one call")
        rows = [await self._take(owner, peer, gateways or (), dry_run) for owner, peer in entries]
        count = sum(row["outcome"] in ("asked", "granted") for row in rows)
        if count and not dry_run:
            record = AuditRecord(self._clock.wall(), actor, "contact import", f"{count} contacts", "")
            await self._store.save_audit(record)
        return rows

    async def _take(self, owner: str, peer: str, gateways: Collection[str], dry_run: bool) -> dict[str, Plain]:
        try:
            one, other = address_from_legacy(owner, gateways), address_from_legacy(peer, gateways)
            outcome = await self._ask(one, other, dry_run)
        except (AddressError, PeerError) as error:
            return {"owner": owner, "peer": peer, "outcome": "refused", "text": str(error)}
        return {"owner": str(one), "peer": str(other), "outcome": outcome, "text": ""}

    async def _ask(self, owner: Address, peer: Address, dry_run: bool) -> str:
        realm = self._people.realm_of(owner.domain)
        if not realm.is_business:
            raise AddressError(f"{owner} is not of a business domain of ours")
        for person in (owner, peer):
            is_hosted = self._people.realm_of(person.domain) is Realm.BUSINESS_HOSTED
            if is_hosted and not self._people.is_known_user(person):
                raise AddressError(f"there is no user {person}")
        if owner == peer:
            raise AddressError(f"{owner} cannot be a contact of their own")
        if self._contacts.state(owner, peer) is not None:
            return "there already"
        if dry_run:
            self._contacts.check_request(owner, peer)
            return "asked"
        return "granted" if await self._contacts.ask(owner, peer) is Answer.GRANTED else "asked"
