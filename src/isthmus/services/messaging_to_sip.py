"""Messages on their way to business users: one queue per person, one MESSAGE under way per device (RFC 3428 section 8).

A message goes to every device of its recipient at once; the first 2xx settles it and lets the next one go. A device
that lags keeps its own short backlog. Nobody there, or nobody answering: the queue waits, in order, for a
registration, a retry or the expiry of what it holds.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from isthmus.model import Address, Failure, Message
from isthmus.ports import Clock, TimerHandle
from isthmus.services.delivery import BusinessDelivery, Target
from isthmus.services.messaging_requests import MessageRequests
from isthmus.services.messaging_shipment import BACKLOG_FULL, EXPIRED, Delivered, Lane, Parcel, Shipment

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 300.0
# A server error may be about this very message: it must not hold back the next ones for days.
MAXIMUM_SERVER_ERRORS = 8
# A device that stopped answering is sent no more than this when it comes back; others have had them already.
MAXIMUM_LANE_BACKLOG = 100
# Idle queues kept because people write again soon.
MAXIMUM_IDLE_QUEUES = 20_000
# At least once an hour deadlines are looked at anew, so that a jump of the wall clock is noticed.
LONGEST_SLEEP_SECONDS = 3_600.0


class PersonQueue:
    """Everything for one person."""

    __slots__ = ("address", "is_busy", "is_news", "is_pumping", "is_waiting", "lanes", "parcels", "retries", "timer")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.parcels: deque[Parcel] = deque()
        self.lanes: dict[str, Lane] = {}
        self.is_busy = False  # the first parcel is under way
        self.is_waiting = False  # for a registration, a retry or an expiry
        self.is_pumping = False
        self.is_news = False  # registrations changed while busy: no back-off before the next try
        self.retries = 0
        self.timer: TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """True when forgetting the queue forgets nothing."""
        return not self.parcels and not any(lane.is_busy for lane in self.lanes.values())


class SipQueues:
    """All queues towards business users.

    Args:
        delivered: called once per parcel with a sequence when the first device took it.
        failed: called once per parcel with a sequence when it will not be tried again.
    """

    def __init__(
        self,
        delivery: BusinessDelivery,
        requests: MessageRequests,
        clock: Clock,
        *,
        delivered: Callable[[Parcel, Delivered], None],
        failed: Callable[[Parcel, Failure], None],
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.delivery = delivery
        self.requests = requests
        self._clock = clock
        self._delivered = delivered
        self._failed = failed
        self._spread = spread
        self._queues: dict[Address, PersonQueue] = {}

    def waiting(self, address: Address) -> int:
        """Number of messages that this person has not got yet."""
        queue = self._queues.get(address)
        return len(queue.parcels) if queue is not None else 0

    def total(self) -> int:
        """Number of messages in all queues, for metrics."""
        return sum(len(queue.parcels) for queue in self._queues.values())

    def enqueue(self, message: Message, sequence: int, expires_at: float) -> None:
        """Take a journalled message."""
        queue = self._queue(message.recipient)
        queue.parcels.append(Parcel(message, sequence, expires_at, self._clock.monotonic()))
        if not queue.is_busy and not queue.is_waiting:
            self._pump(queue)

    def offer(self, message: Message, *, may_queue: bool) -> None:
        """Send something that is worth nothing later: now, behind what is under way (`may_queue`), or not at all."""
        queue = self._queue(message.recipient)
        if queue.is_waiting or (queue.parcels and not may_queue) or len(queue.parcels) > MAXIMUM_LANE_BACKLOG:
            return
        queue.parcels.append(Parcel(message, 0, float("inf")))
        if not queue.is_busy:
            self._pump(queue)

    def registrations_changed(self, address: Address) -> None:
        """A device came or moved: try again at once, everything in order (edge case 26)."""
        queue = self._queues.get(address)
        if queue is None:
            return
        if queue.is_waiting:
            queue.retries = 0
            self._wake(queue)
        else:
            queue.is_news = True

    def drop(self, address: Address, failure: Failure) -> None:
        """The person is gone: tell every sender."""
        queue = self._queues.pop(address, None)
        if queue is None:
            return
        if queue.timer is not None:
            queue.timer.cancel()
        parcels, queue.parcels = queue.parcels, deque()
        for parcel in parcels:
            self._give_up(parcel, failure)

    # --- the head of a queue ---

    def _queue(self, address: Address) -> PersonQueue:
        queue = self._queues.get(address)
        if queue is None:
            if len(self._queues) >= MAXIMUM_IDLE_QUEUES:
                self._queues = {key: value for key, value in self._queues.items() if not value.is_idle}
            queue = self._queues[address] = PersonQueue(address)
        return queue

    def _pump(self, queue: PersonQueue) -> None:
        """Send the first parcel, and the next ones as long as outcomes are known at once."""
        if queue.is_pumping:
            return  # an outcome that came at once: the loop below goes on with it
        queue.is_pumping = True
        try:
            while queue.parcels and not queue.is_busy and not queue.is_waiting:
                self._send_first(queue)
        finally:
            queue.is_pumping = False

    def _send_first(self, queue: PersonQueue) -> None:
        parcel = queue.parcels[0]
        if parcel.expires_at <= self._clock.wall():
            queue.parcels.popleft()
            self._give_up(parcel, EXPIRED)
            return
        targets = self.delivery.targets(queue.address, parcel.message.recipient_device)
        if not targets:
            self._wait(queue, None)
            return
        queue.is_busy = True
        parcel.outstanding = len(targets)
        parcel.failures.clear()
        for target in targets:
            self._ship(queue, parcel, target)

    def _ship(self, queue: PersonQueue, parcel: Parcel, target: Target) -> None:
        lane = queue.lanes.get(target.key)
        if lane is None:
            lane = queue.lanes[target.key] = Lane()
        lane.shipments.append(Shipment(self, queue, lane, parcel, target))
        if not lane.is_busy:
            self.next_in_lane(lane)
        elif len(lane.shipments) > MAXIMUM_LANE_BACKLOG:
            lane.shipments.popleft().lost(BACKLOG_FULL)

    def next_in_lane(self, lane: Lane) -> None:
        """Start what waits for this device."""
        if lane.shipments and not lane.is_busy:
            lane.is_busy = True
            lane.shipments.popleft().start()

    def shipped(self, queue: PersonQueue, parcel: Parcel, result: Delivered | Failure) -> None:
        """One device is through with a parcel."""
        parcel.outstanding -= 1
        if isinstance(result, Delivered):
            if not parcel.is_settled:
                parcel.is_settled = True
                queue.retries = 0
                if parcel.sequence:
                    self._delivered(parcel, result)
                self._advance(queue, parcel)
            return
        parcel.failures.append(result)
        if parcel.outstanding > 0 or parcel.is_settled:
            return
        parcel.attempts += 1
        if not parcel.sequence or not _is_worth_another_try(parcel):
            self._advance(queue, parcel)
            self._give_up(parcel, parcel.failures[-1])
        else:
            self._retry(queue, parcel)

    def _advance(self, queue: PersonQueue, parcel: Parcel) -> None:
        if queue.parcels and queue.parcels[0] is parcel:
            queue.parcels.popleft()
            queue.is_busy = False
            queue.is_news = False
            if queue.parcels:
                self._pump(queue)

    def _give_up(self, parcel: Parcel, failure: Failure) -> None:
        if not parcel.is_settled:
            parcel.is_settled = True
            if parcel.sequence:
                self._failed(parcel, failure)

    # --- waiting ---

    def _retry(self, queue: PersonQueue, parcel: Parcel) -> None:
        if not (queue.parcels and queue.parcels[0] is parcel):
            return  # the person was removed meanwhile
        queue.is_busy = False
        if queue.is_news:
            queue.is_news = False
            self._pump(queue)
            return
        delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(queue.retries, 10))
        queue.retries += 1
        self._wait(queue, delay * (0.8 + 0.4 * self._spread()))

    def _wait(self, queue: PersonQueue, seconds: float | None) -> None:
        """Sleep until a retry is due, something expires, or a device registers."""
        queue.is_waiting = True
        queue.parcels = deque(parcel for parcel in queue.parcels if parcel.sequence)
        if not queue.parcels:
            queue.is_waiting = False
            return
        until_expiry = min(parcel.expires_at for parcel in queue.parcels) - self._clock.wall()
        sleep = min(LONGEST_SLEEP_SECONDS, max(0.0, until_expiry))
        queue.timer = self._clock.call_later(
            sleep if seconds is None else min(seconds, sleep), lambda: self._wake(queue)
        )

    def _wake(self, queue: PersonQueue) -> None:
        queue.is_waiting = False
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        now = self._clock.wall()
        stale = [parcel for parcel in queue.parcels if parcel.expires_at <= now]
        if stale:
            queue.parcels = deque(parcel for parcel in queue.parcels if parcel.expires_at > now)
            for parcel in stale:
                self._give_up(parcel, EXPIRED)
        self._pump(queue)


def _is_worth_another_try(parcel: Parcel) -> bool:
    if not any(failure.is_temporary for failure in parcel.failures):
        return False
    only_server_errors = all(failure.status == 500 for failure in parcel.failures)
    return not (only_server_errors and parcel.attempts >= MAXIMUM_SERVER_ERRORS)
