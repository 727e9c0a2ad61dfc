"""All calls of a company: who may call whom, what is on record, what presence says, who is told what they missed."""

from __future__ import annotations

import pytest

from isthmus.errors import UnknownSubjectError
from isthmus.model import Address, Availability, EndCause, Ending, MediaForm, Origin
from isthmus.services.calls.leg import LegAccepted, LegConfirmed, LegEnded, LegRinging
from isthmus.services.calls.media_path import media_in_use
from tests.support.call_world import ANA, BEA, BEN, CAT, CallWorld
from tests.support.scripted_legs import sdp


@pytest.fixture
async def world() -> CallWorld:
    made = CallWorld()
    await made.start()
    return made


@pytest.mark.parametrize(
    ("caller", "callee"), [(BEN, ANA), (ANA, BEN), (ANA, BEA)], ids=["to business", "to consumer", "colleagues"]
)
async def test_people_talk_and_the_record_says_so(world: CallWorld, caller: Address, callee: Address) -> None:
    one, other = await world.connect(caller, callee)
    [live] = await world.ask("call.live")
    assert (live["state"], live["path"], live["media"]) == ("talking", "relayed", ["audio"])
    world.clock.advance(65)
    await world.tell(one, LegEnded(Ending(EndCause.HUNG_UP)))
    assert "hang_up" in other.words()
    [record] = await world.ask("call.list", person=str(callee))
    assert (record["caller"], record["callee"], record["cause"]) == (str(caller), str(callee), "hung up")
    assert record["seconds"] == 65
    assert record["quality"][0]["packets"] == 100
    assert await world.ask("call.live") == []
    assert not world.relay.open_sessions


async def test_presence_says_in_a_call_while_somebody_of_ours_talks(world: CallWorld) -> None:
    one, _ = await world.connect(BEN, ANA)
    two, _ = await world.connect(CAT, ANA)
    assert [(person, presence and presence.state) for person, presence in world.shown] == [
        (ANA, Availability.IN_A_CALL)
    ]
    await world.tell(one, LegEnded(Ending(EndCause.HUNG_UP)))
    assert len(world.shown) == 1, "she is still in the other one"
    await world.tell(two, LegEnded(Ending(EndCause.HUNG_UP)))
    assert world.shown[-1] == (ANA, None)


async def test_a_call_that_policy_forbids_is_refused_with_its_rule(world: CallWorld) -> None:
    await world.do("policy.set", scope=f"user:{ANA}", name="audio", value="off")
    leg = await world.arrive(BEN, ANA)
    refusal = leg.last("refuse")
    assert (refusal.cause, refusal.origin, refusal.rule) == (EndCause.FORBIDDEN, Origin.POLICY, "user.audio")
    assert world.devices.rung == []
    [record] = await world.ask("call.list")
    assert (record["cause"], record["rule"]) == ("forbidden", "user.audio")


async def test_video_is_taken_out_where_only_audio_is_allowed_and_the_call_goes_on(world: CallWorld) -> None:
    await world.do("policy.set", scope="global", name="video", value="off")
    await world.arrive(BEN, ANA, sdp(MediaForm.WEBRTC, "audio", "video"))
    offered = world.devices.rung[0].last("invite")
    assert media_in_use(offered) == ("audio",)
    assert len(offered.media) == 2


async def test_policy_that_changes_during_a_call_ends_it_or_its_video(world: CallWorld) -> None:
    one, other = await world.connect(BEN, ANA, "audio", "video")
    await world.do("policy.set", scope="global", name="video", value="off")
    await world.settle()
    assert media_in_use(one.last("offer")) == ("audio",)
    await world.do("policy.set", scope=f"user:{ANA}", name="audio", value="off")
    await world.settle()
    for leg in (one, other):
        assert leg.last("hang_up").rule == "user.audio"


async def test_the_blocked_the_unknown_and_the_absent_look_the_same(world: CallWorld) -> None:
    await world.do("contact.block", owner=str(ANA), peer=str(CAT))
    world.devices.forms[BEA] = []
    answers = {
        (leg.last("refuse").cause, leg.words()[0])
        for leg in [
            await world.arrive(CAT, ANA),
            await world.arrive(CAT, Address("nobody", "corp.test")),
            await world.arrive(CAT, BEA),
        ]
    }
    assert answers == {(EndCause.UNREACHABLE, "refuse")}
    rules = {record["callee"]: record["rule"] for record in await world.ask("call.list")}
    assert rules == {str(ANA): "block.recipient", "nobody@corp.test": "unknown-user", str(BEA): "no-device"}


async def test_a_loop_is_refused(world: CallWorld) -> None:
    leg = await world.arrive(BEN, ANA, hops=99)
    assert leg.last("refuse").cause is EndCause.LOOP


async def test_more_calls_than_a_person_may_have_are_busy(world: CallWorld) -> None:
    small = CallWorld(maximum_calls_per_user=1)
    await small.start()
    await small.connect(BEN, ANA)
    assert (await small.arrive(CAT, ANA)).last("refuse").cause is EndCause.BUSY
    assert (await small.arrive(BEN, BEA)).last("refuse").rule == "limit.calls-per-user"


