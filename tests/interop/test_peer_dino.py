"""Dino and the XMPP app of the plays call each other through Prosody, without Isthmus between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.certificates import TestAuthority
from tests.support.dino import Dino, needs_dino
from tests.support.jingle_client import JingleClient, signed_in
from tests.support.jingle_media import use_addresses
from tests.support.private_host import needs_private_host, private_host
from tests.support.prosody import ProsodyServer, needs_prosody
from tests.support.xmpp_client import XmppClient

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    needs_prosody,
    needs_private_host,
    needs_dino,
]

BEN, EVA = "ben@people.test", "eva@people.test"


@dataclass
class Home:
    """people.test with Dino for ben; eva and he are contacts."""

    server: ProsodyServer
    dino: Dino

    def eva(self, *, proposes: bool = True) -> JingleClient:
        place = (self.server.interface, self.server.c2s_port)
        return JingleClient(f"{EVA}/app", "pw", *place, proposes=proposes, video=["VP8"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    folder = tmp_path_factory.mktemp("dino")
    authority = TestAuthority(folder)
    authority.issue("people.test")
    with private_host(folder / "host", ["people.test"], authority.authority) as address:
        use_addresses(address)
        server = ProsodyServer(folder, accounts={"ben": "pw", "eva": "pw"}, components={}, interface=address)
        server.c2s_port = 5222  # without SRV records a client looks here and nowhere else
        dino = Dino(folder / "ben", BEN, "pw")
        try:
            await server.start()
            await make_contacts(server)
            await dino.start()
            yield Home(server, dino)
        finally:
            await dino.stop()
            await server.stop()


async def make_contacts(server: ProsodyServer) -> None:
    clients = [XmppClient(f"{jid}/setup", "pw", server.interface, server.c2s_port) for jid in (BEN, EVA)]
    for client in clients:
        await client.start()
    for client, other in zip(clients, (EVA, BEN), strict=True):
        client.send(f"<presence type='subscribe' to='{other}'/>")
    for client, other in zip(clients, (EVA, BEN), strict=True):
        await client.presence("subscribe", sender=other)
        client.send(f"<presence type='subscribed' to='{other}'/>")
    for client, other in zip(clients, (EVA, BEN), strict=True):
        await client.presence("subscribed", sender=other)
    for client in clients:
        await client.stop()


@pytest.mark.parametrize("proposes", [True, False], ids=["proposal", "offer"])
async def test_dino_is_called(home: Home, proposes: bool) -> None:
    eva, dino = home.eva(proposes=proposes), home.dino
    async with signed_in(eva):
        call = await eva.call(BEN if proposes else f"{BEN}/dino")
        await dino.accept(await dino.rings())
        await call.is_accepted()
        await call.hears(700)
        await dino.hears(1_000)
        await call.hang_up()
        await dino.call_becomes("ended")


async def test_dino_calls(home: Home) -> None:
    eva, dino = home.eva(), home.dino
    async with signed_in(eva):
        await dino.call(EVA)
        call = await eva.incoming()
        await call.accept()
        await call.is_connected()
        await call.hears(700)
        await dino.hears(1_000)
        await dino.hang_up()
        assert await call.is_over() == "success"


async def test_dino_calls_with_video(home: Home) -> None:
    """Without a camera it sends none, and shows what comes."""
    eva, dino = home.eva(), home.dino
    async with signed_in(eva):
        await dino.call(EVA, video=True)
        call = await eva.incoming()
        assert call.media == ["audio", "video"]
        await call.accept(video=True)
        await call.hears(700)
        await dino.hears(1_000)
        await call.hang_up()
        await dino.call_becomes("ended")


async def test_dino_declines(home: Home) -> None:
    eva, dino = home.eva(), home.dino
    async with signed_in(eva):
        call = await eva.call(BEN)
        await dino.decline(await dino.rings())
        assert await call.is_over() == "decline"
        await dino.call_becomes("declined")
