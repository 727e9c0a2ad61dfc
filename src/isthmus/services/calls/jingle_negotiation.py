"""Changes of the media within a session: offers and answers of a leg as actions of Jingle, and back (XEP-0166 section 7.2).

One change at a time in each direction. A change of the peer is acknowledged at once and offered to the call when
nothing else is under way; glare is decided by XEP-0166 section 7.2.16: the initiator's action goes first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import partial
from typing import TYPE_CHECKING

from isthmus.interworking.call_endings import ending_from_jingle, ending_to_jingle
from isthmus.interworking.jingle_changes import difference, fragment_to_jingle
from isthmus.interworking.jingle_sdp import content_names, jingle_to_answer, jingle_to_sdp, sdp_to_jingle
from isthmus.model import EndCause, Ending, Origin
from isthmus.ports import IqRefusal, TimerHandle
from isthmus.sdp.offer_answer import mirrored, narrowed, rejecting
from isthmus.sdp.session_description import DIRECTIONS, SdpError, SessionDescription
from isthmus.sdp.trickle import candidates_fragment, is_ice_restart
from isthmus.services.calls.jingle_media import say_reason
from isthmus.services.calls.jingle_refusals import OUT_OF_ORDER, TIE_BREAK
from isthmus.services.calls.jingle_states import SessionState
from isthmus.services.calls.jingle_wire import IqOutcome
from isthmus.services.calls.leg import LegAnswered, LegOffered, LegOfferRefused
from isthmus.xmpp.jingle import Jingle

if TYPE_CHECKING:
    from isthmus.services.calls.jingle_leg import JingleLeg

# A person may have to be asked whether the camera goes on; the other side's re-INVITE cannot wait for ever.
ANSWER_SECONDS = 60.0
# Changes of the peer that wait for the call; a person does not press buttons faster than this.
MAXIMUM_WAITING = 16

_HOLD = "hold"
_RESTART = "restart"
_GLARE = Ending(EndCause.FAILED, "Both sides changed the media at the same time.", Origin.PEER, status=491)


def wish_behind(flow: str, other: str) -> str:
    """Return what a side wishes, given the direction it announced for both sides of a medium.

    `senders` of Jingle is one word for two wishes. Where the other side forbids a direction, the word says nothing of
    this side's wish for it, which is taken to be willing: otherwise the hold of the one would end that of the other.

    Args:
        flow: as this side says it.
        other: the other side's own wish, as that side says it.
    """
    return next((wish for wish in DIRECTIONS if narrowed(wish, mirrored(other)) == flow), flow)


@dataclass(slots=True)
class _OurChange:
    """An offer of ours on its way."""

    offer: SessionDescription
    actions: frozenset[str]
    unanswered: int
    adds: set[str] = field(default_factory=set)  # contents that wait for content-accept or content-reject
    transports: set[str] = field(default_factory=set)  # those that wait for transport-accept
    waits_for_restart: bool = False
    accepted: Jingle | None = None
    refusal: Ending | None = None
    is_lost_tie: bool = False


@dataclass(slots=True)
class _TheirChange:
    """A change of the peer, acknowledged."""

    kind: str  # its action, _HOLD or _RESTART
    jingle: Jingle | None = None
    is_held: bool = False
    remote: SessionDescription | None = None  # what the peer's media are when it is taken


class JingleNegotiation:
    """Changes of one session's media."""

    actions = (
        "content-accept",
        "content-add",
        "content-modify",
        "content-reject",
        "content-remove",
        "transport-accept",
        "transport-reject",
        "transport-replace",
    )

    def __init__(self, leg: JingleLeg) -> None:
        self._leg = leg
        self._media = leg.media
        self._ours: _OurChange | None = None
        self._next_offer: SessionDescription | None = None
        self._theirs: deque[_TheirChange] = deque()
        self._offered: _TheirChange | None = None
        self._timer: TimerHandle | None = None
        self._our_wishes: dict[str, str] = {}
        self._their_wishes: dict[str, str] = {}
        self._before_hold: dict[str, str] | None = None
        self._received = {
            "content-accept": self._content_accepted,
            "content-reject": self._content_rejected,
            "transport-accept": self._transport_accepted,
            "transport-reject": self._transport_rejected,
        }

    def close(self) -> None:
        """The leg is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._ours = self._offered = self._next_offer = None
        self._theirs.clear()

    # --- our changes ---

    def offer(self, offer: SessionDescription) -> None:
        """Bring the peer to this description; `LegAnswered` or `LegOfferRefused` follows."""
        if self._leg.state is SessionState.ACTIVE:
            self._next_offer = offer
            self._go_on()

    def _start(self, offer: SessionDescription) -> None:
        assert self._media.local is not None, "the media were negotiated before they change"
        self._learn_wishes()
        names = content_names(offer)
        self._our_wishes.update(zip(names, (offer.direction(section) for section in offer.media), strict=True))
        offer = self._with_joint_directions(offer)
        try:
            jingles = difference(
                self._media.local,
                offer,
                is_from_initiator=self._media.is_initiator,
                creators=self._media.creators,
            )
        except SdpError as error:
            self._leg.tell(LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.LOCAL)))
            return
        change = _OurChange(offer, frozenset(jingle["action"] for jingle in jingles), len(jingles))
        self._ours = change
        for jingle in jingles:
            names_in_it = {content["name"] for content in jingle["contents"]}
            if jingle["action"] == "content-add":
                change.adds |= names_in_it
                own = "initiator" if self._media.is_initiator else "responder"
                self._media.creators.update(dict.fromkeys(names_in_it, own))
            elif jingle["action"] == "transport-replace":
                change.transports |= names_in_it
            self._leg.request(jingle, partial(self._change_answered, change))
        change.waits_for_restart = "transport-info" in change.actions and is_ice_restart(offer, self._media.local)
        self._timer = self._leg.around.clock.call_later(ANSWER_SECONDS, partial(self._too_late, change))
        self._look_whether_done()

    def _change_answered(self, change: _OurChange, outcome: IqOutcome) -> None:
        change.unanswered -= 1
        if change is not self._ours:
            return
        if outcome.is_tie_break:
            change.is_lost_tie = True
        elif not outcome.is_result:
            change.refusal = change.refusal or outcome.ending
        self._look_whether_done()

    def _content_accepted(self, change: _OurChange, jingle: Jingle) -> None:
        if change.accepted is None:
            change.accepted = jingle
        else:
            for content in jingle["contents"]:
                change.accepted.append(content)
        change.adds -= {content["name"] for content in jingle["contents"]}

    def _content_rejected(self, change: _OurChange, jingle: Jingle) -> None:
        names = {content["name"] for content in jingle["contents"]}
        if change.actions == {"content-add"} and change.adds <= names and change.accepted is None:
            change.refusal = _ending_in(jingle)
        change.adds -= names

    def _transport_accepted(self, change: _OurChange, jingle: Jingle) -> None:
        self._media.remote = jingle_to_sdp(
            jingle, is_from_initiator=not self._media.is_initiator, base=self._media.remote
        )
        change.transports -= {content["name"] for content in jingle["contents"]}

    def _transport_rejected(self, change: _OurChange, jingle: Jingle) -> None:
        change.refusal = _ending_in(jingle)
        change.transports.clear()

    def _look_whether_done(self) -> None:
        change = self._ours
        if change is None:
            return
        is_refused = change.refusal is not None or change.is_lost_tie
        if change.unanswered or (
            not is_refused and (change.adds or change.transports or change.waits_for_restart)
        ):
            return
        self._finish_ours()
        if change.is_lost_tie:
            self._retry(change)
        elif change.refusal is not None:
            self._leg.tell(LegOfferRefused(change.refusal))
        else:
            self._take_answer(change)
        self._go_on()

    def _take_answer(self, change: _OurChange) -> None:
        try:
            answer = jingle_to_answer(
                change.accepted,
                offer=change.offer,
                is_from_initiator=not self._media.is_initiator,
                previous=self._media.remote,
            )
        except SdpError as error:
            self._leg.tell(LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, str(error), Origin.FORMAT)))
            return
        self._media.local, self._media.remote = change.offer, answer
        self._leg.tell(LegAnswered(answer))

    def _retry(self, change: _OurChange) -> None:
        """Our change waits until the peer's is done; one that added media does not fit any more then."""
        if "content-add" in change.actions:
            self._leg.tell(LegOfferRefused(_GLARE))
        elif self._next_offer is None:
            self._next_offer = change.offer

    def _too_late(self, change: _OurChange) -> None:
        if change is not self._ours:
            return
        if change.adds:
            gone = _only(change.offer, change.adds, content_names(change.offer))
            self._leg.request(self._said(gone, "content-remove", change.adds))
        self._finish_ours()
        self._leg.tell(LegOfferRefused(Ending(EndCause.NO_ANSWER, origin=Origin.TIMEOUT)))
        self._go_on()

    def _finish_ours(self) -> None:
        self._ours = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the peer's changes ---

    def receive(self, jingle: Jingle) -> IqRefusal | None:
        """Take an action about media; None acknowledges it. Raises SdpError."""
        action = jingle["action"]
        answers = self._received.get(action)
        if answers is not None:
            return self._receive_answer(answers, jingle)
        if self._ours is not None and action in self._ours.actions and self._media.is_initiator:
            return TIE_BREAK
        if len(self._theirs) >= MAXIMUM_WAITING:
            return OUT_OF_ORDER
        self._theirs.append(_TheirChange(action, jingle))
        self._go_on()
        return None

    def _receive_answer(self, take: object, jingle: Jingle) -> IqRefusal | None:
        change = self._ours
        if change is None or not (change.adds or change.transports):
            return OUT_OF_ORDER
        take(change, jingle)  # type: ignore[operator]  # one of the four above
        self._look_whether_done()
        return None

    def take_restart(self, jingle: Jingle) -> bool:
        """Take a transport-info with new credentials: an ICE restart, or the answer to ours; False for any other."""
        remote = self._media.remote
        if self._leg.state is not SessionState.ACTIVE or remote is None:
            return False
        after = jingle_to_sdp(jingle, is_from_initiator=not self._media.is_initiator, base=remote)
        if not is_ice_restart(after, remote):
            return False
        if self._ours is not None and self._ours.waits_for_restart:
            self._media.remote = after
            self._ours.waits_for_restart = False
            self._look_whether_done()
        elif len(self._theirs) < MAXIMUM_WAITING:
            self._theirs.append(_TheirChange(_RESTART, jingle))
            self._go_on()
        return True

    def peer_holds(self, *, is_held: bool) -> bool:
        """Take a hold or its end that was said without changing `senders`; False when nothing changes by it."""
        last = next((change.is_held for change in reversed(self._theirs) if change.kind == _HOLD), None)
        before = last if last is not None else self._before_hold is not None
        if is_held == before or len(self._theirs) >= MAXIMUM_WAITING:
            return False
        self._theirs.append(_TheirChange(_HOLD, is_held=is_held))
        self._go_on()
        return True

    def _go_on(self) -> None:
        """Begin what comes next, when nothing is under way."""
        while self._ours is None and self._offered is None and self._leg.state is SessionState.ACTIVE:
            if self._theirs:
                self._offer_theirs(self._theirs.popleft())
            elif self._next_offer is not None:
                offer, self._next_offer = self._next_offer, None
                self._start(offer)
                if self._ours is None:
                    continue
                return
            else:
                return

    def _offer_theirs(self, change: _TheirChange) -> None:
        """Offer a change of the peer to the call, unless it is impossible, or ends the session."""
        self._learn_wishes()
        try:
            change.remote = self._after(change)
        except SdpError as error:
            self._leg.note(f"{change.kind} refused: {error}", mark="!")
            self._refuse_theirs(change, "failed-application", str(error))
            return
        if not self._media.is_secure(change.remote):
            self._refuse_theirs(change, "security-error", "")
        elif all(section.is_rejected for section in change.remote.media):
            # XEP-0166 section 7.2.5: without contents there is no session.
            self._leg.terminate(Ending(EndCause.HUNG_UP))
        else:
            self._offered = change
            self._leg.tell(LegOffered(change.remote))

    def _after(self, change: _TheirChange) -> SessionDescription:
        remote = self._media.remote
        assert remote is not None, "the media were negotiated before they change"
        if change.kind == _HOLD:
            self._note_hold(is_held=change.is_held)
            return self._with_their_wishes(remote)
        assert change.jingle is not None, "every other change is an action"
        after = jingle_to_sdp(change.jingle, is_from_initiator=not self._media.is_initiator, base=remote)
        names = content_names(after)
        if change.kind == "content-add":
            maker = "responder" if self._media.is_initiator else "initiator"
            self._media.creators.update({content["name"]: maker for content in change.jingle["contents"]})
            for name, section in zip(names, after.media, strict=True):
                self._their_wishes.setdefault(name, after.direction(section))
        elif change.kind == "content-modify":
            about = {content["name"] for content in change.jingle["contents"]}
            for name, section in zip(names, after.media, strict=True):
                if name in about:
                    ours = self._our_wishes.get(name, "sendrecv")
                    self._their_wishes[name] = wish_behind(after.direction(section), ours)
        return self._with_their_wishes(after)

    def _note_hold(self, *, is_held: bool) -> None:
        if is_held:
            self._before_hold = dict(self._their_wishes)
            for name, wish in self._before_hold.items():
                self._their_wishes[name] = narrowed(wish, "sendonly")
        elif self._before_hold is not None:
            self._their_wishes.update(self._before_hold)
            self._before_hold = None

    def answer(self, answer: SessionDescription) -> None:
        """Answer what was offered."""
        change, self._offered = self._offered, None
        if change is None or change.remote is None or self._leg.state is SessionState.ENDED:
            return
        names = content_names(change.remote)
        for name, section in zip(names, answer.media, strict=False):
            if not section.is_rejected:
                theirs = self._their_wishes.get(name, "sendrecv")
                self._our_wishes[name] = wish_behind(answer.direction(section), theirs)
        answer = self._with_joint_directions(answer, names)
        try:
            jingles = self._jingles_for(change, change.remote, answer)
        except SdpError as error:
            self._leg.note(f"the answer cannot be said in Jingle: {error}", mark="!")
            self._refuse_theirs(change, "failed-application", "")
            self._go_on()
            return
        self._media.local = answer
        self._media.remote = _with_mirrored_directions(change.remote, answer)
        for jingle in jingles:
            self._leg.request(jingle)
        self._go_on()

    def _jingles_for(
        self, change: _TheirChange, offer: SessionDescription, answer: SessionDescription
    ) -> list[Jingle]:
        names = content_names(offer)
        about = _contents(change)
        if change.kind == "content-add":
            live = {n for n, s in zip(names, answer.media, strict=False) if n in about and not s.is_rejected}
            found = [self._said(answer, "content-accept", live, offer)] if live else []
            return [*found, self._rejection(offer, about - live)] if about - live else found
        if change.kind == "transport-replace":
            return [self._said(answer, "transport-accept", about, offer)]
        if change.kind == _RESTART:
            return self._restart_answer(answer, names)
        if change.kind == "content-modify":
            return self._narrowing(change, offer, answer)
        return []

    def _restart_answer(self, answer: SessionDescription, names: tuple[str, ...]) -> list[Jingle]:
        # COMPAT Conversations: with candidates it is the answer to a restart, without it would be another one.
        fragment = candidates_fragment(answer.with_media(_named(answer, names)))
        whole = fragment_to_jingle(
            fragment, is_from_initiator=self._media.is_initiator, creators=self._media.creators
        )
        if whole is not None:
            return [whole]
        assert self._media.local is not None, "the media were negotiated before they change"
        return difference(
            self._media.local,
            answer,
            is_from_initiator=self._media.is_initiator,
            creators=self._media.creators,
        )

    def _narrowing(self, change: _TheirChange, offer: SessionDescription, answer: SessionDescription) -> list[Jingle]:
        """`senders` holds for both: where we answer with less than the peer said, it is told."""
        assert change.jingle is not None, "a content-modify is an action"
        said = jingle_to_sdp(change.jingle, is_from_initiator=not self._media.is_initiator, base=offer)
        names = content_names(offer)
        less = {
            name
            for name, theirs, ours in zip(names, said.media, answer.media, strict=False)
            if name in _contents(change)
            and not ours.is_rejected
            and mirrored(said.direction(theirs)) != answer.direction(ours)
        }
        return [self._said(answer, "content-modify", less, offer)] if less else []

    def refuse(self, ending: Ending) -> None:
        """Keep the media as they were."""
        change, self._offered = self._offered, None
        if change is not None and self._leg.state is not SessionState.ENDED:
            reason, text = ending_to_jingle(ending)
            self._refuse_theirs(change, reason, text)
            self._go_on()

    def _refuse_theirs(self, change: _TheirChange, reason: str, text: str) -> None:
        remote = change.remote or self._media.remote
        about = _contents(change)
        if remote is None or not about:
            return
        if change.kind == "content-add":
            jingle = self._rejection(remote, about)
        elif change.kind == "transport-replace":
            jingle = self._said(remote, "transport-reject", about)
        elif change.kind == "content-remove":
            self._media.remote = remote  # cannot be refused: those media are gone
            return
        else:
            return
        say_reason(jingle, reason, text)
        self._leg.request(jingle)

    def _rejection(self, offer: SessionDescription, names: set[str]) -> Jingle:
        jingle = self._said(_only(offer, names, content_names(offer)), "content-reject", names)
        say_reason(jingle, "failed-application", "")
        return jingle

    def _said(
        self, sdp: SessionDescription, action: str, names: set[str], answering: SessionDescription | None = None
    ) -> Jingle:
        return sdp_to_jingle(
            sdp,
            action=action,
            is_from_initiator=self._media.is_initiator,
            creators=self._media.creators,
            names=names,
            answering=answering,
        )

    # --- directions ---

    def _learn_wishes(self) -> None:
        """What was said at the beginning is what both wish, until they say something else."""
        for sdp, wishes in ((self._media.local, self._our_wishes), (self._media.remote, self._their_wishes)):
            for name, section in zip(self._media.names, sdp.media if sdp is not None else (), strict=False):
                if sdp is not None and not section.is_rejected and name not in wishes:
                    wishes[name] = sdp.direction(section)

    def _with_joint_directions(
        self, sdp: SessionDescription, names: tuple[str, ...] | None = None
    ) -> SessionDescription:
        """Our description, doing no more than the peer wishes as well."""
        sections = []
        for name, section in zip(names or content_names(sdp), sdp.media, strict=False):
            theirs = self._their_wishes.get(name, "sendrecv")
            joint = narrowed(sdp.direction(section), mirrored(theirs))
            sections.append(section if section.is_rejected else section.with_direction(joint))
        return sdp.with_media(sections)

    def _with_their_wishes(self, sdp: SessionDescription) -> SessionDescription:
        sections = [
            section
            if section.is_rejected
            else section.with_direction(self._their_wishes.get(name, sdp.direction(section)))
            for name, section in zip(content_names(sdp), sdp.media, strict=True)
        ]
        return sdp.with_media(sections)


