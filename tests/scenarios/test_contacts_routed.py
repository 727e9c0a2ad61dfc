"""Plays: ben@people.test (XMPP) watches bob@pbx.test, whom a PBX owns: we are the subscriber (machine A)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from isthmus.errors import RequestTimeoutError
from isthmus.model import AuthorisationState
from isthmus.ports import NextHop
from isthmus.services.authentication import Identity
from isthmus.services.presence_pairs import Phase
from tests.support.presence_house import BEN, BOB, PresenceHouse, activity, pidf
from tests.support.sip import MemoryIncomingRequest, SentRequest, sip_request

SUBSCRIBE = "<presence type='subscribe' from='ben@people.test' to='bob@pbx.test'/>"


@pytest.fixture
async def house() -> PresenceHouse:
    return await PresenceHouse().open()


def subscribes(house: PresenceHouse) -> list[SentRequest]:
    return [sent for sent in house.endpoint.take() if sent.request.method == "SUBSCRIBE"]


_cseqs: Iterator[int] = iter(range(1, 10_000))


async def notify(
    house: PresenceHouse,
    sent: SentRequest,
    state: str,
    body: str | bytes = "",
    content_type: str = "application/pidf+xml",
    encoding: str = "",
    route: str = "",
) -> MemoryIncomingRequest:
    """The PBX sends a NOTIFY in the dialog of our SUBSCRIBE."""
    request = sip_request(
        "NOTIFY",
        "sip:ben@192.0.2.1:5060",
        sender="<sip:bob@pbx.test>;tag=peer-tag",
        recipient=str(sent.request.from_address),
        call_id=sent.request.call_id,
        cseq=next(_cseqs),
        headers=(
            ("Event", "presence"),
            ("Subscription-State", state),
            ("Contact", "<sip:192.0.2.50:5060>"),
            *((("Content-Encoding", encoding),) if encoding else ()),
            *((("Record-Route", route),) if route else ()),
        ),
        body=body,
        content_type=content_type if body else "",
    )
    incoming = MemoryIncomingRequest(request)
    house.subscriber.notify_received(incoming, Identity(BOB, "peer"))
    await house.settle()
    return incoming


async def begun(house: PresenceHouse) -> SentRequest:
    house.endpoint.answer_when(
        lambda request, _: request.method == "SUBSCRIBE", (200, [("Contact", "<sip:192.0.2.50>"), ("Expires", "3600")])
    )
    await house.stanza(SUBSCRIBE, house.pbx_link)
    [sent] = subscribes(house)
    return sent


async def test_the_request_becomes_a_subscribe_of_ben_at_the_pbx(house: PresenceHouse) -> None:
    sent = await begun(house)
    assert str(sent.request.uri) == "sip:bob@pbx.test"
    assert sent.request.from_address.uri == sent.request.from_address.uri.parse("sip:ben@people.test")  # type: ignore[union-attr]  # a SipUri
    assert sent.request.headers.get("Expires") == "3600"
    assert house.said(house.pbx_link) == []


async def test_pending_says_nothing_and_active_grants_before_it_shows(house: PresenceHouse) -> None:
    sent = await begun(house)
    await notify(house, sent, "pending;expires=3599")
    assert house.said(house.pbx_link) == []
    await notify(house, sent, "active;expires=3000", pidf(BOB, person=activity("busy", "Budget call")))
    assert house.said(house.pbx_link) == [
        ("subscribed", "bob@pbx.test", "ben@people.test"),
        ("", "bob@pbx.test/isthmus", "ben@people.test"),
    ]
    assert house.contacts.state(BEN, BOB) is AuthorisationState.ACTIVE


async def test_a_repeated_subscribe_while_pending_opens_no_second_subscription(house: PresenceHouse) -> None:
    await begun(house)
    await house.stanza(SUBSCRIBE, house.pbx_link)
    assert subscribes(house) == []


async def test_rejected_ends_the_authorisation_for_good(house: PresenceHouse) -> None:
    sent = await begun(house)
    await notify(house, sent, "terminated;reason=rejected")
    assert [kind for kind, _, _ in house.said(house.pbx_link)] == ["unsubscribed", "unavailable"]
    assert house.contacts.state(BEN, BOB) is None
    house.clock.advance(90_000)
    assert subscribes(house) == []


@pytest.mark.parametrize("reason", ["timeout", "deactivated"])
async def test_a_lapse_subscribes_anew_and_never_looks_like_a_refusal(house: PresenceHouse, reason: str) -> None:
    """Edge case 8."""
    sent = await begun(house)
    await notify(house, sent, "active;expires=3000", pidf(BOB))
    house.said(house.pbx_link)
    await notify(house, sent, f"terminated;reason={reason}")
    [again] = subscribes(house)
    assert again.request.call_id != sent.request.call_id
    assert house.said(house.pbx_link) == []
    assert house.contacts.state(BEN, BOB) is AuthorisationState.ACTIVE


@pytest.mark.parametrize("reason", ["probation", "giveup"])
async def test_later_means_later(house: PresenceHouse, reason: str) -> None:
    sent = await begun(house)
    await notify(house, sent, "active;expires=3000", pidf(BOB))
    house.said(house.pbx_link)
    await notify(house, sent, f"terminated;reason={reason};retry-after=120")
    assert subscribes(house) == []
    assert [kind for kind, _, _ in house.said(house.pbx_link)] == ["unavailable"]
    house.clock.advance(200)
    assert len(subscribes(house)) == 1


async def test_nobody_there_is_asked_again_daily_and_stays_a_contact(house: PresenceHouse) -> None:
    house.endpoint.answer_when(lambda request, _: request.method == "SUBSCRIBE", 404)
    await house.stanza(SUBSCRIBE, house.pbx_link)
    await house.settle()
    assert house.subscriber.phase(BEN, BOB) is Phase.DEAD
    assert house.contacts.state(BEN, BOB) is AuthorisationState.PENDING
    house.endpoint.take()
    house.clock.advance(90_725)
    assert len(subscribes(house)) == 1


@pytest.mark.parametrize("status", [403, 489, 603])
async def test_no_means_no(house: PresenceHouse, status: int) -> None:
    """Edge case 6: 403 and 489 are final."""
    house.endpoint.answer_when(lambda request, _: request.method == "SUBSCRIBE", status)
    await house.stanza(SUBSCRIBE, house.pbx_link)
    await house.settle()
    assert house.contacts.state(BEN, BOB) is None
    assert house.said(house.pbx_link)[0][0] == "unsubscribed"


async def test_too_brief_is_repeated_with_the_wanted_time(house: PresenceHouse) -> None:
    """Edge case 6: 423."""
    house.endpoint.script((423, [("Min-Expires", "7200")]))
    await house.stanza(SUBSCRIBE, house.pbx_link)
    await house.settle()
    assert subscribes(house)[-1].request.headers.get("Expires") == "7200"


async def test_a_timeout_is_retried_with_back_off_and_keeps_the_contact(house: PresenceHouse) -> None:
    house.endpoint.answer_when(lambda request, _: request.method == "SUBSCRIBE", RequestTimeoutError("no answer"))
    await house.stanza(SUBSCRIBE, house.pbx_link)
    await house.settle()
    assert len(subscribes(house)) == 1
    for wait in (35, 65, 125):
        house.clock.advance(wait)
        await house.settle()
        assert len(subscribes(house)) == 1
    assert house.contacts.state(BEN, BOB) is AuthorisationState.PENDING


async def test_no_notify_within_timer_n_counts_as_gone(house: PresenceHouse) -> None:
    await begun(house)
    house.clock.advance(33)
    assert house.subscriber.phase(BEN, BOB) is Phase.RETRY


async def test_a_subscription_is_refreshed_before_it_ends(house: PresenceHouse) -> None:
    sent = await begun(house)
    await notify(house, sent, "active;expires=3600", pidf(BOB))
    house.endpoint.take()
    house.clock.advance(2_890)
    [refresh] = subscribes(house)
    assert refresh.request.call_id == sent.request.call_id
    assert refresh.request.to_address.tag == "peer-tag"
    assert refresh.request.cseq.number == 2


async def test_a_refresh_by_route_takes_the_names_of_the_neighbour_along(house: PresenceHouse) -> None:
    """Mutual TLS: the route leads to an address, and the certificate there names the domain."""
    sent = await begun(house)
    await notify(house, sent, "active;expires=3600", pidf(BOB), route="<sip:192.0.2.51;transport=tls;lr>")
    house.endpoint.take()
    house.clock.advance(2_890)
    [refresh] = subscribes(house)
    assert [str(route.uri) for route in refresh.request.routes] == ["sip:192.0.2.51;transport=tls;lr"]
    assert refresh.next_hop == NextHop(tls_names=("pbx.test",))


async def test_an_empty_or_unreadable_notify_never_makes_anybody_available(house: PresenceHouse) -> None:
    """Edge case 7."""
    sent = await begun(house)
    await notify(house, sent, "active;expires=3000")
    assert [kind for kind, _, _ in house.said(house.pbx_link)] == ["subscribed"]
    await notify(house, sent, "active;expires=3000", "<presence")
    await notify(house, sent, "active;expires=3000", pidf(BOB, "closed"))
    assert "" not in [kind for kind, _, _ in house.said(house.pbx_link)]


async def test_a_notify_of_another_type_is_415(house: PresenceHouse) -> None:
    sent = await begun(house)
    assert (await notify(house, sent, "active", "x", "text/plain")).status == 415


async def test_edge_case_19_a_compressed_notify_is_read(house: PresenceHouse) -> None:
    sent = await begun(house)
    packed = zlib.compress(pidf(BOB).encode())
    assert (await notify(house, sent, "active;expires=3000", packed, encoding="br")).status == 415
    assert (await notify(house, sent, "active;expires=3000", packed, encoding="deflate")).status == 200
    assert ("", "bob@pbx.test/isthmus", "ben@people.test") in house.said(house.pbx_link)


async def test_a_notify_out_of_the_blue_is_481(house: PresenceHouse) -> None:
    sent = await begun(house)
    sent.request.headers.set("Call-ID", "other")
    sent.request = type(sent.request)(sent.request.method, sent.request.uri, sent.request.headers)
    assert (await notify(house, sent, "active;expires=3000", pidf(BOB))).status == 481


async def test_a_fork_is_told_that_one_dialog_is_enough(house: PresenceHouse) -> None:
    sent = await begun(house)
    await notify(house, sent, "active;expires=3000", pidf(BOB))
    request = sip_request(
        "NOTIFY",
        "sip:ben@192.0.2.1:5060",
        sender="<sip:bob@pbx.test>;tag=other-branch",
        recipient=str(sent.request.from_address),
        call_id=sent.request.call_id,
        headers=(("Event", "presence"), ("Subscription-State", "active"), ("Contact", "<sip:192.0.2.51>")),
    )
    incoming = MemoryIncomingRequest(request)
    house.subscriber.notify_received(incoming, Identity(BOB, "peer"))
    assert incoming.status == 481


async def test_unsubscribe_ends_the_subscription_at_the_pbx(house: PresenceHouse) -> None:
    sent = await begun(house)
    await notify(house, sent, "active;expires=3000", pidf(BOB))
    house.endpoint.take()
    await house.stanza("<presence type='unsubscribe' from='ben@people.test' to='bob@pbx.test'/>", house.pbx_link)
    [ended] = subscribes(house)
    assert ended.request.headers.get("Expires") == "0"
    assert [kind for kind, _, _ in house.said(house.pbx_link)][-2:] == ["unsubscribed", "unavailable"]


async def test_a_watcher_who_goes_offline_costs_nothing_until_he_probes(house: PresenceHouse) -> None:
    sent = await begun(house)
    await notify(house, sent, "active;expires=3000", pidf(BOB))
    house.endpoint.take()
    await house.stanza("<presence type='unavailable' from='ben@people.test' to='bob@pbx.test'/>", house.pbx_link)
    assert house.subscriber.phase(BEN, BOB) is Phase.IDLE
    assert [s.request.headers.get("Expires") for s in subscribes(house)] == ["0"]
    await house.stanza("<presence type='probe' from='ben@people.test' to='bob@pbx.test'/>", house.pbx_link)
    assert [s.request.headers.get("Expires") for s in subscribes(house)] == ["3600"]


async def test_the_acknowledgement_of_a_request_does_not_end_what_the_asked_one_watches(house: PresenceHouse) -> None:
    """Bob's phone asks for ben, who watches bob: Prosody acknowledges that with a bare "unavailable"."""
    sent = await begun(house)
    await notify(house, sent, "active;expires=3000", pidf(BOB))
    house.endpoint.take()
    await house.subscribe(BOB, BEN)
    await house.stanza("<presence type='unavailable' from='ben@people.test' to='bob@pbx.test'/>", house.pbx_link)
    assert subscribes(house) == [], "ben is there and goes on watching"
    document = house.remote.document(BOB, BEN)
    assert document is None or not document.person.state.is_online


async def test_a_restart_subscribes_again_without_telling_anybody_anything(house: PresenceHouse) -> None:
    sent = await begun(house)
    await notify(house, sent, "active;expires=3000", pidf(BOB))
    again = await PresenceHouse(house.store, house.clock).open()
    house.clock.advance(1)
    await again.settle()
    assert len(subscribes(again)) == 1
    assert again.said(again.pbx_link) == []
