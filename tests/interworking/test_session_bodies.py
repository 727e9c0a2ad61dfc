"""Where an offer or answer stands in a SIP message: plain, in multipart, or not at all (RFC 3261, RFC 5621)."""

from __future__ import annotations

import zlib

import pytest

from isthmus.errors import PeerError
from isthmus.interworking.session_bodies import session_in
from isthmus.interworking.sip_bodies import UnsupportedBodyError
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.sip.message import SipRequest
from isthmus.sip.mime import Part, build_multipart
from tests.support.sip import sip_request

TEXT = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
OLD = TEXT.replace("4000", "3000")
SDP = SessionDescription.parse(TEXT)


def invite(body: bytes | str = b"", content_type: str = "", *headers: tuple[str, str]) -> SipRequest:
    return sip_request(
        "INVITE",
        "sip:ben@people.test",
        sender="sip:ana@corp.test",
        headers=headers,
        body=body,
        content_type=content_type,
    )


def multipart(*parts: Part, subtype: str = "mixed") -> SipRequest:
    content_type, body = build_multipart(parts, subtype=subtype)
    return invite(body, content_type)


def sdp(text: str = TEXT, **fields: str) -> Part:
    return Part.of("application/sdp", text.encode(), **fields)


def test_a_plain_body_and_none() -> None:
    assert session_in(invite(TEXT, "application/sdp")) == SDP
    assert session_in(invite(TEXT, "Application/SDP;charset=utf-8", ("Content-Disposition", "session"))) == SDP
    assert session_in(invite()) is None


def test_a_compressed_body_is_unpacked() -> None:
    packed = zlib.compress(TEXT.encode())
    assert session_in(invite(packed, "application/sdp", ("Content-Encoding", "deflate"))) == SDP


def test_the_first_description_of_a_mixed_body_counts() -> None:
    picture = Part.of("image/png", b"png", content_disposition="icon;handling=optional")
    assert session_in(multipart(picture, sdp())) == SDP
    assert session_in(multipart(sdp(), sdp(OLD))) == SDP


def test_the_last_alternative_counts_and_the_one_for_old_servers_does_not() -> None:
    """Edge case 39."""
    fallback = sdp(OLD, content_disposition="session; handling=optional; ms-proxy-2007fallback")
    assert session_in(multipart(fallback, sdp(), subtype="alternative")) == SDP
    assert session_in(multipart(sdp(OLD), sdp(), subtype="alternative")) == SDP
    assert session_in(multipart(sdp(), Part.of("application/new", b"x"), subtype="alternative")) == SDP


def test_a_part_that_must_be_understood_and_is_not_refuses_all() -> None:
    with pytest.raises(UnsupportedBodyError):
        session_in(multipart(sdp(), Part.of("application/isup", b"x")))
    with pytest.raises(UnsupportedBodyError):
        session_in(invite("hello", "text/plain"))
    with pytest.raises(UnsupportedBodyError):
        session_in(invite(TEXT, "application/sdp", ("Content-Disposition", "early-session")))


def test_what_is_optional_is_passed_over() -> None:
    optional = ("Content-Disposition", "render;handling=optional")
    assert session_in(invite("hello", "text/plain", optional)) is None
    early = sdp(OLD, content_disposition="early-session;handling=optional")
    assert session_in(multipart(early, sdp())) == SDP


def test_nested_parts_are_found_but_not_at_any_depth() -> None:
    part = sdp()
    for _ in range(2):
        content_type, body = build_multipart([part])
        part = Part.of(content_type, body)
    assert session_in(multipart(part)) == SDP
    for _ in range(4):
        content_type, body = build_multipart([part])
        part = Part.of(content_type, body)
    with pytest.raises(PeerError):
        session_in(multipart(part))


def test_a_description_that_cannot_be_read_is_488() -> None:
    with pytest.raises(SdpError) as refused:
        session_in(invite("v=1", "application/sdp"))
    assert refused.value.status == 488
