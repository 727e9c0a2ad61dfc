"""The PBX of pbx.test, played by SIPp, and ben's app of people.test: what races and refusals share."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.call_stage import CallStage
from tests.support.jingle_client import JingleClient
from tests.support.switchboard import BEN, Switchboard, switchboard_in

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def switchboard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Switchboard]:
    async with switchboard_in(tmp_path_factory.mktemp("calls")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def stage(switchboard: Switchboard) -> AsyncIterator[CallStage]:
    made = switchboard.stage = CallStage(switchboard.isthmus)
    yield made
    await made.clear()
    for name, value in (("video", "on"), ("encryption", "optional")):
        await switchboard.isthmus.operation("policy.set", scope="global", name=name, value=value)


@pytest_asyncio.fixture(loop_scope="module")
async def ben(stage: CallStage) -> JingleClient:
    return await stage.call_app(BEN, f"app{next(_numbers)}", video=["VP8"])
