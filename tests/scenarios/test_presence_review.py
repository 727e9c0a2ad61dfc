"""Plays: what phones may ask of the notifier that the first plays did not try (RFC 6665, RFC 4662, RFC 3857)."""

from __future__ import annotations

import gzip
import zlib

import pytest

from isthmus.errors import RequestTimeoutError
from isthmus.model import Address, AuthorisationState, User
from isthmus.ports import PolicySetting
from isthmus.presence.rlmi import write_resource_lists
from isthmus.presence.winfo import parse_winfo
from isthmus.services.authentication import Identity
from isthmus.services.notifier import MAXIMUM_SAME_WATCHES
from tests.support.presence_house import ANA, BEN, BOB, CARL, PresenceHouse, activity, pidf
from tests.support.sip import UDP_PHONE, MemoryIncomingRequest, SentRequest, sip_request

SUBSCRIBED = "<presence type='subscribed' from='ben@people.test' to='ana@corp.test'/>"
UNSUBSCRIBED = "<presence type='unsubscribed' from='ben@people.test' to='ana@corp.test'/>"
AVAILABLE = "<presence from='ben@people.test/phone' to='ana@corp.test'/>"
CONTACTS = Address("contacts", "corp.test")
LIST = (("Supported", "eventlist"), ("Accept", "application/pidf+xml, application/rlmi+xml, multipart/related"))


@pytest.fixture
async def house() -> PresenceHouse:
    return await PresenceHouse().open()


def state_of(notify: SentRequest) -> str:
    return notify.request.headers.get("Subscription-State") or ""


async def granted(house: PresenceHouse) -> MemoryIncomingRequest:
    first = await house.subscribe(ANA, BEN)
    await house.stanza(SUBSCRIBED)
    house.notifies()
    house.said()
    return first


async def asked(
    house: PresenceHouse, uri: str, *, headers: tuple[tuple[str, str], ...], recipient: str = "", call_id: str = ""
) -> MemoryIncomingRequest:
    request = sip_request(
        "SUBSCRIBE",
        uri,
        sender="sip:ana@corp.test",
        recipient=recipient,
        call_id=call_id,
        headers=(("Event", "presence"), *headers),
    )
    incoming = MemoryIncomingRequest(request)
    house.notifier.receive(incoming, Identity(ANA))
    await house.settle()
    return incoming


# --- what cannot be answered 200 is still answered ---


