"""Plays: ana@corp.test (SIP) watches ben@people.test (XMPP) from her phones, and a colleague, and a list."""

from __future__ import annotations

import zlib

import pytest

from isthmus.model import AuthorisationState
from isthmus.ports import Flow, NextHop, PolicySetting
from isthmus.presence.pidf import parse_pidf
from isthmus.presence.rlmi import write_resource_lists
from isthmus.services.user_agent_server import SUPPORTED
from isthmus.sip.validation import unsupported_options
from tests.support.presence_house import ANA, BEN, BOB, CARL, PresenceHouse, activity, pidf
from tests.support.sip import SentRequest

SUBSCRIBED = "<presence type='subscribed' from='ben@people.test' to='ana@corp.test'/>"
UNSUBSCRIBED = "<presence type='unsubscribed' from='ben@people.test' to='ana@corp.test'/>"
LIST = (("Supported", "eventlist"), ("Accept", "application/pidf+xml, application/rlmi+xml, multipart/related"))


@pytest.fixture
async def house() -> PresenceHouse:
    return await PresenceHouse().open()


def available(resource: str = "phone", show: str = "") -> str:
    inner = f"<show>{show}</show>" if show else ""
    return f"<presence from='ben@people.test/{resource}' to='ana@corp.test'>{inner}</presence>"


def state_of(notify: SentRequest) -> str:
    return (notify.request.headers.get("Subscription-State") or "").partition(";")[0]


def reason_of(notify: SentRequest) -> str:
    return (notify.request.headers.get("Subscription-State") or "").partition("reason=")[2]


def basic_of(notify: SentRequest) -> str:
    if not notify.request.body:
        return ""
    online = parse_pidf(notify.request.body, 0).person.state.is_online
    return "open" if online else "closed"


async def granted(house: PresenceHouse) -> None:
    await house.subscribe(ANA, BEN)
    await house.stanza(SUBSCRIBED)
    house.notifies()
    house.said()


async def test_subscribe_is_answered_pending_at_once_and_asks_ben_once(house: PresenceHouse) -> None:
    incoming = await house.subscribe(ANA, BEN)
    assert incoming.status == 200
    [notify] = house.notifies()
    assert state_of(notify) == "pending"
    assert notify.request.body == b""
    assert house.said() == [("subscribe", "ana@corp.test", "ben@people.test")]
    await house.subscribe(ANA, BEN)
    assert house.said() == []


async def test_the_grant_and_the_presence_reach_the_phone(house: PresenceHouse) -> None:
    await house.subscribe(ANA, BEN)
    house.notifies()
    await house.stanza(SUBSCRIBED)
    [notify] = house.notifies()
    assert state_of(notify) == "active"
    house.clock.advance(6)
    await house.stanza(available(show="dnd"))
    [notify] = house.notifies()
    assert basic_of(notify) == "open"
    assert b"busy" in notify.request.body


async def test_presence_that_follows_the_grant_in_the_same_breath_is_not_lost(house: PresenceHouse) -> None:
    """Prosody writes `subscribed` and the presence into one packet; the grant becomes durable only afterwards."""
    await house.subscribe(ANA, BEN)
    house.notifies()
    house.link.receive(SUBSCRIBED)
    house.link.receive(available(show="away"))
    await house.settle()
    assert basic_of(house.notifies()[-1]) == "open"


async def test_a_refusal_ends_the_subscription_for_good(house: PresenceHouse) -> None:
    await house.subscribe(ANA, BEN)
    house.notifies()
    await house.stanza(UNSUBSCRIBED)
    [notify] = house.notifies()
    assert (state_of(notify), reason_of(notify)) == ("terminated", "rejected")
    house.said()
    again = await house.subscribe(ANA, BEN)
    assert again.status == 403
    assert house.said() == []


async def test_several_resources_make_one_document_and_the_last_one_closes_it_once(house: PresenceHouse) -> None:
    """Edge case 9."""
    await granted(house)
    await house.stanza(available("phone"))
    house.clock.advance(6)
    await house.stanza(available("laptop"))
    house.clock.advance(6)
    notifies = house.notifies()
    assert notifies[-1].request.body.count(b"<tuple") == 2
    await house.stanza("<presence type='unavailable' from='ben@people.test/phone' to='ana@corp.test'/>")
    house.clock.advance(6)
    assert [basic_of(n) for n in house.notifies()] == ["open"]
    await house.stanza("<presence type='unavailable' from='ben@people.test/laptop' to='ana@corp.test'/>")
    house.clock.advance(6)
    assert [basic_of(n) for n in house.notifies()] == ["closed"]


