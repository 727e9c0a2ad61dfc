"""A whole house for plays about messages: the real services on a fake clock, network, link and store."""

from __future__ import annotations

import asyncio
import itertools
from ipaddress import ip_network
from typing import Any
from xml.etree.ElementTree import Element

from pydantic import SecretStr

from isthmus.bus.in_process import InProcessBus
from isthmus.config import BusinessDomain, Configuration, DomainKind, LimitSettings, SipPeer, SipSettings
from isthmus.metrics import Metrics
from isthmus.model import Address, Authorisation, AuthorisationState, User
from isthmus.ports import Flow, XmppLink
from isthmus.services.authentication import Authenticator
from isthmus.services.contacts import Contacts
from isthmus.services.delivery import BusinessDelivery
from isthmus.services.directory import Directory
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.messaging import Messaging
from isthmus.services.policing import Policing
from isthmus.services.rate_limits import RateLimits
from isthmus.services.registrar import Registrar
from isthmus.services.user_agent_server import UserAgentServer
from isthmus.sip.digest import answer_challenge, ha1
from isthmus.sip.message import SipRequest
from isthmus.trace import Trace
from tests.support.clock import FakeClock
from tests.support.memory_store import MemoryStore
from tests.support.sip import (
    UDP_PHONE,
    MemoryIncomingRequest,
    MemorySipEndpoint,
    SentRequest,
    message_request,
    register_request,
)
from tests.support.xmpp import MemoryXmppLink, settle

SECRET = b"a secret of plays, 32 octets...."
ANA = Address("ana", "corp.test")
BEA = Address("bea", "corp.test")
BEN = Address("ben", "people.test")
PAT = Address("pat", "pbx.test")
PBX = Flow("udp", "198.51.100.5", 5060, "192.0.2.1", 5060)

COMPONENT = "{jabber:component:accept}"


_calls = itertools.count(1)


class _Sink:
    """Hands stanzas to the message router, as the application does."""

    def __init__(self, house: House) -> None:
        self._house = house

    def message_received(self, link: XmppLink, stanza: Element) -> None:
        self._house.messaging.message_received(link, stanza)

    def presence_received(self, link: XmppLink, stanza: Element) -> None:
        raise AssertionError("no presence in plays about messages")

    def link_up(self, link: XmppLink) -> None:
        self._house.messaging.link_up(link)

    def link_down(self, link: XmppLink) -> None:
        self._house.messaging.link_down(link)


