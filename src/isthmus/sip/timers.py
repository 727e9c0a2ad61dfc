"""The timers of SIP: their values as one table, and a queue that arms and disarms them at a constant price.

Nearly all timers of a busy server have one of a dozen durations, so each (timer, duration) pair gets its own
first-in-first-out lane: a lane is sorted without ever comparing two deadlines.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, Protocol, TypeVar


class Timer(IntEnum):
    """Which timer fired (RFC 3261 Table 4, RFC 6026, RFC 6665). Integers, because they index tables on the hot path."""

    A = 1  # INVITE request retransmission
    B = 2  # INVITE client gives up
    C = 3  # an INVITE rang too long
    D = 4  # INVITE client absorbs repeated failures
    E = 5  # non-INVITE request retransmission
    F = 6  # non-INVITE client gives up
    G = 7  # INVITE failure response retransmission
    H = 8  # INVITE server gives up waiting for ACK
    I = 9  # INVITE server absorbs ACKs  # noqa: E741 - the standard's own name
    J = 10  # non-INVITE server absorbs request retransmissions
    K = 11  # non-INVITE client absorbs repeated responses
    L = 12  # INVITE server absorbs INVITEs after 2xx
    M = 13  # INVITE client collects 2xx of other forks
    N = 14  # subscriber waits for the first NOTIFY
    TRYING = 15  # the transaction user was silent: send 100 (RFC 3261 section 17.2.1)
    ANSWER = 16  # ours: nobody answered a non-INVITE request while its client still listened


@dataclass(frozen=True, slots=True)
class TimerTable:
    """All durations in seconds. The default is RFC 3261 Table 4; tests scale T1.

    Attributes:
        t1: round-trip estimate; every "64*T1" follows from it.
        t2: longest interval between retransmissions of non-INVITE requests and INVITE responses.
        t4: longest time a message stays in the network.
        c: how long an INVITE may ring before it is cancelled; must be over three minutes (section 16.6 step 11).
        trying: silence after which an INVITE is answered 100 (section 17.2.1: 200 ms).
    """

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0
    c: float = 181.0
    trying: float = 0.2

    @property
    def timeout(self) -> float:
        """64*T1: the length of timers B, F, H, J, L, M and N."""
        return 64 * self.t1

    @property
    def d(self) -> float:
        """Timer D: at least 32 s on unreliable transports (section 17.1.1.2)."""
        return 64 * self.t1

    @property
    def late_trying(self) -> float:
        """When the client's Timer E has grown to T2: a non-INVITE request must not get a 100 before (RFC 4320 4.1)."""
        total, interval = 0.0, self.t1
        while interval < self.t2:
            total += interval
            interval *= 2
        return total


class TimedMachine(Protocol):
    """Who can own timers: at most one that repeats and one that limits are armed at any time."""

    repeat_lane: Lane | None
    limit_lane: Lane | None


class Lane(OrderedDict[TimedMachine, float]):
    """Machines waiting for the same timer with the same duration, by deadline. An ordered dict deletes from the
    middle and pops from the front in constant time, so a disarmed timer holds no memory."""

    __slots__ = ("seconds", "timer")

    def __init__(self, timer: Timer, seconds: float) -> None:
        super().__init__()
        self.timer = timer
        self.seconds = seconds


