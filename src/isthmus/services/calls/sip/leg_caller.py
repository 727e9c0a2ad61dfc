"""The leg of a caller who speaks SIP: we are the server of its INVITE (RFC 3261 section 13.3, RFC 3262)."""

from __future__ import annotations

from isthmus.errors import PeerError, SipParseError
from isthmus.interworking.call_endings import ending_to_reason_header, ending_to_status, text_of
from isthmus.interworking.session_bodies import SDP_TYPE, session_in
from isthmus.model import Address, EndCause, Ending, MediaForm, Origin
from isthmus.ports import Flow, IncomingRequest, TimerHandle
from isthmus.sdp.offer_answer import form_of
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import LegConfirmed, LegEnded
from isthmus.services.calls.sip.calls import SipCalls, has_ice
from isthmus.services.calls.sip.dialogs import with_contact
from isthmus.services.calls.sip.leg import SipLeg
from isthmus.services.calls.sip.leg_states import CALLER_STEPS, CallerInput, CallerState
from isthmus.services.calls.sip.path import DialogPath
from isthmus.services.calls.sip.refusals import ending_told_by, respond_to_bad_body
from isthmus.services.calls.sip.session import SipSession
from isthmus.sip.dialog import Dialog
from isthmus.sip.message import SipRequest
from isthmus.sip.reliable_provisional import (
    LARGEST_FIRST_RSEQ,
    OPTION_TAG,
    Delivery,
    Provisional,
    RAck,
    ReliableProvisionals,
)
from isthmus.sip.uri import escape_user
from isthmus.sip.validation import has_option
from isthmus.sip.warning import INCOMPATIBLE_FORMAT, MISCELLANEOUS, warning_header

# Section 13.3.1.1: proxies on the way give up after three minutes of silence, so ringing is told each minute.
RINGING_PAUSE_SECONDS = 60.0


