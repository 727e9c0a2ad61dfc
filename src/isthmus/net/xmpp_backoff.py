"""How long to wait before the next try: exponential with jitter, without a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

# A restarted server is back within half a second: the first try should not be what takes longest.
MINIMUM_SECONDS = 0.2


@dataclass(slots=True)
class Backoff:
    """Delays between attempts.

    Attributes:
        maximum_seconds: no delay is longer.
        random: returns 0.0 to 1.0. Each delay is between half and all of its step, so that many gateways that lost
            the same server do not come back in the same instant.
        minimum_seconds: the first step.
    """

    maximum_seconds: float
    random: Callable[[], float]
    minimum_seconds: float = MINIMUM_SECONDS
    _step: float = field(default=0.0, init=False)

    def next_delay(self, *, is_hopeless: bool = False) -> float:
        """Return the seconds to wait now.

        Args:
            is_hopeless: only an operator can mend it (wrong secret): go straight to the longest delay.
        """
        ceiling = max(self.maximum_seconds, self.minimum_seconds)
        self._step = ceiling if is_hopeless else min(ceiling, max(self.minimum_seconds, self._step * 2))
        return self._step * (0.5 + 0.5 * self.random())

    def reset(self) -> None:
        """Begin again with the shortest delay, after something lasted."""
        self._step = 0.0
