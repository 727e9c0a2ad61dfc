"""Plays the XMPP server of the consumers: takes the component and counts the presence stanzas that arrive."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field

from tests.bench.neighbours import ComponentServer

_PRESENCE = re.compile(rb"<presence\b[^>]*?\bto=['\"]([^'\"]*)['\"]")
_TAIL_OCTETS = 512


@dataclass(slots=True)
class Arrivals:
    """Presence stanzas since the last `expect`, by the watcher they are for."""

    watchers: set[bytes] = field(default_factory=set)
    count: int = 0
    last_at: float = 0.0
    wanted: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    arrived_at: list[float] = field(default_factory=list)


class Consumers:
    """The server end of the component stream.

    Attributes:
        component_port: where the gateway connects to.
    """

    def __init__(self, domain: str = "corp.test", secret: str = "secret") -> None:
        self.domain, self.secret = domain, secret
        self.component_port = 0
        self.arrivals = Arrivals()
        self._ready = asyncio.Event()
        self._tail = b""
        self._stream: ComponentServer | None = None

    async def open(self) -> None:
        """Listen on a free loopback port."""
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        self.component_port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._server.close()
        if self._stream is not None:
            self._stream.transport.close()

    async def connected(self, timeout_seconds: float = 60.0) -> None:
        """Return when the component has shaken hands."""
        await asyncio.wait_for(self._ready.wait(), timeout_seconds)

    def expect(self, wanted: int) -> Arrivals:
        """Begin to count anew; `done` is set when stanzas for `wanted` different people came."""
        self.arrivals = Arrivals(wanted=wanted)
        return self.arrivals

    def write(self, stanzas: str) -> None:
        """Send stanzas to the component."""
        assert self._stream is not None, "the component is not connected"
        self._stream.transport.write(stanzas.encode())

    def _accept(self) -> ComponentServer:
        self._stream = ComponentServer(self.domain, self.secret, self._received, self._ready.set)
        return self._stream

    def _received(self, data: bytes) -> None:
        data = self._tail + data
        end, seen = 0, self.arrivals
        now = time.perf_counter()
        for found in _PRESENCE.finditer(data):
            end = found.end()
            seen.count += 1
            seen.last_at = now
            seen.arrived_at.append(now)
            seen.watchers.add(found[1])
        self._tail = data[max(end, len(data) - _TAIL_OCTETS) :]
        if seen.wanted and len(seen.watchers) >= seen.wanted:
            seen.done.set()
