"""Jingle messages (XEP-0353) as values: read from a `<message/>`, and written as one.

All of them are of type `chat` and carry `<store/>` (XEP-0334), so that they reach all devices and the archive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from xml.etree.ElementTree import Element

from isthmus.errors import PayloadError
from isthmus.xmpp import jingle_message_initiation as stanzas
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle import Reason as ReasonElement
from isthmus.xmpp.stanza import element, serialised

# A UUID has 36 characters; resources may be 1023 octets long and some clients take theirs.
MAXIMUM_ID = 256
# Audio, video, and what may come.
MAXIMUM_DESCRIPTIONS = 8
MAXIMUM_TEXT = 300


@dataclass(frozen=True, slots=True)
class Propose:
    """The caller asks all devices of a person. `media`: "audio", "video", in the order told."""

    sid: str
    media: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ringing:
    """A device alerts its owner."""

    sid: str


@dataclass(frozen=True, slots=True)
class Proceed:
    """A device takes the call."""

    sid: str


@dataclass(frozen=True, slots=True)
class Accept:
    """What old clients tell their own other devices beside `Proceed`."""

    sid: str


@dataclass(frozen=True, slots=True)
class Reject:
    """The call is not taken, by no device.

    Attributes:
        reason: condition of XEP-0166 section 7.4, "" when not told.
        text: words for people, told only beside a reason.
        is_tie_break: both called at once, and the other call goes on (XEP-0353 section 4.1).
    """

    sid: str
    reason: str = ""
    text: str = ""
    is_tie_break: bool = False


@dataclass(frozen=True, slots=True)
class Retract:
    """The caller gave up. Attributes as for `Reject`."""

    sid: str
    reason: str = ""
    text: str = ""
    is_tie_break: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """A call that took place is over.

    Attributes:
        reason, text: as for `Reject`.
        migrated_to: session that goes on in its place (XEP-0353 section 4.2), or "".
    """

    sid: str
    reason: str = ""
    text: str = ""
    migrated_to: str = ""


JingleMessage: TypeAlias = Propose | Ringing | Proceed | Accept | Reject | Retract | Finish

_BARE: dict[type[stanzas.JingleMessage], type[Ringing | Proceed | Accept]] = {
    stanzas.Ringing: Ringing,
    stanzas.Proceed: Proceed,
    stanzas.Accept: Accept,
}
_STANZAS: dict[type[JingleMessage], type[stanzas.JingleMessage]] = {
    Propose: stanzas.Propose,
    Ringing: stanzas.Ringing,
    Proceed: stanzas.Proceed,
    Accept: stanzas.Accept,
    Reject: stanzas.Reject,
    Retract: stanzas.Retract,
    Finish: stanzas.Finish,
}
_TAGS = {f"{{{ns.JINGLE_MESSAGE}}}{message.name}": message for message in stanzas.MESSAGES}


def jingle_message_from_stanza(message: Element) -> JingleMessage | None:
    """Return the Jingle message in a `<message/>`, or None when there is none.

    Raises:
        PayloadError: it has no id that could be a session's, or holds more than any needs.
    """
    for inner in message:
        if inner.tag in _TAGS:
            return _read(_TAGS[inner.tag](xml=inner))
    return None


def _read(stanza: stanzas.JingleMessage) -> JingleMessage:
    sid = stanza["id"]
    if not 0 < len(sid) <= MAXIMUM_ID:
        raise PayloadError("a Jingle message needs the id of its session")
    if isinstance(stanza, stanzas.Propose):
        descriptions = stanza["descriptions"]
        if len(descriptions) > MAXIMUM_DESCRIPTIONS:
            raise PayloadError("a Jingle message with too many descriptions")
        media = (medium for namespace, medium in descriptions if namespace == ns.JINGLE_RTP and medium)
        return Propose(sid, tuple(dict.fromkeys(media)))
    if type(stanza) in _BARE:
        return _BARE[type(stanza)](sid)
    reason = stanza.get_plugin("reason", check=True)
    condition = reason["condition"] if reason is not None else ""
    text = reason["text"][:MAXIMUM_TEXT] if reason is not None else ""
    if isinstance(stanza, stanzas.Finish):
        migrated = stanza.get_plugin("migrated", check=True)
        return Finish(sid, condition, text, migrated["to"][:MAXIMUM_ID] if migrated is not None else "")
    kind = Reject if isinstance(stanza, stanzas.Reject) else Retract
    return kind(sid, condition, text, bool(stanza["tie-break"]))


def jingle_message_to_stanza(message: JingleMessage, *, sender: str, recipient: str, stanza_id: str) -> str:
    """Return the `<message/>` that carries it, as text for the component stream.

    Args:
        message: what is told.
        sender: full JID.
        recipient: bare JID for `Propose` and `Retract`; full JID of the other party otherwise (XEP-0353 section 3).
        stanza_id: id of the stanza.
    """
    inner = serialised(_write(message).xml, ns.COMPONENT)
    addresses = {"type": "chat", "id": stanza_id, "from": sender, "to": recipient}
    return element("message", addresses, inner, element("store", {"xmlns": ns.HINTS}))


def _write(message: JingleMessage) -> stanzas.JingleMessage:
    found = _STANZAS[type(message)]()
    found["id"] = message.sid
    if isinstance(message, Propose):
        found["descriptions"] = [(ns.JINGLE_RTP, medium) for medium in message.media]
    if isinstance(message, Reject | Retract | Finish) and message.reason:
        found.append(_reason(message.reason, message.text))
    if isinstance(message, Reject | Retract):
        found["tie-break"] = message.is_tie_break
    if isinstance(message, Finish) and message.migrated_to:
        migrated = stanzas.Migrated()
        migrated["to"] = message.migrated_to
        found.append(migrated)
    return found


def _reason(condition: str, text: str) -> ReasonElement:
    reason = ReasonElement()
    reason["condition"] = condition
    if text:
        reason["text"] = text
    return reason


def wins_tie_break(ours: str, theirs: str) -> bool:
    """True when our session id beats theirs: both proposed at once, and the lower id in i;octet order goes on.

    XEP-0353 section 4.1, XEP-0166 section 7.2.16. Equal ids are decided by the JIDs, compared the same way.
    """
    return ours.encode("utf-8", "replace") < theirs.encode("utf-8", "replace")
