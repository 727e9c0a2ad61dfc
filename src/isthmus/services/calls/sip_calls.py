"""What all SIP legs of a process share: the endpoint, time, the table of dialogs, and what we say of ourselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from isthmus.errors import IsthmusError
from isthmus.interworking.call_endings import ending_from_reason_header, ending_to_reason_header
from isthmus.model import Address, EndCause, Ending
from isthmus.ports import CallSipEndpoint, Clock, Flow, IncomingRequest, TimerHandle
from isthmus.services.calls.leg import Leg
from isthmus.services.delivery import BusinessDelivery, Way
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.watch import CSEQ_GAP_AFTER_RESTART
from isthmus.sip.dialog import Dialog
from isthmus.sip.message import SipRequest
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


class DialogOwner(Protocol):
    """Who takes the requests of one dialog (`services.calls.sip_session`)."""

    @property
    def party(self) -> Address:
        """The person at the other end of the dialog."""

    @property
    def peer(self) -> Address:
        """The person at the other end of the call."""

    @property
    def leg(self) -> Leg | None:
        """The leg that the dialog belongs to."""

    def is_heard_on(self, flow: Flow) -> bool:
        """True when a request on this flow comes from where the device was last proven to be."""

    def receive(self, incoming: IncomingRequest) -> None:
        """Take a request within the dialog, ACK among them."""

    def cancelled(self, incoming: IncomingRequest, cancel: SipRequest) -> None:
        """An INVITE of this dialog, also the first, was cancelled."""

    def flow_closed(self, flow: Flow) -> None:
        """A connection is gone."""


DialogKey = tuple[str, str, str]
"""Call-ID, our tag, the peer's tag."""


class DialogTable:
    """The dialogs of all calls, by id."""

    def __init__(self) -> None:
        self._owners: dict[DialogKey, DialogOwner] = {}
        self._callers: dict[tuple[str, str], DialogOwner] = {}

    def add(self, key: DialogKey, owner: DialogOwner) -> None:
        """Let `owner` take the requests of a dialog."""
        self._owners[key] = owner
        self._callers[key[0], key[2]] = owner

    def discard(self, key: DialogKey, owner: DialogOwner) -> None:
        """Forget a dialog, if it is still this owner's."""
        if self._owners.get(key) is owner:
            del self._owners[key]
        if self._callers.get((key[0], key[2])) is owner:
            del self._callers[key[0], key[2]]

    def find(self, call_id: str, local_tag: str, remote_tag: str) -> DialogOwner | None:
        """Return who takes the requests of this dialog, or None: 481."""
        return self._owners.get((call_id, local_tag, remote_tag))

    def of_sender(self, call_id: str, remote_tag: str) -> DialogOwner | None:
        """Return the dialog that an INVITE without our tag has made, for its CANCEL."""
        return self._callers.get((call_id, remote_tag))

    def leg_named(self, replaces: tuple[str, str, str]) -> Leg | None:
        """Return the leg whose dialog a Replaces means: (Call-ID, to-tag, from-tag), RFC 3891 section 3."""
        owner = self._owners.get(replaces)
        return None if owner is None else owner.leg

    def flow_closed(self, flow: Flow) -> None:
        """Tell all dialogs that a connection is gone."""
        for owner in tuple(self._owners.values()):
            owner.flow_closed(flow)

    def __len__(self) -> int:
        return len(self._owners)


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

    def end_recorded(self, record: Mapping[str, Any]) -> None:
        """Send the BYE of an established leg of the run before this one (`SipLeg.to_record`).

        A record that cannot be read is left alone: the session timer of the device will end the call.
        """
        try:
            dialog = Dialog.from_record(record["dialog"])
            party = Address.parse(record["party"])
            # A device may have registered anew; its connections of the run before are gone in any case.
            way = self.present_way(party, record["device"])
            # Nobody wrote down what was sent last; gaps are legal (RFC 3261 section 12.2.2).
            dialog.local_cseq += CSEQ_GAP_AFTER_RESTART
            reason = ending_to_reason_header(Ending(EndCause.FAILED))
            bye = dialog.make_request("BYE", [("Reason", reason)] if reason else [])
        except (KeyError, TypeError, ValueError, IsthmusError):
            return
        hop = way.next_hop if way is not None and not dialog.has_routes else None
        self.endpoint.request_nowait(bye, hop, lambda _: None)

    def present_way(self, party: Address, device: str) -> Way | None:
        """The way to a device as it is registered now; None when it is not (or belongs to a neighbour)."""
        for target in self.delivery.targets(party):
            if target.key == device and target.ways:
                return target.ways[0]
        return None


def supported(*, has_ice: bool) -> str:
    """Value of Supported."""
    return ", ".join((*OPTION_TAGS, TRICKLE_TAG) if has_ice else OPTION_TAGS)


def ending_told_by(request: SipRequest, cause: EndCause) -> Ending:
    """Return the ending that a CANCEL or BYE means: its Reason (RFC 3326), or else `cause`."""
    for value in request.headers.get_all("reason"):
        ending = ending_from_reason_header(value)
        if ending is not None:
            return ending
    return Ending(cause)


class Repeats:
    """A response that is sent again until it is acknowledged: T1, doubling to T2, given up after 64*T1.

    The 2xx of an INVITE, on every transport (RFC 3261 section 13.3.1.4).
    """

    __slots__ = ("_clock", "_ends_at", "_give_up", "_interval", "_send", "_timer", "_timers")

    def __init__(self, clock: Clock, timers: TimerTable, send: Callable[[], None], give_up: Callable[[], None]) -> None:
        self._clock = clock
        self._timers = timers
        self._send = send
        self._give_up = give_up
        self._interval = timers.t1
        self._ends_at = clock.monotonic() + timers.timeout
        self._timer: TimerHandle | None = clock.call_later(self._interval, self._fire)
        send()

    def stop(self) -> None:
        """It was acknowledged."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        left = self._ends_at - self._clock.monotonic()
        if left <= 0.001:
            self._give_up()
            return
        self._interval = min(2 * self._interval, self._timers.t2)
        self._timer = self._clock.call_later(min(self._interval, left), self._fire)
        self._send()
