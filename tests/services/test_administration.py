"""Operations of the administrator, through the table that the command line uses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isthmus.errors import OperationError, ServerNotRunningError, StoreError, UnknownSubjectError
from isthmus.model import Address, AuthorisationState, Modality
from isthmus.services.events import PolicyChanged, UserRemoved
from isthmus.sip.digest import ha1
from tests.support.administration import AdministrationWorld, example_configuration

ANA, BEN = Address("ana", "corp.test"), Address("ben", "people.test")


@pytest.fixture
async def world() -> AdministrationWorld:
    made = AdministrationWorld()
    await made.start()
    return made


async def test_a_user_without_a_password_gets_one_that_is_told_once(world: AdministrationWorld) -> None:
    told = await world.do("user.add", address="Ana@corp.test", display_name="Ana", groups=["sales"])
    assert len(told["password"]) >= 20
    assert "password" not in json.dumps(await world.do("user.list"))
    [user] = await world.store.users()
    assert user.digests["SHA-256"] == ha1("ana", "corp.test", told["password"], "SHA-256")
    assert set(user.digests) == {"SHA-256", "MD5"}
    assert world.directory.is_known_user(ANA)


async def test_md5_digests_exist_only_where_the_configuration_allows_md5() -> None:
    configuration = example_configuration()
    strict = configuration.model_copy(update={"sip": configuration.sip.model_copy(update={"allow_md5": False})})
    world = AdministrationWorld(configuration=strict)
    await world.do("user.add", address="ana@corp.test", password="correct horse")
    assert set((await world.store.users())[0].digests) == {"SHA-256"}


async def test_nothing_secret_is_listed_or_on_record(world: AdministrationWorld) -> None:
    await world.do("user.add", address="ana@corp.test", password="correct horse")
    digests = (await world.store.users())[0].digests
    shown = json.dumps([await world.do("user.list"), await world.do("audit")])
    assert "correct horse" not in shown
    assert not any(digest in shown for digest in digests.values())


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"address": "ana"}, "needs the form name@domain"),
        ({"address": "ana@other.test"}, "there are: corp.test"),
        ({"address": "ana@pbx.test"}, "not a hosted domain"),
        ({"address": "isthmus@corp.test"}, "choose another name"),
        ({"address": "echo@corp.test"}, "choose another name"),
        ({"address": "ana@corp.test", "password": "short"}, "10 to 1024 characters"),
        ({"address": "ana@corp.test", "password": "tab\tin the middle"}, "control characters"),
        ({"address": "ana@corp.test", "passwort": "x"}, "does not take passwort"),
        ({}, "needs address"),
        ({"address": "ana@corp.test", "groups": "sales"}, "groups"),
    ],
)
async def test_a_user_that_cannot_be_made_is_refused_with_the_remedy(
    world: AdministrationWorld, arguments: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(OperationError, match=remedy):
        await world.do("user.add", **arguments)
    assert await world.store.users() == []


async def test_an_existing_user_is_not_overwritten(world: AdministrationWorld) -> None:
    await world.do("user.add", address="ana@corp.test")
    with pytest.raises(OperationError, match="user password"):
        await world.do("user.add", address="ANA@corp.test")


async def test_a_disabled_user_is_announced_and_can_be_enabled_again(world: AdministrationWorld) -> None:
    gone: list[UserRemoved] = []
    world.bus.register(UserRemoved, lambda _, event: gone.append(event))
    await world.do("user.add", address="ana@corp.test")
    assert (await world.do("user.disable", address="ana@corp.test"))["is_disabled"]
    assert gone == [UserRemoved(ANA)]
    assert not world.directory.is_known_user(ANA)
    await world.do("user.enable", address="ana@corp.test")
    assert world.directory.is_known_user(ANA)


async def test_a_removed_user_is_gone_everywhere(world: AdministrationWorld) -> None:
    gone: list[UserRemoved] = []
    world.bus.register(UserRemoved, lambda _, event: gone.append(event))
    await world.do("user.add", address="ana@corp.test", groups=["sales"])
    await world.do("user.remove", address="ana@corp.test")
    assert gone == [UserRemoved(ANA)]
    assert world.directory.user(ANA) is None
    with pytest.raises(UnknownSubjectError, match="user list") as caught:
        await world.do("user.password", address="ana@corp.test")
    assert caught.value.exit_code == 67


async def test_another_password_replaces_the_digests(world: AdministrationWorld) -> None:
    await world.do("user.add", address="ana@corp.test", password="correct horse")
    told = await world.do("user.password", address="ana@corp.test", password="battery staple")
    assert told["password"] is None
    assert (await world.store.users())[0].digests["MD5"] == ha1("ana", "corp.test", "battery staple", "MD5")


async def test_groups_change_what_applies_to_a_user(world: AdministrationWorld) -> None:
    await world.do("user.add", address="ana@corp.test")
    await world.do("policy.set", scope="group:Sales", name="video", value="off")
    await world.do("user.groups", address="ana@corp.test", groups=["sales"])
    assert world.policing.rules.verdict(BEN, ANA, Modality.VIDEO, is_contact=True).rule == "group.video"


async def test_consumers_are_made_on_the_xmpp_server(world: AdministrationWorld) -> None:
    told = await world.do("consumer.add", address="ben@people.test")
    assert world.consumers.passwords == {BEN: told["password"]}
    assert [row["address"] for row in await world.do("consumer.list")] == ["ben@people.test"]
    await world.do("consumer.add", address="ben@people.test", password="another one")
    assert world.consumers.passwords == {BEN: "another one"}
    with pytest.raises(OperationError, match="need no account here"):
        await world.do("consumer.add", address="eve@elsewhere.test")


async def test_a_waiting_request_is_listed_and_approved(world: AdministrationWorld) -> None:
    await world.do("user.add", address="ana@corp.test")
    await world.contacts.ask(BEN, ANA)
    [row] = await world.do("contact.list", is_pending_only=True)
    assert (row["owner"], row["peer"], row["is_pending_in"]) == ("ana@corp.test", "ben@people.test", True)
    await world.do("contact.approve", owner="ana@corp.test", peer="ben@people.test")
    assert world.contacts.state(BEN, ANA) is AuthorisationState.ACTIVE
    assert await world.do("contact.list", is_pending_only=True) == []
    with pytest.raises(UnknownSubjectError, match="has not asked"):
        await world.do("contact.approve", owner="ana@corp.test", peer="eve@elsewhere.test")


async def test_a_declined_request_is_gone(world: AdministrationWorld) -> None:
    await world.contacts.ask(BEN, ANA)
    await world.do("contact.decline", owner="ana@corp.test", peer="ben@people.test")
    assert world.contacts.state(BEN, ANA) is None


async def test_a_block_ends_the_contact_and_is_in_the_rules_at_once(world: AdministrationWorld) -> None:
    """Edge case 15."""
    await world.contacts.ask(BEN, ANA)
    row = await world.do("contact.block", owner="ana@corp.test", peer="ben@people.test")
    assert row["is_blocked"]
    assert world.contacts.state(BEN, ANA) is None
    assert world.policing.rules.verdict(BEN, ANA, Modality.MESSAGES, is_contact=True).rule == "block.recipient"
    assert not (await world.do("contact.unblock", owner="ana@corp.test", peer="ben@people.test"))["is_blocked"]
    with pytest.raises(UnknownSubjectError, match="has not blocked"):
        await world.do("contact.unblock", owner="ana@corp.test", peer="ben@people.test")


async def test_without_a_running_server_a_request_cannot_be_answered_but_listed() -> None:
    world = AdministrationWorld(is_live=False)
    await world.start()
    await world.contacts.ask(BEN, ANA)
    with pytest.raises(ServerNotRunningError, match="isthmus serve"):
        await world.do("contact.approve", owner="ana@corp.test", peer="ben@people.test")
    assert len(await world.do("contact.list")) == 1


async def test_a_dry_run_tells_what_a_change_would_cut_and_changes_nothing(world: AdministrationWorld) -> None:
    """Edge case 47."""
    await world.contacts.ask(BEN, ANA)
    await world.do("contact.approve", owner="ana@corp.test", peer="ben@people.test")
    told = await world.do("policy.set", scope="global", name="messages", value="off", dry_run=True)
    assert not told["is_applied"]
    assert told["change_count"] == 2
    assert {(row["sender"], row["effect"]) for row in told["changes"]} == {
        ("ana@corp.test", "cut"),
        ("ben@people.test", "cut"),
    }
    assert world.policing.rules.verdict(BEN, ANA, Modality.MESSAGES, is_contact=True)
    assert all(row["action"] != "policy set" for row in await world.do("audit"))


async def test_a_change_acts_at_once_and_is_on_record(world: AdministrationWorld) -> None:
    """Edge case 47."""
    heard: list[PolicyChanged] = []
    world.bus.register(PolicyChanged, lambda _, event: heard.append(event))
    await world.do("policy.set", scope="user:Ana@corp.test", name="messages", value="off")
    assert heard == [PolicyChanged(ANA)]
    assert not world.policing.rules.verdict(BEN, ANA, Modality.MESSAGES, is_contact=True)
    [record] = await world.do("audit", limit=1)
    assert (record["actor"], record["action"], record["subject"]) == ("root", "policy set", "user:ana@corp.test")
    await world.do("policy.unset", scope="user:ana@corp.test", name="messages")
    with pytest.raises(UnknownSubjectError, match="policy show"):
        await world.do("policy.unset", scope="user:ana@corp.test", name="messages")


async def test_policy_is_shown_for_the_organisation_with_exceptions_and_for_a_person(
    world: AdministrationWorld,
) -> None:
    await world.do("policy.set", scope="user:ana@corp.test", name="video", value="off")
    rows = {row["name"]: row for row in await world.do("policy.show")}
    assert rows["video"]["exceptions"] == {"user:ana@corp.test": "off"}
    assert (rows["video"]["value"], rows["video"]["scope"]) == ("on", "default")
    own = {row["name"]: row for row in await world.do("policy.show", person="ana@corp.test")}
    assert (own["video"]["value"], own["video"]["scope"]) == ("off", "user:ana@corp.test")


async def test_partner_domains_are_allowed_blocked_removed_and_listed(world: AdministrationWorld) -> None:
    await world.do("domain.allow", domain="Partner.test", note="our supplier")
    told = await world.do("domain.block", domain="*.bad.test", subdomains=True, dry_run=True)
    assert (told["domain"], told["is_applied"]) == ("bad.test", False)
    rows = {row["domain"]: row for row in await world.do("domain.list")}
    assert rows["partner.test"]["action"] == "allow"
    assert rows["corp.test"]["action"] == "ours (hosted)"
    assert rows["people.test"]["action"] == "ours (consumer)"
    assert "bad.test" not in rows
    await world.do("domain.remove", domain="partner.test")
    with pytest.raises(OperationError, match="our own domains"):
        await world.do("domain.block", domain="people.test")
    with pytest.raises(OperationError, match="not a domain name"):
        await world.do("domain.block", domain="no domain")


async def test_a_full_disk_is_told_and_nothing_changes(world: AdministrationWorld) -> None:
    world.store.fail_with()
    with pytest.raises(StoreError, match="disk is full"):
        await world.do("policy.set", scope="global", name="messages", value="off")
    assert world.policing.rules.verdict(BEN, ANA, Modality.MESSAGES, is_contact=True)


async def test_an_unknown_operation_lists_what_there_is(world: AdministrationWorld) -> None:
    with pytest.raises(OperationError, match=r"user\.add"):
        await world.do("user.ad")


async def test_status_says_whether_the_server_runs(world: AdministrationWorld) -> None:
    told = await world.do("status")
    assert told["is_running"]
    assert told["domains"] == ["corp.test", "pbx.test"]
    assert told["connectivity"] == "on"
