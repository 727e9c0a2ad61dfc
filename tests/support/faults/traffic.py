"""Load in both directions with a ledger: what was sent, what was acknowledged, what arrived and how often.

Acknowledged means:

- SIP to XMPP: the MESSAGE was answered 202 (or 200). A sender without an answer repeats, as RFC 3261 section 17.1.2
  wants, also over a crash of the gateway.
- XMPP to SIP: a ping that was written after the stanza on the same stream was answered. A component stream has no
  acknowledgements of its own (XEP-0114), but stanzas are worked off in order (RFC 6120 section 10.1), so nobody has an
  earlier proof. What was written to a stream that died before such an answer is not acknowledged: the server still
  knows that it did not pass it on.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import defaultdict
from collections.abc import Callable
from xml.etree.ElementTree import Element

from isthmus.sip.message import SipRequest, SipResponse
from tests.support.faults.sip_agent import SipAgent, request_octets
from tests.support.faults.xmpp_neighbour import ACCEPT, MESSAGE, XmppNeighbour

_MARK = re.compile(r"\[(\w+ \d+)\]")
# Timer E of RFC 3261 section 17.1.2.2 with T2 = T1 = 0.5 s, so that the load is back as soon as the gateway is.
_REPEATS = (0.5,) * 64


class Ledger:
    """What became of the messages of one direction; a message is known by the mark in its text.

    Attributes:
        sent, acknowledged: marks.
        arrived: mark -> the ids it arrived under, one per arrival.
        order: marks by conversation, in order of first arrival.
    """

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.arrived: dict[str, list[str]] = defaultdict(list)
        self.order: dict[str, list[str]] = defaultdict(list)
        self.changed = asyncio.Event()

    def acknowledge(self, marks: set[str]) -> None:
        """Enter what the gateway has promised to deliver."""
        self.acknowledged |= marks
        self.changed.set()

    def note_arrival(self, text: str, message_id: str, conversation: str) -> None:
        """Enter something that came out on the other side."""
        found = _MARK.search(text)
        if found is None:
            return
        if found[1] not in self.arrived:
            self.order[conversation].append(found[1])
        self.arrived[found[1]].append(message_id)
        self.changed.set()

    async def acknowledges(self, count: int, seconds: float = 30) -> None:
        """Return when so many more are acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(seconds):
            while len(self.acknowledged) < wanted:
                self.changed.clear()
                await self.changed.wait()

    @property
    def missing(self) -> set[str]:
        """Acknowledged and not arrived."""
        return self.acknowledged - set(self.arrived)

    @property
    def repeated(self) -> int:
        """Arrivals beyond the first."""
        return sum(len(ids) - 1 for ids in self.arrived.values())

    @property
    def under_several_ids(self) -> dict[str, list[str]]:
        """Messages that arrived as if they were different ones."""
        return {mark: ids for mark, ids in self.arrived.items() if len(set(ids)) > 1}

    @property
    def out_of_order(self) -> list[str]:
        """Conversations whose messages first arrived in another order than they were sent."""
        numbers = {name: [int(mark.split()[1]) for mark in marks] for name, marks in self.order.items()}
        return [name for name, found in numbers.items() if found != sorted(found)]

    async def settled(self, seconds: float) -> None:
        """Return when nothing acknowledged is missing; fail with the number of what is."""
        try:
            async with asyncio.timeout(seconds):
                while self.missing:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            example = sorted(self.missing)[:3]
            raise AssertionError(f"{len(self.missing)} of {len(self.acknowledged)} are lost, e.g. {example}") from None

    def __str__(self) -> str:
        return (
            f"{len(self.sent)} sent, {len(self.acknowledged)} acknowledged, {len(self.arrived)} arrived, "
            f"{self.repeated} repeated, {len(self.missing)} lost"
        )


