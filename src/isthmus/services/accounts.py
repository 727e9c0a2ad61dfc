"""Accounts: hosted business users (digest credentials of ours) and consumers (accounts of the XMPP server)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from isthmus.config import Configuration, DomainKind
from isthmus.errors import AddressError, OperationError, UnknownSubjectError
from isthmus.model import Address, User, canonical_domain
from isthmus.ports import AuditRecord, Bus, Clock, Store
from isthmus.services.events import UserRemoved
from isthmus.services.operations import Plain, to_plain
from isthmus.services.policing import Policing
from isthmus.sip.digest import ha1

# NIST SP 800-63B section 5.1.1.2 asks for 8; digests can be attacked offline once stolen, so a little more.
MINIMUM_PASSWORD_LENGTH = 10
MAXIMUM_PASSWORD_LENGTH = 1_024
GENERATED_PASSWORD_OCTETS = 15  # 120 bits, 20 characters to type once
# Local parts that the service answers itself.
ECHO_LOCAL = "echo"
DOCTOR_LOCAL = "doctor"


class Directory(Protocol):
    """The part of `services.directory` that account changes go through."""

    async def load(self) -> None:
        """Read users and consumers again."""

    async def save_user(self, user: User) -> None:
        """Save and remember a hosted user."""


class ConsumerAccounts(Protocol):
    """Makes accounts on the XMPP server of our consumer realm."""

    async def create(self, address: Address, password: str) -> None:
        """Make the account. Raises LocalError with the remedy."""

    async def set_password(self, address: Address, password: str) -> None:
        """Change the password of an account. Raises LocalError."""

    async def names(self, domain: str) -> list[str]:
        """Local parts of the accounts that exist. Raises LocalError."""


def service_locals(configuration: Configuration) -> tuple[str, ...]:
    """Local parts that the service itself answers in every business domain; no account can have them."""
    return (configuration.service_name.lower(), ECHO_LOCAL, DOCTOR_LOCAL)


def parse_address(text: str) -> Address:
    """Read an address that an administrator typed. Raises OperationError."""
    try:
        return Address.parse(text)
    except AddressError as error:
        raise OperationError(str(error)) from error


class Accounts:
    """Operations on accounts; every change leaves an audit record."""

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        directory: Directory,
        policing: Policing,
        bus: Bus,
        clock: Clock,
        consumers: ConsumerAccounts | None = None,
    ) -> None:
        self._configuration = configuration
        self._store = store
        self._directory = directory
        self._policing = policing
        self._bus = bus
        self._clock = clock
        self._consumers = consumers

    # --- business users ---

    async def add_user(
        self,
        address: str,
        password: str | None = None,
        display_name: str = "",
        groups: Sequence[str] = (),
        *,
        actor: str,
    ) -> Plain:
        """Create a hosted user; without a password one is generated and returned once."""
        person = self._hosted(address)
        if await self._find(person) is not None:
            raise OperationError(f"{person} exists already; `isthmus user password {person}` sets another password")
        chosen = check_password(password)
        await self._record(actor, "user add", person, ", ".join(groups))
        user = User(
            address=person,
            display_name=display_name.strip(),
            digests=self._digests(person, chosen),
            groups=tuple(groups),
            created_at=self._clock.wall(),
        )
        await self._save(user)
        return {**self._row(user), "password": None if password else chosen}

    async def list_users(self, domain: str = "") -> Plain:
        """Hosted users, all or of one domain."""
        with_photo = {address for address, _ in await self._store.photo_hashes()}
        users = await self._store.users(canonical_domain(domain) if domain else "")
        return [{**self._row(user), "has_photo": user.address in with_photo} for user in users]

    async def disable_user(self, address: str, *, actor: str) -> Plain:
        """Keep the account, but let nothing in or out."""
        user = await self._known(address)
        await self._record(actor, "user disable", user.address)
        await self._save(replace(user, is_disabled=True))
        return self._row(replace(user, is_disabled=True))

    async def enable_user(self, address: str, *, actor: str) -> Plain:
        """Undo `disable`."""
        user = await self._known(address)
        await self._record(actor, "user enable", user.address)
        await self._save(replace(user, is_disabled=False))
        return self._row(replace(user, is_disabled=False))

    async def remove_user(self, address: str, *, actor: str) -> Plain:
        """Delete the account with its registrations; contacts stay for when it is made again."""
        user = await self._known(address)
        await self._record(actor, "user remove", user.address)
        await self._store.delete_user(user.address)
        await self._directory.load()
        self._bus.send(user.address, UserRemoved(user.address))
        if user.groups:
            await self._policing.reload_memberships()
        return {"address": str(user.address), "is_removed": True}

    async def set_password(self, address: str, password: str | None = None, *, actor: str) -> Plain:
        """Set another password; without one it is generated and returned once."""
        user = await self._known(address)
        chosen = check_password(password)
        await self._record(actor, "user password", user.address)
        await self._save(replace(user, digests=self._digests(user.address, chosen)))
        return {"address": str(user.address), "password": None if password else chosen}

    async def set_groups(self, address: str, groups: Sequence[str], *, actor: str) -> Plain:
        """Put a user into policy groups, most important first; none takes it out of all."""
        user = await self._known(address)
        await self._record(actor, "user groups", user.address, ", ".join(groups))
        changed = replace(user, groups=tuple(groups))
        await self._save(changed)
        return self._row(changed)

    # --- consumers ---

    async def add_consumer(
        self, address: str, password: str | None = None, display_name: str = "", *, actor: str
    ) -> Plain:
        """Create an account of our consumer realm, or set its password; without one it is generated and returned."""
        person = parse_address(address)
        realm = canonical_domain(self._configuration.xmpp.consumer_domain)
        if person.domain != realm:
            raise OperationError(
                f"{person} is not in our consumer realm {realm}; people of other XMPP servers need no account here"
            )
        if self._consumers is None:
            raise OperationError(
                "accounts of this consumer realm are made on its own XMPP server (xmpp.embedded is off)"
            )
        chosen = check_password(password)
        await self._record(actor, "consumer add", person)
        exists = person.local in await self._consumers.names(person.domain)
        await (self._consumers.set_password if exists else self._consumers.create)(person, chosen)
        user = User(address=person, display_name=display_name.strip(), created_at=self._clock.wall())
        await self._store.save_consumer(user)
        await self._directory.load()
        return {"address": str(person), "display_name": user.display_name, "password": None if password else chosen}

    async def list_consumers(self) -> Plain:
        """Consumer accounts that were made here."""
        return [
            {"address": str(user.address), "display_name": user.display_name, "created_at": user.created_at}
            for user in await self._store.consumers()
        ]

    # --- inside ---

    def _hosted(self, text: str) -> Address:
        person = parse_address(text)
        hosted = {
            canonical_domain(domain.name): domain
            for domain in self._configuration.domains
            if domain.kind is DomainKind.HOSTED
        }
        if person.domain not in hosted:
            there_are = ", ".join(hosted) or "none; add one to isthmus.toml"
            raise OperationError(f"{person.domain} is not a hosted domain of ours; there are: {there_are}")
        if person.local in service_locals(self._configuration):
            raise OperationError(f"{person} is an address of the service itself; choose another name")
        return person

    async def _find(self, person: Address) -> User | None:
        return next((user for user in await self._store.users(person.domain) if user.address == person), None)

    async def _known(self, text: str) -> User:
        person = parse_address(text)
        user = await self._find(person)
        if user is None:
            raise UnknownSubjectError(f"there is no user {person}; `isthmus user list` shows all")
        return user

    def _digests(self, person: Address, password: str) -> dict[str, str]:
        """HA1 per algorithm; the realm is the domain (RFC 7616 section 3.4.2, RFC 8760 section 2.6)."""
        algorithms = ("SHA-256", "MD5") if self._configuration.sip.allow_md5 else ("SHA-256",)
        return {algorithm: ha1(person.local, person.domain, password, algorithm) for algorithm in algorithms}

    async def _save(self, user: User) -> None:
        await self._directory.save_user(user)
        await self._policing.reload_memberships()

    async def _record(self, actor: str, action: str, person: Address, detail: str = "") -> None:
        await self._store.save_audit(AuditRecord(self._clock.wall(), actor, action, str(person), detail))

    @staticmethod
    def _row(user: User) -> dict[str, Plain]:
        row: dict[str, Plain] = to_plain(user)
        row["algorithms"] = sorted(user.digests)
        return row


def check_password(password: str | None) -> str:
    """Return the password to use: the given one if it will do, else a generated one. Raises OperationError."""
    if password is None:
        return secrets.token_urlsafe(GENERATED_PASSWORD_OCTETS)
    if not MINIMUM_PASSWORD_LENGTH <= len(password) <= MAXIMUM_PASSWORD_LENGTH:
        raise OperationError(
            f"a password has {MINIMUM_PASSWORD_LENGTH} to {MAXIMUM_PASSWORD_LENGTH} characters; "
            "give none and one is made for you"
        )
    if any(character < " " or character == "\x7f" for character in password):
        raise OperationError("a password cannot hold control characters (tab, line end)")
    return password
