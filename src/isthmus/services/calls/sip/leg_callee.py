"""The leg of a callee's SIP device: we are the client of its INVITE (RFC 3261 section 13.2).

One device may still fork behind its proxy: several early dialogs, several 2xx. The first that answers is the call; the
others are acknowledged and hung up (section 13.2.2.4). Its other ways are tried when one fails (RFC 5626 section 7).
"""

from __future__ import annotations

from isthmus.errors import AddressError, PeerError, RequestTimeoutError, SipParseError, TransportError
from isthmus.interworking.addresses import address_from_sip_uri, address_to_sip_uri
from isthmus.interworking.call_endings import ending_from_status, ending_to_reason_header
from isthmus.interworking.session_bodies import SDP_TYPE, session_in
from isthmus.model import Address, EndCause, Ending, MediaForm, Origin
from isthmus.ports import SentInvite
from isthmus.sdp.offer_answer import form_of
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import LegAccepted, LegEnded, LegProgressed, LegRinging
from isthmus.services.calls.leg_outbox import Outbox
from isthmus.services.calls.sip.attempt import Attempt, Fork
from isthmus.services.calls.sip.calls import ALLOW, SipCalls, has_ice, supported
from isthmus.services.calls.sip.dialogs import with_contact
from isthmus.services.calls.sip.forms import forms_of, transport_of
from isthmus.services.calls.sip.leg import SipLeg
from isthmus.services.calls.sip.leg_states import CALLEE_STEPS, CalleeInput, CalleeState
from isthmus.services.calls.sip.path import DialogPath
from isthmus.services.calls.sip.refusals import ending_of
from isthmus.services.calls.sip.session import SipSession
from isthmus.services.delivery import Target, Way
from isthmus.sip.dialog import Dialog
from isthmus.sip.headers import NameAddr
from isthmus.sip.message import SipRequest, SipResponse, build_request
from isthmus.sip.uri import SipUri, escape_user
from isthmus.sip.validation import has_option
from isthmus.sip.warning import warning_text

# A device that sends us on and on is misconfigured (RFC 3261 section 8.1.3.4 warns of loops).
MAXIMUM_REDIRECTS = 5
# How often the session interval may be raised (RFC 4028 section 7.3).
MAXIMUM_INTERVALS = 3


