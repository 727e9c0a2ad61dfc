"""How a refusing verdict looks to the sender.

The refusal of a *person* (a block) looks like somebody who cannot be reached, so that the blocked one learns
nothing (edge case 15); the refusal of the *organisation* says so, because the sender can do something about it.
"""

from __future__ import annotations

from isthmus.model import Failure, Origin, Verdict

# Rules whose reason belongs to the administrator alone.
DISCREET_RULES = frozenset({"block.recipient"})

# rule -> (SIP status, stanza condition); STANDARDS: RFC 7247 section 7. The status never is 6xx: that would end
# every branch of the sender's proxy.
_ANSWERS = {
    "block.recipient": (480, "recipient-unavailable"),
    "relay": (403, "not-allowed"),
    "domain.discovered.rate": (480, "resource-constraint"),
}
_BY_POLICY = (403, "policy-violation")


def is_discreet(verdict: Verdict) -> bool:
    """True when the sender must not learn why: answer exactly as for somebody who is not reachable."""
    return verdict.rule in DISCREET_RULES


def refusal(verdict: Verdict) -> Failure:
    """Return the failure that carries a refusing verdict to the sender.

    Raises:
        ValueError: the verdict allows.
    """
    if verdict.is_allowed:
        raise ValueError(f"the rule {verdict.rule} allows; there is nothing to refuse")
    status, condition = _ANSWERS.get(verdict.rule, _BY_POLICY)
    return Failure(
        origin=Origin.POLICY,
        status=status,
        condition=condition,
        text=verdict.text,
        rule=verdict.rule,
        is_temporary=verdict.rule == "domain.discovered.rate",
    )