@pytest.mark.parametrize(
    ("uri", "headers", "status"),
    [
        ("sip:ben@people.test", (), 400),
        ("sip:people.test", (("Contact", "<sip:ana@192.0.2.10>"),), 404),
    ],
    ids=["no Contact to notify", "no person in the Request-URI"],
)
async def test_a_subscribe_that_cannot_make_a_dialog_is_refused_and_not_500(
    house: PresenceHouse, uri: str, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    incoming = await asked(house, uri, headers=headers)
    assert incoming.status == status
    assert house.notifies() == []


@pytest.mark.parametrize("accept", ["*/*", "application/*", "text/plain, */*;q=0.1"])
async def test_a_phone_that_takes_anything_gets_presence(house: PresenceHouse, accept: str) -> None:
    assert (await house.subscribe(ANA, BEN, headers=(("Accept", accept),))).status == 200


async def test_a_contact_uri_stays_readable_for_odd_names(house: PresenceHouse) -> None:
    """Edge case 1: the user part of our Contact is escaped like any other."""
    odd = Address("jo o'neil@home", "people.test")
    request = sip_request(
        "SUBSCRIBE",
        "sip:jo%20o'neil%40home@people.test",
        sender="sip:ana@corp.test",
        headers=(("Event", "presence"), ("Contact", "<sip:ana@192.0.2.10>")),
    )
    incoming = MemoryIncomingRequest(request)
    house.notifier.receive(incoming, Identity(ANA))
    await house.settle()
    assert house.contacts.state(ANA, odd) is AuthorisationState.PENDING
    [notify] = house.notifies()
    assert notify.request.headers.get("Contact") == "<sip:jo%20o'neil%40home@192.0.2.1:5060>"


# --- refreshes ---


@pytest.mark.parametrize(("event", "status"), [("dialog", 489), ("presence;id=other", 481), ("presence.winfo", 481)])
async def test_another_subscription_in_the_same_dialog_is_no_refresh(
    house: PresenceHouse, event: str, status: int
) -> None:
    """RFC 6665 section 4.5.2: dialogs are not shared; the phone must begin another one."""
    first = await granted(house)
    request = sip_request(
        "SUBSCRIBE",
        "sip:ben@people.test",
        sender=str(first.request.from_address),
        recipient=str(first.response.to_address),
        call_id=first.request.call_id,
        cseq=2,
        headers=(("Event", event), ("Expires", "0"), ("Contact", "<sip:ana@192.0.2.10>")),
    )
    incoming = MemoryIncomingRequest(request)
    house.notifier.receive(incoming, Identity(ANA))
    assert incoming.status == status
    assert house.notifier.has_watch("presence", ANA, BEN)


async def test_a_refresh_that_no_longer_takes_presence_is_406_and_ends_nothing(house: PresenceHouse) -> None:
    first = await granted(house)
    request = sip_request(
        "SUBSCRIBE",
        "sip:ben@people.test",
        sender=str(first.request.from_address),
        recipient=str(first.response.to_address),
        call_id=first.request.call_id,
        cseq=2,
        headers=(("Event", "presence"), ("Accept", "text/plain"), ("Contact", "<sip:ana@192.0.2.10>")),
    )
    incoming = MemoryIncomingRequest(request)
    house.notifier.receive(incoming, Identity(ANA))
    assert incoming.status == 406
    assert house.notifier.has_watch("presence", ANA, BEN)


async def test_a_refresh_of_what_is_ending_is_481(house: PresenceHouse) -> None:
    """The final NOTIFY waits for the one in flight: the phone must not believe that it has an hour."""
    first = await granted(house)
    house.clock.advance(6)
    house.endpoint.is_holding = True
    await house.stanza(AVAILABLE)
    await house.stanza(UNSUBSCRIBED)
    assert (await house.resubscribe(first, expires=3600)).status == 481


async def test_a_phone_that_loses_count_does_not_chase_its_own_dialogs(house: PresenceHouse) -> None:
    """`deactivated` would mean "subscribe again at once", and so evict the next one, for ever."""
    for _ in range(MAXIMUM_SAME_WATCHES + 2):
        await house.subscribe(ANA, BEN)
    ended = [state_of(n) for n in house.notifies() if state_of(n).startswith("terminated")]
    assert ended == ["terminated;reason=giveup"] * 2
    assert len(house.notifier) == MAXIMUM_SAME_WATCHES


async def test_a_busy_phone_is_told_again_when_it_asked_for_that(house: PresenceHouse) -> None:
    """RFC 6665 section 4.2.2: Retry-After is no failure; the last state still goes out."""
    await granted(house)
    house.clock.advance(6)
    house.endpoint.script((503, [("Retry-After", "20")]))
    await house.stanza(AVAILABLE)
    assert len(house.notifies()) == 1
    house.clock.advance(10)
    assert house.notifies() == []
    house.clock.advance(11)
    [notify] = house.notifies()
    assert b"open" in notify.request.body


# --- restart ---


async def test_a_refusal_that_outran_the_write_behind_stays_a_refusal(house: PresenceHouse) -> None:
    """The dialog was read back although the authorisation is gone: nobody is asked a second time."""
    await granted(house)
    [record] = await house.store.subscriptions()
    await house.stanza(UNSUBSCRIBED)
    house.store.note_subscription(record)
    again = await PresenceHouse(house.store, house.clock).open()
    await again.settle()
    assert again.said() == []
    assert [state_of(n) for n in again.notifies()] == ["terminated;reason=rejected"]


async def test_watcher_information_goes_on_counting_after_a_restart(house: PresenceHouse) -> None:
    """RFC 3858 section 4.1: a document with a lower version would be thrown away."""
    await house.subscribe(ANA, ANA, package="presence.winfo")
    await house.stanza("<presence type='subscribe' from='ben@people.test' to='ana@corp.test'/>")
    before = parse_winfo(house.notifies()[-1].request.body)[0]
    again = await PresenceHouse(house.store, house.clock).open()
    await again.stanza("<presence type='unsubscribe' from='ben@people.test' to='ana@corp.test'/>")
    again.clock.advance(6)
    assert parse_winfo(again.notifies()[-1].request.body)[0] > before


async def test_two_restarts_without_a_refresh_never_repeat_a_number(house: PresenceHouse) -> None:
    """RFC 3261 section 12.2.2: a phone refuses a CSeq it has seen, and would miss the news for an hour."""
    await granted(house)
    numbers: list[int] = []
    for show in ("away", "dnd", "xa"):
        house.clock.advance(1)
        house = await PresenceHouse(house.store, house.clock).open()
        await house.stanza(f"<presence from='ben@people.test/phone' to='ana@corp.test'><show>{show}</show></presence>")
        numbers += [sent.request.cseq.number for sent in house.notifies()]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 3


# --- lists ---


async def subscribe_list(house: PresenceHouse, *people: Address) -> MemoryIncomingRequest:
    body = write_resource_lists(people) if people else b""
    kind = "application/resource-lists+xml" if people else ""
    return await house.subscribe(ANA, CONTACTS, headers=LIST, body=body, content_type=kind)


async def test_a_contact_list_follows_the_contacts(house: PresenceHouse) -> None:
    await subscribe_list(house)
    assert b"ben@people.test" not in house.notifies()[-1].request.body
    await house.consent.command_received(ANA, "add ben@people.test")
    await house.settle()
    house.clock.advance(6)
    await house.settle()
    added = house.notifies()[-1].request.body
    assert b"ben@people.test" in added
    assert b"state='pending'" in added
    await house.consent.command_received(ANA, "remove ben@people.test")
    await house.settle()
    house.clock.advance(6)
    await house.settle()
    removed = house.notifies()[-1].request.body
    assert b"fullState='true'" in removed
    assert b"ben@people.test" not in removed


async def test_a_refused_member_is_terminated_and_not_pending_for_ever(house: PresenceHouse) -> None:
    await subscribe_list(house, BEN, CARL)
    house.notifies()
    await house.stanza(UNSUBSCRIBED)
    house.clock.advance(6)
    await house.settle()
    assert b"state='terminated' reason='rejected'" in house.notifies()[-1].request.body


async def test_a_refused_member_is_not_asked_again_by_a_restart(house: PresenceHouse) -> None:
    await subscribe_list(house, BEN, CARL)
    await house.stanza(UNSUBSCRIBED)
    again = await PresenceHouse(house.store, house.clock).open()
    await again.settle()
    assert again.said() == []


async def test_a_member_hidden_by_policy_is_refused_and_not_merely_silent(house: PresenceHouse) -> None:
    """Edge case 13 on a list."""
    await subscribe_list(house, BEN)
    await house.stanza(SUBSCRIBED)
    await house.stanza(AVAILABLE)
    house.clock.advance(6)
    await house.settle()
    house.notifies()
    await house.policing.change([PolicySetting("user:ana@corp.test", "presence", "off")])
    await house.settle()
    house.clock.advance(6)
    body = house.notifies()[-1].request.body
    assert b"state='terminated' reason='rejected'" in body
    assert b"<basic>" not in body


async def test_every_answer_about_a_list_names_the_extension(house: PresenceHouse) -> None:
    """RFC 4662 sections 4.2 and 4.3; RFC 3261 section 21.4.16 for the 421."""
    first = await subscribe_list(house, BEN)
    refresh = await house.resubscribe(first, expires=3600)
    assert refresh.response.headers.get("Require") == "eventlist"
    refused = await house.subscribe(ANA, CONTACTS)
    assert (refused.status, refused.response.headers.get("Require")) == (421, "eventlist")


# --- people who come and go ---


async def test_a_disabled_employee_sees_nobody_any_more(house: PresenceHouse) -> None:
    await granted(house)
    await house.directory.disable_user(ANA)
    await house.settle()
    assert [state_of(n) for n in house.notifies()] == ["terminated;reason=rejected"]
    assert len(house.notifier) == 0


async def test_a_publication_for_a_person_whom_a_neighbour_owns_changes_nothing(house: PresenceHouse) -> None:
    await house.store.save_user(User(ANA))
    request = sip_request(
        "PUBLISH",
        "sip:bob@pbx.test",
        sender="sip:bob@pbx.test",
        headers=(("Event", "presence"),),
        body=pidf(BOB),
        content_type="application/pidf+xml",
    )
    incoming = MemoryIncomingRequest(request, UDP_PHONE)
    house.publications.receive(incoming, Identity(BOB, "peer"))
    assert incoming.status == 403
    assert not house.publications.has_any(BOB)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("deflate", zlib.compress(pidf(ANA, "closed").encode()), 200),
        ("gzip", gzip.compress(pidf(ANA, "closed").encode()), 200),
        ("br", b"x", 415),
        ("deflate", b"x", 400),
    ],
)
async def test_edge_case_19_a_publication_may_be_compressed(
    house: PresenceHouse, encoding: str, body: bytes, status: int
) -> None:
    await house.register(ANA)
    headers = (("Event", "presence"), ("Content-Encoding", encoding))
    request = sip_request(
        "PUBLISH",
        f"sip:{ANA}",
        sender=f"sip:{ANA}",
        headers=headers,
        body=body,
        content_type="application/pidf+xml",
    )
    incoming = MemoryIncomingRequest(request, UDP_PHONE)
    house.publications.receive(incoming, Identity(ANA))
    await house.settle()
    assert incoming.status == status
    assert house.agent.hosted_document(ANA).person.state.is_online == (status != 200)


