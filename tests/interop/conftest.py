"""Real servers for interop plays: of a test of its own, or one Isthmus for the plays of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.call_stage import CallStage
from tests.support.isthmus_process import IsthmusProcess
from tests.support.prosody import ProsodyServer, start_federation
from tests.support.stage import Stage
from tests.support.xmpp_client import XmppClient

SignIn = Callable[..., Awaitable[XmppClient]]


@pytest.fixture
async def prosody(tmp_path: Path) -> AsyncIterator[ProsodyServer]:
    """people.test with ben and eva, and a place for the component corp.test (secret `component-secret`)."""
    server = ProsodyServer(tmp_path / "people.test", accounts={"ben": "pw", "eva": "pw"})
    server.directory.mkdir()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[tuple[ProsodyServer, ProsodyServer]]:
    """people.test (ben, and the component corp.test) and elsewhere.test (eva), which reach each other by s2s."""
    domains = {"people.test": {"ben": "pw"}, "elsewhere.test": {"eva": "pw"}}
    home, elsewhere = await start_federation(tmp_path, domains, {"corp.test": "component-secret"})
    yield home, elsewhere
    for server in (home, elsewhere):
        await server.stop()


@pytest.fixture
async def sign_in() -> AsyncIterator[SignIn]:
    """`await sign_in(server, "ben", resource="phone")` returns a client that is signed out when the test ends."""
    clients: list[XmppClient] = []

    async def sign_in(server: ProsodyServer, name: str, *, resource: str = "phone", **options: bool) -> XmppClient:
        jid = f"{name}@{server.domain}/{resource}"
        client = XmppClient(jid, server.accounts[name], server.interface, server.c2s_port)
        await client.start(**options)
        clients.append(client)
        return client

    yield sign_in
    for client in clients:
        await client.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def call_stage(isthmus: IsthmusProcess) -> AsyncIterator[CallStage]:
    """The same, for people who call."""
    made = CallStage(isthmus)
    yield made
    await made.clear()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(isthmus: IsthmusProcess) -> AsyncIterator[Stage]:
    """The clients of one play with the module's `isthmus`; they leave when it ends."""
    made = Stage(isthmus)
    yield made
    await made.clear()
