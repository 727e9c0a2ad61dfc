"""The leg that answers calls to the echo address: it takes every call at once and plays back the caller's voice."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from isthmus.errors import PeerError, RelayError
from isthmus.model import Address, EndCause, Ending, MediaForm, Origin
from isthmus.ports import Clock
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import (
    LegAccepted,
    LegAnswered,
    LegEnded,
    LegOfferRefused,
    LegSignal,
    LegSink,
)
from isthmus.services.calls.leg_outbox import Outbox
from isthmus.services.calls.ringing import Invitation, Ring


class EchoedCall(Protocol):
    """The media of one call to the echo."""

    def answer(self, offer: SessionDescription) -> SessionDescription:
        """Answer an offer, the first or one that changes the media. Raises SdpError."""

    def close(self) -> None:
        """End it; harmless when it has ended."""


class EchoMedia(Protocol):
    """Plays back what it hears, in plain RTP; `net.rtp_echo` is one."""

    async def open(self, offer: SessionDescription) -> EchoedCall:
        """Take a call. Raises SdpError for media that cannot be played back, RelayError when it cannot now."""


class EchoRinger:
    """Answers for the echo addresses (`ringing.Ringer`)."""

    def __init__(self, media: EchoMedia, clock: Clock) -> None:
        self._media = media
        self._clock = clock

    async def rings(self, invitation: Invitation) -> list[Ring]:
        """Return the one device that an echo address has."""

        def make(form: MediaForm) -> EchoLeg:
            return EchoLeg(invitation.callee, self._media, self._clock)

        return [Ring(make, (MediaForm.RTP,))]


class EchoLeg:
    """Implements `Leg`, towards a callee who is always there."""

    def __init__(self, party: Address, media: EchoMedia, clock: Clock) -> None:
        self.key = f"echo-{secrets.token_hex(8)}"
        self.party = party
        self.device = "echo"
        self.is_caller = False
        self.form = MediaForm.RTP
        self.takes_trickle = False
        self._media = media
        self._call: EchoedCall | None = None
        self._opening: asyncio.Task[None] | None = None
        self._outbox = Outbox(clock)
        self._outbox.leg = self

    def attach(self, sink: LegSink) -> None:
        """Send events here (`Leg.attach`)."""
        self._outbox.attach(sink)

    def to_record(self) -> Mapping[str, Any] | None:
        """Return nothing: the echo ends with the process."""
        return None

    # --- set-up ---

    def invite(self, offer: SessionDescription) -> None:
        """Answer the call."""
        self._opening = asyncio.create_task(self._open(offer), name=self.key)

    async def _open(self, offer: SessionDescription) -> None:
        try:
            call = await self._media.open(offer)
        except PeerError as error:
            self._outbox.tell(LegEnded(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.LOCAL)))
            return
        except RelayError as error:
            self._outbox.tell(LegEnded(Ending(EndCause.OVERLOADED, str(error), Origin.LOCAL)))
            return
        if self._outbox.is_closed:  # the caller gave up meanwhile
            call.close()
            return
        self._call = call
        self._outbox.tell(LegAccepted(call.answer(offer), self.device))

    def cancel(self, ending: Ending) -> None:
        """The caller gave up."""
        self.hang_up(ending)

    # --- in the call ---

    def offer(self, offer: SessionDescription) -> None:
        """Take other media where they can be played back."""
        if self._call is None:
            return
        try:
            self._outbox.tell_later(LegAnswered(self._call.answer(offer)))
        except PeerError as error:
            self._outbox.tell_later(LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.LOCAL)))

    def hang_up(self, ending: Ending) -> None:
        """End it."""
        if self._call is not None:
            self._call.close()
            self._call = None
        self._outbox.tell_later(LegEnded(ending))

    # --- what a callee who never calls and never offers is not asked, or need not heed ---

    def ring(self) -> None:
        """Nothing: nobody calls from here."""

    def progress(self, early: SessionDescription) -> None:
        """Nothing."""

    def accept(self, answer: SessionDescription) -> None:
        """Nothing."""

    def refuse(self, ending: Ending) -> None:
        """End it."""
        self.hang_up(ending)

    def answer(self, answer: SessionDescription) -> None:
        """Nothing: the echo offers nothing."""

    def refuse_offer(self, ending: Ending) -> None:
        """Nothing."""

    def add_candidates(self, fragment: SessionDescription) -> None:
        """Nothing: plain RTP has none."""

    def signal(self, signal: LegSignal) -> None:
        """Nothing."""

    def send_digit(self, digit: str, milliseconds: int) -> None:
        """Nothing."""
