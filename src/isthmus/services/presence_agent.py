"""The presence agent of hosted users: composes what their devices say into one person (RFC 3856, RFC 4479).

Sources, strongest first: our own call control, publications, and a live registration, which alone already means
"can be reached". Watchers of both realms hear of changes through `PresenceChanged`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from isthmus.model import Address, Availability, Device, Presence, PresenceDocument, PresenceSource
from isthmus.ports import Binding, Bus, Clock
from isthmus.presence.composition import compose_document
from isthmus.services.contacts import People
from isthmus.services.events import BindingsChanged, PresenceChanged, UserRemoved
from isthmus.services.publications import Publications

_REGISTERED_DEVICE = "registration"


class Registrations(Protocol):
    """The part of `services.registrar` that tells who is registered."""

    def bindings(self, address: Address) -> tuple[Binding, ...]:
        """Current registrations."""


class PresenceAgent:
    """Keeps one composed document per hosted user who was ever asked about or changed."""

    def __init__(
        self, publications: Publications, registrations: Registrations, people: People, bus: Bus, clock: Clock
    ) -> None:
        self._publications = publications
        self._registrations = registrations
        self._people = people
        self._bus = bus
        self._clock = clock
        self._documents: dict[Address, PresenceDocument] = {}
        self._calls: dict[Address, Presence] = {}
        bus.register(BindingsChanged, self._bindings_changed)
        bus.register(UserRemoved, self._user_removed)

    def hosted_document(self, presentity: Address) -> PresenceDocument:
        """The composed presence; unknown and disabled users look like anybody who is offline."""
        document = self._documents.get(presentity)
        if document is None:
            document = self._compose(presentity)
            if self._people.is_known_user(presentity):
                self._documents[presentity] = document
        return document

    def changed(self, presentity: Address, *, is_urgent: bool = False) -> None:
        """A source changed: recompose, and tell watchers if the outcome differs."""
        before = self.hosted_document(presentity) if presentity in self._documents else None
        document = self._compose(presentity)
        if before is not None:
            if _is_same(before, document):
                return
            if before.person.state is document.person.state and before.person.since is not None:
                document = replace(document, person=replace(document.person, since=before.person.since))
        if self._people.is_known_user(presentity):
            self._documents[presentity] = document
        self._bus.send(presentity, PresenceChanged(document, is_urgent))

    def call_state_changed(self, presentity: Address, presence: Presence | None) -> None:
        """Our call control says that the person is in a call (or not any more); watchers hear it at once."""
        if presence is None:
            self._calls.pop(presentity, None)
        else:
            self._calls[presentity] = presence
        self.changed(presentity, is_urgent=True)

    def _compose(self, presentity: Address) -> PresenceDocument:
        if not self._people.is_known_user(presentity):
            return PresenceDocument(presentity, Presence(Availability.OFFLINE))
        devices = self._publications.devices(presentity)
        says_something = any(device.presence.state is not Availability.UNKNOWN for device in devices)
        is_silent = not self._publications.has_any(presentity) or (devices and not says_something)
        if is_silent and self._registrations.bindings(presentity):
            # Nothing published, or only "unknown" as softphones do at start: the registration speaks.
            devices = [Device(_REGISTERED_DEVICE, Presence(Availability.AVAILABLE, source=PresenceSource.REGISTRATION))]
        call = self._calls.get(presentity)
        if not devices and call is None:
            document = PresenceDocument(presentity, Presence(Availability.OFFLINE))
        else:
            document = compose_document(presentity, devices, call=call)
        if document.person.since is None:
            document = replace(document, person=replace(document.person, since=self._clock.wall()))
        return document

    def _bindings_changed(self, address: Address, event: BindingsChanged) -> None:
        if event.has_bindings and not event.is_new_device:
            return  # a refresh, or one device of several went: still registered, which is all that counts here
        self.changed(address)

    def _user_removed(self, address: Address, _: UserRemoved) -> None:
        self._publications.forget(address)
        self._calls.pop(address, None)
        self.changed(address)
        self._documents.pop(address, None)


def _is_same(one: PresenceDocument, other: PresenceDocument) -> bool:
    """Equal but for when it began: a refresh that says the same is no news."""
    return replace(one.person, since=None) == replace(other.person, since=None) and one.devices == other.devices
