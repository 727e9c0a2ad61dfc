"""The offer/answer model (RFC 3264, RFC 9429 for what browsers make of it): pure functions on descriptions.

Sections keep their place for the life of a session (RFC 3264 section 8): what one side must not see is left out of what
it gets (`without_media`) and stands as rejected in what comes back (`with_media_restored`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from isthmus.model import MediaForm
from isthmus.sdp.session_description import (
    Attribute,
    Codec,
    MediaDescription,
    SdpError,
    SessionDescription,
    SessionOrigin,
)

RemovedMedia: TypeAlias = tuple[tuple[int, MediaDescription], ...]
"""Sections that were taken out of an offer, each with the index it had there."""

# What carries no sound or picture by itself: having it in common is having nothing in common.
_AUXILIARY = frozenset(("telephone-event", "cn", "red", "rtx", "ulpfec", "flexfec", "flexfec-03", "tone"))

# (may it send, may it receive), as the speaker sees it (RFC 3264 section 5.1).
_DIRECTION_FLAGS = {
    "sendrecv": (True, True),
    "sendonly": (True, False),
    "recvonly": (False, True),
    "inactive": (False, False),
}
_DIRECTION_BY_FLAGS = {flags: direction for direction, flags in _DIRECTION_FLAGS.items()}


# --- directions and hold --------------------------------------------------------------------------------------


def mirrored(direction: str) -> str:
    """Return the same direction as the other side says it: sendonly is recvonly there."""
    sends, receives = _DIRECTION_FLAGS[direction]
    return _DIRECTION_BY_FLAGS[receives, sends]


def narrowed(direction: str, limit: str) -> str:
    """Return what both directions allow, each said by the same side (RFC 3264 section 6.1)."""
    sends, receives = _DIRECTION_FLAGS[direction]
    may_send, may_receive = _DIRECTION_FLAGS[limit]
    return _DIRECTION_BY_FLAGS[sends and may_send, receives and may_receive]


def is_hold(sdp: SessionDescription) -> bool:
    """True when the speaker wants to hear nothing: no section receives (RFC 3264 section 8.4).

    Also the way of RFC 2543, the address 0.0.0.0; with ICE that address is a placeholder and says nothing
    (RFC 9429 section 5.2.1).
    """
    live = [section for section in sdp.media if not section.is_rejected]
    return bool(live) and not any(_receives(sdp, section) for section in live)


def _receives(sdp: SessionDescription, section: MediaDescription) -> bool:
    if sdp.direction(section) in {"sendonly", "inactive"}:
        return False
    has_ice = bool(sdp.effective(section, "ice-ufrag"))
    return has_ice or sdp.address(section) not in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def held(sdp: SessionDescription, direction: str = "sendonly") -> SessionDescription:
    """Return the description with every live section narrowed to `direction` (sendonly, or inactive)."""
    sections = (
        section if section.is_rejected else section.with_direction(narrowed(sdp.direction(section), direction))
        for section in sdp.media
    )
    return sdp.with_media(sections)


# --- what the media look like ---------------------------------------------------------------------------------


def form_of(sdp: SessionDescription) -> MediaForm:
    """Return what the media look like on the wire, by the first live section.

    The profile decides, and within RTP/SAVP(F) what keys are there: before RFC 5764 had a profile of its own, browsers
    wrote RTP/SAVPF with a fingerprint. RTP/AVP that also shows keys (RFC 8643) is plain RTP: that always works. ICE
    without rtcp-mux is no WebRTC: browsers refuse it (RFC 9429 section 5.3.1), so that a relay must stand between.
    """
    live = [section for section in sdp.media if not section.is_rejected] or list(sdp.media)
    if not live:
        return MediaForm.RTP
    section = live[0]
    profile = section.protocol.upper()
    if "SAVP" not in profile:
        return MediaForm.RTP
    if not ("TLS" in profile or (sdp.fingerprints(section) and not section.has_attribute("crypto"))):
        return MediaForm.SDES
    is_webrtc = bool(sdp.effective(section, "ice-ufrag")) and section.has_rtcp_mux
    return MediaForm.WEBRTC if is_webrtc else MediaForm.DTLS


def _compatibility(codec: Codec) -> tuple[object, ...]:
    """Return what must be equal for two ends to understand each other."""
    if codec.name.lower() != "h264":
        return codec.identity
    # RFC 6184 section 8.2.2: profile and packetization mode are not negotiated but chosen, level and constraints aside.
    said = dict(part.strip().lower().partition("=")[::2] for part in codec.parameters.split(";"))
    return (*codec.identity, said.get("packetization-mode", "0"), said.get("profile-level-id", "42")[:2])


def common_codecs(section: MediaDescription, other: MediaDescription) -> tuple[Codec, ...]:
    """Return the codecs of `section` that `other` has as well, sound and picture only, in the order of `section`."""
    theirs = {_compatibility(codec) for codec in other.codecs}
    return tuple(
        codec for codec in section.codecs if codec.name.lower() not in _AUXILIARY and _compatibility(codec) in theirs
    )


def has_common_codec(offered: MediaDescription, answered: MediaDescription) -> bool:
    """True when both know a codec that carries sound or picture, so that nothing need be transcoded."""
    return bool(common_codecs(offered, answered))


def with_codecs_in_use(said: SessionDescription, told: SessionDescription) -> SessionDescription:
    """Return what an end said with only the codec that it sends now in each section, and what goes with it.

    An answerer keeps the offerer's order, so that it is the first that both have (RFC 3264 section 6.1). Who speaks
    for an end that is not asked again needs this: any other codec in common it would first have to change to.

    Args:
        said: what the end last said.
        told: what it was told of the other end. Sections without a common codec stay as they are.
    """
    pairs = zip(said.media, told.media, strict=False)
    sections = [_with_codec_in_use(section, other) for section, other in pairs]
    return said.with_media([*sections, *said.media[len(sections) :]])


def _with_codec_in_use(section: MediaDescription, other: MediaDescription) -> MediaDescription:
    common = () if section.is_rejected else common_codecs(section, other)
    if not common:
        return section
    beside = {"telephone-event", "cn"}
    codecs = (common[0], *(codec for codec in section.codecs if codec.name.lower() in beside))
    kept = {str(codec.payload_type) for codec in codecs}
    attributes = tuple(
        attribute
        for attribute in section.attributes
        if attribute.name not in _OF_ONE_FORMAT or (attribute.value or "").split(" ", 1)[0] in {*kept, "*"}
    )
    formats = tuple(format_ for format_ in section.formats if format_ in kept)
    return replace(section, formats=formats, attributes=attributes)


_OF_ONE_FORMAT = frozenset(("rtpmap", "fmtp", "rtcp-fb"))


# --- rejecting ------------------------------------------------------------------------------------------------


def rejecting(section: MediaDescription) -> MediaDescription:
    """Return the section that rejects this one (RFC 3264 section 6): the same line with port zero.

    It has an address, as every section must where the session has none (RFC 8866 section 5.7); rtpengine insists on it.
    """
    kept = tuple(attribute for attribute in section.attributes if attribute.name == "mid")
    formats = section.formats or ("0",)
    connection = section.connection or "IN IP4 0.0.0.0"
    return MediaDescription(section.media, 0, section.protocol, formats, connection=connection, attributes=kept)


def answer_rejecting(
    offer: SessionDescription, indexes: Iterable[int], answer: SessionDescription
) -> SessionDescription:
    """Return `answer` with the sections at `indexes` of the offer rejected.

    Args:
        offer: what is answered.
        indexes: places in the offer.
        answer: has a section for each one of the offer, in its order.

    Raises:
        SdpError: the answer does not fit the offer.
    """
    if len(answer.media) != len(offer.media):
        raise SdpError("an answer needs as many media sections as its offer")
    refused = frozenset(indexes)
    sections = [
        rejecting(offer.media[index]) if index in refused else section for index, section in enumerate(answer.media)
    ]
    return with_live_groups(answer.with_media(sections))


def without_media(offer: SessionDescription, kind: str) -> tuple[SessionDescription, RemovedMedia]:
    """Return the offer without the sections of this kind ("video"), and what was taken out.

    Raises:
        SdpError: nothing would be left.
    """
    removed = tuple((index, section) for index, section in enumerate(offer.media) if section.media == kind)
    left = tuple(section for section in offer.media if section.media != kind)
    if removed and all(section.is_rejected for section in left):
        raise SdpError(f"the offer has nothing but {kind}")
    return with_live_groups(offer.with_media(left)) if removed else offer, removed


def with_media_restored(answer: SessionDescription, removed: RemovedMedia) -> SessionDescription:
    """Return the answer to an offer that `without_media` had cut, with those sections rejected in their places."""
    sections = list(answer.media)
    for index, section in removed:
        sections.insert(index, rejecting(section))
    return answer.with_media(sections)


# What says where a section's packets go and who may decrypt them: equal for all of a bundle (RFC 9143 section 7.1.3).
_TRANSPORT = ("ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup", "tls-id")
_CODECS = ("rtpmap", "fmtp", "rtcp-fb")


def accepting_silently(answer: SessionDescription, offer: SessionDescription) -> SessionDescription:
    """Return the answer with rejected sections accepted as inactive, where they cost nothing.

    That is where the offer bundled a section with one that the answer takes: it rides on the transport of that one, and
    nobody sends in it. COMPAT Conversations 2.12: it ends a call as a security error when a session-accept has
    other kinds of media than its session-initiate, so that video cannot be refused in any other way.

    Args:
        answer: has a section for each one of the offer, in its order.
        offer: what is answered.
    """
    sections = list(answer.flattened().media)
    answer_bundled = {mid for mids in answer.bundles for mid in mids}
    groups = []
    for mids in offer.bundles:
        members = [index for index, section in enumerate(offer.media[: len(sections)]) if section.mid in mids]
        leader = next((index for index in members if not sections[index].is_rejected), None)
        refused = [index for index in members if sections[index].is_rejected and not offer.media[index].is_rejected]
        if leader is None or not refused:
            continue
        sections[leader] = sections[leader].with_attributes({"mid": offer.media[leader].mid})
        for index in refused:
            sections[index] = _silent(offer.media[index], sections[leader])
        bundled = {leader, *refused, *(i for i in members if answer.media[i].mid in answer_bundled)}
        groups.append(" ".join(("BUNDLE", *(offer.media[index].mid for index in sorted(bundled)))))
    if not groups:
        return answer
    others = tuple(attribute for attribute in answer.flattened().attributes if attribute.name != "group")
    lines = (*(Attribute("group", group) for group in groups), *others)
    return replace(answer, attributes=lines, media=tuple(sections))


def _silent(offered: MediaDescription, leader: MediaDescription) -> MediaDescription:
    codecs = tuple(attribute for attribute in offered.attributes if attribute.name in _CODECS)
    transport = tuple(attribute for attribute in leader.attributes if attribute.name in _TRANSPORT)
    lines = (Attribute("mid", offered.mid), Attribute("inactive"), Attribute("rtcp-mux"), *codecs, *transport)
    return replace(offered, port=9, connection=leader.connection, bandwidths=(), attributes=lines)


def with_live_groups(sdp: SessionDescription) -> SessionDescription:
    """Take mids that are gone or rejected out of `a=group` (RFC 9143 section 7.3)."""
    live = {section.mid for section in sdp.media if section.mid and not section.is_rejected}
    kept = []
    for attribute in sdp.attributes:
        if attribute.name == "group":
            semantics, *mids = (attribute.value or "").split() or [""]
            mids = [mid for mid in mids if mid in live]
            if mids:
                kept.append(Attribute("group", " ".join((semantics, *mids))))
        else:
            kept.append(attribute)
    return replace(sdp, attributes=tuple(kept))


# --- versions -------------------------------------------------------------------------------------------------


def is_same_media(one: SessionDescription, other: SessionDescription) -> bool:
    """True when nothing but `o=` differs: the offer only refreshes a session timer (RFC 4028 section 7.4)."""
    return replace(one, origin=other.origin) == other


def next_version(sdp: SessionDescription, previous: SessionDescription) -> SessionDescription:
    """Return the description with the `o=` that follows `previous` (RFC 3264 section 8).

    The version rises by one when the content differs and stays when it does not; everything else in `o=` is kept, as
    a peer takes another one for another session.
    """
    origin = previous.origin
    if not is_same_media(sdp, previous):
        origin = origin._replace(version=origin.version + 1)
    return replace(sdp, origin=origin)


# --- late offers ----------------------------------------------------------------------------------------------

_AUDIO = (
    ("111", "opus/48000/2", "useinbandfec=1"),
    ("9", "G722/8000", ""),
    ("0", "PCMU/8000", ""),
    ("8", "PCMA/8000", ""),
    ("101", "telephone-event/8000", "0-16"),
)
_VIDEO = (("96", "VP8/90000", ""), ("97", "H264/90000", "profile-level-id=42e01f;packetization-mode=1"))
_PROFILES = {
    MediaForm.WEBRTC: "UDP/TLS/RTP/SAVPF",
    MediaForm.DTLS: "UDP/TLS/RTP/SAVP",
    MediaForm.SDES: "RTP/SAVP",
    MediaForm.RTP: "RTP/AVP",
}


def template_offer(
    form: MediaForm = MediaForm.RTP, audio: bool = True, video: bool = False, *, address: str = "127.0.0.1"
) -> SessionDescription:
    """Return what a device might offer, for one that called without an offer (RFC 3261 section 13.2.1).

    It has codecs but no keys and no ports of its own: a media relay puts in real ones.

    Args:
        form: decides the profile.
        audio, video: which sections.
        address: IPv4 address that stands for the device until it says its own.
    """
    sections: list[MediaDescription] = []
    for media, is_wanted, codecs in (("audio", audio, _AUDIO), ("video", video, _VIDEO)):
        if is_wanted:
            lines = [Attribute("rtpmap", f"{payload_type} {name}") for payload_type, name, _ in codecs]
            lines += [Attribute("fmtp", f"{payload_type} {said}") for payload_type, _, said in codecs if said]
            lines += [Attribute("mid", str(len(sections))), Attribute("sendrecv")]
            formats = tuple(payload_type for payload_type, _, _ in codecs)
            sections.append(MediaDescription(media, 9, _PROFILES[form], formats, attributes=tuple(lines)))
    return SessionDescription(
        origin=SessionOrigin(session_id="1", version=1, address=address),
        connection=f"IN IP4 {address}",
        media=tuple(sections),
    )
