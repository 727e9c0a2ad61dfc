"""How a consumer is rung: by what their devices announce, can do, and whether anything is known at all."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.bus.in_process import InProcessBus
from isthmus.model import Address, Availability, Device, Presence
from isthmus.services.calls.jingle import consumer_devices
from isthmus.services.calls.jingle.consumer_devices import MAXIMUM_DIRECT, ConsumerDevices, RingPlan, ring_plan
from isthmus.services.calls.jingle.consumer_legs import ConsumerLegs
from isthmus.services.calls.jingle.proposal_leg import JingleProposalLeg
from isthmus.services.events import PresencePolled
from isthmus.services.remote_presence import RemotePresence
from isthmus.xmpp.device_capabilities import DeviceCapabilities
from tests.support.jingle_house import ANA, BEN, House, MemoryServer, PromptClock, sdp
from tests.support.jingle_house import Device as Client

JMI = "urn:xmpp:jingle-message:0"
CALLS = (
    "urn:xmpp:jingle:1",
    "urn:xmpp:jingle:apps:rtp:1",
    "urn:xmpp:jingle:apps:rtp:audio",
    "urn:xmpp:jingle:transports:ice-udp:1",
)
TEXT_ONLY = DeviceCapabilities(frozenset({"urn:xmpp:receipts"}))
SESSIONS = DeviceCapabilities(frozenset(CALLS))
PROPOSALS = DeviceCapabilities(frozenset({*CALLS, JMI}))


class TestThePlan:
    def test_of_somebody_of_whom_nothing_is_known_the_bare_jid_is_asked(self) -> None:
        """Edge case 32."""
        assert ring_plan(None) == ring_plan([]) == RingPlan(proposes=True)

    def test_devices_that_take_proposals_are_asked_together_and_others_get_a_session_each(self) -> None:
        known = [("phone", PROPOSALS), ("web", SESSIONS), ("tablet", PROPOSALS), ("console", TEXT_ONLY)]
        assert ring_plan(known) == RingPlan(proposes=True, resources=("web",))

    def test_without_proposals_every_device_that_can_call_gets_a_session(self) -> None:
        assert ring_plan([("a", SESSIONS), ("b", SESSIONS)]) == RingPlan(proposes=False, resources=("a", "b"))

    def test_a_device_that_does_not_say_what_it_can_may_be_asked_by_a_proposal(self) -> None:
        assert ring_plan([("a", None)]) == RingPlan(proposes=True)
        assert ring_plan([("a", None), ("b", SESSIONS)]) == RingPlan(proposes=False, resources=("b",))

    def test_where_no_device_takes_calls_nobody_is_rung_for_a_minute(self) -> None:
        assert ring_plan([("console", TEXT_ONLY)]) == RingPlan(proposes=False)

    @given(st.lists(st.sampled_from([None, TEXT_ONLY, SESSIONS, PROPOSALS]), max_size=40))
    def test_no_device_is_rung_twice_nor_too_many(self, abilities: list[DeviceCapabilities | None]) -> None:
        plan = ring_plan([(f"r{number}", able) for number, able in enumerate(abilities)])
        assert len(set(plan.resources)) == len(plan.resources) <= MAXIMUM_DIRECT
        assert all(abilities[int(name[1:])] is SESSIONS for name in plan.resources)


def ver_of(*features: str) -> str:
    """XEP-0115 section 5.1, by hand."""
    text = "client/phone//<" + "".join(f"{feature}<" for feature in sorted(features))
    return base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()


class World:
    """Ben's clients, which announce and answer, as ana sees them."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.clock = PromptClock()
        self.house = House(self.server, self.clock)
        self.bus = InProcessBus()
        self.remote = RemotePresence(self.bus, self.clock)
        self.polled: list[Address] = []
        self.bus.register(PresencePolled, lambda address, _: self.polled.append(address))
        self.are_contacts = False
        self.devices = ConsumerDevices(self.house.wire, self.remote, self.bus, lambda *_: self.are_contacts)

    def client(
        self,
        resource: str,
        *features: str,
        ver: str | None = None,
        priority: int = 0,
        announces: bool = True,
        watcher: Address = ANA,
    ) -> Client:
        """A client that is online."""
        client = Client(self.server, f"ben@people.test/{resource}")
        listed = "".join(f"<feature var='{feature}'/>" for feature in features)
        client.disco = (
            "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='phone'/>"
            f"{listed}</query>"
        )
        capabilities = f"sha-1 urn:client#{ver or ver_of(*features)}" if announces else ""
        presence = Presence(Availability.AVAILABLE)
        self.remote.device_changed(watcher, BEN, Device(resource, presence, priority, capabilities=capabilities))
        return client

    async def plan(self) -> RingPlan:
        return await self.devices.plan(ANA, BEN)


@pytest.fixture
def world() -> World:
    return World()


