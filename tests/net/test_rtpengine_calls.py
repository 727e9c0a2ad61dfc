"""Sound through a real rtpengine, for each pair of forms, and when ends come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.errors import RelayError
from isthmus.metrics import Metrics
from isthmus.model import MediaForm
from isthmus.net.rtpengine import RtpengineRelays
from isthmus.trace import Trace
from tests.support.media_ends import Browser, RtpPhone
from tests.support.rtpengine import Rtpengine, needs_rtpengine
from tests.support.tones import wait_for_tone

pytestmark = [needs_rtpengine, pytest.mark.interop]

A_TONE, B_TONE, C_TONE = 440.0, 1000.0, 700.0


def relays_at(*relays: Rtpengine, silence_seconds: float = 0.0, identity: str = "test") -> RtpengineRelays:
    return RtpengineRelays(
        [relay.address for relay in relays],
        identity=identity,
        trace=Trace(lambda: 0.0),
        metrics=Metrics(),
        silence_seconds=silence_seconds,
    )


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Rtpengine]:
    server = Rtpengine(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def relays(relay: Rtpengine) -> AsyncIterator[RtpengineRelays]:
    pool = relays_at(relay)
    await pool.start()
    yield pool
    await pool.stop()


@pytest.fixture
async def phones() -> AsyncIterator[list[RtpPhone]]:
    ends = [RtpPhone(A_TONE), RtpPhone(B_TONE), RtpPhone(C_TONE)]
    for end in ends:
        await end.open()
    yield ends
    for end in ends:
        await end.close()


def not_dead() -> None:
    raise AssertionError("the media are alive")


async def test_two_phones_hear_each_other_through_the_relay_alone(
    relays: RtpengineRelays, relay: Rtpengine, phones: list[RtpPhone]
) -> None:
    a, b, _ = phones
    session = relays.open(not_dead)
    offer = await session.offer(a.describe(), by="A", to="B", form=MediaForm.RTP)
    answer = await session.answer(b.describe(), by="B", to="A", form=MediaForm.RTP)
    a.speak_to(answer)
    b.speak_to(offer)
    await wait_for_tone(a.heard, B_TONE)
    await wait_for_tone(b.heard, A_TONE)
    assert {port for _, port in a.sources} == {answer.media[0].port}
    assert await relay.calls() == [session.call_id]

    counted = await session.delete()
    assert {(one.party, one.media) for one in counted} == {("A", "audio"), ("B", "audio")}
    assert all(one.packets > 20 and one.octets > 20 * 160 for one in counted)
    assert await relay.calls() == []


async def test_a_browser_calls_a_phone_that_has_no_codec_of_its_own(
    relays: RtpengineRelays, phones: list[RtpPhone]
) -> None:
    browser, phone = Browser(A_TONE), phones[1]
    session = relays.open(not_dead)
    offer = await session.offer(await browser.offer(), by="A", to="B", form=MediaForm.RTP)
    assert offer.media[0].protocol == "RTP/AVP"
    answer = await session.answer(phone.describe(), by="B", to="A", form=MediaForm.WEBRTC)
    await browser.take_answer(answer)
    phone.speak_to(offer)
    await wait_for_tone(phone.heard, A_TONE)
    await wait_for_tone(browser.heard, B_TONE)
    await browser.close()
    await session.delete()


async def test_a_phone_calls_a_browser(relays: RtpengineRelays, phones: list[RtpPhone]) -> None:
    phone, browser = phones[0], Browser(B_TONE)
    session = relays.open(not_dead)
    offer = await session.offer(phone.describe(), by="A", to="B", form=MediaForm.WEBRTC)
    answer = await session.answer(await browser.answer(offer), by="B", to="A", form=MediaForm.RTP)
    phone.speak_to(answer)
    await wait_for_tone(phone.heard, B_TONE)
    await wait_for_tone(browser.heard, A_TONE)
    await browser.close()
    await session.delete()
