"""All that differs between SQLite and PostgreSQL. A session lives in the writer's thread and nowhere else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, pool
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL

from isthmus.errors import StoreError

Result = TypeVar("Result")
Insert = sqlite.Insert | postgresql.Insert

# Prepared statements kept by the SQLite driver: the hot path has one per number of rows (see row_statements).
CACHED_STATEMENTS = 512
# WAL pages before a checkpoint. Journal rows live shortly, so a checkpoint of 16 MiB writes few distinct pages; a
# smaller number would put its two extra fsyncs more often between a message and its acknowledgement.
WAL_PAGES = 4_000
# Any number, the same for every Isthmus: names our advisory lock in a PostgreSQL database.
ADVISORY_LOCK = 0x1574_4D05
# SQLSTATE of a lock that was not had in time (PostgreSQL manual, appendix A).
_LOCK_NOT_AVAILABLE = "55P03"


class Session:
    """One database connection, used by one thread.

    Both drivers are synchronous: in the writer's own thread an asynchronous one would only add a second event loop.
    """

    def __init__(self, url: URL, lock_wait_seconds: float) -> None:
        backend = url.get_backend_name()
        if backend not in _OPTIONS:
            raise StoreError(f"store_url names {backend!r}: only sqlite and postgresql are supported")
        try:
            self._engine: Engine = create_engine(url, poolclass=pool.NullPool, **_OPTIONS[backend](lock_wait_seconds))
        except ModuleNotFoundError as error:
            raise StoreError(f"store_url needs the Python package {error.name}: install it") from error
        if backend == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            event.listen(self._engine, "connect", _claim_postgresql)
        try:
            self._connection = self._engine.connect()
        except BaseException:
            self._engine.dispose()
            raise

    def run(self, work: Callable[[Connection], Result]) -> Result:
        """Call `work` in a transaction of its own and return its result once that is committed."""
        with self._connection.begin():
            return work(self._connection)

    def run_statement(self, work: Callable[[Connection], None]) -> None:
        """As `run`, for work that is one `run_compiled`: the busiest kind, the journal's.

        For SQLite one statement is a transaction by itself, so BEGIN and COMMIT (and waiting twice more for the
        interpreter lock, and SQLAlchemy's bookkeeping) are saved.
        """
        if self._engine.dialect.name == "sqlite":
            work(self._connection)
        else:
            self.run(work)

    def close(self) -> None:
        """Close the connection. SQLite then empties the WAL into the database, PostgreSQL drops our claim."""
        self._connection.close()
        self._engine.dispose()


def _sqlite_options(lock_wait_seconds: float) -> dict[str, Any]:
    return {
        "connect_args": {
            "timeout": lock_wait_seconds,
            "isolation_level": None,  # we begin and commit ourselves: the driver's own rules break DDL and reads
            "cached_statements": CACHED_STATEMENTS,
        }
    }


def _postgresql_options(lock_wait_seconds: float) -> dict[str, Any]:
    return {
        "paramstyle": "format",  # by position, as `run_compiled` wants
        "connect_args": {
            # Milliseconds; 0 would be for ever.
            "options": f"-c lock_timeout={max(1, int(lock_wait_seconds * 1000))} -c synchronous_commit=on",
        },
    }


_OPTIONS = {"sqlite": _sqlite_options, "postgresql": _postgresql_options}


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL, not NORMAL: in WAL mode NORMAL may lose the last commits at a power failure, and we acknowledged them.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock here, where waiting for another process is allowed; a deferred transaction
    # could only fail in the middle. The driver's connection, because SQLAlchemy's way costs 20 us more.
    _driver_connection(connection).execute("BEGIN IMMEDIATE")


def _claim_postgresql(connection: Any, _record: object) -> None:
    # On every (re)connection: PostgreSQL ends the claim with the connection that made it.
    # Waits as for any lock: a server notices a little later that a connection has gone, and a restart is quick.
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
        connection.commit()
    except Exception as error:
        if getattr(error, "sqlstate", "") != _LOCK_NOT_AVAILABLE:
            raise
        raise StoreError("another Isthmus uses this PostgreSQL database: stop it, or set another store_url") from error


def check_integrity(connection: Connection) -> None:
    """Look for damage in the file.

    Raises:
        StoreError: SQLite found some.
    """
    if connection.dialect.name == "sqlite":
        finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if finding != "ok":
            path, finding = connection.engine.url.database, " ".join(str(finding).split())
            raise StoreError(f"database {path} is damaged ({finding}): restore it from a backup")


def insert_into(dialect_name: str, table: Table) -> Insert:
    """Return an INSERT of `table` that knows ON CONFLICT."""
    return sqlite.insert(table) if dialect_name == "sqlite" else postgresql.insert(table)


def run_compiled(connection: Connection, statement: str, parameters: tuple[Any, ...]) -> None:
    """Run a statement compiled for this dialect, by the shortest way the driver has."""
    if connection.dialect.name == "sqlite":
        _driver_connection(connection).execute(statement, parameters)
    else:
        connection.exec_driver_sql(statement, parameters)


def _driver_connection(connection: Connection) -> sqlite3.Connection:
    driver_connection = connection.connection.driver_connection
    assert isinstance(driver_connection, sqlite3.Connection)
    return driver_connection
