"""Registrations that share a transaction, and what becomes of them when the database refuses one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from isthmus.errors import StoreError
from isthmus.model import Address
from isthmus.ports import Binding, Flow
from isthmus.store.sql_store import SqlStore

UNTIL = 4_000_000_000.0


def binding(local: str, contact: str = "sip:phone@192.0.2.1") -> Binding:
    return Binding(Address(local, "corp.test"), contact, "call", 1, UNTIL, Flow("udp", "192.0.2.1", 5060))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(tmp_path / "data")
    await store.open()
    yield store
    await store.close()


async def test_phones_that_register_together_share_one_commit(store: SqlStore) -> None:
    commits: list[Connection] = []

    def committed(connection: Connection) -> None:
        commits.append(connection)

    event.listen(Engine, "commit", committed)
    try:
        users = [f"u{number}" for number in range(100)]
        await asyncio.gather(*(store.save_bindings(Address(u, "corp.test"), [binding(u)]) for u in users))
    finally:
        event.remove(Engine, "commit", committed)
    assert len(commits) == 1
    assert len(await store.bindings()) == 100


async def test_two_changes_of_one_user_in_one_turn_happen_in_their_order(store: SqlStore) -> None:
    ana = Address("ana", "corp.test")
    await asyncio.gather(
        store.save_bindings(ana, [binding("ana", "sip:old@192.0.2.1"), binding("ana", "sip:older@192.0.2.1")]),
        store.save_bindings(ana, [binding("ana", "sip:new@192.0.2.1")]),
    )
    assert [item.contact for item in await store.bindings()] == ["sip:new@192.0.2.1"]


async def test_a_registration_that_cannot_be_written_refuses_nobody_else(store: SqlStore) -> None:
    outcomes = await asyncio.gather(
        store.save_bindings(Address("ana", "corp.test"), [binding("ana")]),
        store.save_bindings(Address("bad", "corp.test"), [binding("bad", "sip:\ud800@192.0.2.1")]),
        store.save_bindings(Address("eve", "corp.test"), [binding("eve")]),
        return_exceptions=True,
    )
    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [False, True, False]
    assert {item.address.local for item in await store.bindings()} == {"ana", "eve"}


async def test_whoever_gives_up_waiting_stops_nobody_else(store: SqlStore) -> None:
    given_up = asyncio.ensure_future(store.save_bindings(Address("ana", "corp.test"), [binding("ana")]))
    other = asyncio.ensure_future(store.save_bindings(Address("eve", "corp.test"), [binding("eve")]))
    await asyncio.sleep(0)
    given_up.cancel()
    await other
    assert "eve" in {item.address.local for item in await store.bindings()}
