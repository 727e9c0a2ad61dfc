"""Dialogs: route sets, targets, sequence numbers, and what ends them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isthmus.errors import SipParseError
from isthmus.sip.dialog import MAXIMUM_CSEQ, Dialog, DialogId, ErrorEffect, effect_of_failure
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.parser import parse_message
from isthmus.sip.uri import SipUri

OUR_CONTACT = SipUri.parse("sip:gw@192.0.2.9:5070;transport=tcp")


def make_request(
    method: str = "INVITE", cseq: int = 10, extra: str = "", uri: str = "sip:ben@people.test"
) -> SipRequest:
    text = (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK{cseq}\r\nMax-Forwards: 70\r\n"
        f"From: Ana <sip:ana@corp.test>;tag=a1\r\nTo: <sip:ben@people.test>\r\nCall-ID: c1\r\nCSeq: {cseq} {method}\r\n"
        f"{extra}Content-Length: 0\r\n\r\n"
    )
    message = parse_message(text.encode())
    assert isinstance(message, SipRequest)
    return message


ROUTES = "Record-Route: <sip:p2.test;lr>, <sip:p1.test;lr>\r\n"
CONTACT = "Contact: <sip:ana@192.0.2.1:5060>;expires=60\r\n"


def make_server_dialog(extra: str = ROUTES + CONTACT) -> Dialog:
    return Dialog.as_server(make_request(extra=extra), local_tag="b1", local_contact=OUR_CONTACT)


def make_client_dialog(response_headers: list[tuple[str, str]], status: int = 200) -> Dialog:
    request = make_request(extra=CONTACT)
    return Dialog.as_client(request, build_response(request, status, headers=response_headers, to_tag="b1"))


def make_in_dialog(method: str, cseq: int, contact: str = "") -> SipRequest:
    request = make_request(method, cseq, extra=f"Contact: {contact}\r\n" if contact else "")
    request.headers.set("To", "<sip:ben@people.test>;tag=b1")
    return request


def test_a_server_keeps_the_route_set_in_order_and_a_client_reverses_it() -> None:
    assert [str(route) for route in make_server_dialog().route_set] == ["<sip:p2.test;lr>", "<sip:p1.test;lr>"]
    headers = [("Record-Route", "<sip:p2.test;lr>"), ("Record-Route", "<sip:p1.test;lr>"), ("Contact", "<sip:ben@b>")]
    client = make_client_dialog(headers)
    assert [str(route) for route in client.route_set] == ["<sip:p1.test;lr>", "<sip:p2.test;lr>"]


def test_both_ends_name_the_same_dialog_with_tags_swapped() -> None:
    server = make_server_dialog()
    client = make_client_dialog([("Contact", "<sip:ben@b.test>")])
    assert server.id == DialogId("c1", "b1", "a1")
    assert client.id == DialogId("c1", "a1", "b1")
    assert (server.local_tag, server.remote_tag) == ("b1", "a1")


def test_a_request_goes_to_the_target_through_loose_routers() -> None:
    """RFC 3261 section 12.2.1.1."""
    request = make_server_dialog().make_request("BYE")
    assert str(request.uri) == "sip:ana@192.0.2.1:5060"
    assert [str(route.uri) for route in request.routes] == ["sip:p2.test;lr", "sip:p1.test;lr"]
    assert (request.cseq.number, request.cseq.method) == (1, "BYE")
    assert request.from_address.tag == "b1"
    assert request.to_address.tag == "a1"
    assert request.to_address.display_name == "Ana"
    assert request.call_id == "c1"
    assert request.max_forwards == 70


def test_a_strict_router_gets_itself_in_the_request_uri_and_the_target_last() -> None:
    dialog = make_server_dialog("Record-Route: <sip:old.test>, <sip:p1.test;lr>\r\n" + CONTACT)
    request = dialog.make_request("BYE")
    assert str(request.uri) == "sip:old.test"
    assert [str(route.uri) for route in request.routes] == ["sip:p1.test;lr", "sip:ana@192.0.2.1:5060"]


def test_without_a_route_set_the_request_goes_straight_to_the_contact() -> None:
    request = make_server_dialog(CONTACT).make_request(
        "NOTIFY", headers=[("Event", "presence")], body=b"<x/>", content_type="application/pidf+xml"
    )
    assert str(request.uri) == "sip:ana@192.0.2.1:5060"
    assert request.routes == []
    assert (request.event, request.content_type, request.body) == ("presence", "application/pidf+xml", b"<x/>")


def test_sequence_numbers_rise_by_one_and_the_ack_keeps_that_of_its_invite() -> None:
    dialog = make_server_dialog()
    assert [dialog.make_request("INFO").cseq.number for _ in range(3)] == [1, 2, 3]
    assert dialog.make_ack(2).cseq.number == 2
    assert dialog.make_request("BYE").cseq.number == 4


def test_a_client_goes_on_from_the_number_of_its_first_request() -> None:
    assert make_client_dialog([("Contact", "<sip:ben@b.test>")]).make_request("BYE").cseq.number == 11


def test_used_up_sequence_numbers_are_an_error_and_not_a_wrap() -> None:
    dialog = make_server_dialog()
    dialog.local_cseq = MAXIMUM_CSEQ
    with pytest.raises(SipParseError):
        dialog.make_request("BYE")


@pytest.mark.parametrize("number", [0, 9, 10])
def test_a_lower_or_equal_sequence_number_is_refused_500(number: int) -> None:
    """RFC 3261 section 12.2.2."""
    dialog = make_server_dialog()
    with pytest.raises(SipParseError) as caught:
        dialog.receive_request(make_in_dialog("INFO", number))
    assert caught.value.status == 500
    assert dialog.remote_cseq == 10


def test_gaps_in_the_sequence_are_fine_and_ack_and_cancel_stand_outside_it() -> None:
    dialog = make_server_dialog()
    dialog.receive_request(make_in_dialog("INFO", 999))
    assert dialog.remote_cseq == 999
    dialog.receive_request(make_in_dialog("ACK", 10))
    dialog.receive_request(make_in_dialog("CANCEL", 10))
    assert dialog.remote_cseq == 999


def test_the_first_request_of_the_peer_may_have_any_number() -> None:
    dialog = make_client_dialog([("Contact", "<sip:ben@b.test>")])
    assert dialog.remote_cseq is None
    dialog.receive_request(make_in_dialog("BYE", 0))
    assert dialog.remote_cseq == 0


@pytest.mark.parametrize(
    ("method", "is_moved"),
    [("INVITE", True), ("UPDATE", True), ("SUBSCRIBE", True), ("NOTIFY", True), ("REFER", True), ("INFO", False)],
)
def test_only_target_refresh_requests_move_the_target(method: str, is_moved: bool) -> None:
    dialog = make_server_dialog()
    dialog.receive_request(make_in_dialog(method, 11, "<sip:ana@192.0.2.77>"))
    assert (str(dialog.remote_target) == "sip:ana@192.0.2.77") == is_moved
    assert len(dialog.route_set) == 2, "the route set never changes within a dialog"


def test_a_refresh_without_a_usable_contact_leaves_the_target() -> None:
    dialog = make_server_dialog()
    for number, contact in ((11, ""), (12, "<sip:"), (13, "*")):
        dialog.receive_request(make_in_dialog("UPDATE", number, contact))
    assert str(dialog.remote_target) == "sip:ana@192.0.2.1:5060"


def test_the_2xx_of_an_early_dialog_sets_route_set_and_target_anew() -> None:
    dialog = make_client_dialog([("Contact", "<sip:early@b.test>"), ("Record-Route", "<sip:p1.test;lr>")], 183)
    states = [dialog.is_early]
    request = make_request(extra=CONTACT)
    final = build_response(request, 200, headers=[("Contact", "<sip:final@b.test>")], to_tag="b1")
    dialog.confirm(final)
    states.append(dialog.is_early)
    assert states == [True, False]
    assert dialog.route_set == ()
    assert str(dialog.remote_target) == "sip:final@b.test"


@pytest.mark.parametrize("extra", ["", "Contact: *\r\n"])
def test_a_dialog_needs_a_contact(extra: str) -> None:
    with pytest.raises(SipParseError) as caught:
        make_server_dialog(extra)
    assert caught.value.status == 400


def test_only_a_sips_request_over_tls_makes_a_secure_dialog() -> None:
    for uri, over_tls, expected in (("sips:b@b", True, True), ("sips:b@b", False, False), ("sip:b@b", True, False)):
        request = make_request(extra=CONTACT, uri=uri)
        dialog = Dialog.as_server(request, local_tag="b1", local_contact=OUR_CONTACT, is_secure=over_tls)
        assert dialog.is_secure is expected


def test_a_dialog_survives_as_json() -> None:
    dialog = make_server_dialog()
    dialog.make_request("NOTIFY")
    restored = Dialog.from_record(json.loads(json.dumps(dialog.to_record())))
    assert restored.to_record() == dialog.to_record()
    assert restored.make_request("NOTIFY").to_bytes() == dialog.make_request("NOTIFY").to_bytes()
    assert restored.local_contact == OUR_CONTACT
    assert restored.id == dialog.id


@pytest.mark.parametrize(
    "damage", [{"local": None}, {"remote_target": 3}, {"route_set": 1}, {"local_cseq": "x"}, {"remote": "<"}]
)
def test_a_damaged_record_is_a_parse_error(damage: dict[str, Any]) -> None:
    record = make_server_dialog().to_record()
    with pytest.raises(SipParseError):
        Dialog.from_record(record | damage)
    with pytest.raises(SipParseError):
        Dialog.from_record({})


@pytest.mark.parametrize("status", [404, 410, 416, 482, 483, 484, 485, 502, 604])
def test_some_failures_destroy_the_dialog(status: int) -> None:
    """RFC 5057 section 5.1."""
    assert effect_of_failure("NOTIFY", status) is ErrorEffect.DIALOG


@pytest.mark.parametrize("status", [405, 480, 481, 489, 501])
def test_some_failures_destroy_the_usage(status: int) -> None:
    assert effect_of_failure("NOTIFY", status) is ErrorEffect.USAGE


@pytest.mark.parametrize("status", [400, 401, 403, 408, 412, 415, 422, 423, 486, 487, 488, 491, 500, 503, 600, 603])
def test_other_failures_concern_their_transaction(status: int) -> None:
    assert effect_of_failure("INFO", status) is ErrorEffect.TRANSACTION


@pytest.mark.parametrize("status", [408, 481])
def test_a_re_invite_without_answer_or_dialog_ends_the_call(status: int) -> None:
    """RFC 3261 section 12.2.1.2."""
    assert effect_of_failure("INVITE", status) is ErrorEffect.DIALOG


def test_the_two_ends_understand_each_other() -> None:
    request = make_request("SUBSCRIBE", extra=CONTACT + ROUTES)
    server = Dialog.as_server(request, local_tag="b1", local_contact=OUR_CONTACT)
    answer = parse_message(
        build_response(request, 200, headers=[("Contact", f"<{OUR_CONTACT}>")], to_tag="b1").to_bytes()
    )
    assert isinstance(answer, SipResponse)
    client = Dialog.as_client(request, answer)
    for number in range(3):
        there = parse_message(server.make_request("NOTIFY").to_bytes())
        back = parse_message(client.make_request("SUBSCRIBE").to_bytes())
        assert isinstance(there, SipRequest)
        assert isinstance(back, SipRequest)
        client.receive_request(there)
        server.receive_request(back)
        assert (client.remote_cseq, server.remote_cseq) == (number + 1, 11 + number)
    assert client.route_set == tuple(reversed(server.route_set))
