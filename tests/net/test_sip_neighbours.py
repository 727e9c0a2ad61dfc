"""Host names of neighbours become the addresses that their requests are believed from."""

from __future__ import annotations

import asyncio

import pytest

from isthmus.net.sip_neighbours import NeighbourAddresses
from isthmus.net.sip_resolver import SipResolver
from isthmus.sip.routing import Target
from isthmus.sip.uri import SipUri
from tests.support.dns_server import DnsServer


async def test_all_targets_of_a_neighbour_are_reported() -> None:
    server = DnsServer({("pbx.example", "A"): (60, ["192.0.2.50", "192.0.2.51"])})
    found: dict[str, frozenset[str]] = {}
    neighbours = NeighbourAddresses(SipResolver([await server.start()]), ["pbx.example"], found.__setitem__)
    await neighbours.start()
    await neighbours.stop()
    server.stop()
    assert found == {"pbx.example": frozenset({"192.0.2.50", "192.0.2.51"})}


async def test_a_name_that_does_not_resolve_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.net.sip_neighbours.RETRY_SECONDS", 0.01)
    asked = asyncio.Event()

    class Resolver(SipResolver):
        calls = 0

        async def targets(self, uri: SipUri) -> list[Target]:
            type(self).calls += 1
            if type(self).calls > 2:
                asked.set()
            return []

    neighbours = NeighbourAddresses(Resolver(), ["pbx.example"], lambda *_: None)
    await neighbours.start()
    await asyncio.wait_for(asked.wait(), 5)
    await neighbours.stop()
