"""Plays: a business user writes to a consumer. Journal, barrier, 202 (DESIGN "Ways through the house")."""

import pytest

from isthmus.errors import StoreError
from isthmus.interworking.cpim import build_cpim
from isthmus.ports import Crossing, PolicySetting
from isthmus.sip.message import SipRequest
from tests.support.messaging_house import ANA, BEN, PBX, House, bodies, texts
from tests.support.sip import message_request, sip_request
from tests.support.xmpp import settle

BOUNCE = "<error type='cancel'><{} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"


async def test_ana_writes_to_ben_and_ben_reads_it() -> None:
    house = await House().open()
    assert await house.says("ana@corp.test", "ben@people.test", "Hello Ben") == 202
    (stanza,) = house.link.take()
    assert stanza.get("from") == "ana@corp.test"
    assert stanza.get("to") == "ben@people.test"
    assert stanza.get("type") == "chat"
    assert bodies([stanza]) == ["Hello Ben"]
    await settle()
    assert house.journal == []
    (crossing,) = await house.store.crossings(ANA, BEN)
    assert isinstance(crossing, Crossing)
    assert crossing.delivered == 1


async def test_a_message_is_acknowledged_only_when_it_is_durable() -> None:
    house = await House().open()
    house.store.journal.hold()
    request = message_request("pat@pbx.test", "ben@people.test", "important")
    incoming = house.endpoint.receive(request, PBX)
    await settle()
    assert incoming.status == 0
    assert house.pbx_link.stanzas == []
    house.store.journal.release()
    await settle()
    assert incoming.status == 202
    assert bodies(house.pbx_link.take()) == ["important"]


async def test_a_full_disk_refuses_with_500_and_a_time_to_come_back() -> None:
    house = await House().open()
    house.store.journal.fault = StoreError("the disk is full")
    incoming = await house.sip(message_request("ana@corp.test", "ben@people.test", "lost?"))
    assert incoming.status == 500
    assert incoming.response.headers.get("Retry-After") == "10"
    assert house.link.stanzas == []


async def test_a_row_leaves_the_journal_only_after_the_barrier() -> None:
    house = await House().open()
    house.link.is_holding_barriers = True
    await house.says("ana@corp.test", "ben@people.test", "one")
    await house.says("ana@corp.test", "ben@people.test", "two")
    assert bodies(house.link.elements) == ["one", "two"]
    assert house.journal == ["one", "two"]
    assert house.link.barriers == 1
    house.link.release_barriers()
    await settle()
    assert house.journal == ["two"], "the first barrier proves what was written before it"
    await house.later(0.1)
    house.link.release_barriers()
    await settle()
    assert house.journal == []


async def test_many_messages_share_one_barrier() -> None:
    house = await House().open()
    for number in range(50):
        await house.says("pat@pbx.test", f"friend{number}@people.test", "hi", flow=PBX)
    await house.later(1)
    assert len(house.pbx_link.elements) == 50
    assert house.pbx_link.barriers <= 3
    assert house.journal == []


async def test_when_prosody_is_away_messages_wait_and_arrive_in_order() -> None:
    house = await House().open(is_linked=False)
    for text in ("one", "two", "three"):
        assert await house.says("ana@corp.test", "ben@people.test", text) == 202
    assert house.journal == ["one", "two", "three"]
    house.link.restore()
    await house.later(1)
    assert bodies(house.link.take()) == ["one", "two", "three"]
    assert house.journal == []


async def test_what_a_lost_stream_did_not_prove_is_sent_again_with_the_same_ids() -> None:
    house = await House().open()
    await house.says("ana@corp.test", "ben@people.test", "proved")
    await house.later(1)
    house.link.is_holding_barriers = True
    await house.says("ana@corp.test", "ben@people.test", "second")
    await house.says("ana@corp.test", "ben@people.test", "third")
    ids_before = [stanza.get("id") for stanza in house.link.elements[1:]]
    house.link.lose()
    await house.says("ana@corp.test", "ben@people.test", "fourth")
    house.link.is_holding_barriers = False
    house.link.restore()
    await house.later(2)
    assert bodies(house.link.elements) == ["proved", "second", "third", "fourth"]
    assert [stanza.get("id") for stanza in house.link.elements[1:3]] == ids_before
    assert house.journal == []


async def test_after_a_crash_everything_acknowledged_is_delivered_with_the_same_id() -> None:
    house = await House().open()
    house.link.is_holding_barriers = True
    await house.says("ana@corp.test", "ben@people.test", "survives")
    (before,) = house.link.elements
    again = await house.crash().open()
    await again.later(1)
    (after,) = again.link.elements
    assert (after.get("id"), bodies([after])) == (before.get("id"), ["survives"])
    assert again.journal == []


async def test_a_retransmission_after_a_crash_is_not_a_second_message() -> None:
    """De-duplication by (Call-ID, CSeq, From tag, recipient), which the journal remembers."""
    house = await House().open()
    request = message_request("pat@pbx.test", "ben@people.test", "once")
    assert (await house.sip(request, PBX)).status == 202
    await settle()
    again = await house.crash().open()
    assert (await again.sip(request.copy(), PBX)).status == 202
    await again.later(1)
    assert bodies(again.pbx_link.elements) == []


