"""An established call with one SIP device: the requests within its dialog, in both directions (RFC 3261 section 12).

Offers and answers are the affair of `sip_exchange`, INFO that of `sip_info`, REFER that of `sip_transfer`; what a leg
is before it is established stands in `sip_leg_caller` and `sip_leg_callee`.
"""

from __future__ import annotations

from collections.abc import Callable

from isthmus.errors import SipParseError, TransportError
from isthmus.interworking.call_endings import ending_to_reason_header
from isthmus.interworking.session_bodies import ACCEPT
from isthmus.model import Address, EndCause, Ending, Origin
from isthmus.ports import Flow, IncomingRequest, TimerHandle
from isthmus.services.calls.leg import Leg, LegEnded, LegEvent
from isthmus.services.calls.leg_outbox import Outbox
from isthmus.services.calls.sip.calls import ALLOW, SessionState, SipCalls, supported
from isthmus.services.calls.sip.exchange import Exchange
from isthmus.services.calls.sip.info import RECV_INFO, Infos
from isthmus.services.calls.sip.path import DialogPath
from isthmus.services.calls.sip.refusals import ending_told_by
from isthmus.services.calls.sip.transfer import Transfers
from isthmus.sip.dialog import Dialog, ErrorEffect, effect_of_failure
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.session_timer import SessionTimer, TimerAction

# A failure of these says something about the call. A NOTIFY may find that nobody wants to hear of a transfer any more,
# a PRACK that its response was overtaken.
_ABOUT_THE_CALL = frozenset({"INVITE", "UPDATE", "INFO"})


