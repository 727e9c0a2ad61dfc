"""Stanzas on their way to XMPP: written in order, proved by barriers, written again when the stream was lost.

A component stream has no acknowledgements (XEP-0114): a journal row is settled only when a ping that was sent after
its stanza came back, because the server works a stream off in order. One ping is under way at a time and proves
everything before it, so its cost is shared.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from isthmus.errors import LinkDownError
from isthmus.ports import Clock, TimerHandle, XmppLink

# A ping costs the server as much as a message: at most 50 a second, whatever the load.
BARRIER_PAUSE_SECONDS = 0.02
# A ping that failed although the stream stands: do not hammer a server that is in trouble.
UNANSWERED_PAUSE_SECONDS = 1.0
# Stanzas that wait for Prosody: some 50 MB. Beyond it the sender is told to come back later.
MAXIMUM_WAITING = 50_000

Settled = Callable[[], None]


class _Item:
    """A stanza and what to do when it is proved."""

    __slots__ = ("proved", "stanza")

    def __init__(self, stanza: str, proved: Settled) -> None:
        self.stanza = stanza
        self.proved = proved


class XmppOutbox:
    """What one business domain has to say to XMPP.

    Args:
        domain: name of the component.
    """

    def __init__(self, domain: str, clock: Clock) -> None:
        self.domain = domain
        self._clock = clock
        self._link: XmppLink | None = None
        self._waiting: deque[_Item] = deque()  # not written, or lost with the stream
        self._unproved: list[_Item] = []  # written
        self._in_barrier: list[_Item] = []  # written before the ping that is under way
        self._barrier: asyncio.Task[None] | None = None
        self._pause: TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._unproved) + len(self._in_barrier)

    @property
    def is_full(self) -> bool:
        """True when the server has been away, or behind, for so long that no more can be taken."""
        return len(self) >= MAXIMUM_WAITING

    @property
    def is_connected(self) -> bool:
        """True when a stanza would be written at once."""
        return self._link is not None and self._link.is_connected and not self._waiting

    def send(self, stanza: str, proved: Settled) -> None:
        """Write a stanza now or, in order, when the link is up; call `proved` when the server has processed it."""
        item = _Item(stanza, proved)
        link = self._link
        if link is not None and not self._waiting and link.is_connected:
            try:
                link.send(stanza)
            except LinkDownError:
                self._waiting.append(item)
                return
            self._unproved.append(item)
            if self._barrier is None and self._pause is None:
                self._begin_barrier()
            return
        self._waiting.append(item)

    def send_once(self, stanza: str) -> bool:
        """Write a stanza that is worth nothing later (typing, markers); False when it could not be written."""
        link = self._link
        if link is None or self._waiting or not link.is_connected:
            return False
        try:
            link.send(stanza)
        except LinkDownError:
            return False
        return True

    def link_up(self, link: XmppLink) -> None:
        """The component is connected (again): write what waits, in order."""
        self._link = link
        while self._waiting:
            item = self._waiting[0]
            try:
                link.send(item.stanza)
            except LinkDownError:
                return
            self._waiting.popleft()
            self._unproved.append(item)
        if self._unproved and self._barrier is None and self._pause is None:
            self._begin_barrier()

    def link_down(self) -> None:
        """The stream is lost: what is unproved must be written again, before what waits, in the old order."""
        self._link = None
        self._barrier = None
        self._take_back()

    async def drained(self) -> None:
        """Return when no barrier is under way (for an orderly stop)."""
        while self._barrier is not None and not self._barrier.done():
            await asyncio.wait([self._barrier])

    def _begin_barrier(self) -> None:
        self._in_barrier, self._unproved = self._unproved, []
        self._barrier = asyncio.ensure_future(self._prove(self._in_barrier))
        self._tasks.add(self._barrier)
        self._barrier.add_done_callback(self._tasks.discard)

    async def _prove(self, batch: list[_Item]) -> None:
        link = self._link
        try:
            if link is None:
                raise LinkDownError(f"the component {self.domain} is not connected")
            await link.barrier()
        except LinkDownError:
            if self._in_barrier is batch:  # else `link_down` has taken everything back already
                self._barrier = None
                self._take_back()
                self._pause = self._clock.call_later(UNANSWERED_PAUSE_SECONDS, self._resume)
            return
        if self._in_barrier is not batch:
            return
        self._barrier = None
        self._in_barrier = []
        for item in batch:
            item.proved()
        self._pause = self._clock.call_later(BARRIER_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._pause = None
        if self._link is not None and self._link.is_connected:
            self.link_up(self._link)

    def _take_back(self) -> None:
        self._waiting.extendleft(reversed([*self._in_barrier, *self._unproved]))
        self._in_barrier = []
        self._unproved = []
