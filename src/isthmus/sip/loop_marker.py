"""A signed hop marker: how often a message passed Isthmus, whatever it was turned into on the way.

A back-to-back user agent drops Vias and translation drops everything, so neither Max-Forwards nor RFC 5393 finds a
loop through both realms (ana forwards to ben, whose account forwards to ana). RFC 7247 section 8 asks for a remedy:
the same value travels as `X-Isthmus-Hop` on SIP and as `<x xmlns='urn:isthmus:hop:0'>` on stanzas.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.errors import PeerError

HEADER_NAME = "X-Isthmus-Hop"
NAMESPACE = "urn:isthmus:hop:0"
# Two forwardings through both realms and a little: more is nobody's intention.
MAXIMUM_HOPS = 5
_MAC_DIGITS = 32
_VALUE = re.compile(r"([A-Za-z0-9._-]{1,64});hops=([0-9]{1,3});mac=([0-9a-f]{32})")


class LoopError(PeerError):
    """The message passed Isthmus too often."""

    status = 482
    condition = "policy-violation"


@dataclass(frozen=True, slots=True)
class Hop:
    """A marker that was proven to be ours.

    Attributes:
        node: which of our nodes wrote it.
        hops: how many times the message had then passed us.
    """

    node: str
    hops: int


class LoopMarker:
    """Writes and checks markers. All nodes of an installation share one secret.

    The signature keeps strangers from having their neighbour's messages refused with a forged count; a marker that
    does not prove itself counts as none.
    """

    def __init__(self, secret: bytes, node: str) -> None:
        """Prepare.

        Args:
            secret: at least 16 random bytes.
            node: name of this node; other characters than letters, digits, `.`, `_` and `-` are replaced.
        """
        if len(secret) < 16:
            raise ValueError("the secret of the loop marker must have at least 16 bytes")
        self._secret = secret
        self._node = re.sub(r"[^A-Za-z0-9._-]", "-", node)[:64] or "isthmus"

    def read(self, value: str) -> Hop | None:
        """Return the hop that a value proves, or None when it is malformed or not ours."""
        match = _VALUE.fullmatch(value.strip())
        if match is None:
            return None
        node, hops, mac = match.groups()
        if not hmac.compare_digest(mac, self._mac(node, int(hops))):
            return None
        return Hop(node, int(hops))

    def advance(self, values: Iterable[str] = ()) -> str:
        """Return the value to send on, given those that the message came with.

        Raises:
            LoopError: it passed us more than `MAXIMUM_HOPS` times (482).
        """
        hops = max((hop.hops for value in values if (hop := self.read(value)) is not None), default=0) + 1
        if hops > MAXIMUM_HOPS:
            raise LoopError(f"the message has passed this gateway {hops - 1} times: it is going round in a loop")
        return f"{self._node};hops={hops};mac={self._mac(self._node, hops)}"

    def _mac(self, node: str, hops: int) -> str:
        return hmac.new(self._secret, f"{node};{hops}".encode(), hashlib.sha256).hexdigest()[:_MAC_DIGITS]
