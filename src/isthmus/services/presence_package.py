"""The event package `presence` (RFC 3856): who is admitted, what a NOTIFY says, and which news concern which watch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from isthmus.errors import PeerError
from isthmus.interworking.sip_bodies import ACCEPT_ENCODING, UnsupportedBodyError
from isthmus.model import Address, AuthorisationState, Availability, Presence, PresenceDocument, Realm
from isthmus.ports import Bus, Clock
from isthmus.presence.pidf import PIDF_TYPE, write_pidf
from isthmus.services.contacts import Contacts, People
from isthmus.services.events import (
    AuthorisationChanged,
    PresenceChanged,
    PresencePolled,
    RemotePresenceChanged,
    UserRemoved,
    WatchingChanged,
    WatchRequested,
)
from isthmus.services.notifier import Notifier
from isthmus.services.presence_views import PresenceViews, Seen
from isthmus.services.resource_lists import ResourceLists, contact_list, is_list, list_members
from isthmus.services.watch import Admission, Watch
from isthmus.sip.message import SipRequest

PRESENCE = "presence"

# One body per presentity who is watched now, or was fetched lately.
MAXIMUM_CACHED_BODIES = 20_000

# What a watcher is told when an authorisation ends (RFC 6665 section 4.1.3): only "rejected" stops a phone for good.
_TERMINATION = {"probation": "probation", "noresource": "noresource"}


class Automata(Protocol):
    """Addresses that are services of ours, not people (`isthmus@`, `echo@`)."""

    def is_automaton(self, address: Address) -> bool:
        """True for a service address; it is always available and needs no consent."""


class PresencePackage:
    """Connects dialogs (`Notifier`) with authorisations (`Contacts`) and documents (`PresenceViews`)."""

    name = PRESENCE
    body_types: tuple[str, ...] = (PIDF_TYPE,)

    def __init__(
        self,
        notifier: Notifier,
        contacts: Contacts,
        views: PresenceViews,
        people: People,
        automata: Automata,
        bus: Bus,
        clock: Clock,
    ) -> None:
        self._notifier = notifier
        self._contacts = contacts
        self._views = views
        self._people = people
        self._automata = automata
        self._bus = bus
        self._clock = clock
        self._lists = ResourceLists()
        self._last_body: dict[Address, tuple[PresenceDocument, bytes]] = {}
        notifier.register(self)
        bus.register(AuthorisationChanged, self._authorisation_changed)
        bus.register(PresenceChanged, self._presence_changed)
        bus.register(RemotePresenceChanged, self._remote_presence_changed)
        bus.register(UserRemoved, self._user_removed)

    # --- what the notifier asks ---

    def admit(self, watcher: Address, resource: Address, request: SipRequest) -> Admission:
        """May this subscription begin, and must it wait for consent?"""
        if is_list(resource, watcher) and not self._people.is_known_user(resource):
            return self._admit_list(watcher, request)
        if watcher == resource or self._automata.is_automaton(resource):
            return Admission()
        if self._is_nobody(resource):
            return Admission.refuse(404, "No such user", "address.unknown")
        state = self._contacts.state(watcher, resource)
        if state is AuthorisationState.ACTIVE:
            hidden = self._views.seen(watcher, resource).hidden_by
            return Admission.refuse(403, hidden.text, hidden.rule) if hidden is not None else Admission()
        if state is None:
            try:
                self._contacts.check_request(watcher, resource)
            except PeerError as error:
                return Admission.refuse(error.status, str(error), "contact.refused")
        return Admission(is_pending=True)

    def _admit_list(self, watcher: Address, request: SipRequest) -> Admission:
        if "eventlist" not in request.headers.get_list("Supported"):
            text = "A contact list needs the extension eventlist"
            return Admission.refuse(421, text, "list.extension", (("Require", "eventlist"),))
        try:
            members = list_members(watcher, request, self._contacts)
            return Admission(is_list=True, members=members, follows_contacts=not request.body)
        except UnsupportedBodyError as error:
            return Admission.refuse(415, str(error), "list.members", (("Accept-Encoding", ACCEPT_ENCODING),))
        except PeerError as error:
            return Admission.refuse(error.status, str(error), "list.members")

    def _is_nobody(self, resource: Address) -> bool:
        is_hosted = self._people.realm_of(resource.domain) is Realm.BUSINESS_HOSTED
        return is_hosted and not self._people.is_known_user(resource)

    def content(self, watch: Watch) -> tuple[str, bytes] | None:
        """The PIDF (or the list of them) as this watcher may see it; None while nothing may be told or is known."""
        if watch.is_list:
            return self._lists.body(watch, self._member)
        if watch.is_pending:
            return None
        document = self._document(watch.watcher, watch.resource)
        if document is None:
            return None
        return PIDF_TYPE, self._pidf(document)

    def began(self, watch: Watch) -> None:
        """Ask for consent where it is missing, and let the presentity's side know that somebody watches."""
        if watch.is_list:
            self._lists.add(watch)
        for target in watch.members if watch.is_list else (watch.resource,):
            self._begin_watching(watch.watcher, target)

    def refreshed(self, watch: Watch, request: SipRequest) -> None:
        """A list may name other people now (RFC 5367 section 5), and the contact list is read again."""
        if watch.is_list and (request.body or watch.follows_contacts):
            members = list_members(watch.watcher, request, self._contacts)
            watch.follows_contacts = not request.body
            self._show_members(watch, members)

    def restored(self, watch: Watch) -> None:
        """Authorisations are durable, dialogs are written behind: where they differ the authorisation is right."""
        if watch.is_list:
            if watch.follows_contacts:
                watch.members = contact_list(watch.watcher, self._contacts)
            self._lists.add(watch)
            for member in watch.members:
                if self._contacts.state(watch.watcher, member) is None:
                    self._lists.refused(watch, member)  # asked before the restart, or since removed
        elif self._needs_consent(watch.watcher, watch.resource):
            state = self._contacts.state(watch.watcher, watch.resource)
            if state is None:
                # It was ended just before; a request that was never made durable may be made again.
                self._notifier.terminate(watch, "deactivated" if watch.is_pending else "rejected")
                return
            watch.is_pending = state is not AuthorisationState.ACTIVE
        for target in watch.members if watch.is_list else (watch.resource,):
            if self._needs_consent(watch.watcher, target):
                self._bus.send(target, WatchingChanged(watch.watcher, target, is_watching=True))

    def ended(self, watch: Watch) -> None:
        """The last dialog of a watcher has ended: nobody need keep the other side's presence fresh for it."""
        if watch.is_list:
            self._lists.remove(watch)
        self._stop_watching(watch.watcher, watch.members if watch.is_list else (watch.resource,))

    def _needs_consent(self, watcher: Address, presentity: Address) -> bool:
        return watcher != presentity and not self._automata.is_automaton(presentity)

    def _begin_watching(self, watcher: Address, target: Address) -> None:
        if not self._needs_consent(watcher, target):
            return
        if self._contacts.state(watcher, target) is None and not self._is_nobody(target):
            self._bus.send(target, WatchRequested(watcher, target))
        self._bus.send(target, WatchingChanged(watcher, target, is_watching=True))

    def _stop_watching(self, watcher: Address, targets: Iterable[Address]) -> None:
        for target in targets:
            if not self.is_watching(watcher, target):
                self._bus.send(target, WatchingChanged(watcher, target, is_watching=False))
            if not self._notifier.watches(PRESENCE, target) and not self._lists.watches_with(target):
                self._last_body.pop(target, None)

    def _show_members(self, watch: Watch, members: tuple[Address, ...]) -> None:
        """Put other people on a live list; who is new is asked and watched, who is gone no longer."""
        before = watch.members
        self._lists.show(watch, members)
        for target in members:
            if target not in before:
                self._begin_watching(watch.watcher, target)
        self._stop_watching(watch.watcher, [target for target in before if target not in members])

    def is_watching(self, watcher: Address, presentity: Address) -> bool:
        """True while at least one dialog of `watcher` shows `presentity`, alone or on a list."""
        return self._notifier.has_watch(PRESENCE, watcher, presentity) or any(
            watch.watcher == watcher for watch in self._lists.watches_with(presentity)
        )

    def polled(self, watch: Watch) -> None:
        """A fetch came by: what is not known yet may be asked for, but nobody is prompted."""
        for target in watch.members if watch.is_list else (watch.resource,):
            self._bus.send(target, PresencePolled(watch.watcher, target))

    # --- documents ---

    def _document(self, watcher: Address, presentity: Address) -> PresenceDocument | None:
        return self._seen(watcher, presentity).document

    def _seen(self, watcher: Address, presentity: Address) -> Seen:
        if self._automata.is_automaton(presentity):
            return Seen(PresenceDocument(presentity, Presence(Availability.AVAILABLE)))
        if watcher != presentity and self._contacts.state(watcher, presentity) is not AuthorisationState.ACTIVE:
            return Seen(None)
        return self._views.seen(watcher, presentity)

    def _pidf(self, document: PresenceDocument) -> bytes:
        """One body serves all watchers with the same view: a change to 1,000 watchers is written once."""
        last = self._last_body.get(document.entity)
        if last is not None and last[0] == document:
            return last[1]
        body = write_pidf(document, now=self._clock.wall())
        if len(self._last_body) >= MAXIMUM_CACHED_BODIES:
            self._last_body.clear()  # fetches leave bodies behind that no subscription takes away
        self._last_body[document.entity] = (document, body)
        return body

    def _member(self, watch: Watch, member: Address) -> tuple[str, str, bytes | None]:
        """RLMI instance state, reason and body of one list member."""
        if self._needs_consent(watch.watcher, member):
            if self._is_nobody(member):
                return "terminated", "noresource", None
            state = self._contacts.state(watch.watcher, member)
            if state is None and self._lists.has_refused(watch, member):
                return "terminated", "rejected", None
            if state is not AuthorisationState.ACTIVE:
                return "pending", "", None
        seen = self._seen(watch.watcher, member)
        if seen.hidden_by is not None:
            return "terminated", "rejected", None  # as alone (edge case 13); it comes back with the next policy
        return "active", "", self._pidf(seen.document) if seen.document is not None else None

    # --- news ---

    def _authorisation_changed(self, presentity: Address, event: AuthorisationChanged) -> None:
        if event.reason == "repeated":
            return  # somebody asked twice; nothing has changed
        self._contact_list_changed(presentity, event)
        for watch in self._lists.watches_with(presentity):
            if watch.watcher == event.watcher:
                (self._lists.refused if event.state is None else self._lists.asked)(watch, presentity)
                watch.note_change(presentity)
                self._notifier.notify(watch, is_urgent=True)
        for watch in self._notifier.watches(PRESENCE, presentity):
            if watch.watcher == event.watcher:
                self._authorisation_changed_for(watch, event)

    def _contact_list_changed(self, presentity: Address, event: AuthorisationChanged) -> None:
        """Somebody was added to or removed from the contacts of a watcher whose phone shows the whole list."""
        for watch in self._lists.following(event.watcher):
            if (event.state is not None) == (presentity in watch.members):
                continue
            members = contact_list(watch.watcher, self._contacts)
            if members != watch.members:
                self._show_members(watch, members)
                self._notifier.notify(watch, is_urgent=True)

    def _authorisation_changed_for(self, watch: Watch, event: AuthorisationChanged) -> None:
        if event.state is AuthorisationState.PENDING:
            return
        if event.state is None:
            self._notifier.terminate(watch, _TERMINATION.get(event.reason, "rejected"))
            return
        if self._views.seen(watch.watcher, watch.resource).hidden_by is not None:
            # Policy was switched off under a live subscription (edge case 13): it ends, it does not go "offline".
            self._notifier.terminate(watch, "rejected")
            return
        if watch.is_pending:
            self._notifier.activate(watch)
        elif event.reason == "policy":
            self._notifier.notify(watch, is_urgent=True)

    def _presence_changed(self, presentity: Address, event: PresenceChanged) -> None:
        for watch in self._notifier.watches(PRESENCE, presentity):
            if not watch.is_pending:
                self._notifier.notify(watch, is_urgent=event.is_urgent)
        for watch in self._lists.watches_with(presentity):
            watch.note_change(presentity)
            self._notifier.notify(watch, is_urgent=event.is_urgent)

    def _remote_presence_changed(self, presentity: Address, event: RemotePresenceChanged) -> None:
        for watch in self._notifier.watches(PRESENCE, presentity):
            if watch.watcher == event.watcher and not watch.is_pending:
                self._notifier.notify(watch)
        for watch in self._lists.watches_with(presentity):
            if watch.watcher == event.watcher:
                watch.note_change(presentity)
                self._notifier.notify(watch)

    def _user_removed(self, address: Address, _: UserRemoved) -> None:
        """Nothing comes out any more for a disabled account, on no dialog it left open."""
        for watch in self._notifier.watches_of(address):
            self._notifier.terminate(watch, "rejected")
