"""Calls between phones (baresip) and apps (Jingle) that are declined, missed, forbidden, or taken elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.baresip_calls import needs_baresip
from tests.support.call_stage import CallStage
from tests.support.isthmus_process import IsthmusProcess
from tests.support.jingle_media import use_addresses
from tests.support.prosody import needs_prosody
from tests.support.rtpengine import needs_rtpengine

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    needs_baresip,
    needs_prosody,
    needs_rtpengine,
]

ANA, BEN = "ana@corp.test", "ben@people.test"
RING_SECONDS = 5  # the least there is

WAYS = pytest.mark.parametrize("proposes", [True, False], ids=["proposal", "offer"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    use_addresses("127.0.0.1")
    environment = {"ISTHMUS_CALLS__RING_SECONDS": str(RING_SECONDS)}
    folder = tmp_path_factory.mktemp("isthmus")
    async with IsthmusProcess(folder, environment=environment).running() as installation:
        await installation.add_people(ANA, consumers=(BEN,))
        acquainting = CallStage(installation)
        await acquainting.make_contacts(ANA, BEN)
        await acquainting.clear()
        yield installation


@WAYS
@pytest.mark.parametrize(("reason", "answer", "cause"), [("decline", "603", "declined"), ("busy", "486", "busy")])
async def test_the_app_does_not_take_it(
    call_stage: CallStage, reason: str, answer: str, cause: str, proposes: bool
) -> None:
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN, proposes=proposes)
    await phone.dial(BEN)
    call = await app.incoming()
    await call.ring()
    await phone.hears_ringing()
    await call.decline(reason)
    assert answer in await phone.is_over()
    assert (await call_stage.last_record())["cause"] == cause


@WAYS
async def test_the_phone_does_not_take_it(call_stage: CallStage, proposes: bool) -> None:
    """baresip answers 486 to whoever it is told not to take."""
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN)
    call = await app.call(ANA if proposes else await app.device_of(ANA))
    await phone.rings()
    await call.is_ringing()
    await phone.hang_up()
    assert await call.is_over() == "busy"


@WAYS
async def test_the_phone_gives_up(call_stage: CallStage, proposes: bool) -> None:
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN, proposes=proposes)
    await phone.dial(BEN)
    call = await app.incoming()
    await call.ring()
    await phone.hears_ringing()
    await phone.hang_up()
    assert await call.is_over() == "cancel"
    assert (await call_stage.last_record())["cause"] == "cancelled"


@WAYS
async def test_the_app_gives_up_and_the_phone_is_told_whom_it_missed(call_stage: CallStage, proposes: bool) -> None:
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN)
    call = await app.call(ANA if proposes else await app.device_of(ANA))
    await phone.rings()
    await call.is_ringing()
    await call.hang_up("cancel")
    await phone.is_over()
    await phone.wait_for_message(f"{BEN} called you at")


@WAYS
async def test_nobody_answers_the_phone(call_stage: CallStage, proposes: bool) -> None:
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN)
    call = await app.call(ANA if proposes else await app.device_of(ANA))
    await phone.rings()
    assert await call.is_over(RING_SECONDS + 10) == "timeout"
    await phone.is_over()
    await phone.wait_for_message(f"{BEN} called you at")
    assert (await call_stage.last_record())["cause"] == "no answer"


@WAYS
async def test_nobody_answers_the_app(call_stage: CallStage, proposes: bool) -> None:
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN, proposes=proposes)
    await phone.dial(BEN)
    call = await app.incoming()
    await call.ring()
    assert "480" in await phone.is_over(RING_SECONDS + 10)
    assert await call.is_over() in ("cancel", "timeout")
    assert (await call_stage.last_record())["cause"] == "no answer"


async def test_somebody_who_was_away_reads_of_the_call(call_stage: CallStage) -> None:
    phone = await call_stage.call_phone(ANA)
    await phone.dial(BEN)
    assert "480" in await phone.is_over()
    app = await call_stage.call_app(BEN)
    message = await app.message(sender=ANA)
    assert f"{ANA} called you at" in message.findtext("{jabber:client}body", "")


@WAYS
async def test_one_of_two_phones_takes_it_and_the_other_has_missed_nothing(
    call_stage: CallStage, proposes: bool
) -> None:
    desk, mobile = await call_stage.call_phone(ANA), await call_stage.call_phone(ANA, hertz=600)
    app = await call_stage.call_app(BEN)
    call = await app.call(ANA if proposes else await app.device_of(ANA))
    await desk.rings()
    await mobile.rings()
    await mobile.answer()
    await call.is_accepted()
    await desk.is_over()
    await call.hears(600)
    await mobile.hears(1_000)
    await call.hang_up()
    await mobile.is_over()
    record = await call_stage.last_record()
    assert record["cause"] == "hung up"
    assert "called you at" not in desk.process.output()


@WAYS
async def test_one_of_two_apps_takes_it_and_the_other_stops_ringing(call_stage: CallStage, proposes: bool) -> None:
    phone = await call_stage.call_phone(ANA)
    tablet = await call_stage.call_app(BEN, "tablet", hertz=800, proposes=proposes)
    handset = await call_stage.call_app(BEN, "handset", proposes=proposes)
    await phone.dial(BEN)
    on_tablet, on_handset = await tablet.incoming(), await handset.incoming()
    await on_tablet.accept()
    await phone.is_in_call()
    await on_handset.is_over()
    await phone.hears(800)
    await on_tablet.hears(440)
    await phone.hang_up()
    assert await on_tablet.is_over() == "success"


async def test_policy_forbids_calls_and_each_caller_reads_so(call_stage: CallStage) -> None:
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN)
    await call_stage.isthmus.operation("policy.set", scope=f"user:{ANA}", name="audio", value="off")
    try:
        await phone.dial(BEN)
        assert "403" in await phone.is_over()
        call = await app.call(ANA)
        assert await call.is_over() == "decline"
        record = await call_stage.last_record()
        assert (record["cause"], record["rule"]) == ("forbidden", "user.audio")
    finally:
        await call_stage.isthmus.operation("policy.unset", scope=f"user:{ANA}", name="audio")
