"""`ports.Store` on SQLite or PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, Table, delete, or_, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from isthmus.errors import StoreError
from isthmus.model import Address, Authorisation, Failure, User
from isthmus.ports import (
    AuditRecord,
    Binding,
    CallRecord,
    Crossing,
    DomainRule,
    Journal,
    Photo,
    PolicySetting,
    Publication,
    SubscriptionRecord,
)
from isthmus.store import rows, schema
from isthmus.store.binding_writes import BindingWrites
from isthmus.store.call_rows import CallToKeep, read_calls, read_live_calls
from isthmus.store.data_directory import DataDirectory
from isthmus.store.dialects import check_integrity
from isthmus.store.journal import SqlJournal
from isthmus.store.migrate import migrate
from isthmus.store.row_statements import Row, RowStatement, delete_rows, replace_rows
from isthmus.store.write_behind import WriteBehind
from isthmus.store.writer import Writer

Result = TypeVar("Result")

DATABASE_FILE = "isthmus.db"
# Seconds a transaction waits for another program (a backup, an administrator's sqlite3) that locks the database.
LOCK_WAIT_SECONDS = 5.0
ROWS_IN_A_PIECE = 1_000

_REPLACE = {
    table.name: replace_rows(table)
    for table in (
        schema.users,
        schema.photos,
        schema.consumers,
        schema.authorisations,
        schema.blocks,
        schema.policy_settings,
        schema.domain_rules,
    )
}
_DELETE = {
    table.name: delete_rows(table)
    for table in (schema.photos, schema.authorisations, schema.blocks, schema.policy_settings, schema.domain_rules)
}

_log = structlog.get_logger(__name__)


class SqlStore:
    """Implements `ports.Store`.

    Args:
        data_directory: made if missing, locked while the store is open.
        store_url: SQLAlchemy URL; empty for SQLite in the data directory.
        wall, monotonic: the clocks.
        lock_wait_seconds: how long to wait for another program's lock before an operation fails.
    """

    def __init__(
        self,
        data_directory: Path,
        store_url: str = "",
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:
        self._wall = wall
        self._directory = DataDirectory(data_directory)
        self._url = _parse_url(store_url, data_directory)
        self._file = Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None
        name = str(self._file) if self._file else self._url.render_as_string(hide_password=True)
        self._writer = Writer(self._url, name, lock_wait_seconds)
        self._journal = SqlJournal(self._writer, wall, monotonic)
        self._is_open = False
        self._notes = WriteBehind(self._writer)
        self._binding_writes = BindingWrites(self._writer)
        self._addresses = rows.Addresses()

    @property
    def journal(self) -> Journal:
        """The message journal, on the same database."""
        return self._journal

    @property
    def trouble(self) -> str:
        """Why nothing can be kept now (disk full, locked), "" when it can."""
        return self._writer.trouble

    async def open(self) -> None:
        """Lock the data directory, create or migrate the schema, and learn which messages are known.

        Raises:
            StoreError: with the remedy: in use, locked, read-only, full, damaged, newer schema.
        """
        self._directory.claim()
        try:
            if self._file is not None:
                self._directory.private_file(self._file)
            await self._writer.open(_prepare)
            await self._journal.load()
        except BaseException:
            await self._writer.close()
            self._directory.release()
            raise
        self._is_open = True

    async def close(self) -> None:
        """Write what waits and close; what cannot be written is logged, since nobody could do more about it."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            for flush in (self._journal.flush, self._notes.flush):
                try:
                    await flush()
                except StoreError as error:
                    _log.error("not everything could be written at the end", reason=str(error))
        finally:
            self._journal.stop()
            self._notes.stop()
            await self._writer.close()
            self._directory.release()

    # --- people ---

    async def users(self, domain: str = "") -> Sequence[User]:
        """All hosted users, or those of one domain, by address."""
        query = select(schema.users)
        if domain:
            query = query.where(schema.users.c.domain == domain)
        found = await self._writer.call(
            lambda connection: [rows.user_from_row(row) for row in connection.execute(query).all()]
        )
        return sorted(found, key=_by_address)

    async def save_user(self, user: User) -> None:
        """Insert or replace."""
        await self._save(schema.users, rows.user_row(user))

    async def delete_user(self, address: Address) -> None:
        """Remove the user, bindings, publications and photo (not contacts)."""
        self._notes.forget_publications(address)

        def remove(connection: Connection) -> None:
            for table in (schema.users, schema.bindings, schema.publications, schema.photos):
                connection.execute(delete(table).where(table.c.address == str(address)))

        await self._writer.call(remove)

    async def photo_hashes(self) -> Sequence[tuple[Address, str]]:
        """Who has a photo, and its `sha1`, by address."""
        query = select(schema.photos.c.address, schema.photos.c.sha1)
        found = await self._writer.call(lambda connection: connection.execute(query).all())
        addresses = rows.Addresses()
        return sorted((addresses[address], sha1) for address, sha1 in found)

    async def photo(self, address: Address) -> Photo | None:
        """The photo of a hosted user."""
        query = select(schema.photos).where(schema.photos.c.address == str(address))
        row = await self._writer.call(lambda connection: connection.execute(query).first())
        return None if row is None else Photo(bytes(row.content), row.media_type, row.sha1)

    async def save_photo(self, address: Address, photo: Photo) -> None:
        """Insert or replace."""
        await self._save(schema.photos, (str(address), photo.sha1, photo.media_type, photo.content))

    async def delete_photo(self, address: Address) -> None:
        """Forget it; no error when absent."""
        await self._remove(schema.photos, (str(address),))

    async def consumers(self) -> Sequence[User]:
        """Consumer accounts, by address."""
        found = await self._writer.call(
            lambda connection: [rows.consumer_from_row(row) for row in connection.execute(select(schema.consumers))]
        )
        return sorted(found, key=_by_address)

    async def save_consumer(self, user: User) -> None:
        """Insert or replace; digests are not kept."""
        await self._save(schema.consumers, rows.consumer_row(user))

    # --- contacts ---

    async def authorisations(self) -> Sequence[Authorisation]:
        """All of them."""

        def read(connection: Connection) -> list[Authorisation]:
            # In pieces: all rows at once would take as much memory as what is made of them.
            found = connection.execute(select(schema.authorisations), execution_options={"yield_per": ROWS_IN_A_PIECE})
            with rows.without_garbage_collection():
                return rows.authorisations_from_rows(found, self._addresses)

        return await self._writer.call(read)

    async def save_authorisation(self, authorisation: Authorisation) -> None:
        """Insert or replace by (watcher, presentity)."""
        await self._save(schema.authorisations, rows.authorisation_row(authorisation))

    async def delete_authorisation(self, watcher: Address, presentity: Address) -> None:
        """Forget it; no error when absent."""
        await self._remove(schema.authorisations, (str(watcher), str(presentity)))

    async def blocks(self) -> Sequence[tuple[Address, Address]]:
        """All (owner, blocked peer) pairs."""
        found = await self._all(schema.blocks)
        addresses = rows.Addresses()
        return [(addresses[owner], addresses[peer]) for owner, peer in found]

    async def save_block(self, owner: Address, peer: Address) -> None:
        """Owner blocks peer."""
        await self._save(schema.blocks, (str(owner), str(peer)))

    async def delete_block(self, owner: Address, peer: Address) -> None:
        """Owner unblocks peer."""
        await self._remove(schema.blocks, (str(owner), str(peer)))

    # --- registrations, publications, subscriptions ---

    async def bindings(self) -> Sequence[Binding]:
        """Unexpired registrations; expired ones are removed on the way."""
        return [rows.binding_from_row(row) for row in await self._unexpired(schema.bindings)]

    async def save_bindings(self, address: Address, bindings: Sequence[Binding]) -> None:
        """Replace all bindings of one user at once (all-or-nothing, RFC 3261 section 10.3 step 7)."""
        await self._binding_writes.replace(address, bindings)

    async def publications(self) -> Sequence[Publication]:
        """Unexpired publications; expired ones are removed on the way."""
        await self._notes.flush()
        return [rows.publication_from_row(row) for row in await self._unexpired(schema.publications)]

    def note_publication(self, publication: Publication) -> None:
        """Insert or replace by (address, etag), written behind."""
        self._notes.note_publication(publication.address, publication.etag, publication)

    def note_publication_gone(self, address: Address, etag: str) -> None:
        """Forget, written behind."""
        self._notes.note_publication(address, etag, None)

    async def subscriptions(self, *, after: str = "", limit: int = 0) -> Sequence[SubscriptionRecord]:
        """Unexpired notifier subscriptions by key; expired ones are removed on the way."""
        await self._notes.flush()
        found = await self._unexpired(schema.subscriptions, after=after, limit=limit)
        records = rows.subscriptions_from_rows(found, self._addresses)
        if not limit or len(found) < limit:
            self._addresses = rows.Addresses()  # the last thing that a start reads
        return records

    def note_subscription(self, record: SubscriptionRecord) -> None:
        """Insert or replace by key, written behind."""
        self._notes.note_subscription(record.key, record)

    def note_subscription_gone(self, key: str) -> None:
        """Forget, written behind."""
        self._notes.note_subscription(key, None)

    # --- policy ---

    async def policy_settings(self) -> Sequence[PolicySetting]:
        """All of them, by scope and name."""
        return [PolicySetting(*row) for row in await self._all(schema.policy_settings)]

    async def save_policy_settings(self, changed: Sequence[PolicySetting], removed: Sequence[PolicySetting]) -> None:
        """Apply one change atomically."""
        # A later value for the same setting wins, and one statement must not meet a setting twice.
        new = {(setting.scope, setting.name): (setting.scope, setting.name, setting.value) for setting in changed}
        old = [(setting.scope, setting.name) for setting in removed]

        def apply(connection: Connection) -> None:
            _DELETE[schema.policy_settings.name].run(connection, old)
            _REPLACE[schema.policy_settings.name].run(connection, list(new.values()))

        await self._writer.call(apply)

    async def domain_rules(self) -> Sequence[DomainRule]:
        """All of them, by domain."""
        return [
            DomainRule(domain, action, bool(includes_subdomains), note, since)
            for domain, action, includes_subdomains, note, since in await self._all(schema.domain_rules)
        ]

    async def save_domain_rule(self, rule: DomainRule) -> None:
        """Insert or replace by domain."""
        await self._save(
            schema.domain_rules, (rule.domain, rule.action, rule.includes_subdomains, rule.note, rule.since)
        )

    async def delete_domain_rule(self, domain: str) -> None:
        """Forget it."""
        await self._remove(schema.domain_rules, (domain,))

    # --- what happened ---

    def note_crossing(
        self, sender: Address, recipient: Address, kind: str, at: float, failure: Failure | None = None
    ) -> None:
        """Count one crossing or failure, coalesced in memory and written behind."""
        self._notes.note_crossing((sender, recipient, str(kind)), at, None if failure is None else failure.text)

    async def crossings(self, one: Address, other: Address) -> Sequence[Crossing]:
        """Totals between two people, both directions, including what is not yet written."""
        await self._notes.flush()
        table = schema.crossings
        there, back = (
            (table.c.sender == str(sender)) & (table.c.recipient == str(recipient))
            for sender, recipient in ((one, other), (other, one))
        )
        query = select(table).where(or_(there, back)).order_by(*table.primary_key.columns)
        return await self._writer.call(
            lambda connection: [rows.crossing_from_row(row) for row in connection.execute(query)]
        )

    def note_call(self, record: CallRecord, expires_at: float) -> None:
        """Insert or replace the record of a call that is over, written behind."""
        self._notes.note_call(CallToKeep(record, expires_at))

    async def calls(self, *, person: Address | None = None, limit: int = 100) -> Sequence[CallRecord]:
        """Calls that are over, newest first; those of one person, or of everybody."""
        await self._notes.flush()
        now = self._wall()
        return await self._writer.call(lambda connection: read_calls(connection, now, person=person, limit=limit))

    async def call(self, call_id: str) -> CallRecord | None:
        """One of them."""
        await self._notes.flush()
        now = self._wall()
        found = await self._writer.call(lambda connection: read_calls(connection, now, person=None, call_id=call_id))
        return found[0] if found else None

    def note_live_call(self, call_id: str, state: Mapping[str, Any]) -> None:
        """Keep what is needed to end a live call cleanly after a crash, written behind."""
        self._notes.note_live_call(call_id, state)

    def note_live_call_gone(self, call_id: str) -> None:
        """Forget it, written behind."""
        self._notes.note_live_call(call_id, None)

    async def live_calls(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """The calls that were live when the last run ended."""
        await self._notes.flush()
        return await self._writer.call(read_live_calls)

    async def save_audit(self, record: AuditRecord) -> None:
        """Append to the audit log."""
        entry = schema.audit.insert().values(
            at=record.at, actor=record.actor, action=record.action, subject=record.subject, detail=record.detail
        )

        def append(connection: Connection) -> None:
            connection.execute(entry)

        await self._writer.call(append)

    async def audit(self, limit: int = 100) -> Sequence[AuditRecord]:
        """Newest first."""
        table = schema.audit
        query = select(table.c.at, table.c.actor, table.c.action, table.c.subject, table.c.detail)
        query = query.order_by(table.c.id.desc()).limit(max(0, limit))
        return await self._writer.call(lambda connection: [AuditRecord(*row) for row in connection.execute(query)])

    # --- how ---

    async def _save(self, table: Table, row: Row) -> None:
        await self._run(_REPLACE[table.name], row)

    async def _remove(self, table: Table, key: Row) -> None:
        await self._run(_DELETE[table.name], key)

    async def _run(self, statement: RowStatement, row: Row) -> None:
        await self._writer.call(lambda connection: statement.run(connection, [row]))

    async def _all(self, table: Table) -> Sequence[Sequence[Any]]:
        query = select(table).order_by(*table.primary_key.columns)
        return await self._writer.call(lambda connection: connection.execute(query).all())

    async def _unexpired(self, table: Table, *, after: str = "", limit: int = 0) -> Sequence[Sequence[Any]]:
        now = self._wall()
        key = table.primary_key.columns[0]
        query = select(table).order_by(*table.primary_key.columns)
        if after:
            query = query.where(key > after)
        if limit:
            query = query.limit(limit)

        def clean_and_read(connection: Connection) -> Sequence[Sequence[Any]]:
            if not after:
                connection.execute(delete(table).where(table.c.expires_at <= now))
            return connection.execute(query).all()

        return await self._writer.call(clean_and_read)


def _prepare(connection: Connection) -> None:
    check_integrity(connection)
    migrate(connection)


def _by_address(user: User) -> Address:
    return user.address


def _parse_url(store_url: str, data_directory: Path) -> URL:
    if not store_url:
        return URL.create("sqlite", database=str(data_directory / DATABASE_FILE))
    try:
        url = make_url(store_url)
    except ArgumentError as error:
        # The text may hold a password, so it is not repeated.
        raise StoreError("store_url is not a database URL: leave it empty, or use postgresql+psycopg://...") from error
    if url.get_backend_name() == "sqlite" and not url.database:
        raise StoreError("store_url names SQLite without a file: nothing would survive a restart")
    return url
