"""`isthmus explain`: what may cross, what did, and why not (edge cases 13, 15)."""

from __future__ import annotations

import json

import pytest

from isthmus.model import Address, Failure, MessageKind, Modality, Origin
from isthmus.ports import CallRecord
from isthmus.services.explanation import offered_by
from tests.support.administration import AdministrationWorld, example_configuration

ANA, BEN = Address("ana", "corp.test"), Address("ben", "people.test")


@pytest.fixture
async def world() -> AdministrationWorld:
    made = AdministrationWorld()
    await made.start()
    await made.do("user.add", address="ana@corp.test", groups=["sales"])
    return made


async def explain(world: AdministrationWorld) -> dict[str, object]:
    told: dict[str, object] = await world.do("explain", one="ana@corp.test", other="ben@people.test")
    json.dumps(told)
    return told


async def test_two_people_without_restrictions(world: AdministrationWorld) -> None:
    told = await explain(world)
    assert told["summary"] == [
        "ana@corp.test and ben@people.test: neither sees the other's presence",
        "policy lets everything cross",
        "not offered here, whatever policy says: files, conferences",
    ]


async def test_a_waiting_request_tells_what_to_do(world: AdministrationWorld) -> None:
    await world.contacts.ask(BEN, ANA)
    told = await explain(world)
    assert any("contact approve ana@corp.test ben@people.test" in line for line in told["summary"])  # type: ignore[attr-defined]  # plain JSON
    assert told["recent"]


async def test_the_deciding_setting_is_named_with_its_scope(world: AdministrationWorld) -> None:
    await world.do("policy.set", scope="group:sales", name="messages", value="off")
    told = await explain(world)
    row = next(row for row in told["verdicts"] if row["modality"] == "messages")  # type: ignore[attr-defined]  # plain JSON
    assert (row["rule"], row["scope"], row["is_allowed"]) == ("group.messages", "group:sales", False)
    assert any(line.startswith("policy stops messages:") for line in told["summary"])  # type: ignore[attr-defined]  # plain JSON


async def test_the_administrator_sees_a_block_that_the_blocked_person_does_not(world: AdministrationWorld) -> None:
    """Edge case 15."""
    await world.do("contact.block", owner="ana@corp.test", peer="ben@people.test")
    told = json.dumps(await explain(world))
    assert "ana@corp.test blocked ben@people.test" in told
    assert "cannot be reached" not in told


async def test_what_crossed_and_what_failed_is_told(world: AdministrationWorld) -> None:
    failure = Failure(Origin.NO_DEVICE, 480, "recipient-unavailable", "no device took the message")
    world.store.note_crossing(ANA, BEN, MessageKind.TEXT, 10.0)
    world.store.note_crossing(BEN, ANA, MessageKind.TEXT, 20.0, failure)
    told = await explain(world)
    assert len(told["crossed"]) == 2  # type: ignore[arg-type]  # plain JSON
    assert "no device took the message" in json.dumps(told["summary"])


async def test_the_last_calls_between_the_two_are_told(world: AdministrationWorld) -> None:
    tom = Address("tom", "corp.test")
    until = world.clock.wall() + 100
    for number, (caller, callee) in enumerate([(ANA, BEN)] * 5 + [(tom, BEN), (ANA, tom), (BEN, ANA)]):
        world.store.note_call(CallRecord(f"call{number}", caller, callee, number, number + 1, number + 4), until)
    told = await explain(world)
    assert [row["id"] for row in told["calls"]] == ["call7", "call4", "call3", "call2", "call1"]  # type: ignore[attr-defined]  # plain JSON
    assert {row["seconds"] for row in told["calls"]} == {3}  # type: ignore[attr-defined]  # plain JSON


async def test_a_person_who_does_not_exist_is_named(world: AdministrationWorld) -> None:
    told = await world.do("explain", one="nobody@corp.test", other="ben@people.test")
    assert told["summary"][0] == "nobody@corp.test does not exist"


async def test_asking_does_not_use_up_a_discovered_domains_allowance(world: AdministrationWorld) -> None:
    for _ in range(30):
        told = await world.do("explain", one="ana@corp.test", other="eve@elsewhere.test")
    assert all(row["is_allowed"] for row in told["verdicts"])
    assert await world.store.domain_rules() == []


async def test_calls_that_are_switched_off_are_not_offered_whatever_policy_says() -> None:
    configuration = example_configuration()
    off = configuration.model_copy(update={"calls": configuration.calls.model_copy(update={"enabled": False})})
    assert offered_by(configuration) - offered_by(off) == {Modality.AUDIO, Modality.VIDEO}