async def test_fast_changes_are_throttled_and_the_last_state_always_goes_out(house: PresenceHouse) -> None:
    await granted(house)
    house.clock.advance(6)
    for show in ("away", "dnd", "xa", ""):
        await house.stanza(available(show=show))
    await house.settle()
    assert len(house.notifies()) == 1
    house.clock.advance(5)
    await house.settle()
    [last] = house.notifies()
    assert parse_pidf(last.request.body, 0).person.state == "available"


async def test_one_notify_at_a_time_in_one_dialog(house: PresenceHouse) -> None:
    await granted(house)
    house.clock.advance(6)
    house.endpoint.is_holding = True
    await house.stanza(available(show="away"))
    [first] = house.notifies()
    house.clock.advance(6)
    await house.stanza(available(show="dnd"))
    assert house.notifies() == []
    first.answer(200)
    await house.settle()
    [second] = house.notifies()
    assert second.request.cseq.number == first.request.cseq.number + 1


async def test_unsubscribe_says_timeout_and_keeps_the_authorisation(house: PresenceHouse) -> None:
    first = await house.subscribe(ANA, BEN)
    await house.stanza(SUBSCRIBED)
    house.notifies()
    house.said()
    await house.resubscribe(first, expires=0)
    [notify] = house.notifies()
    assert (state_of(notify), reason_of(notify)) == ("terminated", "timeout")
    assert house.contacts.state(ANA, BEN) is AuthorisationState.ACTIVE
    assert house.said() == []


async def test_expiry_says_timeout_and_a_new_subscribe_is_active_straight_away(house: PresenceHouse) -> None:
    """Edge cases 6 and 8: a lapse is no refusal, and nobody is asked twice."""
    await granted(house)
    await house.stanza(available())
    house.notifies()
    house.clock.advance(6)
    await house.settle()
    house.notifies()
    house.clock.advance(3601)
    [notify] = house.notifies()
    assert (state_of(notify), reason_of(notify)) == ("terminated", "timeout")
    await house.subscribe(ANA, BEN)
    [notify] = house.notifies()
    assert (state_of(notify), basic_of(notify)) == ("active", "open")
    assert ("subscribe", "ana@corp.test", "ben@people.test") not in house.said()


async def test_a_refresh_is_always_answered_with_a_notify(house: PresenceHouse) -> None:
    first = await house.subscribe(ANA, BEN)
    await house.stanza(SUBSCRIBED)
    house.notifies()
    response = await house.resubscribe(first, expires=3600)
    assert response.status == 200
    assert [state_of(n) for n in house.notifies()] == ["active"]


async def test_a_subscribe_out_of_order_is_refused(house: PresenceHouse) -> None:
    first = await house.subscribe(ANA, BEN)
    assert (await house.resubscribe(first, expires=3600, cseq=1)).status == 500


async def test_a_stranger_cannot_refresh_somebody_elses_dialog(house: PresenceHouse) -> None:
    first = await house.subscribe(ANA, BEN)
    first.request.headers.set("From", str(first.request.from_address).replace("ana", "carl"))
    first.request = type(first.request)(
        first.request.method, first.request.uri, first.request.headers, first.request.body
    )
    assert (await house.resubscribe(first, expires=3600)).status == 481


@pytest.mark.parametrize("status", [404, 481, 489])
async def test_a_phone_that_forgot_the_dialog_is_dropped(house: PresenceHouse, status: int) -> None:
    await granted(house)
    house.clock.advance(6)
    house.endpoint.script(status)
    await house.stanza(available(show="away"))
    assert len(house.notifier) == 0
    assert house.contacts.state(ANA, BEN) is AuthorisationState.ACTIVE


