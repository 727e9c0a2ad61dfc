"""Requests and responses: typed access, building, serialising."""

from __future__ import annotations

import pytest

from isthmus.errors import SipParseError
from isthmus.sip.headers import CSeq, NameAddr, Via
from isthmus.sip.message import REASON_PHRASES, SipRequest, SipResponse, build_request, build_response
from isthmus.sip.parser import parse_message
from isthmus.sip.reasons import reason_phrase
from isthmus.sip.uri import SipUri

ANA = NameAddr.parse('"Ana" <sip:ana@corp.test>;tag=a1')
BEN = NameAddr.parse("<sip:ben@people.test>")
TARGET = SipUri.parse("sip:ben@people.test")


def invite(*lines: tuple[str, str], method: str = "INVITE") -> SipRequest:
    request = build_request(
        method, TARGET, from_address=ANA, to_address=BEN, call_id="c1@corp.test", cseq=7, headers=lines
    )
    request.push_via(Via.parse("SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1;rport"))
    return request


def test_a_built_request_carries_what_a_user_agent_must_send() -> None:
    request = build_request(
        "MESSAGE",
        TARGET,
        from_address=ANA,
        to_address=BEN,
        call_id="c1",
        cseq=1,
        headers=[("Expires", "60")],
        body=b"Hi",
        content_type="text/plain",
    )
    assert request.to_bytes() == (
        b"MESSAGE sip:ben@people.test SIP/2.0\r\n"
        b"Max-Forwards: 70\r\n"
        b'From: "Ana" <sip:ana@corp.test>;tag=a1\r\n'
        b"To: <sip:ben@people.test>\r\n"
        b"Call-ID: c1\r\n"
        b"CSeq: 1 MESSAGE\r\n"
        b"Expires: 60\r\n"
        b"Content-Type: text/plain\r\n"
        b"Content-Length: 2\r\n"
        b"\r\n"
        b"Hi"
    )


def test_typed_properties_of_a_built_request_are_those_of_the_read_one() -> None:
    built = invite(("Contact", "<sip:ana@10.0.0.1>"), ("Route", "<sip:p1;lr>, <sip:p2;lr>"), ("Event", "Presence;id=4"))
    read = parse_message(built.to_bytes())
    assert isinstance(read, SipRequest)
    for request in (built, read):
        assert request.top_via.host == "10.0.0.1"
        assert request.branch == "z9hG4bK1"
        assert (request.from_address, request.to_address) == (ANA, BEN)
        assert (request.call_id, request.cseq, request.max_forwards) == ("c1@corp.test", CSeq(7, "INVITE"), 70)
        assert [str(route.uri) for route in request.routes] == ["sip:p1;lr", "sip:p2;lr"]
        assert (request.event, request.event_id) == ("presence", "4")
        assert str(request.contacts[0].uri) == "sip:ana@10.0.0.1"


def test_absent_fields_read_as_empty_and_missing_mandatory_ones_raise() -> None:
    request = SipRequest("OPTIONS", TARGET)
    assert (request.expires, request.max_forwards, request.event, request.event_id, request.content_type) == (
        None,
        None,
        "",
        "",
        "",
    )
    assert (request.contacts, request.routes, request.record_routes, request.vias) == ([], [], [], [])
    assert request.content_type_param("charset") is None
    for name in ("top_via", "from_address", "to_address", "call_id", "cseq"):
        with pytest.raises(SipParseError):
            getattr(request, name)


def test_typed_properties_follow_changes_of_the_header_field() -> None:
    request = invite()
    assert request.to_address.tag == ""
    request.headers.set("To", "<sip:ben@people.test>;tag=b2")
    assert request.to_address.tag == "b2"


def test_content_type_is_read_without_case_and_with_its_parameters() -> None:
    request = invite(("Content-Type", 'Text / Plain ; charset="UTF-8"'))
    assert request.content_type == "text/plain"
    assert request.content_type_param("charset") == "UTF-8"


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("0", 0), ("x", 3600), ("9" * 40, 3600), ("-1", 3600)])
def test_a_malformed_expiry_counts_as_one_hour(text: str, seconds: int) -> None:
    assert invite(("Expires", text)).expires == seconds


