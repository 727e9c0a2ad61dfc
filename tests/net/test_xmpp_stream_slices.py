"""A server that has much to say at once: nothing of it is lost, and others get their turn meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
from xml.etree.ElementTree import Element

from isthmus.net.xmpp_stream import SLICE_OCTETS, ComponentStream

SECRET = "secret"
HEADER = b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='s1'>"
STANZA = "<presence from='ben{}@people.test/phone' to='ana@corp.test'><status>Grüße</status></presence>"
COUNT = 2_000


class Owner:
    """Implements StreamOwner; counts turns of the event loop from the first stanza on."""

    def __init__(self) -> None:
        self.senders: list[str] = []
        self.lost = asyncio.Event()
        self.turns = 0

    def stream_ready(self) -> None: ...

    def stanza_received(self, stanza: Element) -> None:
        if not self.senders:
            asyncio.get_running_loop().call_soon(self._turn)
        self.senders.append(stanza.get("from", ""))

    def _turn(self) -> None:
        self.turns += 1
        if not self.lost.is_set():
            asyncio.get_running_loop().call_soon(self._turn)

    def writing_paused(self, is_paused: bool) -> None: ...

    def stream_lost(self, condition: str, text: str) -> None:
        self.lost.set()


async def test_a_burst_is_taken_whole_and_in_order_but_not_at_once() -> None:
    burst = "".join(STANZA.format(number) for number in range(COUNT)).encode()
    assert len(burst) > 20 * SLICE_OCTETS

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b">")
        writer.write(HEADER)
        wanted = hashlib.sha1(f"s1{SECRET}".encode(), usedforsecurity=False).hexdigest().encode()
        assert wanted in await reader.readuntil(b"</handshake>")
        # The server goes away with the last octet: what it said before still counts.
        writer.write(b"<handshake/>" + burst)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    owner = Owner()
    stream = ComponentStream("corp.test", SECRET, owner)
    try:
        async with asyncio.timeout(10):
            assert await stream.open("127.0.0.1", server.sockets[0].getsockname()[1], 5) == ""
            await owner.lost.wait()
    finally:
        await stream.close(1)
        server.close()
        await server.wait_closed()
    assert owner.senders == [f"ben{number}@people.test/phone" for number in range(COUNT)]
    assert owner.turns >= 20
