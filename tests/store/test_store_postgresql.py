"""What is special about PostgreSQL: who owns the database, and connections that end."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine

from isthmus.errors import StoreError
from isthmus.model import Address, User
from isthmus.store.sql_store import SqlStore

ANA = User(Address("ana", "corp.test"))


async def test_a_database_that_another_isthmus_uses_is_refused_with_the_remedy(
    postgresql_url: str, tmp_path: Path
) -> None:
    """The lock of the data directory cannot help: the other one runs on another machine."""
    first = SqlStore(tmp_path / "one", postgresql_url)
    second = SqlStore(tmp_path / "two", postgresql_url, lock_wait_seconds=0.05)
    await first.open()
    with pytest.raises(StoreError, match=r"another Isthmus uses this PostgreSQL database: stop it"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_a_connection_that_the_server_ended_is_made_anew(postgresql_url: str, tmp_path: Path) -> None:
    store = SqlStore(tmp_path, postgresql_url)
    await store.open()
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    engine.dispose()
    with pytest.raises(StoreError, match="terminating connection"):
        await store.save_user(ANA)
    await store.save_user(ANA)
    assert await store.users() == [ANA]
    await store.close()
