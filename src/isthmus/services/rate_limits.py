"""How fast a source, a person or a neighbour may ask for something (token buckets).

What is answered when a bucket is empty:

- a source address that has not authenticated, and a neighbour as a whole: 503 with Retry-After (RFC 3261 section
  21.5.4): the *server* asks to be spared, and a proxy may turn elsewhere or wait.
- one person: 480 with Retry-After (section 20.33): a 503 would make a proxy give up everybody behind it.
- towards XMPP: `policy-violation` of type `wait`, and `resource-constraint` where a box is full (RFC 6120 8.3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from isthmus.config import LimitSettings
from isthmus.model import Address, Failure, Origin

# 32 bytes of key and two floats each: some 10 MB, far more sources than one machine can serve at once.
MAXIMUM_BUCKETS = 65_536
# Whoever floods is told of once in this time: thousands of equal lines would drive everything else out of the trace.
TOLD_AGAIN_SECONDS = 10.0

Key = TypeVar("Key", bound=Hashable)


class _Bucket:
    """Tokens left, when they were counted, and when somebody was told that there were none."""

    __slots__ = ("counted_at", "tokens", "told_at")

    def __init__(self, tokens: float, counted_at: float) -> None:
        self.tokens = tokens
        self.counted_at = counted_at
        self.told_at = float("-inf")


class TokenBuckets(Generic[Key]):
    """One bucket per key, made full at first sight.

    Args:
        per_second: tokens that flow in; 0 or less switches the limit off.
        burst: capacity of a bucket.
        monotonic: clock.
    """

    def __init__(self, per_second: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = max(1.0, burst)
        self._monotonic = monotonic
        self._buckets: dict[Key, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Key) -> float:
        """Take one token. Return 0.0 when there was one, else the seconds until there is."""
        if self._per_second <= 0:
            return 0.0
        now = self._monotonic()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAXIMUM_BUCKETS:
                self._forget_full_ones(now)
            self._buckets[key] = _Bucket(self._burst - 1.0, now)
            return 0.0
        tokens = min(self._burst, bucket.tokens + (now - bucket.counted_at) * self._per_second)
        bucket.counted_at = now
        if tokens >= 1.0:
            bucket.tokens = tokens - 1.0
            return 0.0
        bucket.tokens = tokens
        return (1.0 - tokens) / self._per_second

    def is_news(self, key: Key) -> bool:
        """True for the first excess of `key` in a while; the others need not be told."""
        bucket = self._buckets.get(key)
        now = self._monotonic()
        if bucket is None or now - bucket.told_at < TOLD_AGAIN_SECONDS:
            return False
        bucket.told_at = now
        return True

    def _forget_full_ones(self, now: float) -> None:
        """A full bucket says nothing that a new one would not. When all are in use, the oldest half goes."""
        full_after = self._burst / self._per_second
        kept = {
            key: bucket
            for key, bucket in self._buckets.items()
            if now - bucket.counted_at < full_after and bucket.tokens < self._burst
        }
        if len(kept) >= MAXIMUM_BUCKETS:
            newest = sorted(kept.items(), key=lambda item: item[1].counted_at)[MAXIMUM_BUCKETS // 2 :]
            kept = dict(newest)
        self._buckets = kept


@dataclass(frozen=True, slots=True)
class Excess:
    """Too much of something.

    Attributes:
        rule: name of the limit, greppable.
        text: a sentence for sender, trace and administrator.
        retry_after_seconds: when one more would pass.
        is_personal: the limit is about one person, not about a whole server.
        is_news: the first one in a while, worth a line in the trace.
    """

    rule: str
    text: str
    retry_after_seconds: float
    is_personal: bool
    is_news: bool = True

    @property
    def sip_status(self) -> int:
        """480 for a person, 503 for a server."""
        return 480 if self.is_personal else 503

    @property
    def retry_after(self) -> tuple[str, str]:
        """Retry-After header field (RFC 3261 section 20.33), whole seconds, at least 1."""
        return ("Retry-After", str(max(1, int(self.retry_after_seconds + 0.999))))

    def failure(self) -> Failure:
        """The excess as a failure; never 503 across the border, where it would count against a whole realm."""
        return Failure(Origin.LIMIT, 480, "policy-violation", self.text, self.rule, is_temporary=True)


class RateLimits:
    """All limits of a process by source, person and neighbour; those of discovered domains are `policing`'s."""

    def __init__(self, settings: LimitSettings, monotonic: Callable[[], float]) -> None:
        self._sources: TokenBuckets[str] = TokenBuckets(
            settings.unauthenticated_per_second, settings.unauthenticated_burst, monotonic
        )
        self._users: TokenBuckets[Address] = TokenBuckets(
            settings.user_requests_per_second, settings.user_burst, monotonic
        )
        self._peers: TokenBuckets[str] = TokenBuckets(settings.peer_requests_per_second, settings.peer_burst, monotonic)

    def unauthenticated(self, host: str) -> Excess | None:
        """One more request from `host` that has proved nothing."""
        wait = self._sources.take(host)
        if not wait:
            return None
        text = "too many requests from this address"
        return Excess("limit.source", text, wait, False, self._sources.is_news(host))

    def user(self, address: Address) -> Excess | None:
        """One more request or stanza of this person."""
        wait = self._users.take(address)
        if not wait:
            return None
        return Excess("limit.user", f"{address} sends too fast", wait, True, self._users.is_news(address))

    def peer(self, domain: str) -> Excess | None:
        """One more request from the neighbours of a routed domain."""
        wait = self._peers.take(domain)
        if not wait:
            return None
        text = f"the domain {domain} sends too fast"
        return Excess("limit.peer", text, wait, False, self._peers.is_news(domain))
