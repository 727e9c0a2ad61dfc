"""REFER within a call: the request for a transfer, and what the device is told about it (RFC 3515, RFC 4488).

Isthmus carries out transfers itself, as new calls under the policy of whoever asks; nothing is delegated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import AddressError, SipParseError
from isthmus.interworking.addresses import address_from_uri
from isthmus.interworking.call_endings import ending_to_status
from isthmus.model import Ending
from isthmus.ports import IncomingRequest
from isthmus.services.calls.leg import LegTransferRequested
from isthmus.services.calls.sip.calls import SessionState
from isthmus.sip.refer import EVENT_PACKAGE, SIPFRAG_TYPE, ReferTo, sipfrag, wants_subscription
from isthmus.sip.subscription import subscription_state_header

if TYPE_CHECKING:
    from isthmus.services.calls.sip.session import SipSession

# How long a transfer may take: ringing, three minutes at most.
SUBSCRIPTION_SECONDS = 180


class Transfers:
    """The REFERs of one dialog."""

    def __init__(self, session: SipSession) -> None:
        self._session = session
        self._count = 0

    def receive(self, incoming: IncomingRequest) -> None:
        """Take a REFER: 202, a NOTIFY at once, and `LegTransferRequested`."""
        request = incoming.request
        try:
            refer_to = ReferTo.of(request)
            target, _ = address_from_uri(refer_to.target, self._session.peer.domain)
        except SipParseError as error:
            incoming.respond(error.status, str(error))
            return
        except AddressError as error:
            incoming.respond(404, str(error))
            return
        if self._session.state is not SessionState.CONFIRMED:
            incoming.respond(491)
            return
        self._count += 1
        contact = ("Contact", self._session.dialog.contact_header)
        report = _Report(self._session, request.cseq.number, has_id=self._count > 1)
        if wants_subscription(request):
            incoming.respond(202, headers=[contact])
            report.tell(100, None)  # section 2.4.4: a NOTIFY at once
        else:
            incoming.respond(200, headers=[contact, ("Refer-Sub", "false")])
            report.is_over = True
        replaces = refer_to.replaces
        named = (replaces.call_id, replaces.to_tag, replaces.from_tag) if replaces is not None else None
        self._session.outbox.tell(LegTransferRequested(target, named, report.tell))


class _Report:
    """The implicit subscription of one REFER."""

    __slots__ = ("_event", "_last", "_session", "is_over")

    def __init__(self, session: SipSession, cseq: int, *, has_id: bool) -> None:
        self._session = session
        # Section 2.4.6: the first may go without id, further ones carry the CSeq of their REFER.
        self._event = f"{EVENT_PACKAGE};id={cseq}" if has_id else EVENT_PACKAGE
        self._last = 0
        self.is_over = False

    def tell(self, status: int, ending: Ending | None) -> None:
        """Send a NOTIFY with what has become of the transfer: a status, or the ending that it failed with."""
        if ending is not None:
            status = ending.status if ending.status >= 300 else ending_to_status(ending)[0]
        if self.is_over or status == self._last:
            return
        self._last = status
        self.is_over = status >= 200
        if self.is_over:
            state = subscription_state_header("terminated", reason="noresource")
        else:
            state = subscription_state_header("active", expires=SUBSCRIPTION_SECONDS)
        headers = [
            ("Contact", self._session.dialog.contact_header),
            ("Event", self._event),
            ("Subscription-State", state),
        ]
        if self._session.state is SessionState.CONFIRMED:
            self._session.request("NOTIFY", headers, sipfrag(status), f"{SIPFRAG_TYPE};version=2.0")
