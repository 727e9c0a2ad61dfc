"""An offer of ours as actions of Jingle, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from isthmus.interworking.call_endings import ending_from_jingle
from isthmus.interworking.jingle_contents import content_names
from isthmus.interworking.jingle_sdp import jingle_to_sdp
from isthmus.interworking.jingle_senders import mid_to_name
from isthmus.model import EndCause, Ending
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.jingle.media import names_in
from isthmus.services.calls.jingle.wire import IqOutcome
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle import Jingle

# What may be lost to the peer's own change goes before what cannot, so that little has to stay as it was told.
_ORDER = (
    *("content-remove", "content-add", "transport-replace", "transport-info"),
    *("content-modify", "description-info"),
)


@dataclass(slots=True)
class OurChange:
    """An offer of ours, told action by action: one that is refused leaves the media as those before it made them.

    Attributes:
        offer: the whole description that the peer is brought to.
        told: what the peer was brought to so far.
        pending: actions to be sent, in order.
        actions: names of all of them.
        current: what was sent and is not settled.
        unanswered: IQs without an answer.
        added: contents that are new.
        adds: those of them that wait for content-accept or content-reject.
        transports: contents that wait for transport-accept or transport-reject.
        restarts: contents whose ICE restarts, and whose new credentials the peer has not said.
        accepted: all that was accepted.
        refusal: why it is not to be.
        has_lost_tie: the peer's own change goes first.
        late: transport-infos about contents that are new.
    """

    offer: SessionDescription
    told: SessionDescription
    pending: deque[Jingle]
    actions: frozenset[str] = frozenset()
    current: list[Jingle] = field(default_factory=list)
    unanswered: int = 0
    added: set[str] = field(default_factory=set)
    adds: set[str] = field(default_factory=set)
    transports: set[str] = field(default_factory=set)
    restarts: set[str] = field(default_factory=set)
    accepted: Jingle | None = None
    refusal: Ending | None = None
    has_lost_tie: bool = False
    late: list[Jingle] = field(default_factory=list)

    @classmethod
    def of(cls, offer: SessionDescription, local: SessionDescription, actions: Iterable[Jingle]) -> OurChange:
        """Return the change that brings the peer from `local` to `offer`."""
        ordered = sorted(actions, key=lambda jingle: _ORDER.index(jingle["action"]))
        return cls(offer, local, deque(ordered), frozenset(jingle["action"] for jingle in ordered))

    @property
    def is_of_directions(self) -> bool:
        """True while the action that is under way changes who sends, and nothing else."""
        return bool(self.current) and all(jingle["action"] == "content-modify" for jingle in self.current)

    @property
    def is_stopped(self) -> bool:
        """True when the rest is not to be."""
        return self.refusal is not None or self.has_lost_tie

    @property
    def is_waiting(self) -> bool:
        """True while the current action is not settled."""
        needs_more = self.adds or self.transports or self.restarts
        return bool(self.unanswered) or (not self.is_stopped and bool(needs_more))

    def next_actions(self, *, is_initiator: bool) -> list[Jingle]:
        """Return what is sent next and waited for from now on: one action, or the restarts of all contents.

        Raises:
            SdpError: it says what cannot be.
        """
        self.current = [self.pending.popleft()]
        action, names = self.current[0]["action"], names_in(self.current[0])
        if action == "content-add":
            self.adds = names
            self.added |= names
        elif action == "transport-replace":
            self.transports = names
        elif action == "transport-info":
            # Of all contents at once: those of a bundle have one transport, which restarts once.
            has_candidates = _has_candidates(self.current[0])
            while self.pending and self.pending[0]["action"] == action:
                if _has_candidates(self.pending[0]) != has_candidates:
                    break
                self.current.append(self.pending.popleft())
            self.restarts = restarted_contents(self._after_current(is_initiator=is_initiator), self.told)
        self.unanswered = len(self.current)
        return self.current

    def restarted(self, after: SessionDescription, before: SessionDescription) -> None:
        """The peer said new credentials; for one content of a bundle is for all of it."""
        for name in restarted_contents(after, before):
            bundles = [set(map(mid_to_name, mids)) for mids in self.offer.bundles]
            self.restarts -= {name}.union(*(names for names in bundles if name in names))

    def settle(self, *, is_initiator: bool) -> None:
        """What was sent has been taken, or refused. Raises SdpError."""
        if not self.is_stopped:
            self.told = self._after_current(is_initiator=is_initiator)
        self.current = []

    def _after_current(self, *, is_initiator: bool) -> SessionDescription:
        after = self.told
        for jingle in self.current:
            after = jingle_to_sdp(jingle, is_from_initiator=is_initiator, base=after)
        return after

    def forget(self, names: set[str]) -> None:
        """The peer has removed these contents: nothing more is said of them."""
        for waiting in (self.adds, self.transports, self.restarts):
            waiting.difference_update(names)

    def answered(self, outcome: IqOutcome) -> None:
        """An IQ was answered."""
        self.unanswered -= 1
        if outcome.is_tie_break:
            self.has_lost_tie = True
        elif not outcome.is_result:
            self.refusal = outcome.ending

    def take(self, jingle: Jingle) -> bool:
        """Take content-accept, content-reject, transport-accept or transport-reject; False when none is waited for."""
        names = names_in(jingle)
        action = jingle["action"]
        waiting = self.adds if action.startswith("content") else self.transports
        if not names & waiting:
            return False
        if action == "content-accept":
            if self.accepted is None:
                self.accepted = jingle
            else:
                for content in jingle["contents"]:
                    self.accepted.append(content)
        elif action == "transport-reject" or (
            action == "content-reject" and self.actions == {"content-add"} and waiting <= names and not self.accepted
        ):
            self.refusal = _ending_in(jingle)
        waiting -= names
        return True


def _has_candidates(jingle: Jingle) -> bool:
    return next(jingle.xml.iter(f"{{{ns.JINGLE_ICE_UDP}}}candidate"), None) is not None


def restarted_contents(after: SessionDescription, before: SessionDescription) -> set[str]:
    """Return the contents whose ICE credentials have both changed (RFC 8839 section 4.4.1.1.1)."""
    old = dict(zip(content_names(before), before.flattened().media, strict=True))
    return {
        name
        for name, section in zip(content_names(after), after.flattened().media, strict=True)
        if name in old
        and not section.is_rejected
        and old[name].ice_ufrag
        and old[name].ice_ufrag != section.ice_ufrag
        and old[name].ice_pwd != section.ice_pwd
    }


def _ending_in(jingle: Jingle) -> Ending:
    reason = jingle.get_plugin("reason", check=True)
    if reason is None:
        return Ending(EndCause.DECLINED)
    ending = ending_from_jingle(reason["condition"], reason["text"])
    return replace(ending, cause=EndCause.DECLINED) if ending.cause is EndCause.HUNG_UP else ending
