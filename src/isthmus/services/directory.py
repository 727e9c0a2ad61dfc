"""Who our people and domains are: hosted users in memory, and the realms of domains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from isthmus.config import BusinessDomain, Configuration, DomainKind
from isthmus.errors import ConfigurationError
from isthmus.model import Address, Realm, User, canonical_domain
from isthmus.ports import Bus, Store
from isthmus.services.events import UserRemoved

# Local part of the address that sends back what it gets, so that `isthmus doctor` can prove a round trip.
ECHO_NAME = "echo"


class Directory:
    """Hosted users and the realms of domains."""

    def __init__(self, configuration: Configuration, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._users: dict[Address, User] = {}
        self._consumers: dict[Address, User] = {}
        self._domains: dict[str, BusinessDomain] = {
            canonical_domain(domain.name): domain for domain in configuration.domains
        }
        self._realms: dict[str, Realm] = {
            name: Realm.BUSINESS_HOSTED if domain.kind is DomainKind.HOSTED else Realm.BUSINESS_ROUTED
            for name, domain in self._domains.items()
        }
        self.consumer_domain = canonical_domain(configuration.xmpp.consumer_domain)
        if self.consumer_domain in self._domains:
            raise ConfigurationError(f"{self.consumer_domain} is both the consumer domain and a business domain")
        self._service_name = configuration.service_name.lower()
        self._services = {Address.of(self._service_name, name) for name in self._domains}
        self._echoes = {Address(ECHO_NAME, name) for name in self._domains}

    async def load(self) -> None:
        """Read users and consumer accounts; call again when another process changed them. Raises StoreError."""
        self._users = {user.address: user for user in await self._store.users()}
        self._consumers = {user.address: user for user in await self._store.consumers()}

    # --- domains ---

    def realm_of(self, domain: str) -> Realm:
        """Which network a domain (canonical form) belongs to; everything that is not ours is reached over XMPP."""
        return self._realms.get(domain, Realm.CONSUMER)

    def is_business(self, domain: str) -> bool:
        """True for our SIP domains."""
        return domain in self._realms

    def domain(self, name: str) -> BusinessDomain | None:
        """Configuration of one of our SIP domains, or None."""
        return self._domains.get(name)

    @property
    def hosted_domains(self) -> tuple[str, ...]:
        """Domains whose users register with us, in the order of the configuration."""
        return tuple(name for name, realm in self._realms.items() if realm is Realm.BUSINESS_HOSTED)

    @property
    def routed_domains(self) -> tuple[str, ...]:
        """Domains that a neighbour owns."""
        return tuple(name for name, realm in self._realms.items() if realm is Realm.BUSINESS_ROUTED)

    # --- service addresses ---

    def service_address(self, domain: str) -> Address:
        """The address that consent questions and notices to users of `domain` come from."""
        return Address(self._service_name, domain)

    def is_service(self, address: Address) -> bool:
        """True for the service address of one of our domains."""
        return address in self._services

    def is_echo(self, address: Address) -> bool:
        """True for the echo address of one of our domains."""
        return address in self._echoes

    def is_automaton(self, address: Address) -> bool:
        """True for an address that is a service of ours and no person: always available, needs no consent."""
        return address in self._services or address in self._echoes

    @property
    def service_addresses(self) -> frozenset[Address]:
        """Service and echo addresses of all our domains: they are strangers to nobody."""
        return frozenset(self._services | self._echoes)

    # --- people ---

    def user(self, address: Address) -> User | None:
        """The hosted user, disabled or not; None when there is none."""
        return self._users.get(address)

    def users(self) -> Iterable[User]:
        """All hosted users."""
        return tuple(self._users.values())

    def is_known_user(self, address: Address) -> bool:
        """True for hosted users that exist and are enabled."""
        user = self._users.get(address)
        return user is not None and not user.is_disabled

    def may_exist(self, address: Address) -> bool:
        """False only when we own the domain and know that there is no such user."""
        if self._realms.get(address.domain) is not Realm.BUSINESS_HOSTED:
            return True
        user = self._users.get(address)
        if user is not None:
            return not user.is_disabled
        return address in self._services or address in self._echoes

    def display_name(self, address: Address) -> str:
        """Name to show for somebody of ours, or ""."""
        user = self._users.get(address) or self._consumers.get(address)
        if user is not None:
            return user.display_name
        return "Isthmus" if address in self._services else ""

    async def save_user(self, user: User) -> None:
        """Insert or replace a hosted user. Raises StoreError."""
        await self._store.save_user(user)
        self._users[user.address] = user
        if user.is_disabled:
            self._bus.send(user.address, UserRemoved(user.address))

    async def disable_user(self, address: Address) -> bool:
        """Keep the user but let nothing in or out. False when there is none. Raises StoreError."""
        user = self._users.get(address)
        if user is None:
            return False
        await self.save_user(replace(user, is_disabled=True))
        return True
