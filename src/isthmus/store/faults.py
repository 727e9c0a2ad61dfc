"""Database errors in an administrator's words: what is wrong, and what to do about it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from isthmus.errors import StoreError


class DatabaseLockedError(StoreError):
    """Another program holds the database's write lock for longer than we wait."""

    exit_code = 75  # EX_TEMPFAIL: trying again later may help


# Primary result codes (https://www.sqlite.org/rescode.html); extended codes keep these in their low byte.
_SQLITE_TEXTS = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space, nothing needs a restart",
    sqlite3.SQLITE_READONLY: "it cannot be written: check owner and mode of the file and its directory",
    sqlite3.SQLITE_PERM: "it cannot be written: check owner and mode of the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check owner and mode of the file and its directory",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database, or is damaged: restore it from a backup",
    sqlite3.SQLITE_IOERR: "the disk reports an error: check the disk and the kernel's log",
    sqlite3.SQLITE_NOMEM: "memory is exhausted",
    sqlite3.SQLITE_TOOBIG: "a value is too large for it",
}


def store_error(error: BaseException, database: str) -> StoreError:
    """Translate whatever a database operation raised.

    Args:
        error: a StoreError (returned as it is), an error of SQLAlchemy, a driver or the operating system.
        database: what to call it: the path of the SQLite file, or the URL without password.
    """
    if isinstance(error, StoreError):
        return error
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            holders = lock_holders(Path(database))
            who = f" by {', '.join(holders)}" if holders else ""
            return DatabaseLockedError(f"database {database} is locked{who}: end that program, or wait for it")
        if code in _SQLITE_TEXTS:
            return StoreError(f"database {database}: {_SQLITE_TEXTS[code]} ({cause})")
    if isinstance(cause, SQLAlchemyError | sqlite3.Error | OSError) or isinstance(error, DBAPIError):
        return StoreError(f"database {database}: {_one_line(cause)}")
    return StoreError(f"database {database}: unexpected {type(cause).__name__}: {_one_line(cause)}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def lock_holders(database: Path) -> list[str]:
    """Name the other processes with a lock on the database, as far as the kernel tells (Linux)."""
    inodes = set()
    for suffix in ("", "-shm"):
        try:
            inodes.add(os.stat(f"{database}{suffix}").st_ino)
        except OSError:
            continue
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    holders = set()
    for line in lines:
        # "1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 120 120"; a waiting one has "->" after its number.
        fields = line.split()
        if len(fields) < 8 or "->" in fields or fields[3] != "WRITE" or not fields[4].isdigit():
            continue
        pid, inode = int(fields[4]), fields[5].rpartition(":")[2]
        if pid != os.getpid() and inode.isdigit() and int(inode) in inodes:
            holders.add(process_name(pid))
    return sorted(holders)


def process_name(pid: int) -> str:
    """Return "process 123 (name)", without the name where the system does not tell."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({name})"
