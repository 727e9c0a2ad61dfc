"""What is put right around the relay, on descriptions as it was seen to write them."""

from __future__ import annotations

import pytest

from isthmus.interworking.relay_descriptions import from_relay, to_relay
from isthmus.model import MediaForm
from isthmus.sdp.session_description import SessionDescription
from tests.support.media_descriptions import BROWSER_OFFER, audio

PHONE_FORMS = [form for form in MediaForm if form is not MediaForm.WEBRTC]
RELAY_ANSWER = SessionDescription.parse(
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 30338 UDP/TLS/RTP/SAVPF 0 126\r\na=mid:0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\na=rtcp-mux\r\n"
    "a=setup:active\r\na=ice-ufrag:oLwbp57w\r\na=ice-pwd:2LU9O8NjOK84TzKHljIgoUAqG6\r\na=ice-options:trickle\r\n"
    "a=candidate:gEIwGgojH4mHZdcr 1 UDP 2130706431 127.0.0.1 30338 typ host\r\na=end-of-candidates\r\n"
    "m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=end-of-candidates\r\n"
)


# --- before the relay ---


def test_a_placeholder_address_is_no_hold_once_candidates_are_announced_to_follow() -> None:
    jingle = audio(MediaForm.WEBRTC, 111)
    assert to_relay(jingle).media[0].value_of("ice-options") == "trickle"
    renomination = audio(MediaForm.WEBRTC, 111, extra=("a=ice-options:renomination",))
    assert to_relay(renomination).media[0].values_of("ice-options") == ["renomination trickle"]
    assert to_relay(BROWSER_OFFER) == BROWSER_OFFER


def test_what_the_session_says_of_trickling_is_repeated_where_the_relay_looks() -> None:
    firefox = audio(MediaForm.WEBRTC, 111).with_attributes({"ice-options": "trickle"})
    assert to_relay(firefox).media[0].value_of("ice-options") == "trickle"


def test_the_hold_of_old_phones_stays_a_hold() -> None:
    held = SessionDescription.parse(audio(MediaForm.RTP, 0).to_text().replace("IP4 127.0.0.1", "IP4 0.0.0.0"))
    assert to_relay(held) == held


def test_a_real_address_needs_no_announcement() -> None:
    full = SessionDescription.parse(audio(MediaForm.WEBRTC, 0).to_text().replace("IP4 0.0.0.0", "IP4 192.0.2.1"))
    assert to_relay(full) == full


def test_candidates_that_the_relay_cannot_use_are_left_out() -> None:
    usable = "3 1 udp 2122260223 192.0.2.9 50000 typ host generation 0"
    sdp = audio(
        MediaForm.WEBRTC,
        111,
        extra=(
            "a=candidate:1 1 udp 2122260223 6a9c-11.local 50000 typ host",
            "a=candidate:2 1 tcp 1518280447 192.0.2.9 9 typ host tcptype active",
            f"a=candidate:{usable}",
            "a=candidate:rubbish",
        ),
    )
    assert to_relay(sdp).media[0].candidates == (usable,)


# --- after the relay ---


@pytest.mark.parametrize("form", PHONE_FORMS)
def test_no_line_of_a_browser_reaches_a_phone(form: MediaForm) -> None:
    made = from_relay(BROWSER_OFFER, target=form)
    text = made.to_text()
    for name in ("extmap", "ssrc", "msid", "group", "mid", "bundle-only", "rtcp-rsize", "transport-cc", "goog-remb"):
        assert f"a={name}" not in text
        assert f" {name}" not in text
    assert made.media[1].values_of("rtcp-fb") == ["96 nack", "96 nack pli"]


def test_a_bundled_section_without_a_port_is_rejected_for_a_phone() -> None:
    audio_section, video = BROWSER_OFFER.media
    text = BROWSER_OFFER.to_text().replace("m=video 9", "m=video 0") + "a=bundle-only\r\n"
    made = from_relay(SessionDescription.parse(text), target=MediaForm.RTP)
    assert [section.is_rejected for section in made.media] == [False, True]
    assert (audio_section.media, video.media) == ("audio", "video")


def test_every_section_has_a_transport_of_its_own() -> None:
    """A bundle of the first alone would be joined by what Chromium adds later."""
    bundled = RELAY_ANSWER.with_attributes({"group": "BUNDLE 0"})
    made = from_relay(bundled, target=MediaForm.WEBRTC)
    assert made.bundles == ()
    assert made.media[1].attributes == (("mid", "1"),)


def test_no_ssrc_is_promised_to_a_browser_as_transcoding_makes_another_one() -> None:
    made = from_relay(BROWSER_OFFER, target=MediaForm.WEBRTC)
    assert BROWSER_OFFER.media[1].values_of("ssrc-group")
    for section, before in zip(made.media, BROWSER_OFFER.media, strict=True):
        assert before.values_of("ssrc")
        assert not section.values_of("ssrc")
        assert not section.values_of("ssrc-group")
        assert section.value_of("msid") == before.value_of("msid")