class SipCallerLeg(SipLeg):
    """A caller's leg; `services.calls.sip.door` makes it from an INVITE."""

    is_caller = True

    def __init__(
        self,
        calls: SipCalls,
        incoming: IncomingRequest,
        *,
        party: Address,
        peer: Address,
        path: DialogPath,
        offer: SessionDescription | None,
    ) -> None:
        """Take an INVITE whose sender is proven.

        Args:
            incoming: the INVITE.
            party: the caller.
            peer: whom the caller calls.
            path: the way back to the caller's device.
            offer: what the INVITE carries.
        """
        super().__init__(
            calls,
            party=party,
            peer=peer,
            device=path.device,
            form=form_of(offer) if offer is not None else _guess(incoming.flow),
        )
        request = incoming.request
        self._outbox.leg = self
        self._incoming = incoming
        self._offer = offer
        self._state = CallerState.CALLING
        self.takes_trickle = has_option(request, "trickle-ice")
        dialog = Dialog.as_server(
            with_contact(request, request.from_address.uri),
            local_tag=calls.endpoint.new_tag(),
            local_contact=calls.endpoint.contact_uri(escape_user(peer.local), incoming.flow.transport),
            is_early=True,
        )
        session = SipSession(
            calls, dialog, path, self._outbox, timer=calls.session_timer(), peer=peer, owns_call_id=False
        )
        session.note_peer(request)
        session.on_prack = self._receive_prack
        session.on_bye = self._bye_received
        session.on_cancel = self._cancelled
        session.on_flow_closed = self._flow_closed
        self.session: SipSession = session
        first = 1 + int(calls.chance() * (LARGEST_FIRST_RSEQ - 1))
        self._reliable = ReliableProvisionals(cseq=request.cseq.number, first_rseq=first, t1_seconds=calls.timers.t1)
        self._is_reliable = has_option(request, OPTION_TAG, "require")
        self._early: SessionDescription | None = None  # what a reliable response has carried
        self._early_answer: SessionDescription | None = None  # what its PRACK answered, for a call without offer
        self._pending_answer: SessionDescription | None = None
        self._last_told: tuple[int, bytes] | None = None
        self._ringing_timer: TimerHandle | None = None
        self._reliable_timer: TimerHandle | None = None
        self._expiry: TimerHandle | None = None
        if request.expires:
            self._expiry = calls.clock.call_later(request.expires, self._expired)

    # --- set-up, towards the caller ---

    def ring(self) -> None:
        """Say 180."""
        if self._is_reliable and self._offer is None and self._early is None:
            return  # the first reliable response would have to carry our offer (RFC 3262 section 5), and there is none
        self._tell_progress(180, None)

    def progress(self, early: SessionDescription) -> None:
        """Offer early media with a 183."""
        self._tell_progress(183, early)

    def accept(self, answer: SessionDescription) -> None:
        """Send 200; `LegConfirmed` follows."""
        if not self._step(CallerInput.ACCEPT):
            return
        self._pending_answer = answer
        self._stop_timers(is_final=False)
        if not self._reliable.must_final_wait:  # RFC 3262 section 3: the answer in it might be lost for ever
            self._send_success()

    def refuse(self, ending: Ending) -> None:
        """Send the final response that says why."""
        if not self._step(CallerInput.GIVE_UP):
            return
        status, phrase = ending_to_status(ending)
        if ending.status == 481:
            status, phrase = 481, ""  # a Replaces that names nothing (RFC 3891 section 3)
        code = INCOMPATIBLE_FORMAT if status in (488, 606) else MISCELLANEOUS
        headers = [warning_header(text_of(ending), code)]
        reason = ending_to_reason_header(ending)
        if reason:
            headers.append(("Reason", reason))
        self._respond_finally(status, phrase, headers)
        self._end_later(ending)

    # --- Leg methods that mean nothing to a caller ---

    def invite(self, offer: SessionDescription) -> None:
        """A caller is not invited."""

    def cancel(self, ending: Ending) -> None:
        """As `refuse`, or `hang_up` once it is answered."""
        self.hang_up(ending)

    def hang_up(self, ending: Ending) -> None:
        """End the call; before the answer that is a refusal. `LegEnded` follows."""
        if self._step(CallerInput.HANG_UP):
            self.session.hang_up(ending)
        else:
            self.refuse(ending)

    # --- what comes from the caller ---

    def _cancelled(self, cancel: SipRequest) -> None:
        """The caller's CANCEL: it has its 200 already, the INVITE gets 487 (section 9.2)."""
        if self._step(CallerInput.GIVE_UP):
            self._respond_finally(487, "", [])
            self._end(ending_told_by(cancel, EndCause.CANCELLED))

    def _flow_closed(self, flow: Flow) -> None:
        """Who waits for an answer on a connection that is gone will not hear one."""
        if self._step(CallerInput.GIVE_UP):
            self._respond_finally(487, "", [])
            self._end(Ending(EndCause.CANCELLED, "The caller's connection broke.", Origin.PEER))

    def _expired(self) -> None:
        """The caller's device wanted an answer before now (RFC 3261 section 13.3.1)."""
        if self._step(CallerInput.EXPIRE):
            self._respond_finally(487, "", [])
            self._end(Ending(EndCause.NO_ANSWER, origin=Origin.TIMEOUT))

    def _bye_received(self, request: SipRequest) -> None:
        """A BYE in place of a CANCEL (section 15): the INVITE still gets its answer."""
        if self._step(CallerInput.GIVE_UP):
            self._respond_finally(487, "", [])
            self._end(ending_told_by(request, EndCause.CANCELLED))

    def _receive_prack(self, incoming: IncomingRequest) -> None:
        request = incoming.request
        try:
            acknowledged = self._reliable.acknowledge(RAck.parse(request.headers.get("rack") or ""))
            described = session_in(request)
        except SipParseError as error:
            incoming.respond(error.status, str(error))
            return
        except PeerError as error:
            respond_to_bad_body(incoming, error)
            return
        if acknowledged is None:
            incoming.respond(481)
            return
        if described is not None and self._offer is not None:
            # An offer in a PRACK: RFC 3262 section 5 allows it, and a refusal leaves the media as they are.
            incoming.respond(488, headers=[warning_header("Offer this again once the call is answered")])
        else:
            self._early_answer = described or self._early_answer
            incoming.respond(200)
        self._after_prack()

    def _after_prack(self) -> None:
        if self._state is CallerState.ACCEPTING:
            if not self._reliable.must_final_wait:
                self._send_success()
            return
        waiting = self._reliable.next(self._calls.clock.monotonic())
        if waiting is not None:
            self._send_reliably(waiting)
        self._arm_reliable()

    # --- provisional responses ---

    def _tell_progress(self, status: int, early: SessionDescription | None) -> None:
        if self._state is not CallerState.CALLING:
            return
        body = early.to_bytes() if early is not None else b""
        if self._last_told == (status, body):
            return
        self._last_told = (status, body)
        if self._is_reliable:
            # One answer per offer: another one in a later response would not be one (RFC 6337 section 2.2).
            body = b"" if self._early is not None else body
            self._early = self._early or early
        self._send_provisional(status, body)

    def _send_provisional(self, status: int, body: bytes) -> None:
        if self._ringing_timer is not None:
            self._ringing_timer.cancel()
        self._ringing_timer = self._calls.clock.call_later(RINGING_PAUSE_SECONDS, self._say_again)
        if not self._is_reliable:
            self._respond(status, "", self.session.headers(), body)
            return
        provisional = self._reliable.send(status, body, self._calls.clock.monotonic())
        if provisional is not None:
            self._send_reliably(provisional)
        self._arm_reliable()

    def _say_again(self) -> None:
        self._ringing_timer = None
        if self._last_told is not None:
            status, body = self._last_told
            self._send_provisional(status, b"" if self._is_reliable else body)  # an answer is told once

    def _send_reliably(self, provisional: Provisional) -> None:
        headers = [*self.session.headers(), ("Require", OPTION_TAG), ("RSeq", str(provisional.rseq))]
        self._respond(provisional.status, "", headers, provisional.body)

    def _arm_reliable(self) -> None:
        if self._reliable_timer is not None:
            self._reliable_timer.cancel()
            self._reliable_timer = None
        deadline = self._reliable.next_deadline()
        if deadline is not None:
            wait = max(0.0, deadline - self._calls.clock.monotonic())
            self._reliable_timer = self._calls.clock.call_later(wait, self._reliable_due)

    def _reliable_due(self) -> None:
        self._reliable_timer = None
        what = self._reliable.due(self._calls.clock.monotonic())
        if what is Delivery.REPEAT and self._reliable.unacknowledged is not None:
            self._send_reliably(self._reliable.unacknowledged)
        elif what is Delivery.GIVE_UP and self._step(CallerInput.GIVE_UP):
            self._respond_finally(504, "", [])
            self._end(Ending(EndCause.CONNECTIVITY, "The caller's device did not confirm.", Origin.TIMEOUT))
            return
        self._arm_reliable()

    # --- final responses ---

    def _send_success(self) -> None:
        answer = self._pending_answer
        if answer is None or not self._step(CallerInput.SEND_200):
            return
        self._reliable.stop()
        self._arm_reliable()
        session = self.session
        request = self._incoming.request
        headers = [
            *session.headers(has_ice=has_ice(answer)),
            *session.timer.answer(request, self._calls.clock.monotonic()),
        ]
        # RFC 3262 section 5: what a reliable response has said is not said again.
        session.exchange.accept(self._incoming, headers, None if self._early is not None else answer, self._acked)
        session.confirm()

    def _acked(self, ack: SipRequest) -> None:
        answer = self._pending_answer
        if answer is None or not self._step(CallerInput.ACK):
            return
        exchange = self.session.exchange
        if self._offer is not None:
            exchange.local, exchange.remote = self._early or answer, self._offer
            if self._early is not None and self._early != answer:
                # Another device than the one with the early media has answered: now the caller must hear of its media.
                exchange.offer(answer, is_quiet=True)
            self._outbox.tell(LegConfirmed())
            self._release_candidates()
            return
        try:
            described = self._early_answer or session_in(ack)
        except PeerError:
            described = None
        if described is None:
            self._step(CallerInput.HANG_UP)
            text = "The caller's device did not answer our media."
            self.session.end(Ending(EndCause.MEDIA_MISMATCH, text), has_bye=True)
            return
        exchange.local, exchange.remote = self._early or answer, described
        self.form = form_of(described)
        self._outbox.tell(LegConfirmed(described))
        self._release_candidates()

    def _step(self, happened: CallerInput) -> bool:
        """Go where the table says; False when it means nothing in this state."""
        following = CALLER_STEPS[self._state].get(happened)
        if following is None:
            return False
        self._state = following
        return True

    def _respond_finally(self, status: int, phrase: str, headers: list[tuple[str, str]]) -> None:
        self._stop_timers(is_final=True)
        self._respond(status, phrase, headers)

    def _respond(self, status: int, phrase: str, headers: list[tuple[str, str]], body: bytes = b"") -> None:
        self._incoming.respond(
            status,
            phrase,
            headers=headers,
            body=body,
            content_type=SDP_TYPE if body else "",
            to_tag=self.session.dialog.local_tag,
        )

    def _stop_timers(self, *, is_final: bool) -> None:
        for timer in (self._ringing_timer, self._expiry):
            if timer is not None:
                timer.cancel()
        self._ringing_timer = self._expiry = None
        if is_final:
            self._reliable.stop()
            self._arm_reliable()

    def _end(self, ending: Ending) -> None:
        self.session.discard()
        self._outbox.tell(LegEnded(ending))

    def _end_later(self, ending: Ending) -> None:
        self.session.discard()
        self._outbox.tell_later(LegEnded(ending))


def _guess(flow: Flow) -> MediaForm:
    """A browser speaks WebRTC; of others nothing is known before they say."""
    return MediaForm.WEBRTC if flow.transport in ("ws", "wss") else MediaForm.RTP
