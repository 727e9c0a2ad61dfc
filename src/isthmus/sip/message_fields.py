"""What requests and responses share: typed access to header fields, and serialising (RFC 3261 sections 7 and 20)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TypeVar

from isthmus.errors import SipParseError
from isthmus.sip.fields import CSeq, NameAddr, Via
from isthmus.sip.headers import Headers
from isthmus.sip.syntax import Parameters, is_token, parse_media_type, parse_number, parse_parameterised, split_list

T = TypeVar("T")

# RFC 3261 section 10.2.1.1: a malformed or absurdly large expiry is taken as 3600 seconds (RFC 4475 scalar02).
DEFAULT_EXPIRES_SECONDS = 3600
MAXIMUM_EXPIRES_SECONDS = 2**32 - 1
MAXIMUM_MAX_FORWARDS = 255


_LINE_BREAKS = re.compile(r"[\r\n]+")


class MessageFields:
    """What requests and responses share: header fields with typed access, and a body."""

    __slots__ = ("body", "headers")

    headers: Headers
    body: bytes

    def _one(self, key: str, parse: Callable[[str], T]) -> T:
        """Return the parsed first value of a mandatory field."""
        headers = self.headers
        value = headers.cache.get(key)
        if value is None:
            text = headers.first.get(key)
            if text is None:
                raise SipParseError(f"the header field {key} is missing")
            value = headers.cache[key] = parse(text)
        return value

    def _list(self, key: str, parse: Callable[[str], T]) -> list[T]:
        """Return all parsed values of a list field; the list is shared and must not be changed."""
        values = self.headers.cache.get(key)
        if values is None:
            values = self.headers.cache[key] = [parse(text) for text in self.headers.get_list(key)]
        return values

    @property
    def vias(self) -> list[Via]:
        """All Via values, topmost first."""
        return self._list("via", Via.parse)

    @property
    def top_via(self) -> Via:
        """The topmost Via: the hop the message came from, or ours in a response."""
        vias: list[Via] = self.headers.cache.get("via") or self._list("via", Via.parse)
        if not vias:
            raise SipParseError("the header field via is missing")
        return vias[0]

    @property
    def branch(self) -> str:
        """The branch of the topmost Via, "" when it has none: half of the transaction's key."""
        return self.top_via.branch

    def set_top_via(self, via: Via) -> None:
        """Replace the topmost Via value, as when `received` and `rport` are filled in (RFC 3581 section 4)."""
        vias = self.vias
        lines = self.headers.get_all("via")
        if len(lines) == len(vias):
            self.headers.replace_first("via", str(via))
        else:
            self.headers.replace_first("via", ", ".join([str(via), *split_list(lines[0])[1:]]))
        self.headers.cache["via"] = [via, *vias[1:]]

    def push_via(self, via: Via) -> None:
        """Put our own Via on top of a request before it is sent (RFC 3261 section 18.1.1)."""
        vias = self.headers.cache.get("via")
        self.headers.prepend("via", str(via))
        if vias is not None:
            self.headers.cache["via"] = [via, *vias]

    @property
    def from_address(self) -> NameAddr:
        """The From value."""
        known: NameAddr | None = self.headers.cache.get("from")
        return known or self._one("from", NameAddr.parse)

    @property
    def to_address(self) -> NameAddr:
        """The To value."""
        known: NameAddr | None = self.headers.cache.get("to")
        return known or self._one("to", NameAddr.parse)

    @property
    def call_id(self) -> str:
        """The Call-ID, compared octet by octet."""
        value = self.headers.first.get("call-id")
        if not value:
            raise SipParseError("the header field call-id is missing")
        return value

    @property
    def cseq(self) -> CSeq:
        """The CSeq value."""
        known: CSeq | None = self.headers.cache.get("cseq")
        return known or self._one("cseq", CSeq.parse)

    @property
    def contacts(self) -> list[NameAddr]:
        """All Contact values; empty for `Contact: *`, which `is_wildcard_contact` tells."""
        return self._list("contact", NameAddr.parse) if not self.is_wildcard_contact else []

    @property
    def is_wildcard_contact(self) -> bool:
        """True for `Contact: *`: remove all bindings (RFC 3261 section 10.2.2)."""
        return self.headers.get("contact") == "*" and len(self.headers.get_all("contact")) == 1

    @property
    def max_forwards(self) -> int | None:
        """Max-Forwards, None when absent (RFC 2543 peers) or malformed."""
        text = self.headers.first.get("max-forwards")
        return None if text is None else parse_number(text, MAXIMUM_MAX_FORWARDS)

    @property
    def expires(self) -> int | None:
        """Expires in seconds; None when absent, 3600 when malformed or beyond 32 bits (section 10.2.1.1)."""
        text = self.headers.first.get("expires")
        if text is None:
            return None
        seconds = parse_number(text, MAXIMUM_EXPIRES_SECONDS)
        return DEFAULT_EXPIRES_SECONDS if seconds is None else seconds

    @property
    def event(self) -> str:
        """The event package of the Event field, lower-case; "" when absent (RFC 6665 section 8.2.1)."""
        return self._event()[0]

    @property
    def event_id(self) -> str:
        """The id parameter of the Event field; "" when absent."""
        return next((value or "" for name, value in self._event()[1] if name == "id"), "")

    def _event(self) -> tuple[str, Parameters]:
        return self._one("event", _parse_event) if "event" in self.headers else ("", ())

    @property
    def content_type(self) -> str:
        """The media type in lower case without parameters, e.g. `text/plain`; "" when absent."""
        return self._content_type()[0]

    def content_type_param(self, name: str) -> str | None:
        """Return a parameter of the Content-Type, unquoted, e.g. `charset` or `boundary`; None when absent."""
        for candidate, value in self._content_type()[1]:
            if candidate == name:
                return value or ""
        return None

    def _content_type(self) -> tuple[str, Parameters]:
        known: tuple[str, Parameters] | None = self.headers.cache.get("content-type")
        if known is not None:
            return known
        return self._one("content-type", _parse_media_type) if "content-type" in self.headers.first else ("", ())

    @property
    def routes(self) -> list[NameAddr]:
        """All Route values in order."""
        return self._list("route", NameAddr.parse)

    @property
    def record_routes(self) -> list[NameAddr]:
        """All Record-Route values in order."""
        return self._list("record-route", NameAddr.parse)

    def _serialise(self, start_line: str) -> bytes:
        lines = [f"{name}: {value}" for key, name, value in self.headers.lines if key != "content-length"]
        text = "\r\n".join([start_line, *lines, f"Content-Length: {len(self.body)}\r\n\r\n"])
        # One line break per line and no other: a value that brought its own would smuggle in a header field.
        if text.count("\n") != len(lines) + 3 or text.count("\r") != len(lines) + 3:
            lines = [_LINE_BREAKS.sub(" ", line) for line in [start_line, *lines]]
            text = "\r\n".join([*lines, f"Content-Length: {len(self.body)}\r\n\r\n"])
        return text.encode("utf-8", "replace") + self.body


# Devices send the same few values all day; long ones are not remembered, so the caches stay small.
_LONGEST_CACHED = 128


def _parse_event(text: str) -> tuple[str, Parameters]:
    value, parameters = parse_parameterised(text)
    if not is_token(value):
        raise SipParseError("the Event header field does not name an event package")
    return value.lower(), parameters


def _parse_media_type(text: str) -> tuple[str, Parameters]:
    return _media_type(text) if len(text) <= _LONGEST_CACHED else parse_media_type(text)


_media_type = functools.lru_cache(256)(parse_media_type)
