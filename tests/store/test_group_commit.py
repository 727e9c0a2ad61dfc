"""Who shares a commit, what a failed one does to the others, and callers that give up."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, Engine

from isthmus.errors import StoreError
from isthmus.model import Address, Message
from isthmus.ports import JournalEntry
from isthmus.store import journal as journal_module
from isthmus.store.dialects import Session
from isthmus.store.sql_store import SqlStore
from isthmus.store.writer import Writer

ANA = Address("ana", "corp.test")
BEN = Address("ben", "people.test")


def entry(origin_key: str = "", text: str = "hello") -> JournalEntry:
    return JournalEntry(Message(id="m1", sender=ANA, recipient=BEN, text=text), 1_900_000_000.0, origin_key)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(tmp_path / "data")
    await store.open()
    yield store
    await store.close()


@contextmanager
def listening_to_commits(listener: Callable[[Connection], None]) -> Iterator[None]:
    """Call `listener` in the writer's thread at every commit."""
    run_statement = Session.run_statement

    def noted(session: Session, work: Callable[[Connection], None]) -> None:
        run_statement(session, work)
        listener(session._connection)

    event.listen(Engine, "commit", listener)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "run_statement", noted)
        yield
    event.remove(Engine, "commit", listener)


@contextmanager
def counted_commits() -> Iterator[list[Connection]]:
    """Collect one item per commit."""
    commits: list[Connection] = []
    with listening_to_commits(commits.append):
        yield commits


@contextmanager
def next_commit() -> Iterator[asyncio.Event]:
    """An event that the next commit sets."""
    happened = asyncio.Event()
    loop = asyncio.get_running_loop()
    with listening_to_commits(lambda connection: _ignore(loop.call_soon_threadsafe(happened.set))):
        yield happened


def _ignore(_handle: asyncio.Handle) -> None:
    return


class Gate:
    """Keeps the writer's thread busy until opened, as a slow disk does."""

    def __init__(self, store: SqlStore) -> None:
        self._entered = asyncio.Event()
        self._opened = threading.Event()
        loop = asyncio.get_running_loop()

        def wait(_connection: Connection) -> None:
            loop.call_soon_threadsafe(self._entered.set)
            assert self._opened.wait(10)

        self._task = asyncio.ensure_future(store._writer.call(wait))

    async def entered(self) -> None:
        await self._entered.wait()

    async def open(self) -> None:
        self._opened.set()
        await self._task


async def test_appends_of_one_turn_share_a_commit(store: SqlStore) -> None:
    with counted_commits() as commits:
        await asyncio.gather(*(store.journal.append(entry()) for _ in range(32)))
    assert len(commits) == 1


async def test_appends_and_settles_that_arrive_while_a_commit_runs_share_the_next(store: SqlStore) -> None:
    first = await store.journal.append(entry())
    gate = Gate(store)
    await gate.entered()
    appends = []
    for _ in range(10):
        appends.append(asyncio.ensure_future(store.journal.append(entry())))
        await asyncio.sleep(0)
    store.journal.settle(first)
    with counted_commits() as commits:
        await gate.open()
        await asyncio.gather(*appends)
    assert len(commits) == 2  # the gate's own, and one for all
    assert len(await store.journal.pending()) == 10


async def test_the_event_loop_is_free_while_the_disk_is_slow(store: SqlStore) -> None:
    gate = Gate(store)
    append = asyncio.ensure_future(store.journal.append(entry()))
    await gate.entered()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not append.done()
    await gate.open()
    assert await append > 0


async def test_a_settle_alone_is_committed_soon(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SETTLE_DELAY_SECONDS", 0.001)
    sequence = await store.journal.append(entry())
    with next_commit() as committed:
        store.journal.settle(sequence)
        async with asyncio.timeout(10):
            await committed.wait()


async def test_an_append_given_up_before_its_commit_leaves_no_trace(store: SqlStore) -> None:
    gate = Gate(store)
    await gate.entered()
    append = asyncio.ensure_future(store.journal.append(entry("key")))
    await asyncio.sleep(0)
    append.cancel()
    await gate.open()
    await asyncio.gather(append, return_exceptions=True)
    assert await store.journal.pending() == []
    assert await store.journal.append(entry("key")) > 0


async def test_a_repeat_takes_over_when_the_first_append_is_given_up(store: SqlStore) -> None:
    gate = Gate(store)
    await gate.entered()
    first = asyncio.ensure_future(store.journal.append(entry("key")))
    repeats = [asyncio.ensure_future(store.journal.append(entry("key"))) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    await gate.open()
    sequences = await asyncio.gather(*repeats)
    assert sequences[0] > 0
    assert sequences[1] == 0
    assert [item.sequence for item in await store.journal.pending()] == [sequences[0]]


async def test_too_many_waiting_appends_are_refused_at_once(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MAXIMUM_WAITING_APPENDS", 3)
    gate = Gate(store)
    await gate.entered()
    appends = [asyncio.ensure_future(store.journal.append(entry())) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="too slow or hangs"):
        await store.journal.append(entry())
    await gate.open()
    assert all(await asyncio.gather(*appends))
    assert await store.journal.append(entry()) > 0


async def test_bad_work_fails_alone_and_not_its_neighbours_in_the_commit(store: SqlStore) -> None:
    outcomes = await asyncio.gather(
        store.journal.append(entry()),
        store._writer.call(lambda connection: connection.execute(text("SELECT * FROM missing"))),
        store.save_block(ANA, BEN),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], StoreError)
    assert len(await store.journal.pending()) == 1
    assert await store.blocks() == [(ANA, BEN)]


async def test_notes_are_written_within_a_second(store: SqlStore) -> None:
    with next_commit() as written:
        store.note_crossing(ANA, BEN, "text", 1.0)
        async with asyncio.timeout(1.0):
            await written.wait()


async def test_the_interpreter_lock_interval_is_given_back(tmp_path: Path) -> None:
    before = sys.getswitchinterval()
    writer = Writer(URL.create("sqlite", database=str(tmp_path / "x.db")), "x.db", 0.1)
    await writer.open(lambda connection: None)
    assert sys.getswitchinterval() < before
    await writer.close()
    assert sys.getswitchinterval() == before


def test_acknowledgements_flow_while_the_event_loop_is_always_busy(tmp_path: Path) -> None:
    """An event loop that never sleeps must not starve the writer's thread of the interpreter lock (uvloop did)."""
    is_over = False

    async def spin() -> None:
        while not is_over:
            turn_ends_at = time.perf_counter() + 0.000_2
            while time.perf_counter() < turn_ends_at:
                pass
            await asyncio.sleep(0)

    async def append_beside() -> None:
        nonlocal is_over
        store = SqlStore(tmp_path)
        await store.open()
        spinning = asyncio.ensure_future(spin())
        async with asyncio.timeout(10):
            for _ in range(20):
                await asyncio.gather(*(store.journal.append(entry()) for _ in range(8)))
        is_over = True
        await spinning
        await store.close()

    uvloop.run(append_beside())
