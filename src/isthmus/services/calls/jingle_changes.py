"""One change of the media of a session: ours, on its way to the peer, or the peer's, and what is said to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from isthmus.interworking.call_endings import ending_from_jingle
from isthmus.interworking.jingle_contents import content_names
from isthmus.interworking.jingle_difference import difference, fragment_to_jingle
from isthmus.interworking.jingle_sdp import jingle_to_sdp, sdp_to_jingle
from isthmus.model import EndCause, Ending
from isthmus.sdp.offer_answer import mirrored, rejecting
from isthmus.sdp.session_description import SessionDescription
from isthmus.sdp.trickle import candidates_fragment, is_ice_restart
from isthmus.services.calls.jingle_media import JingleMedia, say_reason
from isthmus.services.calls.jingle_wire import IqOutcome
from isthmus.xmpp.jingle import Jingle

HOLD = "hold"
RESTART = "restart"


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
        current: the action that was sent; None before the first.
        is_unanswered: its IQ has no answer.
        added: contents that are new.
        adds: those of them that wait for content-accept or content-reject.
        transports: contents that wait for transport-accept or transport-reject.
        is_restarting: ICE restarts, and the peer has not said its new credentials.
        accepted: all that was accepted.
        refusal: why it is not to be.
        has_lost_tie: the peer's own change goes first.
        late: transport-infos about contents that are new.
    """

    offer: SessionDescription
    told: SessionDescription
    pending: deque[Jingle]
    actions: frozenset[str] = frozenset()
    current: Jingle | None = None
    is_unanswered: bool = False
    added: set[str] = field(default_factory=set)
    adds: set[str] = field(default_factory=set)
    transports: set[str] = field(default_factory=set)
    is_restarting: bool = False
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
        return self.current is not None and self.current["action"] == "content-modify"

    @property
    def is_stopped(self) -> bool:
        """True when the rest is not to be."""
        return self.refusal is not None or self.has_lost_tie

    @property
    def is_waiting(self) -> bool:
        """True while the current action is not settled."""
        needs_more = self.adds or self.transports or self.is_restarting
        return self.is_unanswered or (not self.is_stopped and bool(needs_more))

    def send_next(self, *, is_initiator: bool) -> Jingle:
        """Return the next action, which is waited for from now on. Raises SdpError."""
        jingle = self.current = self.pending.popleft()
        self.is_unanswered = True
        if jingle["action"] == "content-add":
            self.adds = names_in(jingle)
            self.added |= self.adds
        elif jingle["action"] == "transport-replace":
            self.transports = names_in(jingle)
        elif jingle["action"] == "transport-info":
            after = jingle_to_sdp(jingle, is_from_initiator=is_initiator, base=self.told)
            self.is_restarting = is_ice_restart(after, self.told)
        return jingle

    def settle(self, *, is_initiator: bool) -> None:
        """The current action has been taken. Raises SdpError."""
        if self.current is not None and not self.is_stopped:
            self.told = jingle_to_sdp(self.current, is_from_initiator=is_initiator, base=self.told)
            self.current = None

    def answered(self, outcome: IqOutcome) -> None:
        """The IQ of the current action was answered."""
        self.is_unanswered = False
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


@dataclass(slots=True)
class PeerChange:
    """A change of the peer, acknowledged.

    Attributes:
        kind: its action, HOLD or RESTART.
        jingle: the action; None for HOLD.
        is_held: of HOLD.
        remote: what the peer's media are with it; None before it is looked at.
    """

    kind: str
    jingle: Jingle | None = None
    is_held: bool = False
    remote: SessionDescription | None = None

    @property
    def about(self) -> set[str]:
        """Names of the contents it is about."""
        return set() if self.jingle is None else names_in(self.jingle)


def names_in(jingle: Jingle) -> set[str]:
    """Return the names of the contents in an action."""
    return {content["name"] for content in jingle["contents"]}


def replies(media: JingleMedia, change: PeerChange, answer: SessionDescription) -> list[Jingle]:
    """Return what is said to a change that the call has answered. Raises SdpError."""
    offer = change.remote
    assert offer is not None, "only what was offered is answered"
    names = content_names(offer)
    about = change.about
    if change.kind == "content-add":
        pairs = zip(names, answer.media, strict=False)
        live = {name for name, section in pairs if name in about and not section.is_rejected}
        found = [_said(media, answer, "content-accept", live, offer)] if live else []
        found += [rejection(media, offer, about - live)] if about - live else []
    elif change.kind == "transport-replace":
        found = [_said(media, answer, "transport-accept", about, offer)]
    elif change.kind == RESTART:
        found = _restart_answer(media, answer, names)
    else:
        found = []
    if change.kind == HOLD:
        return found  # `senders` stays as it was
    less = _directions_to_tell(media, change, offer, answer)
    return [*found, _said(media, answer, "content-modify", less, offer)] if less else found


