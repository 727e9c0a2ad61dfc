"""Jingle sessions and session descriptions, both ways (XEP-0167 section 6, XEP-0338, draft-ietf-stox-media).

`jingle_contents` translates one content, `jingle_actions` applies what comes later in a session, `jingle_difference`
finds what to send later.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import replace

from isthmus.interworking.jingle_actions import CHANGES, jingle_to_fragment
from isthmus.interworking.jingle_contents import (
    content_names,
    content_to_section,
    contents_of,
    group_lines,
    groups_of,
    merged_groups,
)
from isthmus.interworking.jingle_description import section_to_description
from isthmus.interworking.jingle_senders import UnsupportedContentError, direction_to_senders
from isthmus.interworking.jingle_transport import Foundations, section_to_transport
from isthmus.sdp.offer_answer import mirrored, next_version, rejecting, with_live_groups
from isthmus.sdp.session_description import (
    MAXIMUM_MEDIA,
    MediaDescription,
    SdpError,
    SessionDescription,
    SessionOrigin,
)
from isthmus.xmpp.jingle import Content, Group, Jingle
from isthmus.xmpp.jingle_ice_udp import Transport
from isthmus.xmpp.jingle_rtp import Description, description_of

__all__ = [
    "UnsupportedContentError",
    "content_names",
    "jingle_to_answer",
    "jingle_to_fragment",
    "jingle_to_sdp",
    "one_content_each",
    "rejection_of",
    "sdp_to_jingle",
]

# Which parts of a content each action carries: description, transport.
_PARTS: dict[str, tuple[bool, bool]] = {
    "session-initiate": (True, True),
    "session-accept": (True, True),
    "content-add": (True, True),
    "content-accept": (True, True),
    "content-modify": (False, False),
    "content-reject": (False, False),
    "content-remove": (False, False),
    "description-info": (True, False),
    "transport-info": (False, True),
    "transport-replace": (False, True),
    "transport-accept": (False, True),
    "transport-reject": (False, True),
}
_WITH_GROUPS = frozenset(("session-initiate", "session-accept", "content-add", "content-accept"))
_ANSWERS = frozenset(("session-accept", "content-accept", "transport-accept"))
_ABOUT_DEAD = frozenset(("content-reject", "content-remove"))


# --- Jingle to SDP --------------------------------------------------------------------------------------------


def jingle_to_sdp(
    jingle: Jingle, *, is_from_initiator: bool, base: SessionDescription | None = None
) -> SessionDescription:
    """Return what this side of the session says now.

    Args:
        jingle: session-initiate; session-accept; or an action that changes what its sender said before: content-add,
            content-modify, content-remove, description-info, transport-info, transport-replace, transport-accept.
        is_from_initiator: its sender is the initiator of the session.
        base: for session-accept the offer that it answers; for the other changes what the sender said last.

    Raises:
        UnsupportedContentError: an application that is no RTP, or a transport that is no ICE-UDP.
        SdpError: it cannot be understood, or does not fit what was said before.
    """
    action = jingle["action"]
    if action == "session-initiate":
        return _offer(jingle, is_from_initiator=is_from_initiator)
    if base is None:
        raise SdpError(f"{action} needs a session to be about", condition="bad-request")
    if action == "session-accept":
        return jingle_to_answer(jingle, offer=base, is_from_initiator=is_from_initiator)
    change = CHANGES.get(action)
    if change is None:
        raise SdpError(f"{action} says nothing about media", condition="bad-request")
    return next_version(change(base, jingle, is_from_initiator), base)


def _offer(jingle: Jingle, *, is_from_initiator: bool) -> SessionDescription:
    contents = contents_of(jingle)
    if not contents:
        raise SdpError("a Jingle session without contents", condition="bad-request")
    sections = [content_to_section(content, is_from_initiator=is_from_initiator) for content in contents.values()]
    # Stable for the session, so that a later offer is known for one of the same (RFC 3264 section 8).
    session_id = str(zlib.crc32(jingle["sid"].encode("utf-8", "replace")))
    sdp = SessionDescription(
        origin=SessionOrigin(session_id=session_id, version=1), attributes=group_lines(jingle), media=tuple(sections)
    )
    return with_live_groups(sdp)


def jingle_to_answer(
    jingle: Jingle | None,
    *,
    offer: SessionDescription,
    is_from_initiator: bool,
    previous: SessionDescription | None = None,
) -> SessionDescription:
    """Return the Jingle side's answer to an offer of ours.

    Args:
        jingle: session-accept or content-accept, with what was accepted; None when nothing new was.
        offer: the whole offer.
        is_from_initiator: the Jingle side, who answers, is the initiator of the session.
        previous: what the Jingle side said last, for all but the first answer: a content that was not in question
            stays as it was, in the direction that the offer now has (`senders` holds for both sides).

    Raises:
        UnsupportedContentError, SdpError: as for `jingle_to_sdp`.
    """
    accepted = {} if jingle is None else contents_of(jingle)
    names = content_names(offer)
    known = {} if previous is None else dict(zip(content_names(previous), previous.media, strict=True))
    sections = []
    for name, offered in zip(names, offer.media, strict=True):
        old = known.get(name)
        if offered.is_rejected:
            sections.append(rejecting(offered))
        elif name in accepted:
            sections.append(_answering(accepted[name], offered, is_from_initiator=is_from_initiator))
        elif old is not None and not old.is_rejected:
            sections.append(old.with_direction(mirrored(offer.direction(offered))))
        else:
            sections.append(rejecting(offered))
    origin = SessionOrigin(version=1) if previous is None else previous.origin
    groups = () if jingle is None else group_lines(jingle)
    if previous is not None:
        groups = merged_groups(previous.attributes, groups)
    answer = SessionDescription(origin=origin, attributes=groups, media=tuple(sections))
    answer = with_live_groups(answer)
    return answer if previous is None else next_version(answer, previous)


def _answering(content: Content, offered: MediaDescription, *, is_from_initiator: bool) -> MediaDescription:
    section = content_to_section(content, is_from_initiator=is_from_initiator)
    if section.media != offered.media:
        raise SdpError("a Jingle content was accepted as another medium", condition="bad-request")
    section = replace(section, protocol=offered.protocol)
    if section.setup == "actpass":
        section = section.with_attributes({"setup": "active"})  # RFC 8842 section 5.3: an answer decides
    return section if offered.mid else section.with_attributes(drop=("mid",))


# --- SDP to Jingle --------------------------------------------------------------------------------------------


def sdp_to_jingle(
    sdp: SessionDescription,
    *,
    action: str,
    is_from_initiator: bool,
    creators: Mapping[str, str],
    names: Collection[str] | None = None,
    answering: SessionDescription | None = None,
    known: SessionDescription | None = None,
) -> Jingle:
    """Return the `<jingle/>` that says a description; sid, initiator and responder are left to the caller.

    Sections that are rejected are left out, but for content-reject and content-remove, which are about them.

    Args:
        sdp: what this side says.
        action: what the element does; it decides which parts of a content are in it.
        is_from_initiator: this side is the initiator of the session.
        creators: "initiator" or "responder" for content names; one that is not in it was made by this side in
            session-initiate and content-add, and by the other in what answers them.
        names: contents it is about; all by default.
        answering: the offer that `sdp` answers: its names hold, as an answer may come without or with other mids.
        known: what this side said before, so that the foundations of candidates keep their numbers.
    """
    has_description, has_transport = _PARTS[action]
    by_initiator = is_from_initiator != (action in _ANSWERS or action == "content-reject")
    maker = "initiator" if by_initiator else "responder"
    jingle = Jingle()
    jingle["action"] = action
    whole = sdp.flattened()
    all_names = content_names(whole if answering is None else answering)
    foundations = Foundations(() if known is None else (known,))
    for name, section in zip(all_names, whole.media, strict=False):
        if (names is not None and name not in names) or section.is_rejected != (action in _ABOUT_DEAD):
            continue
        content = Content()
        content["creator"] = creators.get(name, maker)
        content["name"] = name
        if has_description or action == "content-modify":
            content["senders"] = direction_to_senders(section.direction, is_from_initiator=is_from_initiator)
        if has_description:
            has_keys = not section.has_attribute("fingerprint")
            content.append(section_to_description(section, is_from_initiator=is_from_initiator, has_keys=has_keys))
        if has_transport:
            content.append(section_to_transport(section, name, foundations, is_answer=action in _ANSWERS))
        if action == "content-reject":
            _add_stubs(content, section.media)
        jingle.append(content)
    if action in _WITH_GROUPS:
        for group in groups_of(whole, all_names):
            jingle.append(group)
    return jingle


def rejection_of(added: Jingle) -> Jingle:
    """Return the content-reject of a content-add, also of one that could not be understood.

    COMPAT Conversations 2.12: it compares what was rejected with what it added, by name, medium and `senders`.
    """
    jingle = Jingle()
    jingle["action"] = "content-reject"
    for added_content in added["contents"][:MAXIMUM_MEDIA]:
        content = Content()
        content["creator"], content["name"] = added_content["creator"], added_content["name"]
        content["senders"] = added_content["senders"]
        description = description_of(added_content)
        if description is not None:
            _add_stubs(content, description["media"])
        jingle.append(content)
    return jingle


def _add_stubs(content: Content, media: str) -> None:
    # COMPAT Conversations 2.12: it looks for the medium in what comes back, and fails where there is none.
    description = Description()
    description["media"] = media
    content.append(description)
    content.append(Transport())


def one_content_each(jingle: Jingle) -> list[Jingle]:
    """Return the same as actions about one content each; groups stay with each.

    COMPAT Dino 0.4: it takes no more than one content in anything but session-initiate and session-accept.
    """
    contents = jingle["contents"]
    if len(contents) < 2:
        return [jingle]
    found = []
    for content in contents:
        single = Jingle()
        for name in ("action", "initiator", "responder", "sid"):
            if jingle[name]:
                single[name] = jingle[name]
        single.append(Content(xml=content.xml))
        for group in jingle["groups"]:
            single.append(Group(xml=group.xml))
        found.append(single)
    return found
