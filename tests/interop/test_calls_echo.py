"""Calls to the echo address: a phone and an XMPP app hear themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.baresip_calls import OPUS, PCMU, CallPhone, needs_baresip
from tests.support.isthmus_process import PASSWORD, IsthmusProcess
from tests.support.jingle_client import JingleClient
from tests.support.jingle_media import use_addresses
from tests.support.prosody import needs_prosody
from tests.support.rtpengine import needs_rtpengine
from tests.support.stage import Stage

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    needs_baresip,
    needs_prosody,
    needs_rtpengine,
]

ANA, BEN, ECHO = "ana@corp.test", "ben@people.test", "echo@corp.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    use_addresses("127.0.0.1")
    server = IsthmusProcess(tmp_path_factory.mktemp("echo"))
    async with server.running():
        await server.add_people(ANA, consumers=(BEN,))
        yield server


@pytest.mark.parametrize(("codec", "encryption"), [(PCMU, ""), (OPUS, "srtp-mand")], ids=["pcmu", "opus-sdes"])
async def test_a_phone_hears_itself(stage: Stage, codec: str, encryption: str) -> None:
    server = stage.isthmus
    ana = CallPhone(
        server.folder / f"ana-{encryption or 'clear'}",
        ANA,
        PASSWORD,
        f"127.0.0.1:{server.sip_port}",
        hertz=440,
        codecs=(codec,),
        encryption=encryption,
    )
    stage.leave_at_the_end(ana)
    await ana.start()
    await ana.dial(ECHO)
    await ana.is_in_call()
    await ana.hears(440)
    await ana.hang_up()


async def test_an_app_hears_itself(stage: Stage) -> None:
    server = stage.isthmus
    ben = JingleClient(f"{BEN}/app", PASSWORD, server.xmpp_interface, server.c2s_port, hertz=1_000)
    stage.leave_at_the_end(ben)
    await ben.start()
    call = await ben.call(ECHO)
    await call.is_accepted()
    await call.hears(1_000)
    await call.hang_up()
