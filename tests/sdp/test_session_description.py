"""Session descriptions: lenient in, strict out, bounded, and never an error but SdpError."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.sdp.session_description import (
    MAXIMUM_LINES_PER_SECTION,
    MAXIMUM_MEDIA,
    MAXIMUM_OCTETS,
    Attribute,
    Codec,
    MediaDescription,
    SdpError,
    SessionDescription,
    read_number,
)
from tests.sdp.description_strategies import descriptions

CAPTURES = sorted((Path(__file__).parents[1] / "messages/sdp").glob("*.sdp"))
HEAD = "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\n"
PHONE = (
    HEAD + "c=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 18 96 101\r\n"
    "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"
    "a=rtcp-fb:* trr-int 5000\r\na=rtcp-fb:96 transport-cc\r\na=ptime:20\r\n"
)


@pytest.fixture(params=CAPTURES, ids=lambda path: path.stem)
def capture(request: pytest.FixtureRequest) -> bytes:
    path: Path = request.param
    return path.read_bytes()


# --- round trips ---


@given(descriptions)
def test_what_is_written_is_read_as_the_same(sdp: SessionDescription) -> None:
    assert SessionDescription.parse(sdp.to_text()) == sdp
    assert SessionDescription.parse(sdp.to_bytes()) == sdp


def test_a_capture_comes_out_as_it_went_in(capture: bytes) -> None:
    written = SessionDescription.parse(capture).to_bytes()
    assert sorted(written.split(b"\r\n")) == sorted(line.rstrip() for line in capture.split(b"\r\n"))
    assert SessionDescription.parse(written) == SessionDescription.parse(capture)


@given(descriptions)
def test_lines_may_end_in_any_of_the_usual_ways(sdp: SessionDescription) -> None:
    for end in ("\n", "\r"):
        assert SessionDescription.parse(sdp.to_text().replace("\r\n", end)) == sdp


# --- hostile input ---

ODD_LINES = """\
v=0|o=- 1 1 IN IP4 192.0.2.1|s=-|t=0 0|c=IN IP4 192.0.2.1|m=audio 9 RTP/AVP 0|m=audio 9 RTP/AVP 0 99|a=sendrecv
a=rtpmap:0 PCMU/²|a=rtpmap:٣ x/1|a=rtpmap:99 x/1/y|m=audio ² RTP/AVP 0|m=audio 9/0 RTP/AVP 0|o=- - ² a b c|o=|m=|=
a=fmtp:|a=:|b=|a=group:|a=group:BUNDLE|a=candidate:|a=rtcp-fb: |a=rtcp-fb:99|a=ssrc:|a=extmap:|a=mid|c=|c=IN""".replace(
    "\n", "|"
)
LINES = st.lists(st.sampled_from(ODD_LINES.split("|")) | st.text(max_size=20), max_size=12).map("\r\n".join)


def _use(sdp: SessionDescription) -> None:
    assert SessionDescription.parse(sdp.to_text()) == sdp
    sdp.flattened()
    _ = sdp.bundles, sdp.names
    for section in sdp.media:
        _ = section.codecs, section.candidates, section.mid, section.setup, section.direction, section.is_rejected
        sdp.direction(section)
        sdp.fingerprints(section)
        sdp.address(section)


@given(LINES | st.text(max_size=200) | st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(data: str | bytes) -> None:
    try:
        sdp = SessionDescription.parse(data)
    except SdpError:
        return
    _use(sdp)


@given(st.data())
def test_a_damaged_capture_is_read_or_refused(data: st.DataObject) -> None:
    octets = bytearray(data.draw(st.sampled_from(CAPTURES)).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(octets) - 1), min_size=1, max_size=8)):
        octets[place] = data.draw(st.integers(0, 255))
    try:
        sdp = SessionDescription.parse(bytes(octets))
    except SdpError:
        return
    _use(sdp)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "v=1\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n",
        "v=0\r\ns=-\r\n",
        "v=0\r\no=- 1 1 IN\r\ns=-\r\n",
        HEAD + "m=audio\r\n",
        HEAD + "m=audio 70000 RTP/AVP 0\r\n",
        HEAD + "m=audio -1 RTP/AVP 0\r\n",
        HEAD + "a=no name:x\r\n",
        HEAD + "no line\r\n",
    ],
)
def test_what_must_be_understood_and_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(SdpError):
        SessionDescription.parse(text)


def test_size_number_of_sections_and_of_lines_are_bounded() -> None:
    section = "m=audio 9 RTP/AVP 0\r\n"
    assert len(SessionDescription.parse(HEAD + section * MAXIMUM_MEDIA).media) == MAXIMUM_MEDIA
    with pytest.raises(SdpError):
        SessionDescription.parse(HEAD + section * (MAXIMUM_MEDIA + 1))
    with pytest.raises(SdpError):
        SessionDescription.parse(HEAD + section + "a=x\r\n" * MAXIMUM_LINES_PER_SECTION)
    with pytest.raises(SdpError) as caught:
        SessionDescription.parse(b"v=0\r\n" + b"a" * MAXIMUM_OCTETS)
    assert caught.value.status == 413


def test_a_line_break_in_a_value_begins_no_line_of_its_own() -> None:
    section = MediaDescription("audio", 9, "RTP/AVP", ("0",), attributes=(Attribute("x", "1\r\na=crypto:1 evil"),))
    sdp = SessionDescription(name="a\r\nb=x", attributes=(Attribute("y", "\n\x00"),), media=(section,))
    read = SessionDescription.parse(sdp.to_text())
    assert read.bandwidths == ()
    assert not read.media[0].has_attribute("crypto")


# --- what a description says ---


def test_codecs_have_their_parameters_and_feedback_and_static_ones_their_names() -> None:
    section = SessionDescription.parse(PHONE).media[0]
    assert section.codecs == (
        Codec(0, "PCMU", 8000, feedback=("trr-int 5000",)),
        Codec(18, "G729", 8000, feedback=("trr-int 5000",)),
        Codec(96, "opus", 48000, 2, "useinbandfec=1", ("trr-int 5000", "transport-cc")),
        Codec(101, "telephone-event", 8000, 1, "0-16", ("trr-int 5000",)),
    )


def test_what_the_session_says_holds_for_sections_that_say_nothing() -> None:
    sdp = SessionDescription.parse(
        HEAD + "c=IN IP4 192.0.2.1\r\na=fingerprint:sha-256 AA\r\na=setup:actpass\r\na=recvonly\r\na=ice-ufrag:u\r\n"
        "a=ice-pwd:p\r\na=extmap-allow-mixed\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
        "m=video 9 UDP/TLS/RTP/SAVPF 31\r\nc=IN IP6 2001:db8::1\r\na=sendonly\r\na=fingerprint:sha-256 BB\r\n"
    )
    audio, video = sdp.media
    assert (sdp.direction(audio), sdp.direction(video)) == ("recvonly", "sendonly")
    assert (sdp.fingerprints(audio), sdp.fingerprints(video)) == (("sha-256 AA",), ("sha-256 BB",))
    assert (sdp.address(audio), sdp.address(video)) == ("192.0.2.1", "2001:db8::1")
    assert (sdp.effective(audio, "ice-ufrag"), sdp.effective(audio, "none")) == ("u", None)
    flat = sdp.flattened()
    assert [(s.direction, s.fingerprints, s.setup, s.ice_ufrag, s.ice_pwd) for s in flat.media] == [
        ("recvonly", ("sha-256 AA",), "actpass", "u", "p"),
        ("sendonly", ("sha-256 BB",), "actpass", "u", "p"),
    ]
    assert all(section.has_attribute("extmap-allow-mixed") for section in flat.media)
    assert flat.flattened() == flat


def test_port_zero_rejects_but_a_bundled_section_lives() -> None:
    sdp = SessionDescription.parse(
        HEAD + "m=audio 0 RTP/AVP 0\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=bundle-only\r\na=mid:1\r\n"
    )
    assert [section.is_rejected for section in sdp.media] == [True, False]


def test_every_section_has_a_name_of_its_own() -> None:
    text = HEAD + "m=audio 9 RTP/AVP 0\r\nm=audio 9 RTP/AVP 0\r\nm=video 9 RTP/AVP 31\r\na=mid:audio\r\n"
    assert SessionDescription.parse(text).names == ("audio-0", "audio-1", "audio")
    assert SessionDescription.parse(PHONE).names == ("audio",)


@given(descriptions)
def test_names_are_unique_and_keep_the_mids(sdp: SessionDescription) -> None:
    assert len(set(sdp.names)) == len(sdp.media)
    mids = [section.mid for section in sdp.media]
    assert all(name == mid for name, mid in zip(sdp.names, mids, strict=True) if mid and mids.count(mid) == 1)


def test_copies_are_changed_where_the_attribute_stood() -> None:
    section = SessionDescription.parse(PHONE).media[0]
    changed = section.with_attributes({"ptime": "30", "mid": "0"}, drop=("fmtp", "rtcp-fb"))
    assert [str(attribute) for attribute in changed.attributes] == [
        "rtpmap:96 opus/48000/2",
        "rtpmap:101 telephone-event/8000",
        "ptime:30",
        "mid:0",
    ]
    held = section.with_direction("sendonly").with_direction("inactive")
    assert held.direction == "inactive"
    assert not held.has_attribute("sendonly")
    assert section.with_candidates(["1 1 udp 1 192.0.2.1 9 typ host"] * 2).with_candidates(["x"]).candidates == ("x",)


@given(st.text(max_size=6), st.integers(0, 10**6))
def test_numbers_are_ascii_digits_within_bounds(text: str, maximum: int) -> None:
    number = read_number(text, maximum)
    assert number is None or (number <= maximum and text.isascii() and int(text) == number)
