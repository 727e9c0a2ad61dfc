"""What every SIP connection (TCP, TLS, WebSocket) has in common: its bounds, its age, and the table of all of them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, cast

from isthmus.net.tls import proven_names
from isthmus.ports import Flow
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.parser import BadMessage

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of stream connections.

    Attributes:
        maximum_connections: of all peers; keeps us below the usual limit of open files.
        maximum_per_address: of one address; a company's phones behind one NAT are many, a botnet's host is not.
        unwritten_octets: waiting for a peer that does not read; then it is cut off.
        idle_seconds: silence after which a connection is closed: a little more than a registration of an hour, as
            phones without keep-alives are silent in between.
        first_message_seconds: from the connection to the first whole message; 64*T1, as for a transaction.
        partial_message_seconds: how long one message may take to arrive (slow loris).
        keep_alive_seconds: our own keep-alive on connections that we opened (RFC 5626 section 4.4.1: 95 to 120).
        pong_seconds: how long a peer that answered before may leave a keep-alive unanswered (section 4.4.1).
        connect_seconds: for TCP and TLS handshake together, below one transaction's patience.
        sweep_seconds: how often the bounds on time are looked at.
    """

    maximum_connections: int = 20_000
    maximum_per_address: int = 2_000
    unwritten_octets: int = 1 << 20
    idle_seconds: float = 3_900.0
    first_message_seconds: float = 32.0
    partial_message_seconds: float = 20.0
    keep_alive_seconds: float = 100.0
    pong_seconds: float = 10.0
    connect_seconds: float = 10.0
    sweep_seconds: float = 5.0


class ConnectionSink(Protocol):
    """Who takes messages from connections; must not raise."""

    def message_received(self, message: SipRequest | SipResponse, flow: Flow) -> None:
        """A whole message."""

    def bad_message_received(self, error: BadMessage, flow: Flow) -> None:
        """Bytes that are not an acceptable message; the connection closes itself when it cannot go on."""

    def datagrams_drained(self) -> None:
        """What one read brought is all delivered."""

    def connection_closed(self, flow: Flow) -> None:
        """The connection is gone, for whatever reason."""


class SipConnection(asyncio.Protocol, ABC):
    """One connection. Subclasses frame messages: they implement `data_received`, `send` and `send_keep_alive`."""

    def __init__(self, table: ConnectionTable, sink: ConnectionSink, transport_name: str, is_outgoing: bool) -> None:
        self.table = table
        self.sink = sink
        self.transport_name = transport_name
        self.is_outgoing = is_outgoing
        self.transport: asyncio.Transport | None = None
        self.flow = Flow(transport_name, "", 0)
        self.opened_at = self.heard_at = time.monotonic()
        self.partial_since: float | None = None
        self.has_spoken = False  # has sent at least one whole message
        self.has_ponged = False  # has answered a keep-alive once, so silence now means death
        self.pinged_at: float | None = None
        self.next_keep_alive_at = self.opened_at + table.limits.keep_alive_seconds
        self.is_closing = False
        self.ways: list[tuple[str, str, int]] = []  # under which the table finds this connection
        self._is_lost = False
        self._on_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Build the flow, with the names that the peer's certificate proves."""
        self.transport = cast(asyncio.Transport, transport)
        remote = transport.get_extra_info("peername") or ("", 0)
        local = transport.get_extra_info("sockname") or ("", 0)
        names = proven_names(transport.get_extra_info("peercert"))
        self.flow = Flow(self.transport_name, remote[0], remote[1], local[0], local[1], next(self.table.ids), names)
        self.table.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Leave the table and tell the sink."""
        self.is_closing = self._is_lost = True
        if self._on_lost is not None:
            self._on_lost()
        if self.table.remove(self):
            self.sink.connection_closed(self.flow)

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the connection is gone; at once when it already is."""
        if self._is_lost:
            callback()
        else:
            self._on_lost = callback

    @abstractmethod
    def send(self, data: bytes) -> bool:
        """Write one message; False when the connection is closed or the peer has stopped reading."""

    @abstractmethod
    def send_keep_alive(self) -> None:
        """Write whatever makes the peer answer with a sign of life."""

    def write(self, data: bytes) -> bool:
        """Write bytes within the bound on unwritten octets."""
        transport = self.transport
        if transport is None or self.is_closing or transport.is_closing():
            return False
        if transport.get_write_buffer_size() + len(data) > self.table.limits.unwritten_octets:
            self.abort("the peer does not read what we send")
            return False
        transport.write(data)
        return True

    def close(self) -> None:
        """Write what is waiting, then close."""
        self.is_closing = True
        if self.transport is not None:
            self.transport.close()

    def abort(self, reason: str) -> None:
        """Close at once."""
        _LOG.info("%s connection with %s closed: %s", self.transport_name, self.flow.remote_host, reason)
        self.is_closing = True
        if self.transport is not None:
            self.transport.abort()

    def note_traffic(self, *, is_message: bool, is_partial: bool) -> None:
        """Keep the marks that the sweep looks at after each read."""
        self.heard_at = time.monotonic()
        self.pinged_at = None
        if is_message:
            self.has_spoken = True
        if not is_partial:
            self.partial_since = None
        elif self.partial_since is None or is_message:
            self.partial_since = self.heard_at

    def sweep(self, now: float) -> None:
        """Close when a bound on time is passed; otherwise send a keep-alive when it is due."""
        limits = self.table.limits
        if self.partial_since is not None and now - self.partial_since > limits.partial_message_seconds:
            self.abort("a message took too long to arrive")
        elif not self.is_outgoing and not self.has_spoken and now - self.opened_at > limits.first_message_seconds:
            self.abort("no message arrived")
        elif now - self.heard_at > limits.idle_seconds:
            self.close()
        elif self.has_ponged and self.pinged_at is not None and now - self.pinged_at > limits.pong_seconds:
            self.abort("a keep-alive was not answered")
        elif self.is_outgoing and now >= self.next_keep_alive_at:
            self.next_keep_alive_at = now + limits.keep_alive_seconds
            if self.pinged_at is None:
                self.pinged_at = now
            self.send_keep_alive()


