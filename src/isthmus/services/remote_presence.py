"""What our users see of people who live elsewhere: one view per watcher and presentity.

XMPP presence is directed: what ben shows ana he need not show carl, so views are never shared between watchers
(RFC 8048 section 8.2). Each view is the set of the presentity's devices (XMPP resources or PIDF tuples).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.model import Address, Availability, Device, Presence, PresenceDocument, PresenceSource
from isthmus.ports import Bus, Clock
from isthmus.presence.composition import compose_document
from isthmus.services.deadlines import Deadlines
from isthmus.services.events import RemotePresenceChanged

# One person's clients; a server that invents resources must not fill our memory.
MAXIMUM_DEVICES = 32
# After a probe the answers of all resources come together; whatever is still unconfirmed after this is gone.
CONFIRMATION_SECONDS = 3.0
# A server that answers a probe with nothing has nobody online (RFC 6121 section 4.3.2.1 lets it stay silent); one
# behind a new server-to-server connection takes its time.
SILENCE_SECONDS = 120.0

# Equal devices are one object: what somebody shows to ten of our people is nearly always the same.
MAXIMUM_SHARED_DEVICES = 20_000

_GONE = Presence(Availability.OFFLINE, source=PresenceSource.FEDERATED)
_NOBODY: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False)
class _View:
    """What `watcher` knows of `presentity`. There may be a hundred thousand, so it holds as little as possible."""

    watcher: Address
    presentity: Address
    devices: tuple[Device, ...] = ()
    unconfirmed: frozenset[str] = _NOBODY
    is_settling: bool = False
    probed_at: float = 0.0

    def device(self, name: str) -> Device | None:
        return next((device for device in self.devices if device.id == name), None)

    def without(self, name: str) -> tuple[Device, ...]:
        return tuple([device for device in self.devices if device.id != name])


class RemotePresence:
    """Keeps the views and tells the bus when one changed."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._views: dict[Address, dict[Address, _View]] = {}  # by watcher, then presentity
        self._devices: dict[Device, Device] = {}
        self._settling: Deadlines[_View] = Deadlines(clock, self._settle, width_seconds=0.1)
        self._silences: Deadlines[_View] = Deadlines(clock, self._silent, width_seconds=1.0)

    def document(self, watcher: Address, presentity: Address) -> PresenceDocument | None:
        """The view, composed; None when nothing is known (never shown as available, edge case 7)."""
        view = self._find(watcher, presentity)
        return None if view is None else _document(view)

    def has_view(self, watcher: Address, presentity: Address) -> bool:
        """True when something is known."""
        return self._find(watcher, presentity) is not None

    def device_changed(self, watcher: Address, presentity: Address, device: Device) -> None:
        """One device told its presence; offline removes it."""
        view = self._find(watcher, presentity) or self._new(watcher, presentity)
        view.unconfirmed -= {device.id}
        before = view.device(device.id)
        if not device.presence.state.is_online:
            view.devices = view.without(device.id)
        elif before is None:
            if len(view.devices) < MAXIMUM_DEVICES:
                view.devices = (*view.devices, self._shared(device))
        elif before != device:
            shared = self._shared(device)
            view.devices = tuple([shared if known is before else known for known in view.devices])
        if before is None or before != device:
            self._tell(view)
        self._settle_soon(view)

    def all_devices_gone(self, watcher: Address, presentity: Address) -> None:
        """The presentity's server said that no resource is available."""
        view = self._find(watcher, presentity)
        is_news = view is None or bool(view.devices)
        view = view or self._new(watcher, presentity)
        view.devices = ()
        view.unconfirmed = _NOBODY
        if is_news:
            self._tell(view)

    def replace(self, watcher: Address, presentity: Address, devices: Iterable[Device]) -> None:
        """A whole document arrived (PIDF is always the full state); offline devices are not kept."""
        view = self._find(watcher, presentity) or self._new(watcher, presentity)
        fresh = {device.id: device for device in devices if device.presence.state.is_online}
        kept = tuple([self._shared(device) for device in list(fresh.values())[:MAXIMUM_DEVICES]])
        if {*kept} != {*view.devices} or not view.devices:
            view.devices = kept
            self._tell(view)

    def probe_sent(self, watcher: Address, presentity: Address) -> None:
        """Answers to a probe are on their way; devices that they do not confirm are gone since we last listened."""
        view = self._find(watcher, presentity)
        if view is not None:
            self._silences.discard(view, view.probed_at + SILENCE_SECONDS)
            view.unconfirmed = frozenset([device.id for device in view.devices])
            view.probed_at = self._clock.monotonic()
            if view.unconfirmed:
                self._silences.add(view, view.probed_at + SILENCE_SECONDS)

    def forget(self, watcher: Address, presentity: Address) -> None:
        """The authorisation ended: nothing is known any more."""
        views = self._views.get(watcher)
        if views is not None:
            views.pop(presentity, None)
            if not views:
                del self._views[watcher]

    def _find(self, watcher: Address, presentity: Address) -> _View | None:
        views = self._views.get(watcher)
        return views.get(presentity) if views is not None else None

    def _new(self, watcher: Address, presentity: Address) -> _View:
        view = self._views.setdefault(watcher, {})[presentity] = _View(watcher, presentity)
        return view

    def _shared(self, device: Device) -> Device:
        if len(self._devices) >= MAXIMUM_SHARED_DEVICES:
            self._devices.clear()
        return self._devices.setdefault(device, device)

    def _settle_soon(self, view: _View) -> None:
        if view.unconfirmed and not view.is_settling:
            view.is_settling = True
            self._settling.add(view, self._clock.monotonic() + CONFIRMATION_SECONDS)

    def _silent(self, view: _View) -> None:
        if view.unconfirmed:
            self._settle(view)

    def _settle(self, view: _View) -> None:
        view.is_settling = False
        kept = tuple([device for device in view.devices if device.id not in view.unconfirmed])
        view.unconfirmed = _NOBODY
        if kept != view.devices:
            view.devices = kept
            if self._find(view.watcher, view.presentity) is view:
                self._tell(view)

    def _tell(self, view: _View) -> None:
        self._bus.send(view.presentity, RemotePresenceChanged(view.watcher, _document(view)))


def _document(view: _View) -> PresenceDocument:
    if not view.devices:
        return PresenceDocument(view.presentity, _GONE)
    return compose_document(view.presentity, view.devices)
