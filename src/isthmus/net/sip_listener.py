"""The accepting side of TCP, TLS and WebSocket: counts a connection before its handshake may cost anything."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

from isthmus.net.sip_connection import ConnectionTable, SipConnection
from isthmus.net.sip_udp import binding_error

_LOG = logging.getLogger(__name__)

_BACKLOG = 1_024  # phones that all come back after a restart
_ACCEPTS_PER_WAKE = 64
_HANDSHAKE_SECONDS = 10.0  # TLS; slower ones hold a place that others need
_PAUSE_SECONDS = 1.0  # after running out of file descriptors
_NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class StreamListener:
    """One listening socket; each accepted connection gets what `make_connection` returns."""

    def __init__(
        self,
        table: ConnectionTable,
        transport_name: str,
        make_connection: Callable[[], SipConnection],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._table = table
        self._transport_name = transport_name
        self._make_connection = make_connection
        self._context = context
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self.host = ""
        self.port = 0

    def open(self, host: str, port: int) -> None:
        """Bind and begin to accept; port 0 takes a free one. Raises ConfigurationError."""
        opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in host:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setblocking(False)
            opened.bind((host, port))
            opened.listen(_BACKLOG)
        except OSError as error:
            opened.close()
            raise binding_error(error, host, port, self._transport_name) from error
        self._socket = opened
        self.host, self.port = opened.getsockname()[:2]
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(opened, self._acceptable)

    def close(self) -> None:
        """Stop accepting and end handshakes under way; open connections stay."""
        if self._socket is None or self._loop is None:
            return
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        for handshake in self._handshakes:
            handshake.cancel()

    def _acceptable(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            if self._socket is None:
                return
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._admit(accepted, str(address[0]))

    def _admit(self, accepted: socket.socket, host: str) -> None:
        assert self._loop is not None
        if not self._table.admit(host):
            _LOG.warning("%s connection from %s refused: too many connections", self._transport_name, host)
            accepted.close()
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        task = self._loop.create_task(self._shake_hands(accepted, host))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket, host: str) -> None:
        assert self._loop is not None
        connection = self._make_connection()
        try:
            # The protocol that this returns is not ours under uvloop with TLS, but uvloop's own.
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._context is not None else None,
            )
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:  # cancelled by our own close() only
            _LOG.info("%s handshake with %s failed: %s", self._transport_name, host, error)
            accepted.close()
            self._table.release(host)
            return
        connection.when_lost(lambda: self._table.release(host))

    def _pause(self, error: OSError) -> None:
        """Stop accepting for a moment: the socket stays readable, so the loop would spin."""
        assert self._loop is not None
        assert self._socket is not None
        if error.errno not in _NO_RESOURCES:
            _LOG.warning("accepting on port %d failed: %s", self.port, error)
            return
        _LOG.error("no file descriptors left for connections on port %d; raise LimitNOFILE", self.port)
        self._loop.remove_reader(self._socket)
        self._loop.call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._socket is not None and self._loop is not None:
            self._loop.add_reader(self._socket, self._acceptable)
