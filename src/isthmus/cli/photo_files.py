"""Files with photos."""

from __future__ import annotations

import base64
from pathlib import Path

from isthmus.errors import OperationError
from isthmus.xmpp.vcard import MAXIMUM_PHOTO_OCTETS


def read_photo(path: Path) -> str:
    """Return what an image file holds, as base64; one octet too many of a file that is too large.

    Raises:
        OperationError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            # A wrong file must not be read into memory whole; the server says what is too much.
            content = file.read(MAXIMUM_PHOTO_OCTETS + 1)
    except OSError as error:
        raise OperationError(f"the photo cannot be read from {path}: {error.strerror}") from error
    return base64.b64encode(content).decode("ascii")
