"""The real clock: implements `ports.Clock` over the running event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class SystemClock:
    """Monotonic and wall time of this machine, and deferred calls on the loop that runs at construction time."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Run `callback` once, `seconds` from now; a negative delay means at once."""
        return self._loop.call_later(max(0.0, seconds), callback)
