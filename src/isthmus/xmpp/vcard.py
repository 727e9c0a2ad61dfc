"""The vCard that XMPP clients fetch of a contact (XEP-0054), and how they learn of another photo (XEP-0153)."""

from __future__ import annotations

import base64
import hashlib

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.stanza import element, escape_text

# As base64 it must fit into a stanza of 256 KiB, which is what servers let pass, together with the rest of the card.
MAXIMUM_PHOTO_OCTETS = 128 * 1024

# How files of the two types begin that XEP-0153 section 4.1 names and every client shows.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
}


def photo_type(content: bytes) -> str:
    """Return the media type of an image, told from its content; "" when it is no PNG and no JPEG."""
    return next((found for signature, found in _SIGNATURES.items() if content.startswith(signature)), "")


def photo_hash(content: bytes) -> str:
    """Return what names a photo in presence: SHA-1 in hexadecimal, by which clients keep it (XEP-0153 section 3.1)."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def photo_update(sha1: str) -> str:
    """Return the element for presence that says which photo is the current one.

    Args:
        sha1: as of `photo_hash`; "" says that there is none, so that clients drop an older one (section 4.3).
    """
    return element("x", {"xmlns": ns.VCARD_UPDATE}, element("photo", None, sha1))


def vcard(name: str, photo: bytes = b"", media_type: str = "") -> str:
    """Return the card of somebody.

    Args:
        name: to show.
        photo: at most MAXIMUM_PHOTO_OCTETS; empty without one.
        media_type: of the photo.
    """
    image = ""
    if photo:
        text = base64.b64encode(photo).decode("ascii")
        image = element("PHOTO", None, element("TYPE", None, escape_text(media_type)), element("BINVAL", None, text))
    shown = escape_text(name)
    return element("vCard", {"xmlns": ns.VCARD}, element("FN", None, shown), element("NICKNAME", None, shown), image)
