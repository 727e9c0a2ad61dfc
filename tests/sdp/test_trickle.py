"""Trickled candidates: fragments of RFC 8840, and what becomes of a description they are added to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.sdp.trickle import (
    candidates_fragment,
    fragment_from_text,
    fragment_to_text,
    is_ice_restart,
    with_candidates_added,
)

CAPTURES = Path(__file__).parents[1] / "messages/sdp"
# RFC 8840 section 9.2, the addresses of RFC 3849.
FRAGMENT = (
    "a=ice-pwd:asd88fgpdd777uzjYhagZg\r\na=ice-ufrag:8hhY\r\nm=audio 9 RTP/AVP 0\r\na=mid:1\r\n"
    "a=candidate:1 1 UDP 2130706432 2001:db8:a0b:12f0::1 5000 typ host\r\n"
    "m=audio 9 RTP/AVP 0\r\na=mid:2\r\na=end-of-candidates\r\n"
)


def captured(name: str) -> SessionDescription:
    return SessionDescription.parse((CAPTURES / f"{name}.sdp").read_bytes())


def test_a_fragment_is_read_with_its_credentials_in_every_section() -> None:
    fragment = fragment_from_text(FRAGMENT.encode())
    assert [(section.mid, section.ice_ufrag, section.ice_pwd) for section in fragment.media] == [
        ("1", "8hhY", "asd88fgpdd777uzjYhagZg"),
        ("2", "8hhY", "asd88fgpdd777uzjYhagZg"),
    ]
    assert len(fragment.media[0].candidates) == 1
    assert fragment.media[1].has_attribute("end-of-candidates")
    assert fragment_from_text(fragment_to_text(fragment)) == fragment


def test_a_fragment_has_credentials_and_candidates_and_nothing_else() -> None:
    offer = captured("chromium_video_offer")
    text = fragment_to_text(candidates_fragment(offer))
    names = {line[2:].partition(":")[0] for line in text.splitlines() if line.startswith("a=")}
    assert names == {"group", "mid", "ice-ufrag", "ice-pwd", "candidate"}
    assert not any(line[:2] in {"v=", "o=", "s=", "t=", "c="} for line in text.splitlines())
    assert [section.mid for section in candidates_fragment(offer, mids=["1"]).media] == ["1"]


def test_candidates_of_a_section_without_a_name_cannot_be_trickled() -> None:
    with pytest.raises(SdpError):
        candidates_fragment(captured("baresip_ice_dtls_offer"))


@pytest.mark.parametrize("data", [b"m=audio\r\n", b"nonsense", b"a=x\r\n" * 2000])
def test_a_broken_fragment_is_refused(data: bytes) -> None:
    with pytest.raises(SdpError):
        fragment_from_text(data)


@given(st.text(max_size=100) | st.binary(max_size=100))
def test_whatever_comes_as_a_fragment_is_read_or_refused(data: str | bytes) -> None:
    try:
        fragment = fragment_from_text(data)
    except SdpError:
        return
    with_candidates_added(captured("chromium_audio_offer"), fragment)


def test_candidates_are_added_once_to_the_sections_they_name() -> None:
    before, after = captured("chromium_audio_offer_first"), captured("chromium_audio_offer")
    fragment = fragment_from_text(
        f"a=ice-ufrag:{before.media[0].ice_ufrag}\r\na=ice-pwd:{before.media[0].ice_pwd}\r\n"
        + "m=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
        + "".join(f"a=candidate:{candidate}\r\n" for candidate in after.media[0].candidates)
        + "m=audio 9 RTP/AVP 0\r\na=mid:unknown\r\na=candidate:1 1 udp 1 192.0.2.9 9 typ host\r\n"
    )
    merged = with_candidates_added(before, fragment)
    assert merged.media[0].candidates == after.media[0].candidates
    assert with_candidates_added(merged, fragment) == merged
    assert not is_ice_restart(merged, before)


def test_new_credentials_are_a_restart_and_void_the_candidates_there_were() -> None:
    before, restarted = captured("chromium_video_offer"), captured("chromium_ice_restart_offer")
    assert is_ice_restart(restarted, before)
    fragment = candidates_fragment(restarted)
    fresh = "1 1 udp 1 192.0.2.9 9 typ host generation 1"
    fragment = fragment.with_media(section.with_candidates([fresh]) for section in fragment.media)
    merged = with_candidates_added(before, fragment)
    assert merged.media[0].candidates == (fresh,)
    assert merged.media[1] == before.flattened().media[1]
    assert merged.media[0].ice_ufrag == restarted.media[0].ice_ufrag
    assert merged.media[0].codecs == before.media[0].codecs


def test_rejected_sections_and_first_credentials_are_no_restart() -> None:
    offer = captured("chromium_video_offer")
    bare = offer.with_media(section.with_attributes(drop=("ice-ufrag", "ice-pwd")) for section in offer.media)
    assert not is_ice_restart(offer, bare)
    assert not is_ice_restart(captured("chromium_hold_offer"), offer)
