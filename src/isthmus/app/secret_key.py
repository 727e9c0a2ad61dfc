"""The installation's own key."""

from __future__ import annotations

import secrets
from pathlib import Path

from isthmus.errors import ConfigurationError, StoreError

SECRET_FILE = "secret.key"  # noqa: S105 - the name of a file, not a secret


def secret_key(directory: Path) -> bytes:
    """Our own key for nonces, temporary GRUUs and hop marks; made once, kept over restarts, readable by us alone."""
    path = directory / SECRET_FILE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
            path.write_bytes(secrets.token_bytes(32))
        found = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot use the data directory {directory}: {error.strerror}") from error
    if len(found) < 32:
        raise ConfigurationError(f"{path} is damaged: delete it and start again (phones sign in anew)")
    return found
