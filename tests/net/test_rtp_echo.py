"""The echo: voices come back under another source, alone from where they came, and through a real relay."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import RelayError
from isthmus.metrics import Metrics
from isthmus.model import MediaForm
from isthmus.net.rtp_echo import MAXIMUM_CALLS, MAXIMUM_OCTETS, MAXIMUM_SOURCES, EchoedStream, RtpEcho
from isthmus.net.rtpengine import RtpengineRelays
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.trace import Trace
from tests.support.media_descriptions import BROWSER_OFFER, audio
from tests.support.media_ends import Browser, RtpPhone
from tests.support.rtpengine import Rtpengine, needs_rtpengine
from tests.support.tones import wait_for_tone


def packet(source: int, payload: bytes = b"voice", payload_type: int = 0) -> bytes:
    return struct.pack("!BBHII", 0x80, payload_type, 7, 160, source) + payload


def stream() -> EchoedStream:
    numbers = itertools.count(1_000)
    return EchoedStream(lambda: next(numbers))


def test_a_voice_comes_back_as_it_was_but_for_its_source() -> None:
    echo = stream()
    assert echo.echo(packet(1)) == packet(1_000)
    assert echo.echo(packet(1, b"more")) == packet(1_000, b"more")
    assert echo.echo(packet(2)) == packet(1_001)


def test_reports_and_what_is_no_packet_are_not_echoed() -> None:
    echo = stream()
    assert echo.echo(packet(1, payload_type=200)) is None  # a sender report
    assert echo.echo(b"\x00\x01" + packet(1)[2:]) is None  # STUN
    assert echo.echo(packet(1, b"x" * MAXIMUM_OCTETS)) is None


def test_sources_without_end_are_not_remembered() -> None:
    echo = stream()
    echoed = [echo.echo(packet(source)) for source in range(MAXIMUM_SOURCES + 5)]
    assert echoed.count(None) == 5
    assert echo.echo(packet(0)) == packet(1_000)


@given(st.binary(max_size=64))
def test_no_packet_makes_it_raise(data: bytes) -> None:
    echoed = stream().echo(data)
    assert echoed is None or (len(echoed) == len(data) and echoed[12:] == data[12:])


@pytest.fixture
async def echo() -> AsyncIterator[RtpEcho]:
    made = RtpEcho(delay_seconds=0.0)
    yield made
    made.close()


async def test_the_answer_takes_the_codec_that_was_offered_first_and_events_at_its_rate(echo: RtpEcho) -> None:
    offer = audio(MediaForm.RTP, 111, 8, 0, 110, 101)
    call = await echo.open(offer)
    answer = call.answer(offer)
    section = answer.media[0]
    assert section.formats == ("111", "110")
    assert [codec.name for codec in section.codecs] == ["opus", "telephone-event"]
    assert answer.address(section) == "127.0.0.1"
    assert section.value_of("rtcp") == str(section.port)
    assert SessionDescription.parse(answer.to_text()) == answer
    assert echo.calls == 1
    call.close()
    call.close()
    assert echo.calls == 0


async def test_pictures_are_rejected_and_the_sections_keep_their_places(echo: RtpEcho) -> None:
    extra = ("m=video 40002 RTP/AVP 96", "a=rtpmap:96 VP8/90000")
    offer = audio(MediaForm.RTP, 0, extra=extra)
    call = await echo.open(offer)
    assert [(section.media, section.is_rejected) for section in call.answer(offer).media] == [
        ("audio", False),
        ("video", True),
    ]


async def test_a_hold_is_answered_at_the_same_port_with_the_direction_mirrored(echo: RtpEcho) -> None:
    offer = audio(MediaForm.RTP, 0)
    call = await echo.open(offer)
    first = call.answer(offer)
    held = call.answer(offer.with_media([offer.media[0].with_direction("sendonly")]))
    assert held.media[0].own_direction == "recvonly"
    assert held.media[0].port == first.media[0].port
    assert held.origin == first.origin._replace(version=first.origin.version + 1)


async def test_what_it_cannot_play_back_is_refused(echo: RtpEcho) -> None:
    with pytest.raises(SdpError, match="no sound"):
        await echo.open(BROWSER_OFFER)
    with pytest.raises(SdpError, match="no sound"):
        await echo.open(audio(MediaForm.RTP, 101))
    for _ in range(MAXIMUM_CALLS):
        await echo.open(audio(MediaForm.RTP, 0))
    with pytest.raises(RelayError, match="too many"):
        await echo.open(audio(MediaForm.RTP, 0))


async def test_it_answers_whoever_sent_first_and_nobody_else(echo: RtpEcho) -> None:
    phone, stranger = RtpPhone(440.0), RtpPhone(1_000.0)
    await phone.open()
    await stranger.open()
    call = await echo.open(phone.describe())
    phone.speak_to(call.answer(phone.describe()))
    await wait_for_tone(phone.heard, 440.0)
    stranger.speak_to(call.answer(phone.describe()))
    await wait_for_tone(phone.heard, 440.0)
    assert not stranger.received
    assert phone.ssrc not in phone.ssrcs
    await phone.close()
    await stranger.close()


@needs_rtpengine
@pytest.mark.interop
async def test_a_phone_and_a_browser_hear_themselves_through_the_relay(
    echo: RtpEcho, tmp_path_factory: pytest.TempPathFactory
) -> None:
    relay = Rtpengine(tmp_path_factory.mktemp("relay"))
    await relay.start()
    relays = RtpengineRelays([relay.address], identity="e", trace=Trace(lambda: 0.0), metrics=Metrics())
    await relays.start()

    phone = RtpPhone(700.0)
    await phone.open()
    session = relays.open(lambda: None)
    offer = await session.offer(phone.describe(), by="A", to="echo", form=MediaForm.RTP)
    answer = (await echo.open(offer)).answer(offer)
    phone.speak_to(await session.answer(answer, by="echo", to="A", form=MediaForm.RTP))
    await wait_for_tone(phone.heard, 700.0)
    assert phone.ssrc not in phone.ssrcs
    await phone.close()
    await session.delete()

    browser = Browser(440.0)
    session = relays.open(lambda: None)
    offer = await session.offer(await browser.offer(), by="A", to="echo", form=MediaForm.RTP)
    answer = (await echo.open(offer)).answer(offer)
    await browser.take_answer(await session.answer(answer, by="echo", to="A", form=MediaForm.WEBRTC))
    await wait_for_tone(browser.heard, 440.0)
    await browser.close()
    await session.delete()
    await relays.stop()
    await relay.stop()


async def test_the_echo_comes_later_by_the_delay_that_was_asked_for() -> None:
    echo = RtpEcho(delay_seconds=0.2)
    phone = RtpPhone(440.0)
    await phone.open()
    loop = asyncio.get_running_loop()
    call = await echo.open(phone.describe())
    began = loop.time()
    phone.speak_to(call.answer(phone.describe()))
    await wait_for_tone(phone.heard, 440.0)
    heard_after = loop.time() - began - phone.heard().seconds
    assert heard_after > 0.15
    echo.close()
    await phone.close()
