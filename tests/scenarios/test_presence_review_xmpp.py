"""Plays: contacts under trouble: full disks, lost links, races, blocks, several clients (RFC 6121, RFC 8048)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from isthmus.errors import StoreError
from isthmus.model import Address, Authorisation, AuthorisationState
from isthmus.services.authentication import Identity
from isthmus.services.presence_pairs import Phase
from tests.support.presence_house import ANA, BEN, BOB, PresenceHouse, pidf
from tests.support.sip import MemoryIncomingRequest, SentRequest, sip_request

SUBSCRIBE = "<presence type='subscribe' from='ben@people.test' to='ana@corp.test'/>"
WATCH_BOB = "<presence type='subscribe' from='ben@people.test' to='bob@pbx.test'/>"
_FULL = StoreError("the disk is full")


@pytest.fixture
async def house() -> PresenceHouse:
    return await PresenceHouse().open()


async def befriended(house: PresenceHouse) -> None:
    """ben sees ana."""
    await house.register(ANA)
    await house.stanza(SUBSCRIBE)
    await house.contacts.approve(ANA, BEN)
    await house.settle()
    house.said()


# --- durable before told ---


async def test_presence_never_overtakes_a_grant_that_is_being_written(
    house: PresenceHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hard case i of RFC 8048, and nothing is told that is not durable."""
    await house.register(ANA)
    await house.stanza(SUBSCRIBE)
    house.said()
    written = asyncio.Event()
    save = house.store.save_authorisation

    async def slowly(row: Authorisation) -> None:
        await written.wait()
        await save(row)

    monkeypatch.setattr(house.store, "save_authorisation", slowly)
    approving = asyncio.ensure_future(house.contacts.approve(ANA, BEN))
    await asyncio.sleep(0)
    await house.publish(ANA, pidf(ANA, "closed"))
    await house.stanza("<presence type='probe' from='ben@people.test' to='ana@corp.test'/>")
    assert house.said() == []
    written.set()
    await approving
    await house.settle()
    assert [kind for kind, _, _ in house.said()] == ["subscribed", "unavailable"]


async def test_two_who_decide_at_once_leave_memory_and_store_alike(house: PresenceHouse) -> None:
    await house.stanza(SUBSCRIBE)
    await asyncio.gather(house.contacts.approve(ANA, BEN), house.contacts.decline(ANA, BEN))
    await house.settle()
    assert house.contacts.state(BEN, ANA) is None
    assert await house.store.authorisations() == []
    assert [kind for kind, _, _ in house.said()][-2:] == ["unsubscribed", "unavailable"]


async def test_a_grant_that_the_disk_refused_is_taken_later(house: PresenceHouse) -> None:
    """ben's client says `subscribed` once: a full disk must not leave ana waiting for ever."""
    await house.subscribe(ANA, BEN)
    house.store.fault = _FULL
    await house.stanza("<presence type='subscribed' from='ben@people.test' to='ana@corp.test'/>")
    assert house.contacts.state(ANA, BEN) is AuthorisationState.PENDING
    house.store.fault = None
    house.clock.advance(61)
    await house.settle()
    assert house.contacts.state(ANA, BEN) is AuthorisationState.ACTIVE


async def test_a_later_word_wins_over_one_that_the_disk_refused(house: PresenceHouse) -> None:
    await house.subscribe(ANA, BEN)
    house.store.fault = _FULL
    await house.stanza("<presence type='subscribed' from='ben@people.test' to='ana@corp.test'/>")
    house.store.fault = None
    await house.stanza("<presence type='unsubscribed' from='ben@people.test' to='ana@corp.test'/>")
    house.clock.advance(61)
    await house.settle()
    assert house.contacts.state(ANA, BEN) is None


async def test_a_request_that_the_disk_refused_is_bounced_and_not_forgotten_in_silence(house: PresenceHouse) -> None:
    house.store.fault = _FULL
    await house.stanza(SUBSCRIBE)
    assert [kind for kind, _, _ in house.said()] == ["error"]


# --- lost links ---


@pytest.mark.parametrize("decision", ["approve", "decline"])
async def test_a_decision_made_while_the_link_is_down_arrives_with_the_link(
    house: PresenceHouse, decision: str
) -> None:
    """Edge case 49."""
    await house.stanza(SUBSCRIBE)
    house.link.lose()
    await getattr(house.contacts, decision)(ANA, BEN)
    await house.settle()
    house.link.restore()
    house.clock.advance(1)
    kind = "subscribed" if decision == "approve" else "unsubscribed"
    assert house.said()[0] == (kind, "ana@corp.test", "ben@people.test")