class SipCalleeLeg(SipLeg):
    """A leg towards one device of the callee."""

    def __init__(
        self,
        calls: SipCalls,
        target: Target,
        *,
        party: Address,
        peer: Address,
        form: MediaForm | None = None,
        peer_name: str = "",
        hops: int = 0,
        breadth: int = 60,
        max_forwards: int = 70,
        is_hosted: bool = True,
    ) -> None:
        """Prepare; nothing is sent before `invite`.

        Args:
            target: the device and the ways to it (`services.delivery`).
            party: the callee.
            peer: the caller, who stands in From.
            form: what media it is to be asked for; None takes a guess by transport.
            peer_name: display name of the caller.
            hops: crossings behind the call when it arrives there.
            breadth: Max-Breadth for this branch (RFC 5393).
            max_forwards: hops left.
            is_hosted: the device registered with us; otherwise it is a neighbour of a routed domain.
        """
        super().__init__(calls, party=party, peer=peer, device=target.key, form=form or forms_of(target)[0])
        self._outbox.leg = self
        self._ways = list(target.ways)
        self._peer_name = peer_name
        self._hops = hops
        self._breadth = breadth
        self._max_forwards = max_forwards
        self._is_hosted = is_hosted
        self._state = CalleeState.IDLE
        self._offer: SessionDescription | None = None
        self._local: NameAddr | None = None
        self._call_id = ""
        self._cseq = 0
        self._timer = calls.session_timer()
        self._sent: SentInvite | None = None
        self._has_rung = False
        self._has_progressed = False
        self._redirects = 0
        self._intervals = 0
        self._over = Ending(EndCause.ANSWERED_ELSEWHERE)

    # --- Leg methods that mean nothing to a callee ---

    def ring(self) -> None:
        """A callee is not told that somebody rings."""

    def progress(self, early: SessionDescription) -> None:
        """Nor that there are early media."""

    def accept(self, answer: SessionDescription) -> None:
        """A callee's leg is invited, not accepted."""

    def refuse(self, ending: Ending) -> None:
        """As `cancel`."""
        self.cancel(ending)

    # --- set-up ---

    def invite(self, offer: SessionDescription) -> None:
        """Ring this device."""
        if not self._step(CalleeInput.INVITE):
            return
        self._offer = offer
        endpoint = self._calls.endpoint
        self._call_id = endpoint.new_call_id()
        try:
            caller = address_to_sip_uri(self.peer)
        except AddressError as error:
            self._fail_later(Ending(EndCause.FAILED, str(error), Origin.ADDRESS))
            return
        self._local = NameAddr(caller, self._peer_name).with_param("tag", endpoint.new_tag())
        self._try_next()

    def cancel(self, ending: Ending) -> None:
        """Stop ringing. `LegEnded` follows; a 2xx that crosses is acknowledged and hung up."""
        if self._state is CalleeState.ESTABLISHED:
            self.hang_up(ending)
        elif self._step(CalleeInput.CANCEL):
            self._over = ending
            if self._sent is not None:
                self._sent.cancel(ending_to_reason_header(ending))
            self._outbox.tell_later(LegEnded(ending))

    def hang_up(self, ending: Ending) -> None:
        """End the call. `LegEnded` follows."""
        if self.session is not None and self._step(CalleeInput.HANG_UP):
            self.session.hang_up(ending)
        else:
            self.cancel(ending)

    def _try_next(self) -> None:
        if not self._ways:
            self._fail_later(Ending(EndCause.UNREACHABLE, origin=Origin.NO_DEVICE))
            return
        attempt = Attempt(self, self._ways.pop(0))
        self._cseq += 1
        self._sent = self._calls.endpoint.invite(attempt.build(), attempt.way.next_hop, attempt)

    def build_invite(self, way: Way) -> SipRequest:
        """Build the INVITE for one way."""
        assert self._offer is not None  # invite() put both there
        assert self._local is not None
        is_ice = has_ice(self._offer)
        contact = self._calls.endpoint.contact_uri(escape_user(self.peer.local), transport_of(way))
        headers = [
            ("Contact", f"<{contact}>"),
            ("Allow", ALLOW),
            ("Supported", supported(has_ice=is_ice)),
            *self._timer.request_headers(),
            ("Max-Breadth", str(self._breadth)),
            *[("Route", route) for route in way.routes],
        ]
        if is_ice:
            headers.append(("Recv-Info", "trickle-ice"))
        if self._hops:
            headers.append(self._calls.loops.header(self._hops))
        return build_request(
            "INVITE",
            way.uri,
            from_address=self._local,
            to_address=NameAddr(address_to_sip_uri(self.party)),
            call_id=self._call_id,
            cseq=self._cseq,
            headers=headers,
            body=self._offer.to_bytes(),
            content_type=SDP_TYPE,
            max_forwards=self._max_forwards,
        )

    # --- what comes of it ---

    def progressed(self, response: SipResponse, fork: Fork | None) -> None:
        """Take a provisional response: only the first fork rings (STANDARDS 1.7.5)."""
        if self._state is not CalleeState.CALLING:
            return
        if response.status in (180, 182) and not self._has_rung:
            self._has_rung = True
            self._outbox.tell(LegRinging())
        try:
            early = session_in(response)
        except PeerError:
            return
        if early is None:
            return
        if fork is not None and fork.receipts.is_reliable(response):
            fork.answer = fork.answer or early
        if not self._has_progressed:
            self._has_progressed = True
            self._outbox.tell(LegProgressed(early))

    def accepted(self, response: SipResponse, fork: Fork) -> None:
        """Take the first 2xx of a dialog, acknowledged; only one dialog becomes the call."""
        session = fork.session
        if not self._step(CalleeInput.ANSWER):
            said = "a device answered although the call was answered or over, and is hung up"
            self._calls.note(said, session.dialog, self.party, "sip.late-answer")
            session.hang_up(self._over)
            return
        self.session = session
        early = session.join(self._outbox)
        session.timer.accepted(response, self._calls.clock.monotonic())
        session.arm_timer()
        problem, answer = "The device answered without media.", fork.answer
        try:
            answer = session_in(response) or answer
        except PeerError as error:
            problem = str(error)
        if answer is None:
            self._step(CalleeInput.HANG_UP)
            session.end(Ending(EndCause.MEDIA_MISMATCH, problem), has_bye=True)
            return
        self.form = form_of(answer)
        self.takes_trickle = has_option(response, "trickle-ice")
        self.device = _device_of(response) or self.device
        session.exchange.local, session.exchange.remote = self._offer, answer
        self._outbox.tell(LegAccepted(answer, self.device))
        for event in early:
            self._outbox.tell(event)
        self._release_candidates()

    def failed(self, outcome: SipResponse | TransportError, way: Way, *, has_rung: bool) -> None:
        """Take the failure of one way: try another, follow a redirect, or tell."""
        if self._state is not CalleeState.CALLING:
            return
        if isinstance(outcome, SipResponse):
            status = outcome.status
            if status == 422 and self._intervals < MAXIMUM_INTERVALS and self._timer.interval_was_refused(outcome):
                self._intervals += 1
                self._ways.insert(0, way)
            elif status // 100 == 3:
                self._follow(outcome, way)
            elif status not in (408, 430, 503) or has_rung or not self._ways:
                self._end(ending_of(outcome))
                return
        elif has_rung or not self._ways:
            self._end(_ending_of_silence(outcome, has_rung=has_rung))
            return
        if isinstance(outcome, TransportError) or outcome.status == 503:
            self._calls.delivery.rest(way)
        if self._state is CalleeState.CALLING:
            self._try_next()

    def _follow(self, response: SipResponse, way: Way) -> None:
        """Follow a redirect within the same device or neighbour; another person is a new call, for the call to make.

        Whoever a phone forwards to is subject to the policy of the caller and of the phone's owner (STANDARDS 3.11), so
        it is told as `Ending.alternative`.
        """
        try:
            contacts = [contact.uri for contact in response.contacts]
        except SipParseError:
            contacts = []
        self._redirects += 1
        hosts = {way.uri.host, way.next_hop.uri.host if way.next_hop is not None and way.next_hop.uri else ""}
        known = [uri for uri in contacts if isinstance(uri, SipUri) and uri.host in hosts and not uri.headers]
        if known and self._redirects <= MAXIMUM_REDIRECTS:
            ways = [Way(uri, None, way.routes, way.key, way.is_stream) for uri in known[:MAXIMUM_REDIRECTS]]
            self._ways = ways
            return
        contact = str(contacts[0]) if contacts else ""
        self._end(ending_from_status(response.status, warning_text(response) or response.reason, contact=contact))

    def make_session(self, request: SipRequest, response: SipResponse, way: Way, outbox: Outbox) -> SipSession:
        """Make the dialog that a response creates."""
        hop = way.next_hop
        path = DialogPath(
            self._calls,
            self.party,
            flow=hop.flow if hop is not None else None,
            device=way.key,
            is_hosted=self._is_hosted,
            tls_names=hop.tls_names if hop is not None else (),
        )
        session = SipSession(
            self._calls,
            Dialog.as_client(request, with_contact(response, request.uri)),
            path,
            outbox,
            timer=self._timer.copy(),
            peer=self.peer,
            owns_call_id=True,
        )
        session.note_peer(response)
        return session

    @property
    def calls(self) -> SipCalls:
        """The surroundings."""
        return self._calls

    def _end(self, ending: Ending) -> None:
        if self._step(CalleeInput.FAIL):
            self._outbox.tell(LegEnded(ending))

    def _fail_later(self, ending: Ending) -> None:
        if self._step(CalleeInput.FAIL):
            self._outbox.tell_later(LegEnded(ending))

    def _step(self, happened: CalleeInput) -> bool:
        """Go where the table says; False when it means nothing in this state."""
        following = CALLEE_STEPS[self._state].get(happened)
        if following is None:
            return False
        self._state = following
        return True


def _device_of(response: SipResponse) -> str:
    """The `gr` of the device that answered, "" when it says none."""
    try:
        uri = response.contacts[0].uri
        return address_from_sip_uri(uri)[1] if isinstance(uri, SipUri) else ""
    except (AddressError, SipParseError, IndexError):
        return ""


def _ending_of_silence(error: TransportError, *, has_rung: bool) -> Ending:
    if has_rung and isinstance(error, RequestTimeoutError):
        return Ending(EndCause.NO_ANSWER, origin=Origin.TIMEOUT)
    return Ending(EndCause.UNREACHABLE, str(error)[:300], Origin.TIMEOUT)
