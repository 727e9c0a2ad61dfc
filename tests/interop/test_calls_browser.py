"""Calls with Chromium: a softphone in a page (JsSIP), an app in a page (stanza), and who they talk to besides."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.baresip_calls import PCMU, needs_baresip
from tests.support.call_stage import CallStage
from tests.support.chromium import Chromium, WebPhone, needs_chromium
from tests.support.isthmus_process import IsthmusProcess
from tests.support.jingle_media import use_addresses
from tests.support.prosody import needs_prosody
from tests.support.rtpengine import needs_rtpengine

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    needs_chromium,
    needs_prosody,
    needs_rtpengine,
]

ANA, TOM, BEN = "ana@corp.test", "tom@corp.test", "ben@people.test"
ANAS_TONE, BENS_TONE = 523, 1_200

ON_BOTH_PATHS = pytest.mark.parametrize("media", ["auto", "relayed"], ids=["direct", "relayed"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    use_addresses("127.0.0.1")
    async with IsthmusProcess(tmp_path_factory.mktemp("isthmus")).running() as installation:
        await installation.add_people(ANA, TOM, consumers=(BEN,))
        acquainting = CallStage(installation)
        await acquainting.make_contacts(ANA, BEN)
        await acquainting.clear()
        yield installation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Chromium, Chromium]]:
    """ana's and ben's: a browser has one microphone for all its pages."""
    folder = tmp_path_factory.mktemp("chromium")
    made = Chromium(folder, ANAS_TONE), Chromium(folder, BENS_TONE)
    try:
        for browser in made:
            await browser.start()
        yield made
    finally:
        for browser in made:
            await browser.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(isthmus: IsthmusProcess) -> AsyncIterator[CallStage]:
    made = CallStage(isthmus)
    yield made
    await made.clear()
    await isthmus.operation("policy.set", scope="global", name="media", value="auto")


async def choose(stage: CallStage, media: str) -> None:
    await stage.isthmus.operation("policy.set", scope="global", name="media", value=media)


async def goes(stage: CallStage, media: str) -> None:
    """Only a relayed call is known to the relay."""
    assert len(await stage.calls_in_relay()) == (1 if media == "relayed" else 0)


async def was_recorded(stage: CallStage, caller: str, since: float, media: str, kinds: list[str]) -> None:
    record = await stage.record(caller, after=since)
    path = "relayed" if media == "relayed" else "direct"
    assert (record["path"], record["media"], record["cause"]) == (path, kinds, "hung up")
    assert await stage.calls_in_relay() == []


async def ana_calls_ben(ana: WebPhone, ben: WebPhone, *, video: bool = False) -> None:
    await ana.call(BEN, video=video)
    assert (await ben.expect("incoming"))["video"] is video
    await ben.do("ring")
    await ana.expect("ringing", status=180)
    await ben.answer(video=video)
    await ana.expect("confirmed")


async def ben_calls_ana(ben: WebPhone, ana: WebPhone, *, video: bool = False) -> None:
    await ben.call(f"{ANA}/isthmus", video=video)
    assert (await ana.expect("incoming"))["video"] is video
    await ben.expect("ringing")
    await ana.answer(video=video)
    await ben.expect("accepted")
    await ana.expect("confirmed")


@ON_BOTH_PATHS
async def test_a_softphone_and_a_web_app_hear_and_see_each_other(
    stage: CallStage, browsers: tuple[Chromium, Chromium], media: str
) -> None:
    since = time.time()
    await choose(stage, media)
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.web_app(browsers[1], BEN)
    await ana_calls_ben(ana, ben, video=True)
    for page, hertz in ((ana, BENS_TONE), (ben, ANAS_TONE)):
        await page.hears(hertz)
        await page.sees()
    await goes(stage, media)
    await ana.do("end")
    assert (await ben.expect("ended"))["cause"] == "success"
    await was_recorded(stage, ANA, since, media, ["audio", "video"])


@ON_BOTH_PATHS
async def test_a_web_app_and_a_softphone_hear_and_see_each_other(
    stage: CallStage, browsers: tuple[Chromium, Chromium], media: str
) -> None:
    since = time.time()
    await choose(stage, media)
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.web_app(browsers[1], BEN)
    await ben_calls_ana(ben, ana, video=True)
    for page, hertz in ((ana, BENS_TONE), (ben, ANAS_TONE)):
        await page.hears(hertz)
        await page.sees()
    await goes(stage, media)
    await ben.do("end", "success")
    await ana.expect("ended", originator="remote")
    await was_recorded(stage, BEN, since, media, ["audio", "video"])


@ON_BOTH_PATHS
async def test_a_softphone_and_an_app_hear_and_see_each_other(
    stage: CallStage, browsers: tuple[Chromium, Chromium], media: str
) -> None:
    since = time.time()
    await choose(stage, media)
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.call_app(BEN, video=["VP8"])
    await ana.call(BEN, video=True)
    call = await ben.incoming()
    await call.ring()
    await ana.expect("ringing", status=180)
    await call.accept(video=True)
    await ana.expect("confirmed")
    await ana.hears(1_000)
    await call.hears(ANAS_TONE)
    await ana.sees()
    await call.sees()
    await goes(stage, media)
    await call.hang_up()
    await ana.expect("ended", originator="remote")
    await was_recorded(stage, ANA, since, media, ["audio", "video"])


@ON_BOTH_PATHS
async def test_an_app_and_a_softphone_hear_and_see_each_other(
    stage: CallStage, browsers: tuple[Chromium, Chromium], media: str
) -> None:
    since = time.time()
    await choose(stage, media)
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.call_app(BEN, video=["VP8"])
    call = await ben.call(f"{ANA}/isthmus", video=True)
    assert (await ana.expect("incoming"))["video"]
    await call.is_ringing()
    await ana.answer(video=True)
    await call.is_accepted()
    await ana.hears(1_000)
    await call.hears(ANAS_TONE)
    await ana.sees()
    await call.sees()
    await goes(stage, media)
    await ana.do("end")
    assert await call.is_over() == "success"
    await was_recorded(stage, BEN, since, media, ["audio", "video"])


@needs_baresip
@pytest.mark.parametrize("only", ["", "opus"], ids=["common-codec", "transcoded"])
@pytest.mark.parametrize("is_called", [True, False], ids=["called", "calling"])
async def test_a_softphone_and_a_phone_hear_each_other(
    stage: CallStage, browsers: tuple[Chromium, Chromium], is_called: bool, only: str
) -> None:
    """DTLS-SRTP at one end, plain RTP at the other; and Opus with PCMU, where the softphone knows nothing else."""
    since = time.time()
    ana = await stage.softphone(browsers[0], ANA, onlyAudioCodec=only)
    tom = await stage.call_phone(TOM, codecs=(PCMU,))
    if is_called:
        await ana.call(TOM)
        await tom.rings()
        await ana.expect("ringing", status=180)
        await tom.answer()
    else:
        await tom.dial(ANA)
        await ana.expect("incoming", video=False)
        await tom.hears_ringing()
        await ana.answer()
    await ana.expect("confirmed")
    await tom.is_in_call()
    await ana.hears(440)
    await tom.hears(ANAS_TONE)
    assert (await ana.statistics())["codecs"] == [f"audio/{only or 'PCMU'}"]
    await goes(stage, "relayed")
    if is_called:
        await tom.hang_up()
        await ana.expect("ended", originator="remote")
    else:
        await ana.do("end")
        await tom.is_over()
    await was_recorded(stage, ANA if is_called else TOM, since, "relayed", ["audio"])


@ON_BOTH_PATHS
async def test_a_softphone_holds_and_resumes(stage: CallStage, browsers: tuple[Chromium, Chromium], media: str) -> None:
    await choose(stage, media)
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.web_app(browsers[1], BEN)
    await ana_calls_ben(ana, ben)
    await ben.hears(ANAS_TONE)
    await ana.do("hold")
    await ben.expect("hold")
    await ben.hears_nothing()
    await ana.do("unhold")
    await ben.expect("resumed")
    for page, hertz in ((ana, BENS_TONE), (ben, ANAS_TONE)):
        await page.hears(hertz)
    await ana.do("end")
    assert (await ben.expect("ended"))["cause"] == "success"


@ON_BOTH_PATHS
async def test_an_app_holds_and_resumes(stage: CallStage, browsers: tuple[Chromium, Chromium], media: str) -> None:
    await choose(stage, media)
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.call_app(BEN)
    call = await ben.call(f"{ANA}/isthmus")
    await ana.expect("incoming")
    await ana.answer()
    await call.is_accepted()
    await ana.hears(1_000)
    await call.hold()
    await ana.expect("hold", originator="remote")
    await call.resume()
    await ana.expect("unhold", originator="remote")
    await ana.hears(1_000)
    await call.hears(ANAS_TONE)
    await call.hang_up()
    await ana.expect("ended", originator="remote")


@ON_BOTH_PATHS
async def test_a_softphone_adds_video_and_takes_it_out(
    stage: CallStage, browsers: tuple[Chromium, Chromium], media: str
) -> None:
    await choose(stage, media)
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.call_app(BEN, video=["VP8"])
    await ana.call(BEN)
    call = await ben.incoming()
    assert call.media == ["audio"]
    await call.accept()
    await ana.expect("confirmed")
    await ana.hears(1_000)
    await ana.do("showVideo")
    await ana.expect("renegotiated")
    await call.sees()
    await ana.sees()
    await ana.do("hideVideo")
    await ana.expect("renegotiated")
    await ana.hears(1_000)
    await call.hears(ANAS_TONE)
    await ana.do("end")
    assert await call.is_over() == "success"


@needs_baresip
@ON_BOTH_PATHS
async def test_a_transfer_to_somebody_who_declines_leaves_the_call_as_it_was(
    stage: CallStage, browsers: tuple[Chromium, Chromium], media: str
) -> None:
    """Played with JsSIP: baresip ends the call itself when its transfer fails."""
    await choose(stage, media)
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.call_app(BEN)
    tom = await stage.call_phone(TOM)
    await ana.call(BEN)
    call = await ben.incoming()
    await call.accept()
    await ana.expect("confirmed")
    await ana.hears(1_000)
    await ana.do("transfer", TOM)
    await tom.rings()
    await tom.hang_up()
    await ana.expect("transfer failed", status=486)
    await ana.do("hold")
    await call.told("content-modify")
    await ana.do("unhold")
    await call.told("content-modify")
    await ana.hears(1_000)
    await call.hears(ANAS_TONE)
    await ana.do("end")
    assert await call.is_over() == "success"


@needs_baresip
async def test_a_softphone_transfers_an_app_to_a_colleague(
    stage: CallStage, browsers: tuple[Chromium, Chromium]
) -> None:
    """The app goes on with Opus, which the colleague does not know.

    Of a direct call the app would have to restart ICE, which the client of the tests cannot.
    """
    await choose(stage, "relayed")
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.call_app(BEN)
    tom = await stage.call_phone(TOM, hertz=600, codecs=(PCMU,))
    await ana.call(BEN)
    call = await ben.incoming()
    await call.accept()
    await ana.expect("confirmed")
    await call.hears(ANAS_TONE)
    await ana.do("transfer", TOM)
    await tom.rings()
    await tom.answer()
    await ana.expect("transfer accepted", status=200)
    await call.hears(600)
    await tom.goes_on_hearing()
    await call.hang_up()
    await tom.is_over()


async def test_a_web_app_declines(stage: CallStage, browsers: tuple[Chromium, Chromium]) -> None:
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.web_app(browsers[1], BEN)
    await ana.call(BEN)
    await ben.expect("incoming")
    await ben.do("end", "decline")
    assert (await ana.expect("failed"))["status"] == 603
    assert (await stage.record(ANA))["cause"] == "declined"


async def test_a_softphone_is_busy(stage: CallStage, browsers: tuple[Chromium, Chromium]) -> None:
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.web_app(browsers[1], BEN)
    await ben.call(f"{ANA}/isthmus")
    await ana.expect("incoming")
    await ana.do("end", 486, "Busy Here")
    assert (await ben.expect("ended"))["cause"] == "busy"


@pytest.mark.parametrize("gives_up", [ANA, BEN], ids=["the-softphone", "the-app"])
async def test_a_caller_gives_up(stage: CallStage, browsers: tuple[Chromium, Chromium], gives_up: str) -> None:
    ana, ben = await stage.softphone(browsers[0], ANA), await stage.web_app(browsers[1], BEN)
    if gives_up == ANA:
        await ana.call(BEN)
        await ben.expect("incoming")
        await ben.do("ring")
        await ana.expect("ringing", status=180)
        await ana.do("end")
        assert (await ben.expect("ended"))["cause"] == "cancel"
    else:
        await ben.call(f"{ANA}/isthmus")
        await ana.expect("incoming")
        await ben.expect("ringing")
        await ben.do("end", "cancel")
        assert (await ana.expect("failed"))["cause"] == "Canceled"
    assert (await stage.record(gives_up))["cause"] == "cancelled"
