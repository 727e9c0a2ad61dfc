"""The header fields of a message as an ordered multimap (RFC 3261 section 7.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from isthmus.sip.fields import MAGIC_COOKIE, CSeq, NameAddr, Via
from isthmus.sip.header_names import CANONICAL_NAMES, COMPACT_FORMS, SPELLINGS, identify
from isthmus.sip.syntax import Parameters, parse_parameterised, quote, split_list, unquote

__all__ = [
    "CANONICAL_NAMES",
    "COMPACT_FORMS",
    "MAGIC_COOKIE",
    "CSeq",
    "Headers",
    "NameAddr",
    "Parameters",
    "Via",
    "parse_parameterised",
    "quote",
    "unquote",
]


class Headers:
    """Header field lines in order. Names compare without case and compact forms with their long ones.

    Values are text: unfolded, without surrounding blanks. Nothing is interpreted here; `cache` keeps what others
    parsed from a field (by key) until that field changes.
    """

    __slots__ = ("_first", "_items", "cache")

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items: list[tuple[str, str, str]] = [_line(name, value) for name, value in items]
        self._first: dict[str, str] | None = None
        self.cache: dict[str, Any] = {}

    @classmethod
    def of_lines(cls, lines: list[tuple[str, str, str]], first: dict[str, str] | None = None) -> Headers:
        """Wrap (key, name, value) lines that are already identified and stripped; the list is taken over.

        Args:
            lines: all lines in order.
            first: the value of the first line of each key, if the caller has it.
        """
        headers = cls.__new__(cls)
        headers._items = lines
        headers._first = first
        headers.cache = {}
        return headers

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        """The lines as (key, name, value), for serialising; not to be changed."""
        return self._items

    @property
    def first(self) -> dict[str, str]:
        """The value of the first line of each header field, by key; not to be changed."""
        first = self._first
        if first is None:
            first = self._first = {key: value for key, _, value in reversed(self._items)}
        return first

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first line of a header field."""
        # Asked some twenty times for every message, so `identify` and `first` are only called where they must be.
        first = self._first
        if first is None:
            first = self.first
        known = SPELLINGS.get(name)
        return first.get(known[0] if known is not None else identify(name)[0], default)

    def get_all(self, name: str) -> list[str]:
        """Return the values of all lines of a header field."""
        key = identify(name)[0]
        first = self.first
        if len(first) == len(self._items):  # no header field has two lines, which is nearly always so
            return [first[key]] if key in first else []
        return [value for candidate, _, value in self._items if candidate == key]

    def get_list(self, name: str) -> list[str]:
        """Return the comma-separated elements of all lines of a header field; quotes and `<>` are respected.

        Raises:
            SipParseError: a quote or angle bracket is not closed.
        """
        lines = self.get_all(name)
        if len(lines) == 1:
            return split_list(lines[0])
        return [element for line in lines for element in split_list(line)]

    def add(self, name: str, value: str) -> None:
        """Append a line."""
        key, written = identify(name)
        self._items.append((key, written, value.strip(" \t")))
        self._forget(key)

    def set(self, name: str, value: str) -> None:
        """Replace all lines of a header field by one, in the place of the first, or append it."""
        key, written = identify(name)
        line = (key, written, value.strip(" \t"))
        for index, item in enumerate(self._items):
            if item[0] == key:
                self._items[index] = line
                self._items[index + 1 :] = [later for later in self._items[index + 1 :] if later[0] != key]
                break
        else:
            self._items.append(line)
        self._forget(key)

    def replace_first(self, name: str, value: str) -> None:
        """Replace the first line of a header field and leave its further lines; append when there is none."""
        key, written = identify(name)
        line = (key, written, value.strip(" \t"))
        for index, item in enumerate(self._items):
            if item[0] == key:
                self._items[index] = line
                break
        else:
            self._items.append(line)
        self._forget(key)

    def prepend(self, name: str, value: str) -> None:
        """Insert a line before all others, as Via, Route and Record-Route are stacked."""
        key, written = identify(name)
        self._items.insert(0, (key, written, value.strip(" \t")))
        self._forget(key)

    def remove(self, name: str) -> None:
        """Remove all lines of a header field; harmless when there is none."""
        key = identify(name)[0]
        self._items = [item for item in self._items if item[0] != key]
        self._forget(key)

    def items(self) -> Iterator[tuple[str, str]]:
        """Iterate over (name, value) in order; known names in their canonical spelling."""
        return ((name, value) for _, name, value in self._items)

    def copy(self) -> Headers:
        """Return an independent copy."""
        return Headers.of_lines(list(self._items))

    def _forget(self, key: str) -> None:
        self._first = None
        self.cache.pop(key, None)

    def has_any(self, keys: frozenset[str]) -> bool:
        """True when one of the header fields with these keys (lower-case, long form) is there."""
        first = self._first
        if first is None:
            first = self.first
        return not keys.isdisjoint(first)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(k, v) for k, _, v in self._items] == [(k, v) for k, _, v in other._items]

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable; typeshed wants a method

    def __repr__(self) -> str:
        return f"Headers({list(self.items())!r})"


def _line(name: str, value: str) -> tuple[str, str, str]:
    key, written = SPELLINGS.get(name) or identify(name)
    return key, written, value.strip(" \t")
