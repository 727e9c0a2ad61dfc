"""Races of calls, played by SIPp for the PBX of pbx.test, with an app of people.test at the other end."""

from __future__ import annotations

import pytest

from tests.support import sipp_callees
from tests.support.baresip_calls import needs_baresip
from tests.support.call_stage import CallStage
from tests.support.jingle_client import JingleClient
from tests.support.prosody import needs_prosody
from tests.support.rtpengine import needs_rtpengine
from tests.support.sipp import needs_sipp
from tests.support.sipp_call_steps import play_call
from tests.support.sipp_callers import Caller
from tests.support.switchboard import ANA, PAT, Switchboard, answers_to, is_settled, taken

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    needs_sipp,
    needs_prosody,
    needs_rtpengine,
]


# --- pat calls ---


async def test_a_call_from_the_pbx(stage: CallStage, switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.calls(switchboard.caller.talks(switchboard.sound, 3_000))
    call = await taken(ben)
    await call.hears(800)
    await run.finished()
    assert await call.is_over() == "success"
    record = await stage.record(PAT)
    assert (record["cause"], record["path"]) == ("hung up", "relayed")
    await is_settled(stage)


async def test_a_call_is_cancelled_while_it_rings(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    run = await switchboard.calls(switchboard.caller.gives_up())
    call = await ben.incoming()
    await call.ring()
    assert await call.is_over() == "cancel"
    await run.finished()
    assert (await stage.record(PAT))["cause"] == "cancelled"
    await is_settled(stage)


async def test_a_call_is_cancelled_at_once(stage: CallStage, switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.calls(switchboard.caller.gives_up_at_once())
    assert answers_to(await run.finished(), "INVITE")[-1].status == 487
    call = await ben.incoming()
    assert await call.is_over() == "cancel"
    await is_settled(stage)


async def test_an_answer_in_the_ack_to_an_offer_in_the_200(switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.calls(switchboard.caller.offers_late(switchboard.sound, 3_000))
    call = await taken(ben)
    await call.hears(800)
    (offer,) = {m.body for m in answers_to(await run.finished(), "INVITE") if m.status == 200}
    assert "m=audio" in offer
    assert await call.is_over() == "success"


async def test_ringing_that_must_be_acknowledged(switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.calls(switchboard.caller.needs_acknowledged_ringing(switchboard.sound, 3_000))
    call = await ben.incoming()
    await call.ring()
    ringing = await run.wait_for("SIP/2.0 180")
    assert "100rel" in ringing.header("Require")
    await run.wait_for("PRACK")
    await call.accept()
    await call.hears(800)
    await run.finished()
    assert await call.is_over() == "success"


async def test_an_answer_that_is_never_acknowledged(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    """RFC 3261 section 13.3.1.4: 64*T1, which are 32 seconds."""
    run = await switchboard.calls(switchboard.caller.never_acknowledges(), seconds=40)
    call = await taken(ben)
    heard = await run.finished()
    assert len([m for m in answers_to(heard, "INVITE") if m.status == 200]) > 5
    assert await call.is_over() == "connectivity-error"
    await is_settled(stage)


async def test_the_caller_holds_and_resumes(switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.calls(switchboard.caller.holds(switchboard.sound, 1_500))
    call = await taken(ben)
    await call.hears(800)
    for _ in range(2):
        await call.told("content-modify")
    answers = [m.body for m in answers_to(await run.finished(), "INVITE") if m.status == 200]
    assert ["recvonly" in body for body in answers] == [False, True, False]
    assert await call.is_over() == "success"


# --- pat is called ---


async def test_the_caller_gives_up(switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.is_called(sipp_callees.rings_until_cancelled())
    call = await ben.call(f"{PAT}/isthmus")
    await call.is_ringing()
    await call.hang_up("cancel")
    await run.finished()


async def test_an_answer_crosses_the_cancel(stage: CallStage, switchboard: Switchboard, ben: JingleClient) -> None:
    """Edge case 35."""
    run = await switchboard.is_called(sipp_callees.answers_although_cancelled())
    call = await ben.call(f"{PAT}/isthmus")
    await call.is_ringing()
    await call.hang_up("cancel")
    await run.finished()
    await is_settled(stage)


async def test_a_bye_comes_right_behind_the_answer(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    """Edge case 35."""
    run = await switchboard.is_called(sipp_callees.hangs_up_before_the_ack())
    call = await ben.call(f"{PAT}/isthmus")
    assert await call.is_over() == "success"
    await run.finished()
    await is_settled(stage)


async def test_two_phones_behind_the_pbx_answer(stage: CallStage, switchboard: Switchboard, ben: JingleClient) -> None:
    """The second one is acknowledged and hung up, and the call goes on with the first."""
    run = await switchboard.is_called(sipp_callees.answers_twice())
    call = await ben.call(f"{PAT}/isthmus")
    await call.is_accepted()
    first = await run.wait_for("BYE ")
    assert first.header("To").endswith("b1")
    assert not call.has_ended
    await call.hang_up()
    await run.finished()
    await is_settled(stage)


async def test_early_media_that_must_be_acknowledged(switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.is_called(sipp_callees.rings_reliably(switchboard.sound))
    call = await ben.call(f"{PAT}/isthmus")
    await call.is_ringing()
    await call.is_accepted()
    await call.hears(800)
    await call.hang_up()
    await run.finished()


async def test_a_phone_behind_the_pbx_holds(switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.is_called(sipp_callees.holds(500))
    call = await ben.call(f"{PAT}/isthmus")
    await call.is_accepted()
    for _ in range(2):
        await call.told("content-modify")
    await call.hang_up()
    await run.finished()


async def test_both_offer_at_once(switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.is_called(sipp_callees.is_glared())
    call = await ben.call(f"{PAT}/isthmus")
    await call.is_accepted()
    await call.is_connected()
    await call.hold()
    await run.wait_for("CSeq: 3 INVITE")
    await run.wait_for("CSeq: 3 ACK")
    await call.hang_up()
    await run.finished()


async def test_an_invite_without_an_offer_in_the_call(switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.is_called(sipp_callees.offers_without_offer(500))
    call = await ben.call(f"{PAT}/isthmus")
    await call.is_accepted()
    await run.wait_for("SIP/2.0 200")
    await call.hang_up()
    heard = await run.finished()
    (offer,) = (m for m in answers_to(heard, "INVITE") if m.status == 200)
    assert "m=audio" in offer.body


async def test_another_desk_of_the_pbx_is_called_after_a_redirection(
    switchboard: Switchboard, ben: JingleClient
) -> None:
    desk = f"sip:desk@{switchboard.host}:{switchboard.port}"
    run = await switchboard.is_called(sipp_callees.is_redirected_and_rings(desk))
    call = await ben.call(f"{PAT}/isthmus")
    await call.is_accepted()
    await call.hang_up()
    invites = {m.first_line for m in await run.finished() if m.is_received and m.first_line.startswith("INVITE")}
    assert invites == {f"INVITE sip:{PAT} SIP/2.0", f"INVITE {desk} SIP/2.0"}
    assert "alternative-session" not in call.ending


async def test_a_redirection_to_somebody_else_is_not_told_to_the_app(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    moved = sipp_callees.refuses(302, "Moved Temporarily", contact="sip:secret@elsewhere.test")
    run = await switchboard.is_called(moved)
    call = await ben.call(f"{PAT}/isthmus")
    assert await call.is_over() == "timeout"
    await run.finished()
    await is_settled(stage)


# --- transfers and session timers ---


@needs_baresip
async def test_the_pbx_transfers_an_app_to_a_phone(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    ana = await stage.call_phone(ANA)
    run = await switchboard.calls(switchboard.caller.is_transferred_away(f"sip:{ANA}", 3))
    call = await taken(ben)
    await ana.rings()
    await ana.answer()
    await ana.is_in_call()
    await run.finished()
    await call.hears(440)
    await ana.hears(1_000)
    await call.hang_up()
    await ana.is_over()
    await is_settled(stage)


@needs_baresip
async def test_the_pbx_connects_the_two_it_speaks_to(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    """An attended transfer: Refer-To names the other call with Replaces (RFC 5589 section 7)."""
    ana = await stage.call_phone(ANA)
    consulting = await play_call(switchboard.another(), Caller(f"sip:{PAT}", f"sip:{ANA}").stays())
    await ana.rings()
    await ana.answer()
    await ana.is_in_call()
    answered = await consulting.wait_for("SIP/2.0 200")
    our_tag, their_tag = (answered.header(name).partition("tag=")[2] for name in ("From", "To"))
    identifiers = f"{answered.header('Call-ID')}%3Bto-tag%3D{their_tag}%3Bfrom-tag%3D{our_tag}"
    target = f"sip:{ANA}?Replaces={identifiers}"
    run = await switchboard.calls(switchboard.caller.is_transferred_away(target, 2))
    call = await taken(ben)
    await run.finished()
    await consulting.finished()
    await call.hears(440)
    await ana.hears(1_000)
    await ana.hang_up()
    assert await call.is_over() == "success"
    await is_settled(stage)


async def test_the_caller_refreshes_the_session(switchboard: Switchboard, ben: JingleClient) -> None:
    run = await switchboard.calls(switchboard.caller.refreshes(90, 500))
    call = await taken(ben)
    answers = [m for m in answers_to(await run.finished(), "INVITE") if m.status == 200]
    assert {m.header("Session-Expires").replace(" ", "") for m in answers} == {"90;refresher=uac"}
    assert await call.is_over() == "success"
    assert "< content-modify" not in call.log


async def test_a_session_shorter_than_ninety_seconds_is_too_small(switchboard: Switchboard, ben: JingleClient) -> None:
    caller = switchboard.caller
    timer = ("Supported: timer", "Session-Expires: 30")
    run = await switchboard.calls(caller.invite(*timer) + caller.waits(status=422) + caller.acknowledge_refusal())
    assert answers_to(await run.finished(), "INVITE")[-1].header("Min-SE") == "90"
    assert not ben.calls


# --- what leaves something behind ---


async def test_a_hold_that_meets_the_pbx_with_an_offer_of_its_own(switchboard: Switchboard, ben: JingleClient) -> None:
    """The PBX says 491, and is asked again (RFC 3261 section 14.1).

    The last play: a re-INVITE that the PBX has not answered when it leaves is repeated for half a minute, and the next
    play would take it for its own call.
    """
    run = await switchboard.calls(switchboard.caller.meets_glare())
    call = await taken(ben)
    await call.is_connected()
    await call.hold()
    await run.wait_for("CSeq: 2 ACK")
    offer = await run.wait_for("CSeq: 2 INVITE")
    assert "sendonly" in offer.body
    await call.hang_up()
    await run.finished()
