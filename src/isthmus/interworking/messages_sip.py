"""Messages as SIP MESSAGE requests: SIP -> `Message` and back (RFC 3428, RFC 7572, RFC 5438, RFC 3994)."""

from __future__ import annotations

import functools
import hashlib
import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple

from isthmus.errors import SipParseError
from isthmus.interworking.addresses import address_from_uri, address_to_sip_uri
from isthmus.interworking.cpim import CPIM_TYPE, build_cpim
from isthmus.interworking.failures import failure_from_sip
from isthmus.interworking.imdn import IMDN_TYPE, DispositionReport, build_imdn
from isthmus.interworking.is_composing import (
    IS_COMPOSING_TYPE,
    MINIMUM_REFRESH_SECONDS,
    IsComposing,
    build_is_composing,
)
from isthmus.interworking.messages_xmpp import MAXIMUM_ID_LENGTH, MAXIMUM_TEXT_OCTETS
from isthmus.interworking.sip_bodies import BodyContent, decode_text, read_body, unpacked_body
from isthmus.model import Address, ChatState, Failure, Message, MessageKind
from isthmus.presence.timestamps import format_timestamp, parse_timestamp
from isthmus.sip.message import SipRequest
from isthmus.sip.uri import SipUri
from isthmus.xml_text import strip_illegal

PLAIN_TEXT_TYPE = "text/plain;charset=UTF-8"

# Header fields that say something about a text; most requests have none of them.
_ABOUT_TEXTS = frozenset({"date", "expires", "subject", "content-language"})
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
# An expiry beyond this says nothing about when a text grows stale; the journal's own limit is far below.
_MAXIMUM_EXPIRES_SECONDS = 30 * 24 * 3600


def message_from_sip(
    request: SipRequest,
    now: float,
    *,
    sender: Address | None = None,
    sender_device: str = "",
    recipient: Address | None = None,
    phone_domain: str = "",
    hops: int = 0,
) -> list[Message]:
    """Return what a MESSAGE request says: usually one text, notification or typing state.

    The id is the sender's imdn.Message-ID, or else derived from the transaction, so that a retransmission after a
    crash is the same message. An empty body says nothing and yields an empty list.

    Args:
        request: the MESSAGE.
        now: Unix seconds.
        sender, sender_device: the authenticated sender; by default the From URI, which must have been checked.
        recipient: who it is for; by default the Request-URI (a provider may have rewritten it: edge case 20).
        phone_domain: domain of `tel:` numbers.
        hops: crossings behind it, from the request's signed hop marker.

    Raises:
        UnsupportedBodyError: 415; its `headers` belong into the response.
        SipParseError, PayloadError: a malformed body (400), a `sips:` target (416), too long (413).
        AddressError: From or Request-URI does not name a person.
    """
    _refuse_secure(request)
    if sender is None:
        sender, sender_device = address_from_uri(request.from_address.uri, phone_domain)
    recipient_device = ""
    if recipient is None:
        recipient, recipient_device = address_from_uri(request.uri, phone_domain)
    headers = request.headers
    body = unpacked_body(request)
    if not body:
        return []
    if request.content_type == "text/plain":
        contents = [BodyContent(text=decode_text(body, request.content_type_param("charset") or ""))]
    else:
        contents = read_body(headers.get("Content-Type") or "", body)
    frame = _Frame(
        request, now, sender, sender_device, recipient, recipient_device, hops, derived_message_id(request, recipient)
    )
    if len(contents) == 1 and contents[0].text:
        return [_text(frame, contents[0], frame.identifier)]
    found: list[Message] = []
    for number, content in enumerate(contents):
        made_id = f"{frame.identifier}.{number}" if number else frame.identifier
        if content.text:
            found.append(_text(frame, content, made_id))
        elif content.report or content.composing:
            found.extend(_notification(frame, content, made_id))
    return found


class _Frame(NamedTuple):
    """What all messages of one request have in common."""

    request: SipRequest
    now: float
    sender: Address
    sender_device: str
    recipient: Address
    recipient_device: str
    hops: int
    identifier: str


