"""One component stream over slixmpp: its negotiation is used, its stanza objects are not.

slixmpp opens the socket, the XML stream and the XEP-0114 handshake. From then on every stanza goes as a parsed element
to `StreamOwner` and every outgoing one is written to the transport as text. slixmpp's own stanza objects, handlers and
roster cost five times as much per message, and its component answers subscriptions and probes by itself, which is the
business of `services.contacts` (STANDARDS: XEP-0114 has no roster). See docs/decisions/slixmpp-carries-the-stream.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Protocol
from xml.etree.ElementTree import Element

from slixmpp import ComponentXMPP

STREAM_ERROR = "{http://etherx.jabber.org/streams}error"
_CLIENT = "{jabber:client}"
_COMPONENT = "{jabber:component:accept}"
_STREAM_ERROR_CONDITIONS = "{urn:ietf:params:xml:ns:xmpp-streams}"

# A burst that Prosody reads in some milliseconds passes; what is above it waits for the reader.
HIGH_WATER_OCTETS = 1024 * 1024
LOW_WATER_OCTETS = 256 * 1024
# Octets of stanzas that are taken in one turn of the event loop. A read brings up to 256 KiB: when a large server comes
# back, the SIP peers' answers to what follows from a thousand stanzas would wait so long that all is sent again.
# Some thirty messages, which share a commit.
SLICE_OCTETS = 8 * 1024
# Unacknowledged data this old means that the peer's machine is gone, although no FIN ever came.
TCP_USER_TIMEOUT_MILLISECONDS = 30_000


class StreamOwner(Protocol):
    """What the stream tells the link."""

    def stream_ready(self) -> None:
        """The handshake was accepted."""

    def stanza_received(self, stanza: Element) -> None:
        """One child of the stream, in `jabber:component:accept`."""

    def writing_paused(self, is_paused: bool) -> None:
        """The send buffer passed its high or low water mark."""

    def stream_lost(self, condition: str, text: str) -> None:
        """The connection is closed; `condition` is that of the stream error, "" when there was none."""


class ComponentStream(ComponentXMPP):
    """The stream of one business domain. `open` makes one attempt; the owner decides about the next."""

    def __init__(self, domain: str, secret: str, owner: StreamOwner) -> None:
        # Before the base class: its constructor registers bound methods of ours.
        self._owner = owner
        self._error_condition = ""
        self._error_text = ""
        self._connect_error = ""
        self._backlog = b""
        super().__init__(domain, secret)  # type: ignore[no-untyped-call]  # slixmpp 1.17 types this class in part
        self.whitespace_keepalive = False  # the link pings: white space proves nothing about the server
        self.add_event_handler("connection_failed", self._connection_failed)

    async def open(self, host: str, port: int, timeout_seconds: float) -> str:
        """Try once to connect; return "" or why it failed. The handshake is still to come.

        Args:
            host, port: the server's component port.
            timeout_seconds: for the TCP connection.
        """
        self._error_condition = self._error_text = self._connect_error = ""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.connect(host, port)
        except TimeoutError:
            self.cancel_connection_attempt()
            return f"no TCP connection within {timeout_seconds:g} s"
        # A server that closes at once has been here already: `stream_lost` told the owner.
        return self._connect_error

    def write(self, data: bytes) -> int:
        """Write serialised stanzas; return the octets that wait in the send buffer."""
        if self.transport is None:
            return 0
        self.transport.write(data)
        return self.transport.get_write_buffer_size()

    async def close(self, timeout_seconds: float) -> None:
        """End the stream politely, then for certain; and end slixmpp's own task."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self.disconnect(timeout_seconds)
        self.abort()
        self.cancel_connection_attempt()
        if self._run_out_filters is not None:
            self._run_out_filters.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._run_out_filters

    # --- what slixmpp calls ---

    def reschedule_connection_attempt(self) -> None:
        """Nothing: slixmpp would retry by itself, up to every 300 s and without jitter."""

    def connection_made(self, transport: Any, send_event: bool = True) -> None:
        """Tune the socket before the stream header is written."""
        transport.set_write_buffer_limits(high=HIGH_WATER_OCTETS, low=LOW_WATER_OCTETS)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MILLISECONDS)
        super().connection_made(transport, send_event)

    def data_received(self, data: bytes | str) -> None:
        """Take what was read, in slices when it is much."""
        octets = data.encode() if isinstance(data, str) else data
        if not self._backlog and len(octets) <= SLICE_OCTETS:
            super().data_received(octets)
            return
        if not self._backlog:
            asyncio.get_running_loop().call_soon(self._take_slice)
            if self.transport is not None:
                self.transport.pause_reading()
        self._backlog += octets

    def _take_slice(self) -> None:
        octets, self._backlog = self._backlog[:SLICE_OCTETS], self._backlog[SLICE_OCTETS:]
        if octets:
            super().data_received(octets)
        if self._backlog:
            asyncio.get_running_loop().call_soon(self._take_slice)
        elif self.transport is not None:
            self.transport.resume_reading()

    def _handle_handshake(self, xml: Any) -> None:
        super()._handle_handshake(xml)  # type: ignore[no-untyped-call]  # as above
        self._owner.stream_ready()

    def _spawn_event(self, xml: Element) -> None:
        """Take a stanza where slixmpp has parsed it and has not yet built an object of it."""
        if self.sessionstarted and xml.tag != STREAM_ERROR:
            if xml.tag.startswith(_CLIENT):  # COMPAT: servers that do not translate the namespace
                xml.tag = xml.tag.replace(_CLIENT, _COMPONENT, 1)
            self._owner.stanza_received(xml)
        elif xml.tag == STREAM_ERROR:
            self._note_stream_error(xml)
        else:
            super()._spawn_event(xml)  # the handshake

    def _note_stream_error(self, error: Element) -> None:
        for part in error:
            name = part.tag.removeprefix(_STREAM_ERROR_CONDITIONS)
            if name == "text":
                self._error_text = part.text or ""
            elif part.tag.startswith(_STREAM_ERROR_CONDITIONS):
                self._error_condition = name

    def pause_writing(self) -> None:
        """asyncio: the send buffer is above its high-water mark."""
        self._owner.writing_paused(True)

    def resume_writing(self) -> None:
        """asyncio: the send buffer has drained."""
        self._owner.writing_paused(False)

    def connection_lost(self, exception: BaseException | None) -> None:
        """The TCP connection is closed; what it brought before is taken."""
        backlog, self._backlog = self._backlog, b""
        if backlog:
            super().data_received(backlog)
        self.sessionstarted = False
        super().connection_lost(exception)
        text = self._error_text or (str(exception) if exception else "") or "the server closed the stream"
        self._owner.stream_lost(self._error_condition, text)

    def _connection_failed(self, error: object) -> None:
        self._connect_error = str(error) or "the connection failed"
