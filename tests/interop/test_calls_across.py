"""Calls between a phone of corp.test (baresip) and an app of people.test (Jingle and aiortc): each hears the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.baresip_calls import G722, OPUS, PCMA, PCMU, needs_baresip
from tests.support.call_stage import CallStage
from tests.support.isthmus_process import IsthmusProcess
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
@pytest.mark.parametrize("proposes", [True, False], ids=["proposal", "offer"])
async def test_a_phone_calls_an_app(
    call_stage: CallStage, codec: str, encryption: str, understood: list[str], proposes: bool
) -> None:
    phone = await call_stage.call_phone(ANA, codecs=(codec,), encryption=encryption)
    app = await call_stage.call_app(BEN, audio=understood, proposes=proposes)
    call = await call_stage.phone_calls_app(phone, app)
    await phone.hears(1_000)
    await call.hears(440)
    await phone.hang_up()
    assert await call.is_over() == "success"


@CODECS
@pytest.mark.parametrize("proposes", [True, False], ids=["proposal", "offer"])
async def test_an_app_calls_a_phone(
    call_stage: CallStage, codec: str, encryption: str, understood: list[str], proposes: bool
) -> None:
    phone = await call_stage.call_phone(ANA, codecs=(codec,), encryption=encryption)
    app = await call_stage.call_app(BEN, audio=understood)
    call = await call_stage.app_calls_phone(app, phone, to=ANA if proposes else await app.device_of(ANA))
    await phone.hears(1_000)
    await call.hears(440)
    await call.hang_up()
    await phone.is_over()


async def test_the_record_of_a_call_tells_its_quality(call_stage: CallStage) -> None:
    phone, app = await call_stage.call_phone(ANA), await call_stage.call_app(BEN)
    call = await call_stage.phone_calls_app(phone, app)
    await phone.hears(1_000)
    await call.hears(440)
    await call.hang_up()
    await phone.is_over()
    record = await call_stage.last_record()
    assert (record["caller"], record["callee"], record["cause"], record["path"]) == (ANA, BEN, "hung up", "relayed")
    assert record["media"] == ["audio"]
    assert record["answered_at"] <= record["ended_at"]
    heard = {row["sender"]: row for row in record["quality"] if row["media"] == "audio"}
    assert set(heard) == {ANA, BEN}
    for row in heard.values():
        assert row["packets"] > 20  # half a second of sound at the least
        assert row["lost"] == 0