def _text(frame: _Frame, content: BodyContent, made_id: str) -> Message:
    if len(content.text) * 4 > MAXIMUM_TEXT_OCTETS and len(content.text.encode()) > MAXIMUM_TEXT_OCTETS:
        raise SipParseError("the message is too long", status=413, condition="policy-violation")
    headers, envelope = frame.request.headers, content.envelope
    sent_at, expires_at, subject, language = frame.now, None, "", ""
    if headers.has_any(_ABOUT_TEXTS):
        date, expires = headers.get("Date"), frame.request.expires
        sent_at = min(_date(date, frame.now), frame.now) if date else frame.now
        expires_at = None if expires is None else sent_at + min(expires, _MAXIMUM_EXPIRES_SECONDS)
        subject, language = headers.get("Subject") or "", headers.get("Content-Language") or ""
    asked: frozenset[str] = frozenset()
    if envelope is not None:
        stamp = parse_timestamp(envelope.get("datetime"))
        sent_at = sent_at if stamp is None else min(max(stamp, 0.0), frame.now)
        subject = envelope.get("subject") or subject
        own_id = _usable_id(envelope.message_id)
        # Without an id there is nothing that a notification could refer to (RFC 5438 section 7.1.1.2).
        asked = envelope.dispositions if own_id else asked
        made_id = own_id or made_id
    return Message(
        id=made_id,
        sender=frame.sender,
        recipient=frame.recipient,
        sender_device=frame.sender_device,
        recipient_device=frame.recipient_device,
        text=content.text,
        language=language if language and _LANGUAGE.fullmatch(language) else "",
        subject=subject,
        thread=frame.request.call_id,
        wants_delivered="positive-delivery" in asked,
        wants_displayed="display" in asked,
        sent_at=sent_at,
        expires_at=expires_at,
        hops=frame.hops,
    )


def _usable_id(message_id: str) -> str:
    return message_id if len(message_id) <= MAXIMUM_ID_LENGTH and strip_illegal(message_id) == message_id else ""


# The dispositions that XMPP has words for. "processed" and "stored" promise nothing, "forbidden" means that the
# recipient keeps it to himself, and a failed *display* is no failed message.
_KIND_BY_DISPOSITION = {
    ("delivery", "delivered"): MessageKind.DELIVERED,
    ("delivery", "failed"): MessageKind.FAILED,
    ("delivery", "error"): MessageKind.FAILED,
    ("display", "displayed"): MessageKind.DISPLAYED,
}


def _notification(frame: _Frame, content: BodyContent, made_id: str) -> list[Message]:
    report, composing = content.report, content.composing
    kind: MessageKind | None = MessageKind.TYPING
    refers_to, failure, expires_at, state = "", None, None, ChatState.ACTIVE
    if composing is not None:
        # RFC 3994 section 3.3: the receiver forgets "composing" when no refresh comes: whoever holds it then pauses.
        expires_at = frame.now + composing.refresh_seconds if composing.is_active else None
        state = ChatState.COMPOSING if composing.is_active else ChatState.ACTIVE
    elif report is not None:
        kind = _KIND_BY_DISPOSITION.get((report.notification, report.status))
        refers_to = report.message_id
        failure = failure_from_sip(480) if kind is MessageKind.FAILED else None
    if kind is None or len(refers_to) > MAXIMUM_ID_LENGTH:
        return []
    own_id = _usable_id(content.envelope.message_id) if content.envelope else ""
    return [
        Message(
            id=own_id or made_id,
            sender=frame.sender,
            recipient=frame.recipient,
            kind=kind,
            sender_device=frame.sender_device,
            recipient_device=frame.recipient_device,
            state=state,
            refers_to=refers_to,
            failure=failure,
            sent_at=frame.now,
            expires_at=expires_at,
            hops=frame.hops,
        )
    ]


def _refuse_secure(request: SipRequest) -> None:
    """`sips:` promises TLS on every hop, which nobody can keep beyond the gateway (STANDARDS 1.1)."""
    for uri in (request.uri, request.to_address.uri):
        if isinstance(uri, SipUri) and uri.is_secure:
            raise SipParseError("a sips: address cannot be reached across realms", status=416)


def origin_key(request: SipRequest, recipient: Address) -> str:
    """Return what identifies a transmission: Call-ID, CSeq, From (with tag) and recipient.

    Not the Call-ID alone: some phones send every message of a conversation with the same one (edge case 16). The
    fields are taken as they came: who transmits again sends the same octets (RFC 3261 section 17.1.2.2).
    """
    first = request.headers.first
    return f"{first.get('call-id')}\n{first.get('cseq')}\n{first.get('from')}\n{recipient}"


