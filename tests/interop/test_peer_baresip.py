"""The phones of the plays with calls, one calling the other without anything between them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.baresip_calls import G722, OPUS, PCMA, PCMU, CallPhone, needs_baresip, needs_baresip_video
from tests.support.processes import wait_until
from tests.support.tones import wait_for_silence

pytestmark = [pytest.mark.interop, needs_baresip]

HAS_NETWORK = any(name != "lo" for _, name in socket.if_nameindex())
needs_network = pytest.mark.skipif(not HAS_NETWORK, reason="baresip's ICE finds no interface besides loopback")


@contextlib.asynccontextmanager
async def phones(folder: Path, **options: Any) -> AsyncIterator[tuple[CallPhone, CallPhone]]:
    """ana says 440 Hz, tom says 1000 Hz."""
    ana = CallPhone(folder / "ana", "ana@127.0.0.1", "", "", hertz=440, **options)
    tom = CallPhone(folder / "tom", "tom@127.0.0.1", "", "", hertz=1_000, **options)
    try:
        for phone in (ana, tom):
            await phone.start()
        yield ana, tom
    finally:
        for phone in (ana, tom):
            await phone.stop()


async def call(ana: CallPhone, tom: CallPhone) -> None:
    """ana calls, tom's phone rings, he takes it."""
    await ana.dial(tom.uri)
    await tom.rings()
    await ana.hears_ringing()
    await tom.answer()
    for phone in (ana, tom):
        await phone.is_in_call()


@pytest.mark.parametrize(
    ("codec", "encryption", "nat"),
    [
        (PCMU, "", ""),
        (PCMA, "srtp-mand", ""),
        (G722, "", ""),
        (OPUS, "dtls_srtp", ""),
        pytest.param(OPUS, "dtls_srtp", "ice", marks=needs_network),
    ],
    ids=["pcmu", "pcma-sdes", "g722", "opus-dtls", "opus-dtls-ice"],
)
async def test_each_hears_the_tone_of_the_other(codec: str, encryption: str, nat: str, tmp_path: Path) -> None:
    async with phones(tmp_path, codecs=(codec,), encryption=encryption, nat=nat) as (ana, tom):
        await call(ana, tom)
        await ana.hears(1_000)
        await tom.hears(440)
        await ana.hang_up()
        await tom.is_over()


async def test_hold_resume_mute_and_digits(tmp_path: Path) -> None:
    async with phones(tmp_path) as (ana, tom):
        await call(ana, tom)
        await tom.hears(440)
        await ana.press("5#")
        assert [await tom.digit(), await tom.digit()] == ["5", "#"]

        await ana.hold()
        await tom.expect("CALL_REMOTE_SDP", parameter="offer")
        await wait_for_silence(ana.heard)
        await ana.resume()
        await ana.hears(1_000)
        await tom.hears(440)

        await tom.mute()
        await wait_for_silence(ana.heard)
        await tom.mute()
        await ana.hears(1_000)


async def test_a_call_declined_and_a_call_given_up(tmp_path: Path) -> None:
    async with phones(tmp_path) as (ana, tom):
        await ana.dial(tom.uri)
        await tom.rings()
        await tom.hang_up()
        assert "486" in await ana.is_over()
        await ana.dial(tom.uri)
        await tom.rings()
        await ana.hang_up()
        await tom.is_over()


async def test_a_call_is_passed_on(tmp_path: Path) -> None:
    async with phones(tmp_path) as (ana, tom):
        eva = CallPhone(tmp_path / "eva", "eva@127.0.0.1", "", "", hertz=1_500, is_answering=True)
        await eva.start()
        try:
            await call(ana, tom)
            await tom.transfer(eva.uri)
            await eva.is_in_call()
            await eva.hears(440)
            await ana.hears(1_500)
        finally:
            await eva.stop()


@needs_baresip_video
@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_each_sees_the_camera_of_the_other(codec: str, tmp_path: Path) -> None:
    async with phones(tmp_path, video=codec) as (ana, tom):
        await call(ana, tom)
        for phone in (ana, tom):

            async def has_frames(phone: CallPhone = phone) -> bool:
                return await phone.frames_received() > 5

            await wait_until(has_frames, "video")
        await ana.hears(1_000)
        await ana.show_video("inactive")
        await tom.expect("CALL_REMOTE_SDP", parameter="offer")
        await tom.hears(440)
        before = await tom.frames_received()
        await ana.show_video()
        await tom.expect("CALL_REMOTE_SDP", parameter="offer")

        async def sees_again() -> bool:
            return await tom.frames_received() not in range(before + 5)

        await wait_until(sees_again, "video after it was added again")
