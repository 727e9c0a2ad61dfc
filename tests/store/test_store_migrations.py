"""The schema on disk: made by migrations, equal to the metadata, refused when newer."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, insert

from isthmus.errors import StoreError
from isthmus.model import Address, User
from isthmus.ports import Photo
from isthmus.store import migrate as migrations
from isthmus.store.rows import user_row
from isthmus.store.schema import HEAD_REVISION, metadata, users
from isthmus.store.sql_store import SqlStore

ANA = User(Address("ana", "corp.test"), "Ana", {"SHA-256": "abc"}, groups=("sales",), created_at=1.5)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_migrations_end_in_the_schema_that_the_code_works_with(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    is_server = database == "postgresql"
    url = request.getfixturevalue("postgresql_url") if is_server else f"sqlite:///{tmp_path / 'new.db'}"
    engine = create_engine(url)
    with engine.begin() as connection:
        migrations.migrate(connection)
        assert migrations.current_revision(connection) == HEAD_REVISION
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_head_revision_is_the_last_migration() -> None:
    configuration = Config()
    configuration.set_main_option("script_location", str(migrations.MIGRATIONS))
    assert ScriptDirectory.from_config(configuration).get_heads() == [HEAD_REVISION]


async def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    for expected in (0, 1):
        store = SqlStore(tmp_path)
        await store.open()
        assert len(await store.users()) == expected
        await store.save_user(User(Address("ana", "corp.test")))
        await store.close()


@pytest.mark.parametrize("revision", ["0001", "0002"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_a_database_of_an_older_isthmus_is_brought_up_to_date_with_what_is_in_it(
    database: str, revision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgresql_url") if database == "postgresql" else ""
    engine = create_engine(url or f"sqlite:///{tmp_path / 'isthmus.db'}")
    with engine.begin() as connection:
        configuration = Config()
        configuration.set_main_option("script_location", str(migrations.MIGRATIONS))
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, revision)
        connection.execute(insert(users), dict(zip(users.columns.keys(), user_row(ANA), strict=True)))
    engine.dispose()
    store = SqlStore(tmp_path, url)
    await store.open()
    assert await store.users() == [ANA]
    photo = Photo(b"\xff\xd8\xff", "image/jpeg", "a1")
    await store.save_photo(ANA.address, photo)
    assert await store.photo(ANA.address) == photo
    await store.close()


async def test_the_schema_of_a_newer_isthmus_is_refused_with_the_remedy(tmp_path: Path) -> None:
    store = SqlStore(tmp_path)
    await store.open()
    await store.close()
    with sqlite3.connect(tmp_path / "isthmus.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match=r"schema 9999, .* start the newer Isthmus that made it"):
        await SqlStore(tmp_path).open()


async def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def migrate_and_fail(connection: Connection) -> None:
        migrations.migrate(connection)
        raise StoreError("power failure")

    with monkeypatch.context() as patch:
        patch.setattr("isthmus.store.sql_store.migrate", migrate_and_fail)
        with pytest.raises(StoreError, match="power failure"):
            await SqlStore(tmp_path).open()
    with sqlite3.connect(tmp_path / "isthmus.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    store = SqlStore(tmp_path)
    await store.open()
    await store.close()


async def test_commits_are_written_through_to_the_disk(tmp_path: Path) -> None:
    store = SqlStore(tmp_path)
    await store.open()

    def pragmas(connection: Connection) -> list[object]:
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]

    full = 2
    assert await store._writer.call(pragmas) == ["wal", full]
    await store.close()