async def test_a_decision_that_died_with_the_link_is_told_again(house: PresenceHouse) -> None:
    """A component stream acknowledges nothing: what no ping has proved may be lost."""
    await house.stanza(SUBSCRIBE)
    house.link.is_holding_barriers = True
    await house.contacts.decline(ANA, BEN)
    await house.settle()
    house.link.lose()
    await house.settle()
    house.link.is_holding_barriers = False
    house.link.restore()
    house.clock.advance(1)
    assert house.said()[0] == ("unsubscribed", "ana@corp.test", "ben@people.test")
    await house.settle()
    house.link.lose()
    house.link.restore()
    house.clock.advance(1)
    assert house.said() == []


async def test_a_decision_that_was_taken_back_meanwhile_is_not_told(house: PresenceHouse) -> None:
    await befriended(house)
    house.link.lose(forget_unproved=False)
    await house.contacts.decline(ANA, BEN)
    await house.contacts.unblock(ANA, BEN)
    await house.contacts.ask(BEN, ANA)
    await house.contacts.approve(ANA, BEN)
    await house.settle()
    house.link.restore()
    house.clock.advance(1)
    assert "unsubscribed" not in [kind for kind, _, _ in house.said()]


async def test_a_link_that_flaps_does_not_repeat_everything_as_often(house: PresenceHouse) -> None:
    await befriended(house)
    for _ in range(5):
        house.link.lose()
        house.link.restore()
    house.clock.advance(1)
    assert len(house.said()) == 1


# --- who learns what ---


async def test_a_blocked_contact_sees_the_same_as_a_declined_one(house: PresenceHouse) -> None:
    """Edge case 15, while subscribed: nothing says "blocked"."""
    await befriended(house)
    await house.consent.command_received(ANA, "decline ben@people.test")
    await house.settle()
    declined = [(e.get("type"), e.findtext("{*}status")) for e in house.link.take()]
    other = await PresenceHouse().open()
    await befriended(other)
    await other.consent.command_received(ANA, "block ben@people.test")
    await other.settle()
    assert [(e.get("type"), e.findtext("{*}status")) for e in other.link.take()] == declined


async def test_nobody_and_somebody_who_declined_answer_alike(house: PresenceHouse) -> None:
    """Edge case 46."""
    await house.stanza(SUBSCRIBE)
    await house.contacts.decline(ANA, BEN)
    await house.settle()
    house.link.take()
    await house.stanza(SUBSCRIBE)
    refused = [(e.get("type"), e.findtext("{*}status")) for e in house.link.take()]
    await house.stanza("<presence type='subscribe' from='ben@people.test' to='nobody@corp.test'/>")
    assert [(e.get("type"), e.findtext("{*}status")) for e in house.link.take()] == refused


async def test_looking_for_people_counts_against_the_limit_of_an_unknown_domain(house: PresenceHouse) -> None:
    """Edge case 46: a discovered domain may address so many of our people, existing or not."""
    await house.stanza("<presence type='subscribe' from='eve@foreign.test' to='nobody@corp.test'/>")
    assert house.policing.addressed_by("foreign.test") == 1


async def test_leaving_the_service_address_is_confirmed(house: PresenceHouse) -> None:
    """RFC 6121 section 3.3.3: whoever unsubscribes sees the contact go."""
    await house.stanza("<presence type='subscribe' from='ben@people.test' to='echo@corp.test'/>")
    house.said()
    await house.stanza("<presence type='unsubscribe' from='ben@people.test' to='echo@corp.test'/>")
    assert [kind for kind, _, _ in house.said()] == ["unsubscribed", "unavailable"]


async def test_a_contact_whose_server_says_nothing_to_a_probe_is_gone_at_last(house: PresenceHouse) -> None:
    await house.subscribe(ANA, BEN)
    await house.stanza("<presence type='subscribed' from='ben@people.test' to='ana@corp.test'/>")
    await house.stanza("<presence from='ben@people.test/phone' to='ana@corp.test'/>")
    house.clock.advance(6)
    await house.settle()
    house.notifies()
    house.link.lose()
    house.link.restore()
    house.clock.advance(30)
    await house.settle()
    assert house.notifies() == []
    house.clock.advance(300)
    await house.settle()
    [notify] = house.notifies()
    assert b"closed" in notify.request.body


# --- watching a neighbour's people ---

_cseqs: Iterator[int] = iter(range(1, 10_000))


async def notify(house: PresenceHouse, sent: SentRequest, state: str, body: str = "") -> MemoryIncomingRequest:
    request = sip_request(
        "NOTIFY",
        "sip:ben@192.0.2.1:5060",
        sender="<sip:bob@pbx.test>;tag=peer-tag",
        recipient=str(sent.request.from_address),
        call_id=sent.request.call_id,
        cseq=next(_cseqs),
        headers=(("Event", "presence"), ("Subscription-State", state), ("Contact", "<sip:192.0.2.50:5060>")),
        body=body,
        content_type="application/pidf+xml" if body else "",
    )
    incoming = MemoryIncomingRequest(request)
    house.subscriber.notify_received(incoming, Identity(BOB, "peer"))
    await house.settle()
    return incoming


