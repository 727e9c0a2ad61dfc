"""Offers and answers within the dialog of a call: re-INVITE and UPDATE, in both directions, one at a time.

RFC 3264 section 4 allows one open offer per dialog; RFC 3261 section 14 says what happens when both ends begin at
once (491, and who waits how long), RFC 3311 what UPDATE adds, RFC 3261 section 13.3.1.4 that a 2xx is repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.errors import PeerError, SipParseError, TransportError
from isthmus.interworking.call_endings import ending_to_status, text_of
from isthmus.interworking.session_bodies import SDP_TYPE, session_in
from isthmus.model import EndCause, Ending, Origin
from isthmus.ports import IncomingRequest, TimerHandle
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import LegAnswered, LegEvent, LegOffered, LegOfferRefused
from isthmus.services.calls.sip.acceptance import Acceptance
from isthmus.services.calls.sip.calls import SessionState, has_ice
from isthmus.services.calls.sip.refusals import ending_of, respond_to_bad_body
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.subscription import retry_after
from isthmus.sip.validation import accepts
from isthmus.sip.warning import INCOMPATIBLE_FORMAT, warning_header

if TYPE_CHECKING:
    from isthmus.services.calls.sip.session import SipSession

# The call makes one offer after the other; more than this wait only when something is wrong.
MAXIMUM_WAITING_OFFERS = 4
# How often one offer is sent again after a glare or a busy peer.
MAXIMUM_ATTEMPTS = 5
# A peer that is busy with another INVITE says when to come back (section 14.2): at most this is waited.
LONGEST_RETRY_SECONDS = 10.0
# RFC 3311 section 5.2: an UPDATE is answered at once or refused 504; its client stops listening after 32 s.
UPDATE_PATIENCE_SECONDS = 20.0


@dataclass(slots=True)
class _Ours:
    """An offer of ours, waiting or on its way.

    Attributes:
        is_refresh: it keeps the session alive and changes nothing.
        is_quiet: the call does not know of it: it only says again what was answered already.
    """

    description: SessionDescription
    is_refresh: bool = False
    is_quiet: bool = False
    attempts: int = 0
    is_sent: bool = False
    ack: SipRequest | None = None


@dataclass(slots=True)
class _Theirs:
    """A re-INVITE or UPDATE that the call has not answered yet."""

    incoming: IncomingRequest
    offer: SessionDescription | None
    patience: TimerHandle | None = None

    @property
    def is_invite(self) -> bool:
        return self.incoming.request.method == "INVITE"


class Exchange:
    """The offer/answer state of one dialog.

    Attributes:
        local, remote: the descriptions that hold now, None before the first exchange is complete.
    """

    def __init__(self, session: SipSession) -> None:
        self._session = session
        self.local: SessionDescription | None = None
        self.remote: SessionDescription | None = None
        self._waiting: deque[_Ours] = deque()
        self._ours: _Ours | None = None
        self._theirs: _Theirs | None = None
        self._acceptance = Acceptance(session, self._send_next)
        self._pause: TimerHandle | None = None

    @property
    def awaits_ack(self) -> bool:
        """True between our 2xx to an INVITE and its ACK."""
        return self._acceptance.is_waiting

    @property
    def _is_free(self) -> bool:
        return self._ours is None and self._theirs is None and not self._acceptance.is_waiting

    def stop(self, *, keeps_repeating: bool) -> None:
        """The call is over: nothing is offered or answered any more.

        Args:
            keeps_repeating: a 2xx is still repeated until its ACK, after which our BYE may go out.
        """
        if not keeps_repeating:
            self._acceptance.stop()
        self._waiting.clear()
        self._ours = None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        theirs = self._take_theirs()
        if theirs is not None:
            theirs.incoming.respond(487)

    # --- our offers ---

    def offer(self, offer: SessionDescription, *, is_quiet: bool = False) -> None:
        """Send a re-INVITE now, or as soon as nothing else is open. `LegAnswered` or `LegOfferRefused` follows.

        Args:
            is_quiet: nothing is told.
        """
        if self._session.state is SessionState.ENDED:
            return
        self._waiting.append(_Ours(offer, is_quiet=is_quiet))
        if len(self._waiting) > MAXIMUM_WAITING_OFFERS:
            self._waiting.popleft()
            self._session.outbox.tell_later(LegOfferRefused(Ending(EndCause.FAILED, origin=Origin.LOCAL)))
        self._send_next()

    def refresh(self) -> bool:
        """Send a re-INVITE with unchanged media for the session timer; False when something else is open."""
        if not self._is_free or self._waiting or self.local is None:
            return False
        self._waiting.append(_Ours(self.local, is_refresh=True))
        self._send_next()
        return True

    def _send_next(self) -> None:
        if self._waiting and self._is_free and self._pause is None and self._session.state is SessionState.CONFIRMED:
            self._send(self._waiting.popleft())

    def _send(self, ours: _Ours) -> None:
        session = self._session
        headers = [*session.headers(has_ice=has_ice(ours.description)), *session.timer.request_headers()]
        try:
            request = session.dialog.make_request("INVITE", headers, ours.description.to_bytes(), SDP_TYPE)
        except SipParseError:
            return
        ours.attempts += 1
        self._ours = ours
        hop = session.path.next_hop(session.dialog)
        session.calls.endpoint.invite(request, hop, _ReInvite(self, ours, request.cseq.number))

    def reinvite_accepted(self, ours: _Ours, cseq: int, response: SipResponse) -> None:
        """Take a 2xx of our re-INVITE: ACK it, however often it comes."""
        session = self._session
        if ours.ack is None:
            session.dialog.refresh_target(response)
            ours.ack = session.dialog.make_ack(cseq)
            session.calls.endpoint.send_ack(ours.ack, session.path.next_hop(session.dialog))
        else:
            session.calls.endpoint.send_ack(ours.ack, session.path.next_hop(session.dialog))
            return
        if self._ours is not ours:
            return
        self._ours = None
        if ours.is_refresh:
            session.refreshed(response)
        else:
            session.timer.accepted(response, session.calls.clock.monotonic())
            session.arm_timer()
            self._take_answer(ours, response)
        self._send_next()

    def _take_answer(self, ours: _Ours, response: SipResponse) -> None:
        problem, answer = "The device answered without media.", None
        try:
            answer = session_in(response)
        except PeerError as error:
            problem = str(error)
        if answer is not None:
            self.local, self.remote = ours.description, answer
        if ours.is_quiet:
            return
        if answer is None:
            self._tell(LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, problem)))
        else:
            self._tell(LegAnswered(answer))

    def reinvite_failed(self, ours: _Ours, outcome: SipResponse | TransportError) -> None:
        """Take what refused our re-INVITE: try again after a glare, else tell."""
        if self._ours is not ours:
            return
        self._ours = None
        session = self._session
        pause = self._pause_after(ours, outcome)
        if pause is not None:
            session.note(f"the device cannot take our offer now, it gets it again in {pause:.2f} s", "sip.glare")
            self._waiting.appendleft(ours)
            self._pause = session.calls.clock.call_later(pause, self._pause_over)
            return
        if ours.is_refresh:
            session.refreshed(outcome)
        elif not ours.is_quiet:
            self._tell(LegOfferRefused(ending_of(outcome)))
        session.check_outcome("INVITE", outcome)
        self._send_next()

    def _pause_after(self, ours: _Ours, outcome: SipResponse | TransportError) -> float | None:
        """Seconds after which the offer is worth sending again, None when it is not."""
        if not isinstance(outcome, SipResponse) or ours.attempts >= MAXIMUM_ATTEMPTS:
            return None
        chance = self._session.calls.chance()
        if outcome.status == 491:
            # Section 14.1: who made the Call-ID waits 2.1 to 4 seconds, the other less than two, in steps of 10 ms.
            return round(2.1 + 1.9 * chance if self._session.owns_call_id else 2.0 * chance, 2)
        wait = retry_after(outcome)
        if outcome.status in (500, 503) and wait is not None and wait <= LONGEST_RETRY_SECONDS:
            return wait + chance
        if outcome.status == 422 and self._session.timer.interval_was_refused(outcome):
            return 0.0
        return None

    def _pause_over(self) -> None:
        self._pause = None
        self._send_next()

    # --- their offers ---

    def receive_invite(self, incoming: IncomingRequest) -> None:
        """Take a re-INVITE."""
        self._receive(incoming)

    def receive_update(self, incoming: IncomingRequest) -> None:
        """Take an UPDATE: without a body it refreshes target and session timer (RFC 3311, RFC 4028 section 7.4)."""
        if incoming.request.body:
            self._receive(incoming)
            return
        refusal = self._session.timer.refusal(incoming.request)
        if refusal:
            incoming.respond(422, headers=refusal)
        else:
            incoming.respond(200, headers=self._success_headers(incoming.request, has_ice=False))

    def _receive(self, incoming: IncomingRequest) -> None:
        request = incoming.request
        session = self._session
        session.note_peer(request)
        is_early = session.state is SessionState.EARLY
        if self._theirs is not None or (is_early and not session.owns_call_id):
            # Section 14.2, RFC 3311 section 5.2: an offer of theirs is open already.
            incoming.respond(500, headers=[("Retry-After", str(int(session.calls.chance() * 10)))])
            return
        if not self._is_free or is_early:
            incoming.respond(491)
            return
        refusal = session.timer.refusal(request)
        if refusal:
            incoming.respond(422, headers=refusal)
            return
        if not accepts(request, SDP_TYPE):
            incoming.respond(406, headers=[warning_header("The answer would be application/sdp")])
            return
        try:
            offer = session_in(request)
        except PeerError as error:
            respond_to_bad_body(incoming, error)
            return
        self._theirs = _Theirs(incoming, offer)
        if offer is not None and offer == self.remote and self.local is not None:
            self.answer(self.local)  # nothing changes: a session refresh (RFC 4028 section 7.4)
            return
        if not self._theirs.is_invite:
            self._theirs.patience = session.calls.clock.call_later(UPDATE_PATIENCE_SECONDS, self._update_took_too_long)
        self._tell(LegOffered(offer))

    def answer(self, answer: SessionDescription) -> None:
        """Answer their offer; for an offerless re-INVITE this is our offer, and its answer comes with the ACK."""
        theirs = self._take_theirs()
        if theirs is None:
            return
        incoming, offer = theirs.incoming, theirs.offer
        headers = self._success_headers(incoming.request, has_ice=has_ice(answer))
        if offer is not None:
            self.local, self.remote = answer, offer
        if theirs.is_invite:
            self.accept(incoming, headers, answer, lambda ack: self._reinvite_acked(answer, offer, ack))
        else:
            incoming.respond(200, headers=headers, body=answer.to_bytes(), content_type=SDP_TYPE)
            self._send_next()

    def refuse(self, ending: Ending) -> None:
        """Refuse their offer: 488 with the reason in a Warning, unless the ending has a status of its own."""
        theirs = self._take_theirs()
        if theirs is None:
            return
        if ending.status == 491:
            theirs.incoming.respond(491)  # the other end offers something as well: they try again (section 14.1)
            self._send_next()
            return
        status, phrase = ending_to_status(ending, is_only_target=False)
        if status not in (488, 500, 403):
            status = 488  # within a call the others would mean that the call itself is in question (RFC 5057)
        theirs.incoming.respond(status, phrase, headers=[warning_header(text_of(ending), INCOMPATIBLE_FORMAT)])
        self._send_next()

    def cancelled(self, incoming: IncomingRequest) -> None:
        """Their re-INVITE was cancelled."""
        if self._theirs is not None and self._theirs.incoming is incoming:
            self._take_theirs()
            self._send_next()
        incoming.respond(487)

    def _update_took_too_long(self) -> None:
        theirs = self._take_theirs()
        if theirs is not None:
            theirs.incoming.respond(504)
            self._send_next()

    def _take_theirs(self) -> _Theirs | None:
        theirs, self._theirs = self._theirs, None
        if theirs is not None and theirs.patience is not None:
            theirs.patience.cancel()
        return theirs

    def _reinvite_acked(self, answer: SessionDescription, offer: SessionDescription | None, ack: SipRequest) -> None:
        if offer is not None:
            return
        try:
            described = session_in(ack)
        except PeerError:
            described = None
        if described is None:
            self._tell(LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, "The device acknowledged without media.")))
        else:
            self.local, self.remote = answer, described
            self._tell(LegAnswered(described))

    def _success_headers(self, request: SipRequest, *, has_ice: bool) -> list[tuple[str, str]]:
        session = self._session
        headers = [*session.headers(has_ice=has_ice), *session.timer.answer(request, session.calls.clock.monotonic())]
        session.arm_timer()
        return headers

    # --- the 2xx of an INVITE ---

    def accept(
        self,
        incoming: IncomingRequest,
        headers: list[tuple[str, str]],
        description: SessionDescription | None,
        acked: Callable[[SipRequest], None],
    ) -> None:
        """Send the 2xx of an INVITE, and again until its ACK comes; call `acked` with it."""
        self._acceptance.begin(incoming, headers, description, acked)

    def receive_ack(self, incoming: IncomingRequest) -> None:
        """Take the ACK of a 2xx."""
        self._acceptance.receive_ack(incoming)

    def _tell(self, event: LegEvent) -> None:
        self._session.outbox.tell(event)


class _ReInvite:
    """Takes what becomes of one re-INVITE (`ports.InviteSink`)."""

    __slots__ = ("_cseq", "_exchange", "_ours")

    def __init__(self, exchange: Exchange, ours: _Ours, cseq: int) -> None:
        self._exchange = exchange
        self._ours = ours
        self._cseq = cseq

    def provisional(self, response: SipResponse) -> None:
        """Somebody is asked, perhaps whether to show video: wait."""

    def accepted(self, response: SipResponse) -> None:
        self._exchange.reinvite_accepted(self._ours, self._cseq, response)

    def failed(self, outcome: SipResponse | TransportError) -> None:
        self._exchange.reinvite_failed(self._ours, outcome)
