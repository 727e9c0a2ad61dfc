"""The four server machines: every (state, input) pair, and what each state does on the wire."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isthmus.sip.message import SipResponse, build_response
from isthmus.sip.server_transaction import ServerInput, ServerState, input_of, machine_for
from isthmus.sip.transaction_layer import RequestReceived, TransactionTimedOut
from tests.support.memory_network import MemoryNetwork

KINDS = [(True, False), (True, True), (False, False), (False, True)]
STATUS_OF = {ServerInput.PROVISIONAL: 180, ServerInput.SUCCESS: 200, ServerInput.FAILURE: 486}


@pytest.mark.parametrize(("is_invite", "is_stream"), KINDS)
def test_every_pair_of_state_and_input_is_a_row_or_ignored_for_a_reason(is_invite: bool, is_stream: bool) -> None:
    machine = machine_for(is_invite, is_stream)
    for state in machine.states:
        for happened in machine.inputs:
            is_row = happened in machine.rows[state]
            is_ignored = happened in machine.ignored[state]
            assert is_row != is_ignored, f"{state.name}, {happened.name}"
            if is_ignored:
                assert len(machine.ignored[state][happened]) > 10


@given(st.sampled_from(KINDS), st.lists(st.sampled_from(list(ServerInput)), max_size=12))
@example((True, True), [ServerInput(7), ServerInput(102), ServerInput(105), ServerInput(15), ServerInput(7)])
def test_no_sequence_of_inputs_breaks_a_machine_or_leaks_a_timer(
    kind: tuple[bool, bool], script: list[ServerInput]
) -> None:
    is_invite, is_stream = kind
    network = MemoryNetwork(transport="tcp" if is_stream else "udp")
    layer, flow, now = network.ben.layer, network.ben.flow, 0.0
    method = "INVITE" if is_invite else "MESSAGE"
    layer.receive(network.ana.make_request(method), flow, now)
    (event,) = layer.events()
    assert isinstance(event, RequestReceived)
    transaction = event.transaction
    finals: set[bytes] = set()
    for happened in script:
        now += 0.1
        before = transaction.state
        message: SipResponse | None = None
        if happened in STATUS_OF:
            message = build_response(transaction.request, STATUS_OF[happened], to_tag="b1")
        transaction.step(happened, layer, now, message)
        row = machine_for(is_invite, is_stream).rows[before].get(happened)
        assert transaction.state == (row.next_state if row else before)
        assert transaction.state >= before
        finals |= {data for data, _ in layer.outgoing() if not data.startswith(b"SIP/2.0 1")}
        if transaction.state is ServerState.TERMINATED:
            assert transaction.repeat_lane is None
            assert transaction.limit_lane is None
    assert len(finals) <= 1, "two different final responses went out"
    if not transaction.is_answered:
        layer.send_response(transaction, build_response(transaction.request, 500, to_tag="b1"), now)
    for _ in range(200):
        deadline = layer.next_deadline()
        if deadline is None:
            break
        now = max(now, deadline)
        layer.handle_timer(now)
    assert layer.pending == 0
    assert layer.completed == 0
    assert layer.next_deadline() is None


def received(transport: str = "udp", method: str = "INVITE") -> MemoryNetwork:
    """A network where a request of ana has just reached ben, and nothing more will reach ana."""
    network = MemoryNetwork(transport=transport)
    network.ana.send(method)
    network.advance(0.02)
    network.is_up = False
    return network


def test_an_invite_is_answered_100_when_the_user_is_silent_for_200_ms() -> None:
    network = received()
    network.advance(0.18)
    assert network.ben.sent == []
    network.advance(0.02)
    assert network.ben.first_lines() == ["100 Trying"]
    assert b"tag=b1" not in network.ben.sent[0]
    network.advance(10)
    assert len(network.ben.sent) == 1


def test_a_quick_user_needs_no_100() -> None:
    network = received()
    network.ben.respond(network.ben.transactions[0], 180)
    network.advance(1)
    assert network.ben.first_lines() == ["180 Ringing"]


def test_a_repeated_invite_gets_the_last_provisional_response_again() -> None:
    network = received()
    network.ben.respond(network.ben.transactions[0], 180)
    network.ben.receive_bytes(network.ana.sent[0])
    assert network.ben.first_lines() == ["180 Ringing"] * 2
    assert len(network.ben.requests) == 1


def test_a_failure_is_repeated_until_64_t1_when_no_ack_comes() -> None:
    network = received()
    transaction = network.ben.transactions[0]
    network.ben.respond(transaction, 486)
    network.advance(33)
    # 0 0.5 1.5 3.5 7.5 11.5 ... 31.5
    assert network.ben.first_lines() == ["486 Busy Here"] * 11
    assert network.ben.seen[-1] == TransactionTimedOut(transaction)
    assert network.ben.layer.pending == 0


def test_a_failure_on_a_stream_is_sent_once() -> None:
    network = received("tcp")
    network.ben.respond(network.ben.transactions[0], 486)
    network.advance(31)
    assert network.ben.first_lines() == ["486 Busy Here"]
    network.advance(2)
    assert isinstance(network.ben.seen[-1], TransactionTimedOut)


def test_the_ack_of_a_failure_stops_the_repeats_and_is_not_passed_up() -> None:
    network = MemoryNetwork()
    network.ana.send("INVITE")
    network.advance(0.02)
    network.ben.respond(network.ben.transactions[0], 486)
    network.advance(60)
    assert network.ben.first_lines() == ["486 Busy Here"]
    assert network.ben.acks == []
    assert network.ana.statuses == [486]
    assert network.ben.layer.pending == network.ana.layer.pending == 0


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_accepted_invite_absorbs_repeats_for_64_t1_and_lets_the_user_repeat_the_2xx(transport: str) -> None:
    """RFC 6026: a repeated INVITE after the 2xx is not a new call."""
    network = received(transport)
    transaction = network.ben.transactions[0]
    network.ben.respond(transaction, 200)
    network.advance(31)
    network.ben.receive_bytes(network.ana.sent[0])
    assert len(network.ben.requests) == 1
    network.ben.respond(transaction, 200)
    assert network.ben.first_lines() == ["200 OK"] * 2
    network.ben.respond(transaction, 486)
    assert network.ben.first_lines() == ["200 OK"] * 2
    network.advance(2)
    assert network.ben.layer.pending == 0


def test_a_repeated_request_gets_the_same_answer_again_until_timer_j_ends() -> None:
    network = received(method="MESSAGE")
    network.ben.respond(network.ben.transactions[0], 202)
    network.advance(31)
    network.ben.receive_bytes(network.ana.sent[0])
    assert network.ben.sent[0] == network.ben.sent[1]
    assert len(network.ben.requests) == 1
    assert network.ben.layer.completed == 1
    network.advance(2)
    assert network.ben.layer.completed == 0


def test_a_request_on_a_stream_is_forgotten_with_its_answer() -> None:
    network = received("tcp", "MESSAGE")
    network.ben.respond(network.ben.transactions[0], 202)
    assert network.ben.layer.pending == network.ben.layer.completed == 0


def test_a_slow_answer_is_announced_by_a_100_only_when_the_client_repeats_late() -> None:
    """RFC 4320 section 4.1."""
    network = received(method="MESSAGE")
    network.advance(1)
    network.ben.receive_bytes(network.ana.sent[0])
    assert network.ben.sent == []
    network.advance(3)
    network.ben.receive_bytes(network.ana.sent[0])
    assert network.ben.first_lines() == ["100 Trying"]
    network.ben.respond(network.ben.transactions[0], 202)
    assert network.ben.first_lines() == ["100 Trying", "202 Accepted"]


@pytest.mark.parametrize("status", [100, 180, 183, 408])
def test_other_requests_get_neither_provisional_responses_nor_408(status: int) -> None:
    """RFC 4320: such a 408 or 1xx only does harm."""
    network = received(method="MESSAGE")
    network.ben.respond(network.ben.transactions[0], status)
    assert network.ben.sent == []


def test_a_request_that_nobody_answers_is_given_up_when_its_client_has() -> None:
    network = received(method="MESSAGE")
    transaction = network.ben.transactions[0]
    network.advance(33)
    assert network.ben.seen[-1] == TransactionTimedOut(transaction)
    network.ben.respond(transaction, 200)
    assert network.ben.sent == []
    assert network.ben.layer.pending == 0


def test_only_the_first_final_response_goes_out() -> None:
    network = received(method="MESSAGE")
    network.ben.respond(network.ben.transactions[0], 202)
    network.ben.respond(network.ben.transactions[0], 500)
    assert network.ben.first_lines() == ["202 Accepted"]


def test_statuses_are_sorted_into_three_kinds() -> None:
    kinds = [input_of(status) for status in (100, 199, 200, 299, 300, 699)]
    expected = [ServerInput.PROVISIONAL] * 2 + [ServerInput.SUCCESS] * 2 + [ServerInput.FAILURE] * 2
    assert kinds == expected