async def test_more_calls_than_the_server_takes_are_refused(world: CallWorld) -> None:
    small = CallWorld(maximum_calls=1)
    await small.start()
    await small.connect(BEN, ANA)
    assert (await small.arrive(CAT, BEA)).last("refuse").cause is EndCause.OVERLOADED


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Ending(EndCause.CANCELLED), "ben@people.test called you at"),
        (Ending(EndCause.BUSY), "while you were busy"),
    ],
)
async def test_the_callee_hears_of_a_call_that_was_missed(world: CallWorld, ending: Ending, words: str) -> None:
    leg = await world.arrive(BEN, ANA)
    await world.tell(world.devices.rung[0], LegRinging())
    await world.tell(leg if ending.cause is EndCause.CANCELLED else world.devices.rung[0], LegEnded(ending))
    [(person, text)] = world.notices
    assert person == ANA
    assert words in text


async def test_a_call_without_any_device_is_missed_in_both_realms(world: CallWorld) -> None:
    world.devices.forms[ANA] = world.devices.forms[BEN] = []
    await world.arrive(BEN, ANA)
    await world.arrive(ANA, BEN)
    assert [person for person, _ in world.notices] == [ANA, BEN]
    assert "no device" in world.notices[0][1]


async def test_a_declined_or_forbidden_call_is_not_missed(world: CallWorld) -> None:
    await world.arrive(BEN, ANA)
    await world.tell(world.devices.rung[0], LegEnded(Ending(EndCause.DECLINED, status=603)))
    await world.do("policy.set", scope="global", name="audio", value="off")
    await world.arrive(BEN, ANA)
    assert world.notices == []


async def test_required_encryption_skips_clear_media_and_refuses_who_has_no_other(world: CallWorld) -> None:
    await world.do("policy.set", scope="global", name="encryption", value="required")
    await world.arrive(BEN, ANA)
    assert world.devices.rung[0].form is MediaForm.SDES
    refusal = (await world.arrive(BEN, BEA)).last("refuse")
    assert (refusal.cause, refusal.rule) == (EndCause.SECURITY, "encryption.required")
    refusal = (await world.arrive(ANA, BEN, form=MediaForm.RTP)).last("refuse")
    assert refusal.cause is EndCause.SECURITY
    assert "encrypted" in refusal.text


async def test_the_more_specific_media_setting_wins(world: CallWorld) -> None:
    await world.do("policy.set", scope="global", name="media", value="relayed")
    await world.do("policy.set", scope=f"user:{ANA}", name="media", value="direct")
    leg = await world.arrive(BEN, ANA)
    assert "policy wants direct media" in leg.last("refuse").text


async def test_the_administrator_ends_a_call(world: CallWorld) -> None:
    one, other = await world.connect(BEN, ANA)
    [live] = await world.ask("call.live")
    await world.ask("call.end", call_id=live["id"])
    for leg in (one, other):
        assert leg.last("hang_up").rule == "administrator"
    assert (await world.do("audit"))[0]["action"] == "call end"
    with pytest.raises(UnknownSubjectError, match="call list"):
        await world.ask("call.end", call_id="none")


async def test_a_disabled_user_is_in_no_call_any_more(world: CallWorld) -> None:
    one, _ = await world.connect(BEN, ANA)
    await world.do("user.disable", address=str(ANA))
    await world.settle()
    assert one.last("hang_up").rule == "user.removed"


async def test_a_stop_ends_every_call_and_takes_no_new_one(world: CallWorld) -> None:
    one, other = await world.connect(BEN, ANA)
    ringing = await world.arrive(CAT, BEA)
    await world.calls.stop()
    assert "hang_up" in one.words()
    assert "hang_up" in other.words()
    assert "refuse" in ringing.words()
    assert (await world.arrive(CAT, BEA)).last("refuse").rule == "calls.off"
    assert not world.relay.open_sessions


async def test_live_calls_are_noted_for_the_next_run_until_they_are_over(world: CallWorld) -> None:
    one, other = await world.connect(BEN, ANA)
    [(_, state)] = await world.store.live_calls()
    assert [leg["key"] for leg in state["legs"]] == [one.key, other.key]
    await world.tell(one, LegEnded(Ending(EndCause.HUNG_UP)))
    assert await world.store.live_calls() == []


async def test_only_as_many_devices_ring_as_the_breadth_of_the_call_allows(world: CallWorld) -> None:
    world.devices.forms[ANA] = [(MediaForm.RTP,)] * 20
    await world.arrive(BEN, ANA)
    assert len(world.devices.rung) == world.settings.maximum_devices
    await world.arrive(CAT, ANA, breadth=2)
    assert len(world.devices.rung) == world.settings.maximum_devices + 2


async def test_calls_switched_off_are_refused_with_the_reason(world: CallWorld) -> None:
    off = CallWorld(enabled=False)
    await off.start()
    assert "switched off" in (await off.arrive(BEN, ANA)).last("refuse").text


async def test_a_fast_caller_who_is_gone_before_anybody_listened_ends_the_call(world: CallWorld) -> None:
    leg = await world.arrive(BEN, ANA)
    await world.tell(world.devices.rung[0], LegAccepted(sdp()))
    await world.tell(leg, LegConfirmed(), LegEnded(Ending(EndCause.HUNG_UP)))
    assert (await world.ask("call.list"))[0]["seconds"] == 0
