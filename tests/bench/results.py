"""Figures beside their references, as a table for people and JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        reference: the same kind of number from something measured in the same run; None where nothing compares.
        ratio: value by reference, turned so that larger is better.
        goal: what the project wants, in words.
        met: whether this run met it; None when there is no goal.
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None


def rate(name: str, value: float, unit: str, reference: float, goal_ratio: float) -> Figure:
    """A throughput beside a reference throughput, with the ratio to reach."""
    ratio = value / reference if reference else 0.0
    return Figure(name, value, unit, reference, ratio, f"at least {goal_ratio:g}x", ratio >= goal_ratio)


def as_json(figures: Sequence[Figure]) -> str:
    """A JSON list of objects with the fields of `Figure`."""
    return json.dumps([asdict(figure) for figure in figures], indent=2)


def as_table(figures: Sequence[Figure]) -> str:
    """An aligned text table."""
    head = ("figure", "value", "unit", "reference", "ratio", "goal", "met")
    rows = [head]
    for figure in figures:
        rows.append(
            (
                figure.name,
                _number(figure.value),
                figure.unit,
                _number(figure.reference),
                f"{figure.ratio:.2f}" if figure.ratio is not None else "",
                figure.goal,
                {True: "yes", False: "no", None: ""}[figure.met],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if column in (1, 3, 4) else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}"
