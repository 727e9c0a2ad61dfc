"""The seed of random runs, and how much they do."""

from __future__ import annotations

import os
import random

# A submission must not fail by the luck of the draw; everybody's own runs try something new each time.
_IN_CI = 4_475
SEED = int(os.environ.get("ISTHMUS_FAULT_SEED", "0")) or (
    _IN_CI if os.environ.get("CI") else random.randrange(1, 1 << 32)
)
FACTOR = float(os.environ.get("ISTHMUS_FAULT_CASES", "1"))


def cases(count: int) -> int:
    """How many cases to try where `count` is the usual number."""
    return int(count * FACTOR)


def kills(count: int) -> int:
    """How often to kill where `count` is the usual number."""
    return int(os.environ.get("ISTHMUS_FAULT_KILLS", str(count)))
