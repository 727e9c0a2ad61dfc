"""Gateways for these tests: children of ours on loopback, ended by their process id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.faults.gateway import Gateway, hosted, routed
from tests.support.faults.sip_agent import SipAgent, private_address, sip_agent
from tests.support.faults.xmpp_neighbour import XmppNeighbour, xmpp_neighbour


@pytest.fixture
async def xmpp() -> AsyncIterator[XmppNeighbour]:
    """An XMPP server that takes any component."""
    async with xmpp_neighbour() as server:
        yield server


@dataclass
class Siege:
    """A gateway that many tests of one module attack, and its neighbours.

    Attributes:
        gateway: hosts corp.test with ana and eva; pbx.test is routed; limits are the defaults, but unlisted domains may
            address five people only.
        xmpp: the XMPP server.
        pbx: the neighbour that owns pbx.test.
    """

    gateway: Gateway
    xmpp: XmppNeighbour
    pbx: SipAgent


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def siege(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Siege]:
    """Started once for a module; unharmed at its end."""
    async with xmpp_neighbour() as xmpp, sip_agent(private_address()) as pbx:
        gateway = Gateway(
            tmp_path_factory.mktemp("siege"),
            xmpp.port,
            hosted("corp.test"),
            routed("pbx.test", pbx.host, pbx.port),
            sections="[policy]\ndiscovered_maximum_contacts = 5",
        )
        try:
            await gateway.start()
            await gateway.add_users("ana@corp.test", "eva@corp.test")
            yield Siege(gateway, xmpp, pbx)
            gateway.assert_unharmed()
        finally:
            await gateway.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def stranger() -> AsyncIterator[SipAgent]:
    """Somebody on an address of their own, so that limits by source do not mix."""
    async with sip_agent(private_address()) as made:
        yield made
