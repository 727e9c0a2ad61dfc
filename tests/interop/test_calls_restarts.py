"""Isthmus or Prosody dies while a phone (baresip) and an app (Jingle) talk: nobody stays in a call that is no more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from isthmus.net.rtpengine_ng import NgAddress
from tests.support.baresip_calls import needs_baresip
from tests.support.call_stage import CallStage
from tests.support.isthmus_process import IsthmusProcess
from tests.support.jingle_media import use_addresses
from tests.support.prosody import needs_prosody
from tests.support.rtpengine import needs_rtpengine, relayed_calls

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    needs_baresip,
    needs_prosody,
    needs_rtpengine,
]

ANA, BEN = "ana@corp.test", "ben@people.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    use_addresses("127.0.0.1")
    async with IsthmusProcess(tmp_path_factory.mktemp("isthmus")).running() as installation:
        await installation.add_people(ANA, consumers=(BEN,))
        await CallStage(installation).make_contacts(ANA, BEN)
        yield installation


async def test_prosody_restarts_and_the_call_goes_on(isthmus: IsthmusProcess, call_stage: CallStage) -> None:
    """The app signs out with its server; its media go on, and whoever hangs up at the phone ends the call."""
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN)
    call = await call_stage.phone_calls_app(phone, app)
    await phone.hears(1_000)
    await call.hears(440)
    before = await isthmus.prosody_pid()
    await call_stage.kill(before)
    await isthmus.prosody_pid(after=before)
    await phone.say(600)
    call.say(800)
    await phone.hears(800)
    await call.hears(600)
    [live] = await isthmus.operation("call.live")
    assert (live["caller"], live["callee"]) == (ANA, BEN)
    await phone.hang_up()
    assert (await call_stage.last_record())["cause"] == "hung up"


async def test_isthmus_is_killed_and_its_next_run_ends_the_call(isthmus: IsthmusProcess, call_stage: CallStage) -> None:
    """The relay carries the media meanwhile. Then both sides are told, and the relay holds nothing."""
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN)
    call = await call_stage.app_calls_phone(app, phone, to=await app.device_of(ANA))
    await phone.hears(1_000)
    await call.hears(440)
    relay = NgAddress("127.0.0.1", isthmus.relay_port)
    assert len(await relayed_calls(relay)) == 1
    await isthmus.kill()
    await phone.say(600)
    call.say(800)
    await phone.hears(800)
    await call.hears(600)
    await isthmus.start()
    assert await call.is_over() == "connectivity-error"
    await phone.is_over()
    record = await call_stage.last_record()
    assert (record["caller"], record["callee"], record["cause"]) == (BEN, ANA, "connectivity")
    assert await relayed_calls(relay) == []
