"""The journal of acknowledged messages on a database: group commit, and memory of what was transmitted before."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b

import structlog
from sqlalchemy import Connection, delete, func, select

from isthmus.errors import StoreError
from isthmus.ports import Appended, JournalEntry
from isthmus.store import schema
from isthmus.store.journal_format import decode_entry, encode_entry
from isthmus.store.row_statements import MAXIMUM_ROWS, Row, delete_rows, insert_rows
from isthmus.store.writer import Writer

# Seconds an origin key stays known after its message was settled: a sender retransmits for 64*T1 = 32 s (RFC 3261
# section 17.1.2.2); twice that, for a second attempt through another next hop, and a reserve for clocks.
ORIGIN_KEY_SECONDS = 70.0
# Octets kept of an origin key: enough that nobody finds two keys with the same digest, whatever length they have.
DIGEST_OCTETS = 16
# Seconds, and number of settles, that are collected before a commit takes them along: a crash within costs redeliveries
# under the same ids, and the commits in between write nothing but new messages.
SETTLE_DELAY_SECONDS = 0.05
SETTLES_PER_COMMIT = 256
# Seconds before settles are tried again after the database refused them.
RETRY_SECONDS = 1.0
# Seconds between deletions of origin keys that need not be known any more.
PRUNE_SECONDS = 5.0
# Appends that may wait for the disk. Beyond it the disk hangs, and senders should hear so rather than time out.
MAXIMUM_WAITING_APPENDS = 20_000

# Who waits for an append: a coroutine, or a callback that takes the outcome.
Waiter = asyncio.Future[int] | Appended

_log = structlog.get_logger(__name__)

_INSERT_ENTRIES = insert_rows(schema.journal)
_DELETE_ENTRIES = delete_rows(schema.journal)
_INSERT_ORIGINS = insert_rows(schema.settled_origins)


class SqlJournal:
    """Implements `ports.Journal`. Made by `SqlStore`, which loads it before use."""

    def __init__(self, writer: Writer, wall: Callable[[], float], monotonic: Callable[[], float] = time.monotonic):
        self._writer = writer
        self._wall = wall
        self._monotonic = monotonic
        self._next_sequence = 1
        self._next_settled_id = 1
        self._known: set[bytes] = set()  # digests of durable entries, and of settled ones for a while
        self._origin_of: dict[int, bytes] = {}  # of unsettled entries
        self._repeats: dict[bytes, list[Waiter]] = {}  # digest not yet durable -> who sent it again
        self._settled: deque[_SettledOrigins] = deque()  # oldest first
        self._pruned_at = monotonic()
        self._batch: _Batch | None = None
        self._waiting_appends = 0
        self._calls: list[tuple[Appended, int | StoreError]] = []
        self._settles: list[int] = []
        self._is_settling_due = False
        self._refused_settles: list[int] = []  # the database failed on them
        self._settle_timer: asyncio.TimerHandle | None = None

    # --- ports.Journal ---

    async def append(self, entry: JournalEntry) -> int:
        """Make the entry durable and return its sequence; 0 when its origin key is already known.

        Raises:
            StoreError: it cannot be made durable; the message must not be acknowledged.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        sequence = self._append(entry, future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._withdraw(sequence)
            raise

    def append_nowait(self, entry: JournalEntry, appended: Appended) -> None:
        """As `append`, but call `appended` with the sequence or the StoreError in a later turn of the loop."""
        try:
            self._append(entry, appended)
        except StoreError as error:
            self._tell(appended, error)

    def _append(self, entry: JournalEntry, waiter: Waiter) -> int:
        """Put the entry into the open batch and return its sequence; 0 when it is a repeat."""
        digest = _digest(entry.origin_key)
        if digest:
            if digest in self._known:
                self._tell(waiter, 0)
                return 0
            repeats = self._repeats.get(digest)
            if repeats is not None:
                # Its first transmission is on the way to the disk: 0 is only true if it arrives there.
                repeats.append(waiter)
                return 0
        if self._waiting_appends >= MAXIMUM_WAITING_APPENDS:
            raise StoreError(f"{self._waiting_appends} messages wait for the disk: it is too slow or hangs")
        payload = encode_entry(entry)
        batch = self._batch or self._open_batch()
        sequence = self._next_sequence
        self._next_sequence += 1
        self._waiting_appends += 1
        batch.rows.append((sequence, digest or None, payload))
        batch.waiters.append(waiter)
        if digest:
            self._repeats[digest] = []
        return sequence

    def settle(self, sequence: int) -> None:
        """Forget a delivered or finally failed entry with a commit soon; its origin key stays known a while."""
        if sequence <= 0:
            return
        self._settles.append(sequence)
        if self._settle_timer is None:
            self._arm_settle_timer(SETTLE_DELAY_SECONDS)

    async def pending(self) -> Sequence[JournalEntry]:
        """Return all unsettled entries in order.

        Raises:
            StoreError: they cannot be read, or a newer Isthmus wrote one of them.
        """
        await self.flush()
        return await self._writer.call(_read_pending)

    async def flush(self) -> None:
        """Return when every settle so far is durable.

        Raises:
            StoreError: they are not; they are tried again later.
        """
        self._is_settling_due = True
        batches = [self._batch or self._open_batch()]
        if self._refused_settles:
            batches.append(self._retry_refused())
        for batch in batches:
            batch.flushed = asyncio.get_running_loop().create_future() if batch.flushed is None else batch.flushed
        for batch in batches:
            assert batch.flushed is not None
            await asyncio.shield(batch.flushed)

    # --- for SqlStore ---

    async def load(self) -> None:
        """Learn from the database which origin keys are known and where sequences go on. Raises StoreError."""
        highest, pending, settled = await self._writer.call(_read_origins)
        now, wall = self._monotonic(), self._wall()
        self._next_sequence = highest + 1
        for sequence, digest in pending:
            self._known.add(digest)
            self._origin_of[sequence] = digest
        for settled_id, known_until, digests in settled:
            self._next_settled_id = settled_id + 1
            # Bounded, because the wall clock may have jumped since.
            seconds = min(max(0.0, known_until - wall), ORIGIN_KEY_SECONDS)
            self._remember_settled(settled_id, now + seconds, digests)

    def stop(self) -> None:
        """Cancel the timer; the writer is about to close."""
        if self._settle_timer is not None:
            self._settle_timer.cancel()
            self._settle_timer = None

    # --- batches ---

    def _open_batch(self) -> _Batch:
        batch = _Batch(self)
        self._writer.submit(batch)
        self._batch = batch
        return batch

    def _arm_settle_timer(self, seconds: float) -> None:
        self._settle_timer = asyncio.get_running_loop().call_later(seconds, self._settle_timer_fired)

    def _settle_timer_fired(self) -> None:
        self._settle_timer = None
        if self._refused_settles:
            self._retry_refused()
        if self._settles:
            self._is_settling_due = True
            if self._batch is None:
                self._open_batch()

    def _retry_refused(self) -> _Batch:
        """Write refused settles apart from appends: on a full disk they succeed, and free space for those."""
        batch = _Batch(self)
        batch.settles, self._refused_settles = self._refused_settles, []
        self._writer.submit(batch)
        return batch

    def seal(self, batch: _Batch) -> None:
        """Give `batch` all that goes with it; later appends open another one."""
        if batch is self._batch:
            self._batch = None
            if self._is_settling_due or len(self._settles) >= SETTLES_PER_COMMIT:
                self._is_settling_due = False
                batch.settles, self._settles = self._settles, []
        now = self._monotonic()
        if batch.settles:
            batch.settled_digests = b"".join([self._origin_of.get(sequence, b"") for sequence in batch.settles])
        if batch.settled_digests:
            batch.settled_id = self._next_settled_id
            batch.settled_until = now + ORIGIN_KEY_SECONDS
            batch.settled_row = (batch.settled_id, self._wall() + ORIGIN_KEY_SECONDS, batch.settled_digests)
            self._next_settled_id += 1
        if now - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = now
            batch.prune_to = self._forget_expired(now)

    def batch_failed(self, batch: _Batch, error: StoreError) -> None:
        """Tell the appenders; keep the settles for another attempt."""
        for row, waiter in zip(batch.rows, batch.waiters, strict=True):
            for each in (waiter, *self._repeats.pop(row[1], ())):
                self._tell(each, error)
        if batch.flushed is not None and not batch.flushed.done():
            batch.flushed.set_exception(type(error)(str(error)))
        self._waiting_appends -= len(batch.rows)
        self._refused_settles += batch.settles
        if self._refused_settles and self._settle_timer is None:
            self._arm_settle_timer(RETRY_SECONDS)

    def batch_done(self, batch: _Batch) -> None:
        """Tell the appenders, and remember the origin keys."""
        self._waiting_appends -= len(batch.rows)
        for settled in batch.settles:
            self._origin_of.pop(settled, None)
        if batch.settled_digests:
            self._remember_settled(batch.settled_id, batch.settled_until, batch.settled_digests)
        for (sequence, digest, _), waiter in zip(batch.rows, batch.waiters, strict=True):
            repeats: Sequence[Waiter] = ()
            if digest is not None:
                self._known.add(digest)
                self._origin_of[sequence] = digest
                repeats = self._repeats.pop(digest)
            # The first one that still waits owns the entry, the others repeated it.
            is_owned = self._tell(waiter, sequence)
            for repeat in repeats:
                is_owned = self._tell(repeat, 0 if is_owned else sequence) or is_owned
            if not is_owned:
                self._withdraw(sequence)
        if batch.flushed is not None and not batch.flushed.done():
            batch.flushed.set_result(None)

    def _tell(self, waiter: Waiter, outcome: int | StoreError) -> bool:
        """Pass an outcome on; False when nobody is left who would act on it."""
        if not isinstance(waiter, asyncio.Future):
            if not self._calls:
                # In the next turn, all at once: what they do takes time, and the next commit shall be on its way first.
                asyncio.get_running_loop().call_soon(self._call)
            self._calls.append((waiter, outcome))
            return True
        if waiter.done():
            return False
        if isinstance(outcome, StoreError):
            # One exception per waiter: raising the same one in many tasks would mix their tracebacks.
            waiter.set_exception(type(outcome)(str(outcome)))
        else:
            waiter.set_result(outcome)
        return True

    def _call(self) -> None:
        calls, self._calls = self._calls, []
        for appended, outcome in calls:
            try:
                appended(outcome)
            except Exception:  # a mistake about one message must not hold up the others
                _log.exception("a message could not be worked off")

    def _withdraw(self, sequence: int) -> None:
        """Undo an append whose caller was cancelled.

        Nobody will acknowledge or deliver the entry, so it must neither come back at the next start nor make the
        sender's retransmission look known.
        """
        self._known.discard(self._origin_of.pop(sequence, b""))
        self.settle(sequence)

    def _remember_settled(self, settled_id: int, until: float, digests: bytes) -> None:
        cut = [digests[start : start + DIGEST_OCTETS] for start in range(0, len(digests), DIGEST_OCTETS)]
        self._known.update(cut)
        self._settled.append(_SettledOrigins(settled_id, until, cut))

    def _forget_expired(self, now: float) -> int:
        """Return the id up to which rows of settled origins can be deleted; 0 for none."""
        last = 0
        while self._settled and self._settled[0].until <= now:
            expired = self._settled.popleft()
            self._known.difference_update(expired.digests)
            last = expired.id
        return last


class _SettledOrigins:
    """Origin keys of one commit's settled entries."""

    __slots__ = ("digests", "id", "until")

    def __init__(self, settled_id: int, until: float, digests: list[bytes]) -> None:
        self.id = settled_id
        self.until = until  # monotonic
        self.digests = digests


class _Batch:
    """`writer.Work` of the journal: all appends and settles that share a commit."""

    def __init__(self, journal: SqlJournal) -> None:
        self._journal = journal
        self.rows: list[Row] = []
        self.waiters: list[Waiter] = []  # one per row
        self.flushed: asyncio.Future[None] | None = None  # set when somebody waits for it
        self.settles: list[int] = []
        self.settled_digests = b""
        self.settled_id = 0
        self.settled_until = 0.0
        self.settled_row: Row = ()
        self.prune_to = 0

    def begin(self) -> None:
        """Take in everything up to now."""
        self._journal.seal(self)

    @property
    def is_one_statement(self) -> bool:
        """True for most: nothing but the rows of one INSERT."""
        return 0 < len(self.rows) <= MAXIMUM_ROWS and not (self.settles or self.settled_row or self.prune_to)

    def run(self, connection: Connection) -> None:
        """Write it, deletions first: they make room."""
        if self.prune_to:
            connection.execute(delete(schema.settled_origins).where(schema.settled_origins.c.id <= self.prune_to))
        if self.settles:
            _DELETE_ENTRIES.run(connection, [(sequence,) for sequence in self.settles])
        if self.settled_row:
            _INSERT_ORIGINS.run(connection, [self.settled_row])
        if self.rows:
            _INSERT_ENTRIES.run(connection, self.rows)

    def finish(self, error: StoreError | None) -> None:
        """Pass the outcome on."""
        if error is not None:
            self._journal.batch_failed(self, error)
        else:
            self._journal.batch_done(self)


def _digest(origin_key: str) -> bytes:
    if not origin_key:
        return b""
    return blake2b(origin_key.encode("utf-8", "surrogatepass"), digest_size=DIGEST_OCTETS).digest()


def _read_pending(connection: Connection) -> list[JournalEntry]:
    table = schema.journal
    rows = connection.execute(select(table.c.sequence, table.c.payload).order_by(table.c.sequence))
    return [decode_entry(sequence, payload) for sequence, payload in rows]


def _read_origins(connection: Connection) -> tuple[int, list[tuple[int, bytes]], list[tuple[int, float, bytes]]]:
    """Return the highest pending sequence, the digests of pending entries, and the rows of settled ones."""
    table, settled = schema.journal, schema.settled_origins
    pending = connection.execute(select(table.c.sequence, table.c.origin).where(table.c.origin.is_not(None)))
    rows = connection.execute(select(settled.c.id, settled.c.known_until, settled.c.origins).order_by(settled.c.id))
    return (
        connection.scalar(select(func.max(table.c.sequence))) or 0,
        [(sequence, bytes(digest)) for sequence, digest in pending],
        [(settled_id, known_until, bytes(digests)) for settled_id, known_until, digests in rows],
    )