class SipSource:
    """Sends MESSAGE after MESSAGE from people of a routed domain, a number of them at once.

    Args:
        agent: the neighbour's socket.
        target: the gateway.
        domain: the senders' domain.
        recipient: makes the recipient of message number n.
        pause_seconds: after each answer.
    """

    def __init__(
        self,
        agent: SipAgent,
        target: tuple[str, int],
        *,
        domain: str = "corp.test",
        recipient: Callable[[int], str] = lambda number: f"ben{number % 7}@people.test",
        pause_seconds: float = 0.0,
    ) -> None:
        self.ledger = Ledger()
        self.refused: dict[int, int] = defaultdict(int)
        self._agent = agent
        self._target = target
        self._domain = domain
        self._recipient = recipient
        self._pause_seconds = pause_seconds
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False
        agent.on_response = self._answered

    def start(self, at_once: int = 16) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(at_once)]

    async def stop(self) -> None:
        """Wait until every message has its answer or was given up; then end."""
        self._is_stopping = True
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        while not self._is_stopping:
            await self._send(next(self._numbers))
            await asyncio.sleep(self._pause_seconds)

    async def _send(self, number: int) -> None:
        mark, call_id = f"sip {number}", f"load-{number}-{id(self):x}"
        recipient = self._recipient(number)
        data = request_octets(
            "MESSAGE",
            f"sip:{recipient}",
            sender=f"ana{number % 7}@{self._domain}",
            via=self._agent.via,
            body=f"[{mark}] hello".encode(),
            call_id=call_id,
        )
        self.ledger.sent.add(mark)
        future = self._waiting[call_id] = asyncio.get_running_loop().create_future()
        for pause in _REPEATS:
            self._agent.send(data, self._target)
            done, _ = await asyncio.wait([future], timeout=pause)
            if done:
                break
        status = future.result() if future.done() else 408
        if status < 300:
            self.ledger.acknowledge({mark})
        else:
            self.refused[status] += 1
            await asyncio.sleep(0.05)

    def _answered(self, response: SipResponse) -> None:
        self._agent.responses.clear()
        future = self._waiting.get(response.headers.get("Call-ID") or "")
        if future is not None and not future.done() and response.status >= 200:
            future.set_result(response.status)


class XmppSource:
    """Writes message stanzas to a component, some at a time, with a ping behind them.

    Args:
        server: the XMPP server.
        domain: the component.
    """

    def __init__(self, server: XmppNeighbour, domain: str = "corp.test") -> None:
        self.ledger = Ledger()
        self._server = server
        self._domain = domain
        self._numbers = itertools.count(1)
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self, at_once: int = 10) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(at_once))

    async def stop(self) -> None:
        """Finish what was begun."""
        self._is_stopping = True
        if self._task is not None:
            await self._task

    async def _run(self, at_once: int) -> None:
        while not self._is_stopping:
            if not self._server.is_connected(self._domain):
                await self._server.connected(self._domain)
            numbers = list(itertools.islice(self._numbers, at_once))
            marks = {f"xmpp {number}" for number in numbers}
            self.ledger.sent |= marks
            self._server.send(self._domain, "".join(map(self._stanza, numbers)))
            try:
                await self._server.ping(self._domain)
            except ConnectionError:
                continue
            self.ledger.acknowledge(marks)

    def _stanza(self, number: int) -> str:
        return (
            f"<message type='chat' id='x{number}' from='ben{number % 5}@people.test/phone' "
            f"to='ana{number % 5}@{self._domain}'><body>[xmpp {number}] hello</body></message>"
        )


def watch_stanzas(server: XmppNeighbour, ledger: Ledger) -> None:
    """Enter every message that the gateway writes to the XMPP server."""

    def note(stanza: Element) -> None:
        if stanza.tag == MESSAGE and stanza.get("type") != "error":
            text = stanza.findtext(f"{{{ACCEPT}}}body", "")
            people = f"{stanza.get('from', '').partition('/')[0]} {stanza.get('to', '').partition('/')[0]}"
            ledger.note_arrival(text, stanza.get("id", ""), people)
        server.received.clear()

    server.on_stanza = note


def watch_requests(agent: SipAgent, ledger: Ledger) -> None:
    """Enter every MESSAGE that the gateway brings to the SIP neighbour, and take it."""

    def note(request: SipRequest) -> int:
        people = f"{request.from_address.uri} {request.to_address.uri}"
        ledger.note_arrival(request.body.decode(), request.call_id, people)
        agent.requests.clear()
        return 200

    agent.on_request = note
