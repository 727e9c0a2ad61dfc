"""One rtpengine as we know it: whether it answers, how busy it is, and which of its calls are ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from isthmus.errors import RelayError
from isthmus.interworking import relay_commands
from isthmus.metrics import Metrics
from isthmus.net.rtpengine_ng import NgAddress, NgClient, RelayRefusedError
from isthmus.net.rtpengine_session import RtpengineSession
from isthmus.trace import Trace

# A relay that died is known before the next call but one is placed.
BEAT_SECONDS = 2.0
# Every so many beats its load is asked for and its calls are looked at.
BEATS_PER_EXAMINATION = 5
# A relay that is silent for so long is not coming back with the calls it had: they are given up.
LOST_SECONDS = 15.0
# One reply is one datagram: so many call ids are sure to fit into it.
MAXIMUM_LISTED = 500


class RtpengineInstance:
    """One relay, watched.

    Args:
        address: where it takes commands.
        prefix: what our call ids begin with; nobody else's do.
        trace: where its coming and going is told.
        metrics: counts commands and failures.
        on_change: called when it comes up or goes down.
    """

    def __init__(
        self,
        address: NgAddress,
        prefix: str,
        *,
        trace: Trace,
        metrics: Metrics,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = str(address)
        self.is_up = False
        self.trouble = "it was not asked yet"
        self._client = NgClient(address)
        self._prefix = prefix
        self._trace = trace
        self._metrics = metrics
        self._on_change = on_change
        self._sessions: dict[str, RtpengineSession] = {}
        self._calls_of_others = 0
        self._silent_since: float | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._beat_now = asyncio.Event()

    # --- what others see ---

    @property
    def sessions(self) -> int:
        """How many calls of ours it has."""
        return len(self._sessions)

    @property
    def load(self) -> int:
        """How many calls it has, as far as known: ours now, and those of others when it was last asked."""
        return len(self._sessions) + self._calls_of_others

    def add(self, session: RtpengineSession) -> None:
        """This session's call is (about to be) here."""
        self._sessions[session.call_id] = session

    def remove(self, session: RtpengineSession) -> None:
        """It is not here any more."""
        self._sessions.pop(session.call_id, None)

    async def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a command. Raises RelayError."""
        loop = asyncio.get_running_loop()
        began, what = loop.time(), str(command["command"])
        try:
            reply = await self._client.ask(command)
        except RelayRefusedError:
            self._metrics.relay_failures.add(what, "refused")
            raise
        except RelayError as error:
            self._metrics.relay_failures.add(what, "silent")
            self._is_silent(str(error))
            raise
        finally:
            self._metrics.relay_commands.observe(loop.time() - began, what)
        return reply

    # --- life ---

    async def start(self) -> None:
        """Ask it for the first time and watch it from now on."""
        await self._beat()
        self._watcher = asyncio.create_task(self._watch(), name=f"rtpengine {self.name}")

    async def stop(self) -> None:
        """End the watching; calls that are still there are ended."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self.is_up:
            await asyncio.gather(*(session.delete() for session in tuple(self._sessions.values())))
        self._client.close()

    def look_now(self) -> None:
        """Do not wait for the next beat: something has happened to it (its process was started again)."""
        self._beat_now.set()

    async def _watch(self) -> None:
        beats = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._beat_now.wait()
                    beats = -1
            self._beat_now.clear()
            await self._beat()
            beats += 1
            if self.is_up and beats % BEATS_PER_EXAMINATION == 0:
                await self._examine()

    async def _beat(self) -> None:
        try:
            await self.ask({"command": "ping"})
        except RelayError as error:
            self._is_silent(str(error))
            silent_for = asyncio.get_running_loop().time() - (self._silent_since or 0)
            if silent_for >= LOST_SECONDS:
                for session in tuple(self._sessions.values()):
                    session.lost(f"the relay has not answered for {silent_for:.0f} s")
            return
        if not self.is_up:
            await self._came_up()

    def _is_silent(self, why: str) -> None:
        if self._silent_since is None:
            self._silent_since = asyncio.get_running_loop().time()
        self.trouble = why
        if self.is_up:
            self.is_up = False
            self._trace.decision(f"media relay {self.name} is lost: {why}", rule="media.relay", mark="!")
            self._on_change()

    async def _came_up(self) -> None:
        self.is_up, self.trouble, self._silent_since = True, "", None
        self._trace.decision(f"media relay {self.name} answers", rule="media.relay")
        await self._forget_orphans()
        await self._examine()
        self._on_change()

    # --- looking ---

    async def _examine(self) -> None:
        try:
            reply = await self.ask({"command": "statistics"})
        except RelayError:
            return
        statistics = reply.get("statistics")
        current = statistics.get("currentstatistics") if isinstance(statistics, dict) else None
        total = current.get("sessionstotal") if isinstance(current, dict) else None
        if isinstance(total, int):
            self._calls_of_others = max(0, total - len(self._sessions))
        for session in tuple(self._sessions.values()):
            await session.examine()

    async def _forget_orphans(self) -> None:
        """Delete calls of a run of ours that ended without doing so; nobody else's call id has our prefix."""
        gone: set[str] = set()
        while True:
            try:
                reply = await self.ask({"command": "list", "limit": MAXIMUM_LISTED})
                calls = reply.get("calls")
                listed = {str(call) for call in calls} if isinstance(calls, list) else set()
                orphans = {call for call in listed if call.startswith(self._prefix)} - self._sessions.keys() - gone
                for call_id in orphans:
                    await self.ask(relay_commands.deletion(call_id))
            except RelayError as error:
                self._trace.decision(f"old calls could not be ended: {error}", rule="media.relay", mark="!")
                return
            if not orphans:
                break
            gone |= orphans
        if gone:
            self._trace.decision(f"{len(gone)} calls of an earlier run were ended in {self.name}", rule="media.relay")
