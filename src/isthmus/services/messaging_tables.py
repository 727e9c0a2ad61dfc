"""Bounded memories of the message router: forgetting the oldest costs nothing per message."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class RecentTable(Generic[Key, Value]):
    """A mapping that keeps between `size` and twice `size` of the newest entries.

    Two generations instead of a linked list: when the young one is full it becomes the old one, and what was old is
    gone. A write is one dictionary operation.
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, key: Key) -> bool:
        return key in self._young or key in self._old

    def put(self, key: Key, value: Value) -> None:
        """Remember `value` as the newest entry."""
        young = self._young
        young[key] = value
        if len(young) >= self._size:
            self._old, self._young = young, {}

    def get(self, key: Key) -> Value | None:
        """Return what was remembered, or None."""
        value = self._young.get(key)
        return value if value is not None else self._old.get(key)

    def pop(self, key: Key) -> Value | None:
        """Forget and return what was remembered, or None."""
        old = self._old.pop(key, None)
        value = self._young.pop(key, None)
        return value if value is not None else old
