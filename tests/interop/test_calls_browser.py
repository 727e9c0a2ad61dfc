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
EITHER_ENDS = pytest.mark.parametrize("ends", [ANA, BEN], ids=["business-hangs-up", "consumer-hangs-up"])


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
