"""Whom to ring for a call: the devices of a person, each with the forms of media it may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from isthmus.model import Address, MediaForm
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import IncomingCall, Leg


@dataclass(frozen=True, slots=True)
class Invitation:
    """Who is to be rung, by whom, and with what.

    Attributes:
        caller: whom the devices show.
        callee, callee_device: who is rung; a device (GRUU, resource) or "" for all.
        offer: the media of the call, for what devices must be able to do; None when the callee is to offer.
        hops, breadth, max_forwards: what is left of loop and breadth limits.
    """

    caller: Address
    callee: Address
    offer: SessionDescription | None
    callee_device: str = ""
    hops: int = 0
    breadth: int = 60
    max_forwards: int = 70

    @classmethod
    def of(cls, call: IncomingCall) -> Invitation:
        """What a call that arrived asks for; the way through us is a hop (RFC 7332 section 4)."""
        left = max(call.max_forwards - 1, 0)
        return cls(call.caller, call.callee, call.offer, call.callee_device, call.hops, call.breadth, left)


@dataclass(frozen=True, slots=True)
class Ring:
    """One device (or all devices of a person, where one signal rings them all) that can be rung.

    Attributes:
        make: makes a leg that takes media of a form.
        forms: what to try, in order; the next one when a device refuses the media of the one before.
    """

    make: Callable[[MediaForm], Leg]
    forms: tuple[MediaForm, ...]


class Ringer(Protocol):
    """Knows the devices of the people of one kind of realm."""

    async def rings(self, invitation: Invitation) -> list[Ring]:
        """Return what can be rung, best first; empty when nothing can. Takes some seconds at most."""
