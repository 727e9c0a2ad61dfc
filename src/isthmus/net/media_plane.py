"""Everything that media go through: the relays, and the embedded rtpengine and coturn behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from isthmus.config import Configuration, parse_relay
from isthmus.metrics import Metrics
from isthmus.net.companion_process import CompanionProcess
from isthmus.net.coturn_process import CoturnProcess
from isthmus.net.rtp_echo import RtpEcho
from isthmus.net.rtpengine import RtpengineRelays
from isthmus.net.rtpengine_ng import NgAddress
from isthmus.net.rtpengine_process import RtpengineProcess
from isthmus.trace import Trace


class MediaPlane:
    """Relays and TURN of this installation. None of it is needed for messages, so nothing here stops a start.

    Args:
        configuration: the whole configuration.
        identity: names this installation to relays it shares with others (`RtpengineRelays`).
        trace, metrics: where it is told and counted.
    """

    def __init__(self, configuration: Configuration, *, identity: str, trace: Trace, metrics: Metrics) -> None:
        media, turn = configuration.media, configuration.turn
        self.rtpengine = RtpengineProcess(configuration, trace=trace) if media.embedded else None
        self.coturn = (
            CoturnProcess(configuration, trace=trace) if turn.embedded and turn.secret.get_secret_value() else None
        )
        addresses = [NgAddress(*parse_relay(relay)) for relay in media.ng]
        if self.rtpengine is not None and self.rtpengine.is_installed:
            addresses.insert(0, self.rtpengine.address)
        self.relays = RtpengineRelays(
            addresses,
            identity=identity,
            trace=trace,
            metrics=metrics,
            silence_seconds=media.silence_seconds,
            shows_bodies=configuration.log.bodies,
        )
        self.echo = RtpEcho()
        if self.rtpengine is not None:
            # Its calls are gone: their owners need not wait for the next beat.
            self.rtpengine.on_started = self.relays.look_now
        metrics.watch(
            "isthmus_relay_up",
            "1 while a media relay answers",
            lambda: {(name,): float(is_up) for name, is_up in self.relays.states().items()},
            ("relay",),
        )
        metrics.watch(
            "isthmus_relay_sessions",
            "Calls in each media relay",
            lambda: {(one.name,): float(one.sessions) for one in self.relays.instances},
            ("relay",),
        )

    @property
    def _companions(self) -> Sequence[CompanionProcess]:
        return [process for process in (self.rtpengine, self.coturn) if process is not None]

    async def start(self) -> None:
        """Bring everything up that can be; what cannot is told, and tried again."""
        await asyncio.gather(*(process.start() for process in self._companions))
        await self.relays.start()

    async def stop(self) -> None:
        """End what calls are left, and the processes."""
        self.echo.close()
        await self.relays.stop()
        await asyncio.gather(*(process.stop() for process in self._companions))

    def status(self) -> Mapping[str, object]:
        """Return the lines of `isthmus status`."""
        relays = [f"{name} {'up' if is_up else 'down'}" for name, is_up in self.relays.states().items()]
        told: dict[str, object] = {"media_relays": relays}
        if self.coturn is not None:
            told["turn"] = "up" if self.coturn.pid is not None else f"down: {self.coturn.trouble}"
        return told
