"""What a change of policy would do to people who are in touch now: the dry run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from isthmus.model import Address, Modality, Verdict
from isthmus.policy.rules import Rules
from isthmus.policy.settings import PresenceView


class Effect(StrEnum):
    """What becomes of one thing between two people."""

    CUT = "cut"
    OPENED = "opened"
    REDUCED = "reduced"  # presence: less is seen
    WIDENED = "widened"  # presence: more is seen


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that a change would cut, open, reduce or widen.

    Attributes:
        sender, recipient: for presence, the presentity and the watcher.
        rule, text: what decides afterwards.
        rule_before: what decides now.
    """

    sender: Address
    recipient: Address
    modality: Modality
    effect: Effect
    rule: str
    text: str
    rule_before: str


_WIDTH = {PresenceView.NOTHING: 0, PresenceView.AVAILABILITY: 1, PresenceView.EVERYTHING: 2}


def difference(before: Rules, after: Rules, pairs: Iterable[tuple[Address, Address]]) -> list[Difference]:
    """Compare two sets of rules for people in touch.

    Args:
        pairs: (watcher, presentity) of every live subscription, or (sender, recipient) of people who write.

    Returns:
        One row per direction and modality that changes, ordered by people.
    """
    found: list[Difference] = []
    directions = {direction for one, other in pairs for direction in ((one, other), (other, one))}
    for sender, recipient in sorted(directions):
        seen = _presence(before, after, sender, recipient)
        if seen is not None:
            found.append(seen)
        for modality in Modality:
            if modality is Modality.PRESENCE:
                continue
            old = before.verdict(sender, recipient, modality, is_contact=True)
            new = after.verdict(sender, recipient, modality, is_contact=True)
            if old.is_allowed != new.is_allowed:
                effect = Effect.OPENED if new.is_allowed else Effect.CUT
                found.append(_row(sender, recipient, modality, effect, old, new))
    return found


def _presence(before: Rules, after: Rules, presentity: Address, watcher: Address) -> Difference | None:
    (old_view, old), (new_view, new) = (
        before.view_verdict(presentity, watcher),
        after.view_verdict(presentity, watcher),
    )
    if old_view is new_view:
        return None
    if new_view is PresenceView.NOTHING:
        effect = Effect.CUT
    elif old_view is PresenceView.NOTHING:
        effect = Effect.OPENED
    else:
        effect = Effect.WIDENED if _WIDTH[new_view] > _WIDTH[old_view] else Effect.REDUCED
    return _row(presentity, watcher, Modality.PRESENCE, effect, old, new)


def _row(
    sender: Address, recipient: Address, modality: Modality, effect: Effect, old: Verdict, new: Verdict
) -> Difference:
    return Difference(sender, recipient, modality, effect, new.rule, new.text, old.rule)
