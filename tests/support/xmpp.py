"""An XMPP component stream in memory: records stanzas, proves them when told to, and can be lost and found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from xml.etree.ElementTree import Element, fromstring

from isthmus.errors import LinkDownError
from isthmus.ports import StanzaSink, XmppLink

COMPONENT_NAMESPACE = "jabber:component:accept"
_OPENING = f"<stream xmlns='{COMPONENT_NAMESPACE}'>"


def stanza(text: str) -> Element:
    """Parse one stanza written without namespace, as it arrives from a component stream."""
    return fromstring(f"{_OPENING}{text}</stream>")[0]


class MemoryXmppLink:
    """Implements `ports.XmppLink`.

    `stanzas` holds what was written, in order. A barrier is answered at once (on the next turn of the loop) unless
    `is_holding_barriers`; then `release_barriers()` answers those that wait. `lose()` and `restore()` drop and bring
    back the connection and tell the sink. Queries are answered by `answer_query`, or refused service-unavailable.
    """

    def __init__(self, domain: str = "corp.test", sink: StanzaSink | None = None, *, is_connected: bool = True) -> None:
        self.domain = domain
        self.sink = sink
        self.stanzas: list[str] = []
        self._taken = 0  # stanzas that a play has taken out of `stanzas`
        self._proved = 0  # how many, since the beginning, a barrier has shown to be processed
        self.barriers = 0
        self.is_holding_barriers = False
        self.answer_query: Callable[[Element], str] | None = None
        self.queries: list[Element] = []
        self._is_connected = is_connected
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._something_sent = asyncio.Event()

    # --- ports.XmppLink ---

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    def send(self, stanza: str) -> None:
        if not self._is_connected:
            raise LinkDownError(f"the component {self.domain} is not connected")
        self.stanzas.append(stanza)
        self._something_sent.set()

    async def barrier(self) -> None:
        if not self._is_connected:
            raise LinkDownError(f"the component {self.domain} is not connected")
        self.barriers += 1
        written = self._taken + len(self.stanzas)
        if self.is_holding_barriers:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((written, future))
            await future
        else:
            await asyncio.sleep(0)
            if not self._is_connected:
                raise LinkDownError(f"the component {self.domain} was lost")
        self._proved = max(self._proved, written)

    async def query(self, iq: str, stanza_id: str, timeout_seconds: float = 20.0) -> Element:
        if not self._is_connected:
            raise LinkDownError(f"the component {self.domain} is not connected")
        element = stanza(iq)
        self.queries.append(element)
        if self.answer_query is not None:
            return stanza(self.answer_query(element))
        return stanza(
            f"<iq type='error' id='{stanza_id}' from='{element.get('to', '')}' to='{element.get('from', '')}'>"
            "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        )

    # --- for plays ---

    @property
    def elements(self) -> list[Element]:
        """What was written, parsed."""
        return [stanza(text) for text in self.stanzas]

    def take(self) -> list[Element]:
        """Return what was written so far, parsed, and forget it."""
        taken, self.stanzas = self.elements, []
        self._taken += len(taken)
        return taken

    @property
    def proved_count(self) -> int:
        """How many of `stanzas` a barrier has shown to be processed."""
        return max(0, self._proved - self._taken)

    def forget(self, count: int) -> None:
        """Take the first `count` stanzas out of `stanzas`."""
        del self.stanzas[:count]
        self._taken += count

    async def until_sent(self, count: int, seconds: float = 5.0) -> list[Element]:
        """Wait until `count` stanzas were written in all."""
        async with asyncio.timeout(seconds):
            while len(self.stanzas) < count:
                self._something_sent.clear()
                await self._something_sent.wait()
        return self.elements

    def receive(self, text: str) -> None:
        """Let a stanza arrive from the server: `link.receive("<message from='ben@people.test' .../>")`."""
        assert self.sink is not None, "no sink: pass one or set it"
        element = stanza(text)
        if element.tag == f"{{{COMPONENT_NAMESPACE}}}presence":
            self.sink.presence_received(self, element)
        else:
            self.sink.message_received(self, element)

    def release_barriers(self) -> None:
        """Answer every ping that waits."""
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_result(None)

    def lose(self, *, forget_unproved: bool = True) -> None:
        """Drop the connection; with `forget_unproved` the server never saw what no barrier has proved."""
        self._is_connected = False
        if forget_unproved:
            del self.stanzas[max(0, self._proved - self._taken) :]
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(LinkDownError(f"the component {self.domain} was lost"))
        if self.sink is not None:
            self.sink.link_down(_as_link(self))

    def restore(self) -> None:
        """Connect again."""
        self._is_connected = True
        if self.sink is not None:
            self.sink.link_up(_as_link(self))


def _as_link(link: MemoryXmppLink) -> XmppLink:
    """Prove to the type checker that the fake keeps the contract."""
    return link


async def settle(turns: int = 10) -> None:
    """Let callbacks that are due run; for plays that check that nothing (more) happens."""
    for _ in range(turns):
        await asyncio.sleep(0)