async def test_another_note_does_not_begin_the_state_anew(house: PresenceHouse) -> None:
    """How long somebody is busy counts from when they became so."""

    async def since(person: str) -> float | None:
        house.clock.advance(60)
        await house.publish(ANA, pidf(ANA, person=person))
        return house.agent.hosted_document(ANA).person.since

    busy = await since(activity("busy", "Budget call"))
    assert busy == house.clock.wall()
    assert await since(activity("busy", "Still the budget")) == busy
    assert await since(activity("away")) == house.clock.wall()


async def test_a_publication_for_a_domain_is_404(house: PresenceHouse) -> None:
    request = sip_request("PUBLISH", "sip:corp.test", sender="sip:ana@corp.test", headers=(("Event", "presence"),))
    incoming = MemoryIncomingRequest(request, UDP_PHONE)
    house.publications.receive(incoming, Identity(ANA))
    assert incoming.status == 404


async def test_a_request_whose_viewer_has_crashed_reaches_the_person_as_a_message(house: PresenceHouse) -> None:
    """The client that shows contact requests does not answer its NOTIFY: the request must not stay invisible."""
    await house.subscribe(ANA, ANA, package="presence.winfo")
    house.notifies()
    house.endpoint.is_holding = True
    await house.stanza("<presence type='subscribe' from='ben@people.test' to='ana@corp.test'/>")
    assert house.notices.sent == []
    house.clock.advance(32)
    house.notifies()[0].answer(RequestTimeoutError("no answer"))
    await house.settle()
    assert [recipient for recipient, _ in house.notices.sent] == [ANA]


async def test_notifications_are_counted(house: PresenceHouse) -> None:
    await granted(house)
    assert house.metrics.notifications.value("presence") >= 2
