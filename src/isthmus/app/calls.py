"""Joins the parts of calls: the doors of both realms, the devices to ring, media, records, and what surrounds them."""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.config import Configuration
from isthmus.metrics import Metrics
from isthmus.model import Address, Realm
from isthmus.ports import Bus, CallSipEndpoint, Clock, MediaRelay, Store, XmppLink
from isthmus.services.authentication import Authenticator
from isthmus.services.calls.calls import Calls
from isthmus.services.calls.echo_leg import EchoMedia, EchoRinger
from isthmus.services.calls.jingle.consumer_devices import ConsumerDevices
from isthmus.services.calls.jingle.consumer_legs import ConsumerLegs
from isthmus.services.calls.jingle.door import JingleDoor
from isthmus.services.calls.jingle.leg import JingleSurroundings
from isthmus.services.calls.jingle.registry import JingleRegistry
from isthmus.services.calls.jingle.ringer import JingleRinger
from isthmus.services.calls.jingle.wire import JingleWire
from isthmus.services.calls.leftovers import Leftovers
from isthmus.services.calls.leg import Leg
from isthmus.services.calls.missed import MissedCalls
from isthmus.services.calls.offered import OfferedCalls
from isthmus.services.calls.operations import CallOperations
from isthmus.services.calls.records import CallRecords
from isthmus.services.calls.sip.calls import SipCalls
from isthmus.services.calls.sip.door import SipDoor
from isthmus.services.calls.sip.ringer import SipRinger
from isthmus.services.calls.transfer import DialogName
from isthmus.services.contacts import Contacts
from isthmus.services.delivery import BusinessDelivery
from isthmus.services.directory import Directory
from isthmus.services.events import CallEnded
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.messaging import Messaging
from isthmus.services.policing import Policing
from isthmus.services.presence_agent import PresenceAgent
from isthmus.services.remote_presence import RemotePresence
from isthmus.trace import Trace
from isthmus.xmpp.capabilities import capabilities_element


class CallParts:
    """Everything of calls.

    Attributes:
        calls: the calls themselves.
        sip, jingle: the ways in.
        offered: what calls to our people may carry.
        operations: what administrators do with calls.
    """

    def __init__(
        self,
        configuration: Configuration,
        directory: Directory,
        policing: Policing,
        contacts: Contacts,
        store: Store,
        bus: Bus,
        clock: Clock,
        trace: Trace,
        metrics: Metrics,
        *,
        endpoint: CallSipEndpoint,
        delivery: BusinessDelivery,
        authenticator: Authenticator,
        loops: LoopProtection,
        presence_agent: PresenceAgent,
        remote_presence: RemotePresence,
        messaging: Messaging,
        links: Mapping[str, XmppLink],
        relay: MediaRelay | None,
        echo: EchoMedia,
    ) -> None:
        self._messaging = messaging
        self._records = CallRecords(store, clock, configuration.calls)
        self._dialogs = SipCalls(endpoint, delivery, loops, clock, trace)
        self.calls = Calls(
            directory,
            policing,
            contacts,
            loops,
            bus,
            clock,
            trace,
            configuration.calls,
            relay=relay,
            presence=presence_agent,
            records=self._records,
            find_leg=self._find_leg,
            metrics=metrics,
        )
        self.sip = SipDoor(self._dialogs, directory, authenticator, self.calls.receive)
        self.sip.messages_to(messaging.receive_request)
        ringer = SipRinger(self._dialogs, directory, directory.display_name)
        self.calls.ring_with(ringer, Realm.BUSINESS_HOSTED, Realm.BUSINESS_ROUTED)
        self.calls.echo_with(EchoRinger(echo, clock))
        self.offered = OfferedCalls(configuration.calls, policing)
        wire = JingleWire(links)
        self._sessions = JingleRegistry(clock)
        around = JingleSurroundings(wire, self._sessions, clock, trace)
        self.jingle = JingleDoor(around, directory, self.calls.receive)
        self._leftovers = Leftovers(store, directory, self._dialogs, wire, clock, trace)
        devices = ConsumerDevices(wire, remote_presence, bus, may_probe=contacts.sees)
        legs = ConsumerLegs(around, devices, sees=contacts.sees, capabilities=self.capabilities)
        self.calls.ring_with(JingleRinger(legs), Realm.CONSUMER)
        MissedCalls(bus, directory.realm_of, messaging, self._tell_consumer)
        self.operations = CallOperations(store, clock, self.calls)
        metrics.watch("isthmus_calls", "Calls that are not over", self.calls.number_of_calls)

    async def start(self) -> None:
        """End what a crash of the last run left of its calls; once the links are up or were waited for."""
        await self._leftovers.end_all(self._records.keep_seconds)
        await self._records.erase_expired()

    def capabilities(self, user: Address) -> str:
        """Return the entity capabilities of one of our people's devices (XEP-0115)."""
        return capabilities_element(self.offered.to(user))

    def _find_leg(self, name: DialogName) -> Leg | None:
        return self.sip.leg_named(name) or self._sessions.leg(name[0])

    async def _tell_consumer(self, event: CallEnded, text: str) -> None:
        await self._messaging.send_notice(event.callee, text, sender=event.caller)
