"""The live subscriptions by everything they are asked for: dialog, resource, watcher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from isthmus.model import Address
from isthmus.services.watch import Watch

_NONE: Mapping[str, Watch] = {}


class WatchTable:
    """All live subscriptions; a company's phones hold a hundred thousand, so no question scans them."""

    def __init__(self) -> None:
        self._by_key: dict[str, Watch] = {}
        self._by_resource: dict[tuple[str, Address], dict[str, Watch]] = {}
        self._by_watcher: dict[Address, dict[str, Watch]] = {}

    def get(self, key: str) -> Watch | None:
        """The subscription with this key."""
        return self._by_key.get(key)

    def __contains__(self, watch: Watch) -> bool:
        return watch.key in self._by_key

    def __iter__(self) -> Iterator[Watch]:
        return iter(list(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)

    def to(self, package: str, resource: Address) -> list[Watch]:
        """Those of one package to one resource."""
        return list(self._by_resource.get((package, resource), _NONE).values())

    def of(self, watcher: Address) -> list[Watch]:
        """Those of one watcher, all packages."""
        return list(self._by_watcher.get(watcher, _NONE).values())

    def count_of(self, watcher: Address) -> int:
        """How many one watcher has."""
        return len(self._by_watcher.get(watcher, _NONE))

    def has(self, package: str, watcher: Address, resource: Address) -> bool:
        """True when `watcher` has at least one to `resource`."""
        theirs = self._by_watcher.get(watcher, _NONE)
        to_it = self._by_resource.get((package, resource), _NONE)
        # Somebody may watch a thousand people, and be watched by a thousand.
        return any(key in theirs for key in to_it) if len(to_it) < len(theirs) else any(key in to_it for key in theirs)

    def add(self, watch: Watch) -> None:
        """Keep a subscription."""
        self._by_key[watch.key] = watch
        self._by_resource.setdefault((watch.package, watch.resource), {})[watch.key] = watch
        self._by_watcher.setdefault(watch.watcher, {})[watch.key] = watch

    def remove(self, watch: Watch) -> bool:
        """Forget it; False when it was not here."""
        if self._by_key.pop(watch.key, None) is None:
            return False
        same = self._by_resource[(watch.package, watch.resource)]
        del same[watch.key]
        if not same:
            del self._by_resource[(watch.package, watch.resource)]
        theirs = self._by_watcher[watch.watcher]
        del theirs[watch.key]
        if not theirs:
            del self._by_watcher[watch.watcher]
        return True
