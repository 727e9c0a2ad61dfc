"""Where calls of consumers come in: IQs with `<jingle/>`, proposals, and the presence of devices that are in a call."""

from __future__ import annotations

from typing import Protocol
from xml.etree.ElementTree import Element

from isthmus.errors import AddressError, PayloadError
from isthmus.interworking.addresses import SYNTHETIC_RESOURCE, address_from_jid, address_to_jid
from isthmus.interworking.failures import failure_from_stanza_error
from isthmus.interworking.jingle_message import (
    JingleMessage,
    Proceed,
    Propose,
    Reject,
    jingle_message_from_stanza,
    wins_tie_break,
)
from isthmus.interworking.jingle_senders import UnsupportedContentError
from isthmus.interworking.presence import presentity_jid
from isthmus.model import Address, EndCause, Ending, Origin, Realm
from isthmus.ports import IqRefusal, XmppLink
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.services.calls.jingle.caller_leg import JingleCallerLeg
from isthmus.services.calls.jingle.leg import JingleLeg, JingleSurroundings
from isthmus.services.calls.jingle.proposal_leg import JingleProposalLeg
from isthmus.services.calls.jingle.proposals import ReceivedProposal
from isthmus.services.calls.jingle.refusals import (
    BAD_REQUEST,
    NOBODY,
    OUT_OF_ORDER,
    TIE_BREAK,
    TOO_MANY,
    UNKNOWN_SESSION,
)
from isthmus.services.calls.jingle.registry import ProposalName, SessionName
from isthmus.services.calls.jingle.states import ProposalState, SessionState
from isthmus.services.calls.jingle.wire import returned_id
from isthmus.services.calls.leg import CallSink, IncomingCall
from isthmus.xmpp.jingle import ACTIONS, Jingle, jingle_of
from isthmus.xmpp.stanza import child

# Clients make ids of 16 to 40 characters.
MAXIMUM_SID = 255
_UNANSWERED = (SessionState.INITIATED, SessionState.PENDING, SessionState.RINGING)


class Realms(Protocol):
    """Which network a domain belongs to."""

    def realm_of(self, domain: str) -> Realm:
        """Of a domain in canonical form."""