async def test_a_poll_tells_once_and_never_prompts(house: PresenceHouse) -> None:
    await house.subscribe(ANA, BEN, expires=0)
    [notify] = house.notifies()
    assert (state_of(notify), reason_of(notify)) == ("terminated", "timeout")
    assert house.said() == []
    assert house.contacts.state(ANA, BEN) is None


@pytest.mark.parametrize(
    ("package", "headers", "expires", "status"),
    [
        ("dialog", (), 3600, 489),
        ("presence", (("Accept", "application/xpidf+xml"),), 3600, 406),
        ("presence", (), 10, 423),
    ],
)
async def test_what_cannot_begin_is_refused_as_the_standard_says(
    house: PresenceHouse, package: str, headers: tuple[tuple[str, str], ...], expires: int, status: int
) -> None:
    incoming = await house.subscribe(ANA, BEN, package=package, headers=headers, expires=expires)
    assert incoming.status == status


async def test_two_phones_have_two_dialogs_and_one_authorisation(house: PresenceHouse) -> None:
    await house.subscribe(ANA, BEN)
    await house.subscribe(ANA, BEN)
    await house.stanza(SUBSCRIBED)
    house.notifies()
    house.clock.advance(6)
    await house.stanza(available())
    assert len(house.notifies()) == 2


async def test_policy_switched_off_ends_the_subscription_and_refuses_new_ones(house: PresenceHouse) -> None:
    """Edge case 13."""
    await granted(house)
    await house.policing.change([PolicySetting("global", "presence", "off")])
    await house.settle()
    [notify] = house.notifies()
    assert (state_of(notify), reason_of(notify)) == ("terminated", "rejected")
    assert (await house.subscribe(ANA, BEN)).status == 403
    assert house.contacts.state(ANA, BEN) is AuthorisationState.ACTIVE


async def test_a_restart_keeps_dialogs_and_probes_before_it_says_anything(house: PresenceHouse) -> None:
    """Hard case f of RFC 8048: nothing is sent until ben's server has answered."""
    await granted(house)
    await house.stanza(available())
    again = await PresenceHouse(house.store, house.clock).open()
    assert again.notifies() == []
    again.link.restore()
    house.clock.advance(1)
    await again.settle()
    assert ("probe", "ana@corp.test", "ben@people.test") in again.said()
    await again.stanza(available(show="away"))
    [notify] = again.notifies()
    assert basic_of(notify) == "open"


async def test_a_neighbour_may_prove_its_own_name_wherever_its_route_leads(house: PresenceHouse) -> None:
    """Mutual TLS: Record-Route names an address, the certificate a domain; a restart does not forget which."""
    flow = Flow("tls", "192.0.2.50", 40_000, "192.0.2.1", 5061, 7, ("pbx.test",))
    route = (("Record-Route", "<sip:192.0.2.50:5061;transport=tls;lr>"),)
    await house.subscribe(BOB, BEN, headers=route, flow=flow)
    [notify] = house.notifies()
    assert notify.next_hop == NextHop(tls_names=("pbx.test",))
    again = await PresenceHouse(house.store, house.clock).open()
    await again.stanza(SUBSCRIBED.replace("ana@corp.test", "bob@pbx.test"), again.pbx_link)
    assert again.notifies()[0].next_hop == NextHop(tls_names=("pbx.test",))


async def test_a_resource_that_does_not_answer_the_probe_is_gone(house: PresenceHouse) -> None:
    await granted(house)
    await house.stanza(available("phone"))
    await house.stanza(available("laptop"))
    house.clock.advance(6)
    house.notifies()
    house.link.lose()
    house.link.restore()
    house.clock.advance(1)
    await house.stanza(available("phone"))
    house.clock.advance(10)
    await house.settle()
    [notify] = house.notifies()
    assert notify.request.body.count(b"<tuple") == 1


async def test_directed_presence_of_somebody_unwatched_is_not_kept(house: PresenceHouse) -> None:
    await house.stanza(available())
    assert not house.remote.has_view(ANA, BEN)


async def test_one_watchers_view_is_not_shown_to_another(house: PresenceHouse) -> None:
    """RFC 8048 section 8.2."""
    await granted(house)
    await house.stanza(available())
    house.notifies()
    await house.subscribe(CARL, BEN)
    [notify] = house.notifies()
    assert (state_of(notify), notify.request.body) == ("pending", b"")


