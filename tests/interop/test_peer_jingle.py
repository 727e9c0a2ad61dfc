"""The XMPP apps of the plays with calls, one calling the other through Prosody, without Isthmus between them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.jingle_call import JingleCall
from tests.support.jingle_client import JingleClient, signed_in
from tests.support.jingle_media import use_addresses
from tests.support.prosody import ProsodyServer, needs_prosody

pytestmark = [pytest.mark.interop, needs_prosody]


@pytest.fixture(autouse=True)
def loopback() -> None:
    use_addresses("127.0.0.1")


def app(prosody: ProsodyServer, name: str, resource: str = "app", **options: Any) -> JingleClient:
    jid = f"{name}@people.test/{resource}"
    return JingleClient(jid, "pw", "127.0.0.1", prosody.c2s_port, **options)


async def talk(caller: JingleClient, callee: JingleClient, **media: bool) -> tuple[JingleCall, JingleCall]:
    """A call that rings, is taken, and stands."""
    outgoing = await caller.call(callee.bare if caller.proposes else callee.jid, **media)
    incoming = await callee.incoming()
    await incoming.ring()
    await outgoing.is_ringing()
    await incoming.accept(**media)
    await outgoing.is_accepted()
    for call in (outgoing, incoming):
        await call.is_connected()
    return outgoing, incoming


@pytest.mark.parametrize("trickles", [False, True], ids=["all-at-once", "trickle"])
@pytest.mark.parametrize("proposes", [False, True], ids=["offer", "proposal"])
async def test_each_hears_the_tone_of_the_other(prosody: ProsodyServer, proposes: bool, trickles: bool) -> None:
    options: dict[str, Any] = {"proposes": proposes, "trickles": trickles}
    ben, eva = app(prosody, "ben", hertz=440, **options), app(prosody, "eva", hertz=1_000, **options)
    async with signed_in(ben, eva):
        outgoing, incoming = await talk(ben, eva)
        await outgoing.hears(1_000)
        await incoming.hears(440)
        await outgoing.hang_up()
        assert await incoming.is_over() == "success"


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
async def test_other_codecs_and_the_other_dtls_role(prosody: ProsodyServer, codec: str) -> None:
    ben, eva = (
        app(prosody, "ben", hertz=440, audio=[codec]),
        app(prosody, "eva", audio=["opus", codec], setup="passive"),
    )
    async with signed_in(ben, eva):
        outgoing, incoming = await talk(ben, eva)
        assert [payload.name for payload in outgoing.contents["audio"].payloads] == [codec]
        await outgoing.hears(1_000)
        await incoming.hears(440)


async def test_hold_mute_and_video_in_a_call(prosody: ProsodyServer) -> None:
    ben, eva = app(prosody, "ben", hertz=440, video=["VP8"]), app(prosody, "eva", video=["VP8"])
    async with signed_in(ben, eva):
        outgoing, incoming = await talk(ben, eva)
        await outgoing.hears(1_000)
        await outgoing.hold()
        await incoming.told("hold")
        await outgoing.hears_nothing()
        await incoming.hears_nothing()
        await outgoing.resume()
        await outgoing.hears(1_000)
        await incoming.hears(440)
        await outgoing.press("5#")
        await incoming.told("digit 5")
        await incoming.told("digit #")
        await incoming.mute()
        await outgoing.told("mute")
        await outgoing.hears_nothing()
        await incoming.unmute()
        await outgoing.hears(1_000)

        await outgoing.add_video()
        await outgoing.told("content-accept")
        await outgoing.sees()
        await incoming.sees()
        await incoming.remove_video()
        await outgoing.told("content-remove")
        assert list(outgoing.contents) == ["audio"]
        await incoming.hears(440)


@pytest.mark.parametrize("codec", ["VP8", "H264"])
@pytest.mark.parametrize("bundles", [True, False], ids=["bundled", "apart"])
async def test_each_sees_the_camera_of_the_other(prosody: ProsodyServer, bundles: bool, codec: str) -> None:
    ben = app(prosody, "ben", hertz=440, video=[codec])
    eva = app(prosody, "eva", video=[codec], bundles=bundles)
    async with signed_in(ben, eva):
        outgoing, incoming = await talk(ben, eva, video=True)
        for call, hertz in ((outgoing, 1_000), (incoming, 440)):
            await call.hears(hertz)
            await call.sees()


async def test_video_is_refused_and_the_voices_stay(prosody: ProsodyServer) -> None:
    ben, eva = app(prosody, "ben", hertz=440, video=["VP8"]), app(prosody, "eva")
    async with signed_in(ben, eva):
        outgoing = await ben.call(eva.bare, video=True)
        incoming = await eva.incoming()
        assert incoming.media == ["audio", "video"]
        await incoming.accept(video=True)
        await outgoing.told("content-reject")
        await outgoing.hears(1_000)
        await incoming.hears(440)


async def test_the_first_of_two_devices_takes_the_call(prosody: ProsodyServer) -> None:
    ben, phone, tablet = app(prosody, "ben"), app(prosody, "eva", "phone"), app(prosody, "eva", "tablet")
    async with signed_in(ben, phone, tablet):
        outgoing = await ben.call("eva@people.test")
        on_phone, on_tablet = await phone.incoming(), await tablet.incoming()
        await on_tablet.accept()
        await outgoing.is_accepted()
        assert outgoing.peer == tablet.jid
        assert await on_phone.is_over() == "answered elsewhere"


@pytest.mark.parametrize("proposes", [False, True], ids=["offer", "proposal"])
@pytest.mark.parametrize("reason", ["decline", "busy"])
async def test_a_call_is_not_taken(prosody: ProsodyServer, reason: str, proposes: bool) -> None:
    ben, eva = app(prosody, "ben", proposes=proposes), app(prosody, "eva", proposes=proposes)
    async with signed_in(ben, eva):
        outgoing = await ben.call(eva.bare if proposes else eva.jid)
        await (await eva.incoming()).decline(reason)
        assert await outgoing.is_over() == reason


@pytest.mark.parametrize("proposes", [False, True], ids=["offer", "proposal"])
async def test_a_call_is_taken_back(prosody: ProsodyServer, proposes: bool) -> None:
    ben, eva = app(prosody, "ben", proposes=proposes), app(prosody, "eva", proposes=proposes)
    async with signed_in(ben, eva):
        outgoing = await ben.call(eva.bare if proposes else eva.jid)
        incoming = await eva.incoming()
        await outgoing.hang_up("cancel")
        assert await incoming.is_over() == "cancel"
