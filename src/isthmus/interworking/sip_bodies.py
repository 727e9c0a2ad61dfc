"""What the body of a SIP request, or a part of it, says: decoding, decompression and a choice among alternatives.

Nothing here knows people: it turns octets into `BodyContent` records that `messages_sip` makes messages of.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from isthmus.errors import PayloadError, SipParseError
from isthmus.interworking.cpim import CPIM_TYPE, CpimMessage, parse_cpim
from isthmus.interworking.imdn import IMDN_TYPE, DispositionReport, parse_imdn
from isthmus.interworking.is_composing import IS_COMPOSING_TYPE, IsComposing, parse_is_composing
from isthmus.interworking.plain_text import html_to_text, rtf_to_text
from isthmus.sip.limits import MAXIMUM_MIME_NESTING
from isthmus.sip.message import SipRequest
from isthmus.sip.mime import parse_media_type, parse_multipart

# In the order we prefer them among the parts of multipart/alternative.
TEXT_TYPES = ("text/plain", "text/html", "application/xhtml+xml", "text/rtf", "application/rtf")
ACCEPTED_TYPES = (
    "text/plain",
    CPIM_TYPE,
    IMDN_TYPE,
    IS_COMPOSING_TYPE,
    "text/html",
    "text/rtf",
    "multipart/alternative",
    "multipart/mixed",
    "multipart/related",
)
ACCEPT = ", ".join(ACCEPTED_TYPES)
ACCEPT_ENCODING = "identity, deflate, gzip"

# What a stream message may hold: a body that grows beyond it when unpacked is a bomb (edge case 19).
MAXIMUM_UNPACKED_OCTETS = 256 * 1024

_CHARSETS = {
    "": "utf-8",
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",  # COMPAT: senders say us-ascii and write UTF-8; ASCII itself is the same
    "ascii": "utf-8",
    "iso-8859-1": "cp1252",  # COMPAT: as browsers do, the superset
    "latin1": "cp1252",
    "windows-1252": "cp1252",
    "iso-8859-15": "iso-8859-15",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
}
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff\ud800-\udfff]")


class UnsupportedBodyError(SipParseError):
    """The body is of a kind we cannot read: 415 with what we can (RFC 3261 section 21.4.13).

    Attributes:
        headers: Accept and Accept-Encoding for the response.
    """

    status = 415
    condition = "not-acceptable"
    headers: tuple[tuple[str, str], ...] = (("Accept", ACCEPT), ("Accept-Encoding", ACCEPT_ENCODING))


@dataclass(frozen=True, slots=True)
class BodyContent:
    """One thing that a body says: exactly one of `text`, `report` and `composing`, and the CPIM envelope, if any."""

    text: str = ""
    report: DispositionReport | None = None
    composing: IsComposing | None = None
    envelope: CpimMessage | None = None


def decode_text(body: bytes, charset: str = "") -> str:
    """Return the text: line ends as LF, without characters that XML cannot carry.

    Raises:
        SipParseError: not valid in its charset (400).
        UnsupportedBodyError: a charset we do not know.
    """
    codec = _CHARSETS.get(charset.lower().strip('"'))
    if codec is None:
        raise UnsupportedBodyError(f"the charset {charset[:40]!r} is not supported")
    try:
        text = body.decode(codec)
    except UnicodeDecodeError as error:
        raise SipParseError("the text of the message is not valid in its charset") from error
    if _CONTROLS.search(text):
        text = _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text


def unpacked_body(request: SipRequest) -> bytes:
    """Return the body of a request without its Content-Encoding. Raises as `unpack`."""
    encoding = request.headers.get("Content-Encoding")
    return unpack(request.body, encoding) if encoding else request.body


def unpack(body: bytes, encodings: str) -> bytes:
    """Undo a Content-Encoding (RFC 3261 section 20.12); deflate is taken with and without its zlib header.

    Raises:
        UnsupportedBodyError: an encoding we do not know, or several on top of each other.
        SipParseError: broken data (400), or more than MAXIMUM_UNPACKED_OCTETS (413).
    """
    name = encodings.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("deflate", "gzip", "x-gzip"):
        raise UnsupportedBodyError(f"the content encoding {name[:40]!r} is not supported")
    unpacked = _inflate(body, 47)  # zlib or gzip, told by the first octets
    if unpacked is None and name == "deflate":
        unpacked = _inflate(body, -15)  # COMPAT Linphone before 4.0 and others: raw deflate
    if unpacked is None:
        raise SipParseError("the compressed body is broken")
    return unpacked


def _inflate(body: bytes, window_bits: int) -> bytes | None:
    decompressor = zlib.decompressobj(window_bits)
    try:
        unpacked = decompressor.decompress(body, MAXIMUM_UNPACKED_OCTETS + 1)
    except zlib.error:
        return None
    if len(unpacked) > MAXIMUM_UNPACKED_OCTETS:
        raise SipParseError("the body is too large when unpacked", status=413, condition="policy-violation")
    return unpacked if decompressor.eof else None


def read_body(content_type: str, body: bytes, depth: int = 0) -> list[BodyContent]:
    """Return what a body says.

    Args:
        content_type: the Content-Type value with its parameters; "" means text/plain (RFC 2045 section 5.2).
        body: unpacked octets.
        depth: nesting so far.

    Raises:
        UnsupportedBodyError: no part is readable.
        SipParseError, PayloadError: malformed.
    """
    media_type, parameters = parse_media_type(content_type or "text/plain")
    values = {name: value or "" for name, value in parameters}
    if media_type in TEXT_TYPES:
        return [BodyContent(text=_readable(media_type, decode_text(body, values.get("charset", ""))))]
    if media_type == CPIM_TYPE:
        return _read_cpim(body, depth)
    if media_type == IMDN_TYPE:
        return [BodyContent(report=parse_imdn(body))]
    if media_type == IS_COMPOSING_TYPE:
        return [BodyContent(composing=parse_is_composing(body))]
    if media_type.startswith("multipart/"):
        return _read_multipart(media_type, content_type, body, depth)
    raise UnsupportedBodyError(f"the content type {media_type[:80]!r} is not supported")


def _readable(media_type: str, text: str) -> str:
    if media_type == "text/plain":
        return text
    return rtf_to_text(text) if media_type.endswith("rtf") else html_to_text(text)


def _read_cpim(body: bytes, depth: int) -> list[BodyContent]:
    if depth >= MAXIMUM_MIME_NESTING:
        raise SipParseError("the parts of the message are nested too deeply")
    envelope = parse_cpim(body)
    inner = read_body(envelope.content_type, envelope.body, depth + 1)
    return [replace(content, envelope=content.envelope or envelope) for content in inner]


def _read_multipart(media_type: str, content_type: str, body: bytes, depth: int) -> list[BodyContent]:
    if depth >= MAXIMUM_MIME_NESTING:
        raise SipParseError("the parts of the message are nested too deeply")
    parts = [(part.headers.get("Content-Type") or "", part.body) for part in parse_multipart(body, content_type)]
    if media_type == "multipart/alternative":
        return _best_alternative(parts, depth)
    contents: list[BodyContent] = []
    skipped: list[str] = []
    for part_type, part_body in parts:
        try:
            contents.extend(read_body(part_type, part_body, depth + 1))
        except UnsupportedBodyError:
            skipped.append(part_type.partition(";")[0].strip()[:80])
    if not contents:
        raise UnsupportedBodyError("no part of the message can be read")
    return _joined(contents, skipped)


def _joined(contents: Iterable[BodyContent], skipped: list[str]) -> list[BodyContent]:
    """The texts of a mixed body are one message; what was left out is said."""
    texts: list[str] = []
    others: list[BodyContent] = []
    envelope: CpimMessage | None = None
    for content in contents:
        if content.report or content.composing:
            others.append(content)
        elif content.text:
            texts.append(content.text)
            envelope = envelope or content.envelope
    texts.extend(f"[An attachment of type {kind} was left out.]" for kind in skipped if texts)
    return [*([BodyContent(text="\n".join(texts), envelope=envelope)] if texts else []), *others]


def _best_alternative(parts: list[tuple[str, bytes]], depth: int) -> list[BodyContent]:
    """Plain text first: the sender wrote it for readers like ours (RFC 2046 section 5.1.4 leaves the choice to us)."""

    def rank(part: tuple[str, bytes]) -> int:
        kind = (part[0] or "text/plain").partition(";")[0].strip().lower()
        return TEXT_TYPES.index(kind) if kind in TEXT_TYPES else len(TEXT_TYPES)

    for part_type, part_body in sorted(parts, key=rank):
        try:
            contents = read_body(part_type, part_body, depth + 1)
        except (UnsupportedBodyError, PayloadError):
            continue
        if any(content.text or content.report or content.composing for content in contents):
            return contents
    raise UnsupportedBodyError("no alternative of the message can be read")
