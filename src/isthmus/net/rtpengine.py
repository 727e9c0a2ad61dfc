"""All media relays there are (`ports.MediaRelay`): a new call goes to the least busy that answers, else to the next."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping

from isthmus.errors import RelayError
from isthmus.metrics import Metrics
from isthmus.net.rtpengine_instance import RtpengineInstance
from isthmus.net.rtpengine_ng import NgAddress
from isthmus.net.rtpengine_session import RtpengineSession
from isthmus.trace import Trace


class RtpengineRelays:
    """Implements `ports.MediaRelay`.

    Args:
        addresses: where the relays take commands.
        identity: names this installation, the same over restarts and like no other's, so that calls of an earlier run
            can be told from those of others who share the relay.
        trace, metrics: where it is told and counted.
        silence_seconds: an end of a call that is not heard of for so long has gone; 0: never.
        shows_bodies: session descriptions in the trace.
    """

    def __init__(
        self,
        addresses: Iterable[NgAddress],
        *,
        identity: str,
        trace: Trace,
        metrics: Metrics,
        silence_seconds: float = 0.0,
        shows_bodies: bool = False,
    ) -> None:
        self._prefix = f"isthmus-{identity}-"
        self._trace = trace
        self._silence_seconds = silence_seconds
        self._shows_bodies = shows_bodies
        self.instances = [
            RtpengineInstance(address, self._prefix, trace=trace, metrics=metrics) for address in addresses
        ]

    async def start(self) -> None:
        """Ask all of them, and watch them; one that does not answer is asked again until it does."""
        await asyncio.gather(*(instance.start() for instance in self.instances))

    async def stop(self) -> None:
        """End what calls are left, and the watching."""
        await asyncio.gather(*(instance.stop() for instance in self.instances))

    @property
    def is_available(self) -> bool:
        """True when at least one answers."""
        return any(instance.is_up for instance in self.instances)

    @property
    def sessions(self) -> int:
        """How many calls the relays have of ours."""
        return sum(instance.sessions for instance in self.instances)

    def states(self) -> Mapping[str, bool]:
        """Which of them answer, by address."""
        return {instance.name: instance.is_up for instance in self.instances}

    def open(self, on_dead: Callable[[], None]) -> RtpengineSession:
        """Choose a relay for a new call (`ports.MediaRelay.open`). Raises RelayError."""
        candidates = sorted((one for one in self.instances if one.is_up), key=lambda one: one.load)
        if not candidates:
            raise RelayError(self._why_none())
        return RtpengineSession(
            self._prefix + secrets.token_hex(12),
            [*candidates],
            on_dead,
            trace=self._trace,
            silence_seconds=self._silence_seconds,
            shows_bodies=self._shows_bodies,
        )

    def _why_none(self) -> str:
        if not self.instances:
            return "there is no media relay: set media.embedded, or name one in media.ng"
        return "; ".join(f"{instance.trouble}" for instance in self.instances)

    def look_now(self) -> None:
        """Ask all of them at once: something has happened."""
        for instance in self.instances:
            instance.look_now()
