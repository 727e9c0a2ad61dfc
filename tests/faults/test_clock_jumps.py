"""The wall clock jumps under a running server: phones stay registered, messages go on, nothing waiting is lost.

libfaketime moves the clock of the child alone; the monotonic clock stays true, as on a real machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.faults.gateway import PASSWORD, Gateway, hosted
from tests.support.faults.phone import Phone, phone
from tests.support.faults.xmpp_neighbour import ACCEPT, MESSAGE, XmppNeighbour

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
pytestmark = pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed (Debian: faketime)")


@pytest.fixture
async def gateway(xmpp: XmppNeighbour, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(tmp_path / "gateway", xmpp.port, hosted("corp.test"))
    made.process.environment |= {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "offset"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    jump(made, "+0d")
    await made.start()
    await made.add_users("ana@corp.test", "eva@corp.test")
    yield made
    await made.stop()


def jump(gateway: Gateway, offset: str) -> None:
    """Set the server's wall clock so far away from ours."""
    (gateway.folder.parent / "offset").write_text(f"{offset}\n")


def write_to(xmpp: XmppNeighbour, user: str, stanza_id: str) -> None:
    people = f"from='ben@people.test/x' to='{user}'"
    xmpp.send("corp.test", f"<message type='chat' id='{stanza_id}' {people}><body>{stanza_id}</body></message>")


async def talks_both_ways(ana: Phone, xmpp: XmppNeighbour, name: str) -> None:
    """Ana's phone is reached without registering anew, and what she writes arrives."""
    write_to(xmpp, "ana@corp.test", f"to-{name}")
    await ana.agent.expect_request(lambda request: request.body == f"to-{name}".encode())
    assert (await ana.say("ben@people.test", f"from-{name}")).status == 202
    await xmpp.expect(
        lambda stanza: stanza.tag == MESSAGE and stanza.findtext(f"{{{ACCEPT}}}body") == f"from-{name}", f"from-{name}"
    )


async def test_a_jump_of_the_wall_clock_in_either_direction_disturbs_nobody(
    gateway: Gateway, xmpp: XmppNeighbour
) -> None:
    async with phone(gateway, "ana@corp.test", PASSWORD) as ana:
        await ana.register()
        await talks_both_ways(ana, xmpp, "before")
        write_to(xmpp, "eva@corp.test", "waiting")
        await xmpp.ping("corp.test")
        for offset in ("+2d", "-3d", "+0d"):
            asked = ana.challenges
            jump(gateway, offset)
            # The nonce of the last request is too old, or from the future: a new question, and no lost password.
            await talks_both_ways(ana, xmpp, f"after{offset}")
            assert ana.challenges == asked + 1  # which also proves that the clock did jump
            assert (await gateway.metrics())["isthmus_registrations"] == 1
        jump(gateway, "-3d")
        await gateway.stop()
        await gateway.start()
        await talks_both_ways(ana, xmpp, "after-restart")
        jump(gateway, "+2d")
        async with phone(gateway, "eva@corp.test", PASSWORD) as eva:
            await eva.register()
            await eva.agent.expect_request(lambda request: request.body == b"waiting")
    gateway.assert_unharmed()