async def test_messages_with_one_call_id_but_other_cseq_are_different_messages() -> None:
    """Edge case 16: inbound, do not de-duplicate by Call-ID alone."""
    house = await House().open()
    for number, text in enumerate(("first", "second"), 1):
        incoming = await house.sip(
            message_request("pat@pbx.test", "ben@people.test", text, call_id="conversation", cseq=number), PBX
        )
        assert incoming.status == 202
    await settle()
    assert bodies(house.pbx_link.take()) == ["first", "second"]


async def test_a_bounced_message_comes_back_as_words_from_the_service_address() -> None:
    house = await House().open()
    await house.register()
    await house.says("ana@corp.test", "nobody@people.test", "Are you there?")
    (stanza,) = house.link.take()
    await house.hears(
        f"<message type='error' id='{stanza.get('id')}' from='nobody@people.test' to='ana@corp.test'>"
        f"{BOUNCE.format('service-unavailable')}</message>"
    )
    (notice,) = house.taken()
    assert "sip:isthmus@corp.test" in str(notice.request.from_address.uri)
    assert "nobody@people.test was not delivered" in notice.text
    assert "Are you there?" in notice.text
    assert house.journal == []


async def test_a_bounced_message_with_imdn_comes_back_as_imdn() -> None:
    house = await House().open()
    await house.register(headers=[("Accept", "text/plain, message/cpim")])
    await house.sip(cpim_request("Please confirm", dispositions=["positive-delivery"]))
    await settle()
    (stanza,) = house.link.take()
    assert stanza.get("id") == "imdn-1"
    await house.hears(
        f"<message type='error' id='imdn-1' from='ben@people.test' to='ana@corp.test'>"
        f"{BOUNCE.format('recipient-unavailable')}</message>"
    )
    (report,) = house.taken()
    assert report.request.content_type == "message/cpim"
    assert "<failed/>" in report.text
    assert "imdn-1" in report.text


async def test_an_error_stanza_about_a_message_that_was_never_sent_is_not_believed() -> None:
    house = await House().open()
    await house.register()
    await house.hears(
        "<message type='error' id='made-up' from='mallory@evil.test' to='ana@corp.test'>"
        f"{BOUNCE.format('service-unavailable')}</message>"
    )
    assert house.taken() == []


async def test_an_error_is_told_once_however_often_it_comes() -> None:
    house = await House().open()
    await house.register()
    await house.says("ana@corp.test", "ben@people.test", "hello")
    (stanza,) = house.link.take()
    for _ in range(3):
        await house.hears(
            f"<message type='error' id='{stanza.get('id')}' from='ben@people.test' to='ana@corp.test'>"
            f"{BOUNCE.format('service-unavailable')}</message>"
        )
    assert len(house.taken()) == 1


async def test_policy_refuses_with_its_reason_and_a_trace() -> None:
    house = await House().open()
    await house.policing.change([PolicySetting("user:ana@corp.test", "messages", "off")])
    incoming = await house.sip(message_request("ana@corp.test", "ben@people.test", "psst"))
    assert incoming.status == 403
    assert "switched off" in incoming.response.reason
    assert any(line.rule == "user.messages" for line in house.trace.recent)
    assert house.link.stanzas == []
    (crossing,) = await house.store.crossings(ANA, BEN)
    assert crossing.failed == 1


async def test_an_unknown_body_is_answered_with_415_and_what_we_take() -> None:
    house = await House().open()
    request = sip_request(
        "MESSAGE",
        "sip:ben@people.test",
        sender="sip:ana@corp.test",
        body="{}",
        content_type="application/json",
    )
    incoming = await house.sip(request)
    assert incoming.status == 415
    assert "text/plain" in (incoming.response.headers.get("Accept") or "")


async def test_an_empty_message_is_answered_and_goes_nowhere() -> None:
    house = await House().open()
    incoming = await house.sip(sip_request("MESSAGE", "sip:ben@people.test", sender="sip:ana@corp.test"))
    assert incoming.status == 200
    assert house.link.stanzas == []


async def test_text_that_is_not_utf8_is_refused() -> None:
    house = await House().open()
    request = sip_request(
        "MESSAGE", "sip:ben@people.test", sender="sip:ana@corp.test", body=b"\xff\xfe", content_type="text/plain"
    )
    assert (await house.sip(request)).status == 400


async def test_a_message_that_is_stale_on_arrival_is_not_delivered() -> None:
    house = await House().open()
    status = await house.says("ana@corp.test", "ben@people.test", "lunch now?", headers=[("Expires", "0")])
    assert status == 200
    assert house.link.stanzas == []


async def test_an_answer_has_neither_contact_nor_body() -> None:
    """RFC 3428 section 7."""
    house = await House().open()
    incoming = await house.sip(message_request("ana@corp.test", "ben@people.test", "hello"))
    assert incoming.response.body == b""
    assert "Contact" not in incoming.response.headers


