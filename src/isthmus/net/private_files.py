"""Files of programs beside us that hold secrets: readable by their owner alone, replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only we may read, replacing an old one in one step (no reader sees half of it)."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    new.replace(path)


def write_when_changed(path: Path, text: str) -> bool:
    """Write a private file unless it holds this text already; return whether it was written. Raises OSError."""
    content = text.encode()
    if path.exists() and path.read_bytes() == content:
        return False
    write_private(path, content)
    return True
