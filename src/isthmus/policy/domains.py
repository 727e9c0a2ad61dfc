"""Partner domains: allowed, blocked, discovered (known only because somebody wrote)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class DomainStanding(StrEnum):
    """What the rules say of a partner domain."""

    ALLOWED = "allow"
    BLOCKED = "block"
    DISCOVERED = "discovered"  # no rule of the administrator: let through within limits


class DomainRuleLike(Protocol):
    """What a stored domain rule looks like (`ports.DomainRule`)."""

    @property
    def domain(self) -> str:
        """Canonical domain name."""

    @property
    def action(self) -> str:
        """`allow`, `block` or `discovered`."""

    @property
    def includes_subdomains(self) -> bool:
        """The rule also covers every domain below."""


@dataclass(frozen=True, slots=True)
class PartnerDomains:
    """The administrator's domain rules, arranged for look-up.

    A rule for a longer name wins over a rule for its parent. What was merely *discovered* decides nothing, so a
    discovered sub-domain does not slip out of its parent's block.
    """

    exact: Mapping[str, DomainStanding] = field(default_factory=dict)
    below: Mapping[str, DomainStanding] = field(default_factory=dict)

    @classmethod
    def arrange(cls, rules: Iterable[DomainRuleLike]) -> PartnerDomains:
        """Build the tables. Raises ValueError for an unknown action."""
        exact: dict[str, DomainStanding] = {}
        below: dict[str, DomainStanding] = {}
        for rule in rules:
            standing = DomainStanding(rule.action)
            if standing is DomainStanding.DISCOVERED:
                continue
            exact[rule.domain] = standing
            if rule.includes_subdomains:
                below[rule.domain] = standing
        return cls(exact, below)

    def standing(self, domain: str) -> tuple[DomainStanding, str]:
        """Return what holds for `domain` and the name of the rule's domain (empty when there is no rule)."""
        decided = self.exact.get(domain)
        if decided is not None:
            return decided, domain
        parent = domain
        while self.below:
            _, dot, parent = parent.partition(".")
            if not dot:
                break
            decided = self.below.get(parent)
            if decided is not None:
                return decided, parent
        return DomainStanding.DISCOVERED, ""
