"""Many things that end some time, with one timer for all of them.

A timer of the event loop takes most of a kilobyte with its callback. A company's phones hold a hundred thousand
subscriptions, each of which ends some day: here they are one entry of a dictionary each.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from isthmus.ports import Clock, TimerHandle

Item = TypeVar("Item")


class Deadlines(Generic[Item]):
    """Calls `due(item)` when its deadline has come, at most `width_seconds` late.

    Args:
        due: must not raise; the item is no longer here when it is called.
        width_seconds: deadlines this close to each other share a timer; the last of them counts.
    """

    def __init__(self, clock: Clock, due: Callable[[Item], None], *, width_seconds: float) -> None:
        self._clock = clock
        self._due = due
        self._width = width_seconds
        self._items: dict[int, dict[Item, None]] = {}
        self._ends: dict[int, float] = {}
        self._order: list[int] = []
        self._timer: TimerHandle | None = None
        self._timer_at = 0.0

    def add(self, item: Item, at: float) -> None:
        """Let `item` be due `at` (monotonic seconds)."""
        bucket = int(at / self._width)
        items = self._items.get(bucket)
        if items is None:
            self._items[bucket] = {item: None}
            self._ends[bucket] = at
            heapq.heappush(self._order, bucket)
            if self._timer is None or at < self._timer_at:
                self._arm()
        else:
            items[item] = None
            self._ends[bucket] = max(at, self._ends[bucket])

    def discard(self, item: Item, at: float) -> None:
        """Forget an item that was added with the same `at`; harmless when it is gone."""
        items = self._items.get(int(at / self._width))
        if items is not None:
            items.pop(item, None)  # an empty bucket is left to its time

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._order:
            self._timer_at = self._ends[self._order[0]]
            self._timer = self._clock.call_later(max(0.0, self._timer_at - self._clock.monotonic()), self._run)

    def _run(self) -> None:
        self._timer = None
        # The loop's clock and ours may differ by a rounding.
        now = self._clock.monotonic() + 0.001
        try:
            while self._order and self._ends[self._order[0]] <= now:
                bucket = heapq.heappop(self._order)
                del self._ends[bucket]
                for item in self._items.pop(bucket):
                    self._due(item)
        finally:
            self._arm()
