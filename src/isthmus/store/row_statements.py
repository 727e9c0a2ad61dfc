"""Statements over many rows at once, compiled from the Core schema once per number of rows.

Why not `executemany`: each row is then a statement of its own, for which the driver gives up and takes back the
interpreter lock several times. With a busy event loop in the other thread every such hand-over can wait, and a group
commit of 32 messages waits a hundred times. One statement for all rows waits twice, and skips SQLAlchemy's
per-execution work (measured: 12,000 instead of 6,500 appends a second beside a busy loop).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from sqlalchemy import Column, Connection, Dialect, Table, and_, bindparam, delete, or_
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement, ColumnElement

from isthmus.store.dialects import Insert, insert_into, run_compiled

# Rows in one statement: enough for the messages in flight, and far from the parameter limits of both databases.
MAXIMUM_ROWS = 64

Row = tuple[Any, ...]
# Given the INSERT for any number of rows, add ON CONFLICT to it.
Conflict = Callable[[Insert], Insert]


class RowStatement:
    """One kind of statement, for any number of rows. `run` takes rows as tuples in the order of the columns."""

    def __init__(self, build: Callable[[Dialect, int], ClauseElement]) -> None:
        self._build = build
        self._compiled: dict[tuple[str, int], str] = {}  # by dialect and number of rows

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Run it for all `rows`, in as few statements as allowed."""
        for start in range(0, len(rows), MAXIMUM_ROWS):
            chunk = rows[start : start + MAXIMUM_ROWS]
            key = connection.dialect.name, len(chunk)
            statement = self._compiled.get(key)
            if statement is None:
                statement = self._compiled[key] = self._compile(connection.dialect, len(chunk))
            run_compiled(connection, statement, tuple([value for row in chunk for value in row]))

    def _compile(self, dialect: Dialect, count: int) -> str:
        compiled = cast(SQLCompiler, self._build(dialect, count).compile(dialect=dialect))
        # `run` hands values over by position only.
        names = compiled.positiontup or []
        assert names == sorted(names), "parameters are not in the order of the rows' values"
        assert len(names) % count == 0, "there are other parameters than the rows' values"
        return str(compiled)


def insert_rows(table: Table, conflict: Conflict | None = None) -> RowStatement:
    """Insert whole rows of `table`, by all of its columns; `conflict` says what to do with those that exist."""

    def build(dialect: Dialect, count: int) -> ClauseElement:
        names = _parameter_names(count, len(table.columns))
        columns = table.columns.keys()
        rows: list[dict[str, Any]] = [
            {column: bindparam(name) for column, name in zip(columns, row, strict=True)} for row in names
        ]
        insert = insert_into(dialect.name, table).values(rows)
        return conflict(insert) if conflict else insert

    return RowStatement(build)


def replace_rows(table: Table) -> RowStatement:
    """Insert whole rows of `table`, replacing those with the same primary key."""
    keys = list(table.primary_key.columns)
    others = [column for column in table.columns if not column.primary_key]

    def replace(insert: Insert) -> Insert:
        if not others:
            return insert.on_conflict_do_nothing(index_elements=keys)
        return insert.on_conflict_do_update(
            index_elements=keys, set_={column.name: insert.excluded[column.name] for column in others}
        )

    return insert_rows(table, replace)


def delete_rows(table: Table, *columns: Column[Any]) -> RowStatement:
    """Delete rows of `table` by the values of `columns`, or by primary key."""
    keys: list[ColumnElement[Any]] = list(columns or table.primary_key.columns)

    def build(_dialect: Dialect, count: int) -> ClauseElement:
        names = _parameter_names(count, len(keys))
        if len(keys) == 1:
            return delete(table).where(keys[0].in_([bindparam(name) for (name,) in names]))
        matches = [and_(*(key == bindparam(name) for key, name in zip(keys, row, strict=True))) for row in names]
        return delete(table).where(or_(*matches))

    return RowStatement(build)


def _parameter_names(count: int, width: int) -> list[tuple[str, ...]]:
    """Names that sort as they stand."""
    return [tuple(f"p{row:03}_{column:02}" for column in range(width)) for row in range(count)]
