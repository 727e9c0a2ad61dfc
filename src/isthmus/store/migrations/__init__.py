"""Alembic's environment; `isthmus.store.migrate` runs it when a database is opened."""
