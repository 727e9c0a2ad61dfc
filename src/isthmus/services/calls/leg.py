"""A leg: one end of a call, towards one person (or one device of theirs), in SIP or in Jingle.

A `Call` drives its legs and hears from them only through what stands here, so that it need not know which realm a leg
speaks to. Methods send and return at once and never raise: whatever becomes of it arrives as an event, and the last
event of a leg is always `LegEnded`. Media are `SessionDescription`s in the words of the leg's own side.

Life of a leg towards the callee:   invite -> LegRinging* -> LegAccepted -> ... -> LegEnded
Life of the caller's leg:           made with its offer -> ring()* -> accept() -> LegConfirmed -> ... -> LegEnded
Both, once established:             offer() -> LegAnswered | LegOfferRefused;   LegOffered -> answer() | refuse_offer()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from isthmus.model import Address, Ending, MediaForm
from isthmus.sdp.session_description import SessionDescription


class LegSignal(StrEnum):
    """What one end tells the other without negotiating (XEP-0167 section 8, RFC 6086 bodies)."""

    ACTIVE = "active"
    HOLD = "hold"  # informational; a hold that counts is an offer with other directions
    UNHOLD = "unhold"
    MUTE = "mute"
    UNMUTE = "unmute"
    RINGING = "ringing"


class Leg(Protocol):
    """One end of a call.

    Attributes:
        key: names the leg in trace and records; unique within the process.
        party: the person at this end.
        device: resource, `gr` or contact of the device; may be empty until one answers.
        is_caller: the leg that the call came in by.
        form: what media this end takes; for a callee's leg a guess that `LegAccepted` corrects.
        takes_trickle: candidates may follow the offer or answer (RFC 8838); without it they come too late.
    """

    key: str
    party: Address
    device: str
    is_caller: bool
    form: MediaForm
    takes_trickle: bool

    def attach(self, sink: LegSink) -> None:
        """Send events here from now on; what has happened before anybody listened follows at once."""

    def to_record(self) -> Mapping[str, Any] | None:
        """Return what the next run needs to end this established leg, should this one crash; None: nothing can."""

    # --- set-up, towards a callee ---

    def invite(self, offer: SessionDescription) -> None:
        """Ring this device."""

    def cancel(self, ending: Ending) -> None:
        """Stop ringing; the ending says why (cancelled, or answered elsewhere). `LegEnded` follows."""

    # --- set-up, towards the caller ---

    def ring(self) -> None:
        """Say that somebody is being alerted; repeats are harmless."""

    def progress(self, early: SessionDescription) -> None:
        """Offer early media before the answer, where the leg can (183); elsewhere the same as `ring`."""

    def accept(self, answer: SessionDescription) -> None:
        """Answer the call; `LegConfirmed` follows. For a call that came without an offer, this is the offer."""

    def refuse(self, ending: Ending) -> None:
        """Do not take the call. `LegEnded` follows."""

    # --- in the call ---

    def offer(self, offer: SessionDescription) -> None:
        """Change the media (hold, video, other addresses). `LegAnswered` or `LegOfferRefused` follows.

        Glare is solved inside the leg (RFC 3261 section 14.1, XEP-0166 section 7.2.16).
        """

    def answer(self, answer: SessionDescription) -> None:
        """Answer `LegOffered`."""

    def refuse_offer(self, ending: Ending) -> None:
        """Keep the media as they were."""

    def add_candidates(self, fragment: SessionDescription) -> None:
        """Pass on trickled candidates (RFC 8840 section 9): media with mid, ufrag, pwd and candidates only."""

    def signal(self, signal: LegSignal) -> None:
        """Tell what needs no negotiation, where the leg's protocol can."""

    def send_digit(self, digit: str, milliseconds: int) -> None:
        """Pass on a DTMF digit that came in signalling (INFO, XEP-0181), where the leg takes it that way."""

    def hang_up(self, ending: Ending) -> None:
        """End an established leg. `LegEnded` follows."""


# --- what a leg tells its call --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LegRinging:
    """The callee's device alerts somebody."""


@dataclass(frozen=True, slots=True)
class LegProgressed:
    """Early media before the answer (a 183, or a 180 with SDP)."""

    early: SessionDescription


@dataclass(frozen=True, slots=True)
class LegAccepted:
    """The callee answered. `device` says which device it was, where that is known only now."""

    answer: SessionDescription
    device: str = ""


@dataclass(frozen=True, slots=True)
class LegConfirmed:
    """The caller's side has the answer (ACK, or the result of session-accept).

    `answer` is set for a call that came without an offer: it answers what `accept` offered.
    """

    answer: SessionDescription | None = None


@dataclass(frozen=True, slots=True)
class LegOffered:
    """This end wants other media; None is an offerless re-INVITE: `answer` then carries our offer."""

    offer: SessionDescription | None


@dataclass(frozen=True, slots=True)
class LegAnswered:
    """This end answered our `offer` (or, after an offerless re-INVITE, the offer in our `answer`)."""

    answer: SessionDescription


@dataclass(frozen=True, slots=True)
class LegOfferRefused:
    """This end keeps the media as they were."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class LegCandidates:
    """Candidates that came after the offer or answer."""

    fragment: SessionDescription


@dataclass(frozen=True, slots=True)
class LegSignalled:
    """This end told something that needs no negotiation."""

    signal: LegSignal


@dataclass(frozen=True, slots=True)
class LegDigit:
    """A DTMF digit in signalling."""

    digit: str
    milliseconds: int


@dataclass(frozen=True, slots=True)
class LegTransferRequested:
    """This end wants the other one connected to somebody else (REFER, XEP-0251).

    Attributes:
        target: whom to call.
        replaces: (Call-ID, to-tag, from-tag) of the dialog that the transfer takes the place of, as this end names
            it (RFC 3891); None for a blind transfer.
        progress: tell this end what becomes of it: 100, 180, 200, or the ending that it failed with.
    """

    target: Address
    replaces: tuple[str, str, str] | None
    progress: Callable[[int, Ending | None], None]


@dataclass(frozen=True, slots=True)
class LegEnded:
    """The leg is over; nothing follows."""

    ending: Ending


LegEvent: TypeAlias = (
    LegRinging
    | LegProgressed
    | LegAccepted
    | LegConfirmed
    | LegOffered
    | LegAnswered
    | LegOfferRefused
    | LegCandidates
    | LegSignalled
    | LegDigit
    | LegTransferRequested
    | LegEnded
)

LegSink: TypeAlias = Callable[[Leg, LegEvent], None]
"""Takes the events of a leg, in order; must not raise."""


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """A call that arrived at one of our doors, authenticated, before policy.

    Attributes:
        leg: the caller's leg; its sink is set with `attach` before anything else happens to it.
        caller, callee: the people.
        callee_device: device that was addressed (GRUU), "" for the person.
        offer: the caller's media; None when the callee must offer (RFC 3261 section 13.2.1).
        hops: crossings behind it (loop protection).
        breadth: how many devices may still ring at once (RFC 5393 section 5).
        max_forwards: hops left when it arrived (RFC 7332).
        replaces: dialog this call takes the place of (RFC 3891), as the caller names it: (Call-ID, to-tag, from-tag).
        is_replacing_early_only: only a call that still rings may be replaced.
    """

    leg: Leg
    caller: Address
    callee: Address
    offer: SessionDescription | None
    callee_device: str = ""
    hops: int = 0
    breadth: int = 60
    max_forwards: int = 70
    replaces: tuple[str, str, str] | None = None
    is_replacing_early_only: bool = False


CallSink: TypeAlias = Callable[[IncomingCall], None]
