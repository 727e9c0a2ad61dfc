"""Plays: a consumer writes to a business user. Queue per person, every device, offline, expiry, errors."""

from xml.etree.ElementTree import Element

import pytest

from isthmus.errors import RequestTimeoutError, StoreError, TransportError
from isthmus.model import Address
from isthmus.ports import Flow, PolicySetting
from isthmus.services.events import UserRemoved
from isthmus.services.messaging_to_sip import MAXIMUM_LANE_BACKLOG
from tests.support.messaging_house import ANA, BEN, House, bodies, eventually, texts
from tests.support.sip import TCP_PHONE, UDP_PHONE
from tests.support.xmpp import settle

DESK = Flow("udp", "192.0.2.20", 5060, "192.0.2.1", 5060)
ERRORS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"


def conditions(elements: list[Element]) -> list[str]:
    found = []
    for element in elements:
        assert element.get("type") == "error"
        error = element.find("{jabber:component:accept}error")
        assert error is not None
        found.append(next(part.tag.removeprefix(ERRORS) for part in error if not part.tag.endswith("text")))
    return found


async def test_ben_writes_to_ana_and_her_phone_gets_it() -> None:
    house = await House().open()
    await house.register()
    await house.chat("Hello Ana")
    (sent,) = house.taken()
    request = sent.request
    assert str(request.uri) == "sip:ana@192.0.2.10:5060;transport=udp"
    assert str(request.from_address.uri) == "sip:ben@people.test;gr=phone"
    assert str(request.to_address.uri) == "sip:ana@corp.test"
    assert request.from_address.tag
    assert request.content_type == "text/plain"
    assert sent.text == "Hello Ana"
    assert sent.next_hop is not None
    assert sent.next_hop.flow == UDP_PHONE
    assert house.journal == []
    assert house.link.stanzas == []


@pytest.mark.parametrize(
    ("agent", "sender"),
    [("Snom/10", "<sip:ben@people.test;gr=phone>"), ("LinphoneAndroid/5.2.4", "<sip:ben@people.test>")],
)
async def test_a_phone_that_takes_a_device_for_a_person_is_told_the_person_alone(agent: str, sender: str) -> None:
    house = await House().open()
    await house.register(headers=[("User-Agent", agent), ("Accept", "text/plain, message/cpim")])
    await house.chat("hello")
    (sent,) = house.taken()
    assert str(sent.request.from_address).partition(";tag")[0] == sender
    assert f"From: {sender}\r\n" in sent.request.body.decode(), "in CPIM as well"


async def test_how_long_delivery_takes_is_measured_and_not_what_the_sender_says_about_it() -> None:
    house = await House().open()
    await house.register()
    await house.chat("long ago", extra="<delay xmlns='urn:xmpp:delay' stamp='2001-01-01T00:00:00Z'/>")
    assert house.metrics.message_delivery.sums[("to-business",)] < 1.0


async def test_every_message_has_its_own_call_id() -> None:
    """Edge case 16: phones drop what repeats a Call-ID."""
    house = await House().open()
    await house.register()
    await house.chat("one", ident="1")
    await house.chat("two", ident="2")
    await house.later(1)
    await house.chat("the same id again", ident="1")
    call_ids = [sent.request.call_id for sent in house.taken()]
    assert len(set(call_ids)) == 3


async def test_only_one_message_is_pending_per_phone_and_the_order_is_kept() -> None:
    """RFC 3428 section 8: no second MESSAGE to the same URI while one is pending."""
    house = await House().open()
    await house.register()
    house.endpoint.is_holding = True
    for number in range(4):
        await house.chat(f"part {number}", ident=str(number))
    assert texts(house.endpoint.sent[-1:]) == ["part 0"]
    for number in range(4):
        sent = house.endpoint.sent[-1]
        assert sent.text == f"part {number}"
        sent.answer(200)
        await settle()
    assert len(house.taken()) == 4
    assert house.journal == []


