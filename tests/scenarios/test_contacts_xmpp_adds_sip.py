"""Plays: ben@people.test (XMPP) adds ana@corp.test (SIP), and everything that can become of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.errors import StoreError
from isthmus.model import Address, AuthorisationState
from isthmus.ports import PolicySetting
from tests.support.presence_house import ANA, BEN, SERVICE, PresenceHouse, activity, pidf
from tests.support.sip import UDP_PHONE

UDP_LAPTOP = replace(UDP_PHONE, remote_host="192.0.2.11")
SUBSCRIBE = "<presence type='subscribe' from='ben@people.test' to='ana@corp.test'/>"


@pytest.fixture
async def house() -> PresenceHouse:
    return await PresenceHouse().open()


async def test_a_request_waits_for_the_employee_and_says_nothing_meanwhile(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    assert "unavailable" not in [kind for kind, _, _ in house.said()]
    assert house.contacts.state(BEN, ANA) is AuthorisationState.PENDING
    [(recipient, text)] = house.notices.sent
    assert recipient == ANA
    assert "ben@people.test would like to be your contact" in text


async def test_a_repeated_request_does_not_ask_twice(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    await house.stanza(SUBSCRIBE)
    assert len(house.notices.sent) == 1


async def test_accept_by_message_tells_the_grant_before_the_presence(house: PresenceHouse) -> None:
    await house.register(ANA)
    await house.stanza(SUBSCRIBE)
    reply = await house.consent.command_received(ANA, "accept ben@people.test")
    await house.settle()
    assert reply == "ben@people.test can now see your presence."
    assert house.said() == [
        ("subscribed", "ana@corp.test", "ben@people.test"),
        ("", "ana@corp.test/isthmus", "ben@people.test"),
    ]


async def test_accept_alone_means_the_only_request_that_waits(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    await house.consent.command_received(ANA, "Accept")
    assert house.contacts.state(BEN, ANA) is AuthorisationState.ACTIVE


async def test_an_employee_who_is_offline_is_shown_as_such_after_the_grant(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    await house.settle()
    assert [kind for kind, _, _ in house.said()] == ["subscribed", "unavailable"]


async def test_decline_refuses_and_is_not_asked_again_the_same_day(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    await house.consent.command_received(ANA, "decline ben@people.test")
    await house.settle()
    assert [kind for kind, _, _ in house.said()] == ["unsubscribed", "unavailable"]
    await house.stanza(SUBSCRIBE)
    assert len(house.notices.sent) == 1
    house.clock.advance(86_401)
    await house.stanza(SUBSCRIBE)
    assert len(house.notices.sent) == 2


async def test_a_blocked_person_sees_the_same_as_a_declined_one(house: PresenceHouse) -> None:
    """Edge case 15: different to the administrator, the same to the blocked person."""
    await house.stanza(SUBSCRIBE)
    await house.consent.command_received(ANA, "decline ben@people.test")
    await house.settle()
    declined = house.said()
    other = await PresenceHouse().open()
    await other.stanza(SUBSCRIBE)
    await other.consent.command_received(ANA, "block ben@people.test")
    await other.settle()
    assert other.said() == declined
    assert any(line.rule == "contact.blocked" for line in other.trace.recent)


async def test_a_pending_request_survives_a_restart(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    again = await PresenceHouse(house.store, house.clock).open()
    assert [row.watcher for row in again.contacts.pending(ANA)] == [BEN]
    assert again.notices.sent == []


async def test_an_unknown_user_answers_like_a_refusal(house: PresenceHouse) -> None:
    """Edge case 46: enumeration learns nothing beyond "no"."""
    await house.stanza("<presence type='subscribe' from='ben@people.test' to='nobody@corp.test'/>")
    assert [kind for kind, _, _ in house.said()] == ["unsubscribed", "unavailable"]


async def test_unsubscribe_ends_the_view_and_is_confirmed(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    await house.settle()
    house.said()
    await house.stanza("<presence type='unsubscribe' from='ben@people.test' to='ana@corp.test'/>")
    assert [kind for kind, _, _ in house.said()] == ["unsubscribed", "unavailable"]
    assert house.contacts.state(BEN, ANA) is None


async def test_a_repeated_subscribe_of_a_contact_is_granted_again(house: PresenceHouse) -> None:
    """RFC 6121 section 3.1.3: the contact's server answers for the contact."""
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    await house.settle()
    house.said()
    await house.stanza(SUBSCRIBE)
    assert house.said()[0][0] == "subscribed"


