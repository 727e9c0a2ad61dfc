"""Common Presence and Instant Messaging message format (RFC 3862) with the IMDN headers of RFC 5438.

A CPIM object is two header blocks and a content: message headers (From, To, DateTime, NS, imdn.*), MIME headers of
the content, and the content itself, each separated by an empty line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.errors import PayloadError

CPIM_TYPE = "message/cpim"
CPIM_NAMESPACE = "urn:ietf:params:cpim-headers:"
IMDN_NAMESPACE = "urn:ietf:params:imdn"

# RFC 3862 headers are few; a flood of them is an attack on whoever parses them next.
MAXIMUM_HEADERS = 64
MAXIMUM_HEADER_OCTETS = 8 * 1024

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_ESCAPED = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "r": "\r"}
_MUST_ESCAPE = re.compile(r"[\\\x00-\x1f\x7f]")
_NAMESPACE = re.compile(r"(?:([A-Za-z0-9_.\-]+)\s+)?<([^>]*)>")


@dataclass(frozen=True, slots=True)
class CpimHeader:
    """One message header: its namespace URI, its lower-case name, the unescaped value and the language, if told."""

    namespace: str
    name: str
    value: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class CpimMessage:
    """A parsed CPIM object.

    Attributes:
        headers: message headers in order, NS declarations resolved and left out.
        content_type: media type of the content with its parameters, as written; "text/plain" when absent.
        content_headers: MIME headers of the content, names lower-case.
        body: the content.
    """

    headers: tuple[CpimHeader, ...]
    content_type: str
    content_headers: tuple[tuple[str, str], ...]
    body: bytes

    def get(self, name: str, namespace: str = CPIM_NAMESPACE) -> str:
        """Return the first header of that name (any case) in `namespace`, or ""."""
        wanted = name.lower()
        for header in self.headers:
            if header.name == wanted and header.namespace == namespace:
                return header.value
        return ""

    @property
    def message_id(self) -> str:
        """`imdn.Message-ID`, or ""."""
        return self.get("message-id", IMDN_NAMESPACE)

    @property
    def dispositions(self) -> frozenset[str]:
        """What the sender asked to be told of: "positive-delivery", "negative-delivery", "display", "processing"."""
        value = self.get("disposition-notification", IMDN_NAMESPACE)
        return frozenset(part.partition(";")[0].strip().lower() for part in value.split(",") if part.strip())


def parse_cpim(body: bytes) -> CpimMessage:
    """Parse a `message/cpim` body.

    Raises:
        PayloadError: no header block, header text that is not UTF-8, too many or too long headers.
    """
    blocks = _BLANK_LINE.split(body, maxsplit=2)
    # RFC 3862 section 4 shows the MIME wrapper as part of the object: some senders repeat it in the body.
    if blocks[0].lower().lstrip().startswith(b"content-type") and b"message/cpim" in blocks[0].lower():
        blocks = _BLANK_LINE.split(body, maxsplit=3)[1:]
    if len(blocks) < 2:
        raise PayloadError("a CPIM message needs message headers and a content")
    headers = tuple(_message_headers(_header_lines(blocks[0])))
    content_headers = tuple(_content_headers(_header_lines(blocks[1])))
    content = blocks[2] if len(blocks) > 2 else b""
    content_type = next((value for name, value in content_headers if name == "content-type"), "text/plain")
    return CpimMessage(headers, content_type, content_headers, content)


def _header_lines(block: bytes) -> list[str]:
    if len(block) > MAXIMUM_HEADER_OCTETS:
        raise PayloadError("the headers of the CPIM message are too long", status=413)
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PayloadError("the headers of the CPIM message are not UTF-8") from error
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if len(lines) > MAXIMUM_HEADERS:
        raise PayloadError("the CPIM message has too many headers", status=413)
    return lines


def _message_headers(lines: Iterable[str]) -> Iterable[CpimHeader]:
    namespaces = {"": CPIM_NAMESPACE}
    for line in lines:
        name, colon, rest = line.partition(":")
        if not colon:
            raise PayloadError("a CPIM header needs the form Name: value")
        language, value = _language_and_value(rest)
        prefix, dot, local = name.strip().rpartition(".")
        if name.strip().lower() == "ns":
            declared = _NAMESPACE.search(value)
            if declared:
                namespaces[(declared[1] or "").lower()] = declared[2].strip()
            continue
        # COMPAT Linphone and others write `imdn.` without declaring it: the prefix itself is unmistakable.
        namespace = namespaces.get(prefix.lower(), IMDN_NAMESPACE if prefix.lower() == "imdn" else prefix)
        yield CpimHeader(namespace, (local if dot else name.strip()).lower(), value, language)


def _language_and_value(rest: str) -> tuple[str, str]:
    """RFC 3862 section 2.3.2: `Subject:;lang=fr Objet`."""
    language = ""
    if rest.startswith(";"):
        parameters, _, rest = rest.partition(" ")
        for parameter in parameters.split(";"):
            key, _, value = parameter.partition("=")
            if key.lower() == "lang":
                language = value
    return language, _unescape(rest.strip())


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)) if match[1] else _ESCAPES.get(match[2], match[2]), value)


def _escape(value: str) -> str:
    return _MUST_ESCAPE.sub(lambda match: "\\\\" if match[0] == "\\" else f"\\u{ord(match[0]):04x}", value)


def _content_headers(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(":")
        yield name.strip().lower(), value.strip()


def build_cpim(
    *,
    sender_uri: str,
    recipient_uri: str,
    sent_at: str,
    content_type: str,
    body: bytes,
    message_id: str = "",
    dispositions: Iterable[str] = (),
    subject: str = "",
    content_headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return a CPIM object.

    Args:
        sender_uri, recipient_uri: `im:` or `sip:` URIs.
        sent_at: RFC 3339 timestamp; mandatory when a notification is asked for (RFC 5438 section 7.1.1.3).
        content_type: of the content, with parameters.
        body: the content.
        message_id: imdn.Message-ID.
        dispositions: what the sender wants to be told of, in RFC 5438 words.
        subject: shown to the recipient.
        content_headers: further MIME headers of the content, such as Content-Disposition.
    """
    lines = [f"From: <{sender_uri}>", f"To: <{recipient_uri}>", f"DateTime: {sent_at}"]
    if subject:
        lines.append(f"Subject: {_escape(subject)}")
    if message_id:
        lines.append(f"NS: imdn <{IMDN_NAMESPACE}>")
        lines.append(f"imdn.Message-ID: {_escape(message_id)}")
        wanted = ", ".join(dispositions)
        if wanted:
            lines.append(f"imdn.Disposition-Notification: {wanted}")
    lines.append("")
    lines.append(f"Content-Type: {content_type}")
    lines.extend(f"{name}: {value}" for name, value in content_headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
