"""What a Jingle action does to what its sender said before (XEP-0166 section 7.2): a description after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from isthmus.interworking.jingle_contents import (
    content_names,
    content_to_section,
    contents_of,
    group_lines,
    merged_groups,
    with_profile,
    without_transport,
)
from isthmus.interworking.jingle_description import description_to_section
from isthmus.interworking.jingle_senders import name_to_mid, senders_to_direction
from isthmus.interworking.jingle_transport import transport_to_attributes
from isthmus.sdp.offer_answer import rejecting, with_live_groups
from isthmus.sdp.session_description import MAXIMUM_MEDIA, Attribute, MediaDescription, SdpError, SessionDescription
from isthmus.sdp.trickle import with_candidates_added
from isthmus.xmpp.jingle import Content, Jingle
from isthmus.xmpp.jingle_ice_udp import transport_of
from isthmus.xmpp.jingle_rtp import description_of


def _added(base: SessionDescription, jingle: Jingle, is_from_initiator: bool) -> SessionDescription:
    sections = list(base.media)
    names = content_names(base)
    live = {name for name, section in zip(names, sections, strict=True) if not section.is_rejected}
    groups = group_lines(jingle)
    for name, content in contents_of(jingle).items():
        if name in live:
            raise SdpError("the content that is added is there already", condition="bad-request")
        section = content_to_section(content, is_from_initiator=is_from_initiator)
        if not groups:
            groups = _bundle_by_credentials(base, section)
        # RFC 3264 section 8.1: a slot whose medium was taken out is used again, otherwise the list would only grow.
        free = next((index for index, old in enumerate(sections) if old.is_rejected), None)
        if free is not None:
            sections[free] = section
        elif len(sections) < MAXIMUM_MEDIA:
            sections.append(section)
        else:
            raise SdpError(f"more than {MAXIMUM_MEDIA} contents", condition="policy-violation")
    return replace(base, attributes=merged_groups(base.attributes, groups), media=tuple(sections))


def _bundle_by_credentials(base: SessionDescription, section: MediaDescription) -> tuple[Attribute, ...]:
    # A client that leaves the group out of content-add bundles all the same when it uses the credentials of the bundle.
    for mids in base.bundles:
        members = [old for old in base.media if old.mid in mids]
        if any(old.ice_ufrag and old.ice_ufrag == section.ice_ufrag for old in members):
            return (Attribute("group", f"BUNDLE {section.mid}"),)
    return ()


def _modified(base: SessionDescription, jingle: Jingle, is_from_initiator: bool) -> SessionDescription:
    def modify(section: MediaDescription, content: Content) -> MediaDescription:
        return section.with_direction(senders_to_direction(content["senders"], is_from_initiator=is_from_initiator))

    return _each(base, jingle, modify)


def _removed(base: SessionDescription, jingle: Jingle, is_from_initiator: bool) -> SessionDescription:
    return with_live_groups(_each(base, jingle, lambda section, _: rejecting(section)))


def _described(base: SessionDescription, jingle: Jingle, is_from_initiator: bool) -> SessionDescription:
    """Take over what is said anew about codecs that are known (XEP-0167 section 7.4, advisory)."""

    def describe(section: MediaDescription, content: Content) -> MediaDescription:
        description = description_of(content)
        if description is None or not description["payload_types"]:
            return section
        said = description_to_section(description, is_from_initiator=is_from_initiator)
        news = {value.partition(" ")[0]: value for value in said.values_of("fmtp")}
        known = {codec.payload_type: codec.identity for codec in section.codecs}
        same = {str(codec.payload_type) for codec in said.codecs if known.get(codec.payload_type) == codec.identity}
        kept = [a for a in section.attributes if a.name != "fmtp" or (a.value or "").partition(" ")[0] not in same]
        lines = [Attribute("fmtp", news[format_]) for format_ in section.formats if format_ in same & set(news)]
        return replace(section, attributes=(*kept, *lines))

    return _each(base, jingle, describe)


def _transported(base: SessionDescription, jingle: Jingle, is_from_initiator: bool) -> SessionDescription:
    """Add candidates, or restart ICE, and take over a fingerprint (XEP-0320 section 3: it may come early or late)."""

    def inform(section: MediaDescription, content: Content) -> MediaDescription:
        transport = transport_of(content)
        if transport is None:
            return section
        lines = transport_to_attributes(transport)
        fingerprints = tuple(attribute for attribute in lines if attribute.name in {"fingerprint", "setup"})
        if not fingerprints:
            return section
        said = {attribute.name for attribute in fingerprints}
        kept = tuple(attribute for attribute in section.attributes if attribute.name not in said)
        return with_profile(replace(section, attributes=(*kept, *fingerprints)))

    fragment = jingle_to_fragment(jingle, base=base)
    return with_candidates_added(_each(base, jingle, inform), fragment)


def _replaced(base: SessionDescription, jingle: Jingle, is_from_initiator: bool) -> SessionDescription:
    def replace_transport(section: MediaDescription, content: Content) -> MediaDescription:
        transport = transport_of(content)
        if transport is None:
            raise SdpError("the new transport is not ICE-UDP", condition="feature-not-implemented")
        kept = without_transport(section).attributes
        return with_profile(replace(section, attributes=(*kept, *transport_to_attributes(transport))))

    return _each(base, jingle, replace_transport)


def _each(
    base: SessionDescription, jingle: Jingle, change: Callable[[MediaDescription, Content], MediaDescription]
) -> SessionDescription:
    """Return the description with the live sections that an action names changed; unknown names are left alone."""
    contents = contents_of(jingle)
    sections = [
        change(section, contents[name]) if name in contents and not section.is_rejected else section
        for name, section in zip(content_names(base), base.media, strict=True)
    ]
    return replace(base, media=tuple(sections))


CHANGES: dict[str, Callable[[SessionDescription, Jingle, bool], SessionDescription]] = {
    "content-add": _added,
    "content-modify": _modified,
    "content-remove": _removed,
    "description-info": _described,
    "transport-accept": _replaced,
    "transport-info": _transported,
    "transport-replace": _replaced,
}


def jingle_to_fragment(jingle: Jingle, *, base: SessionDescription | None = None) -> SessionDescription:
    """Return what a transport-info says of ICE as a fragment (RFC 8840), for `Leg.add_candidates` of the other side.

    Args:
        jingle: the transport-info.
        base: what its sender said last; gives the kind and the order of the sections.

    Raises:
        SdpError: it holds more than any session needs.
    """
    contents = contents_of(jingle)
    known = {} if base is None else dict(zip(content_names(base), base.media, strict=True))
    sections = []
    for name in sorted(contents, key=lambda name: list(known).index(name) if name in known else len(known)):
        transport = transport_of(contents[name])
        if transport is None:
            continue
        kept = tuple(
            attribute
            for attribute in transport_to_attributes(transport)
            if attribute.name in {"ice-ufrag", "ice-pwd", "candidate"}
        )
        like = known.get(name) or MediaDescription("audio", 9, "RTP/AVP", ("0",))
        lines = (Attribute("mid", name_to_mid(name)), *kept)
        sections.append(MediaDescription(like.media, 9, like.protocol, like.formats, attributes=lines))
    return SessionDescription(media=tuple(sections))
