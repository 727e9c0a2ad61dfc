"""kill -9 of the embedded Prosody under load, between a real XMPP client and a SIP neighbour.

Acknowledged, towards XMPP: answered 202. It arrives when ben's client shows it, at once or from his archive (XEP-0313),
which clients read after a lost connection because a server that dies takes with it what it had not written to them.
Acknowledged, from XMPP: ben's client got the answer to a ping of the business domain that it had sent after the
message; both go the same way through Prosody and the component, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from tests.support.faults.chance import SEED, kills
from tests.support.faults.sip_agent import SipAgent, private_address, sip_agent
from tests.support.faults.traffic import Ledger, SipSource, watch_requests
from tests.support.isthmus_process import IsthmusProcess
from tests.support.processes import wait_until
from tests.support.prosody import needs_prosody
from tests.support.xmpp_client import NAMESPACE, XmppClient

pytestmark = [needs_prosody, pytest.mark.interop]

KILLS = kills(2)
BEN = "ben@people.test"
SETTINGS = """
[[domains]]
name = "pbx.test"
kind = "routed"
component_secret = "secret-of-the-pbx"
peers = [{{host = "{host}", port = {port}}}]

[limits]
user_requests_per_second = 0
"""
ARCHIVE = "{urn:xmpp:mam:2}"
RSM = "{http://jabber.org/protocol/rsm}"


def _is_message(stanza: Element) -> bool:
    return stanza.tag == f"{{{NAMESPACE}}}message"


class Ben:
    """A person with an app that comes back after every loss, and reads its archive when told to.

    Attributes:
        got: what he was shown.
        said: what he wrote.
    """

    def __init__(self, server: IsthmusProcess) -> None:
        self.got = Ledger()
        self.said = Ledger()
        self._server = server
        self._numbers = itertools.count(1)
        self._app: XmppClient | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def sign_in(self) -> None:
        async def signed_in() -> bool:
            app = self._server.app(f"{BEN}/phone")
            try:
                async with asyncio.timeout(20):
                    await app.start()
            except (TimeoutError, AssertionError):
                await app.stop()
                return False
            self._app = app
            return True

        await wait_until(signed_in, "ben to sign in", 30)
        self._tasks = [asyncio.create_task(self._talk()), asyncio.create_task(self._read())]

    async def sign_out(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._app is not None:
            self._note_all(self._app)
            await self._app.stop()

    async def read_archive(self) -> None:
        """Fetch everything that the server kept for him (XEP-0313, pages by XEP-0059)."""
        assert self._app is not None
        after, is_complete = "", False
        while not is_complete:
            page = f"<max>200</max>{f'<after>{after}</after>' if after else ''}"
            answer = await self._app.query(
                f"<iq type='set' id='archive-{next(self._numbers)}'><query xmlns='urn:xmpp:mam:2'>"
                f"<set xmlns='http://jabber.org/protocol/rsm'>{page}</set></query></iq>"
            )
            finished = answer.find(f"{ARCHIVE}fin")
            assert finished is not None
            after = finished.findtext(f"{RSM}set/{RSM}last", "")
            is_complete = finished.get("complete") == "true" or not after
        self._note_all(self._app)

    async def _talk(self) -> None:
        """Write some messages and ask for the proof that they are safe, again and again."""
        assert self._app is not None
        while True:
            marks = set()
            for number in itertools.islice(self._numbers, 5):
                marks.add(f"ben {number}")
                self._app.send_message(f"ana{number % 3}@pbx.test", f"[ben {number}] hello", stanza_id=f"b{number}")
            self.said.sent |= marks
            query = f"<iq type='get' id='proof-{next(self._numbers)}' to='pbx.test'><ping xmlns='urn:xmpp:ping'/></iq>"
            answer = await self._app.query(query)
            if answer.get("type") == "result":
                self.said.acknowledge(marks)
            else:  # Prosody's own error: the component is away, and the messages came back as errors too
                await asyncio.sleep(0.2)

    async def _read(self) -> None:
        assert self._app is not None
        while True:
            self._note(await self._app.expect(_is_message, "a message", 60))
            self._note_all(self._app)

    def _note_all(self, app: XmppClient) -> None:
        kept = [stanza for stanza in app.received if not _is_message(stanza)]
        for stanza in app.received:
            for message in stanza.iter(f"{{{NAMESPACE}}}message"):
                self._note(message)
        app.received[:] = kept

    def _note(self, message: Element) -> None:
        if message.get("type") != "error" and message.get("from", "").partition("@")[2].startswith("pbx.test"):
            text = message.findtext(f"{{{NAMESPACE}}}body", "")
            self.got.note_arrival(text, message.get("id", ""), message.get("from", "").partition("/")[0])


@pytest.fixture
async def agent() -> AsyncIterator[SipAgent]:
    async with sip_agent(private_address()) as made:
        yield made


@pytest.fixture
async def server(agent: SipAgent, tmp_path: Path) -> AsyncIterator[IsthmusProcess]:
    made = IsthmusProcess(tmp_path, SETTINGS.format(host=agent.host, port=agent.port))
    # What dies every second is started again more and more slowly; the component at least shall not wait longer.
    made.environment["ISTHMUS_XMPP__RECONNECT_MAXIMUM_SECONDS"] = "0.5"
    await made.start()
    await made.add_people(consumers=(BEN,))
    yield made
    await made.stop()


async def test_kill_9_of_prosody_under_load_loses_nothing_that_was_acknowledged(
    server: IsthmusProcess, agent: SipAgent
) -> None:
    instants = random.Random(SEED)
    print(f"seed {SEED}")
    ben = Ben(server)
    # Gently: a 202 means journalled, so a sender without measure would only pile up a queue before Prosody.
    source = SipSource(
        agent, ("127.0.0.1", server.sip_port), domain="pbx.test", recipient=lambda number: BEN, pause_seconds=0.02
    )
    watch_requests(agent, ben.said)
    await ben.sign_in()
    source.start(at_once=4)
    for _ in range(KILLS):
        before = len(source.ledger.acknowledged), len(ben.said.acknowledged)
        ledgers = (source.ledger, ben.said)
        await asyncio.gather(*(ledger.acknowledges(instants.randrange(1, 100), 60) for ledger in ledgers))
        pid = await server.prosody_pid()
        os.kill(pid, signal.SIGKILL)
        after = len(source.ledger.acknowledged), len(ben.said.acknowledged)
        print("killed after", [new - old for old, new in zip(before, after, strict=True)], "acknowledgements")
        await ben.sign_out()
        await server.prosody_pid(after=pid, timeout_seconds=60)
        await ben.sign_in()
    await source.stop()
    await ben.said.settled(30)
    ben.got.sent = source.ledger.sent
    ben.got.acknowledge(source.ledger.acknowledged)
    with contextlib.suppress(AssertionError):
        await ben.got.settled(5)
    print(f"SIP to XMPP, live: {ben.got}\nXMPP to SIP: {ben.said}")
    await ben.read_archive()
    await ben.sign_out()
    assert ben.got.missing == set()
    assert ben.said.missing == set()
    assert ben.got.under_several_ids == {}
    assert ben.said.under_several_ids == {}
    assert len(source.ledger.acknowledged) > KILLS
    # A sender may be held back while Prosody is away; that is an answer, not a loss.
    assert set(source.refused) <= {480, 503}, dict(source.refused)
    assert "Traceback" not in server.process.output()
