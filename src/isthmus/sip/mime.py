"""Multipart bodies (RFC 2046 section 5.1, RFC 5621 for SIP, RFC 2387 for multipart/related)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import quopri
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from isthmus.errors import SipParseError
from isthmus.sip.headers import Headers, Parameters
from isthmus.sip.limits import MAXIMUM_MIME_NESTING, MAXIMUM_MIME_PARTS
from isthmus.sip.syntax import format_parameters, is_token, parse_media_type, quote

__all__ = ["Part", "build_multipart", "parse_media_type", "parse_multipart", "walk_parts"]

# RFC 2046 section 5.1.1: bchars, at most 70.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_FOLDING = re.compile(r"\r\n[ \t]+")
# A part has a handful of Content-* fields; CPIM wrapped in MIME the most.
_MAXIMUM_PART_HEADERS = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body.

    Attributes:
        body: the octets, after transfer decoding.
        headers: its Content-* header fields.
    """

    body: bytes
    headers: Headers = field(default_factory=Headers)

    @classmethod
    def of(cls, content_type: str, body: bytes, **fields: str) -> Part:
        """Build a part: `Part.of("application/pidf+xml", xml, content_id="<a@corp.test>")`."""
        extra = [(name.replace("_", "-").title(), value) for name, value in fields.items()]
        return cls(body, Headers([("Content-Type", content_type), *extra]))

    @property
    def content_type(self) -> str:
        """Media type in lower case without parameters; `text/plain` when absent (RFC 2046 section 5.2)."""
        return parse_media_type(self.headers.get("content-type") or "text/plain")[0]

    @property
    def content_id(self) -> str:
        """Content-ID without its angle brackets, "" when absent: what a `cid:` URL names (RFC 2392)."""
        return (self.headers.get("content-id") or "").strip().removeprefix("<").removesuffix(">")


def parse_multipart(body: bytes, content_type: str) -> list[Part]:
    """Cut a multipart body into its parts; preamble and epilogue are dropped, a missing end is forgiven.

    Args:
        body: the octets.
        content_type: the Content-Type value, with its boundary.

    Raises:
        SipParseError: not multipart, no usable boundary, no part, or more than `limits.MAXIMUM_MIME_PARTS`.
    """
    media_type, parameters = parse_media_type(content_type)
    boundary = dict(parameters).get("boundary") or ""
    if not media_type.startswith("multipart/") or _BOUNDARY.fullmatch(boundary) is None:
        raise SipParseError("the body is not multipart or has no boundary")
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*+(?=\r\n|\Z)")
    parts: list[Part] = []
    start: int | None = None
    for match in delimiter.finditer(body):
        if start is not None:
            parts.append(_read_part(body[start : match.start()]))
        if len(parts) > MAXIMUM_MIME_PARTS:
            raise SipParseError("the body has too many parts", status=413)
        start = match.end()
        if match.group(1):
            start = None
            break
    if start is not None:
        # COMPAT: senders that forget the closing delimiter; Content-Length has told us that nothing is missing.
        parts.append(_read_part(body[start:]))
    if not parts:
        raise SipParseError("the multipart body has no part")
    return parts


def _read_part(octets: bytes) -> Part:
    octets = octets.removeprefix(b"\r\n")
    if octets.startswith(b"\r\n"):
        return Part(octets[2:])
    head, _, body = octets.partition(b"\r\n\r\n")
    lines = _FOLDING.sub(" ", head.decode("utf-8", "replace")).split("\r\n")
    if len(lines) > _MAXIMUM_PART_HEADERS:
        raise SipParseError("a part has too many header fields")
    fields: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and is_token(name.strip()):
            fields.append((name.strip(), value))
    headers = Headers(fields)
    return Part(_decoded(body, headers), headers)


def _decoded(body: bytes, headers: Headers) -> bytes:
    """Undo the transfer encoding; SIP is binary clean, but mail-minded senders encode (RFC 3261 section 7.4.1)."""
    encoding = (headers.get("content-transfer-encoding") or "binary").lower()
    if encoding == "base64":
        try:
            body = base64.b64decode(body)
        except binascii.Error as error:
            raise SipParseError("a part is not the base64 it claims to be") from error
    elif encoding == "quoted-printable":
        body = quopri.decodestring(body)
    else:
        return body
    headers.remove("content-transfer-encoding")
    return body


def walk_parts(body: bytes, content_type: str, *, nesting: int = 0) -> Iterator[Part]:
    """Yield the parts that are not multipart themselves, depth first; a plain body is one part.

    Raises:
        SipParseError: a multipart is malformed or nested deeper than `limits.MAXIMUM_MIME_NESTING`.
    """
    if not parse_media_type(content_type)[0].startswith("multipart/"):
        yield Part.of(content_type, body)
        return
    if nesting >= MAXIMUM_MIME_NESTING:
        raise SipParseError("the parts of the body are nested too deeply")
    for part in parse_multipart(body, content_type):
        if part.content_type.startswith("multipart/"):
            yield from walk_parts(part.body, part.headers.get("content-type") or "", nesting=nesting + 1)
        else:
            yield part


def build_multipart(
    parts: Iterable[Part], *, subtype: str = "mixed", parameters: Parameters = (), boundary: str = ""
) -> tuple[str, bytes]:
    """Join parts into one body.

    Args:
        parts: at least one.
        subtype: "mixed", "related", "alternative".
        parameters: further parameters of the Content-Type with plain values, e.g. `("type", "application/rlmi+xml")`.
        boundary: delimiter text; by default one made from the parts that occurs in none of them.

    Returns:
        The Content-Type value and the body.
    """
    pieces = [b"".join([_part_head(part), b"\r\n", part.body]) for part in parts]
    boundary = boundary or _free_boundary(pieces)
    mark = b"--" + boundary.encode()
    body = b"".join(mark + b"\r\n" + piece + b"\r\n" for piece in pieces) + mark + b"--\r\n"
    quoted = tuple((name, None if value is None else quote(value)) for name, value in parameters)
    # COMPAT: Linphone 5 takes everything behind "boundary=" for the boundary, so it is plain and stands last.
    last = boundary if is_token(boundary) else quote(boundary)
    return f"multipart/{subtype}{format_parameters(quoted)};boundary={last}", body


def _part_head(part: Part) -> bytes:
    lines = [f"{name}: {value}".replace("\r", " ").replace("\n", " ") for name, value in part.headers.items()]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _free_boundary(pieces: list[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    boundary = digest.hexdigest()[:24]
    while any(boundary.encode() in piece for piece in pieces):
        digest.update(b"again")
        boundary = digest.hexdigest()[:24]
    return boundary