class House:
    """`corp.test` hosted with ana and bea, `pbx.test` routed by 198.51.100.5, both joined to XMPP."""

    def __init__(self, *, store: MemoryStore | None = None, clock: FakeClock | None = None, **limits: Any) -> None:
        self.clock = clock or FakeClock()
        self.store = store or MemoryStore(self.clock.wall, self.clock.monotonic)
        self.limits = LimitSettings(**limits)
        self.settings = SipSettings()
        self.configuration = Configuration(
            domains=(
                BusinessDomain(name="corp.test", component_secret=SecretStr("x")),
                BusinessDomain(
                    name="pbx.test",
                    kind=DomainKind.ROUTED,
                    component_secret=SecretStr("x"),
                    peers=(
                        SipPeer(host="198.51.100.5", port=5060, allow_from=(ip_network("198.51.100.0/29"),)),
                        SipPeer(host="198.51.100.6", port=5060, priority=1),
                    ),
                ),
            ),
            limits=self.limits,
        )
        self.bus = InProcessBus()
        self.trace = Trace(self.clock.wall)
        self.metrics = Metrics()
        self.endpoint = MemorySipEndpoint()
        self.directory = Directory(self.configuration, self.store, self.bus)
        self.policing = Policing(
            self.store,
            self.bus,
            self.clock,
            self.trace,
            business_domains=("corp.test", "pbx.test"),
            consumer_domain="people.test",
            service_locals=("isthmus", "echo"),
        )
        self.contacts = Contacts(self.store, self.bus, self.directory, self.policing, self.clock, self.trace)
        self.registrar = Registrar(
            self.directory, self.store, self.bus, self.clock, self.settings, self.trace, secret=SECRET
        )
        self.authenticator = Authenticator(
            self.directory, self.settings, self.clock, self.trace, secret=SECRET, metrics=self.metrics
        )
        self.rates = RateLimits(self.limits, self.clock.monotonic)
        self.loops = LoopProtection(SECRET, "node-1")
        self.delivery = BusinessDelivery(self.directory, self.registrar, self.endpoint, self.clock, spread=lambda: 0.5)
        self.messaging = Messaging(
            self.directory,
            self.delivery,
            self.endpoint,
            self.store,
            self.bus,
            self.clock,
            self.trace,
            relations=self.contacts,
            policing=self.policing,
            rates=self.rates,
            loops=self.loops,
            limits=self.limits,
            metrics=self.metrics,
        )
        self.server = UserAgentServer(
            self.directory, self.authenticator, self.registrar, self.rates, self.loops, self.trace, metrics=self.metrics
        )
        self.server.serve_messages(self.messaging.receive_request)
        self.endpoint.on_request = self.server
        self.endpoint.on_flow_closed = self.registrar.flow_closed
        self.link = MemoryXmppLink("corp.test", _Sink(self))
        self.pbx_link = MemoryXmppLink("pbx.test", _Sink(self))

    async def open(self, *, is_linked: bool = True) -> House:
        """Start as the application does: load, replay, connect."""
        await self.store.open()
        for name in ("ana", "bea"):
            address = Address(name, "corp.test")
            digests = {kind: ha1(name, "corp.test", f"{name}'s password", kind) for kind in ("SHA-256", "MD5")}
            if not any(user.address == address for user in await self.store.users()):
                await self.store.save_user(User(address, name.capitalize(), digests))
        await self.directory.load()
        await self.policing.load()
        await self.contacts.load()
        await self.registrar.load()
        await self.messaging.start()
        if is_linked:
            self.link.restore()
            self.pbx_link.restore()
        return self

    def crash(self) -> House:
        """The next house on the same disk, as after `kill -9`."""
        self.link.sink = self.pbx_link.sink = None
        self.endpoint.on_request = None
        return House(store=self.store, clock=self.clock, **self.limits.model_dump(exclude_unset=True))

    async def befriend(self, watcher: Address, presentity: Address) -> None:
        """Let `watcher` see `presentity`."""
        now = self.clock.wall()
        await self.store.save_authorisation(Authorisation(watcher, presentity, AuthorisationState.ACTIVE, now, now))
        await self.contacts.load()

    # --- SIP ---

    async def sip(self, request: SipRequest, flow: Flow = UDP_PHONE, password: str = "") -> MemoryIncomingRequest:
        """Send as a phone does: answer the challenge with the password of the sender, and wait for the answer."""
        incoming = self.endpoint.receive(request, flow)
        response = await incoming.answered()
        if response.status != 401:
            return incoming
        user = str(getattr(request.from_address.uri, "user", ""))
        again = answer_challenge(
            request, response, username=user, password=password or f"{user}'s password", cnonce="c0ffee"
        )
        assert again is not None
        again.headers.prepend("Via", str(request.top_via.with_param("branch", f"{request.top_via.branch}-again")))
        incoming = self.endpoint.receive(again, flow)
        await incoming.answered()
        return incoming

    async def register(
        self, user: str = "ana@corp.test", contact: str = "", flow: Flow = UDP_PHONE, **options: Any
    ) -> MemoryIncomingRequest:
        """Register a phone; by default ana's at 192.0.2.10:5060 over UDP."""
        name = user.partition("@")[0]
        contact = contact or f"<sip:{name}@{flow.remote_host}:{flow.remote_port};transport={flow.transport}>"
        options.setdefault("call_id", f"register-{next(_calls)}")
        incoming = await self.sip(register_request(user, contact, **options), flow)
        await settle()
        return incoming

    async def says(self, sender: str, recipient: str, text: str, flow: Flow = UDP_PHONE, **options: Any) -> int:
        """Send a MESSAGE and return the status of the answer."""
        incoming = await self.sip(message_request(sender, recipient, text, **options), flow)
        await settle()
        return incoming.status

    def taken(self) -> list[SentRequest]:
        """MESSAGE requests that went out since the last look."""
        return [sent for sent in self.endpoint.take() if sent.request.method == "MESSAGE"]

    # --- XMPP ---

    async def hears(self, text: str) -> None:
        """Let a stanza arrive from XMPP for corp.test (or pbx.test, by its `to`) and everything it causes happen."""
        link = self.pbx_link if "@pbx.test" in text.partition("to='")[2].partition("'")[0] else self.link
        link.receive(text)
        await settle(20)

    async def chat(self, text: str, *, to: str = "ana@corp.test", ident: str = "m1", extra: str = "") -> None:
        """ben writes a chat message from his phone."""
        await self.hears(
            f"<message type='chat' id='{ident}' from='ben@people.test/phone' to='{to}'>"
            f"<body>{text}</body>{extra}</message>"
        )

    async def later(self, seconds: float) -> None:
        """Let time pass, and what it causes happen."""
        while seconds > 0:
            self.clock.advance(min(seconds, 5.0))
            seconds -= 5.0
            await settle(20)

    @property
    def journal(self) -> list[str]:
        """Texts that are still in the journal."""
        return [entry.message.text for _, entry in sorted(self.store.journal.entries.items())]


def bodies(elements: list[Element]) -> list[str]:
    """Bodies of stanzas."""
    return [element.findtext(f"{COMPONENT}body") or "" for element in elements]


def texts(sent: list[SentRequest]) -> list[str]:
    """Bodies of requests."""
    return [request.text for request in sent]


async def eventually(condition: Any, turns: int = 200) -> None:
    """Let the loop turn until the condition holds."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")