def test_a_wildcard_contact_is_no_address() -> None:
    request = invite(("Contact", "*"))
    assert request.is_wildcard_contact
    assert request.contacts == []
    with pytest.raises(SipParseError):
        _ = invite(("Contact", "*"), ("Contact", "<sip:a@b>")).contacts


def test_the_topmost_via_is_replaced_alone_also_in_a_line_of_several() -> None:
    request = SipRequest("OPTIONS", TARGET, [("Via", "SIP/2.0/UDP a;rport, SIP/2.0/UDP b"), ("Via", "SIP/2.0/UDP c")])
    request.set_top_via(request.top_via.with_param("rport", "9"))
    assert request.headers.get_all("Via") == ["SIP/2.0/UDP a;rport=9, SIP/2.0/UDP b", "SIP/2.0/UDP c"]
    assert [via.host for via in request.vias] == ["a", "b", "c"]
    request.push_via(Via("TCP", "z"))
    assert request.headers.get_all("Via")[0] == "SIP/2.0/TCP z"
    assert [via.host for via in request.vias] == ["z", "a", "b", "c"]
    request.set_top_via(Via("TCP", "y"))
    assert [via.host for via in parse_message(request.to_bytes()).vias] == ["y", "a", "b", "c"]


def test_a_response_copies_what_identifies_the_request() -> None:
    request = invite(("Timestamp", "54"), ("Subject", "secret"))
    response = build_response(
        request, 200, to_tag="b2", headers=[("Contact", "<sip:us>")], body=b"x", content_type="a/b"
    )
    assert response.to_bytes() == (
        b"SIP/2.0 200 OK\r\n"
        b"Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1;rport\r\n"
        b'From: "Ana" <sip:ana@corp.test>;tag=a1\r\n'
        b"To: <sip:ben@people.test>;tag=b2\r\n"
        b"Call-ID: c1@corp.test\r\n"
        b"CSeq: 7 INVITE\r\n"
        b"Contact: <sip:us>\r\n"
        b"Content-Type: a/b\r\n"
        b"Content-Length: 1\r\n"
        b"\r\n"
        b"x"
    )
    assert build_response(request, 100).headers.get("Timestamp") == "54"


@pytest.mark.parametrize("to", ["<sip:b@c>;tag=x", "sip:b@c;tag=x", "<sip:b@c> ; TAG = x", '"a;tag=1" <sip:b@c>;tag=x'])
def test_a_to_tag_that_is_there_stays(to: str) -> None:
    request = SipRequest("BYE", TARGET, [("To", to)])
    assert build_response(request, 200, to_tag="new").headers.get("To") == to


def test_a_tag_in_a_display_name_or_uri_is_no_tag() -> None:
    request = SipRequest("BYE", TARGET, [("To", '"a;tag=1" <sip:b@c;tag=2>')])
    assert build_response(request, 200, to_tag="new").to_address.tag == "new"


@pytest.mark.parametrize(
    ("method", "status", "is_copied"),
    [
        ("INVITE", 180, True),
        ("SUBSCRIBE", 200, True),
        ("INVITE", 100, False),
        ("INVITE", 486, False),
        ("BYE", 200, False),
    ],
)
def test_the_route_set_travels_back_when_a_dialog_is_made(method: str, status: int, is_copied: bool) -> None:
    request = invite(("Record-Route", "<sip:p1;lr>"), method=method)
    assert ("Record-Route" in build_response(request, status).headers) is is_copied


def test_reason_phrases_are_those_of_the_registry_or_of_the_class() -> None:
    assert REASON_PHRASES[486] == "Busy Here"
    assert [reason_phrase(status) for status in (299, 499, 699)] == ["OK", "Request Failure", "Global Failure"]
    assert build_response(invite(), 404, "Nobody here").reason == "Nobody here"


def test_copies_are_independent() -> None:
    request = invite()
    copy = request.copy()
    copy.headers.set("To", "<sip:x@y>")
    assert request.to_address == BEN
    assert copy != request
    response = build_response(request, 180)
    assert response.copy() == response
    assert (response.is_provisional, response.is_success) == (True, False)
    assert response != request
    assert "INVITE" in repr(request)
    assert "180" in repr(response)


def test_a_content_length_that_was_set_by_hand_is_not_believed() -> None:
    response = SipResponse(200, "OK", [("Content-Length", "99"), ("l", "98")], b"abc")
    assert response.to_bytes() == b"SIP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"
