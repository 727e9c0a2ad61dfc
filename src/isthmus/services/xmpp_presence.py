"""The component as the server of its users: subscription stanzas, probes and notifications (RFC 6121 sections 3 and 4).

XEP-0114 gives us no roster: whatever a contact's server would do for a business user is done here. Requests that
come in are a table, `_RECEIVED`, over the stanza type; what goes out follows from `AuthorisationChanged` and
`PresenceChanged`. Nothing here knows SIP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol
from xml.etree.ElementTree import Element

from isthmus.errors import AddressError, LinkDownError
from isthmus.interworking.addresses import address_from_jid, address_to_jid
from isthmus.interworking.failures import failure_from_stanza_error, failure_to_stanza_error
from isthmus.interworking.presence import (
    PresenceStanza,
    device_from_stanza,
    prepare_presence,
    presence_to_stanza,
    presentity_jid,
    subscription_stanza,
)
from isthmus.model import (
    Address,
    Authorisation,
    AuthorisationState,
    Availability,
    Failure,
    Origin,
    Presence,
    Realm,
)
from isthmus.ports import Bus, Clock, XmppLink
from isthmus.services.contacts import Contacts, People
from isthmus.services.events import (
    AuthorisationChanged,
    PhotoChanged,
    PresenceChanged,
    PresencePolled,
    RemotePresenceChanged,
    WatchAnswered,
    WatcherAvailability,
    WatchGivenUp,
    WatchingChanged,
    WatchRequested,
)
from isthmus.services.pacing import Pacer
from isthmus.services.presence_views import PresenceViews
from isthmus.services.remote_presence import RemotePresence
from isthmus.services.subscription_outbox import Decision, SubscriptionOutbox
from isthmus.trace import Trace
from isthmus.xmpp.stanza import child, child_text, element

# After a (re)start every contact is told the current state once; Prosody routes this many without noticing.
REFRESHES_PER_SECOND = 1_000.0

# A grant from shortly before a crash may have died unproved with the outbox: it is told again, which servers that had
# it ignore (RFC 6121 section 3.1.6).
RECENT_GRANT_SECONDS = 3_600.0

_ACTIVE = AuthorisationState.ACTIVE
_PENDING = AuthorisationState.PENDING
# What a decision that was told means for the authorisation: told again only while it is so.
_STATE_AFTER = {"subscribed": _ACTIVE, "unsubscribed": None, "unsubscribe": None}
_NOT_KEPT = Failure(Origin.LOCAL, 503, "resource-constraint", "the contact request could not be kept: try again later")


def no_extensions(_user: Address) -> str:
    """Presence of which nothing more is to be said."""
    return ""


class Automata(Protocol):
    """Addresses that are services of ours, not people (`isthmus@`, `echo@`)."""

    def is_automaton(self, address: Address) -> bool:
        """True for a service address; such a contact agrees at once and is always available."""


class XmppPresence:
    """Presence stanzas of all our component links, in and out.

    Args:
        is_watched: True while a SIP dialog of (watcher, presentity) lives: such views are probed after a reconnect.
        extensions: returns further elements for available presence of one of our users: entity capabilities
            (XEP-0115), which photo is the current one (XEP-0153).
    """

    def __init__(
        self,
        links: Mapping[str, XmppLink],
        contacts: Contacts,
        views: PresenceViews,
        remote: RemotePresence,
        people: People,
        automata: Automata,
        bus: Bus,
        clock: Clock,
        trace: Trace,
        *,
        is_watched: Callable[[Address, Address], bool],
        extensions: Callable[[Address], str] = no_extensions,
    ) -> None:
        self._links = links
        self._contacts = contacts
        self._views = views
        self._remote = remote
        self._people = people
        self._automata = automata
        self._bus = bus
        self._clock = clock
        self._trace = trace
        self._is_watched = is_watched
        self._extensions = extensions
        self._outbox = SubscriptionOutbox()
        self._started_at = clock.wall()
        self._pacers: dict[str, Pacer] = {}
        self._received: dict[str, Callable[[Address, str, Address, Element], None]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "subscribed": self._subscribed,
            "unsubscribed": self._unsubscribed,
            "probe": self._probe,
            "": self._available,
            "unavailable": self._unavailable,
            "error": self._error,
        }
        bus.register(AuthorisationChanged, self._authorisation_changed)
        bus.register(PresenceChanged, self._presence_changed)
        bus.register(RemotePresenceChanged, self._remote_presence_changed)
        bus.register(PhotoChanged, self._photo_changed)
        bus.register(WatchingChanged, self._watching_changed)
        bus.register(PresencePolled, self._presence_polled)

    # --- stanzas in ---

    def presence_received(self, link: XmppLink, stanza: Element) -> None:
        """Take one presence stanza; what we cannot read is dropped, never bounced (RFC 6120 section 8.3.1)."""
        try:
            sender, resource = address_from_jid(stanza.get("from", ""))
            recipient, _ = address_from_jid(stanza.get("to", ""))
        except AddressError as error:
            self._trace.decision(f"presence dropped: {error}", rule="address", mark="!")
            return
        if recipient.domain != link.domain or self._people.realm_of(sender.domain).is_business:
            return
        receive = self._received.get(stanza.get("type", ""))
        if receive is not None:
            receive(sender, resource, recipient, stanza)

    def _subscribe(self, watcher: Address, _: str, presentity: Address, stanza: Element) -> None:
        if self._automata.is_automaton(presentity):
            self._send(presentity, subscription_stanza("subscribed", presentity, watcher))
            self._show(watcher, presentity)
        else:
            self._bus.send(presentity, WatchRequested(watcher, presentity, child_text(stanza, "status")))

    def _unsubscribe(self, watcher: Address, _: str, presentity: Address, __: Element) -> None:
        if self._automata.is_automaton(presentity):
            self._send(presentity, subscription_stanza("unsubscribed", presentity, watcher))
            self._send(presentity, self._unavailable_stanza(presentity, watcher))
            return
        self._bus.send(presentity, WatchGivenUp(watcher, presentity))

    def _subscribed(self, presentity: Address, _: str, watcher: Address, __: Element) -> None:
        """A grant nobody asked for is a no-op (pre-approval); one we wait for is the answer."""
        if self._contacts.state(watcher, presentity) is _PENDING:
            self._bus.send(presentity, WatchAnswered(watcher, presentity, is_granted=True))

    def _unsubscribed(self, presentity: Address, _: str, watcher: Address, __: Element) -> None:
        if self._contacts.state(watcher, presentity) is not None:
            self._bus.send(presentity, WatchAnswered(watcher, presentity, is_granted=False))

    def _probe(self, watcher: Address, _: str, presentity: Address, __: Element) -> None:
        """RFC 6121 section 4.3.2: whoever may not see us is told that he is not subscribed.

        A server that probes holds a grant of before. If our user has asked for that person, both want the contact:
        the probe is taken for a request, which is granted, instead of ending what one side keeps (edge case 14).
        """
        state = self._contacts.state(watcher, presentity)
        self._watcher_availability(watcher, presentity, is_available=True)
        if self._automata.is_automaton(presentity) or state is _ACTIVE:
            self._show(watcher, presentity)
        elif state is None and self._has_asked_for(presentity, watcher):
            self._bus.send(presentity, WatchRequested(watcher, presentity, ""))
        elif state is None:
            self._send(presentity, subscription_stanza("unsubscribed", presentity, watcher))

    def _has_asked_for(self, ours: Address, theirs: Address) -> bool:
        is_hosted = self._people.realm_of(ours.domain) is Realm.BUSINESS_HOSTED
        return is_hosted and self._contacts.state(ours, theirs) is not None

    def _available(self, presentity: Address, resource: str, watcher: Address, stanza: Element) -> None:
        if self._contacts.state(watcher, presentity) is None:
            return  # directed presence of somebody our user does not watch
        # Kept while pending too: it follows the grant in the same breath, before the grant is durable.
        if resource:
            if not self._is_seen_online(watcher, presentity):
                self._watcher_availability(presentity, watcher, is_available=True)  # initial presence
            self._remote.device_changed(watcher, presentity, device_from_stanza(stanza, self._clock.wall()))

    def _unavailable(self, presentity: Address, resource: str, watcher: Address, stanza: Element) -> None:
        state = self._contacts.state(watcher, presentity)
        is_contact = state is not None
        if state is _PENDING and not resource:
            # How a server acknowledges our request (RFC 6121 section 3.1.3, "unavailable" of Prosody): it says nothing
            # of whether anybody is there.
            return
        if resource and is_contact:
            self._remote.device_changed(watcher, presentity, device_from_stanza(stanza, self._clock.wall()))
        elif is_contact:
            self._remote.all_devices_gone(watcher, presentity)
        # Of somebody whom ours does not watch one resource going away says nothing of the others.
        if not resource or (is_contact and not self._is_seen_online(watcher, presentity)):
            self._watcher_availability(presentity, watcher, is_available=False)

    def _is_seen_online(self, watcher: Address, presentity: Address) -> bool:
        document = self._remote.document(watcher, presentity)
        return document is not None and document.person.state.is_online

    def _watcher_availability(self, watcher: Address, presentity: Address, *, is_available: bool) -> None:
        """What a routed user's watcher does decides whether the subscription to the neighbour is worth its load."""
        if self._people.realm_of(presentity.domain) is Realm.BUSINESS_ROUTED:
            self._bus.send(presentity, WatcherAvailability(watcher, presentity, is_available))

    def _error(self, presentity: Address, _: str, watcher: Address, stanza: Element) -> None:
        """A request or probe bounced: keep the authorisation (the server may come back) and say why."""
        failure = failure_from_stanza_error(child(stanza, "error"))
        people = (str(watcher), str(presentity))
        self._trace.decision(f"{presentity} could not be asked: {failure.text}", people=people, mark="!")
        if self._contacts.state(watcher, presentity) is _ACTIVE:
            self._remote.all_devices_gone(watcher, presentity)
        if not failure.is_temporary:
            # Nobody is there to see our user: no subscription is kept alive for that (RFC 8048 section 8.1).
            self._watcher_availability(presentity, watcher, is_available=False)

    # --- stanzas out: what follows from decisions ---

    def _authorisation_changed(self, presentity: Address, event: AuthorisationChanged) -> None:
        if not self._people.realm_of(event.watcher.domain).is_business:
            self._tell_watcher(event.watcher, presentity, event)
        elif not self._people.realm_of(presentity.domain).is_business:
            self._ask_presentity(event.watcher, presentity, event)

    def _tell_watcher(self, watcher: Address, presentity: Address, event: AuthorisationChanged) -> None:
        if event.state is _ACTIVE:
            if event.reason != "policy":
                # Clients need the grant before the first presence (hard case i of RFC 8048).
                self._decide("subscribed", watcher, presentity)
            self._show(watcher, presentity)
        elif event.state is None and event.reason == "probation":
            addresses = {"type": "error", "from": address_to_jid(presentity), "to": address_to_jid(watcher)}
            self._send(presentity, element("presence", addresses, failure_to_stanza_error(_NOT_KEPT)))
        elif event.state is None:
            self._decide("unsubscribed", watcher, presentity, status=event.text)
            self._send(presentity, self._unavailable_stanza(presentity, watcher))

    def _ask_presentity(self, watcher: Address, presentity: Address, event: AuthorisationChanged) -> None:
        if event.state is _PENDING and event.reason == "subscribe":
            self._send(watcher, subscription_stanza("subscribe", watcher, presentity))
        elif event.state is None:
            self._remote.forget(watcher, presentity)
            if event.reason == "giveup":
                self._decide("unsubscribe", watcher, presentity)

    def _decide(self, kind: str, watcher: Address, presentity: Address, status: str = "") -> None:
        """Tell a decision that must not be lost with the link."""
        ours, theirs = (watcher, presentity) if kind == "unsubscribe" else (presentity, watcher)
        stanza = subscription_stanza(kind, ours, theirs, status=status)
        self._send(ours, stanza)
        link = self._links.get(ours.domain)
        if link is not None:
            self._outbox.add(link, Decision(watcher, presentity, kind, stanza))

    def _presence_changed(self, presentity: Address, event: PresenceChanged) -> None:
        prepared: dict[Presence, PresenceStanza] = {}
        for row in self._contacts.watchers_of(presentity):
            if row.state is not _ACTIVE or self._people.realm_of(row.watcher.domain).is_business:
                continue
            seen = self._views.reduced(row.watcher, presentity, event.document)
            if seen.document is None:
                continue
            stanza = prepared.get(seen.document.person)
            if stanza is None:
                stanza = prepared[seen.document.person] = self._prepared(presentity, seen.document.person)
            self._send(presentity, stanza.to_escaped(address_to_jid(row.watcher)))

    def _prepared(self, presentity: Address, presence: Presence) -> PresenceStanza:
        return prepare_presence(presentity_jid(presentity), presence, extra=self._extensions(presentity))

    def _unavailable_stanza(self, presentity: Address, watcher: Address, note: str = "") -> str:
        presence = Presence(Availability.OFFLINE, note)
        return presence_to_stanza(presentity_jid(presentity), address_to_jid(watcher), presence)

    def _remote_presence_changed(self, presentity: Address, event: RemotePresenceChanged) -> None:
        """A routed SIP user's presence, watched from XMPP; before the grant was told nothing is shown."""
        is_outbound = (
            self._people.realm_of(presentity.domain).is_business
            and not self._people.realm_of(event.watcher.domain).is_business
        )
        if is_outbound and self._contacts.state(event.watcher, presentity) is _ACTIVE:
            self._show(event.watcher, presentity)

    def _photo_changed(self, presentity: Address, _: PhotoChanged) -> None:
        for row in self._contacts.watchers_of(presentity):
            if row.state is _ACTIVE and not self._people.realm_of(row.watcher.domain).is_business:
                self._show(row.watcher, presentity)

    def _show(self, watcher: Address, presentity: Address) -> None:
        """Send the current presence to one watcher; nothing while nothing is known."""
        if self._automata.is_automaton(presentity):
            stanza = self._prepared(presentity, Presence(Availability.AVAILABLE))
            self._send(presentity, stanza.to(address_to_jid(watcher)))
            return
        seen = self._views.seen(watcher, presentity)
        if seen.hidden_by is not None:
            # "By policy" must not look like "offline" (edge case 13).
            self._send(presentity, self._unavailable_stanza(presentity, watcher, seen.hidden_by.text))
        elif seen.document is not None:
            self._send(presentity, self._prepared(presentity, seen.document.person).to(address_to_jid(watcher)))

    # --- keeping views of XMPP people fresh ---

    def _watching_changed(self, presentity: Address, event: WatchingChanged) -> None:
        if event.is_watching and not self._remote.has_view(event.watcher, presentity):
            self._probe_out(event.watcher, presentity)

    def _presence_polled(self, presentity: Address, event: PresencePolled) -> None:
        self._probe_out(event.watcher, presentity)

    def _probe_out(self, watcher: Address, presentity: Address) -> None:
        if self._people.realm_of(presentity.domain).is_business:
            return
        if self._contacts.state(watcher, presentity) is _ACTIVE:
            self._remote.probe_sent(watcher, presentity)
            self._send(watcher, subscription_stanza("probe", watcher, presentity))

    def link_up(self, link: XmppLink) -> None:
        """(Re)connected: repeat what may be lost, at a pace; equal state sent again flickers nobody (hard case f)."""
        for told in self._outbox.take(link):
            if self._contacts.state(told.watcher, told.presentity) is _STATE_AFTER[told.kind]:
                link.send(told.stanza)
                if told.kind == "unsubscribed":
                    link.send(self._unavailable_stanza(told.presentity, told.watcher))
                self._outbox.add(link, told)
        pacer = self._pacers.setdefault(link.domain, Pacer(self._clock, REFRESHES_PER_SECOND))
        pacer.clear()  # what the last connection did not live to see
        pacer.add(self._refreshes(link))

    def _refreshes(self, link: XmppLink) -> Iterator[Callable[[], None]]:
        for row in self._contacts.all():
            if row.watcher.domain == link.domain or (
                row.presentity.domain == link.domain and not self._people.realm_of(row.watcher.domain).is_business
            ):
                yield partial(self._refresh, link, row)

    def _refresh(self, link: XmppLink, row: Authorisation) -> None:
        if self._contacts.state(row.watcher, row.presentity) is not row.state or not link.is_connected:
            return
        watcher_is_business = self._people.realm_of(row.watcher.domain).is_business
        if not watcher_is_business and row.presentity.domain == link.domain and row.state is _ACTIVE:
            if 0 < self._started_at - (row.decided_at or 0) < RECENT_GRANT_SECONDS:
                self._decide("subscribed", row.watcher, row.presentity)
            self._show(row.watcher, row.presentity)
        elif watcher_is_business and row.watcher.domain == link.domain:
            if row.state is _PENDING:
                self._ask_again(row)
            elif self._is_watched(row.watcher, row.presentity):
                self._probe_out(row.watcher, row.presentity)
            elif not self._people.realm_of(row.presentity.domain).is_business:
                self._remote.forget(row.watcher, row.presentity)  # news were missed: who looks next, probes

    def _ask_again(self, row: Authorisation) -> None:
        """The first request may have died with the link; a server that has it ignores the repeat."""
        if not self._people.realm_of(row.presentity.domain).is_business:
            self._send(row.watcher, subscription_stanza("subscribe", row.watcher, row.presentity))

    def _send(self, ours: Address, stanza: str) -> None:
        """Write to the link of our user's domain; while it is down nothing is lost, since `link_up` repeats state."""
        link = self._links.get(ours.domain)
        if link is None or not stanza:
            return
        try:
            link.send(stanza)
        except LinkDownError:
            return
