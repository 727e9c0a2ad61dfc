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
from isthmus.net.rtpengine_session import RtpengineSession
from isthmus.sdp.session_description import SessionDescription
from isthmus.trace import Trace
from tests.support.media_ends import Browser, RtpPhone, SdesPhone
from tests.support.processes import wait_until
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


@pytest.fixture
async def encrypted() -> AsyncIterator[SdesPhone]:
    phone = SdesPhone(B_TONE)
    await phone.open()
    yield phone
    await phone.close()


async def test_a_phone_with_keys_in_its_description_talks_to_a_plain_one(
    relays: RtpengineRelays, phones: list[RtpPhone], encrypted: SdesPhone
) -> None:
    plain = phones[0]
    session = relays.open(not_dead)
    offer = await session.offer(plain.describe(), by="A", to="B", form=MediaForm.SDES)
    plain.speak_to(await session.answer(encrypted.describe(), by="B", to="A", form=MediaForm.RTP))
    encrypted.speak_to(offer)
    await wait_for_tone(plain.heard, B_TONE)
    await wait_for_tone(encrypted.heard, A_TONE)
    await session.delete()


async def test_a_phone_with_keys_in_its_description_talks_to_a_browser(
    relays: RtpengineRelays, encrypted: SdesPhone
) -> None:
    browser = Browser(A_TONE)
    session = relays.open(not_dead)
    offer = await session.offer(await browser.offer(), by="A", to="B", form=MediaForm.SDES)
    await browser.take_answer(await session.answer(encrypted.describe(), by="B", to="A", form=MediaForm.WEBRTC))
    encrypted.speak_to(offer)
    await wait_for_tone(browser.heard, B_TONE)
    await wait_for_tone(encrypted.heard, A_TONE)
    await session.delete()
    await browser.close()


async def test_opus_alone_is_transcoded_for_a_phone_and_g711_in_common_is_not(
    relays: RtpengineRelays, phones: list[RtpPhone]
) -> None:
    phone = phones[1]
    for has_g711, expected in ((False, {"opus"}), (True, {"PCMU"})):
        browser = Browser(A_TONE, codecs=["opus", "PCMU"] if has_g711 else ["opus"])
        session = relays.open(not_dead)
        offer = await session.offer(await browser.offer(), by="A", to="B", form=MediaForm.RTP)
        assert {"opus", "PCMU", "PCMA", "G722"} <= {codec.name for codec in offer.media[0].codecs}
        answer = await session.answer(phone.describe(), by="B", to="A", form=MediaForm.WEBRTC)
        assert {codec.name for codec in answer.media[0].codecs if codec.name != "telephone-event"} == expected
        await browser.take_answer(answer)
        phone.speak_to(offer)
        await wait_for_tone(phone.heard, A_TONE)
        await wait_for_tone(browser.heard, B_TONE)
        await browser.close()
        await session.delete()


async def test_after_a_transfer_the_one_who_stays_keeps_address_and_keys_and_hears_the_new_end_alone(
    relays: RtpengineRelays, phones: list[RtpPhone]
) -> None:
    a, b, c = phones
    session = relays.open(not_dead)
    for_b = await session.offer(a.describe(), by="A", to="B", form=MediaForm.RTP)
    a.speak_to(await session.answer(b.describe(), by="B", to="A", form=MediaForm.RTP))
    b.speak_to(for_b)
    await wait_for_tone(b.heard, A_TONE)

    for_c = await session.offer(b.describe(), by="B", to="C", form=MediaForm.RTP)
    again_for_b = await session.answer(c.describe(), by="C", to="B", form=MediaForm.RTP)
    await session.drop("A")  # who goes on speaking, and is not heard
    c.speak_to(for_c)
    await wait_for_tone(b.heard, C_TONE)
    await wait_for_tone(c.heard, B_TONE)
    assert again_for_b.media[0].port == for_b.media[0].port
    assert again_for_b.origin.session_id == for_b.origin.session_id
    await session.delete()


async def test_after_a_transfer_a_browser_stays_connected_without_a_new_offer(
    relays: RtpengineRelays, phones: list[RtpPhone]
) -> None:
    browser, a, c = Browser(B_TONE), phones[0], phones[2]
    session = relays.open(not_dead)
    for_b = await session.offer(a.describe(), by="A", to="B", form=MediaForm.WEBRTC)
    said_by_b = await browser.answer(for_b)
    a.speak_to(await session.answer(said_by_b, by="B", to="A", form=MediaForm.RTP))
    await wait_for_tone(browser.heard, A_TONE)

    for_c = await session.offer(said_by_b, by="B", to="C", form=MediaForm.RTP)
    again_for_b = await session.answer(c.describe(), by="C", to="B", form=MediaForm.WEBRTC)
    await session.drop("A")
    c.speak_to(for_c)
    await wait_for_tone(browser.heard, C_TONE)
    await wait_for_tone(c.heard, B_TONE)
    for name in ("ice-ufrag", "ice-pwd"):
        assert again_for_b.media[0].value_of(name) == for_b.media[0].value_of(name)
    await browser.close()
    await session.delete()


