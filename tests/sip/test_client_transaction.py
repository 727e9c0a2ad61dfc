"""The four client machines: every (state, input) pair, and what each state does on the wire."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.sip.client_transaction import ClientInput, ClientState, input_of, machine_for
from isthmus.sip.message import SipResponse, build_response
from isthmus.sip.timers import TimerTable
from isthmus.sip.transaction_layer import (
    ResponseReceived,
    StrayResponse,
    TransactionFailed,
    TransactionTimedOut,
)
from tests.support.memory_network import MemoryNetwork

KINDS = [(True, False), (True, True), (False, False), (False, True)]
STATUS_OF = {ClientInput.PROVISIONAL: 180, ClientInput.SUCCESS: 200, ClientInput.FAILURE: 486}


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


def make_network(is_stream: bool) -> MemoryNetwork:
    network = MemoryNetwork(transport="tcp" if is_stream else "udp")
    network.is_up = False
    return network


def answer(network: MemoryNetwork, transaction: object, status: int) -> SipResponse:
    request = transaction.request  # type: ignore[attr-defined]  # a ClientTransaction
    return build_response(request, status, to_tag="b1")


@given(st.sampled_from(KINDS), st.lists(st.sampled_from(list(ClientInput)), max_size=12))
def test_no_sequence_of_inputs_breaks_a_machine_or_leaks_a_timer(
    kind: tuple[bool, bool], script: list[ClientInput]
) -> None:
    is_invite, is_stream = kind
    network = make_network(is_stream)
    layer, now = network.ana.layer, 0.0
    transaction = layer.send_request(
        network.ana.make_request("INVITE" if is_invite else "MESSAGE"), network.ana.flow, now
    )
    finals = 0
    for happened in script:
        now += 0.1
        before = transaction.state
        status = STATUS_OF.get(happened)
        transaction.step(happened, layer, now, answer(network, transaction, status) if status else None)
        row = machine_for(is_invite, is_stream).rows[before].get(happened)
        assert transaction.state == (row.next_state if row else before)
        assert transaction.state >= before or before == ClientState.CALLING
        for event in layer.events():
            if isinstance(event, ResponseReceived) and event.response.status >= 300:
                finals += 1
            if isinstance(event, TransactionTimedOut | TransactionFailed):
                finals += 1
        if transaction.state is ClientState.TERMINATED:
            assert transaction.repeat_lane is None
            assert transaction.limit_lane is None
    assert finals <= 1
    # Whatever happened, time ends it.
    for _ in range(200):
        deadline = layer.next_deadline()
        if deadline is None:
            break
        layer.handle_timer(max(now, deadline))
        now = max(now, deadline)
    assert layer.pending == 0
    assert layer.next_deadline() is None


def times_of(network: MemoryNetwork, seconds: float) -> list[float]:
    """When ana wrote, in seconds after her first message."""
    network.advance(seconds)
    return [round(at - network.ana.sent_at[0], 3) for at in network.ana.sent_at]


def test_an_invite_on_udp_is_repeated_at_doubling_intervals_and_given_up_after_64_t1() -> None:
    network = make_network(is_stream=False)
    transaction = network.ana.send("INVITE")
    assert times_of(network, 40) == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert network.ana.seen == [TransactionTimedOut(transaction)]
    assert network.ana.layer.pending == 0


def test_another_request_on_udp_is_repeated_up_to_every_t2() -> None:
    network = make_network(is_stream=False)
    transaction = network.ana.send("MESSAGE")
    expected = [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert times_of(network, 40) == expected
    assert network.ana.seen == [TransactionTimedOut(transaction)]


def test_a_provisional_response_slows_repeats_of_other_requests_down_to_t2() -> None:
    network = make_network(is_stream=False)
    transaction = network.ana.send("MESSAGE")
    network.ana.receive_bytes(answer(network, transaction, 100).to_bytes())
    assert times_of(network, 40) == [0.0, 0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5]
    assert network.ana.statuses == [100]
    assert network.ana.seen[-1] == TransactionTimedOut(transaction)


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_nothing_is_repeated_on_a_stream(method: str) -> None:
    network = make_network(is_stream=True)
    transaction = network.ana.send(method)
    assert times_of(network, 40) == [0.0]
    assert network.ana.seen == [TransactionTimedOut(transaction)]


def test_a_provisional_response_stops_the_repeats_of_an_invite() -> None:
    network = make_network(is_stream=False)
    transaction = network.ana.send("INVITE")
    network.ana.receive_bytes(answer(network, transaction, 180).to_bytes())
    assert times_of(network, 60) == [0.0]
    assert transaction.state is ClientState.PROCEEDING


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_failed_invite_is_acknowledged_on_the_same_branch_and_way(is_stream: bool) -> None:
    network = make_network(is_stream)
    transaction = network.ana.send("INVITE", cseq=7, headers=(("Route", "<sip:p1.test;lr>, <sip:p2.test;lr>"),))
    response = answer(network, transaction, 486)
    network.ana.receive_bytes(response.to_bytes())
    assert network.ana.statuses == [486]
    ack = network.ana.sent[1].decode()
    request = transaction.request
    assert ack.startswith("ACK sip:ben@people.test SIP/2.0\r\n")
    assert f"branch={request.branch}" in ack
    assert ack.count("Via:") == 1
    assert "Route: <sip:p1.test;lr>, <sip:p2.test;lr>\r\n" in ack
    assert "To: <sip:ben@people.test>;tag=b1\r\n" in ack
    assert "CSeq: 7 ACK\r\n" in ack
    assert transaction.is_over


def test_a_repeated_failure_is_acknowledged_again_but_not_passed_up_again() -> None:
    network = make_network(is_stream=False)
    transaction = network.ana.send("INVITE")
    response = answer(network, transaction, 486).to_bytes()
    for _ in range(3):
        network.ana.receive_bytes(response)
    assert network.ana.statuses == [486]
    assert network.ana.first_lines()[1:] == ["ACK sip:ben@people.test"] * 3
    network.advance(33)
    assert network.ana.layer.pending == 0


def test_every_2xx_of_a_forked_invite_is_passed_up_for_64_t1() -> None:
    """RFC 6026: the Accepted state."""
    network = make_network(is_stream=False)
    transaction = network.ana.send("INVITE")
    for tag in ("one", "two"):
        network.ana.receive_bytes(build_response(transaction.request, 200, to_tag=tag).to_bytes())
        network.advance(10)
    assert [response.to_address.tag for response in network.ana.responses] == ["one", "two"]
    network.advance(22.5)
    late = build_response(transaction.request, 200, to_tag="three")
    network.ana.receive_bytes(late.to_bytes())
    assert isinstance(network.ana.seen[-1], StrayResponse)
    assert len(network.ana.sent) == 1  # the user acknowledges a 2xx, not the transaction


def test_a_2xx_after_a_failure_reaches_the_user_as_a_stray() -> None:
    network = make_network(is_stream=False)
    transaction = network.ana.send("INVITE")
    network.ana.receive_bytes(answer(network, transaction, 603).to_bytes())
    network.ana.receive_bytes(answer(network, transaction, 200).to_bytes())
    assert isinstance(network.ana.seen[-1], StrayResponse)


def test_repeated_answers_to_other_requests_are_absorbed_for_t4() -> None:
    network = make_network(is_stream=False)
    transaction = network.ana.send("MESSAGE")
    response = answer(network, transaction, 200).to_bytes()
    network.ana.receive_bytes(response)
    assert network.ana.layer.pending == 0
    network.advance(4.9)
    network.ana.receive_bytes(response)
    assert network.ana.statuses == [200]
    assert len(network.ana.seen) == 1
    network.advance(1.0)
    network.ana.receive_bytes(response)
    assert isinstance(network.ana.seen[-1], StrayResponse)


def test_cancel_waits_for_a_provisional_response() -> None:
    """RFC 3261 section 9.1."""
    network = make_network(is_stream=False)
    transaction = network.ana.send("INVITE", cseq=3)
    network.ana.cancel(transaction)
    assert network.ana.first_lines() == ["INVITE sip:ben@people.test"]
    network.ana.receive_bytes(answer(network, transaction, 180).to_bytes())
    assert network.ana.first_lines()[-1] == "CANCEL sip:ben@people.test"
    cancel = network.ana.sent[-1].decode()
    assert f"branch={transaction.request.branch}" in cancel
    assert "CSeq: 3 CANCEL\r\n" in cancel
    network.ana.cancel(transaction)
    assert network.ana.first_lines().count("CANCEL sip:ben@people.test") == 1


def test_an_invite_without_an_answer_to_its_cancel_ends_after_64_t1() -> None:
    network = make_network(is_stream=False)
    transaction = network.ana.send("INVITE")
    network.ana.receive_bytes(answer(network, transaction, 180).to_bytes())
    network.ana.cancel(transaction)
    network.ana.receive_bytes(answer(network, transaction, 180).to_bytes())  # ringing on must not prolong it
    network.advance(32.1)
    assert network.ana.seen[-1] == TransactionTimedOut(transaction)
    assert network.ana.layer.pending == 0


def test_a_2xx_that_is_faster_than_the_cancel_reaches_the_user() -> None:
    """Edge case 35: CANCEL crossing 200 OK."""
    network = make_network(is_stream=False)
    transaction = network.ana.send("INVITE")
    network.ana.receive_bytes(answer(network, transaction, 180).to_bytes())
    network.ana.cancel(transaction)
    network.ana.receive_bytes(answer(network, transaction, 200).to_bytes())
    assert network.ana.statuses == [180, 200]


def test_an_invite_that_rings_too_long_is_cancelled_and_ringing_prolongs_it() -> None:
    network = make_network(is_stream=True)
    transaction = network.ana.send("INVITE")
    network.ana.receive_bytes(answer(network, transaction, 180).to_bytes())
    network.advance(170)
    network.ana.receive_bytes(answer(network, transaction, 180).to_bytes())
    network.advance(170)
    assert "CANCEL sip:ben@people.test" not in network.ana.first_lines()
    network.advance(12)
    assert network.ana.first_lines()[-1] == "CANCEL sip:ben@people.test"


def test_a_100_does_not_prolong_timer_c() -> None:
    network = make_network(is_stream=True)
    transaction = network.ana.send("INVITE")
    for _ in range(4):
        network.ana.receive_bytes(answer(network, transaction, 100).to_bytes())
        network.advance(50)
    assert network.ana.first_lines()[-1] == "CANCEL sip:ben@people.test"


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_a_broken_flow_fails_what_is_under_way_on_it(method: str) -> None:
    network = make_network(is_stream=True)
    transaction = network.ana.send(method)
    network.ana.break_flow()
    assert network.ana.seen == [TransactionFailed(transaction)]
    assert network.ana.layer.pending == 0


def test_responses_are_sorted_into_three_kinds() -> None:
    kinds = [input_of(SipResponse(status)) for status in (100, 199, 200, 299, 300, 401, 503, 699)]
    assert kinds == [ClientInput.PROVISIONAL] * 2 + [ClientInput.SUCCESS] * 2 + [ClientInput.FAILURE] * 4


def test_scaled_timers_keep_their_proportions() -> None:
    network = MemoryNetwork(timers=TimerTable(t1=0.1, t2=0.4))
    network.is_up = False
    network.ana.send("MESSAGE")
    times = times_of(network, 7)
    assert times[:5] == [0.0, 0.1, 0.3, 0.7, 1.1]
    assert all(later - earlier <= 0.41 for earlier, later in pairwise(times))
