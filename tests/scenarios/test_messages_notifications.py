"""Plays: typing, receipts, markers (STANDARDS 1.5), and what must not be claimed or leaked (edge cases 23, 28)."""

import re
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from isthmus.interworking.cpim import CPIM_TYPE, build_cpim
from isthmus.interworking.imdn import IMDN_TYPE, DispositionReport, build_imdn
from isthmus.interworking.is_composing import IS_COMPOSING_TYPE, IsComposing, build_is_composing
from isthmus.interworking.messages import MAXIMUM_ID_LENGTH
from isthmus.services.messaging_notifications import MAXIMUM_UNDISPLAYED
from isthmus.services.messaging_to_sip import MAXIMUM_LANE_BACKLOG
from isthmus.sip.message import SipRequest
from tests.support.messaging_house import ANA, BEN, House
from tests.support.sip import sip_request
from tests.support.xmpp import settle

CHAT_STATES = "{http://jabber.org/protocol/chatstates}"
RECEIPTS = "{urn:xmpp:receipts}"
MARKERS = "{urn:xmpp:chat-markers:0}"
WANTS_RECEIPT = "<request xmlns='urn:xmpp:receipts'/>"
WANTS_MARKER = "<markable xmlns='urn:xmpp:chat-markers:0'/>"


def typing_request(*, is_active: bool, refresh: int = 120) -> SipRequest:
    return sip_request(
        "MESSAGE",
        "sip:ben@people.test",
        sender="sip:ana@corp.test",
        body=build_is_composing(IsComposing(is_active, refresh)),
        content_type=IS_COMPOSING_TYPE,
    )


def cpim(content_type: str, body: bytes, ident: str, *, asks: list[str] | None = None) -> SipRequest:
    document = build_cpim(
        sender_uri="im:ana@corp.test",
        recipient_uri="im:ben@people.test",
        sent_at="2026-11-22T17:40:00Z",
        content_type=content_type,
        body=body,
        message_id=ident,
        dispositions=asks or [],
    )
    return sip_request(
        "MESSAGE", "sip:ben@people.test", sender="sip:ana@corp.test", body=document, content_type=CPIM_TYPE
    )


def report(of: str, notification: str, status: str, ident: str = "report-1") -> SipRequest:
    document = build_imdn(DispositionReport(of, notification, status, "2026-11-22T17:41:00Z", "im:ben@people.test"))
    return cpim(IMDN_TYPE, document, ident)


def states(elements: list[Element]) -> list[str]:
    return [part.tag.removeprefix(CHAT_STATES) for element in elements for part in element if CHAT_STATES in part.tag]


async def friends(**limits: Any) -> House:
    """ana and ben see each other, and have spoken."""
    house = await House(**limits).open()
    await house.befriend(ANA, BEN)
    await house.befriend(BEN, ANA)
    await house.register()
    await house.says("ana@corp.test", "ben@people.test", "hi")
    await house.chat("hi", ident="hello")
    house.taken()
    house.link.take()
    return house


async def typing(house: House, state: str, sender: str = "ben@people.test/phone") -> None:
    await house.hears(
        f"<message type='chat' from='{sender}' to='ana@corp.test'>"
        f"<{state} xmlns='http://jabber.org/protocol/chatstates'/></message>"
    )


async def test_ben_sees_that_ana_types_and_that_she_stopped() -> None:
    house = await friends()
    assert (await house.sip(typing_request(is_active=True))).status == 200
    assert (await house.sip(typing_request(is_active=False))).status == 200
    stanzas = house.link.take()
    assert states(stanzas) == ["composing", "active"]
    assert all(stanza.find("{urn:xmpp:hints}no-store") is not None for stanza in stanzas)
    assert house.journal == []


