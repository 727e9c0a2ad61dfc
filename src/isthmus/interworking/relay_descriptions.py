"""What must be put right in session descriptions around a media relay (rtpengine 10.5), measured.

`to_relay` is for what an end said, before the relay sees it; `from_relay` for what the relay made of it, before the
other end does. Both are pure.
"""

from __future__ import annotations

from dataclasses import replace

from isthmus.model import MediaForm
from isthmus.sdp.session_description import Attribute, MediaDescription, SessionDescription

# The relay passes these on as they are. Toward an end without ICE and BUNDLE they speak of streams, header extensions
# and groups that do not exist there.
_WEB_ONLY = frozenset(
    (
        "bundle-only",
        "end-of-candidates",
        "extmap",
        "extmap-allow-mixed",
        "group",
        "ice-options",
        "mid",
        "msid",
        "msid-semantic",
        "rid",
        "rtcp-rsize",
        "simulcast",
        "ssrc",
        "ssrc-group",
    )
)
# Feedback that needs the transport-wide sequence numbers of a header extension.
_WEB_ONLY_FEEDBACK = ("transport-cc", "goog-remb")
_UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


def to_relay(sdp: SessionDescription) -> SessionDescription:
    """Return what an end said in the way that the relay understands it as it was meant."""
    return sdp.with_media(_section_to_relay(sdp, section) for section in sdp.media)


def _section_to_relay(sdp: SessionDescription, section: MediaDescription) -> MediaDescription:
    if section.candidates:
        # TCP candidates are of no use to a relay that speaks UDP; names under .local resolve in the browser's own
        # network at best (RFC 8828). The relay learns such an end from its first check.
        section = section.with_candidates(value for value in section.candidates if _is_usable(value))
    if sdp.effective(section, "ice-ufrag") and sdp.address(section) in _UNSPECIFIED:
        # With ICE this address is a placeholder (RFC 9429 section 5.2.1), but the relay takes it for the hold of
        # RFC 2543 unless candidates are announced to follow. Jingle has no word for that, so it must be put in here.
        options = (sdp.effective(section, "ice-options") or "").split()
        if "trickle" not in options or not section.has_attribute("ice-options"):
            said = " ".join(dict.fromkeys((*options, "trickle")))
            section = section.with_attributes({"ice-options": said})
    return section


def _is_usable(candidate: str) -> bool:
    words = candidate.split()
    return len(words) > 5 and words[2].lower() == "udp" and not words[4].lower().endswith(".local")


def from_relay(made: SessionDescription, *, target: MediaForm) -> SessionDescription:
    """Return the relay's description in the way that the other end understands it.

    Args:
        made: by the relay.
        target: what the other end's media look like.
    """
    if target is MediaForm.WEBRTC:
        return _for_web(made)
    sections = (_for_phone(section) for section in made.media)
    return made.with_attributes(drop=_WEB_ONLY).with_media(sections)


def _for_phone(section: MediaDescription) -> MediaDescription:
    section = section.with_attributes(drop=_WEB_ONLY)
    kept = tuple(attribute for attribute in section.attributes if not _is_web_feedback(attribute))
    return replace(section, attributes=kept)


def _is_web_feedback(attribute: Attribute) -> bool:
    words = (attribute.value or "").split()
    return attribute.name == "rtcp-fb" and len(words) > 1 and words[1] in _WEB_ONLY_FEEDBACK


def _for_web(made: SessionDescription) -> SessionDescription:
    """Each section has a transport of its own: the relay gives it a port and ICE credentials, and strips the group.

    One section alone could be a bundle, which browsers with the policy max-bundle insist on. But once there is one,
    Chromium puts media that are added to the call into it as well, and refuses an answer that does not (measured).

    The relay passes on which SSRC the far end has, but sends another one whenever it transcodes. Who believes what was
    said, as Chromium does, then plays nothing.
    """
    sections = (
        section.with_attributes(drop=("ssrc", "ssrc-group", *(("end-of-candidates",) if section.is_rejected else ())))
        for section in made.media
    )
    return made.with_attributes(drop=("group",)).with_media(sections)
