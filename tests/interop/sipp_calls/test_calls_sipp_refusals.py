"""Calls that are refused, by whom and with what reason: SIPp plays the PBX of pbx.test, an app is at the other end."""

from __future__ import annotations

import pytest

from isthmus.sip.loop_marker import HEADER_NAME, MAXIMUM_HOPS
from tests.support import sipp_callees
from tests.support.call_stage import CallStage
from tests.support.jingle_client import JingleClient
from tests.support.processes import free_port
from tests.support.prosody import needs_prosody
from tests.support.rtpengine import needs_rtpengine
from tests.support.sipp import Sipp, needs_sipp
from tests.support.sipp_call_steps import play_call
from tests.support.sipp_callers import Caller
from tests.support.switchboard import ANA, BEN, PAT, Switchboard, answers_to, is_settled, taken

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    needs_sipp,
    needs_prosody,
    needs_rtpengine,
]


# --- by one of the two ---


@pytest.mark.parametrize(("reason", "status"), [("decline", 603), ("busy", 486)])
async def test_the_app_refuses(switchboard: Switchboard, ben: JingleClient, reason: str, status: int) -> None:
    run = await switchboard.calls(switchboard.caller.gets(status))
    call = await ben.incoming()
    await call.ring()
    await call.decline(reason)
    await run.finished()


REFUSALS = [
    (486, "Busy Here", "busy"),
    (600, "Busy Everywhere", "busy"),
    (603, "Decline", "decline"),
    (403, "Forbidden", "decline"),
    (480, "Temporarily Unavailable", "timeout"),
    (408, "Request Timeout", "timeout"),
    (404, "Not Found", "gone"),
    (410, "Gone", "gone"),
    (500, "Server Internal Error", "general-error"),
]


@pytest.mark.parametrize(("status", "text", "reason"), REFUSALS, ids=[str(status) for status, _, _ in REFUSALS])
async def test_the_pbx_refuses(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient, status: int, text: str, reason: str
) -> None:
    run = await switchboard.is_called(sipp_callees.refuses(status, text))
    call = await ben.call(f"{PAT}/isthmus")
    assert await call.is_over() == reason
    await run.finished()
    await is_settled(stage)


async def test_no_media_in_common(stage: CallStage, switchboard: Switchboard, ben: JingleClient) -> None:
    """The phone is asked for plain RTP, SRTP and WebRTC before the app hears of it."""
    run = await switchboard.is_called(sipp_callees.refuses(488, "Not Acceptable Here"), calls=3)
    call = await ben.call(f"{PAT}/isthmus")
    assert await call.is_over() == "incompatible-parameters"
    offers = [m.body for m in await run.finished() if m.first_line.startswith("INVITE")]
    profiles = [line.split()[2] for body in offers for line in body.splitlines() if line.startswith("m=audio")]
    assert profiles == ["RTP/AVP", "RTP/SAVP", "UDP/TLS/RTP/SAVPF"]
    await is_settled(stage)


# --- what is not let in ---


async def test_a_stranger_who_claims_to_be_of_the_pbx_cannot_call(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    """Edge case 43."""
    stranger = Sipp(stage.isthmus.folder / "stranger", "127.0.0.1", free_port(), switchboard.sipp.target)
    stage.leave_at_the_end(stranger)
    await stranger.ask("INVITE", f"sip:{BEN}", sender=f"sip:{PAT}", status=403)
    challenge = await stranger.ask("INVITE", f"sip:{BEN}", sender=f"sip:{ANA}", status=401)
    assert challenge.header("WWW-Authenticate").startswith("Digest")
    assert not ben.calls


async def test_a_call_has_come_too_far(stage: CallStage, switchboard: Switchboard, ben: JingleClient) -> None:
    scenario = switchboard.caller.gets(483).replace("Max-Forwards: 70", "Max-Forwards: 0", 1)
    await (await switchboard.calls(scenario)).finished()
    assert not ben.calls


async def test_a_call_goes_round_in_a_loop(stage: CallStage, switchboard: Switchboard, ben: JingleClient) -> None:
    """The PBX sends on what it gets, as if somebody there had forwarded it to himself."""
    run = await switchboard.is_called(sipp_callees.refuses(486, "Busy Here"))
    await (await ben.call(f"{PAT}/isthmus")).is_over()
    forwarding = Caller(f"sip:{PAT}", f"sip:{PAT}")
    for hops in range(1, MAXIMUM_HOPS + 1):
        marker = (await run.finished())[0].header(HEADER_NAME)
        assert f"hops={hops};" in marker
        is_last = hops == MAXIMUM_HOPS
        if not is_last:
            run = await switchboard.is_called(sipp_callees.refuses(486, "Busy Here"))
        outgoing = switchboard.another()
        status = 482 if is_last else 486
        asked = forwarding.invite(f"{HEADER_NAME}: {marker}") + forwarding.waits(status=status)
        await (await play_call(outgoing, asked + forwarding.acknowledge_refusal())).finished()


async def test_video_is_offered_where_only_audio_is_allowed(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    """Edge case 37."""
    await stage.isthmus.operation("policy.set", scope="global", name="video", value="off")
    talks = switchboard.caller.talks(switchboard.sound, 3_000)
    video = "m=video [media_port] RTP/AVP 96\na=rtpmap:96 VP8/90000\na=sendrecv\n"
    run = await switchboard.calls(talks.replace("a=sendrecv\n", f"a=sendrecv\n{video}", 1))
    call = await taken(ben)
    assert call.media == ["audio"]
    await call.hears(800)
    (answer,) = {m.body for m in answers_to(await run.finished(), "INVITE") if m.status == 200}
    assert "m=video 0 " in answer
    assert await call.is_over() == "success"
    assert (await stage.record(PAT))["media"] == ["audio"]


async def test_encryption_is_required_and_the_caller_offers_none(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    """Edge case 38."""
    await stage.isthmus.operation("policy.set", scope="global", name="encryption", value="required")
    run = await switchboard.calls(switchboard.caller.gets(488))
    refusal = answers_to(await run.finished(), "INVITE")[-1]
    assert "encrypted media" in refusal.header("Warning")
    assert not ben.calls
    record = await stage.record(PAT)
    assert (record["cause"], record["rule"]) == ("security", "encryption.required")


async def test_encryption_is_required_and_the_phone_has_none(
    stage: CallStage, switchboard: Switchboard, ben: JingleClient
) -> None:
    await stage.isthmus.operation("policy.set", scope="global", name="encryption", value="required")
    run = await switchboard.is_called(sipp_callees.refuses(488, "Not Acceptable Here"), calls=2)
    call = await ben.call(f"{PAT}/isthmus")
    reason = await call.is_over()
    offers = [m.body for m in await run.finished() if m.first_line.startswith("INVITE")]
    assert not [body for body in offers if "RTP/AVP " in body]
    assert reason == "incompatible-parameters"