async def test_each_device_that_rings_has_its_own_port_and_those_that_lose_give_it_back(
    relays: RtpengineRelays, phones: list[RtpPhone]
) -> None:
    a, first, second = phones
    session = relays.open(not_dead)
    for_first = await session.offer(a.describe(), by="A", to="first", form=MediaForm.RTP)
    for_second = await session.offer(a.describe(), by="A", to="second", form=MediaForm.RTP)
    assert for_first.media[0].port != for_second.media[0].port
    early = await session.answer(first.describe(), by="first", to="A", form=MediaForm.RTP)
    answer = await session.answer(second.describe(), by="second", to="A", form=MediaForm.RTP)
    assert early.media[0].port == answer.media[0].port
    await session.drop("first")
    a.speak_to(answer)
    first.speak_to(for_first)  # does not know yet
    second.speak_to(for_second)
    await wait_for_tone(a.heard, C_TONE)
    await wait_for_tone(second.heard, A_TONE)
    await session.delete()


async def test_hold_is_passed_on_and_the_version_rises_with_it(relays: RtpengineRelays, phones: list[RtpPhone]) -> None:
    a, b, _ = phones
    session = relays.open(not_dead)
    first = await session.offer(a.describe(), by="A", to="B", form=MediaForm.RTP)
    await session.answer(b.describe(), by="B", to="A", form=MediaForm.RTP)
    held = await session.offer(a.describe(direction="sendonly"), by="A", to="B", form=MediaForm.RTP)
    assert held.direction(held.media[0]) == "sendonly"
    assert held.media[0].port == first.media[0].port
    assert held.origin == first.origin._replace(version=first.origin.version + 1)
    answer = await session.answer(b.describe(direction="recvonly"), by="B", to="A", form=MediaForm.RTP)
    assert answer.direction(answer.media[0]) == "recvonly"
    await session.delete()


async def test_pictures_pass_between_browsers_through_the_relay(relays: RtpengineRelays) -> None:
    caller, callee = Browser(A_TONE, has_camera=True), Browser(B_TONE, has_camera=True)
    session = relays.open(not_dead)
    offer = await session.offer(await caller.offer(), by="A", to="B", form=MediaForm.WEBRTC)
    answer = await session.answer(await callee.answer(offer), by="B", to="A", form=MediaForm.WEBRTC)
    await caller.take_answer(answer)
    await wait_for_tone(caller.heard, B_TONE)
    await wait_for_tone(callee.heard, A_TONE)
    await wait_until(lambda: caller.senses.pictures > 5 and callee.senses.pictures > 5, "pictures at both ends")
    await caller.close()
    await callee.close()
    await session.delete()


async def test_a_call_goes_to_the_least_busy_relay_and_to_the_next_one_when_it_is_silent(
    tmp_path: Path, phones: list[RtpPhone]
) -> None:
    one, other = Rtpengine(tmp_path / "one"), Rtpengine(tmp_path / "other")
    await one.start()
    await other.start()
    pool = relays_at(one, other)
    await pool.start()
    sessions = [pool.open(not_dead) for _ in range(4)]
    assert sorted(session.relay_name for session in sessions) == sorted([str(one.address), str(other.address)] * 2)

    for session in sessions:
        await session.delete()
    session = pool.open(not_dead)
    victim, survivor = (one, other) if session.relay_name == str(one.address) else (other, one)
    await victim.kill()
    offer = await session.offer(phones[0].describe(), by="A", to="B", form=MediaForm.RTP)
    assert session.relay_name == str(survivor.address)
    assert await survivor.calls() == [session.call_id]
    assert offer.media[0].port
    assert pool.states() == {str(victim.address): False, str(survivor.address): True}
    assert pool.open(not_dead).relay_name == str(survivor.address)

    await pool.stop()
    assert await survivor.calls() == []
    await survivor.stop()


async def test_without_a_relay_a_call_is_refused_with_the_reason(tmp_path: Path) -> None:
    gone = Rtpengine(tmp_path)
    pool = relays_at(gone)
    await pool.start()
    assert not pool.is_available
    with pytest.raises(RelayError, match="does not answer"):
        pool.open(not_dead)
    with pytest.raises(RelayError, match=r"media\.embedded"):
        relays_at().open(not_dead)
    await pool.stop()


async def test_a_refused_offer_says_why_and_leaves_nothing_behind(
    relays: RtpengineRelays, relay: Rtpengine, phones: list[RtpPhone]
) -> None:
    session = relays.open(not_dead)
    with pytest.raises(RelayError, match="Unknown call-id"):
        await session.answer(phones[0].describe(), by="B", to="A", form=MediaForm.RTP)
    full = relays.open(not_dead)
    with pytest.raises(RelayError, match=r"[Rr]an out of ports"):
        await full.offer(many_sections(phones[0].describe(), 120), by="A", to="B", form=MediaForm.RTP)
    await session.delete()
    await full.delete()
    assert await relay.calls() == []


