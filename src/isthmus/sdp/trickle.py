"""Candidates that follow an offer or answer (RFC 8838, RFC 8840): fragments, and taking them into a description.

A fragment is a `SessionDescription` whose sections have only mid, ICE credentials and candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from isthmus.sdp.session_description import Attribute, MediaDescription, SdpError, SessionDescription

CONTENT_TYPE = "application/trickle-ice-sdpfrag"
_KEPT = ("mid", "ice-ufrag", "ice-pwd", "candidate", "end-of-candidates")


def candidates_fragment(sdp: SessionDescription, mids: Collection[str] | None = None) -> SessionDescription:
    """Return the credentials and candidates of a description as a fragment (RFC 8840 section 9).

    Args:
        sdp: a whole description.
        mids: which sections; all by default.

    Raises:
        SdpError: a section has no mid, so that a fragment could not name it.
    """
    sections = []
    for section in sdp.flattened().media:
        if section.is_rejected or (mids is not None and section.mid not in mids):
            continue
        if not section.mid:
            raise SdpError("candidates cannot be trickled for a media section without a=mid")
        kept = tuple(attribute for attribute in section.attributes if attribute.name in _KEPT)
        sections.append(MediaDescription(section.media, 9, section.protocol, section.formats, attributes=kept))
    groups = tuple(attribute for attribute in sdp.attributes if attribute.name == "group")
    return SessionDescription(attributes=groups, media=tuple(sections))


def fragment_to_text(fragment: SessionDescription) -> str:
    """Return the body of an INFO: what RFC 8840 section 9.2 allows, with no v=, o=, s= or t= before it."""
    lines = [f"a={attribute}" for attribute in fragment.attributes]
    for section in fragment.media:
        lines += section.to_lines()
    return "\r\n".join(lines) + "\r\n"


def fragment_from_text(data: bytes | str) -> SessionDescription:
    """Read the body of an INFO.

    Raises:
        SdpError: as for a whole description.
    """
    if isinstance(data, bytes):
        data = data.decode("utf-8", "replace")
    return SessionDescription.parse("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\n" + data).flattened()


def with_candidates_added(sdp: SessionDescription, fragment: SessionDescription) -> SessionDescription:
    """Return the description with the candidates of a fragment.

    Candidates of another generation (other credentials) than the description's replace those it has: that is an ICE
    restart (RFC 8839 section 4.4.1.1.1). What names no section of the description is left out.
    """
    news: Mapping[str, MediaDescription] = dict(zip(fragment.names, fragment.flattened().media, strict=True))
    whole = sdp.flattened()
    sections = []
    for name, section in zip(whole.names, whole.media, strict=True):
        new = None if section.is_rejected else news.get(name)
        sections.append(section if new is None else _merged(section, new))
    return replace(whole, media=tuple(sections))


def is_ice_restart(sdp: SessionDescription, previous: SessionDescription) -> bool:
    """True when a section has both other credentials than before (RFC 8839 section 4.4.1.1.1)."""
    before = dict(zip(previous.names, previous.flattened().media, strict=True))
    for name, section in zip(sdp.names, sdp.flattened().media, strict=True):
        old = before.get(name)
        if old is None or section.is_rejected or not (old.ice_ufrag and section.ice_ufrag):
            continue
        if old.ice_ufrag != section.ice_ufrag and old.ice_pwd != section.ice_pwd:
            return True
    return False


def _merged(section: MediaDescription, new: MediaDescription) -> MediaDescription:
    known = list(section.candidates)
    credentials: dict[str, str | None] = {}
    if new.ice_ufrag and new.ice_pwd and (new.ice_ufrag, new.ice_pwd) != (section.ice_ufrag, section.ice_pwd):
        credentials = {"ice-ufrag": new.ice_ufrag, "ice-pwd": new.ice_pwd}
        if section.ice_ufrag:
            known = []
    known += [candidate for candidate in new.candidates if candidate not in known]
    merged = section.with_attributes(credentials, drop=("end-of-candidates",)).with_candidates(known)
    if new.has_attribute("end-of-candidates"):
        merged = replace(merged, attributes=(*merged.attributes, Attribute("end-of-candidates")))
    return merged
