"""How a leg tells its call: events in order, none after the last, never from within one of the leg's own methods."""

from __future__ import annotations

from collections import deque

from isthmus.ports import Clock
from isthmus.services.calls.leg import Leg, LegEnded, LegEvent, LegSink


class Outbox:
    """Carries the events of a leg to its sink, in order, nothing after the last.

    What follows from something the call just asked of the leg is told after the method returned (`tell_later`), so
    that the call is never entered again from below.
    """

    __slots__ = ("_clock", "_events", "_is_telling", "_sink", "is_closed", "leg")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sink: LegSink | None = None
        self._events: deque[LegEvent] = deque()
        self._is_telling = False
        self.leg: Leg | None = None
        self.is_closed = False

    def attach(self, sink: LegSink) -> None:
        """Tell `sink`, beginning with what has happened so far."""
        self._sink = sink
        self._tell_all()

    def tell(self, event: LegEvent) -> None:
        """Tell something that came from outside."""
        if self._take(event):
            self._tell_all()

    def tell_later(self, event: LegEvent) -> None:
        """Tell what follows from a method of the leg, once it has returned."""
        if self._take(event):
            self._clock.call_later(0.0, self._tell_all)

    def take(self) -> list[LegEvent]:
        """Return what nobody has listened to yet, and forget it."""
        events = list(self._events)
        self._events.clear()
        return events

    def _take(self, event: LegEvent) -> bool:
        if self.is_closed:
            return False
        self.is_closed = isinstance(event, LegEnded)
        self._events.append(event)
        return True

    def _tell_all(self) -> None:
        if self._sink is None or self.leg is None or self._is_telling:
            return
        self._is_telling = True
        try:
            while self._events:
                self._sink(self.leg, self._events.popleft())
        finally:
            self._is_telling = False