async def test_different_people_do_not_wait_for_each_other() -> None:
    house = await House().open()
    await house.register()
    await house.register("bea@corp.test", flow=DESK)
    house.endpoint.is_holding = True
    await house.chat("to ana", ident="1")
    await house.chat("to bea", ident="2", to="bea@corp.test")
    assert texts(house.taken()) == ["to ana", "to bea"]


async def test_all_devices_ring_and_one_answer_settles() -> None:
    """STANDARDS 4.2: a message to the bare address goes to all registered devices."""
    house = await House().open()
    await house.register()
    await house.register(flow=DESK)
    house.endpoint.answer_when(lambda request, _: "192.0.2.10" in str(request.uri), 480)
    await house.chat("anybody?")
    assert len(house.taken()) == 2
    assert house.journal == []
    assert house.link.stanzas == [], "the other device's refusal is nobody's business"


async def test_a_dead_second_phone_does_not_hold_up_the_conversation() -> None:
    house = await House().open()
    await house.register()
    await house.register(flow=DESK)
    house.endpoint.is_holding = True
    for number in range(3):
        await house.chat(f"part {number}", ident=str(number))
        alive = [sent for sent in house.endpoint.sent if "192.0.2.10" in str(sent.request.uri)]
        alive[-1].answer(200)
        await settle()
    assert house.journal == []
    to_alive = house.endpoint.sent_to("sip:ana@192.0.2.10:5060;transport=udp")
    to_dead = house.endpoint.sent_to("sip:ana@192.0.2.20:5060;transport=udp")
    assert texts(to_alive) == ["part 0", "part 1", "part 2"]
    assert texts(to_dead) == ["part 0"]
    to_dead[0].answer(200)
    await settle()
    assert texts(house.endpoint.sent_to("sip:ana@192.0.2.20:5060;transport=udp"))[:2] == ["part 0", "part 1"]


async def test_a_phone_that_lags_far_behind_is_spared_what_is_oldest() -> None:
    """Another phone of hers has had it all; memory and patience end at a hundred."""
    house = await House(user_requests_per_second=0).open()
    await house.register()
    await house.register(flow=DESK)
    house.endpoint.answer_when(lambda request, _: "192.0.2.10" in str(request.uri), 200)
    house.endpoint.is_holding = True
    total = MAXIMUM_LANE_BACKLOG + 3
    for number in range(total):
        await house.chat(f"part {number}", ident=str(number))
        alive = [sent for sent in house.endpoint.sent if "192.0.2.10" in str(sent.request.uri)]
        alive[-1].answer(200)
        await settle()
    house.endpoint.is_holding = False
    desk = "sip:ana@192.0.2.20:5060;transport=udp"
    house.endpoint.sent_to(desk)[0].answer(200)
    last = f"part {total - 1}"
    await eventually(lambda: last in texts(house.endpoint.sent_to(desk)), turns=5 * total)
    got = texts(house.endpoint.sent_to(desk))
    assert got[0] == "part 0"  # was under way already
    assert got[1:] == [f"part {number}" for number in range(total - MAXIMUM_LANE_BACKLOG, total)]
    assert house.journal == []


async def test_the_flows_of_one_device_are_tried_one_after_the_other() -> None:
    """RFC 5626 section 7: never two flows of one instance; 430 and timeout mean the next one."""
    house = await House().open()
    for number, flow in enumerate((TCP_PHONE, Flow("tcp", "192.0.2.10", 40020, connection=11)), 1):
        await house.register(
            contact=f'<sip:ana@192.0.2.10;transport=tcp>;+sip.instance="<urn:uuid:1>";reg-id={number}',
            flow=flow,
            headers=[("Supported", "outbound, path")],
        )
    house.endpoint.script(430, 200)
    await house.chat("which way?")
    first, second = house.taken()
    assert first.next_hop is not None
    assert second.next_hop is not None
    assert first.next_hop.flow is not None
    assert first.next_hop.flow.connection == 11, "the newest flow first"
    assert second.next_hop.flow == TCP_PHONE
    assert house.journal == []


