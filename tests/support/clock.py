"""A clock that turns by hand, so that no test waits."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class FakeTimer:
    """A deferred call of `FakeClock`."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Implements `ports.Clock`. `advance` runs due callbacks in order, each at its own time."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = 1000.0
        self._wall = wall
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._count = itertools.count()

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def call_later(self, seconds: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self._monotonic + max(0.0, seconds), next(self._count), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        end = self._monotonic + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._wall += max(0.0, due - self._monotonic)
            self._monotonic = max(self._monotonic, due)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._wall += end - self._monotonic
        self._monotonic = end

    def jump_wall(self, seconds: float) -> None:
        """Move the wall clock alone, as NTP or an operator may."""
        self._wall += seconds

    def forget(self) -> None:
        """Drop every timer: the process that set them has died."""
        self._timers.clear()

    @property
    def pending(self) -> int:
        """Number of timers that would still fire."""
        return sum(timer.callback is not None for _, _, timer in self._timers)