async def test_a_message_that_goes_round_is_stopped() -> None:
    """Edge case 25: no echo loops through the gateway."""
    house = await House().open()
    name, value = house.loops.header(5)
    incoming = await house.sip(message_request("ana@corp.test", "ben@people.test", "again", headers=[(name, value)]))
    assert incoming.status == 482
    assert house.link.stanzas == []


async def test_the_hop_count_goes_on_over_the_crossing_and_a_forged_one_counts_nothing() -> None:
    house = await House().open()
    await house.says("ana@corp.test", "ben@people.test", "hop", headers=[house.loops.header(2)])
    await house.says("ana@corp.test", "ben@people.test", "hop", headers=[("X-Isthmus-Hop", "evil;hops=5;mac=0")])
    hops = [stanza.find("{urn:isthmus:hop:0}x") for stanza in house.link.take()]
    assert [hop.get("hops") for hop in hops if hop is not None] == ["3", "1"]


async def test_a_person_who_sends_too_fast_is_told_when_to_go_on() -> None:
    house = await House(user_requests_per_second=1.0, user_burst=3).open()
    statuses = [await house.says("pat@pbx.test", "ben@people.test", "spam", flow=PBX) for _ in range(5)]
    assert statuses == [202, 202, 202, 480, 480]
    await house.later(2)
    assert await house.says("pat@pbx.test", "ben@people.test", "spam", flow=PBX) == 202


async def test_when_too_much_waits_for_prosody_the_sender_is_told() -> None:
    house = await House().open(is_linked=False)
    house.messaging.routes.outboxes["corp.test"]._waiting.extend([None] * 50_000)  # type: ignore[list-item]  # a full queue
    incoming = await house.sip(message_request("ana@corp.test", "ben@people.test", "one more"))
    assert incoming.status == 480
    assert incoming.response.headers.get("Retry-After") is not None


async def test_a_server_that_takes_stanzas_and_does_not_keep_up_holds_the_senders_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isthmus.services.messaging_to_xmpp.MAXIMUM_WAITING", 3)
    house = await House().open()
    house.link.is_holding_barriers = True
    answers = [await house.says("ana@corp.test", "ben@people.test", f"Message {number}") for number in range(5)]
    assert answers == [202, 202, 202, 480, 480]
    house.link.release_barriers()
    await settle()
    house.clock.advance(1)
    house.link.release_barriers()
    await settle()
    assert await house.says("ana@corp.test", "ben@people.test", "and now?") == 202


async def test_an_mixed_body_with_two_texts_is_one_message() -> None:
    house = await House().open()
    body = "--b\r\nContent-Type: text/plain\r\n\r\nfirst\r\n--b\r\nContent-Type: text/plain\r\n\r\nsecond\r\n--b--\r\n"
    request = sip_request(
        "MESSAGE",
        "sip:ben@people.test",
        sender="sip:ana@corp.test",
        body=body,
        content_type='multipart/mixed;boundary="b"',
    )
    assert (await house.sip(request)).status == 202
    await settle()
    assert bodies(house.link.take()) == ["first\nsecond"]


async def test_colleagues_write_to_each_other_inside_the_business_realm() -> None:
    house = await House().open()
    await house.register("bea@corp.test")
    assert await house.says("ana@corp.test", "bea@corp.test", "Coffee?") == 202
    assert texts(house.taken()) == ["Coffee?"]
    assert house.link.stanzas == []
    assert house.journal == []


async def test_a_colleague_who_is_away_gets_the_message_at_the_next_registration() -> None:
    """Edge case 26."""
    house = await House().open()
    assert await house.says("ana@corp.test", "bea@corp.test", "Later then") == 202
    assert house.taken() == []
    await house.register("bea@corp.test")
    assert texts(house.taken()) == ["Later then"]


async def test_somebody_unknown_looks_like_somebody_who_cannot_be_reached() -> None:
    house = await House().open()
    assert await house.says("ana@corp.test", "zoe@corp.test", "Who are you?") == 480


async def test_a_provider_that_rewrites_the_address_to_an_ip_still_reaches_the_person() -> None:
    """Edge case 20: match the user by To, not by the raw Request-URI."""
    house = await House().open()
    request = sip_request(
        "MESSAGE",
        "sip:ben@192.0.2.1:5060",
        sender="sip:ana@corp.test",
        recipient="sip:ben@people.test",
        body="hi",
        content_type="text/plain",
    )
    assert (await house.sip(request)).status == 202
    await settle()
    (stanza,) = house.link.take()
    assert stanza.get("to") == "ben@people.test"


def cpim_request(text: str, *, dispositions: list[str], ident: str = "imdn-1") -> SipRequest:
    body = build_cpim(
        sender_uri="im:ana@corp.test",
        recipient_uri="im:ben@people.test",
        sent_at="2026-11-22T17:40:00Z",
        content_type="text/plain; charset=utf-8",
        body=text.encode(),
        message_id=ident,
        dispositions=dispositions,
    )
    return sip_request(
        "MESSAGE", "sip:ben@people.test", sender="sip:ana@corp.test", body=body, content_type="message/cpim"
    )
