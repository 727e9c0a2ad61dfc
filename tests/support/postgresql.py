"""A PostgreSQL server of the tests' own: a throwaway directory, a Unix socket, nothing of the machine's service."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Debian keeps the server's programs of each version here, outside the PATH.
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")
# The server refuses to run as root; this user comes with Debian's package and owns nothing else that we touch.
UNPRIVILEGED_USER = "postgres"
# What is lost at a power failure does not matter here, and writing through to the disk is most of the time.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "20",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
}


def programs() -> Path | None:
    """The directory with `initdb` and `pg_ctl` of the newest version, None when there is none."""
    versions = sorted(DEBIAN_PROGRAMS.glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which("pg_ctl")
    return Path(found).parent if found else None


@contextmanager
def postgresql_server(bin_directory: Path) -> Iterator[str]:
    """Run a server, and give the SQLAlchemy URL of an empty database.

    Args:
        bin_directory: what `programs` returned.
    """
    # Not below pytest's directory, which nobody but root may enter; and the path of a socket must be short.
    directory = Path(tempfile.mkdtemp(prefix="isthmus-pg-", dir="/tmp"))
    user = UNPRIVILEGED_USER if os.geteuid() == 0 else None
    data, log = directory / "data", directory / "log"

    def run(program: str, *arguments: str) -> None:
        # Output into a file: the server inherits it, and a pipe would stay open as long as it runs.
        with log.open("ab") as output:
            outcome = subprocess.run(
                [str(bin_directory / program), "-D", str(data), *arguments],
                cwd=directory,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert outcome.returncode == 0, f"{program} failed:\n{log.read_text()}"

    try:
        log.touch()
        if user:
            for path in (directory, log):
                shutil.chown(path, user, user)
        run("initdb", "--username=isthmus", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        options = {**SETTINGS, "unix_socket_directories": str(directory)}
        run("pg_ctl", "start", "--wait", "-o", " ".join(f"-c {name}='{value}'" for name, value in options.items()))
        try:
            yield f"postgresql+psycopg://isthmus@/postgres?host={directory}"
        finally:
            run("pg_ctl", "stop", "--wait", "--mode=immediate")
    finally:
        shutil.rmtree(directory)
