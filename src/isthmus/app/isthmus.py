"""Builds every part once, joins them, starts and stops them in order.

Reading `Isthmus.__init__` from top to
bottom is reading the architecture: surroundings, people and policy, SIP, presence, messages, XMPP, administration.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

import structlog

from isthmus import __version__
from isthmus.admin.control import Control
from isthmus.admin.doctor import Examination
from isthmus.admin.doctor_round_trip import RoundTrips
from isthmus.admin.web import HealthAndMetrics
from isthmus.app.calls import CallParts
from isthmus.app.secret_key import secret_key
from isthmus.bus.in_process import InProcessBus
from isthmus.config import Configuration
from isthmus.errors import IsthmusError
from isthmus.metrics import Metrics
from isthmus.model import Address, canonical_domain
from isthmus.net.dns import DnsClient
from isthmus.net.media_examination import MediaExamination
from isthmus.net.media_plane import MediaPlane
from isthmus.net.prosody_accounts import ProsodyAccounts
from isthmus.net.prosody_process import ProsodyProcess
from isthmus.net.sip_endpoint import NetworkSipEndpoint
from isthmus.net.sip_neighbours import NeighbourAddresses
from isthmus.net.sip_resolver import SipResolver
from isthmus.net.system_clock import SystemClock
from isthmus.net.xmpp_component import ComponentLink
from isthmus.net.xmpp_queries import QueryResponder
from isthmus.ports import Flow, IncomingRequest, XmppLink
from isthmus.services.accounts import Accounts, service_locals
from isthmus.services.administration import Administration
from isthmus.services.authentication import Authenticator
from isthmus.services.consent import Consent
from isthmus.services.contact_import import ContactImport
from isthmus.services.contacts import Contacts
from isthmus.services.delivery import BusinessDelivery
from isthmus.services.directory import Directory
from isthmus.services.explanation import Explanation, offered_by
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.messaging import Messaging
from isthmus.services.notifier import Notifier
from isthmus.services.photos import Photos
from isthmus.services.policing import Policing
from isthmus.services.presence_agent import PresenceAgent
from isthmus.services.presence_package import PresencePackage
from isthmus.services.presence_subscriber import PresenceSubscriber
from isthmus.services.presence_views import PresenceViews
from isthmus.services.profiles import ContactProfiles
from isthmus.services.publications import Publications
from isthmus.services.rate_limits import RateLimits
from isthmus.services.registrar import Registrar
from isthmus.services.remote_presence import RemotePresence
from isthmus.services.user_agent_server import UserAgentServer
from isthmus.services.watcher_information import WatcherInformation
from isthmus.services.xmpp_presence import XmppPresence
from isthmus.sip.message import SipRequest
from isthmus.store.sql_store import SqlStore
from isthmus.trace import Trace

# How long "ready" waits for the component streams; an absent XMPP server delays the start by this and no more.
LINK_SECONDS = 10.0
# Objects between two looks of the garbage collector, and looks at the young per look at the older ones. Ten messages
# allocate Python's own 700, and nearly all are freed without the collector: it would look a hundred times a second at
# what is still in flight. The price is that what hangs in a cycle waits until some megabytes of others were made.
COLLECTOR_THRESHOLDS = (20_000, 20, 20)
# Tells scripts that everything is up; holds where we listen.
READY_FILE = "ready"

_log = structlog.get_logger(__name__)


class Isthmus:
    """One running gateway. Make it inside the event loop; `start` and `stop` it once."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._ready_file = configuration.data_directory / READY_FILE
        self._is_open = False
        domains = [canonical_domain(domain.name) for domain in configuration.domains]
        limits, settings = configuration.limits, configuration.sip

        # surroundings
        self.clock = SystemClock()
        self.trace = Trace(self.clock.wall)
        self.metrics = Metrics()
        self.bus = InProcessBus()
        self.store = SqlStore(configuration.data_directory, configuration.store_url)
        secret = secret_key(configuration.data_directory)

        # people and policy
        self.directory = Directory(configuration, self.store, self.bus)
        self.photos = Photos(self.directory, self.store, self.bus, self.clock)
        self.policing = Policing(
            self.store,
            self.bus,
            self.clock,
            self.trace,
            business_domains=domains,
            consumer_domain=configuration.xmpp.consumer_domain,
            defaults=configuration.policy,
            service_locals=service_locals(configuration),
            metrics=self.metrics,
        )
        self.contacts = Contacts(
            self.store,
            self.bus,
            self.directory,
            self.policing,
            self.clock,
            self.trace,
            maximum_pending=limits.pending_requests_per_user,
            maximum_watched=limits.subscriptions_per_watcher,
        )

        # SIP
        self.endpoint = NetworkSipEndpoint(
            settings,
            trace=self.trace,
            on_request=self._request_received,
            on_flow_closed=self._flow_closed,
            on_cancel=self._call_cancelled,
            data_directory=configuration.data_directory,
            has_trace_bodies=configuration.log.bodies,
        )
        self.registrar = Registrar(
            self.directory, self.store, self.bus, self.clock, settings, self.trace, secret=secret
        )
        self.rates = RateLimits(limits, self.clock.monotonic)
        self.loops = LoopProtection(secret, domains[0] if domains else "isthmus")
        self.delivery = BusinessDelivery(self.directory, self.registrar, self.endpoint, self.clock)
        authenticator = Authenticator(
            self.directory, settings, self.clock, self.trace, secret=secret, metrics=self.metrics
        )
        self.neighbours = NeighbourAddresses(
            SipResolver(settings.dns_servers), authenticator.hosts_to_resolve(), authenticator.note_addresses
        )
        self.user_agent_server = UserAgentServer(
            self.directory,
            authenticator,
            self.registrar,
            self.rates,
            self.loops,
            self.trace,
            metrics=self.metrics,
        )

        # presence
        self.publications = Publications(self.store, self.clock, settings, self._publication_changed)
        self.presence_agent = PresenceAgent(self.publications, self.registrar, self.directory, self.bus, self.clock)
        self.remote_presence = RemotePresence(self.bus, self.clock)
        self.views = PresenceViews(self.directory, self.policing, self.presence_agent, self.remote_presence)
        self.notifier = Notifier(
            self.endpoint,
            self.store,
            self.clock,
            self.trace,
            settings,
            maximum_per_watcher=limits.subscriptions_per_watcher,
            metrics=self.metrics,
        )
        self.presence_package = PresencePackage(
            self.notifier, self.contacts, self.views, self.directory, self.directory, self.bus, self.clock
        )
        self.watcher_information = WatcherInformation(self.notifier, self.contacts, self.bus, self.clock)
        self.presence_subscriber = PresenceSubscriber(
            self.endpoint,
            self.delivery,
            self.contacts,
            self.remote_presence,
            self.directory,
            self.bus,
            self.clock,
            self.trace,
            is_watched=self.presence_package.is_watching,
        )

        # messages
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
            limits=limits,
            metrics=self.metrics,
        )
        self.consent = Consent(
            self.contacts, self.directory, self.bus, self.messaging, self.watcher_information.has_viewer
        )
        self.messaging.set_command(self.consent.command_received)
        self.user_agent_server.serve_messages(self.messaging.receive_request)
        self.user_agent_server.serve("SUBSCRIBE", self.notifier.receive)
        self.user_agent_server.serve("PUBLISH", self.publications.receive)
        self.user_agent_server.serve("NOTIFY", self.presence_subscriber.notify_received)

        # media
        identity = hashlib.sha256(b"media relays\0" + secret).hexdigest()[:12]
        self.media = MediaPlane(configuration, identity=identity, trace=self.trace, metrics=self.metrics)

        # calls
        self.links: dict[str, ComponentLink] = {}
        self.calls = CallParts(
            configuration,
            self.directory,
            self.policing,
            self.contacts,
            self.store,
            self.bus,
            self.clock,
            self.trace,
            self.metrics,
            endpoint=self.endpoint,
            delivery=self.delivery,
            authenticator=authenticator,
            loops=self.loops,
            presence_agent=self.presence_agent,
            remote_presence=self.remote_presence,
            messaging=self.messaging,
            links=self.links,
            relay=self.media.relays,
            echo=self.media.echo,
        )
        self.user_agent_server.serve_calls(self.calls.sip)

        # XMPP
        self.prosody = ProsodyProcess(configuration, trace=self.trace) if configuration.xmpp.embedded else None
        self.xmpp_presence = XmppPresence(
            self.links,
            self.contacts,
            self.views,
            self.remote_presence,
            self.directory,
            self.directory,
            self.bus,
            self.clock,
            self.trace,
            is_watched=self.presence_package.is_watching,
            extensions=lambda user: self.calls.capabilities(user) + self.photos.update(user),
        )
        self._make_links(domains)

        # administration
        self.health = HealthAndMetrics(configuration.web, self.metrics, self.reasons_not_ready)
        self.administration = self._build_administration()
        self.control = Control(self.administration, self.trace, configuration.data_directory)
        self._watch_numbers()

    def _make_links(self, domains: Sequence[str]) -> None:
        configuration = self.configuration
        profiles = ContactProfiles(
            self.directory,
            self.contacts,
            self.views,
            self.clock,
            calls=self.calls.offered.to,
            photo=self.photos.photo,
        )
        for domain, configured in zip(domains, configuration.domains, strict=True):
            self.links[domain] = ComponentLink(
                domain,
                configured.component_secret.get_secret_value(),
                configuration.xmpp,
                sink=self,
                responder=QueryResponder(
                    domain,
                    profiles,
                    clock=self.clock,
                    version=__version__,
                    kept=self.store.journal.flush,
                    calls=self.calls.jingle,
                ),
                trace=self.trace,
                shows_bodies=configuration.log.bodies,
            )

    def _build_administration(self) -> Administration:
        configuration = self.configuration
        consumers = ProsodyAccounts(self.prosody.paths) if self.prosody is not None else None
        return Administration(
            configuration,
            self.store,
            self.policing,
            self.contacts,
            Accounts(configuration, self.store, self.directory, self.policing, self.bus, self.clock, consumers),
            Explanation(
                self.store,
                self.policing,
                self.directory,
                self.contacts,
                self.trace,
                devices=lambda user: len(self.registrar.bindings(user)),
                offered=offered_by(configuration),
            ),
            self.clock,
            contact_import=ContactImport(self.contacts, self.directory, self.store, self.clock),
            is_live=True,
            doctor=Examination(
                configuration,
                DnsClient(configuration.sip.dns_servers),
                self.clock.wall,
                links=lambda: {name: link.is_connected for name, link in self.links.items()},
                probe=RoundTrips(self.directory, self.store, self.bus, self.links, lambda: self.endpoint.bound),
                media=MediaExamination(configuration, is_live=True).examine,
            ),
            status=self.status,
            more={**self.photos.functions, **self.calls.operations.functions},
        )

    # --- life ---

    async def start(self) -> None:
        """Bring everything up, from the store outwards. Raises LocalError with what to do."""
        await self.store.open()  # takes the lock of the data directory: from here on its files are ours
        self._ready_file.unlink(missing_ok=True)
        self._is_open = True
        await self.directory.load()
        await self.photos.load()
        await self.policing.load()
        await self.contacts.load()
        await self.registrar.load()
        await self.publications.load()
        await self.neighbours.start()
        await self.endpoint.start()
        await self.notifier.load()
        waiting = await self.messaging.start()
        if waiting:
            _log.info("messages of the last run wait for delivery", count=waiting)
        self.presence_subscriber.load()
        await self.health.start()
        await self.control.start()
        media = asyncio.create_task(self.media.start(), name="media")
        try:
            if self.prosody is not None:
                await self.prosody.start()
        finally:
            await media
        for link in self.links.values():
            link.start()
        await self._await_links()
        await self.calls.start()
        # Everything made so far lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        # In one step: whoever waits for the file reads it the moment it is there.
        unfinished = self._ready_file.with_suffix(".new")
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(self.status()) + "\n")
        unfinished.rename(self._ready_file)

    async def _await_links(self) -> None:
        if not self.links:
            return
        waits = [asyncio.ensure_future(link.connected()) for link in self.links.values()]
        _, missing = await asyncio.wait(waits, timeout=LINK_SECONDS)
        for wait in missing:
            wait.cancel()
        for domain, link in self.links.items():
            if not link.is_connected:
                _log.warning(
                    "the XMPP server does not take our component yet; it is tried again until it does",
                    domain=domain,
                    server=f"{self.configuration.xmpp.host}:{self.configuration.xmpp.component_port}",
                )

    async def stop(self) -> None:
        """Take everything down in the opposite order; what is not delivered stays in the journal."""
        if not self._is_open:
            return  # somebody else's data directory, or none at all: nothing was started
        self._ready_file.unlink(missing_ok=True)
        steps = [
            self.control.stop(),
            self.health.stop(),
            self.calls.calls.stop(),
            self.messaging.stop(),
            *(link.stop() for link in self.links.values()),
            self.endpoint.stop(),
            self.neighbours.stop(),
            self.media.stop(),
            *([self.prosody.stop()] if self.prosody is not None else []),
            self.policing.close(),
            self.store.close(),
        ]
        for step in steps:
            try:
                await step
            except IsthmusError as error:
                _log.warning("not everything stopped cleanly", error=str(error))

    # --- what joins parts that must not know each other ---

    def _request_received(self, incoming: IncomingRequest) -> None:
        self.user_agent_server(incoming)

    def _flow_closed(self, flow: Flow) -> None:
        self.registrar.flow_closed(flow)
        self.calls.sip.flow_closed(flow)

    def _call_cancelled(self, invite: IncomingRequest, cancel: SipRequest) -> None:
        self.calls.sip.cancelled(invite, cancel)

    def _publication_changed(self, address: Address) -> None:
        self.presence_agent.changed(address)

    def message_received(self, link: XmppLink, stanza: Element) -> None:
        """Hand a message stanza on (`ports.StanzaSink`)."""
        if not self.calls.jingle.take_message(link, stanza):
            self.messaging.message_received(link, stanza)

    def presence_received(self, link: XmppLink, stanza: Element) -> None:
        """Hand a presence stanza on (`ports.StanzaSink`)."""
        self.xmpp_presence.presence_received(link, stanza)
        self.calls.jingle.presence_received(link, stanza)

    def link_up(self, link: XmppLink) -> None:
        """The component of a domain is connected (`ports.StanzaSink`)."""
        self.trace.decision(f"component {link.domain} is connected", people=(link.domain,), rule="link.up")
        self.messaging.link_up(link)
        self.xmpp_presence.link_up(link)
        self.calls.jingle.link_up(link)

    def link_down(self, link: XmppLink) -> None:
        """The component of a domain is lost (`ports.StanzaSink`)."""
        self.trace.decision(f"component {link.domain} is lost", people=(link.domain,), rule="link.down", mark="x")
        self.metrics.link_losses.add(link.domain)
        self.messaging.link_down(link)

    # --- what the operator asks ---

    def reasons_not_ready(self) -> Sequence[str]:
        """Why we cannot do our work now; empty when we can."""
        store = [self.store.trouble] if self.store.trouble else []
        links = [f"the component {name} is not connected" for name, link in self.links.items() if not link.is_connected]
        return store + links

    def status(self) -> Mapping[str, object]:
        """Numbers of the running server, for `isthmus status` and the ready file."""
        listeners = [f"{name} {host}:{port}" for name, (host, port) in self.endpoint.bound.items()]
        return {
            "listeners": listeners,
            "web": "{}:{}".format(*self.health.bound),
            "components": [f"{name} {'up' if link.is_connected else 'down'}" for name, link in self.links.items()],
            "registrations": self.registrar.count(),
            "subscriptions": len(self.notifier),
            **self.media.status(),
        }

    def _watch_numbers(self) -> None:
        watch = self.metrics.watch
        watch("isthmus_registrations", "Live SIP registrations", self.registrar.count)
        watch("isthmus_subscriptions", "Live SIP subscriptions", lambda: len(self.notifier))
        watch("isthmus_sip_transactions", "Unfinished SIP transactions", lambda: self.endpoint.pending)
        watch(
            "isthmus_xmpp_link_up",
            "1 while the component of a domain is connected",
            lambda: {(name,): float(link.is_connected) for name, link in self.links.items()},
            ("domain",),
        )
