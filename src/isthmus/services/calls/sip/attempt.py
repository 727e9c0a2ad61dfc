"""One INVITE on its way to a device: its responses sorted into the dialogs they make (RFC 3261 section 13.2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import SipParseError, TransportError
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg_outbox import Outbox
from isthmus.services.calls.sip.calls import SessionState
from isthmus.services.calls.sip.session import SipSession
from isthmus.services.delivery import Way
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.reliable_provisional import ReliableReceipts

if TYPE_CHECKING:
    from isthmus.services.calls.sip.leg_callee import SipCalleeLeg

# Branches of one device's proxy whose early dialogs we keep; the 2xx of further ones are acknowledged all the same.
MAXIMUM_FORKS = 16


class Fork:
    """One dialog that the INVITE has made.

    Attributes:
        answer: from a reliable provisional response; the 2xx may come without one.
        ack: of the 2xx, once that came.
    """

    __slots__ = ("ack", "answer", "receipts", "session")

    def __init__(self, session: SipSession) -> None:
        self.session = session
        self.receipts = ReliableReceipts()
        self.answer: SessionDescription | None = None  # from a reliable provisional response
        self.ack: SipRequest | None = None

    @property
    def is_abandoned(self) -> bool:
        """Its early dialog was given up, because another one answered or the INVITE failed."""
        return self.ack is None and self.session.state is SessionState.ENDED


class Attempt:
    """One INVITE to the device, by one way (`ports.InviteSink`)."""

    __slots__ = ("_forks", "_has_rung", "_leg", "_request", "way")

    def __init__(self, leg: SipCalleeLeg, way: Way) -> None:
        self._leg = leg
        self.way = way
        self._request: SipRequest | None = None
        self._forks: dict[str, Fork] = {}
        self._has_rung = False

    def build(self) -> SipRequest:
        """Build the request, and keep it for the dialogs that it makes."""
        self._request = self._leg.build_invite(self.way)
        return self._request

    def provisional(self, response: SipResponse) -> None:
        """A 101 to 199 came."""
        self._has_rung = True
        fork = self._fork(response)
        if fork is not None:
            if fork.receipts.is_reliable(response):
                rack = fork.receipts.receive(response)
                if rack is None:
                    return  # repeated or out of order (RFC 3262 section 4)
                fork.session.request("PRACK", [("RAck", str(rack))])
            fork.session.note_peer(response)
        self._leg.progressed(response, fork)

    def accepted(self, response: SipResponse) -> None:
        """A 2xx came, for the first time or again."""
        fork = self._fork(response, is_final=True)
        if fork is None:
            unreadable = TransportError("The device answered without telling how to reach it.")
            self._leg.failed(unreadable, self.way, has_rung=True)
            return
        session = fork.session
        is_new = fork.ack is None
        if fork.ack is None:
            session.dialog.confirm(response)
            fork.ack = session.dialog.make_ack(response.cseq.number)
        session.calls.endpoint.send_ack(fork.ack, session.path.next_hop(session.dialog))
        if is_new:
            session.note_peer(response)
            session.confirm()
            self._leg.accepted(response, fork)
            for other in self._forks.values():
                if other.ack is None:
                    other.session.discard()

    def failed(self, outcome: SipResponse | TransportError) -> None:
        """Nothing came of it."""
        for fork in self._forks.values():
            if fork.ack is None:
                fork.session.discard()
        self._leg.failed(outcome, self.way, has_rung=self._has_rung)

    def _fork(self, response: SipResponse, *, is_final: bool = False) -> Fork | None:
        tag = response.to_address.tag
        fork = self._forks.get(tag)
        if fork is not None and not (is_final and fork.is_abandoned):
            return fork
        if self._request is None or (not is_final and (not tag or len(self._forks) >= MAXIMUM_FORKS)):
            return None
        try:
            silent = Outbox(self._leg.calls.clock)
            made = Fork(self._leg.make_session(self._request, response, self.way, silent))
        except SipParseError:
            return None  # a Record-Route that cannot be read: nothing can be sent there, not even ACK
        if fork is not None:  # its PRACKs have used numbers
            made.session.dialog.local_cseq = fork.session.dialog.local_cseq
        self._forks[tag] = made
        return made