async def test_while_nobody_is_registered_messages_wait_and_arrive_in_order() -> None:
    """Edge case 26."""
    house = await House().open()
    for number in range(3):
        await house.chat(f"part {number}", ident=str(number))
    assert house.taken() == []
    assert house.link.stanzas == [], "stored is not refused"
    assert house.messaging.waiting(ANA) == 3
    await house.register()
    assert texts(house.taken()) == ["part 0", "part 1", "part 2"]
    assert house.journal == []


async def test_waiting_messages_survive_a_crash_and_keep_their_call_id() -> None:
    house = await House().open()
    await house.register()
    house.endpoint.is_holding = True
    await house.chat("on its way")
    (before,) = house.taken()
    again = await house.crash().open()
    await settle(20)
    (after,) = again.taken()
    assert after.text == "on its way"
    assert after.request.call_id == before.request.call_id
    assert after.request.from_address.tag != before.request.from_address.tag
    assert again.journal == []


async def test_a_message_that_nobody_fetched_comes_back_when_it_expires() -> None:
    house = await House(offline_seconds=3600).open()
    await house.chat("too late")
    await house.later(3500)
    assert house.link.stanzas == []
    await house.later(200)
    (error,) = house.link.take()
    assert conditions([error]) == ["recipient-unavailable"]
    assert error.get("id") == "m1"
    assert error.get("to") == "ben@people.test/phone"
    await house.later(1)
    assert house.journal == []
    await house.register()
    assert house.taken() == []


async def test_an_expired_message_of_a_colleague_comes_back_as_a_notice() -> None:
    house = await House(offline_seconds=3600).open()
    await house.register("bea@corp.test", flow=DESK)
    await house.says("bea@corp.test", "ana@corp.test", "Are you in?", flow=DESK)
    await house.later(3599)
    await house.register("bea@corp.test", flow=DESK)
    await house.later(2)
    (notice,) = house.taken()
    assert "expired" in notice.text
    assert str(notice.request.from_address.uri) == "sip:isthmus@corp.test"


async def test_a_jump_of_the_wall_clock_forward_expires_within_the_hour() -> None:
    house = await House(offline_seconds=86_400).open()
    await house.chat("patience")
    house.clock.jump_wall(90_000)
    await house.later(3_601)
    assert conditions(house.link.take()) == ["recipient-unavailable"]


@pytest.mark.parametrize(
    ("status", "condition"),
    [
        (403, "forbidden"),
        (404, "item-not-found"),
        (405, "feature-not-implemented"),
        (410, "gone"),
        (413, "policy-violation"),
        (415, "not-acceptable"),
        (488, "not-acceptable"),
        (603, "recipient-unavailable"),
        (604, "item-not-found"),
    ],
)
async def test_a_permanent_refusal_becomes_the_matching_stanza_error(status: int, condition: str) -> None:
    house = await House().open()
    await house.register()
    house.endpoint.answer_when(lambda *_: True, status)
    await house.chat("hello?")
    assert conditions(house.link.take()) == [condition]
    await house.later(1)
    assert house.journal == []


@pytest.mark.parametrize("trouble", [480, 486, 503, 504, RequestTimeoutError("no answer"), TransportError("no route")])
async def test_a_temporary_trouble_is_tried_again_and_nothing_is_lost(trouble: int | Exception) -> None:
    house = await House().open()
    await house.register()
    house.endpoint.script(trouble)
    await house.chat("first", ident="1")
    await house.chat("second", ident="2")
    assert house.journal == ["first", "second"]
    house.taken()
    await house.later(10)
    assert texts(house.taken()) == ["first", "second"]
    assert house.journal == []
    assert house.link.stanzas == []