async def test_composing_that_is_not_refreshed_has_paused() -> None:
    """RFC 3994 section 3.3; edge case 28: the refresh rules differ."""
    house = await friends()
    await house.sip(typing_request(is_active=True, refresh=60))
    house.link.take()
    await house.later(55)
    await house.sip(typing_request(is_active=True, refresh=60))
    await house.later(55)
    assert states(house.link.take()) == ["composing"]
    await house.later(10)
    assert states(house.link.take()) == ["paused"]


async def test_a_message_ends_the_typing() -> None:
    house = await friends()
    await house.sip(typing_request(is_active=True, refresh=60))
    await house.says("ana@corp.test", "ben@people.test", "done")
    house.link.take()
    await house.later(120)
    assert states(house.link.take()) == []


async def test_ana_sees_that_ben_types() -> None:
    house = await friends()
    await typing(house, "composing")
    await typing(house, "paused")
    first, second = house.taken()
    assert first.request.content_type == IS_COMPOSING_TYPE
    assert "<state>active</state>" in first.text
    assert "<refresh>60</refresh>" in first.text
    assert "<state>idle</state>" in second.text


async def test_gone_has_no_counterpart_and_is_not_sent() -> None:
    house = await friends()
    await typing(house, "gone")
    assert house.taken() == []


async def test_typing_is_not_shown_to_somebody_whom_the_typist_never_approved() -> None:
    house = await House().open()
    await house.register()
    await house.says("ana@corp.test", "ben@people.test", "hi")
    await house.chat("hi", ident="hello")
    house.link.take()
    house.taken()
    await typing(house, "composing")
    assert house.taken() == [], "ana may not see ben"
    assert (await house.sip(typing_request(is_active=True))).status == 200
    assert house.link.take() == [], "ben may not see ana"


async def test_typing_is_not_shown_before_the_other_side_has_said_anything() -> None:
    house = await House().open()
    await house.befriend(ANA, BEN)
    await house.register()
    await typing(house, "composing")
    assert house.taken() == []


async def test_typing_is_never_stored_for_somebody_who_is_away() -> None:
    house = await friends()
    await house.register(expires=0)
    await typing(house, "composing")
    house.link.lose()
    await house.sip(typing_request(is_active=True))
    await house.register()
    house.link.restore()
    await house.later(1)
    assert house.taken() == []
    assert states(house.link.take()) == []


async def test_a_phone_that_refuses_typing_gets_no_more_of_it() -> None:
    house = await friends()
    house.endpoint.answer_when(lambda request, _: request.content_type == IS_COMPOSING_TYPE, 415)
    await typing(house, "composing")
    await typing(house, "paused")
    assert len(house.taken()) == 1


async def test_typing_is_rate_limited() -> None:
    house = await friends()
    for _ in range(20):
        await typing(house, "composing")
        await typing(house, "paused")
    assert len(house.taken()) <= 7


async def test_a_200_of_a_device_is_a_receipt_and_a_202_is_none() -> None:
    """Edge case 23: five different truths; never claim "read", never invent a receipt for a 202."""
    house = await friends()
    await house.chat("did you get it?", ident="r1", extra=WANTS_RECEIPT)
    (receipt,) = house.link.take()
    assert receipt.get("to") == "ben@people.test/phone"
    assert receipt.find(f"{RECEIPTS}received").get("id") == "r1"  # type: ignore[union-attr]  # asserted by use
    assert receipt.find(f"{RECEIPTS}request") is None
    house.endpoint.script(202)
    await house.chat("and this?", ident="r2", extra=WANTS_RECEIPT + WANTS_MARKER)
    assert house.link.take() == []


async def test_a_stranger_gets_no_receipt_that_would_tell_who_is_at_the_desk() -> None:
    house = await House().open()
    await house.register()
    await house.chat("are you there?", ident="r1", extra=WANTS_RECEIPT)
    assert house.link.take() == []


async def test_a_receipt_that_nobody_asked_for_is_not_sent() -> None:
    house = await friends()
    await house.chat("no need to confirm", ident="r1")
    assert house.link.take() == []


