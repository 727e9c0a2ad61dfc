"""CPIM objects (RFC 3862), IMDN (RFC 5438) and isComposing (RFC 3994) documents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import PayloadError
from isthmus.interworking.cpim import IMDN_NAMESPACE, build_cpim, parse_cpim
from isthmus.interworking.imdn import DispositionReport, build_imdn, parse_imdn
from isthmus.interworking.is_composing import IsComposing, build_is_composing, parse_is_composing

# RFC 3862 section 3.1, cut down.
RFC_EXAMPLE = b"""From: MR SANDERS <im:piglet@100akerwood.com>
To: Depressed Donkey <im:eeyore@100akerwood.com>
DateTime: 2000-12-13T13:40:00-08:00
Subject: the weather will be fine today
Subject:;lang=fr beau temps prevu pour aujourd'hui
NS: MyFeatures <mid:MessageFeatures@id.foo.com>
Require: MyFeatures.VitalMessageOption
MyFeatures.VitalMessageOption: Confirmation-requested
MyFeatures.WackyMessageOption: Use-silly-font

Content-type: text/xml; charset=utf-8
Content-ID: <1234567890@foo.com>

<body>
Here is the text of my message.
</body>""".replace(b"\n", b"\r\n")


def test_the_example_of_the_rfc_is_read() -> None:
    message = parse_cpim(RFC_EXAMPLE)
    assert message.get("From") == "MR SANDERS <im:piglet@100akerwood.com>"
    assert message.get("DateTime") == "2000-12-13T13:40:00-08:00"
    assert [h.language for h in message.headers if h.name == "subject"] == ["", "fr"]
    assert message.get("vitalmessageoption", "mid:MessageFeatures@id.foo.com") == "Confirmation-requested"
    assert message.content_type == "text/xml; charset=utf-8"
    assert message.body.startswith(b"<body>")


def test_any_prefix_may_stand_for_imdn_and_even_none_declared() -> None:
    declared = b"NS: x <urn:ietf:params:imdn>\r\nx.Message-ID: 7\r\n\r\nContent-Type: text/plain\r\n\r\n"
    assert parse_cpim(declared).message_id == "7"
    assert parse_cpim(b"imdn.Message-ID: 8\r\n\r\n\r\nHi").message_id == "8"
    other = b"NS: imdn <urn:other>\r\nimdn.Message-ID: 9\r\n\r\nContent-Type: text/plain\r\n\r\n"
    assert parse_cpim(other).message_id == ""


def test_bare_line_feeds_and_a_repeated_wrapper_are_forgiven() -> None:
    wrapped = b"Content-Type: Message/CPIM\n\nFrom: <im:a@b>\n\nContent-Type: text/plain\n\nHi\n\nthere"
    message = parse_cpim(wrapped)
    assert (message.get("from"), message.body) == ("<im:a@b>", b"Hi\n\nthere")


@pytest.mark.parametrize(
    "body",
    [b"", b"no headers", b"broken header\r\n\r\nContent-Type: text/plain\r\n\r\n", b"From: \xff\r\n\r\na: b\r\n\r\n",
     b"A: b\r\n" * 100 + b"\r\n\r\n\r\n", b"A: " + b"b" * 9000 + b"\r\n\r\nX: y\r\n\r\n"],
)  # fmt: skip
def test_what_is_not_cpim_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadError):
        parse_cpim(body)


line = st.text(st.characters(exclude_categories=["Cs", "Zl", "Zp"]), min_size=1, max_size=40)


@given(line.filter(lambda text: text.strip() == text), st.binary(max_size=60), line)
def test_what_we_write_we_read(identifier: str, body: bytes, subject: str) -> None:
    written = build_cpim(
        sender_uri="im:a@b", recipient_uri="im:c@d", sent_at="2026-11-22T17:40:00Z", content_type="text/plain",
        body=body, message_id=identifier, dispositions=["positive-delivery"], subject=subject,
    )  # fmt: skip
    message = parse_cpim(written)
    assert message.get("message-id", IMDN_NAMESPACE) == identifier
    assert message.dispositions == {"positive-delivery"}
    assert message.get("subject").strip() == subject.strip()
    assert message.body == body


def test_the_layout_is_that_of_the_standard() -> None:
    written = build_cpim(
        sender_uri="im:ben@people.test", recipient_uri="im:ana@corp.test", sent_at="2026-11-22T17:40:00Z",
        content_type="text/plain; charset=utf-8", body=b"Hi", message_id="m-81",
        dispositions=["positive-delivery", "display"],
    )  # fmt: skip
    assert written.decode().split("\r\n") == [
        "From: <im:ben@people.test>",
        "To: <im:ana@corp.test>",
        "DateTime: 2026-11-22T17:40:00Z",
        "NS: imdn <urn:ietf:params:imdn>",
        "imdn.Message-ID: m-81",
        "imdn.Disposition-Notification: positive-delivery, display",
        "",
        "Content-Type: text/plain; charset=utf-8",
        "",
        "Hi",
    ]


@given(st.text(min_size=1).filter(lambda text: text.strip() == text and text.isprintable()))
def test_every_report_survives(identifier: str) -> None:
    for notification, status in (("delivery", "delivered"), ("delivery", "failed"), ("display", "displayed")):
        report = DispositionReport(identifier, notification, status, "2026-11-22T17:40:00Z", "im:ana@corp.test")
        assert parse_imdn(build_imdn(report)) == report


@pytest.mark.parametrize(
    "inner",
    ["", "<message-id>1</message-id>", "<message-id/><delivery-notification><status><delivered/></status>"
     "</delivery-notification>",
     "<message-id>1</message-id><delivery-notification><status><displayed/></status></delivery-notification>"],
)  # fmt: skip
def test_a_report_that_says_nothing_is_refused(inner: str) -> None:
    with pytest.raises(PayloadError):
        parse_imdn(f"<imdn xmlns='urn:ietf:params:xml:ns:imdn'>{inner}</imdn>".encode())


def test_composing_is_refreshed_no_faster_than_the_rfc_allows() -> None:
    """Edge case 28."""
    assert parse_is_composing(build_is_composing(IsComposing(True, 5))) == IsComposing(True, 60, "text/plain")
    assert b"refresh" not in build_is_composing(IsComposing(False))


@given(st.binary(max_size=200))
def test_no_octets_break_cpim(body: bytes) -> None:
    try:
        parse_cpim(body)
    except PayloadError:
        return
