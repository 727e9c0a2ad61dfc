"""Registrations on their way to the disk: what many users change at the same time shares two statements."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sqlalchemy import Connection

from isthmus.errors import StoreError
from isthmus.model import Address
from isthmus.ports import Binding
from isthmus.store import schema
from isthmus.store.faults import DatabaseLockedError
from isthmus.store.row_statements import Row, delete_rows, insert_rows
from isthmus.store.rows import binding_row
from isthmus.store.writer import Writer

_INSERT = insert_rows(schema.bindings)
_DELETE = delete_rows(schema.bindings, schema.bindings.c.address)


class BindingWrites:
    """Replaces the bindings of users.

    A statement per user would hand the interpreter lock over twice per registration: with phones that all come back
    at once, that cost more than the registrations themselves.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._open: _Batch | None = None

    async def replace(self, address: Address, bindings: Sequence[Binding]) -> None:
        """Replace all bindings of one user at once and return when that is durable. Raises StoreError."""
        name = str(address)
        new = [binding_row(position, binding) for position, binding in enumerate(bindings)]
        batch = self._open
        if batch is None or name in batch.users:
            # One batch has one outcome for a user: a second change waits for the next transaction.
            batch = self._open = self._submit({})
        user = batch.users[name] = _User(new, asyncio.get_running_loop().create_future())
        await user.written

    def seal(self, batch: _Batch) -> None:
        """The transaction begins: later changes open another batch."""
        if batch is self._open:
            self._open = None

    def retry_one_by_one(self, users: dict[str, _User]) -> None:
        """Nobody should pay for a value of somebody else that the database refuses."""
        for name, user in users.items():
            try:
                self._submit({name: user})
            except StoreError as error:
                user.settle(error)

    def _submit(self, users: dict[str, _User]) -> _Batch:
        batch = _Batch(self, users)
        self._writer.submit(batch)
        return batch


class _User:
    """New rows of one user, and who waits for them."""

    __slots__ = ("rows", "written")

    def __init__(self, rows: list[Row], written: asyncio.Future[None]) -> None:
        self.rows = rows
        self.written = written

    def settle(self, error: StoreError | None) -> None:
        if self.written.done():
            return  # whoever asked was cancelled
        if error is not None:
            self.written.set_exception(error)
        else:
            self.written.set_result(None)


class _Batch:
    """`writer.Work`: the changes of some users."""

    __slots__ = ("_owner", "users")

    def __init__(self, owner: BindingWrites, users: dict[str, _User]) -> None:
        self._owner = owner
        self.users = users

    @property
    def is_one_statement(self) -> bool:
        """Hardly ever."""
        return False

    def begin(self) -> None:
        """Take no more."""
        self._owner.seal(self)

    def run(self, connection: Connection) -> None:
        """Write them."""
        _DELETE.run(connection, [(name,) for name in self.users])
        _INSERT.run(connection, [row for user in self.users.values() for row in user.rows])

    def finish(self, error: StoreError | None) -> None:
        """Tell everybody."""
        if error is not None and len(self.users) > 1 and not isinstance(error, DatabaseLockedError):
            self._owner.retry_one_by_one(self.users)
            return
        for user in self.users.values():
            user.settle(error)