def subscribes(house: PresenceHouse) -> list[SentRequest]:
    return [sent for sent in house.endpoint.take() if sent.request.method == "SUBSCRIBE"]


async def watched(house: PresenceHouse, watcher: Address = BEN) -> SentRequest:
    house.endpoint.answer_when(
        lambda request, _: request.method == "SUBSCRIBE", (200, [("Contact", "<sip:192.0.2.50>"), ("Expires", "3600")])
    )
    if watcher == BEN:
        await house.stanza(WATCH_BOB, house.pbx_link)
    else:
        await house.subscribe(watcher, BOB)
    [sent] = subscribes(house)
    await notify(house, sent, "active;expires=3600", pidf(BOB))
    house.endpoint.take()
    house.said(house.pbx_link)
    return sent


async def test_one_of_bens_two_clients_going_away_does_not_end_the_view_of_the_other(house: PresenceHouse) -> None:
    await watched(house)
    await house.stanza("<presence type='unavailable' from='ben@people.test/phone' to='bob@pbx.test'/>", house.pbx_link)
    assert house.subscriber.phase(BEN, BOB) is Phase.SUBSCRIBED


async def test_a_view_from_an_ended_subscription_is_not_shown_as_fresh(house: PresenceHouse) -> None:
    """IDLE: only a cache of *this* dialog may answer the probe."""
    await watched(house)
    await house.stanza("<presence type='unavailable' from='ben@people.test' to='bob@pbx.test'/>", house.pbx_link)
    await house.stanza("<presence type='probe' from='ben@people.test' to='bob@pbx.test'/>", house.pbx_link)
    assert house.said(house.pbx_link) == []
    [sent] = [s for s in subscribes(house) if s.request.headers.get("Expires") != "0"]
    await notify(house, sent, "active;expires=3600", pidf(BOB))
    assert [kind for kind, _, _ in house.said(house.pbx_link)] == [""]


async def test_a_colleague_who_watches_nobody_costs_the_neighbour_nothing(house: PresenceHouse) -> None:
    house.endpoint.take()
    await watched(house, ANA)
    [watch] = house.notifier.watches("presence", BOB)
    house.notifier.terminate(watch, "timeout")
    await house.settle()
    assert [s.request.headers.get("Expires") for s in subscribes(house)] == ["0"]
    assert house.contacts.state(ANA, BOB) is AuthorisationState.ACTIVE
    await house.subscribe(ANA, BOB)
    assert [s.request.headers.get("Expires") for s in subscribes(house)] == ["3600"]


async def test_a_neighbour_that_ends_everything_at_once_is_not_asked_in_a_loop(house: PresenceHouse) -> None:
    sent = await watched(house)
    for _ in range(5):
        await notify(house, sent, "terminated;reason=timeout")
        again = subscribes(house)
        if not again:
            break
        [sent] = again
    assert house.subscriber.phase(BEN, BOB) is Phase.RETRY
    assert house.contacts.state(BEN, BOB) is AuthorisationState.ACTIVE


async def test_a_client_that_signs_in_often_does_not_break_the_back_off(house: PresenceHouse) -> None:
    sent = await watched(house)
    await notify(house, sent, "terminated;reason=probation;retry-after=600")
    for _ in range(3):
        await house.stanza("<presence type='probe' from='ben@people.test' to='bob@pbx.test'/>", house.pbx_link)
    assert subscribes(house) == []
    house.clock.advance(690)
    assert len(subscribes(house)) == 1


async def test_asking_again_for_somebody_who_was_not_there_asks_again(house: PresenceHouse) -> None:
    """DEAD ends with an act of the watcher."""
    house.endpoint.answer_when(lambda request, _: request.method == "SUBSCRIBE", 404)
    await house.stanza(WATCH_BOB, house.pbx_link)
    house.endpoint.take()
    await house.stanza(WATCH_BOB, house.pbx_link)
    assert len(subscribes(house)) == 1


async def test_a_refresh_that_is_too_brief_is_repeated_in_its_dialog(house: PresenceHouse) -> None:
    sent = await watched(house)
    house.endpoint.script((423, [("Min-Expires", "7200")]))
    house.clock.advance(2_890)
    await house.settle()
    repeated = subscribes(house)
    assert [s.request.headers.get("Expires") for s in repeated] == ["3600", "7200"]
    assert {s.request.call_id for s in repeated} == {sent.request.call_id}


async def test_a_watcher_whose_account_is_gone_is_no_longer_served(house: PresenceHouse) -> None:
    """RFC 8048 section 8.1: subscriptions are not kept alive for nobody."""
    await watched(house)
    await house.stanza(
        "<presence type='error' from='ben@people.test' to='bob@pbx.test'><error type='cancel'>"
        "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>",
        house.pbx_link,
    )
    assert house.subscriber.phase(BEN, BOB) is Phase.IDLE
    assert house.contacts.state(BEN, BOB) is AuthorisationState.ACTIVE
