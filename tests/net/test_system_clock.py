"""The real clock."""

from __future__ import annotations

import asyncio
import time

from isthmus.net.system_clock import SystemClock


async def test_times_agree_with_the_system() -> None:
    clock = SystemClock()
    assert abs(clock.wall() - time.time()) < 5
    assert abs(clock.monotonic() - time.monotonic()) < 5


async def test_a_call_comes_later_and_a_cancelled_one_never() -> None:
    clock = SystemClock()
    called = asyncio.Event()
    order: list[str] = []
    cancelled = clock.call_later(0.0, lambda: order.append("cancelled"))
    cancelled.cancel()
    clock.call_later(0.01, called.set)
    clock.call_later(-1.0, lambda: order.append("at once"))
    await asyncio.wait_for(called.wait(), 1)
    assert order == ["at once"]
