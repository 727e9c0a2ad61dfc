"""Instant Message Disposition Notifications: the XML of RFC 5438 section 7.2."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.errors import PayloadError
from isthmus.xml_text import escape_text, local_name, parse_xml

IMDN_TYPE = "message/imdn+xml"
_NAMESPACE = "urn:ietf:params:xml:ns:imdn"

# The element that carries each status, and the statuses it may carry.
_STATUSES = {
    "delivery-notification": ("delivered", "failed", "forbidden", "error"),
    "display-notification": ("displayed", "forbidden", "error"),
    "processing-notification": ("processed", "stored", "forbidden", "error"),
}


@dataclass(frozen=True, slots=True)
class DispositionReport:
    """What became of a message.

    Attributes:
        message_id: imdn.Message-ID of the message it is about.
        notification: "delivery", "display" or "processing".
        status: "delivered", "failed", "displayed", "processed", "stored", "forbidden" or "error".
        sent_at: RFC 3339 timestamp of the original message.
        recipient_uri: who the original message was for.
    """

    message_id: str
    notification: str
    status: str
    sent_at: str = ""
    recipient_uri: str = ""


def parse_imdn(body: bytes) -> DispositionReport:
    """Parse a `message/imdn+xml` body. Raises PayloadError."""
    root = parse_xml(body)
    if local_name(root.tag) != "imdn":
        raise PayloadError("the notification is not an IMDN document")
    texts: dict[str, str] = {}
    notification, status = "", ""
    for part in root:
        name = local_name(part.tag)
        if name in _STATUSES:
            notification = name.removesuffix("-notification")
            found = [local_name(leaf.tag) for leaf in part.iter()]
            status = next((word for word in found if word in _STATUSES[name]), "")
        else:
            texts.setdefault(name, (part.text or "").strip())
    if not texts.get("message-id") or not notification or not status:
        raise PayloadError("the notification does not say what became of which message")
    return DispositionReport(
        texts["message-id"], notification, status, texts.get("datetime", ""), texts.get("recipient-uri", "")
    )


def build_imdn(report: DispositionReport) -> bytes:
    """Return the document for `report`."""
    recipient = escape_text(report.recipient_uri)
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>\r\n<imdn xmlns='{_NAMESPACE}'>"
        f"<message-id>{escape_text(report.message_id)}</message-id>"
        f"<datetime>{escape_text(report.sent_at)}</datetime>"
        f"<recipient-uri>{recipient}</recipient-uri>"
        f"<original-recipient-uri>{recipient}</original-recipient-uri>"
        f"<{report.notification}-notification><status><{report.status}/></status></{report.notification}-notification>"
        "</imdn>"
    ).encode()
