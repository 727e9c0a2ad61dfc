"""kill -9 at random instants under load in both directions: nothing that was acknowledged is lost.

What "acknowledged" means is said in `tests.support.faults.traffic`. The seed of a run is printed; ISTHMUS_FAULT_SEED
repeats it and ISTHMUS_FAULT_KILLS kills more often.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.support.faults.chance import SEED, kills
from tests.support.faults.gateway import Gateway, routed
from tests.support.faults.sip_agent import private_address, sip_agent
from tests.support.faults.traffic import SipSource, XmppSource, watch_requests, watch_stanzas
from tests.support.faults.xmpp_neighbour import XmppNeighbour

KILLS = kills(5)
LIMITS = """
[limits]
user_requests_per_second = 0
peer_requests_per_second = 0
offline_messages_per_user = 100000
"""


async def test_kill_9_under_load_loses_nothing_that_was_acknowledged(xmpp: XmppNeighbour, tmp_path: Path) -> None:
    instants = random.Random(SEED)
    print(f"seed {SEED}")
    async with sip_agent(private_address()) as agent:
        domain = routed("corp.test", agent.host, agent.port)
        gateway = Gateway(tmp_path / "gateway", xmpp.port, domain, sections=LIMITS)
        to_consumers, to_business = SipSource(agent, gateway.udp), XmppSource(xmpp)
        ledgers = (to_consumers.ledger, to_business.ledger)
        watch_stanzas(xmpp, to_consumers.ledger)
        watch_requests(agent, to_business.ledger)
        try:
            await gateway.start()
            to_consumers.start()
            to_business.start()
            for _ in range(KILLS):
                before = [len(ledger.acknowledged) for ledger in ledgers]
                await asyncio.gather(*(ledger.acknowledges(instants.randrange(1, 300)) for ledger in ledgers))
                await asyncio.sleep(instants.uniform(0.0, 0.2))
                await gateway.kill()
                after = [len(ledger.acknowledged) for ledger in ledgers]
                print("killed after", [new - old for old, new in zip(before, after, strict=True)], "acknowledgements")
                await gateway.start()
            await asyncio.gather(to_consumers.stop(), to_business.stop())
            await asyncio.gather(*(ledger.settled(30) for ledger in ledgers))
        finally:
            await gateway.stop()
    print(f"SIP to XMPP: {to_consumers.ledger}\nXMPP to SIP: {to_business.ledger}")
    for ledger in ledgers:
        assert len(ledger.acknowledged) > 20 * KILLS
        assert ledger.missing == set()
        assert ledger.under_several_ids == {}
    assert to_business.ledger.out_of_order == []
    assert dict(to_consumers.refused) == {}
    assert "Traceback" not in gateway.log
