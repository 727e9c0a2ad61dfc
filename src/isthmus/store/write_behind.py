"""Soft state, kept in memory for up to half a second and then written in slices; a crash may lose the last ones."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TypeVar

import structlog
from sqlalchemy import ColumnElement, Connection, case, literal_column

from isthmus.errors import StoreError
from isthmus.model import Address
from isthmus.ports import Publication, SubscriptionRecord
from isthmus.store import schema
from isthmus.store.dialects import Insert
from isthmus.store.row_statements import Row, delete_rows, insert_rows, replace_rows
from isthmus.store.rows import publication_row, subscription_row
from isthmus.store.writer import Writer

# Seconds between the first note and its write.
DELAY_SECONDS = 0.5
# Seconds before another attempt when the database refused.
RETRY_SECONDS = 5.0
# Notes of each kind in one transaction: a message must not wait long for statistics in front of it.
SLICE_ROWS = 256
# Pairs of people whose totals may wait while the database refuses; further pairs are not counted until it recovers.
MAXIMUM_CROSSINGS = 100_000

Key = TypeVar("Key")
Value = TypeVar("Value")
CrossingKey = tuple[Address, Address, str]

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Totals:
    """What happened between two people since the last write."""

    delivered: int = 0
    failed: int = 0
    last_at: float = 0.0
    last_failure_at: float = 0.0
    last_failure: str = ""

    def add(self, newer: Totals) -> None:
        """Count `newer` in."""
        self.delivered += newer.delivered
        self.failed += newer.failed
        self.last_at = max(self.last_at, newer.last_at)
        if newer.failed:
            self.last_failure_at = newer.last_failure_at
            self.last_failure = newer.last_failure


def _add_totals(insert: Insert) -> Insert:
    old, new = schema.crossings.c, insert.excluded

    def later(name: str, than: str) -> ColumnElement[object]:
        return case((new[than] > old[than], new[name]), else_=old[name])

    return insert.on_conflict_do_update(
        index_elements=[old.sender, old.recipient, old.kind],
        set_={
            "delivered": old.delivered + new.delivered,
            "failed": old.failed + new.failed,
            "last_at": later("last_at", "last_at"),
            "last_failure_at": later("last_failure_at", "last_failure_at"),
            "last_failure": case((new.failed > literal_column("0"), new.last_failure), else_=old.last_failure),
        },
    )


_SAVE_PUBLICATIONS = replace_rows(schema.publications)
_DELETE_PUBLICATIONS = delete_rows(schema.publications)
_SAVE_SUBSCRIPTIONS = replace_rows(schema.subscriptions)
_DELETE_SUBSCRIPTIONS = delete_rows(schema.subscriptions)
_ADD_CROSSINGS = insert_rows(schema.crossings, _add_totals)


class WriteBehind:
    """Collects notes; the last one about a publication or subscription wins, crossings add up."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._timer: asyncio.TimerHandle | None = None
        self._is_writing = False
        # None: gone.
        self.publications: dict[tuple[Address, str], Publication | None] = {}
        self.subscriptions: dict[str, SubscriptionRecord | None] = {}
        self.crossings: dict[CrossingKey, Totals] = {}

    def note_publication(self, address: Address, etag: str, publication: Publication | None) -> None:
        """Write a publication, or that it is gone."""
        self.publications[address, etag] = publication
        self._arm()

    def note_subscription(self, key: str, record: SubscriptionRecord | None) -> None:
        """Write a subscription, or that it is gone."""
        self.subscriptions[key] = record
        self._arm()

    def note_crossing(self, key: CrossingKey, at: float, failure: str | None) -> None:
        """Count one crossing, or one failure with its text."""
        totals = self.crossings.get(key)
        if totals is None:
            if len(self.crossings) >= MAXIMUM_CROSSINGS:
                return
            totals = self.crossings[key] = Totals()
            self._arm()
        if failure is None:
            totals.delivered += 1
            totals.last_at = at
        else:
            totals.failed += 1
            totals.last_failure_at = at
            totals.last_failure = failure

    def forget_publications(self, address: Address) -> None:
        """Drop what waits about a user who is being deleted."""
        for key in [key for key in self.publications if key[0] == address]:
            del self.publications[key]

    async def flush(self) -> None:
        """Write everything noted so far.

        Raises:
            StoreError: the database refuses; the notes are kept and tried again later.
        """
        while self.publications or self.subscriptions or self.crossings or self._is_writing:
            if self._is_writing:
                # Behind the slice under way; its successor is submitted when it has finished.
                await self._writer.call(lambda connection: None)
                continue
            await self._submit_slice()

    def stop(self) -> None:
        """Cancel the timer; the writer is about to close."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float = DELAY_SECONDS) -> None:
        if self._timer is None and not self._is_writing:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if not self._is_writing and (self.publications or self.subscriptions or self.crossings):
            # A failure is handled in `slice_failed`; nobody waits for this outcome.
            self._submit_slice().add_done_callback(lambda written: written.exception())

    def _submit_slice(self) -> asyncio.Future[None]:
        self.stop()
        piece = _Slice(self, asyncio.get_running_loop().create_future())
        self._writer.submit(piece)
        self._is_writing = True
        return piece.written

    def slice_done(self) -> None:
        """Go on with the next slice, if more waits."""
        self._is_writing = False
        if self.publications or self.subscriptions or self.crossings:
            self._arm(0.0)

    def slice_failed(self, piece: _Slice, error: StoreError) -> None:
        """Put the notes back, below what has been noted since."""
        _log.warning("soft state could not be written, trying again", reason=str(error), seconds=RETRY_SECONDS)
        self._is_writing = False
        self.publications = {**piece.publications, **self.publications}
        self.subscriptions = {**piece.subscriptions, **self.subscriptions}
        for key, totals in piece.crossings.items():
            newer = self.crossings.get(key)
            if newer is not None:
                totals.add(newer)
            self.crossings[key] = totals
        self._arm(RETRY_SECONDS)


class _Slice:
    """`writer.Work`: a bounded number of notes."""

    def __init__(self, owner: WriteBehind, written: asyncio.Future[None]) -> None:
        self._owner = owner
        self.written = written
        self.publications: dict[tuple[Address, str], Publication | None] = {}
        self.subscriptions: dict[str, SubscriptionRecord | None] = {}
        self.crossings: dict[CrossingKey, Totals] = {}

    @property
    def is_one_statement(self) -> bool:
        """Never mind: it is seldom."""
        return False

    def begin(self) -> None:
        """Take the oldest notes."""
        self.publications = _take(self._owner.publications)
        self.subscriptions = _take(self._owner.subscriptions)
        self.crossings = _take(self._owner.crossings)

    def run(self, connection: Connection) -> None:
        """Write them."""
        gone = [(str(address), etag) for (address, etag), kept in self.publications.items() if kept is None]
        _DELETE_PUBLICATIONS.run(connection, gone)
        _SAVE_PUBLICATIONS.run(connection, [publication_row(kept) for kept in self.publications.values() if kept])
        _DELETE_SUBSCRIPTIONS.run(connection, [(key,) for key, kept in self.subscriptions.items() if kept is None])
        _SAVE_SUBSCRIPTIONS.run(connection, [subscription_row(kept) for kept in self.subscriptions.values() if kept])
        _ADD_CROSSINGS.run(connection, [_crossing_row(key, totals) for key, totals in self.crossings.items()])

    def finish(self, error: StoreError | None) -> None:
        """Tell the owner, and whoever flushes."""
        if error is not None:
            self._owner.slice_failed(self, error)
            if not self.written.done():
                self.written.set_exception(error)
        else:
            self._owner.slice_done()
            if not self.written.done():
                self.written.set_result(None)


def _take(notes: dict[Key, Value]) -> dict[Key, Value]:
    keys = list(itertools.islice(notes, SLICE_ROWS))
    return {key: notes.pop(key) for key in keys}


def _crossing_row(key: CrossingKey, totals: Totals) -> Row:
    sender, recipient, kind = key
    return (
        str(sender),
        str(recipient),
        kind,
        totals.delivered,
        totals.failed,
        totals.last_at,
        totals.last_failure_at,
        totals.last_failure,
    )
