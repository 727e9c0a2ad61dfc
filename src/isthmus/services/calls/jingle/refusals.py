"""Errors that answer Jingle IQs (XEP-0166 section 10)."""

from __future__ import annotations

from isthmus.errors import PeerError
from isthmus.ports import IqRefusal
from isthmus.xmpp import namespaces as ns


def _refusal(condition: str, own: str) -> IqRefusal:
    return IqRefusal(condition, f"<{own} xmlns='{ns.JINGLE_ERRORS}'/>")


OUT_OF_ORDER = _refusal("unexpected-request", "out-of-order")
TIE_BREAK = _refusal("conflict", "tie-break")
UNKNOWN_SESSION = _refusal("item-not-found", "unknown-session")
UNSUPPORTED_INFO = _refusal("feature-not-implemented", "unsupported-info")
BAD_REQUEST = IqRefusal("bad-request")
TOO_MANY = IqRefusal("resource-constraint")
NOBODY = IqRefusal("service-unavailable")


def refusal_of(error: PeerError) -> IqRefusal:
    """Return the error for something that cannot be read."""
    return TOO_MANY if error.condition == "policy-violation" else BAD_REQUEST
