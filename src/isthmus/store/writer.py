"""The one thread that touches the database, and group commit.

Work that arrives while a transaction runs waits on the event loop and then shares the next one, so the number of
fsyncs follows the disk and not the traffic. The event loop itself never waits.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.engine import URL

from isthmus.errors import StoreError
from isthmus.store.dialects import Session
from isthmus.store.faults import DatabaseLockedError, store_error

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)

# Seconds. An event loop that is always busy, but gives up the interpreter lock for a moment in every turn (as it
# does to poll its sockets), resets the waiting time of other threads without letting them in: with the default of
# 5 ms the writer starves for seconds, and with it every acknowledgement. Shorter than any turn, the writer gets in.
SWITCH_INTERVAL_SECONDS = 0.000_02
# Seconds between two complaints: on a full disk deletions succeed and appends fail, many times a second.
TOLD_AGAIN_SECONDS = 60.0


class Work(Protocol):
    """Something to do in the writer's next transaction."""

    @property
    def is_one_statement(self) -> bool:
        """True when `run`, known after `begin`, is a single `dialects.run_compiled`."""

    def begin(self) -> None:
        """On the event loop, when the transaction is about to start: the last moment to add to the work."""

    def run(self, connection: Connection) -> None:
        """In the writer's thread, within the transaction. May run twice if the first transaction failed."""

    def finish(self, error: StoreError | None) -> None:
        """On the event loop: it is durable, or why it is not. The next transaction waits for this to return."""


class _Call(Generic[Result]):
    """Work that is one function, with its result."""

    def __init__(self, function: Callable[[Connection], Result], future: asyncio.Future[Result]) -> None:
        self._function = function
        self._future = future
        self._result: list[Result] = []

    @property
    def is_one_statement(self) -> bool:
        """Nobody knows."""
        return False

    def begin(self) -> None:
        """Nothing to prepare."""

    def run(self, connection: Connection) -> None:
        self._result = [self._function(connection)]

    def finish(self, error: StoreError | None) -> None:
        if self._future.done():
            return  # whoever asked was cancelled
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(self._result[0])


class Writer:
    """Runs `Work` in transactions, in the order it came.

    Args:
        url: the database.
        name: what to call the database in errors.
        lock_wait_seconds: how long a transaction waits for another process that holds the write lock.

    Attributes:
        trouble: why the last transaction failed, "" when it did not.
    """

    def __init__(self, url: URL, name: str, lock_wait_seconds: float) -> None:
        self._url = url
        self._name = name
        self._lock_wait_seconds = lock_wait_seconds
        self._waiting: list[Work] = []
        self.trouble = ""
        self._told_at = float("-inf")
        self._is_recovery_untold = False
        self._is_busy = False
        self._is_scheduled = False
        self._is_open = False
        self._inbox: queue.SimpleQueue[list[Work] | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._switch_interval = 0.0

    async def open(self, prepare: Callable[[Connection], None]) -> None:
        """Connect and call `prepare` in the first transaction (integrity, migrations).

        Raises:
            StoreError: either failed; nothing is left open.
        """
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._serve, args=(prepare, opened), name="isthmus-store", daemon=True)
        self._thread.start()
        await opened
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._switch_interval, SWITCH_INTERVAL_SECONDS))
        self._is_open = True

    async def close(self) -> None:
        """Finish what was submitted, disconnect and end the thread."""
        if not self._is_open:
            return
        while self._waiting or self._is_busy:
            await self.call(lambda connection: None)
        self._is_open = False
        self._inbox.put(None)
        assert self._ended is not None
        assert self._thread is not None
        await self._ended
        self._thread.join()
        sys.setswitchinterval(self._switch_interval)

    def submit(self, work: Work) -> None:
        """Put `work` into the next transaction.

        Raises:
            StoreError: the store is not open.
        """
        if not self._is_open or self._loop is None:
            raise StoreError(f"database {self._name} is not open")
        self._waiting.append(work)
        if not self._is_busy and not self._is_scheduled:
            # At the end of this turn, so that everything of one turn shares a commit.
            self._is_scheduled = True
            self._loop.call_soon(self._dispatch)

    async def call(self, function: Callable[[Connection], Result]) -> Result:
        """Run `function` in the next transaction and return its result when that is committed.

        Raises:
            StoreError: the transaction failed, nothing of it happened.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.submit(_Call(function, future))
        return await future

    def _dispatch(self) -> None:
        self._is_scheduled = False
        if self._is_busy or not self._waiting:
            return
        works, self._waiting = self._waiting, []
        for work in works:
            work.begin()
        self._is_busy = True
        self._inbox.put(works)

    def _finished(self, works: Sequence[Work], errors: Sequence[StoreError | None]) -> None:
        self._is_busy = False
        self._note_trouble(next((str(error) for error in errors if error is not None), ""))
        for work, error in zip(works, errors, strict=True):
            work.finish(error)
        self._dispatch()

    def _note_trouble(self, text: str) -> None:
        """Tell the administrator that nothing can be kept, and that it can again; each at most once a minute."""
        assert self._loop is not None
        if text and self._loop.time() >= self._told_at + TOLD_AGAIN_SECONDS:
            self._told_at = self._loop.time()
            self._is_recovery_untold = True
            _log.error("the store cannot be written: what must be kept is refused", reason=text)
        elif not text and self._is_recovery_untold:
            self._is_recovery_untold = False
            _log.info("the store can be written again")
        self.trouble = text

    # --- in the thread ---

    def _serve(self, prepare: Callable[[Connection], None], opened: asyncio.Future[None]) -> None:
        assert self._loop is not None
        session: Session | None = None
        try:
            session = Session(self._url, self._lock_wait_seconds)
            session.run(prepare)
        except Exception as error:
            self._close_quietly(session)
            self._loop.call_soon_threadsafe(_settle, opened, store_error(error, self._name))
            return
        self._loop.call_soon_threadsafe(_settle, opened, None)
        while (works := self._inbox.get()) is not None:
            errors = self._transact(session, works)
            self._loop.call_soon_threadsafe(self._finished, works, errors)
        self._close_quietly(session)
        assert self._ended is not None
        self._loop.call_soon_threadsafe(_settle, self._ended, None)

    def _transact(self, session: Session, works: Sequence[Work]) -> list[StoreError | None]:
        def run_all(connection: Connection) -> None:
            for work in works:
                work.run(connection)

        try:
            if len(works) == 1 and works[0].is_one_statement:
                session.run_statement(works[0].run)
            else:
                session.run(run_all)
        except Exception as error:
            failure = store_error(error, self._name)
            if len(works) == 1 or isinstance(failure, DatabaseLockedError):
                return [failure] * len(works)
            # One at a time: the others must not pay for one bad value, and on a full disk deletions still succeed.
            return [self._transact(session, [work])[0] for work in works]
        return [None] * len(works)

    def _close_quietly(self, session: Session | None) -> None:
        if session is None:
            return
        try:
            session.close()
        except Exception:
            # All is committed; the next start finds the WAL where it is.
            return


def _settle(future: asyncio.Future[None], error: StoreError | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(None)
