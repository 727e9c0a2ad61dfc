"""Cards and the hash of a photo, as clients read them."""

from __future__ import annotations

from base64 import b64decode
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.xmpp.vcard import MAXIMUM_PHOTO_OCTETS, photo_hash, photo_type, photo_update, vcard

STANZA_OCTETS = 256 * 1024
UPDATE = "{vcard-temp:x:update}"


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        (b"\xff\xd8\xff\xe1\0\x10Exif", "image/jpeg"),
        (b"GIF89a", ""),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>", ""),
        (b"\x89PNG", ""),
        (b"", ""),
    ],
)
def test_the_type_of_a_photo_is_told_from_its_content(content: bytes, media_type: str) -> None:
    assert photo_type(content) == media_type


def test_a_photo_is_named_by_the_sha1_of_its_content() -> None:
    assert photo_hash(b"abc") == "a9993e364706816aba3e25717850c26c9cd0d89d"  # FIPS 180-4, the example "abc"


def test_presence_names_the_photo_or_says_that_there_is_none() -> None:
    assert fromstring(photo_update("a9")).findtext(f"{UPDATE}photo") == "a9"
    none = fromstring(photo_update(""))
    assert none.tag == f"{UPDATE}x"
    assert none.findtext(f"{UPDATE}photo") == "", "XEP-0153 section 4.3: an empty element, not a missing one"


@given(name=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")))
def test_a_card_reads_back_as_it_was_written(name: str) -> None:
    card = fromstring(vcard(name, b"\xff\xd8\xff", "image/jpeg"))
    assert (card.findtext("{vcard-temp}FN") or "") == name
    assert b64decode(card.findtext("{vcard-temp}PHOTO/{vcard-temp}BINVAL") or "") == b"\xff\xd8\xff"


def test_the_largest_photo_fits_into_a_stanza() -> None:
    assert len(vcard("n" * 1_000, bytes(MAXIMUM_PHOTO_OCTETS), "image/png")) < STANZA_OCTETS
