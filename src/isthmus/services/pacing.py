"""Spreads many small jobs over time, so that a restart or a policy change is not a storm."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from isthmus.ports import Clock, TimerHandle

_TICK_SECONDS = 0.05


class Pacer:
    """Runs jobs in order at a bounded rate.

    Args:
        per_second: most jobs that run in one second.
    """

    def __init__(self, clock: Clock, per_second: float) -> None:
        self._clock = clock
        self._jobs: deque[Iterator[Callable[[], None]]] = deque()
        self._per_tick = max(1, int(per_second * _TICK_SECONDS))
        self._timer: TimerHandle | None = None

    def add(self, jobs: Iterable[Callable[[], None]]) -> None:
        """Queue jobs. Each is taken from the iterable when its turn has come: a company has 100,000 contacts."""
        self._jobs.append(iter(jobs))
        if self._timer is None:
            self._timer = self._clock.call_later(_TICK_SECONDS, self._run)

    def clear(self) -> None:
        """Drop what waits."""
        self._jobs.clear()

    def _run(self) -> None:
        self._timer = None
        left = self._per_tick
        while left and self._jobs:
            job = next(self._jobs[0], None)
            if job is None:
                self._jobs.popleft()
            else:
                left -= 1
                job()
        if self._jobs:
            self._timer = self._clock.call_later(_TICK_SECONDS, self._run)
