"""Call records go when their time is over, although nobody looks at them."""

from __future__ import annotations

from pathlib import Path

from isthmus.config import CallSettings
from isthmus.model import Address
from isthmus.ports import CallRecord
from isthmus.services.calls.records import ERASE_SECONDS, CallRecords
from isthmus.store.sql_store import SqlStore
from tests.support.clock import FakeClock

ANA, BEN = Address("ana", "corp.test"), Address("ben", "people.test")


async def test_a_record_whose_time_is_over_is_erased_within_a_day(tmp_path: Path) -> None:
    clock = FakeClock()
    store = SqlStore(tmp_path / "data", wall=clock.wall, monotonic=clock.monotonic)
    await store.open()
    store.note_call(CallRecord("gone", ANA, BEN, 1.0, 2.0, 3.0), clock.wall() + 60)
    store.note_call(CallRecord("kept", ANA, BEN, 1.0, 2.0, 3.0), clock.wall() + 2 * ERASE_SECONDS)
    await CallRecords(store, clock, CallSettings()).erase_expired()
    assert [record.id for record in await store.calls()] == ["gone", "kept"]
    clock.advance(ERASE_SECONDS)
    for _ in range(2):  # the store works in order: the second answer comes after the erasing
        await store.audit()
    clock.jump_wall(-ERASE_SECONDS)  # as if it were not over: what is on the disk is shown
    assert [record.id for record in await store.calls()] == ["kept"]
    await store.close()