class TimerQueue:
    """All armed timers of one transaction layer.

    `next_deadline` may be early after a disarm (it is a lower bound, kept without a search) but is never late.
    """

    __slots__ = ("_earliest", "_lanes")

    def __init__(self) -> None:
        self._lanes: dict[tuple[Timer, float], Lane] = {}
        self._earliest = float("inf")

    def lane(self, timer: Timer, seconds: float) -> Lane:
        """Return the lane for `timer` lasting `seconds`; made on first use. There are about 25 in all."""
        lane = self._lanes.get((timer, seconds))
        if lane is None:
            lane = self._lanes[timer, seconds] = Lane(timer, seconds)
        return lane

    def arm_repeat(self, machine: TimedMachine, lane: Lane, now: float) -> None:
        """Arm the retransmission timer of `machine`, replacing the one it had."""
        armed = machine.repeat_lane
        if armed is not None:
            del armed[machine]
        deadline = now + lane.seconds
        lane[machine] = deadline
        machine.repeat_lane = lane
        if deadline < self._earliest:  # noqa: PLR1730 - min() is a call, and this runs for every message
            self._earliest = deadline

    def arm_limit(self, machine: TimedMachine, lane: Lane, now: float) -> None:
        """Arm the timer that ends the present state of `machine`, replacing the one it had."""
        armed = machine.limit_lane
        if armed is not None:
            del armed[machine]
        deadline = now + lane.seconds
        lane[machine] = deadline
        machine.limit_lane = lane
        if deadline < self._earliest:  # noqa: PLR1730 - min() is a call, and this runs for every message
            self._earliest = deadline

    def disarm(self, machine: TimedMachine) -> None:
        """Stop both timers of `machine`."""
        lane = machine.repeat_lane
        if lane is not None:
            del lane[machine]
            machine.repeat_lane = None
        lane = machine.limit_lane
        if lane is not None:
            del lane[machine]
            machine.limit_lane = None

    def disarm_repeat(self, machine: TimedMachine) -> None:
        """Stop the retransmission timer of `machine`."""
        lane = machine.repeat_lane
        if lane is not None:
            del lane[machine]
            machine.repeat_lane = None

    def next_deadline(self) -> float | None:
        """Return when `due` should be called next, or None when nothing is armed."""
        if self._earliest == float("inf"):
            return None
        return self._earliest

    def due(self, now: float) -> Iterator[tuple[TimedMachine, Timer]]:
        """Yield each timer that has fired, disarmed; machines may arm new ones meanwhile."""
        self._earliest = float("inf")
        try:
            for lane in tuple(self._lanes.values()):
                while lane:
                    machine, deadline = next(iter(lane.items()))
                    if deadline > now:
                        break
                    del lane[machine]
                    if machine.repeat_lane is lane:
                        machine.repeat_lane = None
                    else:
                        machine.limit_lane = None
                    yield machine, lane.timer
        finally:
            # Also when the consumer failed on one machine: the others must not lose their timers with it.
            for lane in self._lanes.values():
                if lane:
                    self._earliest = min(self._earliest, next(iter(lane.values())))

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())


Key = TypeVar("Key", str, int)
Kept = TypeVar("Kept")

# Keys expire in batches this wide (seconds) and at most this long: one deadline for a thousand keys instead of one
# each, and shedding takes the oldest thousand, never a whole burst.
BATCH_SECONDS = 0.25
BATCH_KEYS = 1024


class Expiring(Protocol):
    """An `Afterlife` of whatever it keeps."""

    def next_deadline(self) -> float | None:
        """Return when `expire` has something to do, or None."""

    def expire(self, now: float) -> None:
        """Forget what is due."""


class Afterlife(Generic[Key, Kept]):
    """What must be remembered of finished transactions for a fixed time, by key (Timers J and K).

    At 5,000 requests a second Timer J keeps 160,000 of them: each is one key and one value here, in containers of
    plain bytes and text that cost the garbage collector nothing, and no transaction object. `capacity` bounds them:
    the oldest go first, because a client that has its answer stopped retransmitting long before Timer J ends.
    """

    __slots__ = ("_batches", "_values", "capacity", "seconds")

    def __init__(self, seconds: float, capacity: int) -> None:
        self._values: dict[Key, Kept] = {}
        self._batches: deque[tuple[float, list[Key]]] = deque()
        self.seconds = seconds
        self.capacity = capacity

    def add(self, key: Key, value: Kept, now: float) -> None:
        """Remember `value` for at least `seconds`, at most `BATCH_SECONDS` longer. Adding a key again is harmless."""
        self._values[key] = value
        batches = self._batches
        # A batch is open for BATCH_SECONDS after its first key, whose own lifetime is therefore the longest.
        if batches and now < batches[-1][0] - self.seconds and len(batches[-1][1]) < BATCH_KEYS:
            batches[-1][1].append(key)
        else:
            batches.append((now + self.seconds + BATCH_SECONDS, [key]))
        if len(self._values) > self.capacity:
            self._drop_oldest()

    def get(self, key: Key) -> Kept | None:
        """Return what is remembered of `key`, or None."""
        return self._values.get(key)

    def next_deadline(self) -> float | None:
        """Return when `expire` has something to do, or None."""
        return self._batches[0][0] if self._batches else None

    def expire(self, now: float) -> None:
        """Forget what is due."""
        batches = self._batches
        while batches and batches[0][0] <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        forget = self._values.pop
        for key in self._batches.popleft()[1]:
            forget(key, None)

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)
