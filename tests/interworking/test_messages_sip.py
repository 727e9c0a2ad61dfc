"""Messages between SIP MESSAGE requests and the model (RFC 3428, 3862, 5438, 3994)."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import IsthmusError, PayloadError, SipParseError
from isthmus.interworking.cpim import parse_cpim
from isthmus.interworking.imdn import parse_imdn
from isthmus.interworking.is_composing import parse_is_composing
from isthmus.interworking.messages import (
    MAXIMUM_TEXT_OCTETS,
    UnsupportedBodyError,
    derived_message_id,
    message_from_sip,
    message_to_sip_body,
    message_to_sip_headers,
    message_to_stanza,
    origin_key,
)
from isthmus.model import Address, ChatState, Failure, Message, MessageKind, Origin
from isthmus.sip.message import SipRequest
from isthmus.sip.uri import SipUri

NOW = 1_795_369_200.0
ANA = Address("ana", "corp.test")
BEN = Address("ben", "people.test")
TEXT = Message(id="m-81", sender=BEN, recipient=ANA, text="Shall we talk at six?", sent_at=NOW)


def request(
    body: bytes = b"Hello",
    content_type: str = "text/plain;charset=UTF-8",
    uri: str = "sip:ben@people.test",
    **headers: str,
) -> SipRequest:
    fields = {
        "From": "<sip:ana@corp.test;gr=desk>;tag=7a1",
        "To": "<sip:ben@people.test>",
        "Call-ID": "c1",
        "CSeq": "4 MESSAGE",
        "Content-Type": content_type,
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    return SipRequest("MESSAGE", SipUri.parse(uri), [(k, v) for k, v in fields.items() if v], body)


def read(*args: object, **keywords: object) -> Message:
    (message,) = message_from_sip(request(*args, **keywords), NOW)  # type: ignore[arg-type]  # passed through
    return message


def test_a_plain_text_is_read_with_its_sender_and_device() -> None:
    message = read(Subject="Tea", Content_Language="en-GB")
    assert (message.sender, message.sender_device, message.recipient) == (ANA, "desk", BEN)
    assert (message.text, message.subject, message.language, message.thread) == ("Hello", "Tea", "en-GB", "c1")
    assert (message.wants_delivered, message.wants_displayed, message.expires_at) == (False, False, None)


def test_the_authenticated_people_stand_over_what_the_headers_claim() -> None:
    (message,) = message_from_sip(request(), NOW, sender=BEN, recipient=ANA, hops=2)
    assert (message.sender, message.recipient, message.hops) == (BEN, ANA, 2)


def test_a_retransmission_has_the_same_id_and_another_message_another_one() -> None:
    """Edge case 16: the Call-ID alone tells nothing; the same transmission always has the same id."""
    first = derived_message_id(request(), BEN)
    assert derived_message_id(request(), BEN) == first == read().id
    assert len(first) == 32
    others = [request(CSeq="5 MESSAGE"), request(Call_ID="c2"), request(From="<sip:ana@corp.test>;tag=other"),
              request(From="<sip:eve@corp.test>;tag=7a1")]  # fmt: skip
    ids = {derived_message_id(other, BEN) for other in others} | {derived_message_id(request(), ANA), first}
    assert len(ids) == 6
    assert origin_key(request(), BEN) == origin_key(request(body=b"other"), BEN)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data)[2:-4]),
        ("gzip", gzip.compress),
        ("identity", bytes),
    ],
)
def test_compressed_bodies_are_unpacked(encoding: str, pack: object) -> None:
    """Edge case 19: `Content-Encoding: deflate` bodies from Linphone, with or without a zlib header."""
    assert read(pack(b"Hello"), Content_Encoding=encoding).text == "Hello"  # type: ignore[operator]  # both callable


def test_a_compressed_bomb_is_refused() -> None:
    """Edge case 19: what grows beyond a stream message is not unpacked."""
    with pytest.raises(SipParseError) as caught:
        read(zlib.compress(b"x" * 10_000_000), Content_Encoding="deflate")
    assert caught.value.status == 413


@pytest.mark.parametrize("data", [b"not compressed", zlib.compress(b"Hello")[:-5], b""])
def test_broken_compression_is_a_bad_request_or_an_empty_body(data: bytes) -> None:
    with pytest.raises(SipParseError) as caught:
        message_from_sip(request(data, Content_Encoding="deflate"), NOW)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/sdp", ""),
        ("text/plain;charset=klingon", ""),
        ("text/plain", "br"),
        ("text/plain", "deflate, gzip"),
    ],
)
def test_what_we_cannot_read_is_answered_with_what_we_can(content_type: str, encoding: str) -> None:
    with pytest.raises(UnsupportedBodyError) as caught:
        message_from_sip(request(b"x", content_type, Content_Encoding=encoding), NOW)
    assert caught.value.status == 415
    assert "text/plain" in dict(caught.value.headers)["Accept"]
    assert "deflate" in dict(caught.value.headers)["Accept-Encoding"]


def test_text_that_is_not_utf8_is_a_bad_request() -> None:
    with pytest.raises(SipParseError) as caught:
        read(b"\xff\xfe\xfa")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [(b"caf\xe9", "iso-8859-1", "café"), (b"\x93hi\x94", "windows-1252", "“hi”"), ("é".encode(), "us-ascii", "é"),
     ("é".encode("utf-16"), "utf-16", "é")],
)  # fmt: skip
def test_old_charsets_are_decoded(body: bytes, charset: str, text: str) -> None:
    assert read(body, f"text/plain; charset={charset}").text == text


def test_a_text_has_a_limit() -> None:
    assert len(read(b"x" * MAXIMUM_TEXT_OCTETS).text) == MAXIMUM_TEXT_OCTETS
    with pytest.raises(SipParseError) as caught:
        read("ü".encode() * (MAXIMUM_TEXT_OCTETS // 2 + 1))
    assert caught.value.status == 413


def test_controls_are_dropped_and_lines_end_alike() -> None:
    assert read("a\r\nb\rc\x00\x07\x1b[1m\ufffe\td".encode()).text == "a\nb\nc[1m\td"


def test_an_empty_body_says_nothing() -> None:
    assert message_from_sip(request(b"", ""), NOW) == []


def test_html_is_reduced_to_text() -> None:
    """Edge case 27: HTML from Lync."""
    html = b"<html><script>steal()</script><b>Hi</b> &amp; see <a href='https://x.test/'>this</a></html>"
    assert read(html, "text/html").text == "Hi & see this (https://x.test/)"


def test_the_plain_alternative_is_preferred() -> None:
    """Edge case 27: text-only fallback."""
    body = (
        b"--b\r\nContent-Type: text/html\r\n\r\n<b>rich</b>\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nplain\r\n--b--\r\n"
    )
    assert read(body, "multipart/alternative;boundary=b").text == "plain"
    only_html = b"--b\r\nContent-Type: text/html\r\n\r\n<b>rich</b>\r\n--b--\r\n"
    assert read(only_html, 'multipart/alternative;boundary="b"').text == "rich"


def test_readable_parts_of_a_mixed_body_are_one_text_and_the_rest_is_named() -> None:
    body = (
        b"--b\r\nContent-Type: text/plain\r\n\r\none\r\n--b\r\nContent-Type: image/png\r\n\r\nPNG\r\n"
        b"--b\r\n\r\ntwo\r\n--b--\r\n"
    )
    assert read(body, "multipart/mixed;boundary=b").text == "one\ntwo\n[An attachment of type image/png was left out.]"
    with pytest.raises(UnsupportedBodyError):
        read(b"--b\r\nContent-Type: image/png\r\n\r\nPNG\r\n--b--\r\n", "multipart/mixed;boundary=b")


def test_nesting_has_a_bottom() -> None:
    body = b"deep"
    content_type = "text/plain"
    for level in range(8):
        boundary = f"b{level}"
        body = f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode() + body + f"\r\n--{boundary}--".encode()
        content_type = f"multipart/mixed;boundary={boundary}"
    with pytest.raises(SipParseError):
        read(body, content_type)


@pytest.mark.parametrize("uri", ["sips:ben@people.test"])
def test_a_secure_address_is_not_downgraded(uri: str) -> None:
    with pytest.raises(SipParseError) as caught:
        read(uri=uri)
    assert caught.value.status == 416
    with pytest.raises(SipParseError):
        read(To="<sips:ben@people.test>")


def test_expiry_counts_from_the_date_of_sending() -> None:
    message = read(Date="Sun, 22 Nov 2026 17:00:00 GMT", Expires="600")
    assert message.sent_at == 1_795_366_800.0
    assert message.expires_at == message.sent_at + 600
    assert read(Date="Fri, 01 Jan 2100 00:00:00 GMT").sent_at == NOW
    assert read(Date="yesterday").sent_at == NOW


CPIM = (
    b"From: <im:ana@corp.test>\r\nTo: <im:ben@people.test>\r\nDateTime: 2026-11-22T17:00:00Z\r\nSubject: Tea\r\n"
    b"NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: abc-1\r\n"
    b"imdn.Disposition-Notification: positive-delivery, display\r\n\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nHello"
)


def test_a_cpim_message_keeps_its_id_time_and_wishes() -> None:
    message = read(CPIM, "message/cpim")
    assert (message.id, message.text, message.subject) == ("abc-1", "Hello", "Tea")
    assert (message.wants_delivered, message.wants_displayed) == (True, True)
    assert message.sent_at == 1_795_366_800.0


def test_the_sender_inside_cpim_is_not_believed() -> None:
    forged = CPIM.replace(b"From: <im:ana@", b"From: <im:boss@")
    assert read(forged, "message/cpim").sender == ANA


def test_a_text_survives_the_way_to_sip_and_back_in_both_forms() -> None:
    for accepts_cpim in (True, False):
        asked = replace(TEXT, wants_delivered=True, wants_displayed=True, subject="Six")
        encoded = message_to_sip_body(asked, accepts_cpim, NOW)
        assert encoded is not None
        message = read(encoded[1], encoded[0])
        assert message.text == asked.text
        assert message.wants_delivered is accepts_cpim
        assert (message.id == "m-81") is accepts_cpim


def test_the_sender_inside_cpim_is_written_as_in_the_request_around_it() -> None:
    """Linphone 5.1 refuses the message otherwise."""
    encoded = message_to_sip_body(replace(TEXT, sender=BEN, sender_device="app", recipient=ANA), True, NOW)
    assert encoded is not None
    envelope = parse_cpim(encoded[1])
    assert envelope.get("From") == "<sip:ben@people.test;gr=app>"
    assert envelope.get("To") == "<sip:ana@corp.test>"


def test_without_cpim_a_text_is_plain_and_receipts_have_no_way() -> None:
    """Edge case 17: the form for a peer that answered 415 to CPIM."""
    assert message_to_sip_body(TEXT, False, NOW) == ("text/plain;charset=UTF-8", TEXT.text.encode())
    for kind in (MessageKind.DELIVERED, MessageKind.DISPLAYED):
        assert message_to_sip_body(replace(TEXT, kind=kind, refers_to="x"), False, NOW) is None


@pytest.mark.parametrize("kind", [MessageKind.DELIVERED, MessageKind.DISPLAYED, MessageKind.FAILED])
def test_notifications_travel_as_imdn(kind: MessageKind) -> None:
    """Edge case 23: each truth has its own document, and none asks for a notification itself."""
    encoded = message_to_sip_body(replace(TEXT, kind=kind, text="", refers_to="m-7"), True, NOW)
    assert encoded is not None
    envelope = parse_cpim(encoded[1])
    assert ("content-disposition", "notification") in envelope.content_headers
    assert envelope.message_id == "m-81"
    assert envelope.dispositions == frozenset()
    assert parse_imdn(envelope.body).message_id == "m-7"
    message = read(encoded[1], encoded[0])
    assert (message.kind, message.refers_to, message.id) == (kind, "m-7", "m-81")
    assert (message.failure is not None) is (kind is MessageKind.FAILED)


@pytest.mark.parametrize("status", ["processed", "stored", "forbidden"])
def test_weaker_notifications_claim_nothing(status: str) -> None:
    """Edge case 23: processed is not delivered."""
    kind = "processing" if status != "forbidden" else "display"
    body = (
        f"<imdn xmlns='urn:ietf:params:xml:ns:imdn'><message-id>m</message-id>"
        f"<{kind}-notification><status><{status}/></status></{kind}-notification></imdn>"
    )
    assert message_from_sip(request(body.encode(), "message/imdn+xml"), NOW) == []


def test_a_late_failure_is_a_text_for_a_device_without_imdn() -> None:
    failure = Failure(Origin.PEER, 480, "recipient-unavailable", "Ben is offline.")
    encoded = message_to_sip_body(replace(TEXT, kind=MessageKind.FAILED, failure=failure), False, NOW)
    assert encoded == ("text/plain;charset=UTF-8", b"[Your message was not delivered. Ben is offline.]")


@pytest.mark.parametrize(
    ("state", "expected"),
    [(ChatState.COMPOSING, True), (ChatState.ACTIVE, False), (ChatState.PAUSED, False), (ChatState.INACTIVE, False)],
)
def test_chat_states_become_composing_or_idle(state: ChatState, expected: bool) -> None:
    """Edge case 28: paused and the isComposing refresh differ."""
    encoded = message_to_sip_body(replace(TEXT, kind=MessageKind.TYPING, state=state), True, NOW)
    assert encoded is not None
    assert encoded[0] == "application/im-iscomposing+xml"
    indication = parse_is_composing(encoded[1])
    assert indication.is_active is expected
    assert not expected or indication.refresh_seconds == 60


def test_gone_has_no_counterpart() -> None:
    assert message_to_sip_body(replace(TEXT, kind=MessageKind.TYPING, state=ChatState.GONE), True, NOW) is None


@pytest.mark.parametrize(
    ("inner", "state", "seconds"),
    [("<state>active</state><refresh>90</refresh>", ChatState.COMPOSING, 90),
     ("<state>active</state>", ChatState.COMPOSING, 120),
     ("<state>active</state><refresh>99999999</refresh>", ChatState.COMPOSING, 600),
     ("<state>idle</state>", ChatState.ACTIVE, None), ("<state>thinking</state>", ChatState.ACTIVE, None)],
)  # fmt: skip
def test_typing_ends_by_itself_when_no_refresh_comes(inner: str, state: ChatState, seconds: int | None) -> None:
    """Edge case 28: "composing" holds for the refresh time only, then the caller synthesises "paused"."""
    body = f"<isComposing xmlns='urn:ietf:params:xml:ns:im-iscomposing'>{inner}</isComposing>".encode()
    message = read(body, "application/im-iscomposing+xml")
    assert (message.kind, message.state) == (MessageKind.TYPING, state)
    assert message.expires_at == (None if seconds is None else NOW + seconds)


@pytest.mark.parametrize("kind", ["application/im-iscomposing+xml", "message/imdn+xml"])
@pytest.mark.parametrize("body", [b"<x/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", b"not xml", b"\xff"])
def test_broken_notifications_are_refused(kind: str, body: bytes) -> None:
    with pytest.raises(PayloadError):
        read(body, kind)


def test_headers_of_a_text_are_single_lines() -> None:
    message = replace(TEXT, subject="Hi\r\nEvil: yes", language="en", expires_at=NOW + 60)
    headers = dict(message_to_sip_headers(message, NOW))
    assert headers["Subject"] == "Hi Evil: yes"
    assert headers["Content-Language"] == "en"
    assert headers["Expires"] == "60"
    assert headers["Date"].endswith("GMT")
    assert message_to_sip_headers(replace(TEXT, kind=MessageKind.TYPING), NOW) == []
    assert message_to_sip_headers(replace(TEXT, language="en\r\nX: y"), NOW) == []


def test_a_phone_number_reaches_a_person_of_our_domain() -> None:
    (message,) = message_from_sip(request(uri="sip:+15550100@corp.test;user=phone"), NOW)
    assert str(message.recipient) == "+15550100@corp.test"


@given(st.text(min_size=1), st.text(max_size=30), st.booleans())
def test_any_text_survives_cpim(text: str, identifier: str, asks: bool) -> None:
    message = replace(TEXT, text=text, id=identifier or "x", wants_delivered=asks)
    encoded = message_to_sip_body(message, True, NOW)
    assert encoded is not None
    try:
        found = message_from_sip(request(encoded[1], encoded[0]), NOW)
    except SipParseError:
        pytest.fail("our own CPIM must be readable")
    kept = "".join(c for c in text.replace("\r\n", "\n") if c >= " " or c in "\n\t")
    if found and "\r" not in text and text.isprintable():
        assert found[0].text == kept


types = ["message/cpim", "multipart/mixed;boundary=b", "text/html", "text/rtf", "message/imdn+xml", "text/plain", "x"]


@given(st.binary(max_size=300), st.sampled_from(types))
def test_no_octets_break_the_reader(body: bytes, content_type: str) -> None:
    try:
        found = message_from_sip(request(body, content_type), NOW)
    except IsthmusError:
        return
    assert all(message_to_stanza(message) for message in found)
