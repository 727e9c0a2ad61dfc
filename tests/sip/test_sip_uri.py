"""SIP URIs: reading, writing, comparing, and user parts of every kind."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.uri import OtherUri, SipUri, escape_user, parse_uri
from tests.sip.wire_strategies import other_uris, sip_uris


@given(sip_uris())
def test_a_sip_uri_reads_back_as_it_was_written(uri: SipUri) -> None:
    assert SipUri.parse(str(uri)) == uri
    assert uri.is_equivalent(uri)


@given(other_uris)
def test_another_uri_reads_back_as_it_was_written(uri: OtherUri) -> None:
    assert parse_uri(str(uri)) == uri


@given(st.text(max_size=60))
def test_any_text_is_a_uri_or_a_parse_error(text: str) -> None:
    for candidate in (text, "sip:" + text, "sip:a@" + text):
        with contextlib.suppress(SipParseError):
            uri = parse_uri(candidate)
            text_again = str(uri)
            assert parse_uri(text_again) == uri


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_user_survives_escaping(text: str) -> None:
    """Edge case 1: users with `@ % * ( ) ' & /` and non-ASCII characters."""
    assert SipUri("sip", "corp.test", escape_user(text)).user_decoded == text
    if text:
        assert SipUri.parse(f"sip:{escape_user(text)}@corp.test").user_decoded == text


def test_all_parts_of_a_sip_uri_are_found() -> None:
    uri = SipUri.parse("SIPS:ana;day=mon:secret@Corp.Test:5061;Transport=tcp;lr?subject=a%20b")
    assert uri.scheme == "sips"
    assert uri.is_secure
    assert (uri.user, uri.password, uri.host, uri.port) == ("ana;day=mon", "secret", "corp.test", 5061)
    assert uri.params == (("transport", "tcp"), ("lr", None))
    assert (uri.param("transport"), uri.param("lr"), uri.param("x")) == ("tcp", "", None)
    assert uri.headers == "subject=a%20b"


def test_params_are_set_in_place_and_removed() -> None:
    uri = SipUri.parse("sip:corp.test;lr;transport=tcp")
    assert str(uri.with_param("lr", "on").with_param("ob", None)) == "sip:corp.test;lr=on;transport=tcp;ob"
    assert str(uri.without_params("lr")) == "sip:corp.test;transport=tcp"
    assert str(uri.without_params()) == "sip:corp.test"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip:",
        "sip",
        "sip:@corp.test",
        "sip:a b@corp.test",
        "sip:a@corp.test:99999",
        "sip:a@corp.test:0",
        "sip:a@corp.test:",
        "sip:a@",
        "sip:user@sip.dom@sip.dom",
        "sip:a%4@corp.test",
        "sip:a%zz@corp.test",
        "<sip:a@corp.test>",
        "sip:jürgen@corp.test",
        'sip:a@corp.test;x="y"',
        "sip:a@corp.test;=x",
        "sip:a@corp.test\r\nRoute:x",
        "1sip:x",
        ":x",
    ],
)
def test_malformed_uris_are_refused(text: str) -> None:
    with pytest.raises(SipParseError) as caught:
        parse_uri(text)
    assert caught.value.status == 400


def test_another_scheme_is_refused_with_416_where_sip_is_needed() -> None:
    with pytest.raises(SipParseError) as caught:
        SipUri.parse("tel:+1234")
    assert caught.value.status == 416


def test_a_user_that_is_not_utf_8_names_nobody() -> None:
    with pytest.raises(SipParseError):
        _ = SipUri.parse("sip:%ff@corp.test").user_decoded


def test_star_codes_of_office_phones_are_users() -> None:
    assert SipUri.parse("sip:*21*#30#@corp.test").user == "*21*#30#"


# RFC 3261 section 19.1.4 prints these pairs.
EQUIVALENT = [
    ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
    ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
    (
        "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
        "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
    ),
    (
        "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
        "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
    ),
]
DIFFERENT = [
    ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
    ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
    ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
    ("sip:a@corp.test", "sips:a@corp.test"),
    ("sip:a@[::1]", "sip:a@[::2]"),
]


@pytest.mark.parametrize(("one", "other"), EQUIVALENT)
def test_equivalent_uris_of_the_standard_match_both_ways(one: str, other: str) -> None:
    assert SipUri.parse(one).is_equivalent(SipUri.parse(other))
    assert SipUri.parse(other).is_equivalent(SipUri.parse(one))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_uris_of_the_standard_do_not_match(one: str, other: str) -> None:
    assert not SipUri.parse(one).is_equivalent(SipUri.parse(other))
    assert not SipUri.parse(other).is_equivalent(SipUri.parse(one))


def test_a_sip_uri_is_never_equivalent_to_another_uri() -> None:
    assert not SipUri.parse("sip:a@b").is_equivalent(OtherUri("tel", "1"))
