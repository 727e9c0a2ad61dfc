"""Matching, merging, cancelling, and two layers against each other over a bad network."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.ports import Flow
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.parser import parse_message
from isthmus.sip.transaction_layer import (
    AckReceived,
    CancelReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StrayResponse,
    TransactionFailed,
    TransactionLayer,
    TransactionTimedOut,
)
from tests.support.memory_network import MemoryNetwork, Weather

FLOW = Flow("udp", "192.0.2.1", 40_000, "192.0.2.2", 5060)


def make_layer(*, maximum_pending: int = 1000, maximum_completed: int = 10_000) -> TransactionLayer:
    count = itertools.count(1)
    return TransactionLayer(
        new_branch=lambda: f"z9hG4bK{next(count)}",
        maximum_pending=maximum_pending,
        maximum_completed=maximum_completed,
    )


def make_message(
    via: str = "SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bKone",
    *,
    method: str = "MESSAGE",
    cseq: str = "1",
    call_id: str = "c1",
    to: str = "<sip:ben@people.test>",
    uri: str = "sip:ben@people.test",
    from_: str = "<sip:ana@corp.test>;tag=a1",
) -> SipRequest:
    text = (
        f"{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {from_}\r\nTo: {to}\r\n"
        f"Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
    )
    message = parse_message(text.encode())
    assert isinstance(message, SipRequest)
    return message


def statuses_in(layer: TransactionLayer) -> list[int]:
    found = []
    for data, _ in layer.outgoing():
        message = parse_message(data)
        assert isinstance(message, SipResponse)
        found.append(message.status)
    return found


def take_request(layer: TransactionLayer) -> RequestReceived:
    (event,) = layer.events()
    assert isinstance(event, RequestReceived)
    return event


# --- what is noted in the Via (RFC 3261 section 18.2.1, RFC 3581) ------------------------------------------------


@pytest.mark.parametrize(
    ("via", "expected"),
    [
        ("192.0.2.1:40000;branch=z9hG4bKa", "192.0.2.1:40000;branch=z9hG4bKa"),
        ("10.0.0.7;branch=z9hG4bKa", "10.0.0.7;branch=z9hG4bKa;received=192.0.2.1"),
        ("phone.test;branch=z9hG4bKa", "phone.test;branch=z9hG4bKa;received=192.0.2.1"),
        ("192.0.2.1;rport;branch=z9hG4bKa", "192.0.2.1;rport=40000;branch=z9hG4bKa;received=192.0.2.1"),
        ("10.0.0.7:5070;branch=z9hG4bKa;rport", "10.0.0.7:5070;branch=z9hG4bKa;rport=40000;received=192.0.2.1"),
        # What a peer writes there itself would direct our answer at somebody else.
        ("192.0.2.1;branch=z9hG4bKa;received=198.51.100.9", "192.0.2.1;branch=z9hG4bKa;received=192.0.2.1"),
    ],
)
def test_the_top_via_tells_where_the_request_really_came_from(via: str, expected: str) -> None:
    layer = make_layer()
    request = make_message(f"SIP/2.0/UDP {via}, SIP/2.0/TCP inner.test;branch=z9hG4bKb")
    layer.receive(request, FLOW, 0.0)
    event = take_request(layer)
    assert str(event.request.top_via) == f"SIP/2.0/UDP {expected}"
    layer.send_response(event.transaction, build_response(event.request, 200), 0.0)
    ((data, flow),) = layer.outgoing()
    assert flow is FLOW
    answer = parse_message(data)
    assert [str(found) for found in answer.vias] == [
        f"SIP/2.0/UDP {expected}",
        "SIP/2.0/TCP inner.test;branch=z9hG4bKb",
    ]


# --- matching -----------------------------------------------------------------------------------------------------


def test_requests_are_told_apart_by_branch_sent_by_and_method() -> None:
    layer = make_layer()
    for number, message in enumerate(
        (
            make_message(),
            make_message("SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bKtwo"),
            make_message("SIP/2.0/UDP 192.0.2.9:40000;branch=z9hG4bKone"),
            make_message("SIP/2.0/UDP 192.0.2.1:40001;branch=z9hG4bKone"),
            make_message(method="INFO"),
        )
    ):
        message.headers.set("Call-ID", f"call-{number}")
        layer.receive(message, FLOW, 0.0)
    assert len(layer.events()) == 5
    layer.receive(make_message(), FLOW, 0.0)
    assert layer.events() == []


@pytest.mark.parametrize("branch", ["", ";branch=1", ";branch=z9hG4bK"])
def test_a_peer_without_useful_branches_is_matched_as_in_rfc_2543(branch: str) -> None:
    """RFC 3261 section 17.2.3; the bare cookie is RFC 4475 section 3.1.2.15."""
    layer = make_layer()
    via = f"SIP/2.0/UDP 192.0.2.1{branch}"
    layer.receive(make_message(via, method="INVITE"), FLOW, 0.0)
    event = take_request(layer)
    layer.receive(make_message(via, method="INVITE"), FLOW, 0.1)
    assert layer.events() == []
    layer.receive(make_message(via, method="MESSAGE", cseq="2"), FLOW, 0.1)
    take_request(layer)
    cancel = make_message(via, method="CANCEL")
    layer.receive(cancel, FLOW, 0.1)
    assert layer.events() == [CancelReceived(event.transaction, cancel)]
    assert statuses_in(layer) == [200]
    layer.send_response(event.transaction, build_response(event.request, 487, to_tag="b1"), 0.2)
    layer.receive(make_message(via, method="ACK", to="<sip:ben@people.test>;tag=b1"), FLOW, 0.3)
    assert layer.events() == []
    layer.handle_timer(4.0)
    assert statuses_in(layer) == [487], "the ACK did not stop the repeats"


def test_the_ack_of_a_2xx_is_passed_up_whatever_its_branch() -> None:
    layer = make_layer()
    layer.receive(make_message(method="INVITE"), FLOW, 0.0)
    event = take_request(layer)
    layer.send_response(event.transaction, build_response(event.request, 200, to_tag="b1"), 0.0)
    for via in ("SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bKnew", "SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bKone"):
        layer.receive(make_message(via, method="ACK", to="<sip:ben@people.test>;tag=b1"), FLOW, 0.1)
        (ack,) = layer.events()
        assert isinstance(ack, AckReceived)


def test_a_response_that_matches_nothing_is_a_stray() -> None:
    layer = make_layer()
    response = build_response(make_message(), 200)
    layer.receive(response, FLOW, 0.0)
    assert layer.events() == [StrayResponse(response, FLOW)]


def test_a_response_with_two_vias_was_not_meant_for_us() -> None:
    """RFC 3261 section 8.1.3.3."""
    layer = make_layer()
    request = make_message()
    layer.send_request(request, FLOW, 0.0)
    response = build_response(request, 200)
    response.headers.add("Via", "SIP/2.0/UDP other.test;branch=z9hG4bKx")
    layer.receive(response, FLOW, 0.0)
    assert layer.events() == []


@pytest.mark.parametrize("spoil", [("Via", "nonsense"), ("From", "<"), ("To", '"x'), ("CSeq", "x"), ("Call-ID", "")])
@pytest.mark.parametrize("branch", ["z9hG4bKone", "old"])
@pytest.mark.parametrize("method", ["MESSAGE", "INVITE", "ACK", "CANCEL"])
def test_no_malformed_field_raises_out_of_the_layer(method: str, branch: str, spoil: tuple[str, str]) -> None:
    layer = make_layer()
    request = make_message(f"SIP/2.0/UDP 192.0.2.1;branch={branch}", method=method)
    request.headers.set(*spoil)
    layer.receive(request, FLOW, 0.0)
    for event in layer.events():
        if isinstance(event, RequestReceived):
            layer.send_response(event.transaction, build_response(event.request, 400), 0.0)
    response = build_response(make_message(), 200)
    response.headers.set(*spoil)
    layer.receive(response, FLOW, 0.0)


# --- merged requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE"])
@pytest.mark.parametrize("is_first_answered", [False, True])
def test_a_request_that_arrives_over_two_paths_is_merged(method: str, is_first_answered: bool) -> None:
    """RFC 3261 section 8.2.2.2."""
    layer = make_layer()
    layer.receive(make_message(method=method), FLOW, 0.0)
    first = take_request(layer)
    if is_first_answered:
        layer.send_response(first.transaction, build_response(first.request, 200, to_tag="b1"), 0.1)
        layer.outgoing()
    layer.receive(make_message("SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bKtwo", method=method), FLOW, 0.2)
    assert layer.events() == []
    assert statuses_in(layer) == [482]


@pytest.mark.parametrize(
    "change",
    [
        {"cseq": "2"},
        {"call_id": "c2"},
        {"from_": "<sip:ana@corp.test>;tag=a2"},
        {"to": "<sip:ben@people.test>;tag=b1"},
        {"from_": "<sip:ana@corp.test>"},
    ],
)
def test_requests_that_differ_or_are_in_a_dialog_are_not_merged(change: dict[str, str]) -> None:
    layer = make_layer()
    other = "SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bKtwo"
    layer.receive(make_message(to=change.get("to", "<sip:ben@people.test>")), FLOW, 0.0)
    take_request(layer)
    layer.receive(make_message(other, **change), FLOW, 0.1)
    take_request(layer)


def test_a_new_message_with_an_old_call_id_is_a_new_message() -> None:
    """Edge case 16: Call-ID alone identifies nothing."""
    layer = make_layer()
    for number in range(1, 4):
        via = f"SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bK{number}"
        layer.receive(make_message(via, cseq=str(number)), FLOW, float(number))
        take_request(layer)


def test_a_merged_request_is_remembered_no_longer_than_its_transaction() -> None:
    layer = make_layer()
    layer.receive(make_message(), FLOW, 0.0)
    first = take_request(layer)
    layer.send_response(first.transaction, build_response(first.request, 503, to_tag="b1"), 0.0)
    layer.handle_timer(33.0)
    layer.receive(make_message("SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bKtwo"), FLOW, 33.0)
    take_request(layer)


# --- CANCEL -------------------------------------------------------------------------------------------------------


def test_a_cancel_is_answered_and_told_with_its_invite() -> None:
    layer = make_layer()
    layer.receive(make_message(method="INVITE"), FLOW, 0.0)
    invite = take_request(layer)
    cancel = make_message(method="CANCEL")
    layer.receive(cancel, FLOW, 0.1)
    assert layer.events() == [CancelReceived(invite.transaction, cancel)]
    assert statuses_in(layer) == [200]
    layer.receive(make_message(method="CANCEL"), FLOW, 0.2)
    assert layer.events() == []
    assert statuses_in(layer) == [200]


def test_a_cancel_after_the_final_response_changes_nothing() -> None:
    """Edge case 35: CANCEL crossing 200 OK."""
    layer = make_layer()
    layer.receive(make_message(method="INVITE"), FLOW, 0.0)
    invite = take_request(layer)
    layer.send_response(invite.transaction, build_response(invite.request, 200, to_tag="b1"), 0.1)
    layer.receive(make_message(method="CANCEL"), FLOW, 0.2)
    assert layer.events() == []
    assert statuses_in(layer) == [200, 200]


@pytest.mark.parametrize("method", ["", "MESSAGE"])
def test_a_cancel_without_an_invite_is_answered_481(method: str) -> None:
    layer = make_layer()
    if method:
        layer.receive(make_message(method=method), FLOW, 0.0)
        take_request(layer)
    layer.receive(make_message(method="CANCEL"), FLOW, 0.1)
    assert layer.events() == []
    assert statuses_in(layer) == [481]


def test_both_branches_of_a_forked_invite_can_be_cancelled() -> None:
    layer = make_layer()
    other = "SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bKtwo"
    layer.receive(make_message(method="INVITE"), FLOW, 0.0)
    take_request(layer)
    layer.receive(make_message(other, method="INVITE"), FLOW, 0.0)
    assert statuses_in(layer) == [482]
    layer.receive(make_message(method="CANCEL"), FLOW, 0.1)
    layer.receive(make_message(other, method="CANCEL"), FLOW, 0.1)
    assert [type(event) for event in layer.events()] == [CancelReceived]
    assert statuses_in(layer) == [200, 200]


def test_a_call_is_cancelled_across_the_network() -> None:
    network = MemoryNetwork()
    network.ben.on_event = lambda event: (
        network.ben.respond(event.transaction, 487) if isinstance(event, CancelReceived) else None
    )
    invite = network.ana.send("INVITE")
    network.advance(0.1)
    network.ben.respond(network.ben.transactions[0], 180)
    network.advance(1)
    network.ana.cancel(invite)
    network.advance(60)
    assert network.ana.statuses == [180, 487]
    assert network.ana.layer.pending == network.ben.layer.pending == 0


# --- bounds -------------------------------------------------------------------------------------------------------


def test_beyond_the_bound_of_unanswered_requests_new_ones_are_refused_without_state() -> None:
    layer = make_layer(maximum_pending=2)
    for number in range(3):
        via = f"SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bK{number}"
        layer.receive(make_message(via, cseq=str(number)), FLOW, 0.0)
    assert len(layer.events()) == 2
    assert layer.pending == 2
    assert statuses_in(layer) == [503]


def test_beyond_the_bound_of_kept_answers_the_oldest_are_shed() -> None:
    layer = make_layer(maximum_completed=100)
    for number in range(200):
        via = f"SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bK{number}"
        layer.receive(make_message(via, cseq=str(number)), FLOW, number / 10)
        event = take_request(layer)
        layer.send_response(event.transaction, build_response(event.request, 202, to_tag="b1"), number / 10)
        assert layer.completed <= 100
    layer.receive(make_message("SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bK199", cseq="199"), FLOW, 20.0)
    assert layer.events() == []


def test_a_finished_transaction_costs_about_half_a_kilobyte() -> None:
    layer, count = make_layer(), 500

    def exchange(number: int) -> None:
        via = f"SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bK{number:016d}"
        layer.receive(make_message(via, cseq=str(number), call_id=f"{number:032x}"), FLOW, number / 5000)
        event = take_request(layer)
        layer.send_response(event.transaction, build_response(event.request, 202, to_tag="b1"), number / 5000)
        layer.outgoing()

    exchange(0)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(1, count + 1):
        exchange(number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert layer.completed == count + 1
    assert (after - before) / count < 800


# --- flows --------------------------------------------------------------------------------------------------------


def test_only_transactions_of_the_broken_flow_fail() -> None:
    layer = make_layer()
    other = Flow("tcp", "192.0.2.7", 5060, connection=9)
    one = layer.send_request(make_message("SIP/2.0/UDP a.test;branch=z9hG4bK1"), FLOW, 0.0)
    layer.send_request(make_message("SIP/2.0/UDP a.test;branch=z9hG4bK2"), other, 0.0)
    layer.receive(make_message(method="INVITE"), FLOW, 0.0)
    invite = take_request(layer)
    layer.transport_failed(FLOW, 0.1)
    failed = layer.events()
    assert all(isinstance(event, TransactionFailed) for event in failed)
    assert {event.transaction for event in failed if isinstance(event, TransactionFailed)} == {one, invite.transaction}
    assert layer.pending == 2
    layer.transport_failed(FLOW, 0.2)
    layer.transport_failed(Flow("udp", "198.51.100.1", 1), 0.2)


def test_the_branch_of_a_flow_leaves_nothing_behind() -> None:
    layer = make_layer()
    for number in range(10):
        request = make_message(f"SIP/2.0/UDP a.test;branch=z9hG4bK{number}")
        layer.send_request(request, FLOW, 0.0)
        layer.receive(build_response(request, 200), FLOW, 0.0)
    layer.handle_timer(10.0)
    assert layer.pending == 0
    assert layer._on_flow == {}


# --- two layers against each other --------------------------------------------------------------------------------


WEATHERS = st.builds(
    Weather,
    loss=st.floats(0, 0.5),
    duplication=st.floats(0, 0.5),
    delay=st.floats(0.001, 0.2),
    jitter=st.floats(0, 0.8),
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["udp", "tcp"]),
    WEATHERS,
    st.integers(0, 2**32),
    st.lists(st.sampled_from(["MESSAGE", "INVITE"]), min_size=1, max_size=6),
    st.sampled_from([200, 202, 404, 486, 500, 603]),
    st.floats(0, 3),
)
def test_over_any_network_each_request_arrives_at_most_once_and_ends_exactly_once(
    transport: str, weather: Weather, seed: int, methods: list[str], status: int, thinking_seconds: float
) -> None:
    network = MemoryNetwork(transport=transport, weather=weather, seed=seed)

    def answer_later(event: Event) -> None:
        if isinstance(event, RequestReceived):
            network.clock.call_later(thinking_seconds, lambda: network.ben.respond(event.transaction, status))

    network.ben.on_event = answer_later
    sent = []
    for number, method in enumerate(methods):
        sent.append(network.ana.send(method, call_id=f"call-{number}"))
        network.advance(0.3)
    network.advance(300)  # longer than an INVITE can wait: Timer C, then 64*T1 after its CANCEL

    arrived = [request.call_id for request in network.ben.requests]
    assert len(arrived) == len(set(arrived)), "a repeat reached the user as a new request"
    for number, transaction in enumerate(sent):
        finals = [
            event
            for event in network.ana.seen
            if (isinstance(event, TransactionTimedOut) and event.transaction is transaction)
            or (
                isinstance(event, ResponseReceived)
                and event.transaction is transaction
                and event.response.status >= 200
            )
        ]
        if transaction.is_invite and status < 300:
            # Every 2xx is passed up, and this user does not repeat it: none may arrive.
            assert len(finals) <= 2
        else:
            assert len(finals) == 1
        if any(isinstance(event, ResponseReceived) for event in finals):
            assert f"call-{number}" in arrived
    assert network.ana.layer.pending == network.ben.layer.pending == 0
    assert network.ana.layer.next_deadline() is None
    assert network.ben.layer.next_deadline() is None