class JingleDoor:
    """Implements `ports.JingleSink`; `take_message`, `presence_received` and `link_up` are for the composition root.

    Args:
        around: what the legs need from outside.
        realms: tells consumers from our own people.
        calls: takes what arrives. A call that moved to another device of the caller has `replaces` with the key of
            the leg that it takes the place of, and two empty tags.
    """

    def __init__(self, around: JingleSurroundings, realms: Realms, calls: CallSink) -> None:
        self._around = around
        self._realms = realms
        self._calls = calls

    # --- IQs ---

    def jingle_received(self, iq: Element) -> IqRefusal | None:
        """Take one Jingle action (`ports.JingleSink`)."""
        try:
            jingle = jingle_of(iq)
            theirs, device = address_from_jid(iq.get("from", ""))
            ours, resource = address_from_jid(iq.get("to", ""))
        except PayloadError:
            return TOO_MANY
        except AddressError:
            return NOBODY
        if jingle is None or jingle["action"] not in ACTIONS or not 0 < len(jingle["sid"]) <= MAXIMUM_SID:
            return BAD_REQUEST
        if not device or resource not in ("", SYNTHETIC_RESOURCE) or self._realms.realm_of(theirs.domain).is_business:
            return NOBODY
        name = SessionName(ours, iq.get("from", ""), jingle["sid"])
        leg = self._around.registry.session(name)
        if leg is not None:
            return leg.receive(jingle)
        if jingle["action"] != "session-initiate" or self._around.registry.is_buried(name):
            return UNKNOWN_SESSION
        return self._session_initiated(name, theirs, device, iq.get("to", ""), jingle)

    def _session_initiated(
        self, name: SessionName, theirs: Address, device: str, our_jid: str, jingle: Jingle
    ) -> IqRefusal | None:
        registry = self._around.registry
        if not registry.has_room(theirs):
            return TOO_MANY
        proposal = registry.proposal(ProposalName(name.ours, theirs, name.sid))
        if proposal is not None and not (isinstance(proposal, ReceivedProposal) and proposal.is_from(name.peer)):
            return OUT_OF_ORDER  # of another device, or under the id of a proposal of ours
        if self._wins_against_ours(name, theirs):
            return TIE_BREAK
        leg = JingleCallerLeg(self._around, ours=name.ours, our_jid=our_jid, party=theirs, sid=name.sid)
        leg.begin(name.peer, device)
        replaced: JingleLeg | None = None
        if isinstance(proposal, ReceivedProposal):
            proposal.initiated(leg)
            replaced = proposal.replaced
        offer = _usable_offer(leg, jingle)
        if offer is not None:
            replaces = (replaced.key, "", "") if replaced is not None else None
            self._calls(IncomingCall(leg, theirs, name.ours, offer, replaces=replaces))
        return None

    def _wins_against_ours(self, name: SessionName, theirs: Address) -> bool:
        """XEP-0166 section 7.2.16: of two sessions initiated at the same time the one with the lower sid goes on."""
        for leg in self._around.registry.between(name.ours, theirs):
            if leg.is_initiator and leg.peer_jid == name.peer and leg.state in _UNANSWERED:
                if wins_tie_break(leg.sid, name.sid):
                    return True
                leg.terminate(
                    Ending(EndCause.BUSY, "Both of you called at the same moment; the other call goes on."),
                    reason="expired",
                )
        return False

    # --- messages ---

    def take_message(self, link: XmppLink, stanza: Element) -> bool:
        """Take a message about a proposal (XEP-0353); False when it is about something else."""
        try:
            message = jingle_message_from_stanza(stanza) or _returned(stanza)
            if message is None:
                return False
            theirs, device = address_from_jid(stanza.get("from", ""))
            ours, _ = address_from_jid(stanza.get("to", ""))
        except (AddressError, PayloadError):
            return True  # nobody could be answered, or no session be meant
        if ours.domain == link.domain and not self._realms.realm_of(theirs.domain).is_business:
            self._message_received(message, ours, theirs, device, stanza)
        return True

    def _message_received(
        self, message: JingleMessage, ours: Address, theirs: Address, device: str, stanza: Element
    ) -> None:
        name = ProposalName(ours, theirs, message.sid)
        known = self._around.registry.proposal(name)
        is_error = stanza.get("type") == "error"
        if known is not None:
            # As of one device: a server that forbids the call does not speak for the person, who would have declined.
            error = child(stanza, "error")
            failure = failure_from_stanza_error(error, is_full_jid=True, is_call=True) if is_error else None
            known.take(message, stanza.get("from", ""), device, failure)
        elif isinstance(message, Propose) and not is_error and device:
            self._proposed(message, name, stanza.get("from", ""))

    def _proposed(self, message: Propose, name: ProposalName, proposer: str) -> None:
        registry = self._around.registry
        if registry.is_buried(SessionName(name.ours, proposer, name.id)) or not registry.has_room(name.theirs):
            return
        if not message.media:
            self._reject(name, proposer, "unsupported-applications")
            return
        for ours in registry.proposals_between(name.ours, name.theirs):
            if not isinstance(ours, JingleProposalLeg) or ours.proposal is ProposalState.PROCEEDED:
                continue
            if wins_tie_break(ours.sid, name.id):
                self._reject(name, proposer, "expired", is_tie_break=True)
                return
            ours.lose_tie()
        replaced = next(
            (
                leg
                for leg in registry.between(name.ours, name.theirs)
                if leg.state is SessionState.ACTIVE and leg.peer_jid != proposer
            ),
            None,
        )
        ReceivedProposal(self._around, name, presentity_jid(name.ours), proposer, replaced).proceed()

    def _reject(self, name: ProposalName, proposer: str, reason: str, *, is_tie_break: bool = False) -> None:
        message = Reject(name.id, reason, is_tie_break=is_tie_break)
        self._around.wire.say(message, name.ours.domain, presentity_jid(name.ours), proposer)

    # --- presence and links ---

    def presence_received(self, link: XmppLink, stanza: Element) -> None:
        """A device that is in a call with us may have gone offline; takes nothing away from others."""
        if stanza.get("type") != "unavailable":
            return
        recipient = stanza.get("to", "").partition("/")[0]
        for leg in self._around.registry.of_peer(stanza.get("from", "")):
            if leg.ours.domain == link.domain and address_to_jid(leg.ours) == recipient:
                leg.peer_gone()

    def link_up(self, link: XmppLink) -> None:
        """The link came back: media may have gone on without us, so every session is looked after."""
        self._around.wire.link_up(link.domain)
        for leg in self._around.registry.all_of(link.domain):
            leg.verify()


def _returned(stanza: Element) -> JingleMessage | None:
    """Return the message that came back as an error; servers leave its content out."""
    sid = stanza.get("id", "").partition("-")[2]
    if stanza.get("type") != "error" or not 0 < len(sid) <= MAXIMUM_SID:
        return None
    messages: tuple[JingleMessage, ...] = (Propose(sid, ()), Proceed(sid))
    return next((message for message in messages if stanza.get("id") == returned_id(message)), None)


def _usable_offer(leg: JingleCallerLeg, jingle: Jingle) -> SessionDescription | None:
    """Return what a session-initiate offers; None when the session was ended because it offers nothing we can use."""
    try:
        offer = leg.take_initiate(jingle)
    except UnsupportedContentError as error:
        leg.terminate(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.FORMAT), reason=error.reason)
        return None
    except SdpError as error:
        leg.terminate(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.FORMAT), reason="failed-application")
        return None
    if not leg.media.is_secure(offer):
        # Edge case 29: what is not encrypted is not taken, as every client does it.
        text = "Calls need encryption: DTLS-SRTP (XEP-0320)."
        leg.terminate(Ending(EndCause.SECURITY, text, Origin.FORMAT), reason="security-error")
        return None
    return offer
