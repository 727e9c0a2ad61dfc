"""RFC 4028: who refreshes, when, and when the other end counts as gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.session_timer import SessionExpires, SessionTimer, TimerAction
from tests.support.sip import sip_request

NOW = 100.0


def request(*headers: tuple[str, str]) -> SipRequest:
    return sip_request("INVITE", "sip:ben@people.test", sender="sip:ana@corp.test", headers=headers)


def response(status: int, *headers: tuple[str, str]) -> SipResponse:
    return build_response(request(), status, headers=headers)


def test_the_header_field_is_read_and_written() -> None:
    assert SessionExpires.parse(" 1800 ; refresher=UAS;x") == SessionExpires(1800, "uas")
    assert str(SessionExpires(90, "uac")) == "90;refresher=uac"
    assert SessionExpires.parse("90;refresher=proxy").refresher == ""
    with pytest.raises(SipParseError):
        SessionExpires.parse("soon")


# RFC 4028 section 9, tables 1 and 2: who refreshes.
@pytest.mark.parametrize(
    ("headers", "refresher", "requires"),
    [
        ((("Supported", "timer"), ("Session-Expires", "300")), "uac", True),
        ((("Supported", "timer"), ("Session-Expires", "300;refresher=uac")), "uac", True),
        ((("Supported", "timer"), ("Session-Expires", "300;refresher=uas")), "uas", False),
        ((("Require", "timer"), ("Session-Expires", "300")), "uac", True),
        ((("Session-Expires", "300"),), "uas", False),
        ((("Session-Expires", "300;refresher=uac"),), "uas", False),
        ((), "uas", False),
        ((("Supported", "timer"),), "uac", True),
    ],
)
def test_a_server_chooses_the_refresher(headers: tuple[tuple[str, str], ...], refresher: str, requires: bool) -> None:
    timer = SessionTimer()
    answer = dict(timer.answer(request(*headers), NOW))
    assert SessionExpires.parse(answer["Session-Expires"]).refresher == refresher
    assert answer.get("Require") == ("timer" if requires else None)
    assert timer.is_refresher == (refresher == "uas")


@given(wanted=st.integers(0, 10_000), floor=st.none() | st.integers(0, 10_000), ours=st.integers(0, 10_000))
def test_a_server_only_lowers_the_interval_and_never_below_what_the_client_wants(
    wanted: int, floor: int | None, ours: int
) -> None:
    fields = [("Supported", "timer"), ("Session-Expires", str(wanted))]
    asked = request(*fields, *([("Min-SE", str(floor))] if floor is not None else []))
    timer = SessionTimer(interval_seconds=ours)
    if timer.refusal(asked):
        assert wanted < 90
        return
    timer.answer(asked, NOW)
    least = max(floor or 90, 90)
    assert timer.interval_seconds >= least
    assert timer.interval_seconds <= max(wanted, least)


def test_too_short_an_interval_is_refused_only_where_the_client_understands_why() -> None:
    timer = SessionTimer(minimum_seconds=120)
    assert timer.refusal(request(("Supported", "timer"), ("Session-Expires", "100"))) == [("Min-SE", "120")]
    assert timer.refusal(request(("Session-Expires", "100"))) == []
    assert timer.refusal(request(("Supported", "timer"))) == []


def test_a_client_raises_its_interval_to_the_largest_minimum_it_has_seen() -> None:
    timer = SessionTimer(interval_seconds=100)
    assert timer.interval_was_refused(response(422, ("Min-SE", "300")))
    assert timer.request_headers() == [("Session-Expires", "300"), ("Min-SE", "300")]
    assert not timer.interval_was_refused(response(422, ("Min-SE", "200"))), "it would be refused again"
    assert not timer.interval_was_refused(response(422))
    assert timer.copy().request_headers() == timer.request_headers()


def test_the_refresher_refreshes_at_half_time_and_gives_up_before_the_end() -> None:
    timer = SessionTimer()
    timer.accepted(response(200, ("Session-Expires", "600;refresher=uac")), NOW)
    assert timer.is_refresher
    assert timer.next_deadline() == NOW + 300
    assert timer.due(NOW + 299) is None
    assert timer.due(NOW + 300) is TimerAction.REFRESH
    assert timer.due(NOW + 301) is None, "once"
    assert timer.next_deadline() == NOW + 600 - 32
    assert timer.due(NOW + 568) is TimerAction.EXPIRE
    assert timer.next_deadline() is None


@pytest.mark.parametrize(("interval", "margin"), [(90, 30), (96, 32), (1800, 32)])
def test_the_margin_is_a_third_but_at_most_32_seconds(interval: int, margin: int) -> None:
    timer = SessionTimer()
    timer.accepted(response(200, ("Session-Expires", f"{interval};refresher=uas")), NOW)
    assert not timer.is_refresher
    assert timer.next_deadline() == NOW + interval - margin


def test_a_refresh_begins_the_interval_anew_and_names_who_refreshes() -> None:
    timer = SessionTimer()
    timer.accepted(response(200, ("Session-Expires", "600;refresher=uas")), NOW)
    assert ("Session-Expires", "600;refresher=uas") in timer.request_headers()
    timer.answer(request(("Supported", "timer"), ("Session-Expires", "600;refresher=uac")), NOW + 300)
    assert timer.next_deadline() == NOW + 300 + 600 - 32


def test_a_peer_without_the_extension_is_refreshed_by_us() -> None:
    timer = SessionTimer(interval_seconds=200)
    timer.accepted(response(200), NOW)
    assert timer.is_refresher
    assert timer.next_deadline() == NOW + 100


def test_a_refresh_that_was_not_possible_is_tried_again_before_the_end() -> None:
    timer = SessionTimer(interval_seconds=600)
    timer.accepted(response(200), NOW)
    assert timer.due(NOW + 300) is TimerAction.REFRESH
    timer.refresh_failed(NOW + 300)
    assert timer.next_deadline() == NOW + 300 + 134
    timer.stop()
    timer.refresh_failed(NOW + 301)
    assert timer.next_deadline() is None


def test_a_field_that_cannot_be_read_asks_for_nothing() -> None:
    timer = SessionTimer()
    assert timer.refusal(request(("Session-Expires", "never"), ("Supported", "timer"))) == []
    timer.accepted(response(200, ("Session-Expires", "never")), NOW)
    assert timer.is_refresher
