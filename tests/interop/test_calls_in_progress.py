"""What people do in a call between a phone (baresip) and an app (Jingle): hold, digits, video, transfer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.baresip_calls import CallPhone, needs_baresip, needs_baresip_video
from tests.support.call_stage import CallStage
from tests.support.isthmus_process import IsthmusProcess
from tests.support.jingle_call import JingleCall
from tests.support.jingle_client import JingleClient
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

ANA, TOM, BEN = "ana@corp.test", "tom@corp.test", "ben@people.test"

Talk = tuple[CallPhone, JingleClient, JingleCall]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    use_addresses("127.0.0.1")
    async with IsthmusProcess(tmp_path_factory.mktemp("isthmus")).running() as installation:
        await installation.add_people(ANA, TOM, consumers=(BEN,))
        await CallStage(installation).make_contacts(ANA, BEN)
        yield installation


@pytest_asyncio.fixture(params=["phone-called", "app-called"], loop_scope="module")
async def talk(call_stage: CallStage, request: pytest.FixtureRequest) -> Talk:
    """ana's phone and ben's app hear each other."""
    phone, app = await call_stage.call_phone(ANA, BEN), await call_stage.call_app(BEN)
    if request.param == "phone-called":
        call = await call_stage.phone_calls_app(phone, app)
    else:
        call = await call_stage.app_calls_phone(app, phone)
    await phone.hears(1_000)
    await call.hears(440)
    return phone, app, call


async def test_the_phone_holds_and_resumes(talk: Talk) -> None:
    phone, _, call = talk
    await phone.hold()
    await call.told("content-modify")
    await phone.resume()
    await call.told("content-modify")
    await phone.say(600)
    await phone.goes_on_hearing()
    await call.hears(600)


async def test_the_app_holds_and_resumes(talk: Talk) -> None:
    phone, _, call = talk
    await call.hold()
    for _ in ("senders", "hold"):
        await phone.expect("CALL_REMOTE_SDP", parameter="offer")
    await call.resume()
    for _ in ("senders", "unhold"):
        await phone.expect("CALL_REMOTE_SDP", parameter="offer")
    await phone.say(600)
    await phone.goes_on_hearing()
    await call.hears(600)


async def test_digits_of_the_app_arrive(talk: Talk) -> None:
    phone, _, call = talk
    for digit in "7*":
        await call.press(digit)
        assert await phone.digit() == digit


async def test_the_phone_transfers_the_app_to_a_colleague(call_stage: CallStage, talk: Talk) -> None:
    phone, _, call = talk
    colleague = await call_stage.call_phone(TOM, hertz=600)
    await phone.transfer(TOM)
    await colleague.rings()
    await colleague.answer()
    await colleague.is_in_call()
    await phone.is_over()
    call.say(800)
    await colleague.hears(800)
    await call.hears(600)
    await colleague.hang_up()
    assert await call.is_over() == "success"


async def test_a_transfer_to_somebody_who_declines_is_told(call_stage: CallStage, talk: Talk) -> None:
    """baresip then ends the call itself; that it may go on is played with JsSIP (test_calls_browser.py)."""
    phone, _, call = talk
    colleague = await call_stage.call_phone(TOM)
    await phone.transfer(TOM)
    await colleague.rings()
    await colleague.hang_up()
    await phone.expect("TRANSFER_FAILED")
    assert await call.is_over() == "success"


async def test_each_sees_that_the_other_is_in_a_call(call_stage: CallStage) -> None:
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN)
    colleague = await call_stage.call_phone(TOM, ANA)
    await colleague.wait_for_presence(ANA, "Online")
    await call_stage.phone_calls_app(phone, app)
    seen = await app.presence(None, sender=ANA, show="dnd")
    assert seen.findtext("{jabber:client}status") == "In a call"
    await colleague.wait_for_presence(ANA, "Busy")
    await phone.hang_up()
    await app.presence(None, sender=ANA, show="")
    await colleague.wait_for_presence(ANA, "Online")


@needs_baresip_video
async def test_the_app_adds_video_and_takes_it_out(call_stage: CallStage) -> None:
    phone, app = await call_stage.call_phone(ANA, video="VP8"), await call_stage.call_app(BEN, video=["VP8"])
    call = await call_stage.app_calls_phone(app, phone)
    await call.add_video()
    await call.told("content-accept")
    await phone.sees()
    await call.sees()
    await call.remove_video()
    await phone.expect("CALL_REMOTE_SDP", parameter="offer")
    await phone.say(600)
    await phone.goes_on_hearing()
    await call.hears(600)


@needs_baresip_video
async def test_a_phone_with_video_calls_and_takes_it_out(call_stage: CallStage) -> None:
    phone, app = await call_stage.call_phone(ANA, video="VP8"), await call_stage.call_app(BEN, video=["VP8"])
    call = await call_stage.phone_calls_app(phone, app, video=True)
    await phone.sees()
    await call.sees()
    await phone.show_video("inactive")
    await call.told("content-remove")
    await phone.say(600)
    await call.hears(600)
