"""Contact lists of an older federation are taken over, and nothing is granted in anybody's name."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.errors import OperationError
from isthmus.model import Address, AuthorisationState
from tests.support.administration import AdministrationWorld

ANA, BEN = Address("ana", "corp.test"), Address("ben", "people.test")


@pytest.fixture
async def world() -> AdministrationWorld:
    made = AdministrationWorld()
    await made.start()
    for name in ("ana", "carl"):
        await made.do("user.add", address=f"{name}@corp.test", password="correct horse")
    return made


async def outcome(world: AdministrationWorld, owner: str, peer: str, **more: Any) -> str:
    [row] = await world.do("contact.import", entries=[(owner, peer)], **more)
    return str(row["outcome"])


@pytest.mark.parametrize(
    "peer", ["ben@people.test", "ben(people.test)@msn.com", "ben%people.test@gw.corp.test", "xmpp:Ben@People.Test"]
)
async def test_edge_case_2_old_forms_become_plain_contacts(world: AdministrationWorld, peer: str) -> None:
    rows = await world.do("contact.import", entries=[("ana@corp.test", peer)], gateways=["gw.corp.test"])
    assert rows == [{"owner": str(ANA), "peer": str(BEN), "outcome": "asked", "text": ""}]
    assert world.contacts.state(ANA, BEN) is AuthorisationState.PENDING


async def test_the_owner_of_an_old_form_is_undone_as_well(world: AdministrationWorld) -> None:
    assert await outcome(world, "ana(corp.test)@msn.com", "ben@people.test") == "asked"


async def test_edge_case_52_importing_twice_changes_nothing(world: AdministrationWorld) -> None:
    assert await outcome(world, "ana@corp.test", "ben@people.test") == "asked"
    assert await outcome(world, "ana@corp.test", "ben(people.test)@msn.com") == "there already"


async def test_an_imported_contact_who_asks_in_turn_needs_no_answer(world: AdministrationWorld) -> None:
    await outcome(world, "ana@corp.test", "ben@people.test")
    assert world.contacts.state(BEN, ANA) is None, "nobody was let in without asking"
    await world.contacts.ask(BEN, ANA)
    assert world.contacts.state(BEN, ANA) is AuthorisationState.ACTIVE


async def test_colleagues_are_contacts_at_once(world: AdministrationWorld) -> None:
    assert await outcome(world, "ana@corp.test", "carl@corp.test") == "granted"


async def test_a_dry_run_tells_and_asks_nobody(world: AdministrationWorld) -> None:
    assert await outcome(world, "ana@corp.test", "ben@people.test", dry_run=True) == "asked"
    assert world.contacts.state(ANA, BEN) is None
    assert not any(record["action"] == "contact import" for record in await world.do("audit"))


async def test_what_was_asked_is_on_record(world: AdministrationWorld) -> None:
    await outcome(world, "ana@corp.test", "ben@people.test")
    [record] = [record for record in await world.do("audit") if record["action"] == "contact import"]
    assert (record["actor"], record["subject"]) == ("root", "1 contacts")


@pytest.mark.parametrize(
    ("owner", "peer", "why"),
    [
        ("ben@people.test", "ana@corp.test", "not of a business domain"),
        ("nobody@corp.test", "ben@people.test", "there is no user"),
        ("ana@corp.test", "nobody@corp.test", "there is no user"),
        ("ana@corp.test", "ana@corp.test", "of their own"),
        ("ana@corp.test", "ben", "name@domain"),
        ("ana@corp.test", "a%b%people.test@gw.corp.test", "decorated more than once"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
async def test_what_cannot_be_a_contact_is_told_and_the_rest_goes_on(
    world: AdministrationWorld, owner: str, peer: str, why: str, dry_run: bool
) -> None:
    entries = [(owner, peer), ("ana@corp.test", "eva@people.test")]
    bad, good = await world.do("contact.import", entries=entries, gateways=["gw.corp.test"], dry_run=dry_run)
    assert bad["outcome"] == "refused"
    assert why in bad["text"]
    assert good["outcome"] == "asked"


@pytest.mark.parametrize("dry_run", [True, False])
async def test_policy_decides_about_imported_contacts_as_about_any(world: AdministrationWorld, dry_run: bool) -> None:
    await world.do("policy.set", scope="user:ana@corp.test", name="presence", value="off")
    [row] = await world.do("contact.import", entries=[(str(ANA), str(BEN))], dry_run=dry_run)
    assert row["outcome"] == "refused"
    assert "switched off for ana@corp.test" in row["text"]


async def test_a_list_too_long_for_one_call_is_refused(world: AdministrationWorld) -> None:
    with pytest.raises(OperationError, match="at most 1000"):
        await world.do("contact.import", entries=[("ana@corp.test", f"p{n}@people.test") for n in range(1001)])