def derived_message_id(request: SipRequest, recipient: Address) -> str:
    """Return a 128-bit id for a message whose sender gave none; the same transmission always gets the same one."""
    return hashlib.sha256(origin_key(request, recipient).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _date(value: str, default: float) -> float:
    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return default
    return parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()


@functools.lru_cache(maxsize=32768)
def _cpim_uri(address: Address, device: str = "") -> str:
    """The very URI of the SIP header field.

    COMPAT: Linphone 5.1 compares From in the CPIM with From around it, reads no `im:` URIs, and answers 488 when they
    differ ("Sender authentication failed"). RFC 3862 section 3.1 takes any scheme.
    """
    return str(address_to_sip_uri(address, device))


def message_to_sip_body(message: Message, accepts_cpim: bool, now: float) -> tuple[str, bytes] | None:
    """Return (Content-Type, body) for a MESSAGE that says the same, or None when SIP has no way to say it.

    Notifications need CPIM; a device without it gets a late failure as a text and no receipts (edge case 17). `gone`
    has no counterpart in RFC 3994. Typing bodies are understood without CPIM, but the device may answer 415.

    Args:
        message: any kind; split long texts before (`text_parts.split_message`).
        accepts_cpim: the device lists `message/cpim` in Accept.
        now: Unix seconds.
    """
    if message.kind is MessageKind.TEXT:
        if not accepts_cpim:
            return PLAIN_TEXT_TYPE, message.text.encode("utf-8", "replace")
        return CPIM_TYPE, _text_as_cpim(message, now)
    if message.kind is MessageKind.TYPING:
        if message.state is ChatState.GONE:
            return None
        indication = IsComposing(message.state is ChatState.COMPOSING, MINIMUM_REFRESH_SECONDS)
        return IS_COMPOSING_TYPE, build_is_composing(indication)
    if accepts_cpim:
        return CPIM_TYPE, _report_as_cpim(message, now)
    if message.kind is MessageKind.FAILED:
        return PLAIN_TEXT_TYPE, failure_notice(message.failure).encode()
    return None


def failure_notice(failure: Failure | None) -> str:
    """Return the text that tells a device without IMDN that a message was not delivered."""
    reason = failure.text if failure is not None else ""
    return f"[Your message was not delivered. {reason}]" if reason else "[Your message was not delivered.]"


def _text_as_cpim(message: Message, now: float) -> bytes:
    dispositions = []
    if message.wants_delivered:
        dispositions.append("positive-delivery")
    if message.wants_displayed:
        dispositions.append("display")
    return build_cpim(
        sender_uri=_cpim_uri(message.sender, message.sender_device),
        recipient_uri=_cpim_uri(message.recipient),
        sent_at=format_timestamp(message.sent_at or now),
        content_type="text/plain; charset=utf-8",
        body=message.text.encode("utf-8", "replace"),
        message_id=message.id,
        dispositions=dispositions,
        subject=message.subject,
    )


# RFC 5438 section 7.2.1: what each kind is called in the document.
_DISPOSITION_BY_KIND = {
    MessageKind.DELIVERED: ("delivery", "delivered"),
    MessageKind.DISPLAYED: ("display", "displayed"),
    MessageKind.FAILED: ("delivery", "failed"),
}


def _report_as_cpim(message: Message, now: float) -> bytes:
    notification, status = _DISPOSITION_BY_KIND[message.kind]
    sent_at = format_timestamp(message.sent_at or now)
    report = DispositionReport(message.refers_to, notification, status, sent_at, _cpim_uri(message.sender))
    return build_cpim(
        sender_uri=_cpim_uri(message.sender, message.sender_device),
        recipient_uri=_cpim_uri(message.recipient),
        sent_at=sent_at,
        content_type=IMDN_TYPE,
        body=build_imdn(report),
        # A notification has an id of its own and asks for no notification (RFC 5438 section 7.2.1.2).
        message_id=message.id,
        content_headers=(("Content-Disposition", "notification"),),
    )


def message_to_sip_headers(message: Message, now: float) -> list[tuple[str, str]]:
    """Return the header fields that go with the body: Subject, Content-Language, Date and Expires (RFC 3428).

    Values are single lines: nothing a sender writes can add a header field.
    """
    headers: list[tuple[str, str]] = []
    if message.kind is not MessageKind.TEXT:
        return headers
    subject = " ".join(strip_illegal(message.subject).split())
    if subject:
        headers.append(("Subject", subject))
    if message.language and _LANGUAGE.fullmatch(message.language):
        headers.append(("Content-Language", message.language))
    if message.expires_at is not None:
        headers.append(("Date", format_datetime(datetime.fromtimestamp(int(now), UTC), usegmt=True)))
        headers.append(("Expires", str(max(0, int(message.expires_at - now)))))
    return headers
