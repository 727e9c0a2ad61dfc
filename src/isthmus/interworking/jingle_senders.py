"""Who sends: `senders` of Jingle is absolute, the direction of SDP is relative to who speaks (STOX media section 4).

And what else both halves of a content's translation need: names that fit into both languages, and bounds.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from isthmus.sdp.session_description import SdpError

_BY_INITIATOR = {"sendrecv": "both", "sendonly": "initiator", "recvonly": "responder", "inactive": "none"}
_BY_RESPONDER = {"sendrecv": "both", "sendonly": "responder", "recvonly": "initiator", "inactive": "none"}
_SAID_BY_INITIATOR = {senders: direction for direction, senders in _BY_INITIATOR.items()}
_SAID_BY_RESPONDER = {senders: direction for direction, senders in _BY_RESPONDER.items()}

# What may stand in a token of RFC 8866 section 9 besides letters and digits; "%" is our escape.
_UNESCAPED = "!#$&'*+-.^_`{|}~"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_TOKEN = re.compile(r"[!#-'*+\-.0-9A-Z^-~]+")


class UnsupportedContentError(SdpError):
    """A content that no media section can carry.

    Attributes:
        reason: what a session-terminate or content-reject says of it (XEP-0166 section 7.4).
    """

    condition = "feature-not-implemented"

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


def direction_to_senders(direction: str, *, is_from_initiator: bool) -> str:
    """Return `senders` for the direction that this side says."""
    return (_BY_INITIATOR if is_from_initiator else _BY_RESPONDER)[direction]


def senders_to_direction(senders: str, *, is_from_initiator: bool) -> str:
    """Return the direction as this side says it."""
    return (_SAID_BY_INITIATOR if is_from_initiator else _SAID_BY_RESPONDER)[senders]


def name_to_mid(name: str) -> str:
    """Return the mid for a content name, which may be any text: what a token cannot hold is percent-encoded."""
    return quote(name, safe=_UNESCAPED)


def mid_to_name(mid: str) -> str:
    """Return the content name for a mid; the inverse of `name_to_mid`."""
    return unquote(mid, errors="replace")


def one_line(text: str) -> str:
    """Return text that can stand in one line of SDP; a stranger's line break must not begin a line of its own."""
    return _CONTROL.sub(" ", text).strip()


def token(text: str) -> str:
    """Return the text when it is a token of SDP, else ""."""
    return text if _TOKEN.fullmatch(text) else ""
