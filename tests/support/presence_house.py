"""Contacts and presence of one business domain in memory: real services, fake time, no network.

ana@corp.test and carl@corp.test are hosted, bob@pbx.test is routed, ben@people.test lives on XMPP.
"""

from __future__ import annotations

import asyncio

from pydantic import SecretStr

from isthmus.bus.in_process import InProcessBus
from isthmus.config import BusinessDomain, Configuration, DomainKind, SipPeer
from isthmus.metrics import Metrics
from isthmus.model import Address, User
from isthmus.ports import Binding, Flow
from isthmus.services.authentication import Identity
from isthmus.services.consent import Consent
from isthmus.services.contacts import Contacts
from isthmus.services.delivery import BusinessDelivery
from isthmus.services.directory import Directory
from isthmus.services.events import BindingsChanged
from isthmus.services.notifier import Notifier
from isthmus.services.photos import Photos
from isthmus.services.policing import Policing
from isthmus.services.presence_agent import PresenceAgent
from isthmus.services.presence_package import PRESENCE, PresencePackage
from isthmus.services.presence_subscriber import PresenceSubscriber
from isthmus.services.presence_views import PresenceViews
from isthmus.services.publications import Publications
from isthmus.services.registrar import Registrar
from isthmus.services.remote_presence import RemotePresence
from isthmus.services.watcher_information import WatcherInformation
from isthmus.services.xmpp_presence import XmppPresence
from isthmus.trace import Trace
from tests.support.clock import FakeClock
from tests.support.memory_store import MemoryStore
from tests.support.sip import (
    UDP_PHONE,
    MemoryIncomingRequest,
    MemorySipEndpoint,
    SentRequest,
    sip_request,
)
from tests.support.xmpp import MemoryXmppLink

ANA = Address("ana", "corp.test")
CARL = Address("carl", "corp.test")
BOB = Address("bob", "pbx.test")
BEN = Address("ben", "people.test")
SERVICE = Address("isthmus", "corp.test")

CONFIGURATION = Configuration(
    domains=(
        BusinessDomain(name="corp.test", component_secret=SecretStr("secret")),
        BusinessDomain(
            name="pbx.test",
            kind=DomainKind.ROUTED,
            component_secret=SecretStr("secret"),
            peers=(SipPeer(host="192.0.2.50", tls_names=("pbx.test",)),),
        ),
    )
)


class Notices:
    """Collects notices instead of journalling them."""

    def __init__(self) -> None:
        self.sent: list[tuple[Address, str]] = []

    async def send_notice(self, recipient: Address, text: str) -> None:
        self.sent.append((recipient, text))


class Sink:
    """Hands presence stanzas and link changes to the service, as the application does."""

    def __init__(self, presence: XmppPresence) -> None:
        self.presence_received = presence.presence_received
        self.link_up = presence.link_up

    def message_received(self, *_: object) -> None:
        raise AssertionError("no messages in this play")

    def link_down(self, *_: object) -> None:
        """Nothing to do for presence."""


