"""What both kinds of SIP legs have in common: who they are, how they tell, and what an established one passes on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from isthmus.model import Address, Ending, MediaForm
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import LegSignal, LegSink
from isthmus.services.calls.leg_outbox import Outbox
from isthmus.services.calls.sip.calls import SessionState, SipCalls
from isthmus.services.calls.sip.session import SipSession
from isthmus.services.watch import CSEQ_GAP_AFTER_RESTART

# A browser with many interfaces finds some thirty candidates while a phone rings.
MAXIMUM_HELD = 64

_numbers = itertools.count(1)


class SipLeg:
    """One end of a call that speaks SIP; see `services.calls.leg.Leg` for its methods.

    Attributes:
        session: the dialog, once there is one.
    """

    is_caller = False

    def __init__(self, calls: SipCalls, *, party: Address, peer: Address, device: str, form: MediaForm) -> None:
        self.key = f"sip-{next(_numbers)}"
        self.party = party
        self.peer = peer
        self.device = device
        self.form = form
        self.takes_trickle = False
        self.session: SipSession | None = None
        self._calls = calls
        self._outbox = Outbox(calls.clock)
        self._held: list[SessionDescription] = []

    def attach(self, sink: LegSink) -> None:
        """Send events here; what has happened meanwhile (a quick CANCEL) follows at once."""
        self._outbox.attach(sink)

    def to_record(self) -> Mapping[str, Any] | None:
        """Return what the next run needs to end this leg, should this one crash."""
        if self.session is None or self.session.state is not SessionState.CONFIRMED:
            return None
        flow = self.session.path.flow
        dialog = self.session.dialog.to_record()
        # What is sent after this is written down nowhere; gaps in the numbers are legal (RFC 3261 section 12.2.2).
        dialog["local_cseq"] += CSEQ_GAP_AFTER_RESTART
        return {
            "kind": "sip",
            "party": str(self.party),
            "device": self.session.path.device,
            "flow": None if flow is None else [flow.transport, flow.remote_host, flow.remote_port],
            "dialog": dialog,
        }

    # --- in the call ---

    def offer(self, offer: SessionDescription) -> None:
        """Change the media. `LegAnswered` or `LegOfferRefused` follows."""
        if self.session is not None:
            self.session.exchange.offer(offer)

    def answer(self, answer: SessionDescription) -> None:
        """Answer `LegOffered`."""
        if self.session is not None:
            self.session.exchange.answer(answer)

    def refuse_offer(self, ending: Ending) -> None:
        """Keep the media as they were."""
        if self.session is not None:
            self.session.exchange.refuse(ending)

    def add_candidates(self, fragment: SessionDescription) -> None:
        """Pass on trickled candidates to a device that takes them, after the answer (RFC 8840 section 4.3)."""
        if self.session is None or self.session.state is SessionState.EARLY:
            if len(self._held) < MAXIMUM_HELD:
                self._held.append(fragment)
        elif self.takes_trickle:
            self.session.infos.send_candidates(fragment)

    def _release_candidates(self) -> None:
        """The dialog is confirmed at both ends."""
        held, self._held = self._held, []
        for fragment in held:
            self.add_candidates(fragment)

    def signal(self, signal: LegSignal) -> None:
        """SIP has no words for these: a hold that counts is an offer, mute is nobody's business (STANDARDS 1.7)."""

    def send_digit(self, digit: str, milliseconds: int) -> None:
        """Send an INFO, to a device that takes INFO."""
        if self.session is not None:
            self.session.infos.send_digit(digit, milliseconds)
