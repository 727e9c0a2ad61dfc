"""REFER: "call somebody else" (RFC 3515), without a subscription on request (RFC 4488), and what is told about it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from isthmus.errors import SipParseError
from isthmus.sip.headers import NameAddr
from isthmus.sip.message import SipRequest
from isthmus.sip.reasons import reason_phrase
from isthmus.sip.replaces import Replaces
from isthmus.sip.uri import OtherUri, SipUri

SIPFRAG_TYPE = "message/sipfrag"
NO_SUBSCRIPTION_TAG = "norefersub"
EVENT_PACKAGE = "refer"
# More would be header fields that we have no use for.
_MAXIMUM_URI_HEADERS = 16


@dataclass(frozen=True, slots=True)
class ReferTo:
    """What a REFER asks for.

    Attributes:
        target: whom to call, without header fields and method.
        replaces: the dialog that the new call takes the place of (attended transfer), or None.
    """

    target: SipUri | OtherUri
    replaces: Replaces | None = None

    @classmethod
    def of(cls, request: SipRequest) -> ReferTo:
        """Read the Refer-To of a REFER.

        Raises:
            SipParseError: 400, there is not exactly one, or it is malformed; 501, it wants another method than INVITE.
        """
        values = request.headers.get_list("refer-to")
        if len(values) != 1:
            raise SipParseError("a REFER needs exactly one Refer-To")
        return cls.parse(values[0])

    @classmethod
    def parse(cls, text: str) -> ReferTo:
        """Read one value of Refer-To (RFC 3515 section 2.1). Raises SipParseError as `of`."""
        uri = NameAddr.parse(text).uri
        if isinstance(uri, OtherUri):
            return cls(uri)
        method = uri.param("method")
        if method is not None and method.upper() != "INVITE":
            raise SipParseError(f"a REFER to {method} is not supported", status=501)
        replaces = None
        for name, value in _uri_headers(uri.headers):
            if name.lower() == "replaces":
                if replaces is not None:
                    raise SipParseError("Refer-To names two dialogs to replace")
                replaces = Replaces.parse(value)
        plain = SipUri(uri.scheme, uri.host, uri.user, uri.password, uri.port, uri.params).without_params("method")
        return cls(plain, replaces)


def _uri_headers(text: str) -> list[tuple[str, str]]:
    """Cut `name=value&name=value` of a URI and undo its escapes (RFC 3261 section 19.1.1). `+` stands for itself."""
    if not text:
        return []
    pieces = text.split("&")
    if len(pieces) > _MAXIMUM_URI_HEADERS:
        raise SipParseError("a URI with too many header fields")
    found = []
    for piece in pieces:
        name, _, value = piece.partition("=")
        value = unquote(value, errors="replace")
        if "\r" in value or "\n" in value:
            raise SipParseError("a header field of a URI holds a line break")
        found.append((unquote(name), value))
    return found


def wants_subscription(request: SipRequest) -> bool:
    """False when the sender of a REFER does without NOTIFY (RFC 4488 section 3)."""
    return (request.headers.get("refer-sub") or "true").partition(";")[0].strip().lower() != "false"


def sipfrag(status: int, reason: str = "") -> bytes:
    """Return the body of a NOTIFY about a REFER (RFC 3515 section 2.4.5): the status line alone."""
    phrase = " ".join((reason or reason_phrase(status)).split())
    return f"SIP/2.0 {status} {phrase}\r\n".encode()