class TestWhatDevicesCanDo:
    async def test_is_asked_once_for_all_with_the_same_program(self, world: World) -> None:
        clients = [world.client(f"r{number}", *CALLS, JMI) for number in range(3)]
        assert await world.plan() == RingPlan(proposes=True)
        assert await world.plan() == RingPlan(proposes=True)
        assert [len(client.asks) for client in clients].count(1) == 1
        assert sum(len(client.asks) for client in clients) == 1
        query = next(client for client in clients if client.asks).received[0][0]
        assert query.get("node") == f"urn:client#{ver_of(*CALLS, JMI)}"

    async def test_is_not_believed_for_others_when_the_hash_does_not_prove_it(self, world: World) -> None:
        """XEP-0115 section 5.4: one client must not say what another one can do."""
        liar = world.client("a", ver=ver_of(*CALLS))
        assert await world.plan() == RingPlan(proposes=False)
        world.remote.all_devices_gone(ANA, BEN)
        honest = world.client("b", *CALLS)
        assert await world.plan() == RingPlan(proposes=False, resources=("b",))
        assert (liar.asks, honest.asks) == (["disco"], ["disco"])

    async def test_is_asked_of_a_device_that_announces_nothing(self, world: World) -> None:
        client = world.client("old", *CALLS, announces=False)
        assert await world.plan() == RingPlan(proposes=False, resources=("old",))
        assert client.received[0][0].get("node") is None

    async def test_the_most_important_device_is_first(self, world: World) -> None:
        world.client("low", *CALLS, priority=-1)
        world.client("high", *CALLS, priority=5)
        assert (await world.plan()).resources == ("high", "low")

    @pytest.mark.parametrize("trouble", ["silent", "refuses"])
    async def test_a_device_that_does_not_say_is_asked_through_the_bare_jid(self, world: World, trouble: str) -> None:
        client = world.client("mute", *CALLS)
        if trouble == "silent":
            client.silent.add("disco")
        else:
            client.refuses["disco"] = ("service-unavailable", "")
        assert await world.plan() == RingPlan(proposes=True)

    async def test_is_learnt_by_two_calls_at_once_with_one_question(self, world: World) -> None:
        client = world.client("phone", *CALLS)
        client.held["disco"] = asyncio.get_running_loop().create_future()
        plans = [asyncio.ensure_future(world.plan()) for _ in range(2)]
        await asyncio.sleep(0)
        client.held["disco"].set_result(None)
        assert await asyncio.gather(*plans) == [RingPlan(proposes=False, resources=("phone",))] * 2
        assert client.asks == ["disco"]

    async def test_the_cache_is_bounded(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(consumer_devices, "MAXIMUM_CACHED", 2)
        for number, is_asked in [(0, True), (0, False), (1, True), (2, True), (0, True)]:
            client = world.client("phone", *CALLS, f"f{number}")
            await world.plan()
            assert bool(client.asks) is is_asked


class TestPresence:
    async def test_of_one_of_ours_is_not_used_for_another(self, world: World) -> None:
        """What ben shows carl, he need not show ana."""
        client = world.client("phone", *CALLS, watcher=Address("carl", "corp.test"))
        assert await world.plan() == RingPlan(proposes=True)
        assert (client.asks, world.polled) == ([], [])

    async def test_of_a_contact_is_asked_for_when_nothing_is_known(self, world: World) -> None:
        world.are_contacts = True

        def answer_probe(_address: Address, _event: PresencePolled) -> None:
            world.client("phone", *CALLS)

        world.bus.register(PresencePolled, answer_probe)
        assert await world.plan() == RingPlan(proposes=False, resources=("phone",))
        assert world.polled == [BEN]

    async def test_of_a_contact_that_does_not_come_is_not_waited_for(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(consumer_devices, "PROBE_SECONDS", 0.01)
        world.are_contacts = True
        assert await world.plan() == RingPlan(proposes=True)

    async def test_of_somebody_offline_leaves_the_bare_jid(self, world: World) -> None:
        """A phone that sleeps is woken by its server."""
        world.remote.all_devices_gone(ANA, BEN)
        assert await world.plan() == RingPlan(proposes=True)


class TestLegs:
    def legs(self, world: World, *, sees: bool) -> ConsumerLegs:
        return ConsumerLegs(
            world.house.around, world.devices, sees=lambda *_: sees, capabilities=lambda user: f"<c for='{user}'/>"
        )

    async def test_are_one_for_proposals_and_one_for_each_other_device(self, world: World) -> None:
        world.client("phone", *CALLS, JMI)
        world.client("web", *CALLS)
        legs = await self.legs(world, sees=True).legs_to(BEN, ANA)
        assert [type(leg).__name__ for leg in legs] == ["JingleProposalLeg", "JingleCalleeLeg"]
        assert [leg.device for leg in legs] == ["", "web"]
        assert len({leg.sid for leg in legs}) == len({leg.key for leg in legs}) == 2

    @pytest.mark.parametrize("sees", [True, False])
    async def test_a_consumer_who_does_not_see_our_presence_is_shown_it(self, world: World, sees: bool) -> None:
        (leg,) = await self.legs(world, sees=sees).legs_to(BEN, ANA)
        assert isinstance(leg, JingleProposalLeg)
        assert bool(leg._capabilities) is not sees

    async def test_a_person_is_not_rung_without_end(self, world: World) -> None:
        legs = self.legs(world, sees=True)
        rung = 0
        while made := await legs.legs_to(BEN, ANA):
            made[0].invite(sdp())
            rung += 1
        assert rung == 32
