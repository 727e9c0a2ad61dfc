"""Brings the tables of a database to the form this version works with."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, Table, Text, inspect, select

from isthmus.errors import StoreError
from isthmus.store.schema import HEAD_REVISION

MIGRATIONS = Path(__file__).with_name("migrations")

_version = Table("alembic_version", MetaData(), Column("version_num", Text))


def migrate(connection: Connection) -> None:
    """Create or migrate all tables, within the caller's transaction.

    Raises:
        StoreError: the tables are those of a newer Isthmus, or of something else.
    """
    revision = current_revision(connection)
    if revision == HEAD_REVISION:
        return  # the usual start, without the third of a second that importing Alembic takes

    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415 - slow to import, and seldom needed
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - the same

    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(configuration).walk_revisions()}
    if revision and revision not in known:
        raise StoreError(
            f"the database has schema {revision}, this Isthmus knows schemas up to {HEAD_REVISION}: "
            "start the newer Isthmus that made it, or restore a backup from before the update"
        )
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, "head")


def current_revision(connection: Connection) -> str:
    """Return the revision of the tables; empty for a new database."""
    if not inspect(connection).has_table(_version.name):
        return ""
    return connection.scalar(select(_version.c.version_num)) or ""
