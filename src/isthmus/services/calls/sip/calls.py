"""What all SIP legs of a process share: the endpoint, time, the table of dialogs, and what we say of ourselves."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from isthmus.model import Address
from isthmus.ports import CallSipEndpoint, Clock, IncomingRequest
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.sip.dialogs import DialogOwner, DialogTable
from isthmus.services.delivery import BusinessDelivery, Way
from isthmus.services.loop_protection import LoopProtection
from isthmus.sip.dialog import Dialog
from isthmus.sip.session_timer import DEFAULT_INTERVAL_SECONDS, SMALLEST_INTERVAL_SECONDS, SessionTimer
from isthmus.sip.timers import TimerTable
from isthmus.trace import Trace

# What may come within a call.
ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY, MESSAGE"
# Option tags of calls; `trickle-ice` is added where the description speaks ICE (RFC 8840 section 5).
OPTION_TAGS = ("100rel", "timer", "replaces", "norefersub")
TRICKLE_TAG = "trickle-ice"


class SessionState(Enum):
    """How far the dialog has come."""

    EARLY = "no 2xx yet"
    CONFIRMED = "the INVITE was accepted"
    ENDED = "a BYE was sent or received, or the dialog broke"


@dataclass(slots=True, eq=False)
class SipCalls:
    """The surroundings of SIP legs.

    Attributes:
        delivery: finds the ways to a device; also the present one of a device that registered anew.
        chance: random numbers in [0, 1).
        messages: takes MESSAGEs within dialogs; None refuses them.
        session_seconds, minimum_session_seconds: session interval we ask for, and the least we accept (RFC 4028).
    """

    endpoint: CallSipEndpoint
    delivery: BusinessDelivery
    loops: LoopProtection
    clock: Clock
    trace: Trace
    timers: TimerTable = field(default_factory=TimerTable)
    chance: Callable[[], float] = random.random
    session_seconds: int = DEFAULT_INTERVAL_SECONDS
    minimum_session_seconds: int = SMALLEST_INTERVAL_SECONDS
    dialogs: DialogTable = field(default_factory=DialogTable)
    messages: Callable[[DialogOwner, IncomingRequest], None] | None = None

    def session_timer(self) -> SessionTimer:
        """A timer for a new dialog."""
        return SessionTimer(interval_seconds=self.session_seconds, minimum_seconds=self.minimum_session_seconds)

    def note(self, text: str, dialog: Dialog, party: Address, rule: str) -> None:
        """Trace what was decided within a dialog, for whoever asks why."""
        self.trace.decision(f"{party}: {text}", people=(str(party),), call_id=dialog.call_id, rule=rule)

    def present_way(self, party: Address, device: str) -> Way | None:
        """The way to a device as it is registered now; None when it is not (or belongs to a neighbour)."""
        for target in self.delivery.targets(party):
            if target.key == device and target.ways:
                return target.ways[0]
        return None


def supported(*, has_ice: bool) -> str:
    """Value of Supported."""
    return ", ".join((*OPTION_TAGS, TRICKLE_TAG) if has_ice else OPTION_TAGS)


def has_ice(description: SessionDescription | None) -> bool:
    """True when a description names ICE credentials (RFC 8839 section 5.4)."""
    return description is not None and any(
        description.effective(section, "ice-ufrag") is not None for section in description.media
    )
