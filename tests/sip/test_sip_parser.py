"""The parser on what is whole, on what is broken, and on streams cut anywhere."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.limits import MAXIMUM_DATAGRAM, MAXIMUM_HEADER_LINES, MAXIMUM_LINE, MAXIMUM_STREAM_MESSAGE
from isthmus.sip.message import SipMessage, SipRequest, SipResponse, build_response
from isthmus.sip.parser import BadMessage, KeepAlive, StreamParser, parse_message
from isthmus.sip.uri import SipUri
from isthmus.sip.validation import check_request, check_response
from tests.sip.wire_strategies import messages

TORTURE = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "messages").glob("rfc*/*.dat"))]
PIECES = [b"", b"\0", b'"', b"<", b">", b";", b",", b":", b"@", b"%", b"\\", b"\r\n", b"\r", b" ", b"\xff"]
FILLERS = [b" ", b"\t", b'"', b"\\", b"<", b">", b",", b";", b"=", b"a,", b";a", b'"\\', b" \r\n "]
PING = b"\r\n\r\n"

MESSAGE = (
    b"MESSAGE sip:ben@people.test SIP/2.0\r\n"
    b"Via: SIP/2.0/TCP 10.0.0.7:5060;branch=z9hG4bK87asdks7;rport\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Ana" <sip:ana@corp.test>;tag=49583\r\n'
    b"To: <sip:ben@people.test>\r\n"
    b"Call-ID: asd88asd77a@10.0.0.7\r\n"
    b"CSeq: 1 MESSAGE\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 5\r\n"
    b"\r\n"
    b"Hello"
)


def drive(message: SipMessage) -> None:
    """Touch everything a service could touch."""
    try:
        if isinstance(message, SipResponse):
            check_response(message)
        else:
            check_request(message)
    except SipParseError:
        if isinstance(message, SipRequest):
            parse_message(build_response(message, 400, to_tag="x").to_bytes())
        return
    _ = message.top_via.rport, message.top_via.received, message.branch, message.from_address.tag
    _ = message.to_address.display_name, message.call_id, message.cseq, message.max_forwards, message.expires
    if isinstance(message, SipRequest):
        _ = message.contacts, message.routes, message.event, message.event_id, message.content_type
        _ = build_response(message, 200, to_tag="x").to_bytes()
    assert parse_message(message.to_bytes()) == message


def judge(data: bytes) -> None:
    try:
        message = parse_message(data)
    except BadMessage as fault:
        if fault.partial is not None:
            build_response(fault.partial, fault.status or 400, to_tag="x").to_bytes()
        return
    drive(message)


@given(messages)
def test_what_is_written_reads_back_the_same(message: SipMessage) -> None:
    assert parse_message(message.to_bytes()) == message


@given(st.binary(max_size=400))
@example(b"")
@example(b"\r\n\r\n")
@example(b"SIP/2.0 200 OK\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
@example(b"\xff\xfe SIP/2.0\r\n\r\n")
def test_any_bytes_are_a_message_or_a_bad_message(data: bytes) -> None:
    judge(data)
    StreamParser().feed(data)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(TORTURE)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        piece = draw(
            st.sampled_from(
                [b"", b"\0", b'"', b"<", b">", b";", b",", b":", b"@", b"%", b"\\", b"\r\n", b"\r", b" ", b"\xff"]
            )
        )
        data[place : place + draw(st.integers(0, 8))] = piece
    return bytes(data)


@given(mutations())
def test_mutated_torture_messages_raise_nothing_but_bad_message(data: bytes) -> None:
    judge(data)


@given(
    st.lists(st.one_of(mutations(), st.sampled_from([*TORTURE, MESSAGE, PING])), max_size=3),
    st.one_of(st.just([1]), st.lists(st.integers(1, 800), min_size=1, max_size=12)),
)
def test_a_stream_gives_the_same_however_it_is_cut(pieces: list[bytes], sizes: list[int]) -> None:
    octets = b"".join(pieces)
    whole, cut = StreamParser(), StreamParser()
    expected = whole.feed(octets)
    found: list[SipMessage | KeepAlive | BadMessage] = []
    position = 0
    for size in itertools.cycle(sizes):
        if position >= len(octets):
            break
        found += cut.feed(octets[position : position + size])
        position += size
    assert [comparable(item) for item in found if item != KeepAlive("pong")] == [
        comparable(item) for item in expected if item != KeepAlive("pong")
    ]
    assert cut.is_broken == whole.is_broken


def comparable(item: SipMessage | KeepAlive | BadMessage) -> object:
    if isinstance(item, BadMessage):
        return (str(item), item.status, item.partial, item.is_fatal)
    return item


@given(st.lists(messages, max_size=4), st.integers(1, 50))
def test_a_stream_of_good_messages_yields_each_of_them(sent: list[SipMessage], size: int) -> None:
    octets = b"".join(message.to_bytes() for message in sent)
    parser = StreamParser()
    found = [item for start in range(0, len(octets), size) for item in parser.feed(octets[start : start + size])]
    assert found == sent
    assert parser.pending_octets == 0


def test_octets_after_content_length_are_ignored_in_a_datagram() -> None:
    message = parse_message(MESSAGE + b" and more")
    assert message.body == b"Hello"


def test_line_breaks_before_a_message_are_skipped() -> None:
    assert parse_message(b"\r\n\r\n" + MESSAGE) == parse_message(MESSAGE)


def test_a_double_line_break_is_a_ping_and_a_single_one_a_pong() -> None:
    assert StreamParser().feed(PING) == [KeepAlive("ping")]
    assert StreamParser().feed(b"\r\n") == [KeepAlive("pong")]
    assert StreamParser().feed(PING + MESSAGE + PING)[0::2] == [KeepAlive("ping"), KeepAlive("ping")]


def test_a_ping_cut_in_two_is_still_answered() -> None:
    parser = StreamParser()
    assert parser.feed(b"\r\n") + parser.feed(b"\r\n") == [KeepAlive("pong"), KeepAlive("ping")]
    parser = StreamParser()
    assert [item for octet in PING * 2 for item in parser.feed(bytes([octet]))].count(KeepAlive("ping")) == 2


def test_a_bad_message_with_a_known_length_does_not_break_the_stream() -> None:
    parser = StreamParser()
    found = parser.feed(MESSAGE.replace(b"SIP/2.0\r\n", b"SIP/3.0\r\n", 1) + MESSAGE)
    assert isinstance(found[0], BadMessage)
    assert found[0].status == 505
    assert not parser.is_broken
    assert found[1] == parse_message(MESSAGE)


def test_a_stream_message_without_content_length_is_answered_and_breaks_the_stream() -> None:
    parser = StreamParser()
    (fault,) = parser.feed(MESSAGE.replace(b"Content-Length: 5\r\n", b""))
    assert isinstance(fault, BadMessage)
    assert fault.status == 400
    assert fault.partial is not None
    assert parser.is_broken
    assert parser.feed(MESSAGE) == []


def test_another_protocol_breaks_the_stream_without_an_answer() -> None:
    parser = StreamParser()
    (fault,) = parser.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert isinstance(fault, BadMessage)
    assert fault.partial is None
    assert parser.is_broken


def test_an_announced_body_beyond_the_limit_is_answered_513_at_once() -> None:
    parser = StreamParser()
    (fault,) = parser.feed(MESSAGE.replace(b"Length: 5", b"Length: %d" % MAXIMUM_STREAM_MESSAGE))
    assert isinstance(fault, BadMessage)
    assert fault.status == 513
    assert fault.partial is not None
    assert parser.is_broken


def test_a_stream_that_never_ends_its_headers_holds_bounded_memory() -> None:
    parser = StreamParser()
    parser.feed(b"MESSAGE sip:a@b SIP/2.0\r\n")
    held = 0
    for _ in range(10_000):
        parser.feed(b"X: " + b"y" * 1000 + b"\r\n")
        held = max(held, parser.pending_octets)
    assert parser.is_broken
    assert held <= MAXIMUM_STREAM_MESSAGE + 2000
    assert parser.pending_octets == 0


def test_pending_octets_count_a_head_whose_body_is_missing() -> None:
    parser = StreamParser()
    parser.feed(MESSAGE[:-5])
    assert parser.pending_octets == len(MESSAGE) - 5
    parser.feed(b"Hello")
    assert parser.pending_octets == 0


def with_lines(*lines: str) -> bytes:
    return MESSAGE.replace(b"Content-Type", "\r\n".join([*lines, "Content-Type"]).encode(), 1)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (with_lines("X: " + "y" * MAXIMUM_LINE), 513),
        (with_lines(*["X: y"] * MAXIMUM_HEADER_LINES), 400),
        (with_lines("no colon here"), 400),
        (with_lines(": no name"), 400),
        (with_lines("two words: x"), 400),
        (with_lines("X: a\nInjected: b"), 400),
        (with_lines("X: a\rInjected: b"), 400),
        (with_lines("Content-Length: 5"), 400),
        (MESSAGE.replace(b"Length: 5", b"Length: five"), 400),
        (MESSAGE.replace(b"Length: 5", b"Length: +5"), 400),
        (MESSAGE.replace(b"Length: 5", "Length: ５".encode()), 400),
        (MESSAGE.replace(b"Length: 5", b"Length: 6"), 400),
        (MESSAGE.replace(b"sip:ben@people.test SIP", b"sip:ben@@people.test SIP"), 400),
        (MESSAGE.replace(b"\r\n\r\nHello", b"\r\n"), 400),
    ],
)
def test_broken_requests_are_answered(data: bytes, status: int) -> None:
    with pytest.raises(BadMessage) as caught:
        parse_message(data)
    assert caught.value.status == status
    assert caught.value.partial is not None
    assert caught.value.partial.call_id == "asd88asd77a@10.0.0.7"


def test_a_datagram_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(BadMessage) as caught:
        parse_message(MESSAGE + b"x" * MAXIMUM_DATAGRAM)
    assert caught.value.status == 513
    assert parse_message(MESSAGE + b"x" * MAXIMUM_DATAGRAM, MAXIMUM_STREAM_MESSAGE).body == b"Hello"


def test_a_broken_ack_is_never_answered() -> None:
    with pytest.raises(BadMessage) as caught:
        parse_message(MESSAGE.replace(b"MESSAGE", b"ACK").replace(b"SIP/2.0\r\n", b"SIP/3.0\r\n", 1))
    assert caught.value.partial is None


def test_a_request_without_via_cannot_be_answered() -> None:
    with pytest.raises(BadMessage) as caught:
        parse_message(b"MESSAGE sip:a@b SIP/3.0\r\nTo: <sip:a@b>\r\n\r\n")
    assert caught.value.partial is None


def test_latin_1_display_names_of_older_phones_are_read() -> None:
    message = parse_message(MESSAGE.replace(b'"Ana"', b'"Jos\xe9"'))
    assert message.from_address.display_name == "José"


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("field", [b"X", b"Via", b"From", b"Contact", b"Content-Type", b"Route", b"CSeq"])
def test_no_filler_makes_reading_slow(filler: bytes, field: bytes) -> None:
    lines = b"".join(field + b": " + filler * (8000 // len(filler)) + b"x\r\n" for _ in range(6))
    started = time.perf_counter()
    judge(MESSAGE.replace(b"Max-Forwards", lines + b"Max-Forwards", 1))
    assert time.perf_counter() - started < 0.5


def test_a_value_with_a_line_break_cannot_smuggle_a_header_field_out() -> None:
    request = SipRequest(
        "MESSAGE",
        SipUri("sip", "b"),
        [("Subject", "hi\r\nRoute: <sip:evil>"), ("X", "a\nb"), ("Y", "a\rb")],
        b"x",
    )
    reread = parse_message(request.to_bytes())
    assert "Route" not in reread.headers
    assert reread.headers.get("Subject") == "hi Route: <sip:evil>"
    assert reread.body == b"x"
