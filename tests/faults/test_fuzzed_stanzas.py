"""Thousands of odd stanzas through the component: nothing is raised, every query is answered once, SIP stays clean.

The seed of a run is printed; ISTHMUS_FAULT_SEED repeats it and ISTHMUS_FAULT_CASES multiplies the number of cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.faults.chance import SEED, cases
from tests.support.faults.gateway import Gateway, hosted, routed
from tests.support.faults.odd_stanzas import OddStanzas
from tests.support.faults.sip_agent import SipAgent, private_address, sip_agent
from tests.support.faults.xmpp_neighbour import IQ, XmppNeighbour
from tests.support.processes import wait_until

CASES = cases(3_000)
LIMITS = """
[limits]
user_requests_per_second = 0
"""


@pytest.fixture
async def agent() -> AsyncIterator[SipAgent]:
    async with sip_agent(private_address()) as made:
        yield made


@pytest.fixture
async def gateway(xmpp: XmppNeighbour, agent: SipAgent, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(
        tmp_path / "gateway",
        xmpp.port,
        routed("corp.test", agent.host, agent.port),
        hosted("hosted.test"),
        sections=LIMITS,
    )
    await made.start()
    await made.add_users("eva@hosted.test", "ana@hosted.test")
    yield made
    await made.stop()


async def test_odd_stanzas_are_survived_and_every_query_is_answered_once(
    gateway: Gateway, xmpp: XmppNeighbour, agent: SipAgent
) -> None:
    print(f"seed {SEED}")
    asked: set[str] = set()
    before = gateway.resident_megabytes
    for number, (domain, query, text) in enumerate(OddStanzas(SEED).stanzas(CASES)):
        assert xmpp.send(domain, text), f"the component {domain} left"
        if query:
            asked.add(query)
        if number % 50 == 49:
            await xmpp.ping("corp.test")
            await xmpp.ping("hosted.test")
    answers = Counter(
        stanza.get("id", "")
        for stanza in xmpp.received
        if stanza.tag == IQ and stanza.get("type") in ("result", "error")
    )
    assert set(answers) == asked
    assert set(answers.values()) == {1}
    assert xmpp.faults == []
    assert agent.unreadable == []
    assert gateway.resident_megabytes - before < 40 * max(1.0, CASES / 3_000)
    gateway.assert_unharmed()
    print(f"{before:.0f} MB before, {gateway.resident_megabytes:.0f} MB after; {len(agent.requests)} SIP requests")


NOISES = (
    "<message to='ana@corp.test'><body>&undefined; confidential</body></message>",
    "<message to='ana@corp.test'></presence>",
    "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>]><message to='ana@corp.test'><body>&a; confidential</body></message>",
    "\0\1\2",
    "</stream:stream>",
    "<stream:error><host-gone xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    "<unknown/><stream:features/><handshake>0</handshake>",
    "<" * 100_000,
)


async def test_a_stream_that_breaks_is_opened_again_and_others_do_not_notice(
    gateway: Gateway, xmpp: XmppNeighbour
) -> None:
    for noise in NOISES:
        xmpp.send("corp.test", noise)
        await xmpp.ping("hosted.test")
        await wait_until(partial(_is_served, xmpp), f"the component to come back after {noise[:40]!r}")
    # What was said may be private, also when it was said wrongly.
    assert "confidential" not in gateway.log
    gateway.assert_unharmed()


async def _is_served(xmpp: XmppNeighbour) -> bool:
    await xmpp.connected("corp.test")
    try:
        await xmpp.ping("corp.test")
    except ConnectionError:
        return False
    return True