async def test_retries_back_off_up_to_five_minutes() -> None:
    house = await House().open()
    await house.register(expires=7200)
    house.endpoint.answer_when(lambda *_: True, 480)
    await house.chat("knock")
    await house.later(3_000)
    tries = len(house.taken())
    assert 10 < tries < 25


async def test_a_registration_ends_the_waiting_at_once() -> None:
    house = await House().open()
    await house.register()
    house.endpoint.script(RequestTimeoutError("no answer"))
    await house.chat("hello?")
    house.taken()
    await house.register()
    assert texts(house.taken()) == ["hello?"]


async def test_a_message_that_crashes_the_phone_does_not_block_the_next_ones_for_days() -> None:
    house = await House().open()
    await house.register(expires=7200)
    house.endpoint.answer_when(lambda request, _: request.body == b"poison", 500)
    await house.chat("poison", ident="1")
    await house.chat("cure", ident="2")
    await house.later(3_000)
    assert texts(house.taken())[-1] == "cure"
    assert conditions(house.link.take()) == ["internal-server-error"]


async def test_the_box_of_one_person_is_bounded_and_the_sender_is_told() -> None:
    house = await House(offline_messages_per_user=3).open()
    for number in range(5):
        await house.chat(f"{number}", ident=str(number))
    errors = house.link.take()
    assert conditions(errors) == ["resource-constraint"] * 2
    assert house.journal == ["0", "1", "2"]


@pytest.mark.parametrize("refusal", [415, 488])
async def test_cpim_goes_only_to_devices_that_list_it_and_a_refusal_is_remembered(refusal: int) -> None:
    """Edge case 17; Linphone says 488."""
    house = await House().open()
    await house.register(headers=[("Accept", "text/plain, message/cpim")])
    house.endpoint.script(refusal)
    await house.chat("one", ident="1")
    first, second = house.taken()
    assert first.request.content_type == "message/cpim"
    assert second.request.content_type == "text/plain"
    assert second.text == "one"
    await house.chat("two", ident="2")
    (third,) = house.taken()
    assert third.request.content_type == "text/plain", "the refusal is remembered"
    assert house.journal == []


async def test_a_long_text_is_split_between_characters_over_udp() -> None:
    """Edge case 18: characters, not bytes; never the whole body per part."""
    house = await House().open()
    await house.register()
    text = "Grüße an alle 🙂 " * 200
    await house.chat(text.strip())
    parts = house.taken()
    assert len(parts) > 2
    assert all(len(sent.request.to_bytes()) <= 1300 - 100 for sent in parts)
    joined = "".join(sent.text.partition(") ")[2] for sent in parts)
    assert joined == text.strip()
    assert house.journal == []


async def test_a_long_text_takes_the_connection_when_the_device_has_one() -> None:
    house = await House().open()
    await house.register(contact="<sip:ana@192.0.2.10:5060;transport=tcp>", flow=TCP_PHONE)
    await house.chat("long " * 1000)
    (sent,) = house.taken()
    assert len(sent.request.body) > 1300


async def test_a_text_beyond_the_limit_is_a_policy_violation() -> None:
    house = await House(message_octets=1000).open()
    await house.chat("x" * 2000)
    assert conditions(house.link.take()) == ["policy-violation"]


async def test_policy_refuses_with_its_reason() -> None:
    house = await House().open()
    await house.policing.change([PolicySetting("user:ana@corp.test", "strangers", "nobody")])
    await house.chat("hello?")
    (error,) = house.link.take()
    assert conditions([error]) == ["policy-violation"]
    assert house.journal == []


async def test_a_blocked_person_sees_somebody_who_cannot_be_reached() -> None:
    """Edge case 15; and the unknown user looks exactly the same (contact enumeration, edge case 46)."""
    house = await House().open()
    await house.policing.block(ANA, BEN)
    await house.chat("blocked?", ident="1")
    await house.chat("who?", ident="2", to="zoe@corp.test")
    blocked, unknown = house.link.take()
    assert conditions([blocked, unknown]) == ["recipient-unavailable"] * 2


