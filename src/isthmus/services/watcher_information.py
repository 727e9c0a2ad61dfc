"""The event package `presence.winfo`: who watches me, and who asks to (RFC 3857, RFC 3858).

Only the presentity may subscribe. A request that nobody answers stays in the list over restarts, since the list is
read from the authorisations and not from dialogs.
"""

from __future__ import annotations

import hashlib

from isthmus.model import Address, AuthorisationState
from isthmus.ports import Bus, Clock
from isthmus.presence.winfo import WINFO_TYPE, Watcher, write_winfo
from isthmus.services.contacts import Contacts
from isthmus.services.events import AuthorisationChanged, RequestUnseen
from isthmus.services.notifier import Notifier
from isthmus.services.watch import Admission, Watch
from isthmus.sip.message import SipRequest

WATCHER_INFORMATION = "presence.winfo"

# A NOTIFY fails after 32 s (64*T1); requests that came since may have been in it.
UNSEEN_SECONDS = 60.0

_STATUS = {AuthorisationState.PENDING: "pending", AuthorisationState.ACTIVE: "active"}
_EVENT = {AuthorisationState.PENDING: "subscribe", AuthorisationState.ACTIVE: "approved"}


class WatcherInformation:
    """Serves `presence.winfo` from the authorisations."""

    name = WATCHER_INFORMATION
    body_types: tuple[str, ...] = (WINFO_TYPE,)

    def __init__(self, notifier: Notifier, contacts: Contacts, bus: Bus, clock: Clock) -> None:
        self._notifier = notifier
        self._contacts = contacts
        notifier.register(self)
        self._bus = bus
        self._clock = clock
        bus.register(AuthorisationChanged, self._authorisation_changed)

    def has_viewer(self, presentity: Address) -> bool:
        """True when a device of this user shows contact requests by itself."""
        return bool(self._notifier.watches(WATCHER_INFORMATION, presentity))

    def admit(self, watcher: Address, resource: Address, request: SipRequest) -> Admission:
        """Only the presentity sees its watchers (RFC 3857 section 4.5)."""
        if watcher != resource:
            return Admission.refuse(403, "Only the owner sees the watchers", "winfo.owner")
        return Admission()

    def content(self, watch: Watch) -> tuple[str, bytes]:
        """The full list; its version counts per dialog (RFC 3858 section 4)."""
        watch.version += 1
        entries = [
            Watcher(row.watcher, _STATUS[row.state], _EVENT[row.state], _entry_id(row.watcher))
            for row in self._contacts.watchers_of(watch.resource)
        ]
        return WINFO_TYPE, write_winfo(watch.resource, entries, watch.version)

    def polled(self, watch: Watch) -> None:
        """Nothing to do: the list needs nobody else."""

    def began(self, watch: Watch) -> None:
        """Nothing to prepare."""

    def refreshed(self, watch: Watch, request: SipRequest) -> None:
        """Nothing to take from a refresh."""

    def restored(self, watch: Watch) -> None:
        """Nothing to prepare."""

    def ended(self, watch: Watch) -> None:
        """A viewer that did not even answer has not shown the newest requests to anybody."""
        if watch.terminated or self.has_viewer(watch.resource):
            return
        since = self._clock.wall() - UNSEEN_SECONDS
        for row in self._contacts.pending(watch.resource):
            if row.asked_at >= since:
                self._bus.send(watch.resource, RequestUnseen(row.watcher, watch.resource))

    def _authorisation_changed(self, presentity: Address, event: AuthorisationChanged) -> None:
        if event.reason == "repeated":
            return
        for watch in self._notifier.watches(WATCHER_INFORMATION, presentity):
            self._notifier.notify(watch, is_urgent=event.state is AuthorisationState.PENDING)


def _entry_id(watcher: Address) -> str:
    """Stable over notifications, so that a client recognises the row (RFC 3858 section 3.3: xs:ID-like token)."""
    return "w" + hashlib.sha256(str(watcher).encode()).hexdigest()[:16]
