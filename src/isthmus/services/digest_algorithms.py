"""Which digest algorithms a client is offered (RFC 8760 section 2.4: one challenge each, the best first).

A client must skip challenges it does not know (RFC 7616 section 3.7). Some do not: they give up at the first one they
cannot use, and then never sign in. Those are offered MD5 alone, if the operator allows MD5 at all.
"""

from __future__ import annotations

import re

from isthmus.ports import Flow
from isthmus.services.messaging_tables import RecentTable
from isthmus.sip.message import SipRequest

# COMPAT: baresip 0.x and 1.x (libre before 2.10): `ENOSYS` at a challenge that is not MD5 ends the whole request.
_ONLY_MD5 = re.compile(r"baresip v[01]\.", re.IGNORECASE)
# A client that was challenged this often and never tried a password cannot use what it was offered.
UNANSWERED_CHALLENGES = 2
MAXIMUM_SOURCES = 20_000


class DigestAlgorithms:
    """Remembers per source what it can use; bounded.

    Args:
        allows_md5: the operator accepts MD5 for phones that know nothing better.
    """

    def __init__(self, *, allows_md5: bool) -> None:
        self.accepted = ("SHA-256", "MD5") if allows_md5 else ("SHA-256",)
        self._allows_md5 = allows_md5
        self._unanswered: RecentTable[tuple[str, str, int], int] = RecentTable(MAXIMUM_SOURCES)

    def offer(self, request: SipRequest, flow: Flow) -> tuple[str, ...]:
        """Return the algorithms for a challenge to a request that showed no password, best first."""
        if not self._allows_md5:
            return self.accepted
        source = (flow.transport, flow.remote_host, flow.remote_port)
        unanswered = self._unanswered.get(source) or 0
        # PUBLISH and SUBSCRIBE may come without User-Agent: the source is remembered from the REGISTER.
        if _ONLY_MD5.match(request.headers.get("User-Agent") or ""):
            unanswered = UNANSWERED_CHALLENGES
        self._unanswered.put(source, unanswered + 1)
        return ("MD5",) if unanswered >= UNANSWERED_CHALLENGES else self.accepted

    def answered(self, algorithm: str, flow: Flow) -> None:
        """A password was tried: this source can use `algorithm`."""
        if algorithm.upper() != "MD5":
            self._unanswered.pop((flow.transport, flow.remote_host, flow.remote_port))
