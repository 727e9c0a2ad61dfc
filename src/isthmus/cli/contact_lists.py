"""Files with contact lists: one contact a line, the owner first."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from isthmus.errors import OperationError

# Entries in one call to the server: a few seconds of work, and far below what the control socket takes.
ENTRIES_IN_A_CALL = 100
# Two addresses are shorter than this; a wrong file must not be read into memory whole.
MAXIMUM_LINE_CHARACTERS = 2_000


def read_contact_list(path: Path) -> Iterator[list[tuple[str, str]]]:
    """Read pairs of owner and contact, some at a time; blanks or a comma between them, `#` begins a comment.

    Args:
        path: `-` is standard input.

    Raises:
        OperationError: the file cannot be read, or a line is no pair; the text names the line.
    """
    try:
        if str(path) == "-":
            yield from _pieces(sys.stdin, path)
        else:
            with path.open(encoding="utf-8-sig") as file:
                yield from _pieces(file, path)
    except (OSError, UnicodeDecodeError) as error:
        raise OperationError(f"the contacts cannot be read from {path}: {error}") from error


def _pieces(lines: Iterator[str], path: Path) -> Iterator[list[tuple[str, str]]]:
    piece: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        words = re.split(r"\s*,\s*|\s+", text)
        if len(words) != 2 or len(line) > MAXIMUM_LINE_CHARACTERS:
            raise OperationError(f"line {number} of {path} is no pair: write OWNER and PEER, name@domain each")
        piece.append((words[0], words[1]))
        if len(piece) == ENTRIES_IN_A_CALL:
            yield piece
            piece = []
    if piece:
        yield piece
