"""What tests of several databases share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine

from isthmus.store import schema
from tests.support.postgresql import postgresql_server, programs


@pytest.fixture(scope="session")
def postgresql_server_url() -> Iterator[str]:
    """A server of our own for all tests of this run."""
    bin_directory = programs()
    if bin_directory is None:
        pytest.skip("PostgreSQL is not installed")
    with postgresql_server(bin_directory) as url:
        yield url


@pytest.fixture
def postgresql_url(postgresql_server_url: str) -> str:
    """The same server for each test, emptied."""
    engine = create_engine(postgresql_server_url)
    with engine.begin() as connection:
        schema.metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")
    engine.dispose()
    return postgresql_server_url
