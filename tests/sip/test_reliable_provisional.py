"""RFC 3262 at both ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.message import SipResponse, build_response
from isthmus.sip.reliable_provisional import (
    Delivery,
    Provisional,
    RAck,
    ReliableProvisionals,
    ReliableReceipts,
    rseq_of,
)
from isthmus.sip.validation import has_option
from tests.support.sip import sip_request

NOW = 50.0


def provisionals() -> ReliableProvisionals:
    return ReliableProvisionals(cseq=7, first_rseq=100, t1_seconds=0.5)


def reliable(rseq: str, status: int = 180, require: str = "100rel") -> SipResponse:
    request = sip_request("INVITE", "sip:ben@people.test", sender="sip:ana@corp.test", cseq=7)
    return build_response(request, status, headers=[("Require", require), ("RSeq", rseq)], to_tag="x")


def test_a_rack_is_read_and_written() -> None:
    assert RAck.parse("776656 1 INVITE") == RAck(776656, 1, "INVITE")
    assert str(RAck(776656, 1, "INVITE")) == "776656 1 INVITE"


@pytest.mark.parametrize("text", ["", "1 INVITE", "1 2 3 INVITE", "x 1 INVITE", "1 99999999999 INVITE", "1 1 IN,VITE"])
def test_a_malformed_rack_is_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        RAck.parse(text)


def test_a_response_is_repeated_with_doubling_pauses_and_given_up_after_64_t1() -> None:
    ours = provisionals()
    assert ours.send(180, b"", NOW) == Provisional(180, b"", 100)
    repeats = []
    while (deadline := ours.next_deadline()) is not None:
        what = ours.due(deadline)
        repeats.append((round(deadline - NOW, 3), what))
    assert repeats == [
        (0.5, Delivery.REPEAT),
        (1.5, Delivery.REPEAT),
        (3.5, Delivery.REPEAT),
        (7.5, Delivery.REPEAT),
        (15.5, Delivery.REPEAT),
        (31.5, Delivery.REPEAT),
        (32.0, Delivery.GIVE_UP),
    ], "no ceiling of T2 (section 3)"


def test_the_next_response_goes_out_after_the_prack_with_the_next_number() -> None:
    ours = provisionals()
    ours.send(180, b"", NOW)
    assert ours.send(180, b"", NOW) is None
    assert ours.send(183, b"sdp", NOW) is None
    assert ours.next(NOW) is None
    assert ours.acknowledge(RAck(100, 7, "INVITE")) == Provisional(180, b"", 100)
    assert ours.next(NOW + 1) == Provisional(183, b"sdp", 101), "the second 180 said nothing new"
    waits = [ours.must_final_wait]
    assert ours.acknowledge(RAck(101, 7, "INVITE")) is not None
    assert [*waits, ours.must_final_wait] == [True, False]
    assert ours.next(NOW) is None
    assert ours.next_deadline() is None


@pytest.mark.parametrize("rack", [RAck(101, 7, "INVITE"), RAck(100, 8, "INVITE"), RAck(100, 7, "UPDATE")])
def test_a_prack_of_something_else_is_not_matched(rack: RAck) -> None:
    ours = provisionals()
    assert ours.acknowledge(RAck(100, 7, "INVITE")) is None
    ours.send(180, b"", NOW)
    assert ours.acknowledge(rack) is None
    assert ours.unacknowledged is not None


def test_a_final_response_ends_the_repeats() -> None:
    ours = provisionals()
    ours.send(180, b"", NOW)
    ours.stop()
    assert ours.next_deadline() is None
    assert ours.acknowledge(RAck(100, 7, "INVITE")) is not None, "a PRACK on its way is still matched"


def test_responses_are_taken_in_order_and_once() -> None:
    theirs = ReliableReceipts()
    assert theirs.receive(reliable("17")) == RAck(17, 7, "INVITE")
    assert theirs.receive(reliable("17")) is None
    assert theirs.receive(reliable("19")) is None
    assert theirs.receive(reliable("18")) == RAck(18, 7, "INVITE")


@pytest.mark.parametrize(
    "response", [reliable("x"), reliable("0"), reliable("1", require="timer"), reliable("1", 100), reliable("1", 200)]
)
def test_what_is_not_reliable_gets_no_prack(response: SipResponse) -> None:
    assert rseq_of(response) is None
    assert not ReliableReceipts().is_reliable(response)


def test_option_tags_are_found_in_lists_whatever_else_stands_there() -> None:
    request = sip_request(
        "INVITE",
        "sip:ben@people.test",
        sender="sip:ana@corp.test",
        headers=[("Supported", "timer, 100REL"), ("Require", '"')],
    )
    assert has_option(request, "100rel")
    assert not has_option(request, "100rel", "require")


@given(st.lists(st.tuples(st.sampled_from(["send", "ack", "wrong", "time", "stop"]), st.integers(0, 3)), max_size=30))
def test_whatever_comes_only_one_response_is_open_and_numbers_rise_by_one(steps: list[tuple[str, int]]) -> None:
    ours, now, sent = provisionals(), NOW, [99]

    def note(provisional: Provisional | None) -> None:
        if provisional is not None:
            assert provisional.rseq == sent[-1] + 1
            sent.append(provisional.rseq)

    for step, number in steps:
        if step == "send":
            note(ours.send(180 + number, b"x" * number, now))
        elif step == "ack" and ours.unacknowledged is not None:
            assert ours.acknowledge(RAck(sent[-1], 7, "INVITE")) is not None
            note(ours.next(now))
        elif step == "wrong":
            assert ours.acknowledge(RAck(sent[-1] + 1, 7, "INVITE")) is None
        elif step == "time":
            now += number
            ours.due(now)
        elif step == "stop":
            ours.stop()
