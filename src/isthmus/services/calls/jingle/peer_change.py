"""A change of the media that the peer made, and what is said to it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from isthmus.interworking.jingle_contents import content_names, without_transport
from isthmus.interworking.jingle_difference import difference, fragment_to_jingle
from isthmus.interworking.jingle_sdp import jingle_to_sdp, one_content_each, sdp_to_jingle
from isthmus.interworking.jingle_transport import DTLS_ATTRIBUTES, ICE_ATTRIBUTES
from isthmus.sdp.offer_answer import mirrored, rejecting
from isthmus.sdp.session_description import SessionDescription
from isthmus.sdp.trickle import candidates_fragment
from isthmus.services.calls.jingle.media import JingleMedia, names_in, say_reason
from isthmus.services.calls.jingle.own_change import restarted_contents
from isthmus.xmpp.jingle import Jingle

TRANSPORT_ATTRIBUTES = frozenset((*ICE_ATTRIBUTES, *DTLS_ATTRIBUTES))

HOLD = "hold"
RESTART = "restart"


@dataclass(slots=True)
class PeerChange:
    """A change of the peer, acknowledged.

    Attributes:
        kind: its action, HOLD or RESTART.
        jingle: the action; None for HOLD.
        is_held: of HOLD.
        remote: what the peer's media are with it; None before it is looked at.
        bundled: contents that share the transport of those it is about.
    """

    kind: str
    jingle: Jingle | None = None
    is_held: bool = False
    remote: SessionDescription | None = None
    bundled: set[str] = field(default_factory=set)

    @property
    def about(self) -> set[str]:
        """Names of the contents it is about."""
        return (set() if self.jingle is None else names_in(self.jingle)) | self.bundled


def as_told(
    answer: SessionDescription, local: SessionDescription, names: tuple[str, ...], change: PeerChange
) -> SessionDescription:
    """Return our answer with the transports that the peer knows, where it is about something else.

    New addresses of ours are an offer of their own, which the call makes or has made.
    """
    about = change.about if change.kind in ("content-add", "transport-replace", RESTART) else set()
    sections = list(answer.flattened().media)
    for index, (name, old) in enumerate(zip(names, local.flattened().media, strict=False)):
        if index < len(sections) and name not in about and not (old.is_rejected or sections[index].is_rejected):
            carried = tuple(attribute for attribute in old.attributes if attribute.name in TRANSPORT_ATTRIBUTES)
            bare = without_transport(sections[index])
            sections[index] = replace(bare, attributes=(*bare.attributes, *carried))
    return answer.with_media(sections)


def replies(media: JingleMedia, change: PeerChange, answer: SessionDescription) -> list[Jingle]:
    """Return what is said to a change that the call has answered, about one content each. Raises SdpError."""
    return [single for jingle in _replies(media, change, answer) for single in one_content_each(jingle)]


def _replies(media: JingleMedia, change: PeerChange, answer: SessionDescription) -> list[Jingle]:
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
        found = _restart_answer(media, change, answer, names)
    else:
        found = []
    if change.kind == HOLD:
        return found  # `senders` stays as it was
    less = _directions_to_tell(media, change, offer, answer)
    return [*found, _said(media, answer, "content-modify", less, offer)] if less else found


def with_bundle_restarted(
    change: PeerChange, after: SessionDescription, before: SessionDescription
) -> SessionDescription:
    """Return the peer's media with a restart taken over for the whole bundle: it has one transport."""
    names = content_names(after)
    sections = list(after.media)
    for name in restarted_contents(after, before):
        source = sections[names.index(name)]
        for mids in after.bundles:
            mates = [index for index, section in enumerate(sections) if section.mid in mids]
            for index in mates if source.mid in mids else ():
                credentials = {"ice-ufrag": source.ice_ufrag, "ice-pwd": source.ice_pwd}
                sections[index] = sections[index].with_attributes(credentials, drop=("candidate",))
                change.bundled.add(names[index])
    return after.with_media(sections)


def _restart_answer(
    media: JingleMedia, change: PeerChange, answer: SessionDescription, names: tuple[str, ...]
) -> list[Jingle]:
    named = [
        section if section.mid else section.with_attributes({"mid": name})
        for name, section in zip(names, answer.media, strict=False)
        if name in change.about
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


def removals(media: JingleMedia, offer: SessionDescription, names: Collection[str]) -> list[Jingle]:
    """Return the content-removes of contents of ours."""
    return one_content_each(_said(media, _rejecting(offer, names), "content-remove", names)) if names else []


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