class PresenceHouse:
    """Everything about contacts and presence, wired. `await open()` first; a second house on one store is a restart."""

    def __init__(
        self,
        store: MemoryStore | None = None,
        clock: FakeClock | None = None,
        endpoint: MemorySipEndpoint | None = None,
        links: tuple[MemoryXmppLink, MemoryXmppLink] | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.store = store or MemoryStore(self.clock.wall, self.clock.monotonic)
        self.trace = Trace(self.clock.wall)
        self.bus = InProcessBus()
        self.endpoint = endpoint or MemorySipEndpoint()
        self.link, self.pbx_link = links or (MemoryXmppLink("corp.test"), MemoryXmppLink("pbx.test"))
        self.directory = Directory(CONFIGURATION, self.store, self.bus)
        self.photos = Photos(self.directory, self.store, self.bus, self.clock)
        self.policing = Policing(
            self.store,
            self.bus,
            self.clock,
            self.trace,
            business_domains=["corp.test", "pbx.test"],
            consumer_domain="people.test",
            service_locals=["isthmus", "echo"],
        )
        self.contacts = Contacts(self.store, self.bus, self.directory, self.policing, self.clock, self.trace)
        self.registrar = Registrar(
            self.directory, self.store, self.bus, self.clock, CONFIGURATION.sip, self.trace, secret=bytes(16)
        )
        self.publications = Publications(self.store, self.clock, CONFIGURATION.sip, self._published)
        self.agent = PresenceAgent(self.publications, self.registrar, self.directory, self.bus, self.clock)
        self.remote = RemotePresence(self.bus, self.clock)
        self.views = PresenceViews(self.directory, self.policing, self.agent, self.remote)
        self.metrics = Metrics()
        self.notifier = Notifier(
            self.endpoint, self.store, self.clock, self.trace, CONFIGURATION.sip, metrics=self.metrics
        )
        self.package = PresencePackage(
            self.notifier, self.contacts, self.views, self.directory, self.directory, self.bus, self.clock
        )
        self.winfo = WatcherInformation(self.notifier, self.contacts, self.bus, self.clock)
        self.notices = Notices()
        self.consent = Consent(self.contacts, self.directory, self.bus, self.notices, self.winfo.has_viewer)
        self.xmpp = XmppPresence(
            {"corp.test": self.link, "pbx.test": self.pbx_link},
            self.contacts,
            self.views,
            self.remote,
            self.directory,
            self.directory,
            self.bus,
            self.clock,
            self.trace,
            is_watched=self.package.is_watching,
            extensions=self.photos.update,
        )
        self.delivery = BusinessDelivery(self.directory, self.registrar, self.endpoint, self.clock, spread=lambda: 0.5)
        self.subscriber = PresenceSubscriber(
            self.endpoint,
            self.delivery,
            self.contacts,
            self.remote,
            self.directory,
            self.bus,
            self.clock,
            self.trace,
            chance=lambda: 0.5,
            is_watched=self.package.is_watching,
        )
        sink = Sink(self.xmpp)
        self.link.sink = self.pbx_link.sink = sink

    def _published(self, address: Address) -> None:
        self.agent.changed(address)

    async def open(self) -> PresenceHouse:
        for user in (ANA, CARL):
            await self.store.save_user(User(user))
        await self.directory.load()
        await self.photos.load()
        await self.policing.load()
        await self.contacts.load()
        await self.registrar.load()
        await self.publications.load()
        await self.notifier.load()
        self.subscriber.load()
        return self

    async def settle(self) -> None:
        """Let every event be handled and every answer come back."""
        for _ in range(5):
            await self.bus.drained()
            await _turn()

    # --- what people do ---

    async def register(self, user: Address, flow: Flow = UDP_PHONE) -> None:
        """A phone of `user` registers."""
        contact = f"sip:{user.local}@{flow.remote_host}:{flow.remote_port}"
        binding = Binding(user, contact, "register", 1, self.clock.wall() + 3600, flow)
        await self.store.save_bindings(user, [binding])
        await self.registrar.load()
        self.bus.send(user, BindingsChanged(user, has_bindings=True, is_new_device=True))
        await self.settle()

    async def subscribe(
        self,
        watcher: Address,
        resource: Address,
        *,
        package: str = PRESENCE,
        expires: int = 3600,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        content_type: str = "",
        flow: Flow = UDP_PHONE,
    ) -> MemoryIncomingRequest:
        """A phone of `watcher` sends an initial SUBSCRIBE."""
        request = sip_request(
            "SUBSCRIBE",
            f"sip:{resource.local}@{resource.domain}",
            sender=f"sip:{watcher.local}@{watcher.domain}",
            headers=(
                ("Event", package),
                ("Expires", str(expires)),
                ("Contact", f"<sip:{watcher.local}@192.0.2.10:5060>"),
                *headers,
            ),
            body=body,
            content_type=content_type,
        )
        incoming = MemoryIncomingRequest(request, flow)
        self.notifier.receive(incoming, Identity(watcher))
        await self.settle()
        return incoming

    async def resubscribe(self, first: MemoryIncomingRequest, *, expires: int, cseq: int = 2) -> MemoryIncomingRequest:
        """A refresh (or, with 0, the end) within the dialog of an earlier SUBSCRIBE."""
        watcher = first.request.from_address.uri
        request = sip_request(
            "SUBSCRIBE",
            str(first.request.uri),
            sender=str(first.request.from_address),
            recipient=str(first.responses[-1].to_address),
            call_id=first.request.call_id,
            cseq=cseq,
            headers=(("Event", first.request.event), ("Expires", str(expires)), ("Contact", f"<{watcher}>")),
        )
        incoming = MemoryIncomingRequest(request, UDP_PHONE)
        address = Address.parse(str(watcher).removeprefix("sip:"))
        self.notifier.receive(incoming, Identity(address))
        await self.settle()
        return incoming

    async def publish(
        self, user: Address, body: str, *, etag: str = "", expires: int = 3600, flow: Flow = UDP_PHONE
    ) -> MemoryIncomingRequest:
        """A phone of `user` publishes its presence document."""
        headers: list[tuple[str, str]] = [("Event", "presence"), ("Expires", str(expires))]
        if etag:
            headers.append(("SIP-If-Match", etag))
        request = sip_request(
            "PUBLISH",
            f"sip:{user}",
            sender=f"sip:{user}",
            headers=headers,
            body=body,
            content_type="application/pidf+xml" if body else "",
        )
        incoming = MemoryIncomingRequest(request, flow)
        self.publications.receive(incoming, Identity(user))
        await self.settle()
        return incoming

    async def stanza(self, text: str, link: MemoryXmppLink | None = None) -> None:
        """A presence stanza arrives from the XMPP server."""
        (link or self.link).receive(text)
        await self.settle()

    # --- what they see ---

    def notifies(self) -> list[SentRequest]:
        """NOTIFY requests sent since the last call, in order."""
        return [sent for sent in self.endpoint.take() if sent.request.method == "NOTIFY"]

    def said(self, link: MemoryXmppLink | None = None) -> list[tuple[str, str, str]]:
        """(type, from, to) of each presence stanza sent since the last call."""
        return [(e.get("type", ""), e.get("from", ""), e.get("to", "")) for e in (link or self.link).take()]


async def _turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def pidf(user: Address, basic: str = "open", person: str = "") -> str:
    """A presence document as a phone publishes it."""
    return (
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model'"
        f" xmlns:rpid='urn:ietf:params:xml:ns:pidf:rpid' entity='sip:{user}'>"
        f"<tuple id='t1'><status><basic>{basic}</basic></status></tuple>{person}</presence>"
    )


def activity(name: str, note: str = "") -> str:
    """A person element with one RPID activity."""
    text = f"<dm:note>{note}</dm:note>" if note else ""
    return f"<dm:person id='p1'><rpid:activities><rpid:{name}/></rpid:activities>{text}</dm:person>"
