"""SIP requests and responses (RFC 3261 sections 7 and 8).

Typed properties (`top_via`, `from_address`, ...) parse when first asked for and remember the result until the header
field changes. They raise `SipParseError` when the field is malformed, and when a mandatory one is missing; what has
passed `validation.check_request` never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from isthmus.sip.fields import CSeq, NameAddr
from isthmus.sip.headers import Headers
from isthmus.sip.message_fields import (
    DEFAULT_EXPIRES_SECONDS,
    MAXIMUM_EXPIRES_SECONDS,
    MAXIMUM_MAX_FORWARDS,
    MessageFields,
)
from isthmus.sip.reasons import REASON_PHRASES, reason_phrase
from isthmus.sip.uri import OtherUri, SipUri

__all__ = [
    "DEFAULT_EXPIRES_SECONDS",
    "MAXIMUM_EXPIRES_SECONDS",
    "MAXIMUM_MAX_FORWARDS",
    "REASON_PHRASES",
    "SipMessage",
    "SipRequest",
    "SipResponse",
    "build_request",
    "build_response",
]

_TAG = re.compile(r";\s*tag\s*=", re.IGNORECASE)
# RFC 3261 section 12.1.1, RFC 6665 section 4.2: answers to these make dialogs, and carry the route set back.
_DIALOG_METHODS = frozenset({"INVITE", "SUBSCRIBE", "NOTIFY", "REFER"})


class SipRequest(MessageFields):
    """A request (RFC 3261 section 7.1).

    Attributes:
        method: as on the wire; methods compare with case.
        uri: Request-URI.
        headers: header fields; Content-Length is left to the serialiser.
        body: the octets after the headers.
    """

    __slots__ = ("method", "uri")

    def __init__(
        self,
        method: str,
        uri: SipUri | OtherUri,
        headers: Headers | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        self.method = method
        self.uri = uri
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.body = body

    def to_bytes(self) -> bytes:
        """Return the message as it goes on the wire, with its Content-Length."""
        return self._serialise(f"{self.method} {self.uri} SIP/2.0")

    def copy(self) -> SipRequest:
        """Return a copy whose header fields can be changed without touching this one."""
        return SipRequest(self.method, self.uri, self.headers.copy(), self.body)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SipRequest):
            return NotImplemented
        return (self.method, self.uri, self.body) == (other.method, other.uri, other.body) and (
            self.headers == other.headers
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable; typeshed wants a method

    def __repr__(self) -> str:
        return f"<SipRequest {self.method} {self.uri} call-id={self.headers.get('call-id')}>"


class SipResponse(MessageFields):
    """A response (RFC 3261 section 7.2).

    Attributes:
        status: 100 to 699.
        reason: phrase for people; never decide by it.
        headers, body: as for requests.
    """

    __slots__ = ("reason", "status")

    def __init__(
        self,
        status: int,
        reason: str = "",
        headers: Headers | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.body = body

    @property
    def is_provisional(self) -> bool:
        """True for 1xx."""
        return self.status < 200

    @property
    def is_success(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300

    def to_bytes(self) -> bytes:
        """Return the message as it goes on the wire, with its Content-Length."""
        return self._serialise(f"SIP/2.0 {self.status} {self.reason}")

    def copy(self) -> SipResponse:
        """Return a copy whose header fields can be changed without touching this one."""
        return SipResponse(self.status, self.reason, self.headers.copy(), self.body)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SipResponse):
            return NotImplemented
        return (self.status, self.reason, self.body) == (other.status, other.reason, other.body) and (
            self.headers == other.headers
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable; typeshed wants a method

    def __repr__(self) -> str:
        return f"<SipResponse {self.status} {self.reason} call-id={self.headers.get('call-id')}>"


SipMessage = SipRequest | SipResponse

# Copied into every response in the order of the request (section 8.2.6.2).
_COPIED = frozenset({"via", "from", "to", "call-id", "cseq"})


def build_response(
    request: SipRequest,
    status: int,
    reason: str = "",
    *,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    content_type: str = "",
    to_tag: str = "",
) -> SipResponse:
    """Build the response to a request (RFC 3261 section 8.2.6); works on requests too broken to be parsed further.

    Via, From, To, Call-ID and CSeq are copied as they came; Timestamp into a 100; Record-Route into 101 to 299 of
    requests that make dialogs (section 12.1.1) unless `headers` brings its own.

    Args:
        request: what is answered.
        status: 100 to 699.
        reason: phrase; empty for the standard one.
        headers: further header fields.
        body: message body.
        content_type: its media type.
        to_tag: tag added to To when it has none; empty adds none.
    """
    lines: list[tuple[str, str, str]] = []
    for line in request.headers.lines:
        key = line[0]
        if key in _COPIED:
            if key == "to" and to_tag and _TAG.search(line[2], line[2].rfind(">") + 1) is None:
                lines.append(("to", "To", f"{line[2]};tag={to_tag}"))
            else:
                lines.append(line)
        elif (key == "timestamp" and status == 100) or (
            key == "record-route" and 100 < status < 300 and request.method in _DIALOG_METHODS
        ):
            lines.append(line)
    response_headers = Headers.of_lines(lines)
    for name, value in headers:
        response_headers.add(name, value)
    if content_type:
        response_headers.add("Content-Type", content_type)
    return SipResponse(status, reason or reason_phrase(status), response_headers, body)


def build_request(
    method: str,
    uri: SipUri | OtherUri,
    *,
    from_address: NameAddr,
    to_address: NameAddr,
    call_id: str,
    cseq: int,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    content_type: str = "",
    max_forwards: int = 70,
) -> SipRequest:
    """Build a request as a user agent does (RFC 3261 section 8.1.1), but without Via, which belongs to the transport.

    Args:
        method, uri: of the request line.
        from_address: From, with its tag.
        to_address: To, with a tag inside a dialog.
        call_id, cseq: identify the request within its dialog.
        headers: further header fields, in order.
        body: message body.
        content_type: its media type.
        max_forwards: hops allowed.
    """
    request_headers = Headers(
        [
            ("Max-Forwards", str(max_forwards)),
            ("From", str(from_address)),
            ("To", str(to_address)),
            ("Call-ID", call_id),
            ("CSeq", f"{cseq} {method}"),
            *headers,
        ]
    )
    if content_type:
        request_headers.add("Content-Type", content_type)
    cache = request_headers.cache
    cache["from"], cache["to"], cache["cseq"] = from_address, to_address, CSeq(cseq, method)
    return SipRequest(method, uri, request_headers, body)
