"""The data directory: private to its owner, and used by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from isthmus.errors import StoreError
from isthmus.store.faults import process_name

LOCK_FILE = "isthmus.lock"


class DataDirectory:
    """Claims a directory for this process until `release`.

    The claim is a lock of the operating system: it ends with the process, however that ends, so there is no stale
    lock to clean up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def claim(self) -> None:
        """Create the directory if needed (mode 0700) and lock it.

        Raises:
            StoreError: it cannot be created or written, or another process uses it.
        """
        try:
            # Parents get the usual mode: they are not ours alone.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.is_dir():
                self.path.mkdir(mode=0o700)
            lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(lock, 20).decode("ascii", "replace").strip()
            os.close(lock)
            who = process_name(int(owner)) if owner.isdigit() else "another process"
            raise StoreError(
                f"data directory {self.path} is in use by {who}: stop it first, or use another data directory"
            ) from error
        self._lock = lock
        # The lock holds without it; on a full disk the database says so better.
        with contextlib.suppress(OSError):
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())

    def private_file(self, path: Path) -> None:
        """Create `path` if needed and make it readable by its owner alone; SQLite's other files copy its mode.

        Raises:
            StoreError: not possible.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(descriptor, 0o600)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unusable(path, error) from error

    def release(self) -> None:
        """Let another process have the directory; harmless when not claimed."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path} cannot be written ({error.strerror}): check owner, mode and mount, or use another place")
