"""Transfers: blind, attended, by Replaces; whatever happens, nobody is left alone in a call."""

from __future__ import annotations

import pytest

from isthmus.model import Address, EndCause, Ending, MediaForm
from isthmus.services.calls.leg import (
    IncomingCall,
    LegAccepted,
    LegAnswered,
    LegConfirmed,
    LegEnded,
    LegOffered,
    LegOfferRefused,
    LegRinging,
    LegTransferRequested,
)
from tests.support.call_world import ANA, BEA, BEN, CAT, CallWorld
from tests.support.scripted_legs import ScriptedLeg, sdp


@pytest.fixture
async def world() -> CallWorld:
    made = CallWorld()
    await made.start()
    return made


class Heard:
    """What the one who transfers is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, EndCause | None]] = []

    def __call__(self, status: int, ending: Ending | None) -> None:
        self.told.append((status, None if ending is None else ending.cause))


async def ask(
    world: CallWorld, leg: ScriptedLeg, target: Address, replaces: tuple[str, str, str] | None = None
) -> Heard:
    heard = Heard()
    await world.tell(leg, LegTransferRequested(target, replaces, heard))
    return heard


async def test_a_blind_transfer_connects_the_remaining_end_to_whoever_answers(world: CallWorld) -> None:
    ben, ana = await world.connect(BEN, ANA)
    heard = await ask(world, ana, BEA)
    bea = world.devices.rung[-1]
    assert bea.party == BEA
    await world.tell(bea, LegRinging())
    await world.tell(bea, LegAccepted(sdp(bea.form)))
    assert heard.told == [(100, None), (180, None), (200, None)]
    assert ana.last("hang_up").cause is EndCause.TRANSFERRED
    assert "offer" not in ben.words(), "ben talks to the relay as before"
    assert world.relay.operations[-1] == f"drop 1 {ana.key}"
    assert len(world.relay.open_sessions) == 1
    await world.tell(bea, LegOffered(sdp(direction="sendonly")))
    assert ben.words()[-1] == "offer", "the two are in one call"
    await world.tell(ben, LegEnded(Ending(EndCause.HUNG_UP)))
    assert "hang_up" in bea.words()
    assert not world.relay.open_sessions
    [record] = await world.ask("call.list")
    assert (record["caller"], record["callee"]) == (str(BEN), str(BEA))


async def test_presence_follows_a_transfer(world: CallWorld) -> None:
    _, ana = await world.connect(BEN, ANA)
    await ask(world, ana, BEA)
    await world.tell(world.devices.rung[-1], LegAccepted(sdp()))
    assert [(person, presence is not None) for person, presence in world.shown] == [
        (ANA, True),
        (ANA, False),
        (BEA, True),
    ]


@pytest.mark.parametrize("cause", [EndCause.BUSY, EndCause.DECLINED, EndCause.UNREACHABLE])
async def test_a_transfer_that_fails_leaves_the_call_as_it_was(world: CallWorld, cause: EndCause) -> None:
    ben, ana = await world.connect(BEN, ANA)
    heard = await ask(world, ana, BEA)
    await world.tell(world.devices.rung[-1], LegEnded(Ending(cause)))
    assert heard.told[-1] == (0, cause)
    assert "hang_up" not in ana.words() + ben.words()
    assert world.relay.operations[-2:] == [f"offer 1 {ben.key}", f"answer 1 {ana.key}"], "the two hear each other again"
    assert "offer" not in ana.words() + ben.words()
    assert len(world.relay.open_sessions) == 1


async def test_a_target_that_refuses_the_media_is_tried_with_the_next_form(world: CallWorld) -> None:
    _, bea = await world.connect(BEN, BEA)
    heard = await ask(world, bea, ANA)
    await world.tell(world.devices.rung[-1], LegEnded(Ending(EndCause.MEDIA_MISMATCH, status=488)))
    assert world.devices.rung[-1].form is MediaForm.SDES
    await world.tell(world.devices.rung[-1], LegAccepted(sdp(MediaForm.SDES)))
    assert heard.told[-1] == (200, None)


async def test_who_may_not_call_the_remaining_person_may_not_take_a_place_either(world: CallWorld) -> None:
    ben, ana = await world.connect(BEN, ANA)
    world.names["call-1", "a", "b"] = ana
    await world.do("contact.block", owner=str(BEN), peer=str(BEA))
    taker = ScriptedLeg(BEA, MediaForm.RTP, is_caller=True)
    world.calls.receive(IncomingCall(taker, BEA, ANA, sdp(), replaces=("call-1", "a", "b")))
    await world.settle()
    assert "refuse" in taker.words()
    assert "offer" not in ben.words()


async def test_a_target_that_never_answers_is_given_up(world: CallWorld) -> None:
    _, ana = await world.connect(BEN, ANA)
    heard = await ask(world, ana, BEA)
    world.clock.advance(61)
    await world.settle()
    assert heard.told[-1] == (0, EndCause.NO_ANSWER)
    assert "cancel" in world.devices.rung[-1].words()


async def test_who_may_not_be_called_may_not_be_transferred_to(world: CallWorld) -> None:
    await world.do("policy.set", scope=f"user:{BEA}", name="audio", value="off")
    _, ana = await world.connect(BEN, ANA)
    heard = await ask(world, ana, BEA)
    assert heard.told == [(0, EndCause.FORBIDDEN)]


async def test_a_consumer_transferred_to_another_consumer_is_shown_as_the_one_who_transfers(world: CallWorld) -> None:
    _, ana = await world.connect(BEN, ANA)
    await ask(world, ana, CAT)
    assert world.devices.invitations[-1].caller == ANA


async def test_an_attended_transfer_joins_the_partners_of_two_calls(world: CallWorld) -> None:
    ben, first = await world.connect(BEN, ANA)
    second, bea = await world.connect(ANA, BEA)
    name = ("call-2", "ours", "theirs")
    world.names[name] = second
    heard = await ask(world, first, BEA, name)
    assert "offer" in bea.words()
    await world.tell(bea, LegAnswered(sdp()))
    assert heard.told[-1] == (200, None)
    await world.tell(ben, LegAnswered(sdp(MediaForm.WEBRTC)))
    for leg in (first, second):
        assert leg.last("hang_up").cause is EndCause.TRANSFERRED
    assert "hang_up" not in ben.words() + bea.words()
    assert len(await world.ask("call.live")) == 1
    await world.tell(bea, LegEnded(Ending(EndCause.HUNG_UP)))
    assert "hang_up" in ben.words()
    assert not world.relay.open_sessions


async def test_a_partner_that_refuses_stays_in_its_call(world: CallWorld) -> None:
    _, first = await world.connect(BEN, ANA)
    second, bea = await world.connect(ANA, BEA)
    name = ("call-2", "ours", "theirs")
    world.names[name] = second
    heard = await ask(world, first, BEA, name)
    await world.tell(bea, LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH)))
    assert heard.told[-1] == (0, EndCause.MEDIA_MISMATCH)
    assert len(await world.ask("call.live")) == 2
    await world.tell(second, LegEnded(Ending(EndCause.HUNG_UP)))
    assert "hang_up" in bea.words()


async def test_an_attended_transfer_to_an_unknown_or_a_strange_dialog_is_refused(world: CallWorld) -> None:
    _, first = await world.connect(BEN, ANA)
    assert (await ask(world, first, BEA, ("none", "a", "b"))).told == [(0, EndCause.NOT_FOUND)]
    strange, _ = await world.connect(CAT, BEA)
    world.names["strange", "a", "b"] = strange
    assert (await ask(world, first, BEA, ("strange", "a", "b"))).told == [(0, EndCause.FORBIDDEN)]


async def test_an_invite_with_replaces_takes_the_place_of_a_leg(world: CallWorld) -> None:
    """The phone of ana picks the call up from her other phone."""
    ben, ana = await world.connect(BEN, ANA)
    name = ("call-1", "ours", "theirs")
    world.names[name] = ana
    other_phone = ScriptedLeg(ANA, MediaForm.RTP, is_caller=True)
    world.calls.receive(IncomingCall(other_phone, ANA, BEN, sdp(), replaces=name))
    await world.settle()
    assert ana.last("hang_up").cause is EndCause.TRANSFERRED
    await world.tell(ben, LegAnswered(sdp(MediaForm.WEBRTC)))
    assert other_phone.words() == ["accept"]
    await world.tell(other_phone, LegConfirmed())
    await world.tell(ben, LegEnded(Ending(EndCause.HUNG_UP)))
    assert "hang_up" in other_phone.words()
    assert not world.relay.open_sessions


async def test_a_stranger_cannot_take_a_place_in_a_call(world: CallWorld) -> None:
    _, ana = await world.connect(BEN, ANA)
    name = ("call-1", "ours", "theirs")
    world.names[name] = ana
    stranger = ScriptedLeg(BEA, MediaForm.RTP, is_caller=True)
    world.calls.receive(IncomingCall(stranger, BEA, CAT, sdp(), replaces=name))
    await world.settle()
    assert stranger.last("refuse").cause is EndCause.FORBIDDEN
    assert "hang_up" not in ana.words()


async def test_replacing_a_call_that_does_not_exist_or_only_while_it_rings_is_refused(world: CallWorld) -> None:
    _, ana = await world.connect(BEN, ANA)
    world.names["call-1", "a", "b"] = ana
    for name, is_early, status in ((("none", "a", "b"), False, 481), (("call-1", "a", "b"), True, 486)):
        leg = ScriptedLeg(ANA, MediaForm.RTP, is_caller=True)
        incoming = IncomingCall(leg, ANA, BEN, sdp(), replaces=name, is_replacing_early_only=is_early)
        world.calls.receive(incoming)
        await world.settle()
        assert leg.last("refuse").status == status