async def test_a_probe_is_answered_with_the_current_presence(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    await house.publish(ANA, pidf(ANA, person=activity("meeting", "Budget")))
    await house.settle()
    house.link.take()
    await house.stanza("<presence type='probe' from='ben@people.test' to='ana@corp.test'/>")
    [stanza] = house.link.take()
    assert stanza.findtext("{jabber:component:accept}show") == "dnd"
    assert stanza.findtext("{jabber:component:accept}status") == "Budget"


async def test_a_probe_of_somebody_without_grant_is_told_so(house: PresenceHouse) -> None:
    await house.stanza("<presence type='probe' from='ben@people.test' to='ana@corp.test'/>")
    assert house.said() == [("unsubscribed", "ana@corp.test", "ben@people.test")]


async def test_policy_switched_off_under_a_live_contact_says_so_and_comes_back(house: PresenceHouse) -> None:
    """Edge case 13: hidden by policy does not look like "offline", and the authorisation survives."""
    await house.register(ANA)
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    await house.settle()
    house.link.take()
    off = PolicySetting("user:ana@corp.test", "presence", "off")
    await house.policing.change([off])
    await house.settle()
    [stanza] = house.link.take()
    assert stanza.get("type") == "unavailable"
    assert "switched off" in (stanza.findtext("{jabber:component:accept}status") or "")
    await house.policing.change([], [off])
    await house.settle()
    [stanza] = house.link.take()
    assert stanza.get("type") is None


async def test_who_is_on_the_employees_list_already_is_granted_at_once(house: PresenceHouse) -> None:
    """Edge case 14: both add each other."""
    await house.subscribe(ANA, BEN)
    await house.stanza(SUBSCRIBE)
    assert house.contacts.state(BEN, ANA) is AuthorisationState.ACTIVE
    assert house.notices.sent == []


async def test_edge_case_14_a_stale_grant_on_bens_side_is_renewed_when_ana_adds_him(house: PresenceHouse) -> None:
    """Ben's server still holds ana as a contact; it is not told that she is none, now that she wants him as well."""
    await house.register(ANA)
    await house.subscribe(ANA, BEN)
    house.link.take()
    await house.stanza("<presence type='probe' from='ben@people.test' to='ana@corp.test'/>")
    assert house.said() == [
        ("subscribed", "ana@corp.test", "ben@people.test"),
        ("", "ana@corp.test/isthmus", "ben@people.test"),
    ]
    assert house.contacts.state(BEN, ANA) is AuthorisationState.ACTIVE


async def test_a_probe_of_somebody_who_was_declined_is_no_way_back_in(house: PresenceHouse) -> None:
    await house.subscribe(ANA, BEN)
    await house.stanza(SUBSCRIBE)
    await house.contacts.decline(ANA, BEN)
    await house.settle()
    house.link.take()
    await house.stanza("<presence type='probe' from='ben@people.test' to='ana@corp.test'/>")
    assert ("unsubscribed", "ana@corp.test", "ben@people.test") in house.said()
    assert house.contacts.state(BEN, ANA) is None


async def test_only_so_many_requests_wait_for_one_person(house: PresenceHouse) -> None:
    """A flood of strangers stops at 200, as a matter for later; whoever is answered makes room."""
    for number in range(200):
        await house.contacts.ask(Address(f"p{number}", "people.test"), ANA)
    house.link.take()
    await house.stanza(SUBSCRIBE)
    assert house.contacts.state(BEN, ANA) is None
    await house.contacts.decline(ANA, Address("p0", "people.test"))
    await house.stanza(SUBSCRIBE)
    assert house.contacts.state(BEN, ANA) is AuthorisationState.PENDING


async def test_a_contact_list_has_an_end(house: PresenceHouse) -> None:
    for number in range(1_000):
        await house.contacts.ask(ANA, Address(f"p{number}", "people.test"))
    assert (await house.subscribe(ANA, BEN)).status == 403
    await house.contacts.give_up(ANA, Address("p0", "people.test"))
    assert (await house.subscribe(ANA, BEN)).status == 200


async def test_nothing_is_told_that_is_not_durable(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    house.store.fault = StoreError("the disk is full")
    with pytest.raises(StoreError):
        await house.contacts.approve(ANA, BEN)
    await house.settle()
    assert "unavailable" not in [kind for kind, _, _ in house.said()]
    assert house.contacts.state(BEN, ANA) is AuthorisationState.PENDING


async def test_the_service_address_agrees_at_once(house: PresenceHouse) -> None:
    await house.stanza(f"<presence type='subscribe' from='ben@people.test' to='{SERVICE}'/>")
    assert [kind for kind, _, _ in house.said()] == ["subscribed", ""]


async def test_after_a_reconnect_the_state_is_repeated_and_never_flickers(house: PresenceHouse) -> None:
    """Edge case 49, hard case f of RFC 8048: the same state again, no "unavailable" in between."""
    await house.register(ANA)
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    await house.settle()
    house.said()
    house.link.lose()
    house.link.restore()
    house.clock.advance(1)
    assert house.said() == [("", "ana@corp.test/isthmus", "ben@people.test")]


async def test_words_nobody_understands_get_help(house: PresenceHouse) -> None:
    assert "accept ADDRESS" in await house.consent.command_received(ANA, "what?")
    assert "contacts yet" in await house.consent.command_received(ANA, "list")
    assert "form name@domain" in await house.consent.command_received(ANA, "add ben")


async def test_a_phone_without_presence_adds_by_message(house: PresenceHouse) -> None:
    await house.consent.command_received(ANA, "add ben@people.test")
    await house.settle()
    assert house.said() == [("subscribe", "ana@corp.test", "ben@people.test")]
    await house.consent.command_received(ANA, "remove ben@people.test")
    await house.settle()
    assert house.said() == [("unsubscribe", "ana@corp.test", "ben@people.test")]


async def test_a_phone_that_publishes_closed_is_offline_although_it_is_registered(house: PresenceHouse) -> None:
    await house.register(ANA)
    await house.publish(ANA, pidf(ANA, "unknown"))
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    await house.settle()
    assert [kind for kind, _, _ in house.said()] == ["subscribed", ""]
    await house.publish(ANA, pidf(ANA, "closed"))
    assert [kind for kind, _, _ in house.said()] == ["unavailable"]
    await house.publish(ANA, pidf(ANA, "open"))
    assert [kind for kind, _, _ in house.said()] == [""]


async def test_a_phone_that_publishes_twice_at_its_start_can_still_go_offline(house: PresenceHouse) -> None:
    """baresip 1.0 does so and keeps one entity tag; what the other publication said must not outlive it."""
    await house.register(ANA)
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    await house.publish(ANA, pidf(ANA, "open"))
    kept = await house.publish(ANA, pidf(ANA, "open"))
    house.said()
    etag = kept.response.headers.get("SIP-ETag", "")
    await house.publish(ANA, pidf(ANA, "closed"), etag=etag or "")
    assert [kind for kind, _, _ in house.said()] == ["unavailable"]


async def test_two_phones_that_name_their_presence_alike_stay_two(house: PresenceHouse) -> None:
    await house.register(ANA)
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    desk = await house.publish(ANA, pidf(ANA, "open"))
    await house.publish(ANA, pidf(ANA, "open"), flow=UDP_LAPTOP)
    house.said()
    await house.publish(ANA, pidf(ANA, "closed"), etag=desk.response.headers.get("SIP-ETag") or "")
    assert "unavailable" not in [kind for kind, _, _ in house.said()]
