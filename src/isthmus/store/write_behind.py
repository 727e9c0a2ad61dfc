"""Soft state, kept in memory for up to half a second and then written in slices; a crash may lose the last ones."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from sqlalchemy import ColumnElement, Connection, Table, case, literal_column

from isthmus.errors import StoreError
from isthmus.model import Address
from isthmus.ports import Publication, SubscriptionRecord
from isthmus.store import schema
from isthmus.store.call_rows import CallToKeep, call_row, live_call_row
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


class LatestNotes:
    """What waits for one table: of several notes about a row the last one wins; None means that the row is gone."""

    def __init__(self, table: Table, row: Callable[[Any], Row], key_row: Callable[[Any], Row]) -> None:
        self._save = replace_rows(table)
        self._delete = delete_rows(table)
        self._row = row
        self._key_row = key_row
        self.waiting: dict[Hashable, Any] = {}

    def write(self, connection: Connection, notes: dict[Hashable, Any]) -> None:
        """Write a slice of the notes."""
        self._delete.run(connection, [self._key_row(key) for key, kept in notes.items() if kept is None])
        self._save.run(connection, [self._row(kept) for kept in notes.values() if kept is not None])


def _plain_key(key: str) -> Row:
    return (key,)


def _publication_key(key: tuple[Address, str]) -> Row:
    return (str(key[0]), key[1])


_ADD_CROSSINGS = insert_rows(schema.crossings, _add_totals)


class WriteBehind:
    """Collects notes; the last one about a row wins, crossings add up."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._timer: asyncio.TimerHandle | None = None
        self._is_writing = False
        self._publications = LatestNotes(schema.publications, publication_row, _publication_key)
        self._subscriptions = LatestNotes(schema.subscriptions, subscription_row, _plain_key)
        self._calls = LatestNotes(schema.calls, call_row, _plain_key)
        self._live_calls = LatestNotes(schema.live_calls, live_call_row, _plain_key)
        self.latest = (self._publications, self._subscriptions, self._calls, self._live_calls)
        self.crossings: dict[CrossingKey, Totals] = {}

    @property
    def _has_notes(self) -> bool:
        return bool(self.crossings) or any(notes.waiting for notes in self.latest)

    def note_publication(self, address: Address, etag: str, publication: Publication | None) -> None:
        """Write a publication, or that it is gone."""
        self._publications.waiting[address, etag] = publication
        self._arm()

    def note_subscription(self, key: str, record: SubscriptionRecord | None) -> None:
        """Write a subscription, or that it is gone."""
        self._subscriptions.waiting[key] = record
        self._arm()

    def note_call(self, call: CallToKeep) -> None:
        """Write the record of a call that is over."""
        self._calls.waiting[call.record.id] = call
        self._arm()

    def note_live_call(self, call_id: str, state: Mapping[str, Any] | None) -> None:
        """Write what is needed of a live call, or that it is over."""
        self._live_calls.waiting[call_id] = None if state is None else (call_id, state)
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
        waiting = self._publications.waiting
        for key in [key for key in waiting if isinstance(key, tuple) and key[0] == address]:
            del waiting[key]

    async def flush(self) -> None:
        """Write everything noted so far.

        Raises:
            StoreError: the database refuses; the notes are kept and tried again later.
        """
        while self._has_notes or self._is_writing:
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
        if not self._is_writing and self._has_notes:
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
        if self._has_notes:
            self._arm(0.0)

    def slice_failed(self, piece: _Slice, error: StoreError) -> None:
        """Put the notes back, below what has been noted since."""
        _log.warning("soft state could not be written, trying again", reason=str(error), seconds=RETRY_SECONDS)
        self._is_writing = False
        for notes, taken in zip(self.latest, piece.latest, strict=True):
            notes.waiting = {**taken, **notes.waiting}
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
        self.latest: list[dict[Hashable, Any]] = []
        self.crossings: dict[CrossingKey, Totals] = {}

    @property
    def is_one_statement(self) -> bool:
        """Never mind: it is seldom."""
        return False

    def begin(self) -> None:
        """Take the oldest notes."""
        self.latest = [_take(notes.waiting) for notes in self._owner.latest]
        self.crossings = _take(self._owner.crossings)

    def run(self, connection: Connection) -> None:
        """Write them."""
        for notes, taken in zip(self._owner.latest, self.latest, strict=True):
            notes.write(connection, taken)
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
