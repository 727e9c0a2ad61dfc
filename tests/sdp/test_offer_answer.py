"""Offer and answer: directions, holds, rejected sections, versions, common codecs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.model import MediaForm
from isthmus.sdp.offer_answer import (
    accepting_silently,
    answer_rejecting,
    common_codecs,
    form_of,
    has_common_codec,
    held,
    is_hold,
    is_same_media,
    mirrored,
    narrowed,
    next_version,
    rejecting,
    template_offer,
    with_codecs_in_use,
    with_media_restored,
    without_media,
)
from isthmus.sdp.session_description import Attribute, MediaDescription, SdpError, SessionDescription
from tests.sdp.description_strategies import descriptions, directions

CAPTURES = Path(__file__).parents[1] / "messages/sdp"


def captured(name: str) -> SessionDescription:
    return SessionDescription.parse((CAPTURES / f"{name}.sdp").read_bytes())


def audio(
    *attributes: Attribute, connection: str = "IN IP4 192.0.2.1", protocol: str = "RTP/AVP"
) -> SessionDescription:
    section = MediaDescription("audio", 4000, protocol, ("0",), connection=connection, attributes=attributes)
    return SessionDescription(media=(section,))


# --- directions ---


@given(directions, directions)
def test_mirroring_twice_changes_nothing_and_narrowing_takes_away_only(one: str, other: str) -> None:
    assert mirrored(mirrored(one)) == one
    both = narrowed(one, other)
    assert both == narrowed(other, one) == narrowed(both, one) == narrowed(both, other)
    assert mirrored(both) == narrowed(mirrored(one), mirrored(other))


@pytest.mark.parametrize(("direction", "is_one"), [("sendonly", True), ("inactive", True), ("recvonly", False)])
def test_a_hold_is_a_description_that_receives_nothing(direction: str, is_one: bool) -> None:
    assert is_hold(audio(Attribute(direction))) is is_one
    assert is_hold(replace(audio(), attributes=(Attribute(direction),))) is is_one


def test_the_zero_address_is_a_hold_of_old_phones_and_a_placeholder_with_ice() -> None:
    assert is_hold(audio(connection="IN IP4 0.0.0.0"))
    assert not is_hold(audio(Attribute("ice-ufrag", "abcd"), connection="IN IP4 0.0.0.0"))
    assert not is_hold(captured("chromium_audio_offer_first"))
    assert is_hold(captured("chromium_hold_offer"))
    assert not is_hold(SessionDescription())


def test_one_section_that_listens_is_no_hold() -> None:
    listening = audio().media[0]
    watching = replace(listening, media="video").with_direction("sendonly")
    assert not is_hold(SessionDescription(media=(listening, watching)))
    assert is_hold(SessionDescription(media=(rejecting(listening), watching)))


def test_holding_narrows_every_live_section() -> None:
    offer = SessionDescription(
        media=(audio().media[0], audio(Attribute("recvonly")).media[0], rejecting(audio().media[0]))
    )
    sections = held(offer).media
    assert [section.own_direction for section in sections] == ["sendonly", "inactive", ""]
    assert is_hold(held(offer))
    assert is_hold(held(offer, "inactive"))


# --- form ---


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("chromium_video_offer", MediaForm.WEBRTC),
        ("chromium_video_removed_offer", MediaForm.WEBRTC),
        ("baresip_ice_dtls_offer", MediaForm.DTLS),
        ("baresip_dtls_offer", MediaForm.DTLS),
        ("baresip_sdes_offer", MediaForm.SDES),
        ("linphone_video_srtp_offer", MediaForm.SDES),
        ("baresip_rtp_offer", MediaForm.RTP),
        ("linphone_audio_offer", MediaForm.RTP),
    ],
)
def test_the_form_of_real_offers_is_known(name: str, form: MediaForm) -> None:
    assert form_of(captured(name)) is form


def test_the_profile_of_old_browsers_is_told_by_its_fingerprint_and_opportunistic_keys_are_plain_rtp() -> None:
    fingerprint, key = Attribute("fingerprint", "sha-256 AA"), Attribute("crypto", "1 AES_CM_128_HMAC_SHA1_80 inline:x")
    browser = (fingerprint, Attribute("ice-ufrag", "u"), Attribute("rtcp-mux"))
    assert form_of(audio(*browser, protocol="RTP/SAVPF")) is MediaForm.WEBRTC
    assert form_of(audio(key, protocol="RTP/AVP")) is MediaForm.RTP
    assert form_of(SessionDescription()) is MediaForm.RTP


@pytest.mark.parametrize("form", list(MediaForm))
def test_a_template_has_the_form_that_was_asked_for_or_lacks_only_the_keys(form: MediaForm) -> None:
    offer = template_offer(form, video=True)
    assert SessionDescription.parse(offer.to_text()) == offer
    assert [section.media for section in offer.media] == ["audio", "video"]
    assert {codec.name for codec in offer.media[0].codecs} >= {"opus", "PCMU", "PCMA", "G722", "telephone-event"}
    assert form_of(offer) in {form, MediaForm.DTLS if form is MediaForm.WEBRTC else form}
    assert not is_hold(offer)


# --- codecs ---


def test_an_end_that_is_spoken_for_goes_on_with_the_codec_it_sends() -> None:
    audio = "m=audio 9 UDP/TLS/RTP/SAVPF {}\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\n"
    session = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    said = SessionDescription.parse(
        session + audio.format("0 111 8 101") + "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    )
    told = SessionDescription.parse(session + audio.format("111 8"))
    [section] = with_codecs_in_use(said, told).media
    assert section.formats == ("111", "101")
    assert section.values_of("rtpmap") == ["111 opus/48000/2", "101 telephone-event/8000"]
    assert section.values_of("fmtp") == ["111 useinbandfec=1"]
    nothing_in_common = told.with_media([replace(told.media[0], formats=("9",))])
    assert with_codecs_in_use(said, nothing_in_common) == said
    assert with_codecs_in_use(said, told.with_media([])) == said


def test_common_codecs_are_those_that_carry_something() -> None:
    browser, phone = captured("chromium_video_offer"), captured("baresip_rtp_offer")
    names = [codec.name for codec in common_codecs(browser.media[0], phone.media[0])]
    assert names == ["opus", "G722", "PCMU", "PCMA"]
    events = audio(Attribute("rtpmap", "0 telephone-event/8000")).media[0]
    assert not has_common_codec(phone.media[0], events)


def test_h264_is_common_when_profile_and_packetization_agree() -> None:
    browser, phone = captured("chromium_video_offer").media[1], captured("baresip_video_offer").media[1]
    assert [codec.payload_type for codec in common_codecs(phone, browser)] == [96, 97, 98]
    high = MediaDescription(
        "video",
        9,
        "RTP/AVP",
        ("97",),
        attributes=(Attribute("rtpmap", "97 H264/90000"), Attribute("fmtp", "97 profile-level-id=640028")),
    )
    assert not has_common_codec(high, browser)


# --- rejecting ---


def test_a_rejected_section_keeps_its_line_and_its_mid() -> None:
    offered = captured("chromium_video_offer").media[1]
    answer = rejecting(offered)
    assert answer.is_rejected
    assert (answer.media, answer.protocol, answer.formats, answer.mid) == (
        "video",
        offered.protocol,
        offered.formats,
        "1",
    )
    assert not answer.fingerprints


def test_a_rejected_section_has_an_address_as_its_session_may_have_none() -> None:
    assert rejecting(replace(audio().media[0], connection="")).connection == "IN IP4 0.0.0.0"
    assert rejecting(replace(audio().media[0], connection="IN IP6 ::1")).connection == "IN IP6 ::1"


def test_rejecting_a_section_takes_it_out_of_the_bundle() -> None:
    offer, answer = captured("chromium_video_offer"), captured("chromium_video_answer")
    refused = answer_rejecting(offer, [1], answer)
    assert [section.is_rejected for section in refused.media] == [False, True]
    assert refused.bundles == (("0",),)
    with pytest.raises(SdpError):
        answer_rejecting(offer, [1], replace(answer, media=answer.media[:1]))


def test_video_is_kept_from_who_must_not_see_it_and_stands_rejected_in_the_answer() -> None:
    offer = captured("chromium_video_offer")
    cut, removed = without_media(offer, "video")
    assert [section.media for section in cut.media] == ["audio"]
    assert cut.bundles == (("0",),)
    answer = with_media_restored(captured("baresip_rtp_offer"), removed)
    assert [(section.media, section.is_rejected, section.mid) for section in answer.media] == [
        ("audio", False, ""),
        ("video", True, "1"),
    ]
    assert without_media(cut, "video") == (cut, ())
    with pytest.raises(SdpError):
        without_media(cut, "audio")


@given(descriptions, st.sampled_from(["audio", "video"]))
def test_what_was_taken_out_comes_back_in_its_place(offer: SessionDescription, kind: str) -> None:
    try:
        cut, removed = without_media(offer, kind)
    except SdpError:
        return
    answer = with_media_restored(cut, removed)
    assert [section.media for section in answer.media] == [section.media for section in offer.media]
    assert all(section.is_rejected for section in answer.media if section.media == kind)


def test_video_that_is_bundled_can_be_refused_without_a_rejection() -> None:
    offer, answer = captured("chromium_video_offer"), captured("chromium_video_answer")
    refused = answer_rejecting(offer, [1], answer)
    silent = accepting_silently(refused.with_attributes(drop=("group",)), offer)
    assert silent.bundles == (("0", "1"),)
    audio_section, video = silent.media
    assert (audio_section.direction, video.direction) == ("sendrecv", "inactive")
    assert (video.ice_ufrag, video.fingerprints) == (audio_section.ice_ufrag, audio_section.fingerprints)
    assert video.codecs == offer.media[1].codecs
    assert not video.candidates
    assert not video.has_attribute("ssrc")
    assert accepting_silently(answer, offer) == answer


def test_video_that_is_not_bundled_with_what_is_taken_stays_rejected() -> None:
    offer, answer = captured("chromium_video_offer"), captured("chromium_video_answer")
    unbundled = offer.with_attributes(drop=("group",))
    refused = answer_rejecting(offer, [1], answer)
    assert accepting_silently(refused, unbundled) == refused
    nothing = answer_rejecting(offer, [0, 1], answer)
    assert accepting_silently(nothing, offer) == nothing


# --- versions ---


@given(descriptions, descriptions)
def test_the_version_rises_exactly_when_the_content_differs(old: SessionDescription, new: SessionDescription) -> None:
    following = next_version(new, old)
    assert following.origin[:2] == old.origin[:2]
    assert following.origin.version - old.origin.version == (0 if is_same_media(new, old) else 1)
    assert next_version(following, following) == following
    assert is_same_media(following, new)


def test_a_refresh_is_known_by_its_media_whatever_the_origin() -> None:
    offer = captured("baresip_rtp_offer")
    assert is_same_media(replace(offer, origin=offer.origin._replace(version=9)), offer)
    assert not is_same_media(held(offer), offer)
