"""SIP over WebSocket (RFC 7118), the server side, over the sans-I/O half of the websockets library.

One SIP message is one WebSocket message, text or binary. Browsers have no address of their own: what is for them goes
back over the connection they opened, never anywhere else (section 5).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from isthmus.errors import ConfigurationError
from isthmus.net.sip_connection import ConnectionSink, ConnectionTable, SipConnection
from isthmus.sip.limits import MAXIMUM_STREAM_MESSAGE
from isthmus.sip.parser import BadMessage, parse_message

_LOG = logging.getLogger(__name__)
_QUIET = logging.getLogger(f"{__name__}.protocol")
_QUIET.setLevel(logging.CRITICAL)  # the library reports peers' mistakes as errors of its own

SUBPROTOCOL = Subprotocol("sip")  # RFC 7118 section 4.1


def check_clear_text(host: str, is_loopback: bool) -> None:
    """Refuse a clear-text listener that others could reach: browsers send credentials over it.

    Raises:
        ConfigurationError: `host` is not an address of this machine alone.
    """
    if not is_loopback:
        raise ConfigurationError(
            f"a ws listener on {host} would carry passwords in clear text: use wss with a certificate, "
            "or ws on 127.0.0.1 behind a TLS reverse proxy (sip.listeners)"
        )


class WebSocketConnection(SipConnection):
    """One browser."""

    def __init__(
        self, table: ConnectionTable, sink: ConnectionSink, transport_name: str, origins: tuple[str, ...]
    ) -> None:
        super().__init__(table, sink, transport_name, is_outgoing=False)
        self._origins = origins
        self._websocket = ServerProtocol(subprotocols=[SUBPROTOCOL], max_size=MAXIMUM_STREAM_MESSAGE, logger=_QUIET)
        self._fragments: list[bytes] = []
        self._is_text = False
        self._ping_at = self.next_keep_alive_at

    def data_received(self, data: bytes) -> None:
        """Feed the protocol, act on its events, write what it wants written."""
        try:
            self._websocket.receive_data(data)
            self._act()
        except Exception:  # a mistake of ours must end this connection only, never the listener
            _LOG.exception("a WebSocket from %s failed", self.flow.remote_host)
            self.abort("an error of ours")

    def eof_received(self) -> bool:
        """The peer closed its half; the closing handshake, if any, is over."""
        if not self.is_closing:
            self._websocket.receive_eof()
            self._flush()
        return False

    def send(self, data: bytes) -> bool:
        """Write one message: text when it is UTF-8, else binary (RFC 7118 section 5: both are SIP)."""
        if self.is_closing or self._websocket.state is not State.OPEN:
            return False
        if _is_utf8(data):
            self._websocket.send_text(data)
        else:
            self._websocket.send_binary(data)
        return self._flush()

    def send_keep_alive(self) -> None:
        """A WebSocket ping, which every browser answers by itself (RFC 7118 section 6)."""
        if self._websocket.state is State.OPEN:
            self._websocket.send_ping(b"")
            self._flush()

    def close(self) -> None:
        """Say that the service goes away (1001), then close."""
        if self._websocket.state is State.OPEN:
            self._websocket.send_close(CloseCode.GOING_AWAY)
            self._flush()
        super().close()

    def sweep(self, now: float) -> None:
        """Beside the common bounds: ping, as NATs and proxies forget silent connections after a minute or two."""
        super().sweep(now)
        if not self.is_closing and now >= self._ping_at:
            self._ping_at = now + self.table.limits.keep_alive_seconds
            self.has_ponged = True  # a pong is not optional (RFC 6455 section 5.5.3)
            if self.pinged_at is None:
                self.pinged_at = now
            self.send_keep_alive()

    def _act(self) -> None:
        is_message = False
        for event in self._websocket.events_received():
            if isinstance(event, Request):
                if self._websocket.eof_sent:  # what followed in the same read was no frame: the library has hung up
                    break
                self._websocket.send_response(self._answer(event))
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                is_message |= self._frame_received(event)
        self.note_traffic(is_message=is_message, is_partial=bool(self._fragments))
        self._flush()
        self.sink.datagrams_drained()

    def _answer(self, request: Request) -> Response:
        if not self._is_origin_allowed(request.headers):
            return self._websocket.reject(
                HTTPStatus.FORBIDDEN, "This origin may not open SIP connections (sip.websocket_origins).\n"
            )
        return self._websocket.accept(request)

    def _is_origin_allowed(self, headers: Headers) -> bool:
        """Only browsers send Origin, and only their users can be misused by a foreign page (RFC 6455 section 10.2)."""
        origins, hosts = headers.get_all("Origin"), headers.get_all("Host")
        if not origins:
            return True
        if len(origins) != 1 or len(hosts) != 1:
            return False
        origin = Origin(origins[0])
        if self._origins:
            return origin in self._origins
        host = _host_of(f"//{hosts[0]}")
        return host is not None and _host_of(origin) == host

    def _frame_received(self, frame: Frame) -> bool:
        """Join fragments; True when a whole SIP message was passed on."""
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        if not frame.fin:
            self._fragments.append(bytes(frame.data))
            return False
        data = b"".join((*self._fragments, bytes(frame.data)))
        self._fragments.clear()
        if self._is_text and not _is_utf8(data):
            self._websocket.fail(CloseCode.INVALID_DATA, "text frames are UTF-8")
            return False
        if not data.strip(b"\r\n"):
            if data == b"\r\n\r\n":  # the keep-alive of RFC 5626, which some clients send here as well
                self.send(b"\r\n")
            return False
        try:
            message = parse_message(data, MAXIMUM_STREAM_MESSAGE)
        except BadMessage as error:
            self.sink.bad_message_received(error, self.flow)
            return False
        self.sink.message_received(message, self.flow)
        return True

    def _flush(self) -> bool:
        is_written = True
        for data in self._websocket.data_to_send():
            if data:
                is_written = self.write(data) and is_written
            else:  # the library's sign for end of file
                super().close()
        if self._websocket.state is State.CLOSED and not self.is_closing:
            super().close()
        return is_written


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def connection_maker(
    table: ConnectionTable, sink: ConnectionSink, transport_name: str, origins: tuple[str, ...]
) -> Callable[[], WebSocketConnection]:
    """Return what a listener calls for each accepted connection.

    Args:
        table, sink: of the endpoint.
        transport_name: "ws" or "wss".
        origins: allowed Origin values; empty allows pages of the same host.
    """
    return lambda: WebSocketConnection(table, sink, transport_name, origins)