async def test_colleagues_see_each_other_without_asking(house: PresenceHouse) -> None:
    await house.register(CARL)
    await house.subscribe(ANA, CARL)
    notifies = house.notifies()
    assert (state_of(notifies[-1]), basic_of(notifies[-1])) == ("active", "open")
    house.clock.advance(6)
    await house.publish(CARL, pidf(CARL, person=activity("on-the-phone")))
    [notify] = house.notifies()
    assert parse_pidf(notify.request.body, 0).person.state == "in-a-call"


async def test_a_contact_list_is_one_subscription(house: PresenceHouse) -> None:
    """RFC 4662: full state first, then only who changed."""
    body = write_resource_lists([BEN, CARL])
    incoming = await house.subscribe(
        ANA,
        type(ANA)("contacts", "corp.test"),
        headers=LIST,
        body=body,
        content_type="application/resource-lists+xml",
    )
    assert incoming.status == 200
    assert incoming.responses[-1].headers.get("Require") == "eventlist"
    assert ("subscribe", "ana@corp.test", "ben@people.test") in house.said()
    first = house.notifies()[0]
    assert b"fullState='true'" in first.request.body
    await house.stanza(SUBSCRIBED)
    house.clock.advance(6)
    house.notifies()
    await house.stanza(available())
    await house.settle()
    house.clock.advance(6)
    [notify] = house.notifies()
    assert b"fullState='false'" in notify.request.body
    assert b"carl" not in notify.request.body


async def test_a_list_may_be_required_and_compressed_as_linphone_does(house: PresenceHouse) -> None:
    """RFC 5367 section 4 wants the option tag in Require; edge case 19: deflate."""
    required = (*LIST, ("Require", "recipient-list-subscribe"), ("Content-Disposition", "recipient-list"))
    incoming = await house.subscribe(
        ANA,
        type(ANA)("contacts", "corp.test"),
        headers=(*required, ("Content-Encoding", "deflate")),
        body=zlib.compress(write_resource_lists([BEN, CARL])),
        content_type="application/resource-lists+xml",
    )
    assert incoming.status == 200
    assert unsupported_options(incoming.request, SUPPORTED) == []
    assert b"sip:carl@corp.test" in house.notifies()[0].request.body


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"x", 415),
        ("deflate", b"not compressed", 400),
        ("deflate", zlib.compress(bytes(1_000_000)), 413),
        ("", b"<resource-lists/>", 400),
    ],
)
async def test_a_list_that_cannot_be_read_is_refused(
    house: PresenceHouse, encoding: str, body: bytes, status: int
) -> None:
    incoming = await house.subscribe(
        ANA,
        type(ANA)("contacts", "corp.test"),
        headers=(*LIST, ("Content-Encoding", encoding)),
        body=body,
        content_type="application/resource-lists+xml",
    )
    assert incoming.status == status
    assert (incoming.response.headers.get("Accept-Encoding") is not None) == (status == 415)


async def test_a_list_needs_the_extension(house: PresenceHouse) -> None:
    incoming = await house.subscribe(ANA, type(ANA)("contacts", "corp.test"))
    assert incoming.status == 421


async def test_watcher_information_shows_the_request_instead_of_a_message(house: PresenceHouse) -> None:
    await house.subscribe(ANA, ANA, package="presence.winfo")
    house.notifies()
    await house.stanza("<presence type='subscribe' from='ben@people.test' to='ana@corp.test'/>")
    [notify] = house.notifies()
    assert b"status='pending'" in notify.request.body
    assert house.notices.sent == []


async def test_only_the_owner_sees_the_watchers(house: PresenceHouse) -> None:
    assert (await house.subscribe(CARL, ANA, package="presence.winfo")).status == 403


async def test_a_bounced_request_stays_pending_and_says_why(house: PresenceHouse) -> None:
    await house.subscribe(ANA, BEN)
    await house.stanza(
        "<presence type='error' from='ben@people.test' to='ana@corp.test'><error type='cancel'>"
        "<remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
    )
    assert house.contacts.state(ANA, BEN) is AuthorisationState.PENDING
    assert any("could not be asked" in line.text for line in house.trace.recent)