async def test_with_cpim_the_phone_tells_by_itself_once_for_all_devices() -> None:
    house = await friends()
    await house.register(headers=[("Accept", "text/plain, message/cpim")])
    await house.chat("please confirm", ident="r1", extra=WANTS_RECEIPT + WANTS_MARKER)
    (sent,) = house.taken()
    assert "imdn.Message-ID: r1" in sent.text
    assert "positive-delivery" in sent.text
    assert "display" in sent.text
    assert house.link.take() == [], "no receipt before the IMDN"
    for number in range(2):
        assert (await house.sip(report("r1", "delivery", "delivered", f"d{number}"))).status == 200
    assert (await house.sip(report("r1", "display", "displayed", "d9"))).status == 200
    received, displayed = house.link.take()
    assert received.find(f"{RECEIPTS}received") is not None
    assert displayed.find(f"{MARKERS}displayed") is not None
    assert received.get("to") == "ben@people.test/phone"


async def test_bens_receipt_reaches_the_phone_that_asked_for_it() -> None:
    house = await friends()
    await house.register(headers=[("Accept", "text/plain, message/cpim")])
    await house.sip(cpim("text/plain", b"please confirm", "imdn-1", asks=["positive-delivery"]))
    await settle()
    (stanza,) = house.link.take()
    assert stanza.find(f"{RECEIPTS}request") is not None
    for _ in range(2):
        await house.hears(
            "<message from='ben@people.test/phone' to='ana@corp.test' id='x'>"
            "<received xmlns='urn:xmpp:receipts' id='imdn-1'/></message>"
        )
    (told,) = house.taken()
    assert "<delivered/>" in told.text
    assert "imdn-1" in told.text


async def test_displayed_covers_everything_before_it() -> None:
    house = await friends()
    await house.register(headers=[("Accept", "text/plain, message/cpim")])
    for number in range(4):
        await house.sip(cpim("text/plain", b"text", f"imdn-{number}", asks=["display"]))
        await settle()
    await house.hears(
        "<message from='ben@people.test/phone' to='ana@corp.test' id='x'>"
        "<displayed xmlns='urn:xmpp:chat-markers:0' id='imdn-2'/></message>"
    )
    told = [sent.text for sent in house.taken()]
    assert [f"imdn-{number}" in text for number, text in enumerate(told)] == [True] * 3
    assert all("<displayed/>" in text for text in told)
    await house.hears(
        "<message from='ben@people.test/tablet' to='ana@corp.test' id='y'>"
        "<displayed xmlns='urn:xmpp:chat-markers:0' id='imdn-2'/></message>"
    )
    assert house.taken() == [], "a marker of another resource counts once"


async def test_a_phone_without_cpim_is_not_bothered_with_receipts() -> None:
    house = await friends()
    await house.says("ana@corp.test", "ben@people.test", "plain")
    (stanza,) = house.link.take()
    await house.hears(
        "<message from='ben@people.test/phone' to='ana@corp.test' id='x'>"
        f"<received xmlns='urn:xmpp:receipts' id='{stanza.get('id')}'/></message>"
    )
    assert house.taken() == []


async def test_a_receipt_that_comes_after_a_restart_still_arrives() -> None:
    house = await friends()
    await house.register(headers=[("Accept", "text/plain, message/cpim")])
    await house.sip(cpim("text/plain", b"please confirm", "imdn-1", asks=["positive-delivery"]))
    await house.later(1)
    again = await house.crash().open()
    await again.sip(cpim("text/plain", b"I speak CPIM", "imdn-2"))
    await again.hears(
        "<message from='ben@people.test/phone' to='ana@corp.test' id='x'>"
        "<received xmlns='urn:xmpp:receipts' id='imdn-1'/></message>"
    )
    assert any("<delivered/>" in sent.text for sent in again.taken())


