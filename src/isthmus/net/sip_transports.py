"""All SIP sockets of the process: opens the listeners, writes to flows, makes new flows, says what we are called."""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from isthmus.config import Listener, SipSettings, Transport, is_loopback
from isthmus.errors import TransportError
from isthmus.net import sip_stream, sip_websocket
from isthmus.net.sip_connection import ConnectionLimits, ConnectionSink, ConnectionTable
from isthmus.net.sip_listener import StreamListener
from isthmus.net.sip_udp import DatagramSink, UdpSocket
from isthmus.net.sip_via import DEFAULT_PORT, DEFAULT_TLS_PORT
from isthmus.net.tls import client_context, server_context
from isthmus.ports import Flow
from isthmus.sip.headers import Via

_MAXIMUM_REMEMBERED_ROUTES = 4_096
# RFC 5737: a documentation address. Connecting a UDP socket to it sends nothing, but names our outgoing address.
_SOMEWHERE_ELSE = {False: "192.0.2.1", True: "2001:db8::1"}


class TransportSink(DatagramSink, ConnectionSink, Protocol):
    """Who takes everything that arrives."""


class SipTransports:
    """The sockets behind one endpoint."""

    def __init__(
        self, settings: SipSettings, data_directory: Path, limits: ConnectionLimits, sink: TransportSink
    ) -> None:
        self._settings = settings
        self._data_directory = data_directory
        self._sink = sink
        self._udp: list[UdpSocket] = []
        self._udp_by_port: dict[int, UdpSocket] = {}
        self._listeners: list[tuple[str, StreamListener]] = []
        self._client_context: ssl.SSLContext | None = None
        self._connecting: dict[tuple[str, str, int, tuple[str, ...]], asyncio.Task[Flow]] = {}
        self._own_addresses: dict[str, str] = {}
        self.connections = ConnectionTable(limits)
        self.bound: dict[str, tuple[str, int]] = {}

    def open(self) -> None:
        """Open all listeners; when one cannot be opened none stays open. Raises ConfigurationError."""
        try:
            for listener in self._settings.listeners:
                host, port = self._open(listener)
                self.bound.setdefault(listener.transport.value, (host, port))
        except BaseException:
            self.close()
            raise

    def _open(self, listener: Listener) -> tuple[str, int]:
        host = listener.host.strip("[]")
        if listener.transport is Transport.UDP:
            opened = UdpSocket(self._sink)
            opened.open(host, listener.port)
            self._udp.append(opened)
            self._udp_by_port.setdefault(opened.port, opened)
            return opened.host, opened.port
        name = listener.transport.value
        context = None
        if listener.transport in (Transport.TLS, Transport.WSS):
            context = server_context(
                self._settings.tls, self._data_directory, asks_for_certificate=listener.transport is Transport.TLS
            )
        if listener.transport in (Transport.WS, Transport.WSS):
            if context is None:
                sip_websocket.check_clear_text(host, is_loopback(host))
            make = sip_websocket.connection_maker(self.connections, self._sink, name, self._settings.websocket_origins)
            accepting = StreamListener(self.connections, name, make, context)
        else:
            accepting = StreamListener(
                self.connections, name, sip_stream.connection_maker(self.connections, self._sink, name), context
            )
        accepting.open(host, listener.port)
        self._listeners.append((name, accepting))
        return accepting.host, accepting.port

    def close(self) -> None:
        """Close everything; what is waiting in connections is still written."""
        for _, listener in self._listeners:
            listener.close()
        for connecting in self._connecting.values():
            connecting.cancel()
        self.connections.close_all()
        for opened in self._udp:
            opened.close()
        self._listeners.clear()
        self._udp.clear()
        self._udp_by_port.clear()

    def send(self, data: bytes, flow: Flow) -> bool:
        """Write one message to a flow; False when it cannot be sent and never will."""
        if flow.connection:
            connection = self.connections.get(flow.connection)
            return connection is not None and connection.send(data)
        opened = self._udp_by_port.get(flow.local_port)
        if opened is None or opened.host != flow.local_host:
            opened = self._udp_for(flow.remote_host, flow.local_host, flow.local_port)
        return opened is not None and opened.send(data, flow.remote_host, flow.remote_port)

    def is_alive(self, flow: Flow) -> bool:
        """False once the connection behind `flow` has closed; a flow kept from before a restart is dead, unless UDP."""
        if flow.transport == "udp":
            return bool(self._udp)
        connection = self.connections.get(flow.connection)
        return connection is not None and not connection.is_closing and connection.flow == flow

    def udp_flow(self, host: str, port: int, like: Flow | None = None) -> Flow:
        """Return the flow to a peer over UDP, from the socket of `like` if it is still there.

        Raises:
            TransportError: no listener could send there.
        """
        opened = self._udp_for(host, like.local_host if like else "", like.local_port if like else 0)
        if opened is None:
            raise TransportError(f"no UDP listener can send to {host}; add one to sip.listeners")
        return opened.flow_to(host, port)

    def open_stream_flow(self, transport: str, host: str, port: int, names: tuple[str, ...]) -> Flow | None:
        """Return the flow over a connection that is open already, or None; arguments as for `stream_flow`."""
        connection = self.connections.find(transport, host, port, names)
        return connection.flow if connection is not None else None

    async def stream_flow(self, transport: str, host: str, port: int, names: tuple[str, ...] = ()) -> Flow:
        """Return the flow over a connection to a peer, reused or new.

        Args:
            transport: "tcp" or "tls".
            host, port: numeric address.
            names: domains one of which the peer must prove (TLS).

        Raises:
            TransportError: no connection, or the wrong peer.
        """
        if transport not in ("tcp", "tls"):
            raise TransportError(f"a request over {transport} needs the connection that its receiver opened (RFC 7118)")
        key = (transport, host, port, names)
        connecting = self._connecting.get(key)
        if connecting is None:
            connecting = asyncio.get_running_loop().create_task(self._connect(transport, host, port, names))
            self._connecting[key] = connecting
            connecting.add_done_callback(lambda _: self._connecting.pop(key, None))
        # Shielded: who gives up waiting must not end the connection that others wait for.
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if connecting.cancelled():
                raise TransportError("the SIP endpoint is stopping") from None
            raise

    async def _connect(self, transport: str, host: str, port: int, names: tuple[str, ...]) -> Flow:
        context = None
        if transport == "tls":
            if self._client_context is None:
                self._client_context = client_context(self._settings.tls, self._data_directory)
            context = self._client_context
        connection = await sip_stream.connect(self.connections, self._sink, host, port, context=context, names=names)
        return connection.flow

    def sent_by(self, flow: Flow) -> tuple[str, int]:
        """Return host and port for the Via of a request on this flow: where a lost connection could be replaced."""
        bound = self._bound_like(flow)
        host = self._settings.advertised_host or (bound[0] if bound else flow.local_host)
        if _is_wildcard(host):
            host = self._own_address_towards(flow.remote_host)
        return host, bound[1] if bound else flow.local_port

    def add_alias(self, flow: Flow, via: Via) -> None:
        """Let our requests to the host and port of this Via reuse the connection (RFC 5923 section 5).

        Only for a peer that proved a name by its certificate: `find` compares it with the name a request is for.
        """
        connection = self.connections.get(flow.connection)
        if connection is not None:
            self.connections.add_way(connection, via.port or DEFAULT_TLS_PORT)

    def has_alias(self, flow: Flow) -> bool:
        """True when requests may come to us on a connection that we opened: over TLS, with our certificate shown."""
        return flow.transport == "tls" and self._settings.tls.certificate is not None

    def contact(self, transport: str) -> tuple[str, str, int]:
        """Return transport, host and port of the listener for `transport`, or of the first there is."""
        if not self.bound:
            raise TransportError("the SIP endpoint has no listener (sip.listeners)")
        name = transport if transport in self.bound else next(iter(self.bound))
        host, port = self.bound[name]
        host = self._settings.advertised_host or host
        if _is_wildcard(host):
            host = self._own_address_towards(_SOMEWHERE_ELSE[":" in host])
        is_default = port == (DEFAULT_TLS_PORT if name == "tls" else DEFAULT_PORT) and name in ("udp", "tcp", "tls")
        return name, host, 0 if is_default else port

    def _bound_like(self, flow: Flow) -> tuple[str, int] | None:
        if flow.transport == "udp":
            return flow.local_host, flow.local_port
        is_ipv6 = ":" in flow.remote_host
        for name, listener in self._listeners:
            if name == flow.transport and (":" in listener.host) == is_ipv6:
                return listener.host, listener.port
        return None

    def _udp_for(self, remote_host: str, local_host: str, local_port: int) -> UdpSocket | None:
        is_ipv6 = ":" in remote_host
        fitting = [opened for opened in self._udp if (":" in opened.host) == is_ipv6]
        for opened in fitting:
            if opened.port == local_port and opened.host == local_host:
                return opened
        if len(fitting) > 1:
            # A socket bound to loopback cannot reach others; a wildcard or outside one is the better choice for them.
            fitting.sort(key=lambda opened: is_loopback(opened.host) != is_loopback(remote_host))
        return fitting[0] if fitting else None

    def _own_address_towards(self, remote_host: str) -> str:
        known = self._own_addresses.get(remote_host)
        if known is None:
            if len(self._own_addresses) >= _MAXIMUM_REMEMBERED_ROUTES:
                self._own_addresses.clear()
            known = self._own_addresses[remote_host] = _outgoing_address(remote_host)
        return known


@lru_cache(maxsize=256)  # asked for every request we send
def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _outgoing_address(remote_host: str) -> str:
    """Ask the routing table which of our addresses packets to `remote_host` carry."""
    is_ipv6 = ":" in remote_host
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((remote_host, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "::1" if is_ipv6 else "127.0.0.1"