def _restart_answer(media: JingleMedia, answer: SessionDescription, names: tuple[str, ...]) -> list[Jingle]:
    named = [
        section if section.mid else section.with_attributes({"mid": name})
        for name, section in zip(names, answer.media, strict=False)
    ]
    # COMPAT Conversations: with candidates it is the answer to a restart, without it would be another one.
    whole = fragment_to_jingle(
        candidates_fragment(answer.with_media(named)),
        is_from_initiator=media.is_initiator,
        creators=media.creators,
    )
    if whole is not None:
        return [whole]
    return difference(media.both[0], answer, is_from_initiator=media.is_initiator, creators=media.creators)


def _directions_to_tell(
    media: JingleMedia, change: PeerChange, offer: SessionDescription, answer: SessionDescription
) -> set[str]:
    """Return the contents that our answer lets flow otherwise than the peer believes: `senders` holds for both."""
    local, remote = media.both
    assert change.jingle is not None, "a hold by information is not about `senders`"
    believed = dict(zip(content_names(remote), (mirrored(s) for s in map(local.direction, local.media)), strict=False))
    if change.kind == "content-modify":
        said = jingle_to_sdp(change.jingle, is_from_initiator=not media.is_initiator, base=remote)
        flows = dict(zip(content_names(said), map(said.direction, said.media), strict=True))
        believed.update({name: flows[name] for name in change.about if name in flows})
    elif change.kind == "content-add":
        for name in change.about:
            believed.pop(name, None)
    return {
        name
        for name, section in zip(content_names(offer), answer.media, strict=False)
        if not section.is_rejected and name in believed and mirrored(answer.direction(section)) != believed[name]
    }


def refusal(media: JingleMedia, change: PeerChange, reason: str, text: str) -> Jingle | None:
    """Return what refuses a change; None where Jingle has no word for that."""
    remote = change.remote or media.remote
    if remote is None or change.jingle is None:
        return None
    if change.kind == "content-add":
        jingle = _rejection_of(media, change.jingle)
    elif change.kind == "transport-replace":
        jingle = _said(media, remote, "transport-reject", change.about)
    else:
        return None
    say_reason(jingle, reason, text)
    return jingle


def _rejection_of(media: JingleMedia, jingle: Jingle) -> Jingle:
    """The content-reject of a content-add, which may be one that could not be read."""
    found = Jingle()
    found["action"] = "content-reject"
    for content in jingle["contents"]:
        bare = type(content)()
        bare["creator"], bare["name"] = media.creators.get(content["name"], content["creator"]), content["name"]
        found.append(bare)
    return found


def rejection(media: JingleMedia, offer: SessionDescription, names: Collection[str]) -> Jingle:
    """Return the content-reject of contents that our answer did not take."""
    jingle = _said(media, _rejecting(offer, names), "content-reject", names)
    say_reason(jingle, "failed-application", "")
    return jingle


def removal(media: JingleMedia, offer: SessionDescription, names: Collection[str]) -> Jingle:
    """Return the content-remove of contents of ours."""
    return _said(media, _rejecting(offer, names), "content-remove", names)


def _said(
    media: JingleMedia,
    sdp: SessionDescription,
    action: str,
    names: Collection[str],
    answering: SessionDescription | None = None,
) -> Jingle:
    return sdp_to_jingle(
        sdp,
        action=action,
        is_from_initiator=media.is_initiator,
        creators=media.creators,
        names=names,
        answering=answering,
    )


def _rejecting(sdp: SessionDescription, names: Collection[str]) -> SessionDescription:
    """The description with these contents rejected, as actions about them need it."""
    pairs = zip(content_names(sdp), sdp.media, strict=True)
    return sdp.with_media(rejecting(section) if name in names else section for name, section in pairs)


def _ending_in(jingle: Jingle) -> Ending:
    reason = jingle.get_plugin("reason", check=True)
    if reason is None:
        return Ending(EndCause.DECLINED)
    ending = ending_from_jingle(reason["condition"], reason["text"])
    return replace(ending, cause=EndCause.DECLINED) if ending.cause is EndCause.HUNG_UP else ending
