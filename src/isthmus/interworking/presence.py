"""Presence as stanzas: XMPP -> `Device` and back, subscriptions, and the reduced view (RFC 8048, RFC 6121).

A stanza for many watchers is built once: `presence_payload` makes what all share, `PresenceStanza.to` adds the name.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from isthmus.errors import PayloadError
from isthmus.interworking.addresses import SYNTHETIC_RESOURCE, address_from_jid, address_to_jid
from isthmus.model import Address, Availability, Device, Presence, PresenceDocument, PresenceSource
from isthmus.presence.pidf import MAXIMUM_NOTE
from isthmus.presence.rpid import IDLE_STATES, SHOW_BY_STATE, state_by_name, state_from_show
from isthmus.presence.timestamps import format_timestamp, parse_timestamp
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.stanza import XML_LANG, child, escape_attribute, escape_text

# What an XMPP user reads when the person set no note of their own.
DEFAULT_STATUS: dict[Availability, str] = {
    Availability.INACTIVE: "Inactive",
    Availability.BUSY: "Busy",
    Availability.IN_A_CALL: "In a call",
    Availability.IN_A_CONFERENCE: "In a conference call",
    Availability.IN_A_MEETING: "In a meeting",
    Availability.BUSY_INACTIVE: "Busy",
    Availability.DO_NOT_DISTURB: "Do not disturb",
    Availability.PRESENTING: "Presenting",
    Availability.BE_RIGHT_BACK: "Be right back",
    Availability.OFF_WORK: "Off work",
    Availability.OUT_OF_OFFICE: "Out of office",
}

# What a watcher with "availability only" sees: free, busy, away or gone, and nothing of why.
_REDUCED = {
    Availability.INACTIVE: Availability.AWAY,
    Availability.IN_A_CALL: Availability.BUSY,
    Availability.IN_A_CONFERENCE: Availability.BUSY,
    Availability.IN_A_MEETING: Availability.BUSY,
    Availability.BUSY_INACTIVE: Availability.BUSY,
    Availability.PRESENTING: Availability.DO_NOT_DISTURB,
    Availability.BE_RIGHT_BACK: Availability.AWAY,
    Availability.OFF_WORK: Availability.AWAY,
    Availability.OUT_OF_OFFICE: Availability.AWAY,
}

# A URL and a digest; a longer one only fills memory.
MAXIMUM_CAPABILITIES = 512

SUBSCRIPTION_TYPES = frozenset({"subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe"})


def device_from_stanza(stanza: Element, now: float) -> Device:
    """Return what one resource says of itself.

    Args:
        stanza: `<presence/>` without type, or of type `unavailable`.
        now: Unix seconds; bounds the idle time.

    Raises:
        PayloadError: another type; only these two are notifications (RFC 8048 section 5.2).
        AddressError: `from` does not name a person.
    """
    kind = stanza.get("type")
    if kind not in (None, "", "unavailable"):
        raise PayloadError(f"presence of type {kind} says nothing of availability")
    _, resource = address_from_jid(stanza.get("from", ""))
    note, language = _note(stanza)
    if kind == "unavailable":
        offline = Presence(Availability.OFFLINE, note, language, source=PresenceSource.FEDERATED)
        return Device(resource, offline)
    idle = child(stanza, "idle", ns.IDLE)
    idle_since = parse_timestamp(idle.get("since", "")) if idle is not None else None
    show = child(stanza, "show")
    state = state_from_show((show.text or "") if show is not None else "", is_idle=idle is not None)
    own = child(stanza, "x", ns.PRESENCE_STATE)
    told = state_by_name(own.get("state")) if own is not None else None
    if told is not None and told.is_online:
        state = told
    if note == DEFAULT_STATUS.get(state) and told is not None:
        note, language = "", ""  # the far Isthmus wrote this for people; nobody set it
    presence = Presence(
        state=state,
        note=note,
        note_language=language,
        idle_since=None if idle_since is None else min(idle_since, now),
        source=PresenceSource.FEDERATED,
    )
    return Device(resource, presence, _priority(stanza), capabilities=_capabilities(stanza))


def _note(stanza: Element) -> tuple[str, str]:
    found = child(stanza, "status")
    if found is None or not (found.text or "").strip():
        return "", ""
    return (found.text or "").strip()[:MAXIMUM_NOTE], found.get(XML_LANG, "") or stanza.get(XML_LANG, "")


def _priority(stanza: Element) -> int:
    """RFC 6121 section 4.7.2.3: absent means 0; nonsense counts the same."""
    found = child(stanza, "priority")
    try:
        value = int((found.text or "0").strip()[:8]) if found is not None else 0
    except ValueError:
        return 0
    return max(-128, min(127, value))


def _capabilities(stanza: Element) -> str:
    """XEP-0115 section 4; without `hash` it is the form of 2007, whose `ver` proves nothing."""
    found = child(stanza, "c", ns.CAPS)
    if found is None or not (found.get("hash") and found.get("node") and found.get("ver")):
        return ""
    text = f"{found.get('hash')} {found.get('node')}#{found.get('ver')}"
    return sys.intern(text) if len(text) <= MAXIMUM_CAPABILITIES else ""


def presence_payload(presence: Presence, *, priority: int | None = None, extra: str = "") -> str:
    """Return the children of a `<presence/>` that all watchers share.

    Args:
        presence: what to say; OFFLINE has a note at most.
        priority: of the resource; negative ones are said as they are.
        extra: more children, already serialised (entity capabilities, avatar hash).
    """
    note = presence.note or DEFAULT_STATUS.get(presence.state, "")
    language = presence.note_language if presence.note else "en"
    lang = f" xml:lang='{escape_attribute(language)}'" if note and language else ""
    status = f"<status{lang}>{escape_text(note)}</status>" if note else ""
    if not presence.state.is_online:
        return status
    show = SHOW_BY_STATE[presence.state]
    parts = [f"<show>{show}</show>" if show else "", status]
    if priority is not None:
        parts.append(f"<priority>{priority}</priority>")
    if presence.idle_since is not None and (presence.state in IDLE_STATES or show in ("away", "xa")):
        parts.append(f"<idle xmlns='{ns.IDLE}' since='{format_timestamp(presence.idle_since)}'/>")
    parts.append(f"<x xmlns='{ns.PRESENCE_STATE}' state='{presence.state.value}'/>")
    parts.append(extra)
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class PresenceStanza:
    """A presence for any number of watchers: everything but the `to` is ready.

    Attributes:
        before, after: text on both sides of the watcher's JID; both are empty when nothing is to be sent.
    """

    before: str
    after: str

    def to(self, jid: str) -> str:
        """Return the stanza for one watcher (bare or full JID); "" when there is nothing to say."""
        return f"{self.before}{escape_attribute(jid)}{self.after}" if self.before else ""

    def to_escaped(self, jid: str) -> str:
        """Like `to` for a JID that is known to hold none of `& < > ' "`, as a bare JID never does."""
        return f"{self.before}{jid}{self.after}" if self.before else ""


def prepare_presence(
    sender_jid: str, presence: Presence, *, priority: int | None = None, extra: str = ""
) -> PresenceStanza:
    """Return the stanza of a presentity for all watchers with the same view.

    Nothing is sent for UNKNOWN: an XMPP client must not take ignorance for absence or presence.
    """
    if presence.state is Availability.UNKNOWN:
        return PresenceStanza("", "")
    kind = "" if presence.state.is_online else " type='unavailable'"
    payload = presence_payload(presence, priority=priority, extra=extra)
    ending = f"'>{payload}</presence>" if payload else "'/>"
    return PresenceStanza(f"<presence{kind} from='{escape_attribute(sender_jid)}' to='", ending)


def presence_to_stanza(
    sender_jid: str, to_jid: str, presence: Presence, *, priority: int | None = None, extra: str = ""
) -> str:
    """Return one notification; "" when nothing is known. For many watchers use `prepare_presence`."""
    return prepare_presence(sender_jid, presence, priority=priority, extra=extra).to(to_jid)


def presentity_jid(address: Address, resource: str = SYNTHETIC_RESOURCE) -> str:
    """Return the full JID under which a business user appears: one stable resource, whatever the phones are."""
    return address_to_jid(address, resource)


def subscription_stanza(kind: str, sender: Address, recipient: Address, *, status: str = "", id: str = "") -> str:
    """Return a `subscribe`, `subscribed`, `unsubscribe`, `unsubscribed` or `probe`, always between bare JIDs.

    Args:
        kind: the type (RFC 6121 section 3).
        sender, recipient: the people.
        status: what the asking person wrote, for `subscribe`; or why not, for `unsubscribed`.
        id: stanza id, left out when empty.

    Raises:
        ValueError: another type.
    """
    if kind not in SUBSCRIPTION_TYPES:
        raise ValueError(f"{kind!r} is not a type of a subscription stanza")
    identifier = f" id='{escape_attribute(id)}'" if id else ""
    text = f"<status>{escape_text(status)}</status>" if status else ""
    opening = (
        f"<presence type='{kind}'{identifier} from='{escape_attribute(address_to_jid(sender))}'"
        f" to='{escape_attribute(address_to_jid(recipient))}'"
    )
    return f"{opening}>{text}</presence>" if text else f"{opening}/>"


def reduce_presence(presence: Presence) -> Presence:
    """Return the "availability only" view: no note, activity, idle time or reason."""
    return Presence(
        state=_REDUCED.get(presence.state, presence.state),
        source=PresenceSource.POLICY,
    )


def reduce_document(document: PresenceDocument) -> PresenceDocument:
    """Return the document for a watcher with the "availability only" view: one service, no devices."""
    return PresenceDocument(document.entity, reduce_presence(document.person))


def hide_document(document: PresenceDocument) -> PresenceDocument:
    """Return what a politely blocked watcher sees: somebody who is offline (RFC 5025 section 3.2.1)."""
    return PresenceDocument(document.entity, Presence(Availability.OFFLINE, source=PresenceSource.POLICY))
