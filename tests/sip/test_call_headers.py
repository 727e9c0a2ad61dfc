"""The small header fields and bodies of calls: Replaces, Refer-To, sipfrag, Warning, DTMF."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.dtmf import DEFAULT_MILLISECONDS, Digit, parse_digit, relay_body
from isthmus.sip.message import SipRequest, build_response
from isthmus.sip.refer import ReferTo, sipfrag, wants_subscription
from isthmus.sip.replaces import Replaces, replaces_of
from isthmus.sip.uri import OtherUri, SipUri
from isthmus.sip.warning import warning_header, warning_text
from tests.support.sip import sip_request


def request(*headers: tuple[str, str], method: str = "REFER") -> SipRequest:
    return sip_request(method, "sip:ben@people.test", sender="sip:ana@corp.test", headers=headers)


# --- Replaces (RFC 3891) ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("98732@sip.test;from-tag=r33th4x0r;to-tag=ff87ff", Replaces("98732@sip.test", "ff87ff", "r33th4x0r")),
        ("12adf2f34456gs5 ; to-tag=12345; from-tag=54321", Replaces("12adf2f34456gs5", "12345", "54321")),
        ("a;to-tag=1;from-tag=2;early-only;x=y", Replaces("a", "1", "2", is_early_only=True)),
        ("a;to-tag=1;from-tag=0", Replaces("a", "1", "0")),
    ],
)
def test_replaces_is_read_and_written(text: str, expected: Replaces) -> None:
    assert Replaces.parse(text) == expected
    assert Replaces.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a;to-tag=1",
        "a;to-tag=1;to-tag=2;from-tag=3",
        "a b;to-tag=1;from-tag=2",
        'a;to-tag="1 2";from-tag=2',
        "a" * 2000 + ";to-tag=1;from-tag=2",
    ],
)
def test_a_malformed_replaces_is_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        Replaces.parse(text)


def test_replaces_and_join_contradict_each_other() -> None:
    assert replaces_of(request()) is None
    with pytest.raises(SipParseError):
        replaces_of(request(("Replaces", "a;to-tag=1;from-tag=2"), ("Join", "a;to-tag=1;from-tag=2")))


# --- REFER (RFC 3515, RFC 4488) ---


def test_a_blind_transfer_names_a_person() -> None:
    plain = ReferTo.of(request(("Refer-To", '"Bea" <sip:bea@corp.test;user=phone;method=INVITE?Subject=hi>;x=y')))
    assert plain == ReferTo(SipUri.parse("sip:bea@corp.test;user=phone"))
    assert ReferTo.parse("tel:+15551234") == ReferTo(OtherUri("tel", "+15551234"))


def test_an_attended_transfer_names_the_dialog_in_the_uri() -> None:
    text = "<sip:bea@corp.test?Require=replaces&Replaces=098594%40host.test%3Bto-tag%3D87134%3Bfrom-tag%3D171>"
    assert ReferTo.parse(text).replaces == Replaces("098594@host.test", "87134", "171")


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ((), 400),
        (("<sip:a@corp.test>, <sip:b@corp.test>",), 400),
        (("<sip:a@corp.test;method=SUBSCRIBE>",), 501),
        (("<sip:a@corp.test?Replaces=x>",), 400),
        (("<sip:a@corp.test?Replaces=x%3Bto-tag%3D1%3Bfrom-tag%3D2&Replaces=x%3Bto-tag%3D1%3Bfrom-tag%3D2>",), 400),
        (("<sip:a@corp.test?Subject=a%0D%0AX-Evil:%20b>",), 400),
        (("<sip:a@corp.test?" + "&".join(f"h{n}=x" for n in range(40)) + ">",), 400),
    ],
)
def test_a_refer_that_cannot_be_carried_out_is_refused(values: tuple[str, ...], status: int) -> None:
    with pytest.raises(SipParseError) as refused:
        ReferTo.of(request(*(("Refer-To", value) for value in values)))
    assert refused.value.status == status


def test_refer_sub_false_does_without_notify() -> None:
    assert wants_subscription(request())
    assert wants_subscription(request(("Refer-Sub", "true")))
    assert not wants_subscription(request(("Refer-Sub", " FALSE ;x=y")))


def test_a_sipfrag_is_a_status_line() -> None:
    assert sipfrag(100) == b"SIP/2.0 100 Trying\r\n"
    assert sipfrag(486, "Busy\r\nX: y") == b"SIP/2.0 486 Busy X: y\r\n"


# --- Warning ---


@pytest.mark.parametrize("text", ["No codec in common", 'Say "no"', "back\\slash", "line\r\nbreak", "ünïcode"])
def test_a_warning_carries_its_text(text: str) -> None:
    response = build_response(request(), 488, headers=[warning_header(text)])
    assert warning_text(response) == " ".join(text.split())


@pytest.mark.parametrize("value", ["", "x", '399 isthmus "unclosed', "399 isthmus bare"])
def test_a_malformed_warning_says_nothing(value: str) -> None:
    assert warning_text(build_response(request(), 488, headers=[("Warning", value)])) == ""


# --- DTMF ---


@pytest.mark.parametrize(
    ("body", "kind", "digit"),
    [
        (b"Signal=5\r\nDuration=160\r\n", "dtmf-relay", Digit("5", 160)),
        (b"Signal= 5 \nDuration= 90", "dtmf-relay", Digit("5", 90)),
        (b"Signal: *\r\n", "dtmf-relay", Digit("*", DEFAULT_MILLISECONDS)),
        (b"Signal=11\r\nDuration=999999999", "dtmf-relay", Digit("#", DEFAULT_MILLISECONDS)),
        (b"Signal=b\r\nDuration=60000", "dtmf-relay", Digit("B", 10_000)),
        (b"#", "dtmf", Digit("#", DEFAULT_MILLISECONDS)),
        (b"10\r\n", "dtmf", Digit("*", DEFAULT_MILLISECONDS)),
        (b"Signal=4\r\nDuration=100", "dtmf", Digit("4", 100)),
    ],
)
def test_a_digit_is_read_as_phones_write_it(body: bytes, kind: str, digit: Digit) -> None:
    assert parse_digit(body, f"application/{kind}") == digit


@pytest.mark.parametrize("body", [b"", b"Signal=", b"Duration=5", b"Signal=E", b"\xff\xfe", b"16", b"55"])
def test_what_is_no_digit_is_refused(body: bytes) -> None:
    for kind in ("application/dtmf", "application/dtmf-relay"):
        with pytest.raises(SipParseError):
            parse_digit(body, kind)


@given(st.sampled_from("0123456789*#ABCD"), st.integers(1, 10_000))
def test_what_we_write_we_read(digit: str, milliseconds: int) -> None:
    pressed = Digit(digit, milliseconds)
    assert parse_digit(relay_body(pressed), "application/dtmf-relay") == pressed


@given(st.text(max_size=200), st.binary(max_size=200))
def test_nothing_that_a_peer_writes_breaks_a_reader(text: str, body: bytes) -> None:
    for read in (Replaces.parse, ReferTo.parse):
        with contextlib.suppress(SipParseError):
            read(text)
    with contextlib.suppress(SipParseError):
        parse_digit(body, "application/dtmf")
