"""Media relays (rtpengine NG), and what they count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from isthmus.model import MediaForm
from isthmus.sdp.session_description import SessionDescription


@dataclass(frozen=True, slots=True)
class MediaQuality:
    """What the relay counted for one direction of one medium (RFC 3550 sections 6.4 and A).

    Attributes:
        media: "audio" or "video".
        party: key of the leg that sent it.
        packets, octets, lost: counts.
        jitter_ms, round_trip_ms: latest or mean values, None when unknown.
        mos: mean opinion score 1.0 to 5.0 as the relay computed it, None when unknown.
    """

    media: str
    party: str
    packets: int
    octets: int
    lost: int = 0
    jitter_ms: float | None = None
    round_trip_ms: float | None = None
    mos: float | None = None


class RelaySession(Protocol):
    """One call's media in one relay (rtpengine NG). Operations of one session are made one after the other.

    `by` names who said this description, `to` the other end (keys of legs). `form` is what the description must look
    like on the other side. What comes back is ready to be sent there.
    """

    async def offer(self, sdp: SessionDescription, *, by: str, to: str, form: MediaForm) -> SessionDescription:
        """Rewrite an offer. Raises RelayError."""

    async def answer(self, sdp: SessionDescription, *, by: str, to: str, form: MediaForm) -> SessionDescription:
        """Rewrite the answer to the last offer; `form` is that of the offerer's side. Raises RelayError."""

    async def add_candidates(self, fragment: SessionDescription, *, by: str) -> None:
        """Feed trickled candidates (RFC 8840); failures are only traced: ICE finds peer-reflexive ones."""

    async def drop(self, party: str) -> None:
        """Take an end out that left while the others go on: a device that lost the race, one that transferred the call.

        Nothing of it reaches the others any more, and its ports are free; never raises.
        """

    async def quality(self) -> tuple[MediaQuality, ...]:
        """Ask for the counters; empty when the relay does not answer."""

    async def delete(self) -> tuple[MediaQuality, ...]:
        """End it and return the last counters; never raises."""


class MediaRelay(Protocol):
    """All relays there are."""

    @property
    def is_available(self) -> bool:
        """True when at least one answers."""

    def open(self, on_dead: Callable[[], None]) -> RelaySession:
        """Choose the least loaded relay for a new call; nothing is sent yet.

        Args:
            on_dead: called once when the relay is lost or says that no media have come for too long.

        Raises:
            RelayError: no relay answers.
        """
