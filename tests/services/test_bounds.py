"""What one person, one client or one partner may fill our memory and store with has an end, and what lies beyond it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from isthmus.bus.in_process import InProcessBus
from isthmus.errors import PeerError
from isthmus.model import Address, Modality
from isthmus.presence.rlmi import MAXIMUM_LIST_ENTRIES, write_resource_lists
from isthmus.services import contacts, subscription_outbox
from isthmus.services.discovery import MAXIMUM_DISCOVERED_DOMAINS
from isthmus.services.policing import Policing
from isthmus.services.publications import MAXIMUM_PUBLICATIONS
from isthmus.services.registrar_contacts import MAXIMUM_CONTACT_OCTETS
from isthmus.services.remote_presence import MAXIMUM_DEVICES
from isthmus.trace import Trace
from tests.support.clock import FakeClock
from tests.support.memory_store import MemoryStore
from tests.support.messaging_house import House
from tests.support.presence_house import ANA, BEN, PresenceHouse, activity, pidf
from tests.support.sip import register_request


@pytest_asyncio.fixture
async def house() -> AsyncIterator[PresenceHouse]:
    yield await PresenceHouse().open()


def at(port: int) -> str:
    """A document of a program of its own, which names its tuple as no other does."""
    return pidf(ANA, person=activity("busy")).replace("'t1'", f"'t{port}'")


async def test_the_publication_of_a_client_that_lost_count_makes_room_for_the_next(house: PresenceHouse) -> None:
    first = await house.publish(ANA, at(0))
    for number in range(1, MAXIMUM_PUBLICATIONS + 3):
        await house.publish(ANA, at(number))
    assert len(house.publications.devices(ANA)) == MAXIMUM_PUBLICATIONS
    etag = first.response.headers.get("SIP-ETag") or ""
    assert (await house.publish(ANA, "", etag=etag)).status == 412, "the oldest is gone, and its owner is told"


async def test_resources_that_a_server_invents_are_not_all_kept(house: PresenceHouse) -> None:
    await house.contacts.ask(ANA, BEN)
    for number in range(MAXIMUM_DEVICES + 5):
        await house.stanza(f"<presence from='ben@people.test/r{number}' to='ana@corp.test'/>")
    document = house.remote.document(ANA, BEN)
    assert document is not None
    assert len(document.devices) == MAXIMUM_DEVICES
    await house.stanza("<presence from='ben@people.test/r0' to='ana@corp.test' type='unavailable'/>")
    await house.stanza("<presence from='ben@people.test/new' to='ana@corp.test'/>")
    document = house.remote.document(ANA, BEN)
    assert document is not None
    assert "new" in {device.id for device in document.devices}


async def test_a_contact_longer_than_any_phones_is_refused_whole() -> None:
    house = await House().open()
    await house.register(contact="<sip:ana@192.0.2.11>")
    long = f"<sip:ana@192.0.2.10>;x={'y' * MAXIMUM_CONTACT_OCTETS}"
    request = register_request("ana@corp.test", long, call_id="another-call")
    assert (await house.sip(request)).status == 413
    [binding] = house.registrar.bindings(ANA)
    assert binding.contact == "sip:ana@192.0.2.11"


async def test_domains_beyond_the_limit_are_served_and_not_written_down() -> None:
    """A server can invent sub-domains of its own as fast as it can write them."""
    store, clock = MemoryStore(), FakeClock()
    policing = Policing(
        store,
        InProcessBus(),
        clock,
        Trace(clock.wall),
        business_domains=("corp.test",),
        consumer_domain="people.test",
        service_locals=(),
    )
    for number in range(MAXIMUM_DISCOVERED_DOMAINS + 10):
        eve = Address("eve", f"d{number}.elsewhere.test")
        assert policing.verdict(ANA, eve, Modality.MESSAGES, is_contact=True)
    assert len(policing.domain_rules()) == MAXIMUM_DISCOVERED_DOMAINS
    await asyncio.wait_for(policing.close(), 30)
    assert len(await store.domain_rules()) == MAXIMUM_DISCOVERED_DOMAINS


@pytest.mark.parametrize("expires", [3600, 0])
async def test_one_person_has_only_so_many_subscriptions(house: PresenceHouse, expires: int) -> None:
    """Beyond a thousand a phone is told 403; a fetch leaves nothing behind, so it is answered still."""
    for number in range(1_000):
        watched = Address(f"p{number}", "people.test")
        assert (await house.subscribe(ANA, watched)).status == 200
    assert (await house.subscribe(ANA, ANA, expires=expires)).status == (403 if expires else 200)


def everybody(number: int) -> list[Address]:
    """People in the order of their addresses."""
    return [Address(f"p{position:03}", "people.test") for position in range(number)]


async def test_decisions_that_no_server_takes_are_not_all_kept_and_a_probe_heals_the_rest(
    house: PresenceHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_outbox, "MAXIMUM_UNPROVED", 3)
    people = everybody(5)
    for person in people:
        await house.contacts.ask(person, ANA)
    await house.settle()
    house.link.lose()
    for person in people:
        await house.contacts.decline(ANA, person)
    await house.settle()
    house.link.restore()
    told = [recipient for kind, _, recipient in house.said() if kind == "unsubscribed"]
    assert told == [str(person) for person in people[2:]], "the oldest two have made room"
    await house.stanza(f"<presence type='probe' from='{people[0]}' to='{ANA}'/>")
    assert ("unsubscribed", str(ANA), str(people[0])) in house.said()


async def test_refusals_that_are_remembered_have_an_end_and_the_oldest_goes_first(
    house: PresenceHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "MAXIMUM_REMEMBERED_REFUSALS", 3)
    people = everybody(4)
    for person in people:
        await house.contacts.ask(person, ANA)
        await house.contacts.decline(ANA, person)
    for person in people[1:]:
        with pytest.raises(PeerError, match="declined"):
            await house.contacts.ask(person, ANA)
    assert await house.contacts.ask(people[0], ANA) is contacts.Answer.WAITING
    await house.settle()


CONTACT_LIST = (("Supported", "eventlist"), ("Accept", "application/pidf+xml, application/rlmi+xml, multipart/related"))


def listed(house: PresenceHouse) -> list[str]:
    """Whom the last notification about the list names."""
    body = house.notifies()[-1].request.body.decode()
    return re.findall(r"<resource uri=['\"]sip:([^'\"]*)", body)


async def test_a_contact_list_that_outgrows_its_limit_loses_the_last_and_not_everybody(house: PresenceHouse) -> None:
    *people, last = everybody(MAXIMUM_LIST_ENTRIES + 1)
    for person in people:
        await house.contacts.ask(ANA, person)
    first = await house.subscribe(ANA, Address("contacts", "corp.test"), headers=CONTACT_LIST)
    assert first.status == 200
    assert listed(house) == [str(person) for person in people]
    await house.contacts.ask(ANA, last)
    await house.settle()
    house.clock.advance(6)
    await house.settle()
    assert house.notifies() == [], "the list is full: nothing has changed on it"
    assert (await house.resubscribe(first, expires=3_600)).status == 200
    assert listed(house) == [str(person) for person in people]


async def test_a_contact_list_that_shrinks_shows_whom_there_was_no_room_for(house: PresenceHouse) -> None:
    people = everybody(MAXIMUM_LIST_ENTRIES + 2)
    for person in people:
        await house.contacts.ask(ANA, person)
    assert (await house.subscribe(ANA, Address("contacts", "corp.test"), headers=CONTACT_LIST)).status == 200
    await house.contacts.give_up(ANA, people[0])
    await house.settle()
    house.clock.advance(6)
    await house.settle()
    assert listed(house) == [str(person) for person in people[1 : MAXIMUM_LIST_ENTRIES + 1]]


async def test_a_list_of_too_many_in_the_request_is_refused(house: PresenceHouse) -> None:
    """Nobody added these one by one: the program that wrote them can write a shorter list."""
    body = write_resource_lists(everybody(MAXIMUM_LIST_ENTRIES + 1))
    answer = await house.subscribe(
        ANA,
        Address("contacts", "corp.test"),
        headers=CONTACT_LIST,
        body=body,
        content_type="application/resource-lists+xml",
    )
    assert answer.status == 413
