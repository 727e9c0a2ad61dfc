"""Legs and relays for tests of calls: a leg writes down what it is told, and the test says what the peer does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from isthmus.errors import RelayError
from isthmus.model import Address, Ending, MediaForm
from isthmus.ports import MediaQuality
from isthmus.sdp.session_description import Attribute, MediaDescription, SessionDescription
from isthmus.services.calls.leg import LegEnded, LegEvent, LegSignal, LegSink

_keys = itertools.count(1)

WEBRTC = (Attribute("ice-ufrag", "u"), Attribute("ice-pwd", "p"), Attribute("fingerprint", "sha-256 AA:BB"))
_PROFILES = {
    MediaForm.WEBRTC: "UDP/TLS/RTP/SAVPF",
    MediaForm.DTLS: "UDP/TLS/RTP/SAVP",
    MediaForm.SDES: "RTP/SAVP",
    MediaForm.RTP: "RTP/AVP",
}


def sdp(
    form: MediaForm = MediaForm.RTP, *media: str, port: int = 4000, direction: str = "sendrecv"
) -> SessionDescription:
    """A small description: audio, or the media that are named."""
    keys: tuple[Attribute, ...] = {
        MediaForm.WEBRTC: WEBRTC,
        MediaForm.DTLS: WEBRTC[2:],
        MediaForm.SDES: (Attribute("crypto", "1 AES_CM_128_HMAC_SHA1_80 inline:k"),),
        MediaForm.RTP: (),
    }[form]
    sections = [
        MediaDescription(
            kind,
            port + 2 * number,
            _PROFILES[form],
            ("0",) if kind == "audio" else ("96",),
            attributes=(Attribute("mid", str(number)), Attribute(direction), *keys),
        )
        for number, kind in enumerate(media or ("audio",))
    ]
    return SessionDescription(connection="IN IP4 192.0.2.1", media=tuple(sections))


class ScriptedLeg:
    """Implements `Leg`. `told` is what the call said to it, in order; `tell` lets the peer say something."""

    def __init__(
        self,
        party: Address,
        form: MediaForm = MediaForm.RTP,
        *,
        is_caller: bool = False,
        device: str = "",
    ) -> None:
        self.key = f"leg-{next(_keys)}"
        self.party = party
        self.device = device
        self.is_caller = is_caller
        self.form = form
        self.takes_trickle = True
        self.told: list[tuple[str, Any]] = []
        self.is_over = False
        self._sink: LegSink | None = None
        self._early: list[LegEvent] = []

    # --- the test's side ---

    def tell(self, event: LegEvent) -> None:
        """The peer does something."""
        if self._sink is None:
            self._early.append(event)
        else:
            self._sink(self, event)

    def words(self) -> list[str]:
        """The names of what it was told."""
        return [word for word, _ in self.told]

    def last(self, word: str) -> Any:
        """What came with the last `word`."""
        return next(value for said, value in reversed(self.told) if said == word)

    # --- Leg ---

    def attach(self, sink: LegSink) -> None:
        self._sink = sink
        early, self._early = self._early, []
        for event in early:
            sink(self, event)

    def to_record(self) -> Mapping[str, Any] | None:
        return {"key": self.key}

    def _note(self, word: str, value: Any = None) -> None:
        self.told.append((word, value))

    def _end(self, word: str, ending: Ending) -> None:
        self._note(word, ending)
        if not self.is_over:
            self.is_over = True
            self.tell(LegEnded(ending))

    def invite(self, offer: SessionDescription) -> None:
        self._note("invite", offer)

    def cancel(self, ending: Ending) -> None:
        self._end("cancel", ending)

    def ring(self) -> None:
        self._note("ring")

    def progress(self, early: SessionDescription) -> None:
        self._note("progress", early)

    def accept(self, answer: SessionDescription) -> None:
        self._note("accept", answer)

    def refuse(self, ending: Ending) -> None:
        self._end("refuse", ending)

    def offer(self, offer: SessionDescription) -> None:
        self._note("offer", offer)

    def answer(self, answer: SessionDescription) -> None:
        self._note("answer", answer)

    def refuse_offer(self, ending: Ending) -> None:
        self._note("refuse_offer", ending)

    def add_candidates(self, fragment: SessionDescription) -> None:
        self._note("candidates", fragment)

    def signal(self, signal: LegSignal) -> None:
        self._note("signal", signal)

    def send_digit(self, digit: str, milliseconds: int) -> None:
        self._note("digit", digit)

    def hang_up(self, ending: Ending) -> None:
        self._end("hang_up", ending)


@dataclass
class ScriptedRelay:
    """Implements `MediaRelay`: rewrites port and profile, and counts what is open."""

    is_available: bool = True
    open_sessions: set[int] = field(default_factory=set)
    operations: list[str] = field(default_factory=list)
    on_dead: list[Callable[[], None]] = field(default_factory=list)
    fault: str = ""
    gate: asyncio.Event | None = None

    def open(self, on_dead: Callable[[], None]) -> ScriptedSession:
        if not self.is_available:
            raise RelayError("no media relay answers")
        self.on_dead.append(on_dead)
        session = ScriptedSession(self, len(self.on_dead))
        self.open_sessions.add(session.number)
        return session


class ScriptedSession:
    """Implements `RelaySession`."""

    def __init__(self, relay: ScriptedRelay, number: int) -> None:
        self._relay = relay
        self.number = number

    async def _rewrite(self, what: str, sdp: SessionDescription, by: str, form: MediaForm) -> SessionDescription:
        self._relay.operations.append(f"{what} {self.number} {by}")
        if self._relay.gate is not None:
            await self._relay.gate.wait()
        if self._relay.fault:
            raise RelayError(self._relay.fault)
        media = [
            replace(section, protocol=_PROFILES[form], port=30_000 + number if section.port else 0)
            for number, section in enumerate(sdp.media)
        ]
        return replace(sdp, connection="IN IP4 192.0.2.99", media=tuple(media))

    async def offer(self, sdp: SessionDescription, *, by: str, to: str, form: MediaForm) -> SessionDescription:
        return await self._rewrite("offer", sdp, by, form)

    async def answer(self, sdp: SessionDescription, *, by: str, to: str, form: MediaForm) -> SessionDescription:
        return await self._rewrite("answer", sdp, by, form)

    async def add_candidates(self, fragment: SessionDescription, *, by: str) -> None:
        self._relay.operations.append(f"candidates {self.number} {by}")

    async def drop(self, party: str) -> None:
        self._relay.operations.append(f"drop {self.number} {party}")

    async def quality(self) -> tuple[MediaQuality, ...]:
        return ()

    async def delete(self) -> tuple[MediaQuality, ...]:
        self._relay.open_sessions.discard(self.number)
        return (MediaQuality("audio", "", 100, 16_000, 1, 2.0, 3.0, 4.2),)
