"""Why something was refused, read from SIP and written to it: Reason, Warning, bodies that mean nothing to us."""

from __future__ import annotations

from isthmus.errors import PeerError, TransportError
from isthmus.interworking.call_endings import ending_from_reason_header, ending_from_status
from isthmus.interworking.session_bodies import ACCEPT
from isthmus.interworking.sip_bodies import UnsupportedBodyError
from isthmus.model import EndCause, Ending, Origin
from isthmus.ports import IncomingRequest
from isthmus.sdp.session_description import SdpError
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.warning import INCOMPATIBLE_FORMAT, warning_header, warning_text


def ending_told_by(request: SipRequest, cause: EndCause) -> Ending:
    """Return the ending that a CANCEL or BYE means: its Reason (RFC 3326), or else `cause`."""
    for value in request.headers.get_all("reason"):
        ending = ending_from_reason_header(value)
        if ending is not None:
            return ending
    return Ending(cause)


def respond_to_bad_body(incoming: IncomingRequest, error: PeerError) -> None:
    """Refuse a request whose body is no session description that we understand (RFC 3261 section 21.4.13)."""
    if isinstance(error, UnsupportedBodyError):
        incoming.respond(415, headers=[("Accept", ACCEPT)])
    elif isinstance(error, SdpError):
        incoming.respond(error.status, headers=[warning_header(str(error), INCOMPATIBLE_FORMAT)])
    else:
        incoming.respond(error.status or 400, str(error))


def ending_of(outcome: SipResponse | TransportError) -> Ending:
    """Return what the failure of an INVITE means; the text of a Warning says more than the Reason-Phrase."""
    if isinstance(outcome, SipResponse):
        return ending_from_status(outcome.status, warning_text(outcome) or outcome.reason)
    return Ending(EndCause.CONNECTIVITY, origin=Origin.TIMEOUT)
