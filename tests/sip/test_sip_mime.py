"""Multipart bodies, built and read."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.headers import Headers
from isthmus.sip.limits import MAXIMUM_MIME_NESTING, MAXIMUM_MIME_PARTS
from isthmus.sip.mime import Part, build_multipart, parse_multipart, walk_parts
from isthmus.sip.parser import parse_message

MIXED = "multipart/mixed;boundary=b"

parts = st.builds(
    Part,
    st.one_of(st.binary(max_size=60), st.sampled_from([b"", b"\r\n", b"--", b"\r\n--b", b"\r\n\r\n"])),
    st.lists(st.sampled_from([("Content-Type", "text/plain"), ("Content-ID", "<a@b>")]), max_size=2, unique=True).map(
        Headers
    ),
)


@given(st.lists(parts, min_size=1, max_size=5))
def test_what_is_joined_is_cut_into_the_same_parts(sent: list[Part]) -> None:
    content_type, body = build_multipart(sent)
    assert parse_multipart(body, content_type) == sent


@given(
    st.lists(st.sampled_from([b"--b", b"--b--", b"\r\n", b" ", b"a", b"Content-Type: x", b":", b"\xff"]), max_size=20)
)
def test_any_body_is_parts_or_a_parse_error(pieces: list[bytes]) -> None:
    with contextlib.suppress(SipParseError):
        parse_multipart(b"".join(pieces), MIXED)


def test_the_torture_message_with_a_binary_part_is_read() -> None:
    octets = (Path(__file__).parents[1] / "messages" / "rfc4475" / "mpart01.dat").read_bytes()
    message = parse_message(octets)
    text, signature = parse_multipart(message.body, message.headers.get("Content-Type") or "")
    assert (text.content_type, text.body) == ("text/plain", b"Hello")
    assert signature.content_type == "application/octet-stream"
    assert signature.body.startswith(b"0\x82\x01R")


def test_a_related_body_names_its_root() -> None:
    root = Part.of("application/rlmi+xml", b"<list/>", content_id="<root@corp.test>")
    content_type, body = build_multipart(
        [root, Part.of("application/pidf+xml", b"<presence/>")],
        subtype="related",
        parameters=(("type", "application/rlmi+xml"), ("start", "<root@corp.test>")),
        boundary="xyz",
    )
    # The boundary plain and last: that is how Linphone finds it.
    assert content_type == 'multipart/related;type="application/rlmi+xml";start="<root@corp.test>";boundary=xyz'
    assert body == (
        b"--xyz\r\nContent-Type: application/rlmi+xml\r\nContent-Id: <root@corp.test>\r\n\r\n<list/>\r\n"
        b"--xyz\r\nContent-Type: application/pidf+xml\r\n\r\n<presence/>\r\n--xyz--\r\n"
    )
    assert parse_multipart(body, content_type)[0].content_id == "root@corp.test"


def test_a_boundary_that_is_no_token_is_quoted() -> None:
    content_type, body = build_multipart([Part.of("text/plain", b"Hi")], boundary="a b")
    assert content_type == 'multipart/mixed;boundary="a b"'
    assert parse_multipart(body, content_type)[0].body == b"Hi"


def test_preamble_and_epilogue_are_dropped_and_a_missing_end_is_forgiven() -> None:
    (part,) = parse_multipart(b"for people\r\n--b\r\n\r\nHi\r\n--b--\r\nbye", MIXED)
    assert part.body == b"Hi"
    assert part.content_type == "text/plain"
    assert [part.body for part in parse_multipart(b"--b\r\n\r\none\r\n--b\r\n\r\ntwo", MIXED)] == [b"one", b"two"]


def test_a_boundary_that_only_begins_alike_is_text() -> None:
    (part,) = parse_multipart(b"--b\r\n\r\n--bc\r\n--b--", MIXED)
    assert part.body == b"--bc"


def test_transfer_encodings_of_mail_are_undone() -> None:
    body = (
        b"--b\r\nContent-Transfer-Encoding: base64\r\n\r\nSGVsbG8=\r\n"
        b"--b\r\nContent-Transfer-Encoding: Quoted-Printable\r\n\r\nJos=C3=A9\r\n--b--"
    )
    assert [part.body for part in parse_multipart(body, MIXED)] == [b"Hello", "José".encode()]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"--b\r\n\r\nHi\r\n--b--", "text/plain"),
        (b"--b\r\n\r\nHi\r\n--b--", "multipart/mixed"),
        (b"--b\r\n\r\nHi\r\n--b--", 'multipart/mixed;boundary="b\r\n"'),
        (b"--b\r\n\r\nHi\r\n--b--", "multipart/mixed;boundary=" + "b" * 71),
        (b"nothing here", MIXED),
        (b"--b--", MIXED),
        (b"--b\r\n" * (MAXIMUM_MIME_PARTS + 2), MIXED),
        (b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\n--b--", MIXED),
        (b"--b\r\nContent-Transfer-Encoding: base64\r\n\r\nSGVsb\r\n--b--", MIXED),
    ],
)
def test_bodies_that_are_not_multipart_are_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(SipParseError):
        parse_multipart(body, content_type)


def nested(depth: int) -> tuple[str, bytes]:
    content_type, body = "text/plain", b"deep"
    for _ in range(depth):
        content_type, body = build_multipart([Part.of(content_type, body), Part.of("text/html", b"<p>")])
    return content_type, body


def test_leaves_of_nested_bodies_are_walked_to_the_limit_and_no_further() -> None:
    content_type, body = nested(MAXIMUM_MIME_NESTING)
    leaves = list(walk_parts(body, content_type))
    assert leaves[0].body == b"deep"
    assert len(leaves) == MAXIMUM_MIME_NESTING + 1
    content_type, body = nested(MAXIMUM_MIME_NESTING + 1)
    with pytest.raises(SipParseError):
        list(walk_parts(body, content_type))
