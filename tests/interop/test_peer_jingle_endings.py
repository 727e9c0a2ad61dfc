"""The XMPP apps of the plays with calls leave nothing behind, wherever a play breaks off: no thread, no socket."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.jingle_call import JingleCall
from tests.support.jingle_client import JingleClient
from tests.support.jingle_media import use_addresses
from tests.support.prosody import ProsodyServer, needs_prosody

pytestmark = [pytest.mark.interop, needs_prosody]

Apps = tuple[JingleClient, JingleClient]


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.endswith("-decoder")]


def sockets() -> set[str]:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(descriptor))
        except FileNotFoundError:
            continue  # the listing itself
    return {link for link in links if link.startswith("socket:")}


@pytest.fixture
async def apps(prosody: ProsodyServer) -> AsyncIterator[Apps]:
    """Two apps that the play leaves somewhere in the middle; then they stop, and must be gone without a trace."""
    use_addresses("127.0.0.1")
    before = sockets()
    ben = JingleClient("ben@people.test/app", "pw", "127.0.0.1", prosody.c2s_port, video=["VP8"])
    eva = JingleClient("eva@people.test/app", "pw", "127.0.0.1", prosody.c2s_port, video=["VP8"])
    for app in (ben, eva):
        await app.start()
    yield ben, eva
    async with asyncio.timeout(15):
        for app in (ben, eva):
            await app.stop()
    await asyncio.sleep(0)  # transports close their sockets in the next round of the loop
    gc.collect()
    assert not decoders()
    assert sockets() <= before


async def connected(ben: JingleClient, eva: JingleClient) -> tuple[JingleCall, JingleCall]:
    outgoing = await ben.call(eva.jid, video=True)
    incoming = await eva.incoming()
    await incoming.accept(video=True)
    for call in (outgoing, incoming):
        await call.is_connected()
    await incoming.hears(1_000)
    return outgoing, incoming


async def test_a_call_in_its_middle(apps: Apps) -> None:
    await connected(*apps)
    assert decoders()
    assert all(thread.daemon for thread in decoders()), "the interpreter would wait for them"


async def test_a_call_that_has_just_been_ended_by_the_other_side(apps: Apps) -> None:
    outgoing, incoming = await connected(*apps)
    await outgoing.hang_up()
    assert await incoming.is_over() == "success"


async def test_a_call_whose_closing_was_cancelled(apps: Apps) -> None:
    outgoing, _ = await connected(*apps)
    closing = asyncio.create_task(outgoing.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)


async def test_an_offer_that_nobody_answers(apps: Apps) -> None:
    ben, eva = apps
    await ben.call(eva.jid, video=True)
    await eva.incoming()


async def test_a_proposal_that_nobody_answers(apps: Apps) -> None:
    ben, eva = apps
    await ben.call(eva.bare)
    await eva.incoming()


async def test_an_answer_while_the_caller_vanishes(apps: Apps) -> None:
    ben, eva = apps
    outgoing = await ben.call(eva.jid, video=True)
    incoming = await eva.incoming()
    await outgoing.close()
    await incoming.accept(video=True)


async def test_gathering_in_the_middle(apps: Apps) -> None:
    ben, eva = apps
    calling = asyncio.create_task(ben.call(eva.jid, video=True))
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    assert ben.calls
