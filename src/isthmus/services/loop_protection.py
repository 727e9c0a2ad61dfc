"""Messages must not go round: hop markers on both realms (RFC 7247 section 8, RFC 5393).

The count survives translation, so that a forwarding of ana to ben and of ben to ana ends after a few rounds. Every
answer of ours to a message (echo, notices) carries the count on.
"""

from __future__ import annotations

from isthmus.model import Failure, Origin
from isthmus.sip.loop_marker import HEADER_NAME, MAXIMUM_HOPS, LoopMarker
from isthmus.sip.message import SipRequest

LOOP = Failure(
    Origin.LIMIT,
    482,
    "policy-violation",
    "The message has passed this gateway too often: it is going round in a loop.",
    "loop",
)


class LoopProtection:
    """Counts crossings.

    Args:
        secret: shared by all nodes of an installation, at least 16 octets.
        node: name of this node.
    """

    def __init__(self, secret: bytes, node: str) -> None:
        self._marker = LoopMarker(secret, node)
        values: list[str] = []
        for _ in range(MAXIMUM_HOPS):
            values.append(self._marker.advance(values))
        self._headers = tuple((HEADER_NAME, value) for value in values)

    def hops(self, request: SipRequest) -> int:
        """How many crossings a request proves to have behind it; a marker that is not ours counts as none."""
        if HEADER_NAME not in request.headers:
            return 0
        proven = (self._marker.read(value) for value in request.headers.get_all(HEADER_NAME))
        return max((hop.hops for hop in proven if hop is not None), default=0)

    def header(self, hops: int) -> tuple[str, str]:
        """The header field of a request that has `hops` crossings behind it when it arrives (1 to the maximum)."""
        return self._headers[min(max(hops, 1), MAXIMUM_HOPS) - 1]

    def refusal(self, hops: int) -> Failure | None:
        """The failure of a message that must not cross once more, or None."""
        return LOOP if hops >= MAXIMUM_HOPS else None
