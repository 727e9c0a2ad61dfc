"""Colleagues call each other: two baresips that register with us, media through the relay or from phone to phone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.baresip_calls import PCMU, CallPhone, needs_baresip
from tests.support.isthmus_process import PASSWORD, IsthmusProcess
from tests.support.stage import Stage

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module"), needs_baresip]

ANA, TOM = "ana@corp.test", "tom@corp.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    server = IsthmusProcess(tmp_path_factory.mktemp("calls"))
    async with server.running():
        await server.add_people(ANA, TOM)
        yield server


async def phone(stage: Stage, address: str, hertz: int, **options: object) -> CallPhone:
    """A phone of this person that says this tone."""
    server = stage.isthmus
    folder = server.folder / f"{address.partition('@')[0]}-{hertz}-{len(list(server.folder.iterdir()))}"
    # The options are passed on as they are: CallPhone checks their types.
    made = CallPhone(folder, address, PASSWORD, f"127.0.0.1:{server.sip_port}", hertz=hertz, **options)  # type: ignore[arg-type]
    stage.leave_at_the_end(made)
    await made.start()
    return made


@pytest.mark.parametrize("path", ["relayed", "direct"])
async def test_two_phones_talk_and_each_hears_the_other(stage: Stage, path: str) -> None:
    await stage.isthmus.operation("policy.set", scope="global", name="media", value=path)
    ana, tom = await phone(stage, ANA, 440, codecs=(PCMU,)), await phone(stage, TOM, 1_000, codecs=(PCMU,))
    await ana.dial(TOM)
    await tom.rings()
    await ana.hears_ringing()
    await tom.answer()
    for each in (ana, tom):
        await each.is_in_call()
    await ana.hears(1_000)
    await tom.hears(440)
    await ana.hold()
    await tom.expect("CALL_REMOTE_SDP", parameter="offer")
    await ana.resume()
    await ana.hang_up()
    await tom.is_over()
    record = (await stage.isthmus.operation("call.list"))[0]
    assert (record["caller"], record["callee"], record["cause"], record["path"]) == (ANA, TOM, "hung up", path)
