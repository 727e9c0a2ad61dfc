"""Whether the device at the other end of a call is still there (XEP-0199)."""

from __future__ import annotations

from collections.abc import Callable

from isthmus.ports import Clock, TimerHandle
from isthmus.services.calls.jingle.wire import Answered, IqOutcome

# A client that crashed without its server noticing must not hold the other side for long.
PING_SECONDS = 60.0

# What a server says of a device that is gone, and a client of pings it does not know.
_AMBIGUOUS = ("feature-not-implemented", "service-unavailable")


class PeerWatch:
    """Pings a device now and then, and tells when it is gone.

    Args:
        clock: when to ask.
        ping: asks, and tells what came of it.
        gone: called when the device is not there any more.
    """

    def __init__(self, clock: Clock, ping: Callable[[Answered], None], gone: Callable[[], None]) -> None:
        self._clock = clock
        self._ping = ping
        self._gone = gone
        self._timer: TimerHandle | None = None
        self._is_answered = False
        self._is_over = False

    def begin(self) -> None:
        """Look every `PING_SECONDS` from now on."""
        self.end()
        self._is_over = False
        self._timer = self._clock.call_later(PING_SECONDS, self.look)

    def look(self) -> None:
        """Ask now."""
        self.begin()
        self._ping(self._heard)

    def end(self) -> None:
        """Ask no more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _heard(self, outcome: IqOutcome) -> None:
        if outcome.is_result:
            self._is_answered = True
        elif outcome.failure is None or self._is_over:
            return  # a device without network for a while keeps its call, whose media may go on
        elif self._is_answered or outcome.failure.condition not in _AMBIGUOUS:
            self._gone()
