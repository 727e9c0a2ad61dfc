"""What Alembic runs: the migrations on a connection that `isthmus.store.migrate` puts into the configuration.

A developer's `alembic revision --autogenerate` gives a URL instead (`-x url=sqlite:///...`).
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from isthmus.store.schema import metadata


def run(connection: Connection) -> None:
    """Run all migrations asked for, in one transaction: SQLite rolls back table changes as well."""
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)["url"]).begin() as connection:
        run(connection)
