"""DTMF digits in the body of an INFO: `application/dtmf-relay` and `application/dtmf`.

No RFC has these two; they are what phones and PBXs send where RFC 4733 does not come through (first seen in Cisco
gateways, RFC 6086 section 1 names the practice).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from isthmus.errors import SipParseError

RELAY_TYPE = "application/dtmf-relay"
PLAIN_TYPE = "application/dtmf"
DEFAULT_MILLISECONDS = 160
# A key that is held down for ten seconds is stuck.
LONGEST_MILLISECONDS = 10_000
_DIGITS = "0123456789*#ABCD"
# A flash of the hook is event 16 (RFC 4733 section 3.2); events 10 to 15 stand for the other keys.
_EVENTS = {str(number): digit for number, digit in enumerate(_DIGITS)}
_LINE = re.compile(r"\s*(\w+)\s*[=:]\s*(\S+)\s*")
_LONGEST_BODY = 256


class Digit(NamedTuple):
    """One key and how long it was pressed."""

    digit: str
    milliseconds: int = DEFAULT_MILLISECONDS


def parse_digit(body: bytes, media_type: str) -> Digit:
    """Read the body of an INFO of one of the two types. Raises SipParseError when it names no key."""
    text = body[:_LONGEST_BODY].decode("ascii", "replace")
    if media_type == PLAIN_TYPE and "=" not in text:
        return Digit(_digit(text.strip()))
    fields = {match[1].lower(): match[2] for line in text.splitlines() if (match := _LINE.fullmatch(line))}
    duration = fields.get("duration", "")
    milliseconds = int(duration) if duration.isascii() and duration.isdigit() and len(duration) < 7 else 0
    return Digit(_digit(fields.get("signal", "")), min(milliseconds, LONGEST_MILLISECONDS) or DEFAULT_MILLISECONDS)


def relay_body(digit: Digit) -> bytes:
    """Write an `application/dtmf-relay` body."""
    return f"Signal={digit.digit}\r\nDuration={digit.milliseconds}\r\n".encode()


def _digit(text: str) -> str:
    upper = text.upper()
    if len(upper) == 1 and upper in _DIGITS:
        return upper
    if upper in _EVENTS:  # 10 to 15
        return _EVENTS[upper]
    raise SipParseError("the INFO names no DTMF key")
