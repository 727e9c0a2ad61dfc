"""Calls between a phone of corp.test (baresip) and an XMPP app of people.test (Jingle and aiortc): who hears what."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.baresip_calls import G722, OPUS, PCMA, PCMU, CallPhone, needs_baresip
from tests.support.call_stage import CallStage
from tests.support.isthmus_process import IsthmusProcess
from tests.support.jingle_call import JingleCall
from tests.support.jingle_client import JingleClient
from tests.support.jingle_media import use_addresses
from tests.support.prosody import needs_prosody
from tests.support.rtpengine import needs_rtpengine

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    needs_baresip,
    needs_prosody,
    needs_rtpengine,
]

ANA, BEN = "ana@corp.test", "ben@people.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    use_addresses("127.0.0.1")
    async with IsthmusProcess(tmp_path_factory.mktemp("isthmus")).running() as installation:
        await installation.add_people(ANA, consumers=(BEN,))
        acquainting = CallStage(installation)
        await acquainting.make_contacts(ANA, BEN)
        await acquainting.clear()
        yield installation


@pytest_asyncio.fixture(loop_scope="module")
async def stage(isthmus: IsthmusProcess) -> AsyncIterator[CallStage]:
    made = CallStage(isthmus)
    yield made
    await made.clear()


async def ana_calls_ben(phone: CallPhone, app: JingleClient) -> JingleCall:
    await phone.dial(BEN)
    call = await app.incoming()
    await call.ring()
    await phone.hears_ringing()
    await call.accept()
    await phone.is_in_call()
    return call


async def ben_calls_ana(app: JingleClient, phone: CallPhone) -> JingleCall:
    call = await app.call(await app.device_of(ANA))
    await phone.rings()
    await call.is_ringing()
    await phone.answer()
    await call.is_accepted()
    await phone.is_in_call()
    return call


CODECS = pytest.mark.parametrize(
    ("codec", "encryption", "understood"),
    [
        (PCMU, "", ["opus"]),
        (PCMA, "", ["opus", "PCMA"]),
        (G722, "", ["opus"]),
        (OPUS, "", ["opus"]),
        (PCMU, "srtp-mand", ["opus", "PCMU"]),
        (OPUS, "dtls_srtp", ["opus"]),
    ],
    ids=["pcmu-transcoded", "pcma", "g722-transcoded", "opus", "pcmu-sdes", "opus-dtls"],
)


@CODECS
async def test_a_phone_calls_an_app(stage: CallStage, codec: str, encryption: str, understood: list[str]) -> None:
    phone = await stage.call_phone(ANA, codecs=(codec,), encryption=encryption)
    app = await stage.call_app(BEN, audio=understood)
    call = await ana_calls_ben(phone, app)
    await phone.hears(1_000)
    await call.hears(440)
    await phone.hang_up()
    assert await call.is_over() == "success"


@CODECS
async def test_an_app_calls_a_phone(stage: CallStage, codec: str, encryption: str, understood: list[str]) -> None:
    phone = await stage.call_phone(ANA, codecs=(codec,), encryption=encryption)
    app = await stage.call_app(BEN, audio=understood)
    call = await ben_calls_ana(app, phone)
    await phone.hears(1_000)
    await call.hears(440)
    await call.hang_up()
    await phone.is_over()
