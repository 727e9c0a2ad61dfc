"""INFO within a call: DTMF digits and trickled candidates (RFC 6086, RFC 8840)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import SipParseError
from isthmus.ports import IncomingRequest
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.sdp.trickle import fragment_from_text, fragment_to_text
from isthmus.services.calls.leg import LegCandidates, LegDigit
from isthmus.services.calls.sip.calls import SessionState
from isthmus.sip.dtmf import PLAIN_TYPE, RELAY_TYPE, Digit, parse_digit, relay_body

if TYPE_CHECKING:
    from isthmus.services.calls.sip.session import SipSession

FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"  # RFC 8840 section 9
TRICKLE_PACKAGE = "trickle-ice"
# RFC 6086 section 4.2: what an INFO with an unknown package is told.
RECV_INFO = ("Recv-Info", TRICKLE_PACKAGE)
_ACCEPT = ("Accept", f"{RELAY_TYPE}, {PLAIN_TYPE}, {FRAGMENT_TYPE}")
# Edge case 28: Lync says with these that somebody types.
_SIGNS_OF_LIFE = "application/vnd.microsoft."


class Infos:
    """The INFOs of one dialog, both ways."""

    def __init__(self, session: SipSession) -> None:
        self._session = session

    def send_digit(self, digit: str, milliseconds: int) -> None:
        """Send a DTMF digit, unless the device says that it takes no INFO."""
        session = self._session
        if session.state is SessionState.CONFIRMED and (not session.allowed or "INFO" in session.allowed):
            session.request("INFO", [], relay_body(Digit(digit, milliseconds)), RELAY_TYPE)

    def send_candidates(self, fragment: SessionDescription) -> None:
        """Send trickled candidates (RFC 8840 section 4.3)."""
        if self._session.state is not SessionState.ENDED:
            headers = [("Info-Package", TRICKLE_PACKAGE), ("Content-Disposition", "Info-Package")]
            self._session.request("INFO", headers, fragment_to_text(fragment).encode(), FRAGMENT_TYPE)

    def receive(self, incoming: IncomingRequest) -> None:
        """Take an INFO."""
        request = incoming.request
        package = request.headers.get("info-package")
        if package is not None and package.partition(";")[0].strip().lower() != TRICKLE_PACKAGE:
            incoming.respond(469, headers=[RECV_INFO])
            return
        media_type = request.content_type
        try:
            if media_type in (RELAY_TYPE, PLAIN_TYPE):
                digit = parse_digit(request.body, media_type)
                incoming.respond(200)
                self._session.outbox.tell(LegDigit(digit.digit, digit.milliseconds))
            elif media_type == FRAGMENT_TYPE:
                fragment = fragment_from_text(request.body)
                incoming.respond(200)
                self._session.outbox.tell(LegCandidates(fragment))
            elif not request.body or media_type.startswith(_SIGNS_OF_LIFE):
                incoming.respond(200)
            else:
                incoming.respond(415, headers=[_ACCEPT])
        except (SipParseError, SdpError) as error:
            incoming.respond(400, str(error))
