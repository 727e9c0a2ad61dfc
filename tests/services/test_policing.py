"""The policy in force: durable, on record, announced; discovered domains within limits (edge cases 46, 47)."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.bus.in_process import InProcessBus
from isthmus.config import PolicyDefaults
from isthmus.errors import OperationError, StoreError, UnknownSubjectError
from isthmus.model import Address, Modality, User
from isthmus.policy import Effect, PresenceView
from isthmus.ports import DomainRule, PolicySetting
from isthmus.services.events import PolicyChanged
from isthmus.services.policing import Policing
from isthmus.trace import Trace
from tests.support.clock import FakeClock
from tests.support.memory_store import MemoryStore

ANA, BEN, EVE = Address("ana", "corp.test"), Address("ben", "people.test"), Address("eve", "elsewhere.test")


class World:
    def __init__(self, **defaults: Any) -> None:
        self.store, self.bus, self.clock = MemoryStore(), InProcessBus(), FakeClock()
        self.announced: list[PolicyChanged] = []
        self.bus.register(PolicyChanged, lambda _, event: self.announced.append(event))
        self.defaults = PolicyDefaults(**defaults)
        self.policing = self.make()

    def make(self) -> Policing:
        return Policing(
            self.store,
            self.bus,
            self.clock,
            Trace(self.clock.wall),
            business_domains=("corp.test",),
            consumer_domain="people.test",
            defaults=self.defaults,
            service_locals=("isthmus",),
        )

    def may(self, sender: Address, recipient: Address, modality: Modality = Modality.MESSAGES) -> str:
        verdict = self.policing.verdict(sender, recipient, modality, is_contact=True)
        return ("allow " if verdict else "refuse ") + verdict.rule


async def test_a_change_is_on_record_durable_in_force_and_announced() -> None:
    world = World()
    await world.policing.change([PolicySetting("global", "messages", "off")], actor="root")
    assert world.may(BEN, ANA) == "refuse global.messages"
    [record] = await world.store.audit()
    assert (record.actor, record.action, record.subject, record.detail) == (
        "root",
        "policy set",
        "global",
        "messages = off",
    )
    assert world.announced == [PolicyChanged()]
    again = world.make()
    await again.load()
    assert again.rules.verdict(BEN, ANA, Modality.MESSAGES, is_contact=True).rule == "global.messages"


async def test_what_the_store_refuses_never_takes_effect() -> None:
    world = World()
    world.store.fail_with()
    with pytest.raises(StoreError):
        await world.policing.change([PolicySetting("global", "messages", "off")])
    assert world.may(BEN, ANA) == "allow default.messages"
    assert world.announced == []


async def test_unset_goes_back_to_the_less_specific_value() -> None:
    world = World()
    own = PolicySetting("user:ana@corp.test", "messages", "on")
    await world.policing.change([PolicySetting("global", "messages", "off"), own])
    assert world.may(BEN, ANA) == "allow user.messages"
    await world.policing.change([], [own])
    assert world.may(BEN, ANA) == "refuse global.messages"
    assert world.announced[-1] == PolicyChanged(ANA)


async def test_the_configured_switch_is_the_default_of_a_new_data_directory() -> None:
    world = World(connectivity=False)
    assert world.may(BEN, ANA) == "refuse default.connectivity"
    await world.policing.change([PolicySetting("global", "connectivity", "on")])
    assert world.may(BEN, ANA) == "allow default.messages"


async def test_a_preview_changes_nothing() -> None:
    world = World()
    rows = world.policing.preview([PolicySetting("global", "presence_view", "nothing")], [], [(BEN, ANA)])
    assert [(row.sender, row.recipient, row.effect) for row in rows] == [(ANA, BEN, Effect.CUT)]
    assert world.policing.view(ANA, BEN) is PresenceView.EVERYTHING
    assert await world.store.audit() == []


async def test_groups_are_known_after_they_change() -> None:
    world = World()
    await world.policing.change([PolicySetting("group:sales", "audio", "off")])
    await world.store.save_user(User(ANA, groups=("Sales",)))
    assert world.may(BEN, ANA, Modality.AUDIO) == "allow default.audio"
    await world.policing.reload_memberships()
    assert world.may(BEN, ANA, Modality.AUDIO) == "refuse group.audio"


async def test_an_unlisted_domain_is_discovered_once_and_written_down() -> None:
    world = World()
    assert world.may(EVE, ANA) == "allow default.messages"
    assert world.may(ANA, EVE) == "allow default.messages"
    await world.policing.close()
    assert [(rule.domain, rule.action) for rule in await world.store.domain_rules()] == [
        ("elsewhere.test", "discovered")
    ]
    assert len(await world.store.audit()) == 1


async def test_a_discovered_domain_is_held_to_its_rate_and_others_are_not() -> None:
    """Edge case 46."""
    world = World(discovered_messages_per_second=2.0)
    assert [world.may(EVE, ANA) for _ in range(3)][-1] == "refuse domain.discovered.rate"
    assert world.may(BEN, ANA) == "allow default.messages"
    assert world.may(Address("x", "third.test"), ANA) == "allow default.messages"
    assert world.may(ANA, EVE) == "allow default.messages"
    world.clock.advance(0.5)
    assert world.may(EVE, ANA) == "allow default.messages"
    await world.policing.close()


async def test_a_discovered_domain_cannot_try_every_name_in_the_company() -> None:
    """Edge case 46: contact enumeration."""
    world = World(discovered_messages_per_second=1000.0, discovered_maximum_contacts=3)
    people = [Address(f"person{number}", "corp.test") for number in range(4)]
    assert [world.may(EVE, person) for person in people][-1] == "refuse domain.discovered.contacts"
    assert world.may(EVE, people[0]) == "allow default.messages"
    assert world.policing.addressed_by("elsewhere.test") == 3
    await world.policing.save_domain_rule(DomainRule("elsewhere.test", "allow"))
    assert world.may(EVE, people[3]) == "allow default.messages"
    await world.policing.close()


async def test_discovery_that_cannot_be_written_down_still_limits() -> None:
    world = World(discovered_messages_per_second=1.0)
    world.store.fail_with()
    assert world.may(EVE, ANA) == "allow default.messages"
    assert world.may(EVE, ANA) == "refuse domain.discovered.rate"
    await world.policing.close()


async def test_blocking_a_domain_is_announced_for_it() -> None:
    world = World()
    await world.policing.save_domain_rule(DomainRule("elsewhere.test", "block"), actor="root")
    assert world.may(EVE, ANA) == "refuse domain.blocked"
    assert world.announced == [PolicyChanged(domain="elsewhere.test")]
    await world.policing.delete_domain_rule("elsewhere.test")
    assert world.may(EVE, ANA) == "allow default.messages"
    with pytest.raises(UnknownSubjectError, match="domain list"):
        await world.policing.delete_domain_rule("nowhere.test")
    await world.policing.close()


async def test_our_own_domains_have_no_domain_rule() -> None:
    world = World()
    for domain in ("corp.test", "people.test"):
        with pytest.raises(OperationError, match="policy set"):
            await world.policing.save_domain_rule(DomainRule(domain, "block"))


async def test_a_person_blocks_and_unblocks_another() -> None:
    world = World()
    await world.policing.block(ANA, BEN)
    assert world.may(BEN, ANA) == "refuse block.recipient"
    assert world.announced == [PolicyChanged(ANA)]
    again = world.make()
    await again.load()
    assert again.is_blocked(ANA, BEN)
    assert again.blocked_by(ANA) == [BEN]
    assert again.blocked_by(BEN) == []
    await world.policing.unblock(ANA, BEN)
    assert world.may(BEN, ANA) == "allow default.messages"
