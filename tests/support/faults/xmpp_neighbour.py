"""An XMPP server as seen by components (XEP-0114): accepts them, keeps what they say, routes their pings back.

Unlike a real server it may say whatever a test wants, and it never loses anything it was sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from tests.support.faults.gateway import SECRET

ACCEPT = "jabber:component:accept"
MESSAGE, PRESENCE, IQ = (f"{{{ACCEPT}}}{name}" for name in ("message", "presence", "iq"))
_HANDSHAKE = f"{{{ACCEPT}}}handshake"
_STREAM_ID = "stream-of-the-test"
SECONDS = 15.0


class ComponentStream(asyncio.Protocol):
    """The server's end of one component's connection."""

    def __init__(self, server: XmppNeighbour) -> None:
        self._server = server
        self._parser: XMLPullParser[Element] = XMLPullParser(("start", "end"))
        self._depth = 0
        self._root: Element | None = None
        self.domain = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            for kind, element in cast("list[tuple[str, Element]]", list(self._parser.read_events())):
                self._depth += 1 if kind == "start" else -1
                if kind == "start" and self._depth == 1:
                    self._open(element)
                elif kind == "end" and self._depth == 1 and self._root is not None:
                    self._root.clear()
                    self._take(element)
                elif kind == "end" and self._depth == 0:
                    self.transport.write(b"</stream:stream>")
                    self.transport.close()
        except ParseError as error:
            self._server.faults.append(f"{self.domain}: {error}: {data[:200]!r}")
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.gone(self)

    def _open(self, root: Element) -> None:
        self._root = root
        self.domain = root.get("to", "")
        self.transport.write(
            b"<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' "
            + f"xmlns='{ACCEPT}' from='{self.domain}' id='{_STREAM_ID}'>".encode()
        )

    def _take(self, stanza: Element) -> None:
        if stanza.tag != _HANDSHAKE:
            self._server.take(self, stanza)
            return
        wanted = hashlib.sha1((_STREAM_ID + SECRET).encode(), usedforsecurity=False).hexdigest()
        assert stanza.text == wanted, "the component's secret is wrong"
        self.transport.write(b"<handshake/>")
        self._server.joined(self)


class XmppNeighbour:
    """The server.

    Attributes:
        received: every stanza but barriers and answers to pings, in order, over all connections.
        faults: what was no XML, or otherwise must not come from a component.
    """

    def __init__(self) -> None:
        self.received: list[Element] = []
        self.faults: list[str] = []
        self.on_stanza: Callable[[Element], None] = lambda stanza: None
        self.port = 0
        self._streams: dict[str, ComponentStream] = {}
        self._changed = asyncio.Condition()
        self._pings: dict[str, asyncio.Future[None]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, port: int = 0) -> None:
        """Listen; components may come and go."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ComponentStream(self), "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End everything."""
        self._server.close()
        for stream in tuple(self._streams.values()):
            stream.transport.abort()

    async def connected(self, *domains: str, seconds: float = 60.0) -> None:
        """Return when these components are here."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: all(domain in self._streams for domain in domains))

    def is_connected(self, domain: str) -> bool:
        """True while the component is here."""
        return domain in self._streams

    def send(self, domain: str, text: str | bytes) -> bool:
        """Write to a component; False when it is away."""
        stream = self._streams.get(domain)
        if stream is None:
            return False
        stream.transport.write(text.encode() if isinstance(text, str) else text)
        return True

    async def ping(self, domain: str, seconds: float = SECONDS) -> None:
        """Ask the component for a sign of life after everything written so far.

        Raises:
            ConnectionError: the component is away, or left before it answered.
        """
        name = f"server-ping-{next(self._numbers)}"
        self._pings[f"{domain} {name}"] = future = asyncio.get_running_loop().create_future()
        query = f"<iq type='get' id='{name}' from='people.test' to='{domain}'><ping xmlns='urn:xmpp:ping'/></iq>"
        if not self.send(domain, query):
            del self._pings[f"{domain} {name}"]
            raise ConnectionError(f"{domain} is away")
        await asyncio.wait_for(future, seconds)

    async def expect(self, matches: Callable[[Element], bool], what: str, seconds: float = SECONDS) -> Element:
        """Return the first stanza that matches, now or when it comes."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: any(map(matches, self.received)))
        except TimeoutError:
            raise AssertionError(f"waited {seconds:.0f} s for {what}") from None
        return next(filter(matches, self.received))

    # --- from the streams ---

    def joined(self, stream: ComponentStream) -> None:
        self._streams[stream.domain] = stream
        self._tell()

    def gone(self, stream: ComponentStream) -> None:
        if self._streams.get(stream.domain) is stream:
            del self._streams[stream.domain]
        for name, future in list(self._pings.items()):
            if name.startswith(f"{stream.domain} "):
                del self._pings[name]
                if not future.done():
                    future.set_exception(ConnectionError(f"{stream.domain} left"))
        self._tell()

    def take(self, stream: ComponentStream, stanza: Element) -> None:
        kind, to, stanza_id = stanza.get("type"), stanza.get("to", ""), stanza.get("id", "")
        if stanza.get("from", "").partition("/")[0].rpartition("@")[2] != stream.domain:
            self.faults.append(f"{stream.domain} speaks for {stanza.get('from')}")
        if stanza.tag == IQ:
            if kind in ("get", "set") and to == stream.domain:  # its own ping comes back to it, in order
                ping = f"<iq type='{kind}' id='{stanza_id}' from='{to}' to='{to}'><ping xmlns='urn:xmpp:ping'/></iq>"
                stream.transport.write(ping.encode())
                return
            future = self._pings.pop(f"{stream.domain} {stanza_id}", None)
            if future is not None:
                if not future.done():
                    future.set_result(None)
                return
        self.received.append(stanza)
        self.on_stanza(stanza)
        self._tell()

    def _tell(self) -> None:
        task = asyncio.get_running_loop().create_task(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def xmpp_neighbour(port: int = 0) -> AsyncIterator[XmppNeighbour]:
    """A listening server, closed at the end."""
    server = XmppNeighbour()
    await server.open(port)
    try:
        yield server
    finally:
        server.close()
