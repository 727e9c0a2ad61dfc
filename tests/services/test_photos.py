"""Photos: who may have one, who gets to see it, and how clients hear of another one."""

from __future__ import annotations

import asyncio
from base64 import b64encode

import pytest

from isthmus.errors import OperationError, StoreError, UnknownSubjectError
from isthmus.model import Address
from isthmus.services.photos import Photos
from isthmus.services.profiles import ContactProfiles
from isthmus.xmpp.vcard import MAXIMUM_PHOTO_OCTETS, photo_hash, photo_update
from tests.support.administration import AdministrationWorld
from tests.support.presence_house import ANA, BEN, BOB, PresenceHouse, pidf

PNG = b"\x89PNG\r\n\x1a\n and the picture itself"
JPEG = b"\xff\xd8\xff\xe0 and the picture itself"
NO_PHOTO = photo_update("")


def encoded(content: bytes) -> str:
    return b64encode(content).decode()


@pytest.fixture
async def world() -> AdministrationWorld:
    made = AdministrationWorld()
    await made.start()
    await made.do("user.add", address=str(ANA))
    return made


@pytest.fixture
async def house() -> PresenceHouse:
    """ana is registered, and ben is her contact."""
    house = await PresenceHouse().open()
    await house.register(ANA)
    await house.contacts.ask(BEN, ANA)
    await house.contacts.approve(ANA, BEN)
    await house.settle()
    house.link.take()
    return house


# --- what administrators do ---


async def test_a_photo_is_kept_with_its_type_and_put_on_record(world: AdministrationWorld) -> None:
    told = await world.do("user.photo", address="Ana@corp.test", content=encoded(PNG))
    assert told == {"address": str(ANA), "media_type": "image/png", "octets": len(PNG), "sha1": photo_hash(PNG)}
    photo = await world.photos.photo(ANA)
    assert photo is not None
    assert photo.content == PNG
    record = (await world.do("audit"))[0]
    assert (record["actor"], record["action"], record["subject"]) == ("root", "user photo", str(ANA))
    assert "picture" not in record["detail"]


async def test_another_photo_takes_the_place_of_the_first(world: AdministrationWorld) -> None:
    for content in (PNG, JPEG):
        await world.do("user.photo", address=str(ANA), content=encoded(content))
    photo = await world.photos.photo(ANA)
    assert photo is not None
    assert (photo.content, photo.media_type) == (JPEG, "image/jpeg")
    assert world.photos.update(ANA) == photo_update(photo_hash(JPEG))


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (encoded(b"GIF89a"), "neither PNG nor JPEG"),
        (encoded(b""), "neither PNG nor JPEG"),
        (encoded(PNG + bytes(MAXIMUM_PHOTO_OCTETS)), "larger than 128 KiB"),
        ("not base64!", "not base64"),
    ],
)
async def test_what_clients_could_not_show_is_refused(world: AdministrationWorld, content: str, remedy: str) -> None:
    with pytest.raises(OperationError, match=remedy):
        await world.do("user.photo", address=str(ANA), content=content)
    assert await world.photos.photo(ANA) is None


@pytest.mark.parametrize("address", ["nobody@corp.test", "bob@pbx.test", "isthmus@corp.test", "ben@people.test"])
async def test_only_people_with_an_account_of_ours_have_a_photo(world: AdministrationWorld, address: str) -> None:
    with pytest.raises(UnknownSubjectError, match="there is no user"):
        await world.do("user.photo", address=address, content=encoded(PNG))
    with pytest.raises(UnknownSubjectError, match="there is no user"):
        await world.do("user.remove_photo", address=address)


async def test_a_photo_that_cannot_be_kept_is_not_shown(world: AdministrationWorld) -> None:
    world.store.fail_with()
    with pytest.raises(StoreError):
        await world.do("user.photo", address=str(ANA), content=encoded(PNG))
    world.store.recover()
    assert world.photos.update(ANA) == NO_PHOTO


async def test_a_photo_outlives_a_restart_and_a_disabled_account_and_goes_with_a_removed_one(
    world: AdministrationWorld,
) -> None:
    await world.do("user.photo", address=str(ANA), content=encoded(PNG))
    again = Photos(world.directory, world.store, world.bus, world.clock)
    await again.load()
    assert again.update(ANA) == photo_update(photo_hash(PNG))
    await world.do("user.disable", address=str(ANA))
    assert await world.photos.photo(ANA) is not None
    await world.do("user.remove", address=str(ANA))
    assert await world.photos.photo(ANA) is None
    await world.do("user.add", address=str(ANA))
    assert world.photos.update(ANA) == NO_PHOTO, "another person of that name does not look like the first"


# --- what contacts see ---


async def test_presence_tells_contacts_which_photo_is_the_current_one(house: PresenceHouse) -> None:
    await house.publish(ANA, pidf(ANA))
    await house.stanza(f"<presence type='probe' from='{BEN}' to='{ANA}'/>")
    assert photos_told(house)[-1] == ""
    await house.photos.set_photo(str(ANA), encoded(PNG), actor="root")
    await house.settle()
    assert photos_told(house) == [photo_hash(PNG)], "told at once, once"
    await house.photos.remove_photo(str(ANA), actor="root")
    await house.settle()
    assert photos_told(house) == [""]


async def test_somebody_who_waits_for_an_answer_and_somebody_who_is_away_are_told_nothing(
    house: PresenceHouse,
) -> None:
    leo = Address("leo", "people.test")
    await house.contacts.ask(leo, ANA)
    await house.publish(ANA, pidf(ANA, "closed"))
    house.link.take()
    await house.photos.set_photo(str(ANA), encoded(PNG), actor="root")
    await house.settle()
    assert [element.get("to") for element in house.link.take() if element.get("to") == str(leo)] == []
    assert photos_told(house) == [], "who is away has no available presence to put it into"


async def test_of_people_whom_a_neighbour_owns_no_photo_is_known_or_denied(house: PresenceHouse) -> None:
    assert house.photos.update(BOB) == ""
    assert house.photos.update(Address("isthmus", "corp.test")) == ""


@pytest.mark.parametrize(("asker", "is_shown"), [(BEN, True), (Address("eva", "elsewhere.test"), False)])
async def test_the_photo_is_for_contacts(house: PresenceHouse, asker: Address, is_shown: bool) -> None:
    await house.photos.set_photo(str(ANA), encoded(PNG), actor="root")
    profiles = ContactProfiles(house.directory, house.contacts, house.views, house.clock, photo=house.photos.photo)
    profile = await profiles.profile(ANA, asker)
    assert (profile is not None) is is_shown
    if profile is not None:
        assert profile.photo is not None
        photo = await asyncio.wait_for(profile.photo(), 1)
        assert photo is not None
        assert photo.content == PNG


def photos_told(house: PresenceHouse) -> list[str]:
    """The hashes in presence since the last call; "" for "no photo"."""
    return [found.text or "" for element in house.link.take() for found in element.iter("{vcard-temp:x:update}photo")]
