"""Presence Information Data Format (RFC 3863) with the data model of RFC 4479 and RPID (RFC 4480).

Our own documents carry the canonical state in an element of our namespace beside the standard markup, so that two
Isthmus hops lose nothing and everybody else reads PIDF and RPID.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from isthmus.errors import PayloadError, PeerError
from isthmus.model import Address, Availability, Device, Presence, PresenceDocument, PresenceSource
from isthmus.presence.composition import compose
from isthmus.presence.entities import address_from_entity, address_to_entity
from isthmus.presence.rpid import (
    ACTIVITIES_BY_STATE,
    IDLE_STATES,
    RPID_NAMESPACE,
    SHOW_BY_STATE,
    known_activity,
    state_by_name,
    state_from_pidf,
)
from isthmus.presence.timestamps import format_precise_timestamp, format_timestamp, parse_timestamp
from isthmus.sip.uri import SipUri, parse_uri
from isthmus.xml_text import escape_attribute, escape_text, local_name, parse_xml

PIDF_TYPE = "application/pidf+xml"
_PIDF = "urn:ietf:params:xml:ns:pidf"
_MODEL = "urn:ietf:params:xml:ns:pidf:data-model"
STATE_NAMESPACE = "urn:isthmus:presence:0"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"

# A person with more devices than this is a fault or an attack; the rest of the tuples is ignored.
MAXIMUM_TUPLES = 64
# A note is a line under a name, not a letter.
MAXIMUM_NOTE = 1000

_NCNAME_REST = re.compile(r"[A-Za-z0-9._\-]+")
DEVICE_PREFIX = "ID-"


def tuple_id(device_id: str) -> str:
    """Return the xs:ID of a device: `ID-` and its name, hashed when the name has characters an ID cannot have."""
    if len(device_id) <= 128 and _NCNAME_REST.fullmatch(device_id):
        return DEVICE_PREFIX + device_id
    return DEVICE_PREFIX + hashlib.sha256(device_id.encode("utf-8", "replace")).hexdigest()[:24]


# --- reading ----------------------------------------------------------------------------------------------------


def parse_pidf(body: bytes, now: float, *, presentity: Address | None = None) -> PresenceDocument:
    """Parse a PIDF document; a body that says nothing of the person yields state UNKNOWN (edge case 7).

    Args:
        body: the document.
        now: Unix seconds; bounds timestamps that lie in the future.
        presentity: who it is about, known from the dialog; by default the `entity` attribute.

    Raises:
        PayloadError: not PIDF, not well-formed, too large, or (without `presentity`) an entity that is nobody.
    """
    root = parse_xml(body)
    if root.tag != f"{{{_PIDF}}}presence":
        raise PayloadError("the document is not PIDF")
    entity = presentity or address_from_entity(root.get("entity", ""))
    person = _newest_person(root, now)
    tuples = [part for part in root if part.tag == f"{{{_PIDF}}}tuple"][:MAXIMUM_TUPLES]
    devices: dict[str, Device] = {}
    for part in tuples:
        device = _device(part, person, now)
        # Two tuples may claim one name: the second keeps its full tuple id, a third one is a repetition.
        name = device.id if device.id not in devices else part.get("id", device.id)
        devices.setdefault(name, replace(device, id=name))
    return PresenceDocument(entity, _person(root, person, tuple(devices.values()), now), tuple(devices.values()))


def _newest_person(root: Element, now: float) -> Element | None:
    """Several persons are conflicting views: the newest wins (RFC 4479 section 3.2)."""
    persons = [part for part in root if part.tag == f"{{{_MODEL}}}person"]

    def age_key(part: Element) -> float:
        stamp = next((leaf.text or "" for leaf in part if local_name(leaf.tag) == "timestamp"), "")
        return min(parse_timestamp(stamp) or 0.0, now)

    return max(persons, key=age_key) if persons else None


def _device(part: Element, person: Element | None, now: float) -> Device:
    status = part.find(f"{{{_PIDF}}}status")
    basic = (part.findtext(f"{{{_PIDF}}}status/{{{_PIDF}}}basic") or "").strip().lower()
    is_open = {"open": True, "closed": False}.get(basic)
    show = part.findtext(f"{{{_PIDF}}}status/{{jabber:client}}show")
    # Some phones put activities into the tuple or its status: what stands nearest to the device counts first.
    own = _activities(status) | _activities(part)
    activities = own or _activities(person)
    is_idle, idle_since = _idleness(status, part, person, now=now)
    state = state_from_pidf(is_open, activities, show.strip() if show else show, is_idle=is_idle)
    told = state_by_name(_own_state(status))
    # Our own element refines an open tuple; it never opens a closed one.
    if told is not None and is_open is not False and told.is_online:
        state = told
    note, language = _note(part)
    contact = part.find(f"{{{_PIDF}}}contact")
    uri = ((contact.text or "").strip() if contact is not None else "")[:1024]
    presence = Presence(state, note, language, frozenset(activities), idle_since, source=PresenceSource.DEVICE)
    return Device(_device_id(part.get("id", ""), uri), presence, _priority(contact), uri)


def _own_state(status: Element | None) -> str | None:
    own = status.find(f"{{{STATE_NAMESPACE}}}x") if status is not None else None
    return own.get("state") if own is not None else None


def _device_id(identifier: str, contact: str) -> str:
    """The GRUU of the contact names the device best; else the tuple id, without the prefix that we add."""
    if contact:
        try:
            uri = parse_uri(contact)
        except PeerError:
            uri = None
        if isinstance(uri, SipUri) and uri.param("gr"):
            return unquote(uri.param("gr") or "")
    return identifier.removeprefix(DEVICE_PREFIX) or "isthmus"


def _priority(contact: Element | None) -> int | None:
    """RFC 8048 section 5.3: 0 to 0, 1 to 127; absent means lowest."""
    try:
        value = float(contact.get("priority", "")) if contact is not None else -1.0
    except ValueError:
        return None
    return round(value * 127) if 0.0 <= value <= 1.0 else None


def _activities(parent: Element | None) -> frozenset[str]:
    if parent is None:
        return frozenset()
    names: set[str] = set()
    for group in parent.findall(f"{{{RPID_NAMESPACE}}}activities"):
        for leaf in group:
            name = local_name(leaf.tag)
            if name != "note":
                names.add(known_activity(name) if leaf.tag.startswith(f"{{{RPID_NAMESPACE}}}") else "other")
    return frozenset(names)


def _idleness(*places: Element | None, now: float) -> tuple[bool, float | None]:
    for place in places:
        found = place.find(f"{{{RPID_NAMESPACE}}}user-input") if place is not None else None
        if found is not None:
            is_idle = (found.text or "").strip().lower() == "idle"
            since = parse_timestamp(found.get("last-input", "")) if is_idle else None
            return is_idle, None if since is None else min(since, now)
    return False, None


def _note(*places: Element | None) -> tuple[str, str]:
    for place in places:
        for leaf in place if place is not None else ():
            if local_name(leaf.tag) == "note" and (leaf.text or "").strip():
                return (leaf.text or "").strip()[:MAXIMUM_NOTE], leaf.get(_XML_LANG, "")
    return "", ""


def _person(root: Element, person: Element | None, devices: tuple[Device, ...], now: float) -> Presence:
    composed = compose(devices)
    activities = _activities(person)
    is_idle, idle_since = _idleness(person, now=now)
    state = composed.state
    own = person.find(f"{{{STATE_NAMESPACE}}}x") if person is not None else None
    told = state_by_name(own.get("state")) if own is not None else None
    if not devices:
        # A person without a service: what they do is known, whether they can be reached is not.
        state = state_from_pidf(None, activities, is_idle=is_idle)
    if told is not None and (composed.state.is_online or not told.is_online):
        state = told
    note, language = _note(person, person.find(f"{{{RPID_NAMESPACE}}}activities") if person is not None else None, root)
    if not note:
        note, language = composed.note, composed.note_language
    return Presence(
        state=state,
        note=note,
        note_language=language,
        activities=activities or composed.activities,
        idle_since=idle_since or composed.idle_since,
        since=_since(person, now),
        source=PresenceSource.FEDERATED if devices or person is not None else PresenceSource.NONE,
    )


def _since(person: Element | None, now: float) -> float | None:
    group = person.find(f"{{{RPID_NAMESPACE}}}activities") if person is not None else None
    stamp = parse_timestamp(group.get("from", "")) if group is not None else None
    return None if stamp is None else min(stamp, now)


# --- writing ----------------------------------------------------------------------------------------------------


def write_pidf(document: PresenceDocument, *, now: float) -> bytes:
    """Return the document as PIDF with RPID; the same octets serve every watcher with the same view.

    Nothing is known of somebody in state UNKNOWN: the document then has neither tuple nor person.

    Args:
        document: person and devices; without devices the person appears as one service.
        now: Unix seconds; documents that follow each other must not share one (RFC 3863 section 4.1.7).
    """
    entity = address_to_entity(document.entity)
    stamp = format_precise_timestamp(now)
    parts: list[str] = []
    if document.person.state is not Availability.UNKNOWN:
        devices = document.devices or (Device("isthmus", document.person),)
        parts.extend(_tuple_elements(devices, document.person, entity, stamp))
        parts.append(_person_element(document.person, stamp))
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>\r\n<presence xmlns='{_PIDF}' xmlns:dm='{_MODEL}'"
        f" xmlns:rpid='{RPID_NAMESPACE}' entity='{escape_attribute(entity)}'>{''.join(parts)}</presence>"
    ).encode()


def _tuple_elements(devices: tuple[Device, ...], person: Presence, entity: str, stamp: str) -> Iterator[str]:
    # Somebody who appears offline has no open service, whatever the devices say.
    is_hidden = not person.state.is_online
    used: set[str] = set()
    for device in devices:
        identifier = tuple_id(device.id)
        if identifier in used:
            identifier = tuple_id(f"{device.id}\n{len(used)}")
        used.add(identifier)
        state = Availability.OFFLINE if is_hidden else device.presence.state
        yield _tuple_element(identifier, device, state, entity, stamp)


def _tuple_element(identifier: str, device: Device, state: Availability, entity: str, stamp: str) -> str:
    status = f"<basic>{'open' if state.is_online else 'closed'}</basic>"
    show = SHOW_BY_STATE.get(state, "")
    if show:
        status += f"<show xmlns='jabber:client'>{show}</show>"
    if state.is_online:
        status += f"<x xmlns='{STATE_NAMESPACE}' state='{state.value}'/>"
    # Negative priorities are not mapped (RFC 8048 section 5.3): such a resource wants no messages.
    priority = device.priority
    ranked = f" priority='{priority / 127:.3f}'" if priority is not None and priority >= 0 else ""
    contact = f"<contact{ranked}>{escape_text(device.contact or entity)}</contact>"
    note = _note_element("note", device.presence) if state.is_online else ""
    idle = _idle_element(device.presence) if state.is_online else ""
    return (
        f"<tuple id='{identifier}'><status>{status}</status>{idle}{contact}{note}<timestamp>{stamp}</timestamp></tuple>"
    )


def _note_element(name: str, presence: Presence) -> str:
    if not presence.note:
        return ""
    language = f" xml:lang='{escape_attribute(presence.note_language)}'" if presence.note_language else ""
    return f"<{name}{language}>{escape_text(presence.note[:MAXIMUM_NOTE])}</{name}>"


def _person_element(person: Presence, stamp: str) -> str:
    names = sorted({*ACTIVITIES_BY_STATE.get(person.state, ()), *person.activities})
    begun = f" from='{format_timestamp(person.since)}'" if person.since is not None else ""
    activities = "".join(f"<rpid:{name}/>" for name in names)
    parts = [f"<rpid:activities{begun}>{activities}</rpid:activities>" if names else ""]
    parts.append(_idle_element(person))
    parts.append(f"<x xmlns='{STATE_NAMESPACE}' state='{person.state.value}'/>")
    parts.append(_note_element("dm:note", person))
    return f"<dm:person id='person'>{''.join(parts)}<dm:timestamp>{stamp}</dm:timestamp></dm:person>"


def _idle_element(presence: Presence) -> str:
    if presence.idle_since is not None:
        return f"<rpid:user-input last-input='{format_timestamp(presence.idle_since)}'>idle</rpid:user-input>"
    return "<rpid:user-input>idle</rpid:user-input>" if presence.state in IDLE_STATES else ""
