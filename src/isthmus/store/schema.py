"""The tables, as SQLAlchemy Core metadata; every statement is derived from here, for SQLite and PostgreSQL alike.

Addresses are text in canonical form (`local@domain`, the last `@` separates), times are Unix seconds. A change here
needs a migration in `migrations/versions`; a test compares both.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

# Revision that `migrations/versions` ends with; a test keeps them equal. Lets `open` skip Alembic when all is new.
HEAD_REVISION = "0003"

# SQLite gives rowid aliases (and so the cheapest appends) to INTEGER keys only, PostgreSQL needs BIGINT for them.
_Key = BigInteger().with_variant(Integer(), "sqlite")

users = Table(
    "users",
    metadata,
    Column("address", Text, primary_key=True),
    Column("domain", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("digests", Text, nullable=False),  # JSON object: algorithm token -> HA1
    Column("is_disabled", Boolean, nullable=False),
    Column("groups", Text, nullable=False),  # JSON array, most important first
    Column("created_at", Double, nullable=False),
    Index("users_by_domain", "domain"),
)

photos = Table(
    "photos",
    metadata,
    Column("address", Text, primary_key=True),
    Column("sha1", Text, nullable=False),  # of the content, hexadecimal: reading which photos there are reads no photo
    Column("media_type", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

consumers = Table(
    "consumers",
    metadata,
    Column("address", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("is_disabled", Boolean, nullable=False),
    Column("groups", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

authorisations = Table(
    "authorisations",
    metadata,
    Column("watcher", Text, primary_key=True),
    Column("presentity", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("decided_at", Double),
    Column("note", Text, nullable=False),
)

blocks = Table(
    "blocks",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("peer", Text, primary_key=True),
)

bindings = Table(
    "bindings",
    metadata,
    Column("address", Text, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("contact", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("details", Text, nullable=False),  # JSON object: the other fields of `ports.Binding`
)

publications = Table(
    "publications",
    metadata,
    Column("address", Text, primary_key=True),
    Column("etag", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("key", Text, primary_key=True),
    Column("watcher", Text, nullable=False),
    Column("presentity", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("state", Text, nullable=False),  # JSON object, opaque
)

policy_settings = Table(
    "policy_settings",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

domain_rules = Table(
    "domain_rules",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("action", Text, nullable=False),
    Column("includes_subdomains", Boolean, nullable=False),
    Column("note", Text, nullable=False),
    Column("since", Double, nullable=False),
)

crossings = Table(
    "crossings",
    metadata,
    Column("sender", Text, primary_key=True),
    Column("recipient", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("delivered", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("last_at", Double, nullable=False),
    Column("last_failure_at", Double, nullable=False),
    Column("last_failure", Text, nullable=False),
)

calls = Table(
    "calls",
    metadata,
    Column("id", Text, primary_key=True),
    Column("caller", Text, nullable=False),
    Column("callee", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),  # when the record is thrown away
    Column("details", Text, nullable=False),  # JSON object: the other fields of `ports.CallRecord`
    Index("calls_by_caller", "caller", "started_at"),
    Index("calls_by_callee", "callee", "started_at"),
    Index("calls_by_time", "started_at"),
)

live_calls = Table(
    "live_calls",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),  # JSON object, opaque
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

journal = Table(
    "journal",
    metadata,
    Column("sequence", _Key, primary_key=True, autoincrement=False),
    Column("origin", LargeBinary),  # digest of the origin key, null without one
    Column("payload", LargeBinary, nullable=False),  # see journal_format
)

# One row per commit that settled something: a row per message would cost as much as the journal itself.
settled_origins = Table(
    "settled_origins",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=False),
    Column("known_until", Double, nullable=False),
    Column("origins", LargeBinary, nullable=False),  # digests, one after the other
)