async def test_a_full_disk_is_told_to_the_sender() -> None:
    house = await House().open()
    house.store.journal.fault = StoreError("the disk is full")
    await house.chat("hello?")
    (error,) = house.link.take()
    assert conditions([error]) == ["resource-constraint"]
    detail = error.find("{jabber:component:accept}error")
    assert detail is not None
    assert detail.get("type") == "wait"


async def test_an_encrypted_message_arrives_as_a_clear_notice() -> None:
    """Edge case 24."""
    house = await House().open()
    await house.register()
    await house.hears(
        "<message type='chat' id='o1' from='ben@people.test/phone' to='ana@corp.test'>"
        "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>x</payload></encrypted>"
        "<body>I sent you an OMEMO encrypted message</body></message>"
    )
    (sent,) = house.taken()
    assert "encrypted" in sent.text
    assert "I sent you an OMEMO" not in sent.text


async def test_carbon_copies_are_not_messages() -> None:
    """Edge case 25."""
    house = await House().open()
    await house.register()
    await house.hears(
        "<message from='ben@people.test' to='ana@corp.test'><sent xmlns='urn:xmpp:carbons:2'>"
        "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>copy</body></message></forwarded>"
        "</sent></message>"
    )
    assert house.taken() == []


async def test_a_reaction_says_what_it_is_about() -> None:
    house = await House().open()
    await house.register()
    await house.says("ana@corp.test", "ben@people.test", "Shall we meet at six?")
    (stanza,) = house.link.take()
    await house.hears(
        "<message type='chat' id='r1' from='ben@people.test/phone' to='ana@corp.test'>"
        f"<reactions xmlns='urn:xmpp:reactions:0' id='{stanza.get('id')}'><reaction>👍</reaction></reactions></message>"
    )
    (sent,) = house.taken()
    assert "👍" in sent.text
    assert "Shall we meet at six?" in sent.text


async def test_nobody_can_quote_what_others_said() -> None:
    house = await House().open()
    await house.register()
    await house.says("ana@corp.test", "ben@people.test", "our secret")
    (stanza,) = house.link.take()
    await house.hears(
        "<message type='chat' id='r1' from='eve@people.test/x' to='ana@corp.test'>"
        f"<reactions xmlns='urn:xmpp:reactions:0' id='{stanza.get('id')}'><reaction>👀</reaction></reactions></message>"
    )
    assert all("our secret" not in text for text in texts(house.taken()))


async def test_a_message_that_goes_round_is_stopped() -> None:
    house = await House().open()
    await house.register()
    await house.chat("again", extra="<x xmlns='urn:isthmus:hop:0' hops='5'/>")
    assert conditions(house.link.take()) == ["policy-violation"]
    assert house.taken() == []


async def test_a_flooding_consumer_is_slowed_down() -> None:
    house = await House(user_requests_per_second=1.0, user_burst=3).open()
    await house.register()
    for number in range(5):
        await house.chat(f"{number}", ident=str(number))
    assert texts(house.taken()) == ["0", "1", "2"]
    assert conditions(house.link.take()) == ["policy-violation"] * 2


async def test_a_discovered_domain_has_its_own_allowance() -> None:
    """Edge case 46."""
    house = await House().open()
    await house.register()
    for number in range(30):
        await house.hears(
            f"<message type='chat' id='{number}' from='u{number}@flood.test/x' to='ana@corp.test'>"
            "<body>x</body></message>"
        )
    assert len(house.taken()) == 20
    assert len(house.link.take()) == 10


async def test_groupchat_to_a_person_is_refused() -> None:
    house = await House().open()
    await house.hears("<message type='groupchat' from='room@muc.test/x' to='ana@corp.test'><body>hi</body></message>")
    assert conditions(house.link.take()) == ["service-unavailable"]


