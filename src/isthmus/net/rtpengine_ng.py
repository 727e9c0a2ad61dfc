"""The NG control protocol of rtpengine: JSON over UDP, `<cookie> <object>`, repeated under the same cookie.

`NgConversation` is the protocol without I/O; `NgClient` the socket and the timer around it. The relay remembers what it
answered to a cookie, so that a repeat is answered again and not carried out again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from isthmus.errors import RelayError

# Repeats are quick at first: on loopback or in one rack an answer takes a millisecond, so silence means loss.
FIRST_REPEAT_SECONDS = 0.25
# Above it somebody waits for a phone to ring: the caller goes to another relay, or learns that there is none.
PATIENCE_SECONDS = 2.0
# One datagram (a query of a call with video has 10 KiB), and nobody can make us keep more than this many questions.
MAXIMUM_DATAGRAM = 65_507
MAXIMUM_PENDING = 10_000


class RelayRefusedError(RelayError):
    """The relay answered, with an error; the text is its own.

    Attributes:
        is_full: it takes no more calls now (another one may).
    """

    def __init__(self, text: str, *, is_full: bool = False) -> None:
        super().__init__(text)
        self.is_full = is_full


class NgAddress(NamedTuple):
    """Where a relay takes commands."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if ":" not in self.host else f"[{self.host}]:{self.port}"


@dataclass(frozen=True, slots=True)
class NgAnswered:
    """The relay answered a command; `reply` is the JSON object as it came."""

    cookie: str
    reply: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NgUnanswered:
    """Nothing came in time; whether the command was carried out is not known."""

    cookie: str


@dataclass(slots=True)
class _Pending:
    datagram: bytes
    repeat_at: float
    interval: float
    give_up_at: float


class NgConversation:
    """Commands on their way to one relay.

    Args:
        cookie: makes a string without blanks that was never used before.
        patience_seconds: after that a command is unanswered.
    """

    def __init__(self, cookie: Callable[[], str], *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._cookie = cookie
        self._patience_seconds = patience_seconds
        self._pending: dict[str, _Pending] = {}

    def ask(self, command: Mapping[str, Any], now: float) -> tuple[str, bytes]:
        """Return the cookie of a new command and the datagram to send.

        Raises:
            RelayError: it does not fit into a datagram, or too many commands wait already.
        """
        if len(self._pending) >= MAXIMUM_PENDING:
            raise RelayError("too many commands wait for the media relay")
        cookie = self._cookie()
        datagram = cookie.encode() + b" " + orjson.dumps(command)
        if len(datagram) > MAXIMUM_DATAGRAM:
            raise RelayError("the command is too long for the media relay")
        interval = FIRST_REPEAT_SECONDS
        self._pending[cookie] = _Pending(datagram, now + interval, interval, now + self._patience_seconds)
        return cookie, datagram

    def receive(self, datagram: bytes) -> NgAnswered | None:
        """Take a datagram; None for what answers no question of ours (a repeat, a stray, rubbish)."""
        head, _, body = datagram.partition(b" ")
        cookie = head.decode("ascii", "replace")
        if cookie not in self._pending:
            return None
        try:
            reply = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(reply, dict):
            return None
        del self._pending[cookie]
        return NgAnswered(cookie, reply)

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do; None while nothing waits."""
        return min((min(one.repeat_at, one.give_up_at) for one in self._pending.values()), default=None)

    def handle_timer(self, now: float) -> tuple[list[bytes], list[NgUnanswered]]:
        """Return the datagrams to send again, and the commands to give up."""
        repeats, ended = [], []
        for cookie, one in list(self._pending.items()):
            if now >= one.give_up_at:
                del self._pending[cookie]
                ended.append(NgUnanswered(cookie))
            elif now >= one.repeat_at:
                one.interval *= 2
                one.repeat_at = now + one.interval
                repeats.append(one.datagram)
        return repeats, ended

    def abandon(self) -> list[NgUnanswered]:
        """Give up everything: nobody listens there."""
        ended = [NgUnanswered(cookie) for cookie in self._pending]
        self._pending.clear()
        return ended


class NgClient(asyncio.DatagramProtocol):
    """One relay's control socket.

    Args:
        address: where it takes commands.
        patience_seconds: after that it counts as silent.
    """

    def __init__(self, address: NgAddress, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.address = address
        # 96 random bits: a stranger who does not see our datagrams cannot answer in the relay's place.
        self._conversation = NgConversation(lambda: secrets.token_hex(12), patience_seconds=patience_seconds)
        self._waiting: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._opening = asyncio.Lock()

    async def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a command and return the reply when its result is "ok" or "pong".

        Raises:
            RelayError: the relay does not answer, or refuses; then with its own words.
        """
        transport = await self._open()
        loop = asyncio.get_running_loop()
        cookie, datagram = self._conversation.ask(command, loop.time())
        future: asyncio.Future[Mapping[str, Any]] = loop.create_future()
        self._waiting[cookie] = future
        transport.sendto(datagram)
        self._arm()
        try:
            reply = await future
        finally:
            self._waiting.pop(cookie, None)
        result = reply.get("result")
        if result not in {"ok", "pong"}:
            text = str(reply.get("error-reason") or reply.get("message") or result or "no result")[:200]
            raise RelayRefusedError(text, is_full=result == "load limit" or "session limit" in text.lower())
        return reply

    async def _open(self) -> asyncio.DatagramTransport:
        async with self._opening:
            if self._transport is None or self._transport.is_closing():
                try:
                    self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                        lambda: self, remote_addr=self.address
                    )
                except OSError as error:
                    raise self._silent(error.strerror or str(error)) from error
            return self._transport

    def close(self) -> None:
        """Close the socket; whoever waits gets an error."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._give_up(self._conversation.abandon(), "the connection was closed")
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # --- asyncio.DatagramProtocol ---

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Hand a reply to whoever waits for it."""
        answered = self._conversation.receive(data)
        future = self._waiting.get(answered.cookie) if answered else None
        if answered is not None and future is not None and not future.done():
            future.set_result(answered.reply)
        self._arm()

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there (ICMP): waiting longer would not help."""
        self._give_up(self._conversation.abandon(), getattr(exc, "strerror", None) or str(exc))
        # libuv may not look at a socket again that had an error: the next command gets a new one.
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # --- time ---

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._conversation.next_deadline()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(deadline, self._timer_fired) if deadline is not None else None

    def _timer_fired(self) -> None:
        repeats, ended = self._conversation.handle_timer(asyncio.get_running_loop().time())
        if self._transport is not None:
            for datagram in repeats:
                self._transport.sendto(datagram)
        self._give_up(ended, "no answer")
        self._arm()

    def _give_up(self, ended: list[NgUnanswered], why: str) -> None:
        for one in ended:
            future = self._waiting.get(one.cookie)
            if future is not None and not future.done():
                future.set_exception(self._silent(why))

    def _silent(self, why: str) -> RelayError:
        return RelayError(f"the media relay at {self.address} does not answer ({why})")
