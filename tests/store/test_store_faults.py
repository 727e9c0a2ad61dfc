"""Trouble with disk, locks and files: a clear error, nothing acknowledged that is not kept, and recovery."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection
from structlog.testing import capture_logs

from isthmus.errors import StoreError
from isthmus.model import Address, Authorisation, AuthorisationState, Message, User
from isthmus.ports import JournalEntry
from isthmus.store.faults import DatabaseLockedError
from isthmus.store.sql_store import SqlStore

ANA = Address("ana", "corp.test")
BEN = Address("ben", "people.test")
NOBODY = 65534


def entry(text: str = "hello", origin_key: str = "") -> JournalEntry:
    return JournalEntry(Message(id="m1", sender=ANA, recipient=BEN, text=text), 1_900_000_000.0, origin_key)


@asynccontextmanager
async def opened(directory: Path, lock_wait_seconds: float = 0.05) -> AsyncIterator[SqlStore]:
    store = SqlStore(directory, lock_wait_seconds=lock_wait_seconds)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def limit_pages(store: SqlStore, spare: int) -> None:
    """Let SQLite behave as on a disk with `spare` pages left."""

    def limit(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        assert isinstance(pages, int)
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + spare}")

    await store._writer.call(limit)


async def fill(store: SqlStore) -> list[int]:
    """Append until the store refuses; return what it took."""
    taken: list[int] = []

    async def append_on() -> None:
        while len(taken) < 1000:
            taken.append(await store.journal.append(entry("x" * 3000)))

    with pytest.raises(StoreError, match="disk is full"):
        await append_on()
    return taken


# --- disk full ---


async def test_on_a_full_disk_an_append_fails_and_what_was_taken_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await limit_pages(store, spare=10)
        taken = await fill(store)
        assert taken
        assert [item.sequence for item in await store.journal.pending()] == taken
        with pytest.raises(StoreError, match="free some space"):
            await store.save_user(User(ANA, "x" * 100_000))
    async with opened(tmp_path) as store:
        assert [item.sequence for item in await store.journal.pending()] == taken


async def test_the_administrator_is_told_once_that_nothing_can_be_kept_and_once_that_it_can(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with capture_logs() as lines:
            assert store.trouble == ""
            await limit_pages(store, spare=0)
            for _ in range(3):
                with pytest.raises(StoreError):
                    await store.journal.append(entry("x" * 9000))
            assert "free some space" in store.trouble
            await limit_pages(store, spare=100)
            await store.journal.append(entry("x" * 9000))
            assert store.trouble == ""
    told = [line["event"] for line in lines if line["log_level"] == "error"]
    assert told == ["the store cannot be written: what must be kept is refused"]
    assert [line["event"] for line in lines if line["log_level"] == "info"] == ["the store can be written again"]


async def test_an_append_refused_by_a_full_disk_may_be_sent_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await limit_pages(store, spare=0)
        results = await asyncio.gather(
            *(store.journal.append(entry("x" * 9000, "key")) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [StoreError] * 3
        await limit_pages(store, spare=100)
        assert await store.journal.append(entry("x" * 9000, "key")) > 0


async def test_settling_on_a_full_disk_makes_room_for_new_messages(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await limit_pages(store, spare=10)
        taken = await fill(store)
        for sequence in taken:
            store.journal.settle(sequence)
        # The settles join the commit of an append that may fail, and must succeed without it.
        await asyncio.gather(
            *(store.journal.append(entry("x" * 3000)) for _ in range(len(taken) * 2)), return_exceptions=True
        )
        await store.journal.flush()
        assert {item.sequence for item in await store.journal.pending()}.isdisjoint(taken)
        assert await store.journal.append(entry("x" * 3000)) > 0


async def test_notes_wait_for_a_full_disk_to_recover(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await limit_pages(store, spare=0)
        people = [Address(f"u{number}", "corp.test") for number in range(300)]
        for person in people:
            store.note_crossing(person, BEN, "text", 1.0)
        with capture_logs() as logs, pytest.raises(StoreError, match="disk is full"):
            await store.crossings(people[0], BEN)
        assert any("could not be written" in line["event"] for line in logs)
        for person in people:
            store.note_crossing(person, BEN, "text", 2.0)
        await limit_pages(store, spare=100)
        assert [(await store.crossings(person, BEN))[0].delivered for person in people] == [2] * 300


async def test_what_cannot_be_written_at_the_end_is_logged(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await limit_pages(store, spare=0)
        for number in range(300):
            store.note_crossing(Address(f"u{number}", "corp.test"), BEN, "text", 1.0)
        with capture_logs() as logs:
            await store.close()
    assert "not everything could be written" in logs[-1]["event"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte; only root may make one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


async def test_a_really_full_disk_refuses_messages_until_there_is_space_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(64 * 1024))
    with capture_logs():
        async with opened(small_disk / "data") as store:
            taken = await fill(store)
            ballast.unlink()
            taken.append(await store.journal.append(entry("x" * 3000)))
            assert [item.sequence for item in await store.journal.pending()] == taken


async def test_no_space_at_the_start_is_a_clear_error(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(1024 * 1024))
    with pytest.raises(StoreError, match=r"disk|No space"):
        await SqlStore(small_disk / "data").open()


# --- locks ---

_HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@contextmanager
def another_program_locks(database: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD_LOCK, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.communicate("\n")


async def test_a_lock_of_another_program_is_an_error_that_names_it_and_passes(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with another_program_locks(tmp_path / "isthmus.db") as process:
            with pytest.raises(
                DatabaseLockedError, match=rf"isthmus\.db is locked by process {process.pid} \("
            ) as caught:
                await store.journal.append(entry(origin_key="key"))
            assert caught.value.exit_code == 75
        assert await store.journal.append(entry(origin_key="key")) > 0


async def test_a_short_lock_of_another_program_only_delays(tmp_path: Path) -> None:
    async with opened(tmp_path, lock_wait_seconds=30.0) as store:
        with another_program_locks(tmp_path / "isthmus.db"):
            append = asyncio.ensure_future(store.journal.append(entry()))
            await asyncio.sleep(0)  # the append is on its way, the loop is free
            assert not append.done()
        assert await append > 0


async def test_a_lock_of_another_program_at_the_start_is_a_clear_error(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with another_program_locks(tmp_path / "isthmus.db"), pytest.raises(DatabaseLockedError, match="end that program"):
        await SqlStore(tmp_path, lock_wait_seconds=0.05).open()
    async with opened(tmp_path):
        pass


async def test_a_second_isthmus_on_the_same_data_directory_is_refused_by_name(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(StoreError, match=rf"is in use by process {os.getpid()} \(.*another data directory"):
            await SqlStore(tmp_path).open()
        await store.save_user(User(ANA))
    async with opened(tmp_path) as store:
        assert len(await store.users()) == 1


# --- files ---


async def test_files_belong_to_the_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "data"
    async with opened(directory) as store:
        await store.journal.append(entry())
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}
    assert modes == dict.fromkeys(("isthmus.db", "isthmus.db-wal", "isthmus.db-shm", "isthmus.lock"), 0o600)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@contextmanager
def without_rights() -> Iterator[None]:
    """Root may write everywhere, so be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def readable_directory() -> Iterator[Path]:
    """A directory that others may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)
        os.chmod(name, 0o755)


async def test_a_read_only_directory_is_a_clear_error(readable_directory: Path) -> None:
    os.chmod(readable_directory, 0o555)
    for directory in (readable_directory, readable_directory / "data"):
        with without_rights(), pytest.raises(StoreError, match=r"cannot be written .*check owner, mode and mount"):
            await SqlStore(directory).open()


async def test_a_database_of_another_owner_is_a_clear_error(readable_directory: Path) -> None:
    async with opened(readable_directory):
        pass
    (readable_directory / "isthmus.lock").unlink()
    os.chmod(readable_directory, 0o777)
    (readable_directory / "isthmus.db").chmod(0o444)
    with without_rights(), pytest.raises(StoreError, match="check owner, mode"):
        await SqlStore(readable_directory).open()


async def test_a_path_below_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        await SqlStore(tmp_path / "file" / "data").open()


@pytest.mark.parametrize("garbage", [b"this is not a database" * 500, b""])
async def test_a_file_that_is_no_database_is_refused_unless_empty(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "isthmus.db").write_bytes(garbage)
    if not garbage:
        async with opened(tmp_path):
            return
    with pytest.raises(StoreError, match="restore it from a backup"):
        await SqlStore(tmp_path).open()


async def test_a_damaged_database_is_refused_with_the_remedy(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(300):
            await store.save_authorisation(
                Authorisation(Address(f"u{number}", "corp.test"), BEN, AuthorisationState.ACTIVE, 1.0, note="n" * 200)
            )
    database = tmp_path / "isthmus.db"
    content = bytearray(database.read_bytes())
    content[20_000:40_000] = os.urandom(20_000)
    database.write_bytes(content)
    with pytest.raises(StoreError, match=r"isthmus\.db.*damaged.*restore it from a backup"):
        await SqlStore(tmp_path).open()


async def test_a_journal_entry_of_a_newer_format_is_a_clear_error(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.journal.append(entry())
    with sqlite3.connect(tmp_path / "isthmus.db") as connection:
        connection.execute("UPDATE journal SET payload = CAST(x'02' || substr(payload, 2) AS BLOB)")
    connection.close()
    async with opened(tmp_path) as store:
        with pytest.raises(StoreError, match=r"has format 2, .* start the newer Isthmus"):
            await store.journal.pending()


async def test_an_unknown_or_broken_store_url_is_a_clear_error(tmp_path: Path) -> None:
    for url, text in (
        ("mysql://localhost/x", "only sqlite and postgresql"),
        ("not a url:secret", "not a database URL"),
        ("sqlite://", "nothing would survive"),
        ("postgresql+nodriver://localhost/x", "nodriver"),
    ):
        with pytest.raises(StoreError, match=text) as caught:
            await SqlStore(tmp_path, url).open()
        assert "secret" not in str(caught.value)


async def test_a_store_that_is_not_open_refuses(tmp_path: Path) -> None:
    store = SqlStore(tmp_path)
    with pytest.raises(StoreError, match="is not open"):
        await store.users()
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="is not open"):
        await store.journal.append(entry())
