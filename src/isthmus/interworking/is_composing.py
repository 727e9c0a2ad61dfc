"""Indication of message composition: the XML of RFC 3994 section 6."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.errors import PayloadError
from isthmus.xml_text import escape_text, local_name, parse_xml

IS_COMPOSING_TYPE = "application/im-iscomposing+xml"
_NAMESPACE = "urn:ietf:params:xml:ns:im-iscomposing"

# RFC 3994 section 3.3: without a refresh element the receiver waits 120 s; a sender refreshes no sooner than 60 s.
DEFAULT_REFRESH_SECONDS = 120
MINIMUM_REFRESH_SECONDS = 60
# Longer than anybody types without a pause; keeps a forged value from holding the indicator for hours.
MAXIMUM_REFRESH_SECONDS = 600


@dataclass(frozen=True, slots=True)
class IsComposing:
    """Typing or not.

    Attributes:
        is_active: the sender is composing.
        refresh_seconds: how long that holds without another indication.
        content_type: what is being composed.
    """

    is_active: bool
    refresh_seconds: int = DEFAULT_REFRESH_SECONDS
    content_type: str = ""


def parse_is_composing(body: bytes) -> IsComposing:
    """Parse an `application/im-iscomposing+xml` body; an unknown state is idle (section 3.2). Raises PayloadError."""
    root = parse_xml(body)
    if local_name(root.tag) != "isComposing":
        raise PayloadError("the body is not an isComposing document")
    texts = {local_name(part.tag): (part.text or "").strip() for part in root}
    refresh = texts.get("refresh", "")
    seconds = int(refresh[:9]) if refresh.isascii() and refresh.isdigit() else DEFAULT_REFRESH_SECONDS
    return IsComposing(
        is_active=texts.get("state", "").lower() == "active",
        refresh_seconds=min(max(seconds, 1), MAXIMUM_REFRESH_SECONDS),
        content_type=texts.get("contenttype", ""),
    )


def build_is_composing(indication: IsComposing) -> bytes:
    """Return the document; `refresh` only goes with the active state (section 6)."""
    state = "active" if indication.is_active else "idle"
    content = f"<contenttype>{escape_text(indication.content_type or 'text/plain')}</contenttype>"
    refresh = ""
    if indication.is_active:
        refresh = f"<refresh>{max(indication.refresh_seconds, MINIMUM_REFRESH_SECONDS)}</refresh>"
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>\r\n"
        f"<isComposing xmlns='{_NAMESPACE}'><state>{state}</state>{content}{refresh}</isComposing>"
    ).encode()
