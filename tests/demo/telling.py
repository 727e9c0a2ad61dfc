"""How stories are told: who, and what happened, as it happens."""

from __future__ import annotations

import time

ANA, BEN = "ana@corp.test", "ben@people.test"


def say_aloud(who: str, what: str) -> None:
    """Print one line of a story."""
    print(f"  {time.strftime('%H:%M:%S')}  {who:<28} {what}", flush=True)
