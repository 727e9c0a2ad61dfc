"""Calls between the realms: a SIP phone (baresip) and an XMPP app with real media, each hearing the other's tone."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.baresip_calls import G722, OPUS, PCMA, PCMU, CallPhone, needs_baresip
from tests.support.isthmus_process import PASSWORD, IsthmusProcess
from tests.support.jingle_client import JingleClient
from tests.support.jingle_media import use_addresses
from tests.support.prosody import needs_prosody
from tests.support.stage import Stage

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module"), needs_baresip, needs_prosody]

ANA, BEN = "ana@corp.test", "ben@people.test"
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    use_addresses("127.0.0.1")
    server = IsthmusProcess(tmp_path_factory.mktemp("calls"))
    async with server.running():
        await server.add_people(ANA, consumers=(BEN,))
        yield server


async def ana_and_ben(
    stage: Stage, *, app: dict[str, Any] | None = None, **phone: Any
) -> tuple[CallPhone, JingleClient]:
    """ana's phone says 440 Hz, ben's app 1000 Hz."""
    server = stage.isthmus
    number = next(_numbers)
    ana = CallPhone(server.folder / f"ana-{number}", ANA, PASSWORD, f"127.0.0.1:{server.sip_port}", hertz=440, **phone)
    jid = f"{BEN}/app{number}"
    ben = JingleClient(jid, PASSWORD, server.xmpp_interface, server.c2s_port, hertz=1_000, **(app or {}))
    for client in (ana, ben):
        stage.leave_at_the_end(client)
        await client.start()
    return ana, ben


_PHONES = pytest.mark.parametrize(
    ("codec", "encryption"),
    [(PCMU, ""), (PCMA, ""), (G722, ""), (OPUS, ""), (PCMU, "srtp-mand"), (OPUS, "dtls_srtp")],
    ids=["pcmu", "pcma", "g722", "opus", "pcmu-sdes", "opus-dtls"],
)


@_PHONES
async def test_a_consumer_calls_a_phone(stage: Stage, codec: str, encryption: str) -> None:
    ana, ben = await ana_and_ben(stage, codecs=(codec,), encryption=encryption)
    call = await ben.call(f"{ANA}/isthmus")
    await ana.rings()
    await call.is_ringing()
    await ana.answer()
    await call.is_accepted()
    await ana.is_in_call()
    await call.hears(440)
    await ana.hears(1_000)
    await call.hang_up()
    await ana.is_over()


@_PHONES
async def test_a_phone_calls_a_consumer(stage: Stage, codec: str, encryption: str) -> None:
    ana, ben = await ana_and_ben(stage, codecs=(codec,), encryption=encryption, app={"proposes": True})
    await ana.dial(BEN)
    call = await ben.incoming()
    await call.ring()
    await ana.hears_ringing()
    await call.accept()
    await ana.is_in_call()
    await call.hears(440)
    await ana.hears(1_000)
    await ana.hang_up()
    assert await call.is_over() == "success"