class ConnectionTable:
    """All connections, by id and by where they lead."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.ids = itertools.count(1)
        self._connections: dict[int, SipConnection] = {}
        self._ways: dict[tuple[str, str, int], list[SipConnection]] = {}
        self._per_address: Counter[str] = Counter()
        self._admitted = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def admit(self, host: str) -> bool:
        """Count an incoming connection before its handshake; False when there are too many."""
        if self._admitted >= self.limits.maximum_connections:
            return False
        if self._per_address[host] >= self.limits.maximum_per_address:
            return False
        self._admitted += 1
        self._per_address[host] += 1
        return True

    def release(self, host: str) -> None:
        """Take back one `admit`."""
        self._admitted -= 1
        self._per_address[host] -= 1
        if self._per_address[host] <= 0:
            del self._per_address[host]

    def get(self, connection_id: int) -> SipConnection | None:
        """Return the open connection with this id."""
        return self._connections.get(connection_id)

    def add(self, connection: SipConnection) -> None:
        """Enter a connection; an outgoing one can be found again by its address (RFC 3261 section 18)."""
        self._connections[connection.flow.connection] = connection
        if connection.is_outgoing:
            self.add_way(connection, connection.flow.remote_port)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.limits.sweep_seconds, self._sweep)

    def remove(self, connection: SipConnection) -> bool:
        """Forget a connection; False when it was not in the table."""
        if self._connections.pop(connection.flow.connection, None) is None:
            return False
        for way in connection.ways:
            self._ways[way].remove(connection)
            if not self._ways[way]:
                del self._ways[way]
        connection.ways.clear()
        return True

    def add_way(self, connection: SipConnection, port: int) -> None:
        """Let requests for `port` at the remote host reuse the connection (RFC 5923 alias when it is incoming)."""
        way = (connection.flow.transport, connection.flow.remote_host, port)
        if way not in connection.ways:
            connection.ways.append(way)
            self._ways.setdefault(way, []).append(connection)

    def find(self, transport: str, host: str, port: int, names: Iterable[str]) -> SipConnection | None:
        """Return an open connection that leads there; over TLS only if it proves one of `names`."""
        accepted = frozenset(names)
        for connection in reversed(self._ways.get((transport, host, port), ())):
            if connection.is_closing:
                continue
            if transport != "tls" or not accepted.isdisjoint(connection.flow.peer_names):
                return connection
        return None

    def close_all(self) -> None:
        """Close every connection and stop the sweep."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._connections.values()):
            connection.close()

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections.values()):
            connection.sweep(now)
        self._timer = None
        if self._connections:
            self._timer = asyncio.get_running_loop().call_later(self.limits.sweep_seconds, self._sweep)
