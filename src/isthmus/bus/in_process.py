"""The bus of a single node: an event is a function call, in order per address."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from isthmus.model import Address

Receiver = Callable[[Address, Any], Awaitable[None] | None]

# More waiting than this for one address means that a receiver hangs: said once, since events must not be dropped.
QUEUE_WORTH_A_WARNING = 10_000

_log = structlog.get_logger(__name__)


class InProcessBus:
    """Implements `ports.Bus`.

    `send` calls synchronous receivers before it returns. Three things put an event behind others of its address: it
    is sent from within a receiver of the same address, a coroutine of an earlier event is not done, or earlier
    events wait already. Different addresses never wait for each other. A receiver that raises is logged; the
    receivers and events after it run as if nothing had happened.
    """

    def __init__(self) -> None:
        self._receivers: dict[type, tuple[Receiver, ...]] = {}
        # An entry exists exactly while an event for the address is being handled.
        self._queues: dict[Address, deque[object]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._drained_waiters: list[asyncio.Future[None]] = []

    def register(self, event_type: type, receiver: Receiver) -> None:
        """Let `receiver(address, event)` take events of exactly this type, after those registered before."""
        self._receivers[event_type] = (*self._receivers.get(event_type, ()), receiver)

    def send(self, address: Address, event: object) -> None:
        """Hand `event` to its receivers; events to one address are handled in the order they were sent.

        Call it from the event loop's thread only.
        """
        if type(event) not in self._receivers:
            return
        queue = self._queues.get(address)
        if queue is not None:
            queue.append(event)
            if len(queue) == QUEUE_WORTH_A_WARNING:
                _log.warning("events pile up behind a receiver", address=str(address), waiting=len(queue))
            return
        self._queues[address] = queue = deque((event,))
        self._work_off(address, queue)

    async def drained(self) -> None:
        """Return when no event waits or is being handled."""
        while self._queues:
            waiter = asyncio.get_running_loop().create_future()
            self._drained_waiters.append(waiter)
            await waiter

    def _work_off(self, address: Address, queue: deque[object]) -> None:
        while queue:
            event = queue.popleft()
            if self._is_left_to_a_task(address, queue, event, self._receivers[type(event)]):
                return
        del self._queues[address]
        if not self._queues and self._drained_waiters:
            for waiter in self._drained_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._drained_waiters.clear()

    def _is_left_to_a_task(
        self, address: Address, queue: deque[object], event: object, receivers: tuple[Receiver, ...]
    ) -> bool:
        """Run `receivers`; at the first coroutine leave it and all that follows to a task and return True."""
        for index, receiver in enumerate(receivers):
            try:
                pending = receiver(address, event)
            except Exception:
                _log_failure(address, event)
                continue
            if pending is not None:
                rest = receivers[index + 1 :]
                task = asyncio.ensure_future(self._finish(address, queue, event, pending, rest))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return True
        return False

    async def _finish(
        self,
        address: Address,
        queue: deque[object],
        event: object,
        pending: Awaitable[None],
        rest: tuple[Receiver, ...],
    ) -> None:
        try:
            await pending
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the loop is shutting down
            # The receiver awaited something that was cancelled: its failure, not the end of the bus.
            _log_failure(address, event)
        except Exception:
            _log_failure(address, event)
        if not self._is_left_to_a_task(address, queue, event, rest):
            self._work_off(address, queue)


def _log_failure(address: Address, event: object) -> None:
    # The event's fields may hold message bodies, so only its type is named.
    _log.exception("a receiver failed", address=str(address), event_type=type(event).__name__)
