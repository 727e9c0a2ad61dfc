"""Administration over the real services, a memory store and an in-process bus: everything but the network."""

from __future__ import annotations

from typing import Any

from isthmus.bus.in_process import InProcessBus
from isthmus.config import BusinessDomain, Configuration, DomainKind, SipPeer, SipSettings, XmppSettings
from isthmus.model import Address
from isthmus.services.accounts import Accounts
from isthmus.services.administration import Administration
from isthmus.services.contact_import import ContactImport
from isthmus.services.contacts import Contacts
from isthmus.services.directory import Directory
from isthmus.services.explanation import Explanation
from isthmus.services.photos import Photos
from isthmus.services.policing import Policing
from isthmus.trace import Trace
from tests.support.clock import FakeClock
from tests.support.memory_store import MemoryStore


class MemoryConsumerAccounts:
    """The XMPP server's accounts; `passwords` shows what was set."""

    def __init__(self) -> None:
        self.passwords: dict[Address, str] = {}

    async def create(self, address: Address, password: str) -> None:
        assert address not in self.passwords
        self.passwords[address] = password

    async def set_password(self, address: Address, password: str) -> None:
        assert address in self.passwords
        self.passwords[address] = password

    async def names(self, domain: str) -> list[str]:
        return [address.local for address in self.passwords if address.domain == domain]


def example_configuration(**changes: Any) -> Configuration:
    """corp.test is hosted, pbx.test is routed, people.test is the consumer realm."""
    settings: dict[str, Any] = {
        "domains": (
            BusinessDomain(name="corp.test", component_secret="secret"),  # type: ignore[arg-type]  # pydantic wraps it
            BusinessDomain(
                name="pbx.test",
                kind=DomainKind.ROUTED,
                component_secret="secret",  # type: ignore[arg-type]  # pydantic wraps it
                peers=(SipPeer(host="127.0.0.1", port=5070),),
            ),
        ),
        "sip": SipSettings(),
        "xmpp": XmppSettings(consumer_domain="people.test"),
    }
    return Configuration(**{**settings, **changes})


class AdministrationWorld:
    """One company with its administrator. `await world.start()` loads; `world.do("user.add", ...)` acts as root."""

    def __init__(self, *, is_live: bool = True, configuration: Configuration | None = None) -> None:
        self.configuration = configuration or example_configuration()
        self.store, self.bus, self.clock = MemoryStore(), InProcessBus(), FakeClock()
        self.trace = Trace(self.clock.wall)
        self.directory = Directory(self.configuration, self.store, self.bus)
        self.photos = Photos(self.directory, self.store, self.bus, self.clock)
        self.policing = Policing(
            self.store,
            self.bus,
            self.clock,
            self.trace,
            business_domains=[domain.name for domain in self.configuration.domains],
            consumer_domain=self.configuration.xmpp.consumer_domain,
            service_locals=("isthmus", "echo", "doctor"),
        )
        self.contacts = Contacts(self.store, self.bus, self.directory, self.policing, self.clock, self.trace)
        self.consumers = MemoryConsumerAccounts()
        self.accounts = Accounts(
            self.configuration, self.store, self.directory, self.policing, self.bus, self.clock, self.consumers
        )
        self.explanation = Explanation(self.store, self.policing, self.directory, self.contacts, self.trace)
        self.administration = Administration(
            self.configuration,
            self.store,
            self.policing,
            self.contacts,
            self.accounts,
            self.explanation,
            self.clock,
            contact_import=ContactImport(self.contacts, self.directory, self.store, self.clock),
            is_live=is_live,
            more=self.photos.functions,
        )

    async def start(self) -> None:
        """Load everything, as at start-up."""
        await self.store.open()
        await self.directory.load()
        await self.photos.load()
        await self.policing.load()
        await self.contacts.load()

    async def do(self, operation: str, **arguments: Any) -> Any:
        """Run an operation as root, and let everybody who hears of it finish."""
        try:
            return await self.administration.call(operation, arguments, actor="root")
        finally:
            await self.bus.drained()