async def test_calls_of_an_earlier_run_are_ended_and_those_of_others_are_not(
    relay: Rtpengine, phones: list[RtpPhone]
) -> None:
    neighbour, crashed = relays_at(relay, identity="neighbour"), relays_at(relay)
    kept: list[RtpengineSession] = []
    lost: list[RtpengineSession] = []
    for pool, sessions in ((neighbour, kept), (crashed, lost)):
        await pool.start()
        for _ in range(3):
            session = pool.open(not_dead)
            await session.offer(phones[0].describe(), by="A", to="B", form=MediaForm.RTP)
            sessions.append(session)
    assert len(await relay.calls()) == 6

    restarted = relays_at(relay)
    await restarted.start()
    assert sorted(await relay.calls()) == sorted(session.call_id for session in kept)
    await restarted.stop()
    await crashed.stop()
    await neighbour.stop()


async def test_a_relay_that_was_restarted_has_lost_the_call_and_its_owner_is_told(
    relay: Rtpengine, phones: list[RtpPhone]
) -> None:
    pool, dead = relays_at(relay), asyncio.Event()
    await pool.start()
    session = pool.open(dead.set)
    await session.offer(phones[0].describe(), by="A", to="B", form=MediaForm.RTP)
    await session.answer(phones[1].describe(), by="B", to="A", form=MediaForm.RTP)
    counted = await session.quality()
    assert [one.party for one in counted] == ["A", "B"]
    await relay.kill()
    await relay.start()
    pool.look_now()
    async with asyncio.timeout(10):
        await dead.wait()
    assert await session.delete() == counted  # what was known last
    await pool.stop()


async def test_an_end_that_falls_silent_is_noticed_and_one_that_is_on_hold_is_not(
    relay: Rtpengine, phones: list[RtpPhone]
) -> None:
    pool, dead = relays_at(relay, silence_seconds=0.5), asyncio.Event()
    await pool.start()
    a, b, _ = phones
    session = pool.open(dead.set)
    for_b = await session.offer(a.describe(), by="A", to="B", form=MediaForm.RTP)
    for_a = await session.answer(b.describe(), by="B", to="A", form=MediaForm.RTP)
    a.speak_to(for_a)
    b.speak_to(for_b)
    await wait_for_tone(a.heard, B_TONE)
    await wait_for_tone(b.heard, A_TONE)

    await session.offer(a.describe(direction="sendonly"), by="A", to="B", form=MediaForm.RTP)
    await session.answer(b.describe(direction="recvonly"), by="B", to="A", form=MediaForm.RTP)
    await b.be_silent()
    await watch(session, 0.8)
    assert not dead.is_set()

    await session.offer(a.describe(), by="A", to="B", form=MediaForm.RTP)
    await session.answer(b.describe(), by="B", to="A", form=MediaForm.RTP)
    await watch(session, 0.8)
    assert dead.is_set()
    await session.delete()
    await pool.stop()


async def watch(session: RtpengineSession, seconds: float) -> None:
    """Look at a call again and again for a while, as its relay's watcher does at a slower pace."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        await session.examine()
        await asyncio.sleep(0.1)


def many_sections(sdp: SessionDescription, count: int) -> SessionDescription:
    return sdp.with_media(sdp.media * count)


async def test_a_phone_that_refuses_clear_media_is_offered_keys_and_heard(
    relays: RtpengineRelays, encrypted: SdesPhone
) -> None:
    browser = Browser(A_TONE)
    session = relays.open(not_dead)
    said = await browser.offer()
    await session.offer(said, by="A", to="first", form=MediaForm.RTP)
    await session.drop("first")
    offer = await session.offer(said, by="A", to="second", form=MediaForm.SDES)
    await browser.take_answer(await session.answer(encrypted.describe(), by="second", to="A", form=MediaForm.WEBRTC))
    encrypted.speak_to(offer)
    await wait_for_tone(browser.heard, B_TONE)
    await wait_for_tone(encrypted.heard, A_TONE)
    await session.delete()
    await browser.close()


@pytest.mark.parametrize("winner", ["phone", "browser"])
async def test_devices_of_different_kinds_ring_for_one_call_and_either_may_win(
    relays: RtpengineRelays, phones: list[RtpPhone], winner: str
) -> None:
    caller, phone, browser = Browser(A_TONE), phones[1], Browser(B_TONE)
    session = relays.open(not_dead)
    said = await caller.offer()
    for_phone = await session.offer(said, by="A", to="phone", form=MediaForm.RTP)
    for_browser = await session.offer(said, by="A", to="browser", form=MediaForm.WEBRTC)
    if winner == "phone":
        await caller.take_answer(await session.answer(phone.describe(), by="phone", to="A", form=MediaForm.WEBRTC))
        await session.drop("browser")
        phone.speak_to(for_phone)
        heard = phone.heard
    else:
        answer = await browser.answer(for_browser)
        await caller.take_answer(await session.answer(answer, by="browser", to="A", form=MediaForm.WEBRTC))
        await session.drop("phone")
        heard = browser.heard
    await wait_for_tone(caller.heard, B_TONE)
    await wait_for_tone(heard, A_TONE)
    await session.delete()
    await caller.close()
    await browser.close()
