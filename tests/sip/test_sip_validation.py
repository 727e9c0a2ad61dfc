"""What the edge refuses before a transaction is made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.fields import NameAddr
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.uri import OtherUri, parse_uri
from isthmus.sip.validation import (
    _PLAIN_PERSON,
    SINGLE_FIELDS,
    accepts,
    check_request,
    check_response,
    unsupported_options,
)

FIELDS = {
    "Via": "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1",
    "From": "<sip:ana@corp.test>;tag=a",
    "To": "<sip:ben@people.test>",
    "Call-ID": "c1",
    "CSeq": "1 INVITE",
    "Max-Forwards": "70",
}


def request(method: str = "INVITE", uri: str = "sip:ben@people.test", **changes: str | None) -> SipRequest:
    fields = FIELDS | {name.replace("_", "-"): value for name, value in changes.items()}
    fields.setdefault("CSeq", "")
    if method != "INVITE" and "CSeq" not in changes:
        fields["CSeq"] = f"1 {method}"
    return SipRequest(method, parse_uri(uri), [(name, value) for name, value in fields.items() if value is not None])


def test_a_plain_request_passes() -> None:
    check_request(request())


def test_a_request_of_an_old_peer_without_branch_tag_and_max_forwards_passes() -> None:
    check_request(request(Via="SIP/2.0/UDP 10.0.0.1", From="<sip:ana@corp.test>", Max_Forwards=None))


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call-ID", "CSeq"])
def test_a_request_without_a_mandatory_field_is_refused(name: str) -> None:
    message = request()
    message.headers.remove(name)
    with pytest.raises(SipParseError, match="missing"):
        check_request(message)


@pytest.mark.parametrize("name", sorted(SINGLE_FIELDS))
def test_a_field_that_must_be_single_is_refused_twice(name: str) -> None:
    """Edge case 43: duplicate From and To."""
    message = request()
    message.headers.add(name, "1")
    message.headers.add(name, "1")
    with pytest.raises(SipParseError, match="two"):
        check_request(message)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("INVITE", {"Via": "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK"}),
        ("INVITE", {"Via": " , "}),
        ("INVITE", {"CSeq": "1 BYE"}),
        ("INVITE", {"Call_ID": "a b"}),
        ("INVITE", {"Call_ID": ""}),
        ("INVITE", {"From": "<sip:a@b>;tag"}),
        ("INVITE", {"From": '<sip:a@b>;tag="x y"'}),
        ("INVITE", {"Max_Forwards": "256"}),
        ("INVITE", {"Max_Forwards": "x"}),
        ("INVITE", {"Contact": "<sip:a@b"}),
        ("INVITE", {"Route": "sip"}),
        ("INVITE", {"Record_Route": "<>"}),
        ("INVITE", {"Content_Type": "text"}),
        ("INVITE", {"Event": "a b"}),
        ("REFER", {"Refer_To": "nobody"}),
        ("REFER", {"Referred_By": "nobody"}),
        ("REGISTER", {"To": "<tel:+1>"}),
        ("INVITE", {"uri": "sip:a@b?Route=%3Csip:c%3E"}),
    ],
)
def test_malformed_requests_are_refused_with_400(method: str, changes: dict[str, str]) -> None:
    with pytest.raises(SipParseError) as caught:
        check_request(request(method, **changes))
    assert caught.value.status == 400


def test_a_request_uri_that_is_not_sip_is_refused_with_416() -> None:
    with pytest.raises(SipParseError) as caught:
        check_request(request(uri="tel:+1"))
    assert caught.value.status == 416
    assert isinstance(request(uri="tel:+1").uri, OtherUri)


def test_a_response_to_a_good_request_passes() -> None:
    check_response(build_response(request(), 200, to_tag="b"))


def test_responses_that_are_not_for_us_or_malformed_are_dropped() -> None:
    good = build_response(request(), 200, to_tag="b")
    changes = [
        ("Via", "SIP/2.0/UDP a, SIP/2.0/UDP b"),
        ("Via", "x"),
        ("CSeq", "99999999999 INVITE"),
        ("To", "x"),
        ("From", "x"),
        ("Retry-After", "9" * 20),
    ]
    for name, value in changes:
        bad = SipResponse(200, "OK", good.headers.copy())
        bad.headers.set(name, value)
        with pytest.raises(SipParseError) as caught:
            check_response(bad)
        assert caught.value.status == 0


def test_retry_after_may_carry_a_comment_and_parameters() -> None:
    response = build_response(request(), 503, headers=[("Retry-After", "120 (I'm in a meeting);duration=60")])
    check_response(response)


def test_required_options_we_lack_are_named() -> None:
    message = request(Require="100rel, Timer", Proxy_Require="gin")
    assert unsupported_options(message, {"timer"}) == ["100rel"]
    assert unsupported_options(message, set(), "Proxy-Require") == ["gin"]
    assert unsupported_options(request(), set()) == []
    assert unsupported_options(request("CANCEL", Require="100rel"), set()) == []


@pytest.mark.parametrize(
    ("accept", "media_type", "is_taken"),
    [
        (None, "application/sdp", True),
        (None, "text/plain", False),
        ("text/plain;q=0.5, application/*", "text/plain", True),
        ("text/plain, Application/*", "application/sdp", True),
        ("*/*", "application/sdp", True),
        ("text/plain", "application/sdp", False),
        ("", "application/sdp", False),
    ],
)
def test_accept_decides_what_the_sender_takes(accept: str | None, media_type: str, is_taken: bool) -> None:
    assert accepts(request(Accept=accept), media_type) is is_taken


@given(st.from_regex(_PLAIN_PERSON, fullmatch=True))
def test_what_a_response_need_not_parse_would_have_been_parsed_without_an_error(text: str) -> None:
    assert str(NameAddr.parse(text)).lower() == text.lower()


@pytest.mark.parametrize("name", ["From", "To"])
@pytest.mark.parametrize(
    "value", ["<sip:ana@corp.test", "<sip:ana%zz@corp.test>", "<sip:ana@corp.test>;=", "Ana, B <x>"]
)
def test_a_response_with_a_malformed_person_is_dropped(name: str, value: str) -> None:
    response = build_response(request(), 200, to_tag="t")
    response.headers.set(name, value)
    with pytest.raises(SipParseError) as caught:
        check_response(response)
    assert caught.value.status == 0
