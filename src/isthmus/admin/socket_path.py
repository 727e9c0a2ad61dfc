"""Where the control socket is, and how to name it when its directory lies deep. Standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

SOCKET_NAME = "control.sock"
ACTOR_HEADER = "x-isthmus-actor"
# sun_path of a Unix socket address is 108 octets with the final zero (unix(7)).
MAXIMUM_SOCKET_PATH_OCTETS = 107


@contextlib.contextmanager
def reachable_path(path: Path) -> Iterator[str]:
    """Give a name for a socket file that fits into a socket address: an open directory has a short one.

    Raises:
        OSError: the directory cannot be opened.
    """
    if len(os.fsencode(path)) <= MAXIMUM_SOCKET_PATH_OCTETS:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
