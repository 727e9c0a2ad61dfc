"""The web pages of the plays with calls, one calling the other, without Isthmus between them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import websockets

from tests.support.chromium import Chromium, WebPhone, needs_chromium
from tests.support.jingle_client import JingleClient, signed_in
from tests.support.jingle_media import use_addresses
from tests.support.prosody import ProsodyServer, needs_prosody

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module"), needs_chromium]

LOW, HIGH = 523, 1_200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Chromium, Chromium]]:
    """One says 523 Hz, the other 1200 Hz."""
    folder = tmp_path_factory.mktemp("chromium")
    low, high = Chromium(folder, LOW), Chromium(folder, HIGH)
    try:
        await low.start()
        await high.start()
        yield low, high
    finally:
        for browser in (high, low):
            await browser.stop()


async def relay(socket: websockets.ServerConnection, others: list[websockets.ServerConnection]) -> None:
    """A SIP server for two: everybody may register, and what is not for the registrar goes to the other one."""
    others.append(socket)
    async for text in socket:
        assert isinstance(text, str)
        if text.startswith("REGISTER "):
            kept = re.findall(r"^(?:Via|From|To|Call-ID|CSeq|Contact): .*\r\n", text, re.MULTILINE)
            answer = "".join(kept).replace("\r\nCall-ID", ";tag=registrar\r\nCall-ID", 1)
            await socket.send(f"SIP/2.0 200 OK\r\n{answer}Content-Length: 0\r\n\r\n")
        elif text.strip():
            await next(other for other in others if other is not socket).send(text)


@contextlib.asynccontextmanager
async def softphones(browsers: tuple[Chromium, Chromium]) -> AsyncIterator[tuple[WebPhone, WebPhone]]:
    sockets: list[websockets.ServerConnection] = []
    async with websockets.serve(
        lambda socket: relay(socket, sockets), "127.0.0.1", 0, subprotocols=[websockets.Subprotocol("sip")]
    ) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        ana, tom = await browsers[0].business(), await browsers[1].business()
        await ana.register(url=url, address="ana@corp.test", password="pw")
        await tom.register(url=url, address="tom@corp.test", password="pw")
        yield ana, tom
        for phone in (ana, tom):
            await phone.stop()


async def test_two_softphones_hear_and_see_each_other(browsers: tuple[Chromium, Chromium]) -> None:
    async with softphones(browsers) as (ana, tom):
        await ana.call("tom@corp.test", video=True)
        assert (await tom.expect("incoming"))["video"]
        await ana.expect("ringing", status=180)
        await tom.answer(video=True)
        await ana.expect("confirmed")
        for phone, hertz in ((ana, HIGH), (tom, LOW)):
            await phone.hears(hertz)
            await phone.sees()
        statistics = await ana.statistics()
        assert statistics["codecs"] == ["audio/opus", "video/VP8"]
        await tom.do("end")
        await ana.expect("ended", originator="remote")


async def test_a_softphone_holds_mutes_presses_a_digit_and_adds_video(browsers: tuple[Chromium, Chromium]) -> None:
    async with softphones(browsers) as (ana, tom):
        await ana.call("tom@corp.test")
        await tom.expect("incoming", video=False)
        await tom.answer()
        await ana.hears(HIGH)
        await ana.do("hold")
        await tom.expect("hold", originator="remote")
        await ana.hears_nothing()
        await ana.do("unhold")
        await ana.hears(HIGH)
        await tom.do("mute")
        await ana.hears_nothing()
        await tom.do("unmute")
        await ana.hears(HIGH)
        await ana.do("press", "5", "INFO")
        assert (await tom.expect("digit"))["digit"] == "5"
        await ana.do("showVideo")
        await ana.expect("renegotiated")
        await tom.sees()
        await ana.do("end")
        await tom.expect("ended")


async def test_a_softphone_declines(browsers: tuple[Chromium, Chromium]) -> None:
    async with softphones(browsers) as (ana, tom):
        await ana.call("tom@corp.test")
        await tom.expect("incoming")
        await tom.do("end", 603, "Decline")
        assert (await ana.expect("failed"))["status"] == 603


@pytest_asyncio.fixture(loop_scope="module")
async def server(tmp_path: Path) -> AsyncIterator[ProsodyServer]:
    made = ProsodyServer(tmp_path, accounts={"ben": "pw", "eva": "pw"}, components={})
    await made.start()
    yield made
    await made.stop()


async def sign_in(browser: Chromium, server: ProsodyServer, name: str) -> WebPhone:
    page = await browser.consumer()
    url = f"ws://127.0.0.1:{server.websocket_port}/xmpp-websocket"
    await page.register(url=url, address=f"{name}@people.test", password="pw", resource="web")
    return page


@needs_prosody
async def test_two_apps_hear_and_see_each_other(browsers: tuple[Chromium, Chromium], server: ProsodyServer) -> None:
    ben, eva = await sign_in(browsers[0], server, "ben"), await sign_in(browsers[1], server, "eva")
    await ben.call("eva@people.test/web", video=True)
    assert await eva.expect("incoming") == {"event": "incoming", "from": "ben@people.test/web", "video": True}
    await eva.do("ring")
    await ben.expect("ringing")
    await eva.answer(video=True)
    await ben.expect("accepted")
    for page, hertz in ((ben, HIGH), (eva, LOW)):
        await page.hears(hertz)
        await page.sees()
    await eva.do("mute")
    await ben.expect("mute")
    await ben.hears_nothing()
    await ben.do("end", "success")
    assert (await eva.expect("ended"))["cause"] == "success"
    for page in (ben, eva):
        await page.stop()


@needs_prosody
@pytest.mark.parametrize("is_called", [True, False], ids=["called", "calling"])
async def test_an_app_in_a_page_and_the_jingle_client(
    browsers: tuple[Chromium, Chromium], server: ProsodyServer, is_called: bool
) -> None:
    """Two implementations of Jingle that share no line."""
    use_addresses("127.0.0.1")
    page = await sign_in(browsers[0], server, "ben")
    eva = JingleClient(
        "eva@people.test/app", "pw", "127.0.0.1", server.c2s_port, hertz=1_000, proposes=False, video=["VP8"]
    )
    async with signed_in(eva):
        if is_called:
            call = await eva.call("ben@people.test/web", video=True)
            await page.expect("incoming")
            await page.answer(video=True)
            await call.is_accepted()
        else:
            await page.call("eva@people.test/app", video=True)
            call = await eva.incoming()
            await call.ring()
            await page.expect("ringing")
            await call.accept(video=True)
            await page.expect("accepted")
        await page.hears(1_000)
        await call.hears(LOW)
        await page.sees()
        await call.sees()
        await call.hang_up()
        await page.expect("ended")
    await page.stop()
