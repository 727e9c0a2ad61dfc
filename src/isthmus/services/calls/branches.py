"""The devices that ring for one call: invited each with media it can take, and stopped when one has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from isthmus.errors import IsthmusError
from isthmus.model import EndCause, Ending, MediaForm, Origin
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import Leg, LegSink
from isthmus.services.calls.media_path import CallMedia, MediaPath, NoPathError, PathKind
from isthmus.services.calls.ringing import Ring

_log = structlog.get_logger(__name__)

# Candidates that a device sent before it answered; a client with many addresses sends some thirty.
MAXIMUM_HELD_CANDIDATES = 64


@dataclass(slots=True)
class Branch:
    """A leg that rings.

    Attributes:
        ring: how it was made.
        leg: the leg.
        path: the way its media would take.
        offer: what it was offered.
        forms_left: what to try when it refuses the media.
        held: candidates that came before its answer.
    """

    ring: Ring
    leg: Leg
    path: MediaPath
    offer: SessionDescription
    forms_left: tuple[MediaForm, ...]
    held: list[SessionDescription] = field(default_factory=list)

    def hold(self, fragment: SessionDescription) -> None:
        """Keep candidates until the device answers."""
        if len(self.held) < MAXIMUM_HELD_CANDIDATES:
            self.held.append(fragment)


class Branches:
    """All devices that ring for one end.

    Attributes:
        refusals: how those ended that will not answer.
    """

    def __init__(self, end: Leg, media: CallMedia, wanted: PathKind, sink: LegSink) -> None:
        """Prepare.

        Args:
            end: the leg that is to be connected to whoever answers.
            media: ways for media.
            wanted: what policy says of them.
            sink: takes the legs' events.
        """
        self._end = end
        self._media = media
        self._wanted = wanted
        self._sink = sink
        self._ringing: dict[str, Branch] = {}
        self.refusals: list[Ending] = []

    def __len__(self) -> int:
        return len(self._ringing)

    def __contains__(self, leg: Leg) -> bool:
        return leg.key in self._ringing

    def __getitem__(self, leg: Leg) -> Branch:
        return self._ringing[leg.key]

    def all(self) -> tuple[Branch, ...]:
        """Those that ring now."""
        return tuple(self._ringing.values())

    def pop(self, leg: Leg) -> Branch:
        """Take one out: it answered, or is over."""
        return self._ringing.pop(leg.key)

    async def ring(self, ring: Ring, offer: SessionDescription, forms: tuple[MediaForm, ...] | None = None) -> None:
        """Invite a device with the first form that there is a way for; with none it counts as refused."""
        left = ring.forms if forms is None else forms
        while left:
            form, left = left[0], left[1:]
            leg = ring.make(form)
            try:
                path = self._media.choose(self._end.form, form, self._wanted)
                told = await path.offer(offer, by=self._end, to=leg)
            except (IsthmusError, NoPathError) as error:
                origin = Origin.POLICY if self._wanted is PathKind.DIRECT else Origin.LOCAL
                self.refusals.append(Ending(EndCause.OVERLOADED, str(error), origin))
                continue
            self._ringing[leg.key] = Branch(ring, leg, path, told, left)
            leg.attach(self._sink)
            leg.invite(told)
            return

    async def ended(self, leg: Leg, ending: Ending, offer: SessionDescription) -> bool:
        """A device will not answer; try its next form where it was about the media. True when it rings again."""
        branch = self.pop(leg)
        await self._media.drop(leg)
        if ending.cause in (EndCause.MEDIA_MISMATCH, EndCause.SECURITY) and branch.forms_left:
            before = len(self._ringing)
            await self.ring(branch.ring, offer, branch.forms_left)
            return len(self._ringing) > before
        self.refusals.append(ending)
        return False

    def stop(self, ending: Ending) -> None:
        """Let all of them stop ringing."""
        ringing, self._ringing = self._ringing, {}
        for branch in ringing.values():
            branch.leg.cancel(ending)
            asyncio.ensure_future(self._media.drop(branch.leg)).add_done_callback(_dropped)

    def best_refusal(self) -> Ending:
        """Return the refusal that tells the caller most: what a person did before what a machine could not."""
        return best_refusal(self.refusals)


def best_refusal(endings: Sequence[Ending]) -> Ending:
    """Return the ending that tells most; without any, nobody could be reached."""
    if not endings:
        return Ending(EndCause.UNREACHABLE, "", Origin.NO_DEVICE)
    return min(endings, key=lambda ending: _RANK.get(ending.cause, len(_RANK)))


_RANK = {
    cause: rank
    for rank, cause in enumerate(
        (
            EndCause.DECLINED,
            EndCause.BUSY,
            EndCause.FORBIDDEN,
            EndCause.SECURITY,
            EndCause.MEDIA_MISMATCH,
            EndCause.NO_ANSWER,
            EndCause.GONE,
            EndCause.NOT_FOUND,
            EndCause.OVERLOADED,
            EndCause.UNREACHABLE,
        )
    )
}


def _dropped(done: asyncio.Future[None]) -> None:
    if not done.cancelled() and done.exception() is not None:
        _log.error("a device was not taken out of the relay", exc_info=done.exception())
