"""Nonces for digest authentication that need no memory until they are used (RFC 7616 sections 3.3, 5.4 and 5.12)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

NonceVerdict = Literal["ok", "stale", "bad", "replayed"]

_TIME_OCTETS = 6  # milliseconds: enough for 8,900 years
_RANDOM_OCTETS = 6  # keeps nonces of the same millisecond apart
_MAC_OCTETS = 16  # 128 bits: nobody guesses a nonce we did not make
_NONCE_OCTETS = _TIME_OCTETS + _RANDOM_OCTETS + _MAC_OCTETS

# A client that sends requests in parallel may have them overtake each other; 64 outstanding ones are more than any
# SIP user agent keeps.
_WINDOW = 64
# Nonces in use at the same time: one per device. An entry takes about 300 octets, so the table stays under 20 MiB.
MAXIMUM_NONCES_IN_USE = 65_536


@dataclass(slots=True)
class _Use:
    """How far the nonce count of one nonce has come."""

    made_at: float
    highest: int = 0
    seen: int = 0  # bit i: highest - i was used


class NonceSource:
    """Makes and checks nonces.

    A nonce carries its time, protected by an HMAC: a flood of unauthenticated requests costs no memory. Only a nonce
    with which somebody proved a password is remembered, to refuse replays; so verify the response first
    (`digest.check_credentials`) and call `check` after it succeeded.

    Args:
        secret: key of the HMAC, at least 16 octets; shared by nodes that accept each other's nonces.
        lifetime_seconds: after this a nonce is stale.
        random_octets: source of randomness.
        maximum_in_use: bound of the replay table. When it is reached the oldest entries go, and every nonce as old
            as them is called stale: a client notices nothing but one more challenge.
    """

    def __init__(
        self,
        secret: bytes,
        lifetime_seconds: float = 300.0,
        *,
        random_octets: Callable[[int], bytes] = secrets.token_bytes,
        maximum_in_use: int = MAXIMUM_NONCES_IN_USE,
    ) -> None:
        self._secret = secret
        self._lifetime = lifetime_seconds
        self._random_octets = random_octets
        self._maximum = maximum_in_use
        self._uses: OrderedDict[bytes, _Use] = OrderedDict()
        self._forgotten_until = -1.0

    def make(self, now: float, binding: str = "") -> str:
        """Return a new nonce.

        Args:
            now: seconds of a clock that goes on over a restart when the secret does.
            binding: text the nonce is only valid with, such as realm or source address; not sent.
        """
        head = int(now * 1000).to_bytes(_TIME_OCTETS, "big") + self._random_octets(_RANDOM_OCTETS)
        return base64.urlsafe_b64encode(head + self._mac(head, binding)).decode().rstrip("=")

    def check(self, nonce: str, nc: int, now: float, binding: str = "", *, is_single_use: bool = False) -> NonceVerdict:
        """Judge a nonce whose response was found right, and count its use.

        Args:
            nonce: as the client sent it.
            nc: nonce count; 0 when the client sent none (no qop), which makes the nonce good for one use.
            now: seconds, the clock of `make`.
            binding: as given to `make`.
            is_single_use: accept a nonce only once whatever its count (strict mode for REGISTER and INVITE).

        Returns:
            "ok"; "stale" (expired: challenge again with stale=true); "replayed" (this count was used before: challenge
            again with stale=true, the password was right); "bad" (not made by us).
        """
        verdict = self.verify(nonce, now, binding)
        if verdict != "ok":
            return verdict
        octets = _decode(nonce)
        key = octets[: _TIME_OCTETS + _RANDOM_OCTETS]
        self._expire(now)
        use = self._uses.get(key)
        if use is None:
            made_at = _made_at(octets)
            if made_at <= self._forgotten_until:
                return "stale"
            self._uses[key] = _Use(made_at, highest=nc, seen=1)
            self._forget_oldest()
            return "ok"
        if nc == 0 or use.highest == 0 or is_single_use:
            return "replayed"
        return "ok" if _count(use, nc) else "replayed"

    def verify(self, nonce: str, now: float, binding: str = "") -> NonceVerdict:
        """Judge a nonce without counting a use: "ok", "stale" or "bad"."""
        octets = _decode(nonce)
        if len(octets) != _NONCE_OCTETS:
            return "bad"
        head = octets[: _TIME_OCTETS + _RANDOM_OCTETS]
        if not hmac.compare_digest(octets[len(head) :], self._mac(head, binding)):
            return "bad"
        age = now - _made_at(octets)
        # A nonce from the future: the clock was set back. A new one costs the client one round trip.
        return "ok" if -1.0 <= age <= self._lifetime else "stale"

    def _mac(self, head: bytes, binding: str) -> bytes:
        return hmac.digest(self._secret, head + binding.encode("utf-8", "surrogatepass"), hashlib.sha256)[:_MAC_OCTETS]

    def _expire(self, now: float) -> None:
        while self._uses:
            key, use = next(iter(self._uses.items()))
            if now - use.made_at <= self._lifetime:
                break
            del self._uses[key]

    def _forget_oldest(self) -> None:
        while len(self._uses) > self._maximum:
            _, use = self._uses.popitem(last=False)
            self._forgotten_until = max(self._forgotten_until, use.made_at)


def _count(use: _Use, nc: int) -> bool:
    """Note the use of a count; False when it was used before or is too far behind to know."""
    if nc > use.highest:
        shift = nc - use.highest
        use.seen = ((use.seen << shift) | 1) & ((1 << _WINDOW) - 1) if shift < _WINDOW else 1
        use.highest = nc
        return True
    behind = use.highest - nc
    if behind >= _WINDOW or use.seen >> behind & 1:
        return False
    use.seen |= 1 << behind
    return True


def _decode(nonce: str) -> bytes:
    if len(nonce) > 2 * _NONCE_OCTETS or not nonce.isascii():
        return b""
    try:
        octets = base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4))
    except (binascii.Error, ValueError):
        return b""
    # One spelling only: otherwise the same nonce could be used again in another spelling.
    return octets if base64.urlsafe_b64encode(octets).decode().rstrip("=") == nonce else b""


def _made_at(octets: bytes) -> float:
    return int.from_bytes(octets[:_TIME_OCTETS], "big") / 1000
