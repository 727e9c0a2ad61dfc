"""What a call is made of beside its legs: states, roles, terms, and what happens to it from above."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TypeAlias

from isthmus.model import Address, Ending
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import Leg, LegEvent
from isthmus.services.calls.media_path import MediaPath, PathKind


@dataclass(frozen=True, slots=True)
class CallTerms:
    """What was decided about a call before it began.

    Attributes:
        barred: media that may not be used ("video").
        path: how media are to go.
        ring_seconds: how long it may ring.
        needs_encryption: media in clear are not allowed on either side.
    """

    barred: frozenset[str] = frozenset()
    path: PathKind = PathKind.AUTO
    ring_seconds: float = 60.0
    needs_encryption: bool = False


class CallState(StrEnum):
    """Where a call is."""

    RINGING = "ringing"  # devices are being rung; nobody has answered
    ANSWERED = "answered"  # somebody has, and the caller is being told
    TALKING = "talking"
    ENDED = "ended"


class Role(Enum):
    """What a leg is to the call at the moment an event of it is worked off."""

    CALLER = "caller"
    RINGING = "a leg that rings"
    CALLEE = "the leg that answered"
    LATE = "a leg that no longer counts"


# --- what does not come from a leg ---


@dataclass(frozen=True, slots=True)
class RingingTooLong:
    """Nobody answered in time."""


@dataclass(frozen=True, slots=True)
class EndRequested:
    """Somebody above wants the call to end: policy, the administrator, shutdown, a dead relay."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class MediaBarred:
    """Policy no longer allows these media in the call."""

    media: frozenset[str]


@dataclass(frozen=True, slots=True)
class LegReplaced:
    """A transfer succeeded: another leg takes the place of one of ours, over a path of its own.

    Attributes:
        old, new: the legs.
        path: between `new` and the leg that remains.
        description: what `new` said about its media.
        told: what it was told about the media of the leg that remains; None when it waits to be told.
        party: the person at the new end.
    """

    old: Leg
    new: Leg
    path: MediaPath
    description: SessionDescription
    told: SessionDescription | None
    party: Address

    @property
    def is_new_waiting(self) -> bool:
        """The new leg asked to take the place (RFC 3891) and waits to be accepted."""
        return self.told is None


@dataclass(frozen=True, slots=True)
class LegTaken:
    """A transfer took one of our legs away: the other one is no longer needed."""

    leg: Leg


Happening: TypeAlias = LegEvent | RingingTooLong | EndRequested | MediaBarred | LegReplaced | LegTaken