class SipSession:
    """One dialog of a call.

    Attributes:
        dialog: its ids, targets and numbers.
        exchange: offers and answers.
        infos: digits and candidates.
        owns_call_id: we made the Call-ID, which decides who waits longer after a glare (section 14.1).
        allowed: methods that the device says it takes; empty when it says nothing.
        on_prack: takes PRACKs, while our reliable responses wait for them.
        on_bye, on_cancel, on_flow_closed: take what happens before the dialog is confirmed.
    """

    def __init__(
        self,
        calls: SipCalls,
        dialog: Dialog,
        path: DialogPath,
        outbox: Outbox,
        *,
        timer: SessionTimer,
        peer: Address,
        owns_call_id: bool,
    ) -> None:
        self.calls = calls
        self.dialog = dialog
        self.path = path
        self._peer = peer
        self.owns_call_id = owns_call_id
        self.timer = timer
        self.state = SessionState.EARLY
        self.allowed: frozenset[str] = frozenset()
        self.on_prack: Callable[[IncomingRequest], None] | None = None
        self.on_bye: Callable[[SipRequest], None] | None = None
        self.on_cancel: Callable[[SipRequest], None] | None = None
        self.on_flow_closed: Callable[[Flow], None] | None = None
        self.exchange = Exchange(self)
        self.infos = Infos(self)
        self._transfers = Transfers(self)
        self._outbox = outbox
        self._timer_handle: TimerHandle | None = None
        self._wants_bye: Ending | None = None
        self._receive = {
            "ACK": self.exchange.receive_ack,
            "INVITE": self.exchange.receive_invite,
            "UPDATE": self.exchange.receive_update,
            "BYE": self._receive_bye,
            "INFO": self.infos.receive,
            "PRACK": self._receive_prack,
            "REFER": self._transfers.receive,
            "OPTIONS": self._receive_options,
            "MESSAGE": self._receive_message,
            "NOTIFY": _refuse_notify,
        }
        calls.dialogs.add(self._key, self)

    @property
    def _key(self) -> tuple[str, str, str]:
        return self.dialog.call_id, self.dialog.local_tag, self.dialog.remote_tag

    @property
    def party(self) -> Address:
        """The person at this end."""
        return self.path.party

    @property
    def peer(self) -> Address:
        """The person at the other end of the call, for whom messages within the dialog are."""
        return self._peer

    @property
    def leg(self) -> Leg | None:
        """The leg that the dialog belongs to; None for a fork that lost."""
        return self._outbox.leg

    @property
    def outbox(self) -> Outbox:
        """Where events go."""
        return self._outbox

    def note_peer(self, message: SipRequest | SipResponse) -> None:
        """Learn what the device takes."""
        try:
            methods = message.headers.get_list("allow")
        except SipParseError:
            return
        if methods:
            self.allowed = frozenset(method.strip() for method in methods)

    def join(self, outbox: Outbox) -> list[LegEvent]:
        """This dialog has become the call: tell its events from now on; returns those that came before."""
        early, self._outbox = self._outbox, outbox
        return early.take()

    def confirm(self) -> None:
        """The 2xx was sent or came."""
        if self.state is SessionState.EARLY:
            self.state = SessionState.CONFIRMED
            self.dialog.is_early = False
            self.arm_timer()

    def headers(self, *, has_ice: bool = False) -> list[tuple[str, str]]:
        """Header fields of our INVITEs, UPDATEs and their 2xx."""
        fields = [("Contact", self.dialog.contact_header), ("Allow", ALLOW), ("Supported", supported(has_ice=has_ice))]
        return [*fields, RECV_INFO] if has_ice else fields

    def note(self, text: str, rule: str) -> None:
        """Trace a decision."""
        self.calls.note(text, self.dialog, self.party, rule)

    # --- out ---

    def request(
        self,
        method: str,
        headers: list[tuple[str, str]],
        body: bytes = b"",
        content_type: str = "",
        done: Callable[[SipResponse | TransportError], None] | None = None,
    ) -> None:
        """Send a request within the dialog; what its failure means for the dialog is seen to (RFC 5057)."""
        try:
            request = self.dialog.make_request(method, headers, body, content_type)
        except SipParseError:
            return

        def answered(outcome: SipResponse | TransportError) -> None:
            if done is not None:
                done(outcome)
            if method in _ABOUT_THE_CALL:
                self.check_outcome(method, outcome)

        self.calls.endpoint.request_nowait(request, self.path.next_hop(self.dialog), answered)

    def check_outcome(self, method: str, outcome: SipResponse | TransportError) -> None:
        """End the call when a failure says that its dialog is gone (RFC 3261 section 12.2.1.2, RFC 5057)."""
        if self.state is SessionState.ENDED:
            return
        status = outcome.status if isinstance(outcome, SipResponse) else 408
        if status < 300:
            if isinstance(outcome, SipResponse):
                self.dialog.refresh_target(outcome)
            return
        if status == 481 or effect_of_failure(method, status) is ErrorEffect.DIALOG:
            text = "The device no longer knows the call." if status == 481 else "The device was not heard of any more."
            self.end(Ending(EndCause.CONNECTIVITY, text, Origin.TIMEOUT, status=status), has_bye=status != 481)

    def hang_up(self, ending: Ending) -> None:
        """End the call because the other end of it did. `LegEnded` follows."""
        if self.state is not SessionState.ENDED:
            self._finish(ending, has_bye=True)
            self._outbox.tell_later(LegEnded(ending))

    def end(self, ending: Ending, *, has_bye: bool) -> None:
        """End the call for a reason of this side."""
        if self.state is not SessionState.ENDED:
            self._finish(ending, has_bye=has_bye)
            self._outbox.tell(LegEnded(ending))

    def discard(self) -> None:
        """An early dialog came to nothing."""
        self._finish(Ending(EndCause.CANCELLED), has_bye=False)

    def _finish(self, ending: Ending, *, has_bye: bool) -> None:
        was_confirmed = self.state is SessionState.CONFIRMED
        self.state = SessionState.ENDED
        self.timer.stop()
        self.arm_timer()
        has_bye = has_bye and was_confirmed
        self.exchange.stop(keeps_repeating=has_bye)
        if not has_bye:
            self._forget()
        elif self.exchange.awaits_ack:
            # Section 15: the server may not send BYE before the ACK came, or will not come any more.
            self._wants_bye = ending
        else:
            self._send_bye(ending)

    def ack_settled(self) -> None:
        """The ACK came, or will not come any more: now a BYE may go out."""
        if self._wants_bye is not None:
            ending, self._wants_bye = self._wants_bye, None
            self._send_bye(ending)

    def _send_bye(self, ending: Ending) -> None:
        reason = ending_to_reason_header(ending)
        self.request("BYE", [("Reason", reason)] if reason else [], done=lambda _: self._forget())

    def _forget(self) -> None:
        self.calls.dialogs.discard(self._key, self)

    # --- in ---

    def is_heard_on(self, flow: Flow) -> bool:
        """True when a request on this flow comes from where the device was last proven to be."""
        known = self.path.flow
        if known is None or known.transport != flow.transport:
            return False
        if flow.is_stream:
            return known.connection == flow.connection
        return (known.remote_host, known.remote_port) == (flow.remote_host, flow.remote_port)

    def cancelled(self, incoming: IncomingRequest, cancel: SipRequest) -> None:
        """An INVITE of this dialog was cancelled; its CANCEL has been answered."""
        if self.state is SessionState.EARLY and self.on_cancel is not None:
            self.on_cancel(cancel)
        else:
            self.exchange.cancelled(incoming)

    def flow_closed(self, flow: Flow) -> None:
        """A connection is gone: an established call survives that, one that waits for its answer does not."""
        if self.state is SessionState.EARLY and self.on_flow_closed is not None and self.path.flow == flow:
            self.on_flow_closed(flow)

    def receive(self, incoming: IncomingRequest) -> None:
        """Take a request within the dialog."""
        request = incoming.request
        receive = self._receive.get(request.method)
        if self.state is SessionState.ENDED and request.method not in ("BYE", "ACK"):
            incoming.respond(481)
            return
        if receive is None:
            incoming.respond(405, headers=[("Allow", ALLOW)])
            return
        try:
            self.dialog.receive_request(request)
        except SipParseError as error:
            incoming.respond(error.status, str(error))
            return
        if request.method != "ACK":  # which is never asked to prove where it comes from
            self.path.heard_on(incoming.flow)
        receive(incoming)

    def _receive_bye(self, incoming: IncomingRequest) -> None:
        incoming.respond(200)
        if self.state is SessionState.ENDED:
            self._wants_bye = None
            self._forget()
        elif self.state is SessionState.EARLY and self.on_bye is not None:
            self.on_bye(incoming.request)
        else:
            self.end(ending_told_by(incoming.request, EndCause.HUNG_UP), has_bye=False)

    def _receive_prack(self, incoming: IncomingRequest) -> None:
        if self.on_prack is None:
            incoming.respond(481)
        else:
            self.on_prack(incoming)

    def _receive_options(self, incoming: IncomingRequest) -> None:
        incoming.respond(200, headers=[("Allow", ALLOW), ("Accept", ACCEPT), ("Supported", supported(has_ice=True))])

    def _receive_message(self, incoming: IncomingRequest) -> None:
        if self.calls.messages is None:
            incoming.respond(405, headers=[("Allow", ALLOW.removesuffix(", MESSAGE"))])
        else:
            self.calls.messages(self, incoming)

    # --- session timer (RFC 4028) ---

    def arm_timer(self) -> None:
        """Wait for the next deadline of the session timer."""
        if self._timer_handle is not None:
            self._timer_handle.cancel()
            self._timer_handle = None
        deadline = self.timer.next_deadline()
        if deadline is not None:
            wait = max(0.0, deadline - self.calls.clock.monotonic())
            self._timer_handle = self.calls.clock.call_later(wait, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer_handle = None
        action = self.timer.due(self.calls.clock.monotonic())
        if action is TimerAction.EXPIRE:
            self.note("nothing was heard of the device within the session interval", "sip.session-timer")
            self.end(Ending(EndCause.EXPIRED, origin=Origin.TIMEOUT), has_bye=True)
            return
        if action is TimerAction.REFRESH:
            self._refresh()
        self.arm_timer()

    def _refresh(self) -> None:
        if "UPDATE" in self.allowed:
            self.request("UPDATE", [*self.headers(), *self.timer.request_headers()], done=self._updated)
        elif not self.exchange.refresh():
            self.timer.refresh_failed(self.calls.clock.monotonic())

    def _updated(self, outcome: SipResponse | TransportError) -> None:
        if isinstance(outcome, SipResponse) and outcome.status in (405, 501):
            self.allowed -= {"UPDATE"}  # it said otherwise
            self._refresh()
        else:
            self.refreshed(outcome)

    def refreshed(self, outcome: SipResponse | TransportError) -> None:
        """A refresh was answered."""
        now = self.calls.clock.monotonic()
        if self.state is not SessionState.CONFIRMED:
            return
        if isinstance(outcome, SipResponse) and outcome.is_success:
            self.timer.accepted(outcome, now)
        else:
            if isinstance(outcome, SipResponse) and outcome.status == 422:
                self.timer.interval_was_refused(outcome)
            self.timer.refresh_failed(now)
        self.arm_timer()


def _refuse_notify(incoming: IncomingRequest) -> None:
    incoming.respond(481)  # we send no REFER, so nobody has a subscription to tell us of
