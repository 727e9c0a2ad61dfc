"""What both sides of one Jingle session have said of their media, and how it is said in Jingle."""

from __future__ import annotations

from xml.etree.ElementTree import SubElement

from isthmus.interworking.jingle_actions import jingle_to_fragment
from isthmus.interworking.jingle_contents import content_names
from isthmus.interworking.jingle_difference import fragment_to_jingle
from isthmus.interworking.jingle_sdp import jingle_to_sdp, sdp_to_jingle
from isthmus.interworking.jingle_senders import mid_to_name
from isthmus.sdp.session_description import SessionDescription
from isthmus.sdp.trickle import with_candidates_added
from isthmus.services.calls.leg import LegSignal
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle import Content, Jingle
from isthmus.xmpp.jingle_ice_udp import transport_of
from isthmus.xmpp.jingle_rtp import SESSION_INFOS, description_of

# A client trickles some ten candidates one by one while its person is being alerted.
MAXIMUM_EARLY_ACTIONS = 64

_INFO_CLASSES = {info.plugin_attrib: info for info in SESSION_INFOS}
_PER_CONTENT = (LegSignal.MUTE, LegSignal.UNMUTE)


class JingleMedia:
    """The media of one session.

    Attributes:
        is_initiator: we initiated it.
        local, remote: what we and the peer said last; None before.
        creators: who made each content, by name.
    """

    def __init__(self, *, is_initiator: bool) -> None:
        self.is_initiator = is_initiator
        self.local: SessionDescription | None = None
        self.remote: SessionDescription | None = None
        self.creators: dict[str, str] = {}
        self._early: list[Jingle] = []
        self._removed_early: set[str] = set()

    @property
    def both(self) -> tuple[SessionDescription, SessionDescription]:
        """Ours and theirs; there are such since the session was accepted."""
        assert self.local is not None, "nothing was said"
        assert self.remote is not None, "nothing was answered"
        return self.local, self.remote

    @property
    def names(self) -> tuple[str, ...]:
        """Content names of all sections, in order: the initiator's, who made the first of them."""
        first, second = (self.local, self.remote) if self.is_initiator else (self.remote, self.local)
        named = max((sdp for sdp in (first, second) if sdp is not None), key=lambda sdp: len(sdp.media), default=None)
        return () if named is None else content_names(named)

    # --- the beginning ---

    def initiate(self, offer: SessionDescription) -> Jingle:
        """Return the session-initiate for an offer of ours."""
        self.local = offer
        self.creators = dict.fromkeys(content_names(offer), "initiator")
        return sdp_to_jingle(offer, action="session-initiate", is_from_initiator=True, creators=self.creators)

    def initiated(self, jingle: Jingle) -> SessionDescription:
        """Return what a session-initiate offers; contents that are no RTP over ICE are not taken.

        Raises:
            UnsupportedContentError: none is.
            SdpError: it cannot be understood.
        """
        usable = [content for content in jingle["contents"] if _is_usable(content)]
        if usable and len(usable) < len(jingle["contents"]):
            for content in jingle["contents"]:
                if not _is_usable(content):
                    jingle.xml.remove(content.xml)
            jingle = Jingle(xml=jingle.xml)
        self.remote = jingle_to_sdp(jingle, is_from_initiator=True)
        self.creators = {content["name"]: content["creator"] for content in jingle["contents"]}
        return self.remote

    def accept(self, answer: SessionDescription) -> Jingle:
        """Return the session-accept for our answer. Raises SdpError."""
        self.local = answer
        return sdp_to_jingle(
            answer,
            action="session-accept",
            is_from_initiator=False,
            creators=self.creators,
            answering=self.remote,
        )

    def accepted(self, jingle: Jingle) -> SessionDescription:
        """Return the peer's answer, with the candidates and fingerprints that came before it. Raises SdpError."""
        answer = jingle_to_sdp(jingle, is_from_initiator=False, base=self.local)
        for early in self._early:
            answer = jingle_to_sdp(early, is_from_initiator=False, base=answer)
        self._early.clear()
        self.remote = answer
        return answer

    def removed_before_answer(self, jingle: Jingle) -> bool:
        """Note contents that the responder will not take; True when none is left."""
        self._removed_early.update(content["name"] for content in jingle["contents"])
        return self.local is not None and all(
            section.is_rejected or name in self._removed_early
            for name, section in zip(content_names(self.local), self.local.media, strict=True)
        )

    def is_secure(self, sdp: SessionDescription) -> bool:
        """True when every live section has a DTLS fingerprint (XEP-0320)."""
        return all(sdp.fingerprints(section) for section in sdp.media if not section.is_rejected)

    def after(self, jingle: Jingle) -> SessionDescription:
        """Return what the peer's media are after an action of it. Raises SdpError."""
        return jingle_to_sdp(jingle, is_from_initiator=not self.is_initiator, base=self.remote)

    # --- candidates ---

    def candidates(self, fragment: SessionDescription) -> Jingle | None:
        """Return the transport-info for candidates of ours, None when there is nothing new that Jingle can say."""
        if self.local is None:
            return None
        by_mid = dict(zip(self.local.names, self.names, strict=False))
        names = tuple(by_mid.get(name, mid_to_name(name)) for name in fragment.names)
        jingle = fragment_to_jingle(
            fragment,
            is_from_initiator=self.is_initiator,
            creators=self.creators,
            known=self.local,
            names=names,
        )
        self.local = with_candidates_added(self.local, fragment)
        return jingle

    def candidates_received(self, jingle: Jingle) -> SessionDescription | None:
        """Take a transport-info of the peer.

        Returns:
            The candidates as a fragment; None while the peer has not answered: they are kept for its answer.

        Raises:
            SdpError: it cannot be understood.
        """
        fragment = jingle_to_fragment(jingle, base=self.remote)
        if self.remote is None:
            if len(self._early) < MAXIMUM_EARLY_ACTIONS:
                self._early.append(jingle)
            return None
        self.remote = self.after(jingle)
        return fragment if any(section.candidates for section in fragment.media) else None

    # --- what is no negotiation ---

    def signal(self, signal: LegSignal) -> list[Jingle]:
        """Return the session-infos that say this: one for each content where that is what it is about."""
        kinds = [(name, section) for name, section in self._live() if section == "audio"] or self._live()
        contents = [name for name, _ in kinds] if signal in _PER_CONTENT else [""]
        found = []
        for name in contents:
            info = _INFO_CLASSES[signal.value]()
            if name:
                info["creator"] = self.creators.get(name, "initiator")
                info["name"] = name
            jingle = _jingle("session-info")
            jingle.append(info)
            found.append(jingle)
        return found

    def _live(self) -> list[tuple[str, str]]:
        local = self.local.media if self.local is not None else ()
        return [(n, s.media) for n, s in zip(self.names, local, strict=False) if not s.is_rejected]

    def digit(self, digit: str, milliseconds: int) -> Jingle:
        """Return the session-info of a pressed key (XEP-0181)."""
        jingle = _jingle("session-info")
        attributes = {"code": digit, "duration": str(milliseconds)}
        SubElement(jingle.xml, f"{{{ns.JINGLE_DTMF}}}dtmf", attributes)
        return jingle

    def terminate(self, reason: str, text: str) -> Jingle:
        """Return the session-terminate with this reason."""
        jingle = _jingle("session-terminate")
        say_reason(jingle, reason, text)
        return jingle


def names_in(jingle: Jingle) -> set[str]:
    """Return the names of the contents in an action."""
    return {content["name"] for content in jingle["contents"]}


def say_reason(jingle: Jingle, reason: str, text: str) -> None:
    """Put a reason into an action (XEP-0166 section 7.4)."""
    jingle["reason"]["condition"] = reason
    if text:
        jingle["reason"]["text"] = text


def _jingle(action: str) -> Jingle:
    jingle = Jingle()
    jingle["action"] = action
    return jingle


def _is_usable(content: Content) -> bool:
    return description_of(content) is not None and transport_of(content) is not None
