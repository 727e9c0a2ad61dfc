"""The table behind `services.contacts`: who may see whom, by both ends, in memory exactly as in the store.

A row changes in memory only after the store has promised it, so that nobody is shown anything on the strength of a
grant that a crash would undo; changes of one pair wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from weakref import WeakValueDictionary

from isthmus.model import Address, Authorisation, AuthorisationState
from isthmus.ports import Store


class Authorisations:
    """Rows by both ends, so that neither question scans."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_presentity: dict[Address, dict[Address, Authorisation]] = defaultdict(dict)
        # A dictionary of ten takes half the memory of a set of ten.
        self._by_watcher: dict[Address, dict[Address, Authorisation]] = defaultdict(dict)
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[tuple[Address, Address], asyncio.Lock] = WeakValueDictionary()

    async def load(self) -> None:
        """Read everything back. Raises StoreError."""
        for row in await self._store.authorisations():
            self._put(row)

    # --- questions ---

    def get(self, watcher: Address, presentity: Address) -> Authorisation | None:
        """One row."""
        rows = self._by_presentity.get(presentity)
        return rows.get(watcher) if rows else None

    def state(self, watcher: Address, presentity: Address) -> AuthorisationState | None:
        """PENDING, ACTIVE or None."""
        row = self.get(watcher, presentity)
        return row.state if row else None

    def of_presentity(self, presentity: Address) -> tuple[Authorisation, ...]:
        """Everybody who asked to see `presentity`, pending and active."""
        return tuple(self._by_presentity.get(presentity, {}).values())

    def of_watcher(self, watcher: Address) -> tuple[Address, ...]:
        """Everybody whom `watcher` asked to see."""
        return tuple(self._by_watcher.get(watcher, ()))

    def all(self) -> Iterator[Authorisation]:
        """Every row."""
        for rows in tuple(self._by_presentity.values()):
            yield from tuple(rows.values())

    def concerning(self, person: Address) -> list[Authorisation]:
        """Every row with `person` at either end."""
        watched = self._by_watcher.get(person, {}).values()
        return [*self.of_presentity(person), *(row for row in watched if row.presentity != person)]

    # --- changes ---

    def changing(self, watcher: Address, presentity: Address) -> asyncio.Lock:
        """The lock of one pair: look, decide, write and tell while holding it."""
        lock = self._locks.get((watcher, presentity))
        if lock is None:
            lock = self._locks[(watcher, presentity)] = asyncio.Lock()
        return lock

    async def save(self, row: Authorisation) -> None:
        """Insert or replace, durably first. Raises StoreError (then nothing has changed)."""
        await self._store.save_authorisation(row)
        self._put(row)

    async def delete(self, watcher: Address, presentity: Address) -> None:
        """Forget, durably first. Raises StoreError (then nothing has changed)."""
        await self._store.delete_authorisation(watcher, presentity)
        rows = self._by_presentity.get(presentity)
        if rows is not None:
            rows.pop(watcher, None)
            if not rows:
                del self._by_presentity[presentity]
        others = self._by_watcher.get(watcher)
        if others is not None:
            others.pop(presentity, None)
            if not others:
                del self._by_watcher[watcher]

    def _put(self, row: Authorisation) -> None:
        self._by_presentity[row.presentity][row.watcher] = row
        self._by_watcher[row.watcher][row.presentity] = row
