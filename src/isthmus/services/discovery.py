"""Partner domains that nobody listed: let through, remembered, and held within limits until somebody decides.

Edge case 46: a flood from an unknown partner or an attempt to learn who works here by trying names costs the
sender its own domain's allowance, nobody else's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from isthmus.model import Address, Verdict

# An s2s server can invent sub-domains of its own. Beyond this many, newcomers share one allowance and are not
# written down, so neither memory nor the store grows with an attacker's imagination.
MAXIMUM_DISCOVERED_DOMAINS = 5_000

_SHARED = "(further unlisted domains)"
_TOO_FAST = Verdict(
    False, "domain.discovered.rate", "too many messages from a domain that is not yet listed as a partner; slow down"
)
_TOO_MANY = Verdict(
    False,
    "domain.discovered.contacts",
    "a domain that is not yet listed as a partner has reached the number of people it may address",
)


@dataclass(slots=True)
class _Allowance:
    tokens: float
    filled_at: float
    addressed: set[Address] = field(default_factory=set)


class DiscoveredDomains:
    """Allowances of discovered domains.

    Args:
        messages_per_second: steady rate per domain; one second's worth may come at once.
        maximum_contacts: distinct people of ours that one domain may address.
    """

    def __init__(self, messages_per_second: float, maximum_contacts: int) -> None:
        self._rate = messages_per_second
        self._burst = max(1.0, messages_per_second)
        self._maximum_contacts = maximum_contacts
        self._allowances: dict[str, _Allowance] = {}

    def forget(self, domain: str) -> None:
        """The administrator decided about `domain`."""
        self._allowances.pop(domain, None)

    def contacts(self, domain: str) -> int:
        """How many people of ours `domain` has addressed."""
        allowance = self._allowances.get(domain)
        return len(allowance.addressed) if allowance else 0

    def admit(self, domain: str, addressed: Address, now: float) -> Verdict | None:
        """Count one message from `domain`; return the refusing verdict when it is beyond a limit, else None.

        Args:
            now: monotonic seconds.
        """
        allowance = self._allowance(domain, now)
        allowance.tokens = min(self._burst, allowance.tokens + (now - allowance.filled_at) * self._rate)
        allowance.filled_at = now
        if allowance.tokens < 1.0:
            return _TOO_FAST
        allowance.tokens -= 1.0
        if addressed not in allowance.addressed:
            if len(allowance.addressed) >= self._maximum_contacts:
                return _TOO_MANY
            allowance.addressed.add(addressed)
        return None

    def _allowance(self, domain: str, now: float) -> _Allowance:
        found = self._allowances.get(domain)
        if found is None:
            if len(self._allowances) >= MAXIMUM_DISCOVERED_DOMAINS and domain != _SHARED:
                return self._allowance(_SHARED, now)
            found = self._allowances[domain] = _Allowance(self._burst, now)
        return found
