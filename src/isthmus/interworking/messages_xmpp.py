"""Messages as stanzas: XMPP -> `Message` and back (RFC 7572, XEP-0085, 0184, 0333, 0334).

The plain text path is hot: one pass over the children, string templates for output, cached addresses.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple
from xml.etree.ElementTree import Element

from isthmus.errors import PayloadError
from isthmus.interworking.addresses import address_from_jid, address_to_jid
from isthmus.interworking.failures import failure_from_stanza_error, failure_to_stanza_error
from isthmus.interworking.stanza_text import SPECIAL_TAGS, QuoteOf, encryption_notice, is_notice, is_otr, readable_text
from isthmus.model import Address, ChatState, Failure, Message, MessageKind, Origin
from isthmus.presence.timestamps import format_timestamp, parse_timestamp
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.stanza import XML_LANG, escape_attribute, escape_text

# RFC 7572 section 8 leaves it to us; 64 KiB is what our SIP side takes over streams (and more than anybody types).
MAXIMUM_TEXT_OCTETS = 64 * 1024
# An id is echoed in receipts and kept in tables; XMPP libraries make 8 to 40 characters.
MAXIMUM_ID_LENGTH = 512
# XEP-0203 is for messages that waited; a second of queueing is not worth telling.
_DELAY_WORTH_TELLING_SECONDS = 30.0

_BODIES = frozenset({f"{{{space}}}body" for space in (ns.COMPONENT, ns.CLIENT)})
_SUBJECTS = frozenset({f"{{{space}}}subject" for space in (ns.COMPONENT, ns.CLIENT)})
_THREADS = frozenset({f"{{{space}}}thread" for space in (ns.COMPONENT, ns.CLIENT)})
_ERRORS = frozenset({f"{{{space}}}error" for space in (ns.COMPONENT, ns.CLIENT)})
_STATES = {f"{{{ns.CHAT_STATES}}}{state.value}": state for state in ChatState}
_REQUEST = f"{{{ns.RECEIPTS}}}request"
_MARKABLE = f"{{{ns.CHAT_MARKERS}}}markable"
_DELAY = f"{{{ns.DELAY}}}delay"
_HOP = f"{{{ns.HOP}}}x"
# What a notification says about the message it names. `received` of chat markers left XEP-0333 in version 0.4 and
# `acknowledged` in 1.0; older clients still send them.
_NOTIFICATIONS = {
    f"{{{ns.RECEIPTS}}}received": MessageKind.DELIVERED,
    f"{{{ns.CHAT_MARKERS}}}received": MessageKind.DELIVERED,
    f"{{{ns.CHAT_MARKERS}}}displayed": MessageKind.DISPLAYED,
    f"{{{ns.CHAT_MARKERS}}}acknowledged": MessageKind.DISPLAYED,
}
# Copies of what was said elsewhere, never something said to us (edge case 25).
_COPIES = frozenset(
    {f"{{{ns.CARBONS}}}sent", f"{{{ns.CARBONS}}}received", f"{{{ns.MAM}}}result", f"{{{ns.FORWARD}}}forwarded"}
)


def message_from_stanza(stanza: Element, now: float, *, quote_of: QuoteOf | None = None) -> list[Message]:
    """Return what a `<message/>` says: at most one text or typing state, and a receipt or marker.

    An error stanza is a FAILED about the message of the same id. Carbon copies, archived copies and stanzas that
    say nothing to a person yield an empty list; an encrypted body yields a notice.

    Args:
        stanza: the element, in the component's or the client's namespace.
        now: Unix seconds; becomes `sent_at` unless the stanza carries a delay (XEP-0203).
        quote_of: text of an earlier message by id, for quotations in replies and reactions.

    Raises:
        AddressError: `from` or `to` does not name a person.
        PayloadError: groupchat to a person (RFC 6121 section 8.5.2: service-unavailable), or a text over 64 KiB.
    """
    kind = stanza.get("type")
    if kind == "groupchat":
        raise PayloadError("a person is not a room", status=403, condition="service-unavailable")
    if len(stanza.get("id", "")) > MAXIMUM_ID_LENGTH:
        raise PayloadError("the id of the stanza is too long")
    reading = _read(stanza, now)
    contents, body = reading.contents, reading.body
    if kind == "error":
        return _failed(reading)
    if not _COPIES.isdisjoint(contents):
        return []
    if not SPECIAL_TAGS.isdisjoint(contents):
        body = readable_text(body, contents, quote_of)
    elif is_otr(body):
        body = encryption_notice("OTR")
    if len(body) * 4 > MAXIMUM_TEXT_OCTETS and len(body.encode()) > MAXIMUM_TEXT_OCTETS:
        raise PayloadError("the message is too long", status=413, condition="policy-violation")
    # Receipts and typing by headline are not meant for anybody in particular (RFC 6121 section 5.2.2).
    is_conversation = kind != "headline"
    found = [_text(reading, body, is_conversation)] if body else []
    if is_conversation and contents:
        found.extend(_notifications(reading, bool(body)))
    return found


class _Reading(NamedTuple):
    """What one pass over a stanza found."""

    sender: Address
    sender_device: str
    recipient: Address
    recipient_device: str
    identifier: str
    now: float
    sent_at: float
    hops: int
    language: str
    subject: str
    thread: str
    body: str
    contents: dict[str, Element]


def _read(stanza: Element, now: float) -> _Reading:
    contents: dict[str, Element] = {}
    body = subject = thread = ""
    language = stanza.get(XML_LANG, "")
    has_body = False
    for part in stanza:
        tag = part.tag
        if tag in _BODIES:
            # Several bodies are translations of one another (RFC 6121 section 5.2.3): the unmarked or first one.
            if not has_body or XML_LANG not in part.attrib:
                body, language, has_body = part.text or "", part.get(XML_LANG, stanza.get(XML_LANG, "")), True
        elif tag in _THREADS:
            thread = part.text or ""
        elif tag in _SUBJECTS:
            subject = subject or part.text or ""
        else:
            contents.setdefault(tag, part)
    sender, sender_device = address_from_jid(stanza.get("from", ""))
    recipient, recipient_device = address_from_jid(stanza.get("to", ""))
    return _Reading(
        sender,
        sender_device,
        recipient,
        recipient_device,
        stanza.get("id", ""),
        now,
        _sent_at(contents[_DELAY], now) if _DELAY in contents else now,
        _hops(contents[_HOP]) if _HOP in contents else 0,
        language,
        subject,
        thread,
        body,
        contents,
    )


def _text(reading: _Reading, body: str, is_conversation: bool) -> Message:
    contents = reading.contents
    # Nobody who reads a notice in place of an encrypted text has received it: no receipt may say so (edge case 23).
    may_ask = bool(reading.identifier) and is_conversation and (body == reading.body or not is_notice(body))
    return Message(
        id=reading.identifier or _made_id(reading, body),
        sender=reading.sender,
        recipient=reading.recipient,
        sender_device=reading.sender_device,
        recipient_device=reading.recipient_device,
        text=body,
        language=reading.language,
        subject=reading.subject,
        thread=reading.thread,
        wants_delivered=may_ask and _REQUEST in contents,
        wants_displayed=may_ask and _MARKABLE in contents,
        sent_at=reading.sent_at,
        hops=reading.hops,
    )


def _notifications(reading: _Reading, has_text: bool) -> list[Message]:
    """Receipts, markers and a typing state; a text implies that its sender is active (XEP-0085 section 5.1)."""
    found: list[Message] = []
    for tag, part in reading.contents.items():
        kind = _NOTIFICATIONS.get(tag)
        state, refers_to = ChatState.ACTIVE, ""
        if kind is not None:
            refers_to = part.get("id", "")
            if not refers_to or len(refers_to) > MAXIMUM_ID_LENGTH:
                continue
        elif tag in _STATES and not has_text:
            kind, state = MessageKind.TYPING, _STATES[tag]
        else:
            continue
        # One stanza may say several things: the suffix keeps the ids of its messages apart.
        suffix = f".{kind.value}" if has_text or found else ""
        found.append(
            Message(
                id=(reading.identifier or _made_id(reading, tag)) + suffix,
                sender=reading.sender,
                recipient=reading.recipient,
                kind=kind,
                sender_device=reading.sender_device,
                recipient_device=reading.recipient_device,
                state=state,
                refers_to=refers_to,
                thread=reading.thread,
                sent_at=reading.sent_at,
                hops=reading.hops,
            )
        )
    return found


def _failed(reading: _Reading) -> list[Message]:
    """The stanza that bounced carries our id; without one nobody can tell what failed."""
    if not reading.identifier:
        return []
    error = next((reading.contents[tag] for tag in _ERRORS if tag in reading.contents), None)
    return [
        Message(
            id=f"{reading.identifier}.failed",
            sender=reading.sender,
            recipient=reading.recipient,
            kind=MessageKind.FAILED,
            sender_device=reading.sender_device,
            recipient_device=reading.recipient_device,
            refers_to=reading.identifier,
            failure=failure_from_stanza_error(error, bool(reading.sender_device)),
            sent_at=reading.now,
        )
    ]


def _made_id(reading: _Reading, text: str) -> str:
    """An id for a stanza that came without one; XMPP never retransmits, so the time may take part."""
    seed = f"{reading.sender}\n{reading.sender_device}\n{reading.recipient}\n{reading.now!r}\n{text}"
    return hashlib.sha256(seed.encode("utf-8", "replace")).hexdigest()[:32]


def _sent_at(delay: Element, now: float) -> float:
    stamp = parse_timestamp(delay.get("stamp", ""))
    return now if stamp is None else min(max(stamp, 0.0), now)


def _hops(marker: Element) -> int:
    value = marker.get("hops", "")
    # A forged or broken number counts as a loop rather than as a fresh message.
    return int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 99


@functools.lru_cache(maxsize=32768)
def _jid_attribute(address: Address, resource: str) -> str:
    return escape_attribute(address_to_jid(address, resource))


def message_to_stanza(message: Message, *, with_chat_state: bool = True, now: float | None = None) -> str:
    """Return the `<message/>` that says the same on XMPP, with its crossing counted.

    Text is of type chat, because clients show `normal` in a window of its own. Receipts and markers are asked for
    only when the sender asked. Typing is never stored, notifications are (XEP-0334).

    Args:
        message: any kind; its id becomes the stanza id (for FAILED: the id of the message that failed).
        with_chat_state: add `<active/>` to a text, which tells the other client that typing is understood here.
        now: Unix seconds; when given, a text that waited longer than half a minute carries its time (XEP-0203).
    """
    addresses = (
        f"from='{_jid_attribute(message.sender, message.sender_device)}'"
        f" to='{_jid_attribute(message.recipient, message.recipient_device)}'"
    )
    hop = f"<x xmlns='{ns.HOP}' hops='{message.hops + 1}'/>"
    if message.kind is MessageKind.TEXT:
        return _text_stanza(message, addresses, hop, with_chat_state, now)
    if message.kind is MessageKind.FAILED:
        failure = message.failure or Failure(Origin.PEER, 480, "recipient-unavailable", "")
        error = failure_to_stanza_error(failure)
        return f"<message type='error' id='{escape_attribute(message.refers_to)}' {addresses}>{error}</message>"
    identifier = escape_attribute(message.id)
    thread = f"<thread>{escape_text(message.thread)}</thread>" if message.thread else ""
    if message.kind is MessageKind.TYPING:
        content = f"<{message.state.value} xmlns='{ns.CHAT_STATES}'/>{thread}<no-store xmlns='{ns.HINTS}'/>"
    elif message.kind is MessageKind.DELIVERED:
        refers_to = escape_attribute(message.refers_to)
        content = f"<received xmlns='{ns.RECEIPTS}' id='{refers_to}'/><store xmlns='{ns.HINTS}'/>"
    else:
        refers_to = escape_attribute(message.refers_to)
        content = f"<displayed xmlns='{ns.CHAT_MARKERS}' id='{refers_to}'/>{thread}<store xmlns='{ns.HINTS}'/>"
    return f"<message type='chat' id='{identifier}' {addresses}>{content}{hop}</message>"


def _text_stanza(message: Message, addresses: str, hop: str, with_chat_state: bool, now: float | None) -> str:
    language = f" xml:lang='{escape_attribute(message.language)}'" if message.language else ""
    parts = [
        f"<message type='chat' id='{escape_attribute(message.id)}' {addresses}{language}>"
        f"<body>{escape_text(message.text)}</body>"
    ]
    if message.subject:
        parts.append(f"<subject>{escape_text(message.subject)}</subject>")
    if message.thread:
        parts.append(f"<thread>{escape_text(message.thread)}</thread>")
    if with_chat_state:
        parts.append(f"<active xmlns='{ns.CHAT_STATES}'/>")
    if message.wants_delivered:
        parts.append(f"<request xmlns='{ns.RECEIPTS}'/>")
    if message.wants_displayed:
        parts.append(f"<markable xmlns='{ns.CHAT_MARKERS}'/>")
    if now is not None and message.sent_at and now - message.sent_at > _DELAY_WORTH_TELLING_SECONDS:
        domain = escape_attribute(message.sender.domain)
        parts.append(f"<delay xmlns='{ns.DELAY}' from='{domain}' stamp='{format_timestamp(message.sent_at)}'/>")
    parts.append(hop)
    parts.append("</message>")
    return "".join(parts)
