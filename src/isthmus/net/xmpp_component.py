"""The link to the XMPP server as component of one business domain (XEP-0114); implements `ports.XmppLink`.

Stanzas that are lost with the connection are not repeated here: the journal does that, and `barrier` tells it how far
the server came.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any
from xml.etree.ElementTree import Element, fromstring, tostring

from isthmus.config import XmppSettings
from isthmus.errors import LinkDownError
from isthmus.net.xmpp_answers import AwaitedAnswers
from isthmus.net.xmpp_backoff import Backoff
from isthmus.net.xmpp_queries import QueryResponder, error_answer
from isthmus.net.xmpp_stream import ComponentStream
from isthmus.net.xmpp_wire_trace import trace_stanza
from isthmus.ports import StanzaSink
from isthmus.trace import Trace

log = logging.getLogger(__name__)

_MESSAGE = "{jabber:component:accept}message"
_PRESENCE = "{jabber:component:accept}presence"
_IQ = "{jabber:component:accept}iq"

CONNECT_SECONDS = 10.0
HANDSHAKE_SECONDS = 10.0
CLOSE_SECONDS = 2.0
# A silent server is pinged after one interval and given up after the third: at most 45 s to notice a dead machine.
WATCH_SECONDS = 15.0
MAXIMUM_SILENT_INTERVALS = 3
# A connection that lasted this long was a good one: the next loss begins with the shortest delay again.
LASTING_SECONDS = 5.0
# The reader has stopped: what waits is in the journal anyway, and memory is not.
MAXIMUM_WAITING_OCTETS = 64 * 1024 * 1024
# IQs that wait for a profile; each is a task. A client asks a handful, a flood gets resource-constraint.
MAXIMUM_OPEN_QUERIES = 1_000
# Of these so many are answered at a time, and none while the server is behind: an answer may hold a photo.
MAXIMUM_ANSWERS_AT_ONCE = 16

_REMEDIES = {
    "not-authorized": 'the server refused our secret; make component_secret of Component "{domain}" on the server '
    "equal to component_secret of the domain in isthmus.toml",
    "conflict": "another component is connected under this name; stop the other instance, or wait until the server "
    "has noticed that it is gone",
    "host-unknown": 'the server knows no such component; add Component "{domain}" to its configuration '
    "(isthmus prosody-config prints it)",
}


class ComponentLink:
    """One business domain's stream, kept up. Make and use it inside the event loop.

    Args:
        domain: the business domain, which is the component's name.
        secret: shared with the server.
        settings: where the server is.
        sink: who takes messages and presence.
        responder: who answers IQs to our users.
        trace: wire lines and decisions.
        shows_bodies: leave message bodies in wire lines.
        random_fraction: 0.0 to 1.0, for the jitter of reconnects.
    """

    def __init__(
        self,
        domain: str,
        secret: str,
        settings: XmppSettings,
        *,
        sink: StanzaSink,
        responder: QueryResponder,
        trace: Trace,
        shows_bodies: bool = False,
        random_fraction: Callable[[], float] = random.random,
    ) -> None:
        self.domain = domain
        self._settings = settings
        self._sink = sink
        self._responder = responder
        self._trace = trace
        self._shows_bodies = shows_bodies
        self._trace_name = f"xmpp {domain}"
        self._loop = asyncio.get_running_loop()
        self._stream = ComponentStream(domain, secret, self)
        self._backoff = Backoff(settings.reconnect_maximum_seconds, random_fraction)
        self._supervisor: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._ended: asyncio.Future[tuple[str, str]] = self._loop.create_future()
        self._drained = asyncio.Event()
        self._drained.set()
        self._is_up = False
        self._last_trouble = ""
        self._answers = AwaitedAnswers(domain)
        self._outbox: list[str] = []
        self._is_flush_due = False
        self._open_answers: set[asyncio.Task[None]] = set()
        self._answering = asyncio.Semaphore(MAXIMUM_ANSWERS_AT_ONCE)
        self._has_received = False
        self._silent_intervals = 0
        self._watch: asyncio.TimerHandle | None = None

    # --- life ---

    @property
    def is_connected(self) -> bool:
        """True between handshake and loss."""
        return self._is_up

    @property
    def is_congested(self) -> bool:
        """True while the server reads more slowly than we write: wait in `drained` before sending more."""
        return not self._drained.is_set()

    async def drained(self) -> None:
        """Return when the link is not congested (or has been lost, which `send` will tell)."""
        await self._drained.wait()

    async def connected(self) -> None:
        """Return when the link is up."""
        await self._up.wait()

    def start(self) -> None:
        """Begin to connect, and to reconnect after every loss, until `stop`."""
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._keep_connected(), name=f"link {self.domain}")

    async def stop(self) -> None:
        """Write what was sent, end the stream and stay down; outstanding barriers and queries fail."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        self._flush()
        for task in tuple(self._open_answers):
            task.cancel()
        await self._stream.close(CLOSE_SECONDS)

    # --- sending ---

    def send(self, stanza: str) -> None:
        """Write one serialised stanza; all of one turn of the event loop leave in one write.

        Raises:
            LinkDownError: not connected; the stanza was not taken.
        """
        if not self._is_up:
            raise LinkDownError(f"the component {self.domain} is not connected")
        self._outbox.append(stanza)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        if self._trace.is_listened_to:
            self._trace_stanza(">", stanza)

    async def barrier(self) -> None:
        """Return when the server has processed all that was sent before, in order.

        The component pings its own name: the server routes the ping back on the same stream, after everything that
        came before it, whatever becomes of other hosts. Callers in one turn of the event loop share one ping.

        Raises:
            LinkDownError: the link was lost first; the stanzas before it may or may not have been processed.
        """
        if not self._is_up:
            raise LinkDownError(f"the component {self.domain} is not connected")
        self._flush_soon()
        await asyncio.shield(self._answers.barrier())

    async def query(self, iq: str, stanza_id: str, timeout_seconds: float = 20.0) -> Element:
        """Send an IQ get or set and return its answer, a result or an error.

        Args:
            iq: the serialised stanza, with `to`.
            stanza_id: its `id`; unique and not guessable.
            timeout_seconds: how long to wait for the answer.

        Raises:
            LinkDownError: not connected, or lost before the answer.
            RequestTimeoutError: no answer in time.
        """
        recipient = fromstring(iq).get("to", "")  # noqa: S314 - our own text, not a stranger's
        return await self._answers.query(lambda: self.send(iq), stanza_id, recipient, timeout_seconds)

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self._is_up:
            return
        outbox, self._outbox = self._outbox, []
        outbox.append(self._answers.ping_to_write())
        # "replace": a lone surrogate must not take the rest of the batch with it.
        waiting = self._stream.write("".join(outbox).encode("utf-8", "replace"))
        if waiting > MAXIMUM_WAITING_OCTETS:
            self._give_up("the server has stopped reading")

    # --- what the stream tells (xmpp_stream.StreamOwner) ---

    def stream_ready(self) -> None:
        """The handshake was accepted."""
        self._is_up = True
        self._last_trouble = ""
        self._silent_intervals = 0
        self._has_received = True
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look)
        self._up.set()
        self._trace.decision(f"the component {self.domain} is connected", people=(self.domain,), rule="xmpp.link")
        self._tell_sink(self._sink.link_up)

    def stanza_received(self, stanza: Element) -> None:
        """Sort one stanza; nothing that a receiver raises may end the stream."""
        self._has_received = True
        tag = stanza.tag
        if self._trace.is_listened_to:
            self._trace_stanza("<", tostring(stanza, encoding="unicode"))
        try:
            if tag == _MESSAGE:
                self._sink.message_received(self, stanza)
            elif tag == _PRESENCE:
                self._sink.presence_received(self, stanza)
            elif tag == _IQ and not self._answers.take(stanza):
                self._answer(stanza)
        except Exception:
            log.exception("a receiver failed on a stanza of %s", self.domain)

    def writing_paused(self, is_paused: bool) -> None:
        """The send buffer passed a water mark."""
        if is_paused:
            self._drained.clear()
        else:
            self._drained.set()

    def stream_lost(self, condition: str, text: str) -> None:
        """The connection is closed, or never came to a handshake."""
        was_up, self._is_up = self._is_up, False
        self._up.clear()
        self._drained.set()
        self._outbox.clear()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._answers.fail(lambda: LinkDownError(f"the component {self.domain} lost its connection"))
        if not self._ended.done():
            self._ended.set_result((condition, text))
        if was_up:
            self._tell_sink(self._sink.link_down)

    def _tell_sink(self, tell: Callable[[ComponentLink], None]) -> None:
        try:
            tell(self)
        except Exception:
            log.exception("a receiver failed on a change of the link %s", self.domain)

    # --- IQs ---

    def _answer(self, iq: Element) -> None:
        answer = self._responder.answer(iq)
        if isinstance(answer, str):
            self.send(answer)
        elif answer is not None:
            if len(self._open_answers) >= MAXIMUM_OPEN_QUERIES:
                answer.close()
                self.send(error_answer(iq, "resource-constraint"))
                return
            task = self._loop.create_task(self._send_answer(answer))
            self._open_answers.add(task)
            task.add_done_callback(self._open_answers.discard)

    async def _send_answer(self, answer: Coroutine[Any, Any, str]) -> None:
        try:
            async with self._answering:
                await self._drained.wait()
                self.send(await answer)
                await asyncio.sleep(0)  # it is written now, and the next one sees whether the server keeps up
        except LinkDownError:
            pass  # nobody is left to hear it
        finally:
            answer.close()

    # --- staying connected ---

    async def _keep_connected(self) -> None:
        while True:
            self._ended = self._loop.create_future()
            began = self._loop.time()
            condition, text = await self._connect_and_stay()
            if self._loop.time() - began > LASTING_SECONDS:
                self._backoff.reset()
            remedy = _REMEDIES.get(condition, "").format(domain=self.domain)
            self._tell_trouble(f"{text} ({condition}): {remedy}" if remedy else text or condition)
            await asyncio.sleep(self._backoff.next_delay(is_hopeless=bool(remedy)))

    async def _connect_and_stay(self) -> tuple[str, str]:
        """Return stream error condition and text of why it ended."""
        host, port = self._settings.host, self._settings.component_port
        failure = await self._stream.open(host, port, CONNECT_SECONDS)
        if failure:
            return "", f"{host}:{port} cannot be reached: {failure}"
        handshake = self._loop.call_later(HANDSHAKE_SECONDS, self._check_handshake)
        try:
            return await self._ended
        finally:
            handshake.cancel()

    def _check_handshake(self) -> None:
        if not self._is_up:
            self._give_up(f"no component handshake within {HANDSHAKE_SECONDS:g} s")

    def _tell_trouble(self, trouble: str) -> None:
        """Say it once, not at every attempt: the recent decisions are a bounded list."""
        if trouble != self._last_trouble:
            self._last_trouble = trouble
            text = f"the component {self.domain} is not connected: {trouble}"
            self._trace.decision(text, people=(self.domain,), rule="xmpp.link", mark="!")
            log.warning("%s", text)

    def _give_up(self, reason: str) -> None:
        """Drop a connection that is of no use; `stream_lost` follows."""
        self._trace.decision(f"the component {self.domain} drops its connection: {reason}", rule="xmpp.link", mark="x")
        self._stream.abort()

    def _look(self) -> None:
        """Every `WATCH_SECONDS`: ping a silent server, give up a dead one."""
        if self._has_received:
            self._has_received = False
            self._silent_intervals = 0
        else:
            self._silent_intervals += 1
            if self._silent_intervals >= MAXIMUM_SILENT_INTERVALS:
                self._give_up(f"the server has not answered for {WATCH_SECONDS * self._silent_intervals:g} s")
                return
            self._trace.wire("%", self._trace_name, "ping")
            self._answers.barrier()
            self._flush_soon()
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look)

    def _trace_stanza(self, mark: str, text: str) -> None:
        trace_stanza(self._trace, mark, self._trace_name, text, shows_bodies=self._shows_bodies)
