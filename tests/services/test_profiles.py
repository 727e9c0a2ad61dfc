"""What a contact learns about one of our people, and what nobody else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from isthmus.model import Address
from isthmus.ports import PolicySetting, Profile
from isthmus.services.profiles import ContactProfiles
from tests.support.presence_house import ANA, BEN, BOB, SERVICE, PresenceHouse, pidf

STRANGER = Address("eva", "elsewhere.test")


@pytest_asyncio.fixture
async def house() -> AsyncIterator[PresenceHouse]:
    """ana is registered, and ben is her contact."""
    house = await PresenceHouse().open()
    await house.register(ANA)
    await house.contacts.ask(BEN, ANA)
    await house.contacts.approve(ANA, BEN)
    yield house


async def asked(house: PresenceHouse, user: Address = ANA, by: Address = BEN) -> Profile | None:
    return await ContactProfiles(house.directory, house.contacts, house.views, house.clock).profile(user, by)


async def idle_seconds(house: PresenceHouse) -> int | None:
    profile = await asked(house)
    assert profile is not None
    return profile.idle_seconds


def idle_since(house: PresenceHouse, seconds: float) -> str:
    """The person element of a phone whose keys rest since then (RFC 4480 section 3.19)."""
    moment = datetime.fromtimestamp(house.clock.wall() - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"<dm:person id='p1'><rpid:user-input last-input='{moment}'>idle</rpid:user-input></dm:person>"


async def test_a_contact_who_is_active_was_active_just_now(house: PresenceHouse) -> None:
    assert await idle_seconds(house) == 0


async def test_a_contact_sees_how_long_somebody_is_idle(house: PresenceHouse) -> None:
    await house.publish(ANA, pidf(ANA, person=idle_since(house, 90)))
    assert await idle_seconds(house) == 90


async def test_when_somebody_left_is_not_guessed(house: PresenceHouse) -> None:
    await house.publish(ANA, pidf(ANA, "closed"))
    assert await idle_seconds(house) is None


@pytest.mark.parametrize("view", ["availability", "nothing"])
async def test_idle_time_is_presence_and_policy_may_keep_it_back(house: PresenceHouse, view: str) -> None:
    await house.publish(ANA, pidf(ANA, person=idle_since(house, 90)))
    await house.policing.change([PolicySetting("global", "presence_view", view)])
    assert await idle_seconds(house) is None


async def test_a_name_is_for_contacts_and_idle_time_for_those_who_may_see(house: PresenceHouse) -> None:
    assert await asked(house, by=STRANGER) is None
    await house.contacts.ask(ANA, STRANGER)  # whom ana asked may learn who she is, and not whether she is there
    profile = await asked(house, by=STRANGER)
    assert profile is not None
    assert profile.idle_seconds is None


async def test_nobody_is_answered_like_somebody_whom_one_does_not_know(house: PresenceHouse) -> None:
    assert await asked(house, user=Address("nobody", "corp.test")) is None
    assert await asked(house, user=BOB) is None


async def test_the_service_address_never_sleeps(house: PresenceHouse) -> None:
    profile = await asked(house, user=SERVICE, by=STRANGER)
    assert profile is not None
    assert (profile.display_name, profile.idle_seconds) == ("Isthmus", 0)