def _with_mirrored_directions(remote: SessionDescription, local: SessionDescription) -> SessionDescription:
    sections = [
        theirs if theirs.is_rejected else theirs.with_direction(mirrored(local.direction(ours)))
        for theirs, ours in zip(remote.media, local.media, strict=False)
    ]
    return remote.with_media(sections)


def _only(sdp: SessionDescription, names: set[str], all_names: tuple[str, ...]) -> SessionDescription:
    """The description with these contents rejected, as actions about them need it."""
    pairs = zip(all_names, sdp.media, strict=False)
    return sdp.with_media(rejecting(section) if name in names else section for name, section in pairs)


def _named(sdp: SessionDescription, names: tuple[str, ...]) -> list[object]:
    return [s if s.mid else s.with_attributes({"mid": n}) for n, s in zip(names, sdp.media, strict=False)]


def _contents(change: _TheirChange) -> set[str]:
    return set() if change.jingle is None else {content["name"] for content in change.jingle["contents"]}


def _ending_in(jingle: Jingle) -> Ending:
    reason = jingle.get_plugin("reason", check=True)
    if reason is None:
        return Ending(EndCause.DECLINED)
    ending = ending_from_jingle(reason["condition"], reason["text"])
    return changed(ending, cause=EndCause.DECLINED) if ending.cause is EndCause.HUNG_UP else ending
