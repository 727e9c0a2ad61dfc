"""SIP over TCP and TLS: framing, keep-alives, reuse of connections (RFC 3261 section 18, RFC 5626, RFC 5923)."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from isthmus.errors import TransportError
from isthmus.net.sip_connection import ConnectionSink, ConnectionTable, SipConnection
from isthmus.net.tls import is_proven
from isthmus.sip.parser import BadMessage, KeepAlive, StreamParser

_LOG = logging.getLogger(__name__)

_PING = b"\r\n\r\n"
_PONG = b"\r\n"


class StreamConnection(SipConnection):
    """One TCP or TLS connection."""

    def __init__(self, table: ConnectionTable, sink: ConnectionSink, transport_name: str, is_outgoing: bool) -> None:
        super().__init__(table, sink, transport_name, is_outgoing)
        self._parser = StreamParser()

    def data_received(self, data: bytes) -> None:
        """Feed the parser and pass on what is whole."""
        if self.is_closing:
            return
        try:
            self._feed(data)
        except Exception:  # a mistake of ours must end this connection only, never the listener
            _LOG.exception("a connection from %s failed", self.flow.remote_host)
            self.abort("an error of ours")

    def eof_received(self) -> bool:
        """Close when the peer half-closes: no answer could be expected of it any more."""
        return False

    def send(self, data: bytes) -> bool:
        """Write one message."""
        return self.write(data)

    def send_keep_alive(self) -> None:
        """Double CRLF; a peer with RFC 5626 answers with one CRLF."""
        self.write(_PING)

    def _feed(self, data: bytes) -> None:
        is_message = False
        items = self._parser.feed(data)
        for item in items:
            if isinstance(item, KeepAlive):
                if item.kind == "ping":
                    self.write(_PONG)
                elif self.is_outgoing:
                    self.has_ponged = True
            elif isinstance(item, BadMessage):
                self.sink.bad_message_received(item, self.flow)
            else:
                is_message = True
                self.sink.message_received(item, self.flow)
        # A read that completed nothing is part of something, also when only the head of a message is whole yet.
        self.note_traffic(is_message=is_message, is_partial=not items or self._parser.pending_octets > 0)
        self.sink.datagrams_drained()
        if self._parser.is_broken:
            # The length of what follows is unknown (RFC 4475 section 3.1.2.2): the answer is written, then we close.
            self.close()


async def connect(
    table: ConnectionTable,
    sink: ConnectionSink,
    host: str,
    port: int,
    *,
    context: ssl.SSLContext | None = None,
    names: tuple[str, ...] = (),
    local_host: str = "",
) -> SipConnection:
    """Return a connection to `host` `port`, reused or new.

    Args:
        table: where connections are kept.
        sink: who takes what arrives.
        host, port: numeric address.
        context: makes it a TLS connection.
        names: domains one of which the peer must prove (TLS only; RFC 5922 section 7.3).
        local_host: address to connect from; empty leaves it to the system.

    Raises:
        TransportError: it cannot be opened in time, or the peer proves another name.
    """
    transport_name = "tcp" if context is None else "tls"
    existing = table.find(transport_name, host, port, names)
    if existing is not None:
        return existing
    where = f"{host} port {port} ({transport_name})"
    try:
        async with asyncio.timeout(table.limits.connect_seconds):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: StreamConnection(table, sink, transport_name, is_outgoing=True),
                host,
                port,
                ssl=context,
                # The name asked for is the domain, not the host that DNS gave (SNI; RFC 5922 section 7.2).
                server_hostname=_server_name(names, host) if context is not None else None,
                local_addr=(local_host, 0) if local_host else None,
            )
    except TimeoutError as error:
        raise TransportError(f"no connection with {where} within {table.limits.connect_seconds:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise TransportError(
            f"the certificate of {where} is not valid: {error.verify_message} (sip.tls.trusted_authorities)"
        ) from error
    except (OSError, ssl.SSLError) as error:
        raise TransportError(f"no connection with {where}: {error}") from error
    if context is not None and not any(is_proven(connection.flow.peer_names, name) for name in names):
        connection.abort("the certificate proves another name")
        raise TransportError(
            f"the certificate of {where} is for {', '.join(connection.flow.peer_names) or 'no SIP domain'}, "
            f"not for {' or '.join(names)} (exact match, RFC 5922 section 7.2)"
        )
    return connection


def _server_name(names: tuple[str, ...], host: str) -> str:
    return names[0] if names else host


def connection_maker(
    table: ConnectionTable, sink: ConnectionSink, transport_name: str
) -> Callable[[], StreamConnection]:
    """Return what a listener calls for each accepted connection."""
    return lambda: StreamConnection(table, sink, transport_name, is_outgoing=False)
