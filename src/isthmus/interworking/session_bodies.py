"""Session descriptions in the bodies of SIP requests and responses: plain, or somewhere in a multipart.

Rules of RFC 3261 section 13.2.1 (where offers and answers stand) and RFC 5621 (multipart and Content-Disposition).
"""

from __future__ import annotations

from isthmus.errors import SipParseError
from isthmus.interworking.sip_bodies import UnsupportedBodyError, unpack
from isthmus.sdp.session_description import SessionDescription
from isthmus.sip.headers import Headers, parse_parameterised
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.mime import Part, parse_multipart
from isthmus.sip.syntax import parse_media_type

SDP_TYPE = "application/sdp"
# What an INVITE, UPDATE or PRACK may carry; the answer to anything else is 415 with this.
ACCEPT = f"{SDP_TYPE}, multipart/mixed, multipart/alternative, multipart/related"
# Depth of multipart in multipart: SDP with a vCard or an image stands at one or two.
_DEEPEST = 4
# COMPAT Skype for Business sends two descriptions in multipart/alternative, the first for servers of 2007.
_OLD_ALTERNATIVE = "ms-proxy-2007fallback"


def session_in(message: SipRequest | SipResponse) -> SessionDescription | None:
    """Return the offer or answer that a message carries, None when it carries none.

    Raises:
        UnsupportedBodyError: 415, a part that must be understood is of no known type.
        SipParseError: 400, the multipart is malformed.
        SdpError: 488, the description cannot be read.
    """
    if not message.body:
        return None
    body = unpack(message.body, message.headers.get("content-encoding") or "")
    found = _find(message.headers.get("content-type") or "", body, message.headers, 0)
    return None if found is None else SessionDescription.parse(found)


def _find(content_type: str, body: bytes, headers: Headers, depth: int) -> bytes | None:
    media_type = parse_media_type(content_type)[0] if content_type else ""
    if media_type.startswith("multipart/"):
        return _find_in_parts(media_type, parse_multipart(body, content_type), depth + 1)
    disposition, is_required = _disposition(headers)
    if media_type == SDP_TYPE and disposition in ("", "session"):
        return body
    if not is_required:
        return None  # a picture or a ring tone that may be shown or left, early-session (RFC 3959)
    raise UnsupportedBodyError(f"the body type {media_type[:60]!r} is not supported")


def _find_in_parts(media_type: str, parts: list[Part], depth: int) -> bytes | None:
    if depth > _DEEPEST:
        raise SipParseError("the parts of the body are nested too deeply")
    is_alternative = media_type == "multipart/alternative"
    found: bytes | None = None
    unsupported: UnsupportedBodyError | None = None
    for part in parts:
        if _OLD_ALTERNATIVE in (part.headers.get("content-disposition") or ""):
            continue
        try:
            body = _find(part.headers.get("content-type") or "text/plain", part.body, part.headers, depth)
        except UnsupportedBodyError as error:
            unsupported = error
            continue
        if body is not None and (found is None or is_alternative):  # the last alternative is the best (RFC 2046 5.1.4)
            found = body
    if unsupported is not None and not (is_alternative and found is not None):
        raise unsupported
    return found


def _disposition(headers: Headers) -> tuple[str, bool]:
    """Return the disposition type, and whether the part must be understood (RFC 3261 section 20.11, RFC 5621 8.3)."""
    value, parameters = parse_parameterised(headers.get("content-disposition") or "")
    return value.lower(), (dict(parameters).get("handling") or "required").lower() != "optional"
