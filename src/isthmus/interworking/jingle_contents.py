"""A content of a Jingle session and a media section, and how contents are named and grouped (XEP-0167, XEP-0338).

A content's name is the section's mid, or stands for its place where a section has none (`SessionDescription.names`).
"""

from __future__ import annotations

from dataclasses import replace

from isthmus.interworking.jingle_description import description_to_section
from isthmus.interworking.jingle_senders import (
    UnsupportedContentError,
    mid_to_name,
    name_to_mid,
    senders_to_direction,
    token,
)
from isthmus.interworking.jingle_transport import DTLS_ATTRIBUTES, ICE_ATTRIBUTES, transport_to_attributes
from isthmus.sdp.session_description import MAXIMUM_MEDIA, Attribute, MediaDescription, SdpError, SessionDescription
from isthmus.xmpp.jingle import Content, Group, Jingle
from isthmus.xmpp.jingle_ice_udp import transport_of
from isthmus.xmpp.jingle_rtp import description_of

_NAMELESS_CONNECTION = "IN IP4 0.0.0.0"  # RFC 9429 section 5.2.1: the candidates say where


def content_names(sdp: SessionDescription) -> tuple[str, ...]:
    """Return the name of the content that each section is, in order."""
    return tuple(mid_to_name(name) for name in sdp.names)


def contents_of(jingle: Jingle) -> dict[str, Content]:
    """Return the contents by name.

    Raises:
        SdpError: too many, or two of the same name: XEP-0338 can only name contents whose names are unique.
    """
    contents = jingle["contents"]
    if len(contents) > MAXIMUM_MEDIA:
        raise SdpError(f"more than {MAXIMUM_MEDIA} contents", condition="policy-violation")
    found = {content["name"]: content for content in contents}
    if len(found) != len(contents) or "" in found:
        raise SdpError("the contents of a Jingle session need names that are unique", condition="bad-request")
    return found


def content_to_section(content: Content, *, is_from_initiator: bool) -> MediaDescription:
    """Return the media section that a whole content is.

    Raises:
        UnsupportedContentError: an application that is no RTP, or a transport that is no ICE-UDP.
        SdpError: it cannot be understood.
    """
    description = description_of(content)
    if description is None:
        raise UnsupportedContentError("the content is not about RTP", "unsupported-applications")
    transport = transport_of(content)
    if transport is None:
        raise UnsupportedContentError("the content does not travel by ICE-UDP", "unsupported-transports")
    section = description_to_section(description, is_from_initiator=is_from_initiator)
    direction = senders_to_direction(content["senders"], is_from_initiator=is_from_initiator)
    first = (Attribute("mid", name_to_mid(content["name"])), Attribute(direction))
    attributes = (*first, *section.attributes, *transport_to_attributes(transport))
    return with_profile(replace(section, connection=_NAMELESS_CONNECTION, attributes=attributes))


def with_profile(section: MediaDescription) -> MediaDescription:
    """Return the section with the profile that its keys and feedback call for (STOX media section 5).

    Keys of SDES beside a DTLS fingerprint are left out: who has both wants DTLS (RFC 5763 section 5).
    """
    feedback = "F" if section.has_attribute("rtcp-fb") else ""
    if section.has_attribute("fingerprint"):
        return replace(section.with_attributes(drop=("crypto",)), protocol="UDP/TLS/RTP/SAVPF")
    profile = "RTP/SAVP" if section.has_attribute("crypto") else "RTP/AVP"
    return replace(section, protocol=profile + feedback)


def group_lines(jingle: Jingle) -> tuple[Attribute, ...]:
    """Return `a=group` for each group (XEP-0338)."""
    found = []
    for group in jingle["groups"][:MAXIMUM_MEDIA]:
        mids = [name_to_mid(name) for name in group["contents"][:MAXIMUM_MEDIA] if name]
        if token(group["semantics"]) and mids:
            found.append(Attribute("group", " ".join((group["semantics"], *mids))))
    return tuple(found)


def merged_groups(attributes: tuple[Attribute, ...], more: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
    """Return session-level attributes with each group joined by the new one of the same semantics."""
    joined: dict[str, dict[str, None]] = {}
    for attribute in (*attributes, *more):
        if attribute.name == "group" and attribute.value:
            semantics, *mids = attribute.value.split() or [""]
            joined.setdefault(semantics, {}).update(dict.fromkeys(mids))
    groups = [Attribute("group", " ".join((semantics, *mids))) for semantics, mids in joined.items()]
    return (*groups, *(attribute for attribute in attributes if attribute.name != "group"))


def groups_of(sdp: SessionDescription, names: tuple[str, ...]) -> list[Group]:
    """Return the groups of a description; `names` are those of the contents that its sections are."""
    by_mid = {section.mid: name for section, name in zip(sdp.media, names, strict=False) if not section.is_rejected}
    found = []
    for value in sdp.values_of("group"):
        semantics, *mids = value.split() or [""]
        contents = [by_mid[mid] for mid in mids if mid in by_mid]
        if semantics and contents:
            group = Group()
            group["semantics"] = semantics
            group["contents"] = contents
            found.append(group)
    return found


def without_transport(section: MediaDescription) -> MediaDescription:
    """Return a section without what is about ICE and DTLS."""
    return section.with_attributes(drop=(*ICE_ATTRIBUTES, *DTLS_ATTRIBUTES))