async def test_the_bounce_of_a_typing_notification_concerns_nobody() -> None:
    house = await friends()
    await house.sip(typing_request(is_active=True))
    (stanza,) = house.link.take()
    await house.hears(
        f"<message type='error' id='{stanza.get('id')}' from='ben@people.test' to='ana@corp.test'>"
        "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    )
    assert house.taken() == []


async def test_receipts_wait_behind_a_message_under_way_and_are_not_stored() -> None:
    house = await friends()
    await house.register(headers=[("Accept", "text/plain, message/cpim")])
    await house.sip(cpim("text/plain", b"please confirm", "imdn-1", asks=["positive-delivery"]))
    await settle()
    house.endpoint.is_holding = True
    await house.chat("under way", ident="m7")
    await house.hears(
        "<message from='ben@people.test/phone' to='ana@corp.test' id='x'>"
        "<received xmlns='urn:xmpp:receipts' id='imdn-1'/></message>"
    )
    (message,) = house.endpoint.sent[-1:]
    assert "under way" in message.text
    message.answer(200)
    await settle()
    assert "<delivered/>" in house.endpoint.sent[-1].text
    await house.later(1)
    assert house.journal == []


# --- what is bounded ---


async def test_displayed_covers_the_last_hundred_and_not_a_whole_archive() -> None:
    house = await friends(user_requests_per_second=0)
    await house.register(headers=[("Accept", "text/plain, message/cpim")])
    total = MAXIMUM_UNDISPLAYED + 3
    for number in range(total):
        await house.sip(cpim("text/plain", b"text", f"imdn-{number:03}", asks=["display"]))
        await settle()
    house.taken()
    await house.hears(
        "<message from='ben@people.test/phone' to='ana@corp.test' id='x'>"
        f"<displayed xmlns='urn:xmpp:chat-markers:0' id='imdn-{total - 1:03}'/></message>"
    )
    await settle(5 * total)
    told = [text for sent in house.taken() for text in re.findall(r"<message-id>(imdn-\d+)<", sent.text)]
    assert told == [f"imdn-{number:03}" for number in range(3, total)]


async def test_receipts_behind_a_phone_that_does_not_answer_end_at_a_hundred() -> None:
    house = await friends(user_requests_per_second=0)
    await house.register(headers=[("Accept", "text/plain, message/cpim")])
    total = MAXIMUM_LANE_BACKLOG + 3
    for number in range(total):
        await house.sip(cpim("text/plain", b"please confirm", f"imdn-{number:03}", asks=["positive-delivery"]))
        await settle()
    house.endpoint.is_holding = True
    await house.chat("under way", ident="m7")
    for number in range(total):
        await house.hears(
            "<message from='ben@people.test/phone' to='ana@corp.test' id='x'>"
            f"<received xmlns='urn:xmpp:receipts' id='imdn-{number:03}'/></message>"
        )
    assert house.messaging.waiting(ANA) == 1 + MAXIMUM_LANE_BACKLOG
    house.endpoint.is_holding = False
    (message,) = house.taken()
    message.answer(200)
    await settle(5 * total)
    told = [text for sent in house.taken() for text in re.findall(r"<message-id>(imdn-\d+)<", sent.text)]
    assert told == [f"imdn-{number:03}" for number in range(MAXIMUM_LANE_BACKLOG)]
    await house.chat("and on it goes", ident="m8")
    assert ["and on it goes" in sent.text for sent in house.taken()] == [True]


@pytest.mark.parametrize("notification", [("delivery", "delivered"), ("display", "displayed"), ("delivery", "failed")])
@pytest.mark.parametrize("excess", [0, 1])
async def test_a_report_about_an_endless_id_is_answered_and_goes_no_further(
    notification: tuple[str, str], excess: int
) -> None:
    house = await friends()
    identifier = "r" * (MAXIMUM_ID_LENGTH + excess)
    assert (await house.sip(report(identifier, *notification))).status == 200
    await settle()
    about = [text for text in house.link.stanzas if identifier in text]
    assert len(about) == 1 - excess
