"""The table of relay commands: every pair of forms has a row, and each row says what was measured to be right."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from isthmus.interworking.relay_commands import RelayCommand, Step, deletion, negotiation, query, trickled
from isthmus.model import MediaForm

PAIRS = list(itertools.product(MediaForm, MediaForm))


def command(step: Step, source: MediaForm, target: MediaForm) -> RelayCommand:
    return negotiation(step, call_id="c", offerer="A", answerer="B", sdp="v=0\r\n", source=source, target=target)


@pytest.mark.parametrize("step", get_args(Step))
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_pair_has_commands_that_hide_addresses_and_keep_ports(
    step: Step, source: MediaForm, target: MediaForm
) -> None:
    told = command(step, source, target)
    assert told["command"] == step
    assert (told["call-id"], told["from-tag"], told["to-tag"]) == ("c", "A", "B")
    assert {"origin", "session-connection", "SDP version"} <= set(told["replace"])
    assert "port latching" in told["flags"]
    assert told["ICE"] == ("force" if target is MediaForm.WEBRTC else "remove")


@pytest.mark.parametrize(
    ("target", "profile"),
    [
        (MediaForm.WEBRTC, "UDP/TLS/RTP/SAVPF"),
        (MediaForm.DTLS, "UDP/TLS/RTP/SAVP"),
        (MediaForm.SDES, "RTP/SAVP"),
        (MediaForm.RTP, "RTP/AVP"),
    ],
)
def test_the_other_sides_form_decides_the_profile(target: MediaForm, profile: str) -> None:
    for source in MediaForm:
        assert command("offer", source, target)["transport protocol"] == profile
        assert command("answer", source, target)["transport protocol"] == profile


def test_keys_in_the_description_go_to_ends_that_asked_for_them_only() -> None:
    for source, target in PAIRS:
        told = command("offer", source, target)
        assert (told["SDES"] == ["off"]) == (target is not MediaForm.SDES)
    offered = command("offer", MediaForm.RTP, MediaForm.SDES)["SDES"]
    assert "no-NULL_HMAC_SHA1_80" in offered
    assert not any("AES_CM_128" in flag for flag in offered)


def test_answers_with_dtls_are_active_and_offers_leave_the_choice() -> None:
    for target in (MediaForm.WEBRTC, MediaForm.DTLS):
        assert command("answer", MediaForm.RTP, target)["DTLS"] == "active"
        assert "DTLS" not in command("offer", MediaForm.RTP, target)
    assert command("offer", MediaForm.WEBRTC, MediaForm.RTP)["DTLS"] == "off"


def test_phones_with_srtp_are_offered_keys_of_both_kinds_and_answered_in_theirs() -> None:
    assert "DTLS" not in command("offer", MediaForm.WEBRTC, MediaForm.SDES)
    assert command("answer", MediaForm.WEBRTC, MediaForm.SDES)["DTLS"] == "off"


def test_codecs_are_added_and_never_hidden_and_only_in_offers() -> None:
    for source, target in PAIRS:
        codec = command("offer", source, target).get("codec", {})
        assert not {"mask", "accept", "except"} & codec.keys()
        is_between_browsers = source is target is MediaForm.WEBRTC
        assert ("telephone-event" in codec.get("transcode", ())) != is_between_browsers
        assert "codec" not in command("answer", source, target)
    assert command("offer", MediaForm.RTP, MediaForm.WEBRTC)["codec"]["transcode"][0] == "opus"
    assert {"PCMU", "PCMA", "G722"} <= set(command("offer", MediaForm.WEBRTC, MediaForm.RTP)["codec"]["transcode"])


def test_what_repairs_other_streams_is_stripped_for_phones() -> None:
    assert {"red", "rtx"} <= set(command("offer", MediaForm.WEBRTC, MediaForm.RTP)["codec"]["strip"])
    assert "strip" not in command("offer", MediaForm.RTP, MediaForm.SDES)["codec"]


def test_plain_rtp_is_taken_from_its_learnt_address_alone() -> None:
    for source, target in PAIRS:
        is_strict = "strict source" in command("offer", source, target)["flags"]
        assert is_strict == (source in {MediaForm.RTP, MediaForm.SDES})


def test_the_other_commands() -> None:
    assert trickled(call_id="c", tag="A", fragment="a=x\r\n") == {
        "command": "offer",
        "call-id": "c",
        "from-tag": "A",
        "sdp": "a=x\r\n",
        "flags": ["fragment"],
    }
    assert query("c") == {"command": "query", "call-id": "c"}
    assert deletion("c") == {"command": "delete", "call-id": "c", "delete delay": 0}
    assert deletion("c", "B")["from-tag"] == "B"
