"""A response that is repeated until somebody acknowledges it."""

from __future__ import annotations

from collections.abc import Callable

from isthmus.ports import Clock, TimerHandle
from isthmus.sip.timers import TimerTable


class Repeats:
    """A response that is sent again until it is acknowledged: T1, doubling to T2, given up after 64*T1.

    The 2xx of an INVITE, on every transport (RFC 3261 section 13.3.1.4).
    """

    __slots__ = ("_clock", "_ends_at", "_give_up", "_interval", "_send", "_timer", "_timers")

    def __init__(self, clock: Clock, timers: TimerTable, send: Callable[[], None], give_up: Callable[[], None]) -> None:
        self._clock = clock
        self._timers = timers
        self._send = send
        self._give_up = give_up
        self._interval = timers.t1
        self._ends_at = clock.monotonic() + timers.timeout
        self._timer: TimerHandle | None = clock.call_later(self._interval, self._fire)
        send()

    def stop(self) -> None:
        """It was acknowledged."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        left = self._ends_at - self._clock.monotonic()
        if left <= 0.001:
            self._give_up()
            return
        self._interval = min(2 * self._interval, self._timers.t2)
        self._timer = self._clock.call_later(min(self._interval, left), self._fire)
        self._send()