async def test_when_a_user_is_removed_the_senders_of_waiting_messages_are_told() -> None:
    house = await House().open()
    await house.chat("waiting")
    house.bus.send(ANA, UserRemoved(ANA))
    await house.later(1)
    assert conditions(house.link.take()) == ["item-not-found"]
    assert house.journal == []


async def test_a_failure_is_told_even_when_prosody_was_away_at_that_moment() -> None:
    house = await House(offline_seconds=3600).open()
    await house.chat("too late")
    house.link.lose()
    await house.later(3601)
    assert house.journal == ["too late"], "not settled before its sender was told"
    house.link.restore()
    await house.later(1)
    assert conditions(house.link.take()) == ["recipient-unavailable"]
    assert house.journal == []


async def test_a_neighbour_gets_messages_for_its_domain_and_the_next_one_takes_over() -> None:
    house = await House().open()
    house.endpoint.script(RequestTimeoutError("no answer"), 200)
    await house.chat("Hello Pat", to="pat@pbx.test", ident="1")
    first, second = house.taken()
    assert str(first.request.uri) == "sip:pat@pbx.test"
    assert first.next_hop is not None
    assert second.next_hop is not None
    assert (str(first.next_hop.uri), str(second.next_hop.uri)) == (
        "sip:198.51.100.5:5060;transport=udp",
        "sip:198.51.100.6:5060;transport=udp",
    )
    await house.chat("and again", to="pat@pbx.test", ident="2")
    (third,) = house.taken()
    assert str(third.next_hop and third.next_hop.uri) == "sip:198.51.100.6:5060;transport=udp", "the dead one rests"
    await house.later(31)
    await house.chat("and again", to="pat@pbx.test", ident="3")
    assert str(house.taken()[0].next_hop.uri) == "sip:198.51.100.5:5060;transport=udp"  # type: ignore[union-attr]  # set


async def test_a_service_address_is_not_for_consumers() -> None:
    house = await House().open()
    await house.chat("accept", to="isthmus@corp.test")
    assert conditions(house.link.take()) == ["service-unavailable"]


async def test_words_to_the_service_address_are_carried_out_and_answered() -> None:
    house = await House().open()
    heard: list[tuple[Address, str]] = []

    async def command(user: Address, text: str) -> str:
        heard.append((user, text))
        return "ben@people.test can now see your presence."

    house.messaging.set_command(command)
    await house.register()
    assert await house.says("ana@corp.test", "isthmus@corp.test", "accept ben@people.test") == 202
    await settle(20)
    assert heard == [(ANA, "accept ben@people.test")]
    (reply,) = house.taken()
    assert reply.text == "ben@people.test can now see your presence."
    assert house.journal == []


async def test_a_notice_waits_for_its_reader_like_any_message() -> None:
    house = await House().open()
    await house.messaging.send_notice(ANA, "ben@people.test would like to be your contact")
    assert house.taken() == []
    await house.register()
    assert texts(house.taken()) == ["ben@people.test would like to be your contact"]


async def test_the_echo_answers_consumers() -> None:
    house = await House().open()
    await house.chat("ping 7", to="echo@corp.test")
    (stanza,) = house.link.take()
    assert (stanza.get("from"), stanza.get("to")) == ("echo@corp.test", "ben@people.test/phone")
    assert bodies([stanza]) == ["ping 7"]
    await house.later(1)
    assert house.journal == []


async def test_the_echo_answers_business_users_and_never_another_echo() -> None:
    house = await House().open()
    await house.register()
    await house.says("ana@corp.test", "echo@corp.test", "ping 8")
    await settle(20)
    assert texts(house.taken()) == ["ping 8"]
    await house.hears("<message from='echo@people.test' to='echo@corp.test' id='e'><body>loop</body></message>")
    assert house.link.stanzas == []
