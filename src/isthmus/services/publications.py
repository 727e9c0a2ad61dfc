"""PUBLISH: what devices say of their owner, as soft state with entity tags (RFC 3903 sections 4 and 6).

| operation | body | SIP-If-Match | Expires | answer |
|---|---|---|---|---|
| initial | yes | no | > 0 | 200 with a new SIP-ETag |
| refresh | no | yes | > 0 | 200 with a new SIP-ETag |
| modify | yes | yes | > 0 | 200 with a new SIP-ETag |
| remove | no | yes | 0 | 200 |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from isthmus.config import SipSettings
from isthmus.errors import AddressError, PayloadError, PeerError
from isthmus.interworking.addresses import address_from_sip_uri
from isthmus.interworking.sip_bodies import ACCEPT_ENCODING, UnsupportedBodyError, unpacked_body
from isthmus.model import Address, Device
from isthmus.ports import Clock, Flow, IncomingRequest, Publication, Store, TimerHandle
from isthmus.presence.composition import devices_with_person
from isthmus.presence.pidf import PIDF_TYPE, parse_pidf
from isthmus.services.authentication import Identity
from isthmus.sip.uri import SipUri

# A person's devices; more is a client that forgot its entity tags.
MAXIMUM_PUBLICATIONS = 10


# One program on one machine: the path to it and what it calls itself in its own (the bottom) Via.
_Origin = tuple[Flow, str, int]


@dataclass(slots=True)
class _Published:
    publication: Publication
    devices: tuple[Device, ...]
    origin: _Origin | None = None  # unknown after a restart
    timer: TimerHandle | None = None


class Publications:
    """Event state compositor's input: publications of hosted users.

    Args:
        changed: called with the owner whenever the set of published devices differs.
    """

    def __init__(self, store: Store, clock: Clock, settings: SipSettings, changed: Callable[[Address], None]) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._changed = changed
        self._published: dict[Address, dict[str, _Published]] = {}

    async def load(self) -> None:
        """Take over what is unexpired from before a restart, so that nobody flickers. Raises StoreError."""
        for publication in await self._store.publications():
            try:
                devices = devices_with_person(parse_pidf(publication.body, self._clock.wall()))
            except PayloadError:
                continue
            self._keep(publication, devices)

    def devices(self, address: Address) -> list[Device]:
        """All devices in all current publications of a user."""
        rows = self._published.get(address)
        return [device for row in rows.values() for device in row.devices] if rows else []

    def has_any(self, address: Address) -> bool:
        """True when at least one publication is current."""
        return address in self._published

    def forget(self, address: Address) -> None:
        """Drop everything of a user (disabled, removed)."""
        for etag in list(self._published.get(address, ())):
            self._drop(address, etag)

    def receive(self, incoming: IncomingRequest, identity: Identity) -> None:
        """Answer one authenticated PUBLISH."""
        request = incoming.request
        if request.event != "presence":
            incoming.respond(489, headers=(("Allow-Events", "presence, presence.winfo"),))
            return
        try:
            is_owner = isinstance(request.uri, SipUri) and address_from_sip_uri(request.uri)[0] == identity.address
        except AddressError as error:
            incoming.respond(error.status, str(error))
            return
        if not is_owner or not identity.is_user:
            # Somebody whom a neighbour owns has no presence here that could be composed.
            incoming.respond(403, "Only the owner may publish")
            return
        expires = self._expires(incoming)
        if expires is None:
            return
        etag = (request.headers.get("SIP-If-Match") or "").strip()
        rows = self._published.get(identity.address, {})
        if etag and etag not in rows:
            incoming.respond(412)
            return
        if expires == 0:
            self._remove(incoming, identity.address, etag)
            return
        self._store_state(incoming, identity.address, rows.get(etag), expires)

    def _expires(self, incoming: IncomingRequest) -> int | None:
        wanted = incoming.request.expires
        settings = self._settings
        if wanted is None:
            return settings.default_expires_seconds
        # RFC 3903 section 6 step 5, with RFC 3261 10.3: too brief only between zero and one hour.
        if 0 < wanted < min(settings.minimum_expires_seconds, 3600):
            incoming.respond(423, headers=(("Min-Expires", str(settings.minimum_expires_seconds)),))
            return None
        return min(wanted, settings.maximum_expires_seconds)

    def _remove(self, incoming: IncomingRequest, address: Address, etag: str) -> None:
        if not etag:
            incoming.respond(400, "Removing needs SIP-If-Match")
            return
        self._drop(address, etag)
        incoming.respond(200, headers=(("SIP-ETag", etag), ("Expires", "0")))
        self._changed(address)

    def _store_state(
        self, incoming: IncomingRequest, address: Address, before: _Published | None, expires: int
    ) -> None:
        request = incoming.request
        now = self._clock.wall()
        if request.body:
            if request.content_type != PIDF_TYPE:
                incoming.respond(415, headers=(("Accept", PIDF_TYPE),))
                return
            try:
                body = unpacked_body(request)
                devices = devices_with_person(parse_pidf(body, now))
            except UnsupportedBodyError as error:
                incoming.respond(415, str(error), headers=(("Accept-Encoding", ACCEPT_ENCODING),))
                return
            except PeerError as error:
                incoming.respond(error.status, f"Bad presence document: {error}")
                return
            publication = Publication(address, uuid4().hex, body, PIDF_TYPE, now + expires)
        elif before is not None:
            devices = before.devices
            publication = replace(before.publication, etag=uuid4().hex, expires_at=now + expires)
        else:
            incoming.respond(400, "An initial publication needs a body")
            return
        origin = _origin(incoming)
        if before is not None:
            self._drop(address, before.publication.etag)
        else:
            self._make_room(address, origin, devices)
        self._keep(publication, devices, origin)
        self._store.note_publication(publication)
        incoming.respond(200, headers=(("SIP-ETag", publication.etag), ("Expires", str(expires))))
        if request.body:
            self._changed(address)

    def _make_room(self, address: Address, origin: _Origin, devices: Sequence[Device]) -> None:
        """Before a further publication: drop what the same program said before, or the oldest of too many."""
        rows = self._published.get(address, {})
        # COMPAT: baresip 1.0 publishes twice when it starts and keeps one entity tag only. The other publication
        # would go on saying "open" until it expires, whatever its owner says afterwards.
        forgotten = [
            etag
            for etag, row in rows.items()
            if row.origin == origin and _device_ids(row.devices) == _device_ids(devices)
        ]
        if not forgotten and len(rows) >= MAXIMUM_PUBLICATIONS:
            # The oldest one is the one whose device lost its entity tag in a crash.
            forgotten = [next(iter(rows))]
        for etag in forgotten:
            self._drop(address, etag)

    def _keep(self, publication: Publication, devices: Sequence[Device], origin: _Origin | None = None) -> None:
        address, etag = publication.address, publication.etag
        row = _Published(publication, tuple(devices), origin)
        self._published.setdefault(address, {})[etag] = row
        row.timer = self._clock.call_later(
            publication.expires_at - self._clock.wall(), lambda: self._expired(address, etag)
        )

    def _expired(self, address: Address, etag: str) -> None:
        if etag in self._published.get(address, {}):
            self._drop(address, etag)
            self._changed(address)

    def _drop(self, address: Address, etag: str) -> None:
        rows = self._published.get(address, {})
        row = rows.pop(etag, None)
        if row is None:
            return
        if row.timer is not None:
            row.timer.cancel()
        if not rows:
            del self._published[address]
        self._store.note_publication_gone(address, etag)


def _origin(incoming: IncomingRequest) -> _Origin:
    via = incoming.request.vias[-1]
    return incoming.flow, via.host, via.port


def _device_ids(devices: Sequence[Device]) -> set[str]:
    return {device.id for device in devices}
