"""Warning (RFC 3261 section 20.43): why, in words, where a status alone does not say it."""

from __future__ import annotations

import re

from isthmus.errors import SipParseError
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.syntax import quote

# Section 20.43: 304 media type not available, 305 incompatible media format, 399 miscellaneous.
MEDIA_TYPE_NOT_AVAILABLE = 304
INCOMPATIBLE_FORMAT = 305
MISCELLANEOUS = 399
_AGENT = "isthmus"
_WARNING = re.compile(r'\s*(\d{3})\s+(\S+)\s+"((?:[^"\\]|\\.)*)"\s*', re.DOTALL)
_LONGEST_TEXT = 300


def warning_header(text: str, code: int = MISCELLANEOUS) -> tuple[str, str]:
    """Return a Warning header field."""
    return "Warning", f"{code} {_AGENT} {quote(' '.join(text.split())[:_LONGEST_TEXT])}"


def warning_text(message: SipRequest | SipResponse) -> str:
    """Return the text of the first Warning, "" when there is none that can be read."""
    try:
        values = message.headers.get_list("warning")
    except SipParseError:
        return ""
    for value in values:
        match = _WARNING.fullmatch(value)
        if match is not None:
            return re.sub(r"\\(.)", r"\1", match[3])[:_LONGEST_TEXT]
    return ""
