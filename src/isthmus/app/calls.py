"""Joins the parts of calls: the doors of both realms, the devices to ring, media, records, and what surrounds them."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree.ElementTree import Element

from isthmus.config import Configuration
from isthmus.metrics import Metrics
from isthmus.model import Realm
from isthmus.ports import Bus, CallSipEndpoint, Clock, MediaRelay, Store, XmppLink
from isthmus.services.authentication import Authenticator
from isthmus.services.calls.calls import Calls
from isthmus.services.calls.leg import Leg
from isthmus.services.calls.missed import MissedCalls
from isthmus.services.calls.operations import CallOperations
from isthmus.services.calls.records import CallRecords
from isthmus.services.calls.sip_calls import SipCalls
from isthmus.services.calls.sip_door import SipDoor
from isthmus.services.calls.sip_ringer import SipRinger
from isthmus.services.calls.transfer import DialogName
from isthmus.services.contacts import Contacts
from isthmus.services.delivery import BusinessDelivery
from isthmus.services.directory import Directory
from isthmus.services.events import CallEnded
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.messaging import Messaging
from isthmus.services.policing import Policing
from isthmus.services.presence_agent import PresenceAgent
from isthmus.trace import Trace


class CallParts:
    """Everything of calls.

    Attributes:
        calls: the calls themselves.
        sip: the way in from SIP.
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
        messaging: Messaging,
        links: Mapping[str, XmppLink],
        relay: MediaRelay | None,
    ) -> None:
        self._messaging = messaging
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
            records=CallRecords(store, clock, configuration.calls),
            find_leg=self._find_leg,
            metrics=metrics,
        )
        self.sip = SipDoor(self._dialogs, directory, authenticator, self.calls.receive)
        ringer = SipRinger(self._dialogs, directory, directory.display_name)
        self.calls.ring_with(ringer, Realm.BUSINESS_HOSTED, Realm.BUSINESS_ROUTED)
        MissedCalls(bus, directory.realm_of, messaging, self._tell_consumer)
        self.operations = CallOperations(store, clock, self.calls)
        metrics.watch("isthmus_calls", "Calls that are not over", self.calls.number_of_calls)

    def _find_leg(self, name: DialogName) -> Leg | None:
        return self.sip.leg_named(name)

    async def _tell_consumer(self, event: CallEnded, text: str) -> None:
        await self._messaging.send_notice(event.callee, text, sender=event.caller)

    # --- from the links ---

    def take_message(self, link: XmppLink, stanza: Element) -> bool:
        """Take a message stanza that is about a call; False when it is not."""
        return False
