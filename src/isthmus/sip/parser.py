"""Bytes to messages: whole datagrams and WebSocket frames, and streams (RFC 3261 sections 7 and 18.3).

Nothing but `BadMessage` leaves this module, whatever the bytes. A request that cannot be accepted but can be answered
comes with `partial`; a response that cannot be accepted is always dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from isthmus.errors import SipParseError
from isthmus.sip.header_names import SPELLINGS, identify
from isthmus.sip.headers import Headers
from isthmus.sip.limits import MAXIMUM_DATAGRAM, MAXIMUM_HEADER_LINES, MAXIMUM_LINE, MAXIMUM_STREAM_MESSAGE
from isthmus.sip.message import SipMessage, SipRequest, SipResponse
from isthmus.sip.syntax import is_token, parse_number
from isthmus.sip.uri import OtherUri, SipUri, parse_uri

__all__ = ["BadMessage", "KeepAlive", "StreamParser", "parse_message"]

_FOLDING = re.compile(r"\r\n[ \t]+")
_STRAY_BREAK = re.compile(r"\r(?!\n)|(?<!\r)\n")
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6][0-9][0-9])(?: (.*))?", re.IGNORECASE | re.DOTALL)
_VERSION = re.compile(r"SIP/[0-9]+\.[0-9]+", re.IGNORECASE)
_BLANK_LINE = b"\r\n\r\n"
# Stands for a Request-URI that could not be read in the partial request of a BadMessage; it is never sent.
_UNREADABLE = OtherUri("invalid", "invalid")
_NO_HEADERS = Headers()


class BadMessage(SipParseError):  # noqa: N818  # named for what it is: a thing in the stream as well as raised
    """Bytes that are no acceptable SIP message.

    Attributes:
        status: what to answer with.
        partial: as much of the request as an answer needs (Via, From, To, Call-ID, CSeq as they came), or None:
            drop it without an answer (responses, ACK, noise).
        is_fatal: on a stream, where the next message begins is unknown, so the connection must close.
    """

    def __init__(
        self, text: str, *, status: int = 400, partial: SipRequest | None = None, is_fatal: bool = False
    ) -> None:
        super().__init__(text, status=status)
        self.partial = partial
        self.is_fatal = is_fatal


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """A keep-alive between messages on a stream (RFC 5626 section 3.5.1).

    Attributes:
        kind: "ping" (double CRLF: answer with one CRLF) or "pong" (single CRLF).
    """

    kind: str


class _Head:
    """Start line and header fields, with the first thing that is wrong with them."""

    __slots__ = ("content_length", "fault", "headers", "is_framed", "start_line", "status")

    def __init__(self) -> None:
        self.start_line = ""
        self.headers = _NO_HEADERS
        self.content_length: int | None = None  # None: absent
        self.fault = ""
        self.status = 400
        self.is_framed = True  # the length of the body is beyond doubt

    def blame(self, fault: str, *, status: int = 400, is_framed: bool = True) -> None:
        """Keep the first fault, and any doubt about framing."""
        if not self.fault:
            self.fault, self.status = fault, status
        self.is_framed = self.is_framed and is_framed


def parse_message(data: bytes, maximum: int = MAXIMUM_DATAGRAM) -> SipMessage:
    """Read one datagram or WebSocket frame; octets after Content-Length are ignored (RFC 3261 section 18.3).

    Args:
        data: the octets; leading line breaks are skipped (section 7.5).
        maximum: octets allowed; give `limits.MAXIMUM_STREAM_MESSAGE` for WebSocket frames.

    Raises:
        BadMessage: with `partial` when it is a request that can be answered.
    """
    if len(data) > maximum:
        raise BadMessage("the message is too large", status=513)
    if data[:2] == b"\r\n":
        data = data.lstrip(b"\r\n")
    octets, blank, body = data.partition(_BLANK_LINE)
    head = _read_head(octets if blank else octets.removesuffix(b"\r\n"))
    if not blank:
        head.blame("no blank line ends the header fields")
    length = head.content_length
    if length is not None and length != len(body):
        if length > len(body):
            head.blame("Content-Length is larger than the body")
        else:
            body = body[:length]
    return _assemble(head, body)


def _read_head(octets: bytes) -> _Head:
    """Read the octets before the blank line; faults are noted, not raised, so that a stream can go on."""
    head = _Head()
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        # RFC 3261 section 7.3.1 demands UTF-8. COMPAT: older phones put Latin-1 into display names; Latin-1 keeps
        # every octet apart, so tags and Call-IDs stay distinct.
        text = octets.decode("latin-1")
    if "\r\n " in text or "\r\n\t" in text:
        text = _FOLDING.sub(" ", text)
    lines = text.split("\r\n")
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        # Another parser may take a lone CR or LF for the end of a line: refuse, never pass it on.
        head.blame("a header line holds a line break that is not CRLF", is_framed=False)
        lines = [_STRAY_BREAK.sub(" ", line) for line in lines]
    head.start_line = lines[0]
    if len(lines) > MAXIMUM_HEADER_LINES:
        head.blame("there are too many header lines", is_framed=False)
        del lines[MAXIMUM_HEADER_LINES:]
    if len(text) > MAXIMUM_LINE and any(len(line) > MAXIMUM_LINE for line in lines):
        head.blame("a header line is too long", status=513)
        lines = [line for line in lines if len(line) <= MAXIMUM_LINE]
    _read_fields(head, lines)
    return head


def _read_fields(head: _Head, lines: list[str]) -> None:
    fields: list[tuple[str, str, str]] = []
    first: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        known = SPELLINGS.get(name)
        if known is None or not colon:
            # Blanks may stand before the colon (HCOLON, section 25.1).
            name = name.rstrip(" \t")
            if not colon or not is_token(name):
                head.blame("a header line has no name")
                continue
            known = identify(name)
        key, written = known
        if key == "content-length":
            _note_length(head, value)
        else:
            value = value.strip(" \t")
            fields.append((key, written, value))
            first.setdefault(key, value)
    head.headers = Headers.of_lines(fields, first)


def _note_length(head: _Head, value: str) -> None:
    length = parse_number(value, 2**31 - 1)
    if length is None:
        head.blame("Content-Length is not a number", is_framed=False)
    elif head.content_length is not None:
        # Even when both agree: the next hop may pick another one (RFC 4475 section 3.3.9).
        head.blame("there are two Content-Length header fields", is_framed=False)
    else:
        head.content_length = length


def _assemble(head: _Head, body: bytes) -> SipMessage:
    """Join head and body. Raises BadMessage."""
    line = head.start_line
    if line[:4].upper() == "SIP/":
        return _assemble_response(head, body)
    parts = line.split(" ")
    method = parts[0]
    uri: SipUri | OtherUri = _UNREADABLE
    if len(parts) != 3 or not parts[2]:
        head.blame("the request line is not method, URI and version with single spaces between")
    elif parts[2] != "SIP/2.0" and parts[2].upper() != "SIP/2.0":
        is_sip = _VERSION.fullmatch(parts[2]) is not None
        head.blame("the SIP version is not 2.0", status=505 if is_sip else 400)
    else:
        try:
            uri = parse_uri(parts[1])
        except SipParseError as error:
            head.blame(f"the Request-URI is malformed: {error}")
    if (uri is _UNREADABLE and "SIP/" not in line.upper()) or not is_token(method):
        # Noise, or another protocol: there is nobody to answer and no next message to find.
        raise BadMessage("this is not a SIP message", is_fatal=True)
    request = SipRequest(method, uri, head.headers, body)
    if head.fault:
        # An ACK is never answered (section 17); without Via there is nowhere to answer to.
        can_be_answered = method != "ACK" and "via" in head.headers
        partial = request if can_be_answered else None
        raise BadMessage(head.fault, status=head.status, partial=partial, is_fatal=not head.is_framed)
    return request


def _assemble_response(head: _Head, body: bytes) -> SipResponse:
    match = _STATUS_LINE.fullmatch(head.start_line)
    if match is None:
        head.blame("the status line is malformed")
    if head.fault or match is None:
        raise BadMessage(head.fault, status=0, is_fatal=not head.is_framed)
    return SipResponse(int(match.group(1)), match.group(2) or "", head.headers, body)


class StreamParser:
    """Cuts a TCP or TLS byte stream into messages by Content-Length (RFC 3261 section 18.3), in bounded memory.

    However the bytes are cut into chunks, the messages are the same. Only a keep-alive ping cut in two is told as a
    pong and a ping, because the first half must not wait.
    """

    __slots__ = ("_buffer", "_head", "_head_octets", "_is_after_pong", "_maximum", "_scanned", "is_broken")

    def __init__(self, maximum: int = MAXIMUM_STREAM_MESSAGE) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._head_octets = 0
        self._scanned = 0
        self._is_after_pong = False
        self._maximum = maximum
        self.is_broken = False
        """True after a fault that hides where the next message begins: answer it, then close the connection."""

    @property
    def pending_octets(self) -> int:
        """Octets of an unfinished message, its head included; above 0 for long, the connection should be closed."""
        return self._head_octets + len(self._buffer)

    def feed(self, data: bytes) -> list[SipMessage | KeepAlive | BadMessage]:
        """Take the next octets and return what they complete; nothing once `is_broken`."""
        found: list[SipMessage | KeepAlive | BadMessage] = []
        if self.is_broken:
            return found
        self._buffer += data
        while not self.is_broken:
            try:
                message = self._next(found)
            except BadMessage as fault:
                found.append(fault)
                if fault.is_fatal:
                    self._break()
                continue
            if message is None:
                break
            found.append(message)
        return found

    def _break(self) -> None:
        self.is_broken = True
        self._buffer = bytearray()
        self._head, self._head_octets = None, 0

    def _next(self, found: list[SipMessage | KeepAlive | BadMessage]) -> SipMessage | None:
        if self._head is None and not self._take_head(found):
            return None
        head = self._head
        assert head is not None
        length = head.content_length or 0
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._head, self._head_octets = None, 0
        return _assemble(head, body)

    def _take_head(self, found: list[SipMessage | KeepAlive | BadMessage]) -> bool:
        """Move start line and header fields out of the buffer; False while they are incomplete."""
        self._take_keep_alives(found)
        end = self._buffer.find(_BLANK_LINE, max(0, self._scanned - 3))
        if end < 0:
            self._scanned = len(self._buffer)
            if self._scanned > self._maximum:
                raise BadMessage("the header fields are too large", status=513, is_fatal=True)
            return False
        head = _read_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        self._scanned = 0
        self._is_after_pong = False
        if head.content_length is None and head.is_framed:
            head.blame("a message on a stream has no Content-Length", is_framed=False)
        elif end + (head.content_length or 0) > self._maximum:
            head.blame("the message is too large", status=513, is_framed=False)
        if not head.is_framed:
            # Without a length there is no body to wait for: answer now.
            head.content_length = 0
        self._head, self._head_octets = head, end + 4
        return True

    def _take_keep_alives(self, found: list[SipMessage | KeepAlive | BadMessage]) -> None:
        buffer = self._buffer
        position = 0
        while buffer[position : position + 2] == b"\r\n":
            if buffer[position + 2 : position + 4] == b"\r\n" and not self._is_after_pong:
                found.append(KeepAlive("ping"))
                position += 4
                continue
            found.append(KeepAlive("ping" if self._is_after_pong else "pong"))
            self._is_after_pong = not self._is_after_pong
            position += 2
        if position:
            del buffer[:position]
            self._scanned = 0
