"""What happens to the media of a session after it was accepted: each action applied, and each found again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.interworking.jingle_difference import difference, fragment_to_jingle
from isthmus.interworking.jingle_sdp import (
    content_names,
    jingle_to_answer,
    jingle_to_fragment,
    jingle_to_sdp,
    one_content_each,
    rejection_of,
    sdp_to_jingle,
)
from isthmus.sdp.offer_answer import held, is_hold, rejecting
from isthmus.sdp.session_description import Attribute, MediaDescription, SdpError, SessionDescription
from isthmus.sdp.trickle import candidates_fragment, is_ice_restart, with_candidates_added
from isthmus.xmpp.jingle import Jingle
from isthmus.xmpp.jingle_dtls import Fingerprint
from tests.interworking.jingle_samples import (
    captured_jingle,
    captured_sdp,
    content,
    initiate,
    over_the_wire,
    parse,
)
from tests.interworking.jingle_strategies import credentials, descriptions, sections
from tests.sdp.description_strategies import directions

BROWSER = captured_sdp("chromium_video_offer")
CANDIDATE = "7 1 udp 2113937151 192.0.2.7 40000 typ host"


def heard(sdp: SessionDescription, *, is_from_initiator: bool = True) -> SessionDescription:
    """What the peer knows after a session-initiate."""
    jingle = sdp_to_jingle(sdp, action="session-initiate", is_from_initiator=is_from_initiator, creators={})
    return jingle_to_sdp(over_the_wire(jingle), is_from_initiator=is_from_initiator)


def changes(old: SessionDescription, new: SessionDescription, *, is_from_initiator: bool = True) -> list[Jingle]:
    creators = dict.fromkeys(content_names(old), "initiator")
    return [over_the_wire(j) for j in difference(old, new, is_from_initiator=is_from_initiator, creators=creators)]


def told(jingles: list[Jingle]) -> list[tuple[str, list[str]]]:
    return [(jingle["action"], [said["name"] for said in jingle["contents"]]) for jingle in jingles]


def applied(base: SessionDescription, jingles: list[Jingle], *, is_from_initiator: bool = True) -> SessionDescription:
    for jingle in jingles:
        base = jingle_to_sdp(jingle, is_from_initiator=is_from_initiator, base=base)
    return base


def essence(sdp: SessionDescription) -> list[object]:
    """What must be the same at both ends, whatever the candidates are called."""
    found: list[object] = []
    for section in sdp.media:
        if section.is_rejected:
            found.append(None)
            continue
        keys = (section.ice_ufrag, section.ice_pwd, section.fingerprints, section.setup)
        addresses = sorted(tuple(value.split()[1:8]) for value in section.candidates)
        found.append((section.media, section.mid, section.direction, keys, addresses))
    return found


# --- there and back ---


@st.composite
def changed(draw: st.DrawFn, old: SessionDescription) -> SessionDescription:
    """Another description of the same session: held, restarted, trickled, shortened, lengthened."""
    media = []
    for section in old.media:
        kind = draw(st.sampled_from(["same", "direction", "restart", "candidates", "rejected"]))
        if kind == "direction":
            section = section.with_direction(draw(directions))  # noqa: PLW2901 - step by step
        elif kind == "restart":
            # "R" is in no other credentials: without new ones it would be no restart.
            new = {"ice-ufrag": "R" + draw(credentials), "ice-pwd": "R" + draw(credentials)}
            section = section.with_attributes(new).with_candidates([CANDIDATE])  # noqa: PLW2901 - step by step
        elif kind == "candidates":
            section = section.with_candidates((*section.candidates, CANDIDATE))  # noqa: PLW2901 - step by step
        elif kind == "rejected":
            section = rejecting(section)  # noqa: PLW2901 - step by step
        media.append(section)
    if draw(st.booleans()):
        media.append(draw(sections("new-one")))
    return old.with_media(media)


@given(st.data(), descriptions(), st.booleans())
def test_the_peer_ends_up_with_what_was_meant(data: st.DataObject, old: SessionDescription, is_initiator: bool) -> None:
    new = data.draw(changed(old))
    jingles = changes(old, new, is_from_initiator=is_initiator)
    after = applied(heard(old, is_from_initiator=is_initiator), jingles, is_from_initiator=is_initiator)
    expected = new
    if len(new.media) > len(old.media) and any(section.is_rejected for section in new.media):
        # A slot that came free is used again, so that the lists differ in order.
        assert sorted(map(str, filter(None, essence(after)))) == sorted(map(str, filter(None, essence(expected))))
    else:
        assert essence(after) == essence(expected)
    assert changes(new, new, is_from_initiator=is_initiator) == []
    assert all(len(jingle["contents"]) == 1 for jingle in jingles)


# --- each action ---


def test_a_hold_is_a_content_modify() -> None:
    jingles = changes(BROWSER, held(BROWSER))
    assert told(jingles) == [("content-modify", ["0"]), ("content-modify", ["1"])]
    assert [jingle["contents"][0]["senders"] for jingle in jingles] == ["initiator", "initiator"]
    after = applied(heard(BROWSER), jingles)
    assert is_hold(after)
    assert after.origin.version == 1 + len(jingles)
    back = changes(held(BROWSER), BROWSER)
    assert not is_hold(applied(after, back))
    jingles = changes(BROWSER, held(BROWSER), is_from_initiator=False)
    assert [jingle["contents"][0]["senders"] for jingle in jingles] == ["responder", "responder"]


def test_video_that_comes_later_is_a_content_add_by_who_adds_it() -> None:
    audio = BROWSER.with_media(BROWSER.media[:1]).with_attributes({"group": "BUNDLE 0"})
    (jingle,) = changes(audio, BROWSER, is_from_initiator=False)
    assert told([jingle]) == [("content-add", ["1"])]
    assert jingle["contents"][0]["creator"] == "responder"
    assert [group["contents"] for group in jingle["groups"]] == [["0", "1"]]
    after = applied(heard(audio, is_from_initiator=False), [jingle], is_from_initiator=False)
    assert after.bundles == (("0", "1"),)
    assert [section.media for section in after.media] == ["audio", "video"]


def test_a_client_that_adds_without_a_group_bundles_by_its_credentials() -> None:
    base = jingle_to_sdp(
        initiate(
            content(),
            more="<group xmlns='urn:xmpp:jingle:apps:grouping:0' semantics='BUNDLE'><content name='audio'/></group>",
        ),
        is_from_initiator=True,
    )
    added = initiate(content(name="video", media="video"))
    added["action"] = "content-add"
    assert jingle_to_sdp(added, is_from_initiator=True, base=base).bundles == (("audio", "video"),)
    other = initiate(content(name="video", media="video").replace("q1Zx", "other"))
    other["action"] = "content-add"
    assert jingle_to_sdp(other, is_from_initiator=True, base=base).bundles == (("audio",),)
    with pytest.raises(SdpError):
        jingle_to_sdp(added, is_from_initiator=True, base=jingle_to_sdp(added, is_from_initiator=True, base=base))


def test_video_that_goes_is_a_content_remove_and_its_place_is_used_again() -> None:
    audio_only = BROWSER.with_media((BROWSER.media[0], rejecting(BROWSER.media[1])))
    (jingle,) = changes(BROWSER, audio_only)
    assert told([jingle]) == [("content-remove", ["1"])]
    assert not list(jingle["contents"][0].xml)
    after = applied(heard(BROWSER), [jingle])
    assert [section.is_rejected for section in after.media] == [False, True]
    assert after.bundles == (("0",),)
    again = BROWSER.media[1].with_attributes({"mid": "2"})
    jingles = changes(audio_only, BROWSER.with_media((BROWSER.media[0], again)))
    assert told(jingles) == [("content-add", ["2"])]
    assert [section.mid for section in applied(after, jingles).media] == ["0", "2"]


def test_another_medium_in_the_place_of_a_live_one_is_removed_and_added() -> None:
    other = BROWSER.media[1].with_attributes({"mid": "9"})
    jingles = changes(BROWSER, BROWSER.with_media((BROWSER.media[0], other)))
    assert told(jingles) == [("content-remove", ["1"]), ("content-add", ["9"])]


def test_a_browser_that_stops_its_video_removes_it() -> None:
    jingles = changes(captured_sdp("chromium_hold_offer"), captured_sdp("chromium_video_removed_offer"))
    assert told(jingles)[0] == ("content-remove", ["1"])


def test_an_ice_restart_is_told_without_candidates_first() -> None:
    restarted = captured_sdp("chromium_ice_restart_offer")
    audio = restarted.media[0].with_candidates([f"{CANDIDATE} generation 1"])
    jingles = changes(captured_sdp("chromium_video_removed_offer"), restarted.with_media((audio, restarted.media[1])))
    assert told(jingles) == [("transport-info", ["0"]), ("transport-info", ["0"])]
    transports = [jingle["contents"][0]["ice_udp"] for jingle in jingles]
    assert [len(transport["candidates"]) for transport in transports] == [0, 1]
    assert [(t["ufrag"], t["pwd"]) for t in transports] == [(audio.ice_ufrag, audio.ice_pwd)] * 2
    assert transports[1]["candidates"][0]["generation"] == "1"
    base = heard(BROWSER)
    after = applied(base, jingles)
    assert is_ice_restart(after, base)
    assert [value.split()[4] for value in after.media[0].candidates] == ["192.0.2.7"]
    assert after.media[0].fingerprints == base.media[0].fingerprints


def test_another_certificate_replaces_the_transport() -> None:
    new = BROWSER.with_media(s.with_attributes({"fingerprint": "sha-256 AB:CD"}) for s in BROWSER.media)
    jingles = changes(BROWSER, new)
    assert told(jingles) == [("transport-replace", ["0"]), ("transport-replace", ["1"])]
    after = applied(heard(BROWSER), jingles)
    assert [section.fingerprints for section in after.media] == [("sha-256 AB:CD",)] * 2
    assert [section.codecs for section in after.media] == [section.codecs for section in BROWSER.media]


def test_other_parameters_of_known_codecs_are_a_description_info() -> None:
    lines = tuple(
        Attribute("fmtp", "111 minptime=20") if (a.value or "").startswith("111 minptime") else a
        for a in BROWSER.media[0].attributes
    )
    new = BROWSER.with_media((replace(BROWSER.media[0], attributes=lines), BROWSER.media[1]))
    jingles = changes(BROWSER, new)
    assert told(jingles) == [("description-info", ["0"])]
    after = applied(heard(BROWSER), jingles)
    assert after.media[0].codecs == new.media[0].codecs
    assert after.media[1] == heard(BROWSER).media[1]


def test_an_early_fingerprint_is_taken_from_a_transport_info() -> None:
    base = jingle_to_sdp(initiate(content()), is_from_initiator=True)
    assert base.media[0].protocol == "RTP/AVP"
    info = initiate(content(""))
    info["action"] = "transport-info"
    fingerprint = Fingerprint()
    fingerprint["hash"], fingerprint["setup"], fingerprint["value"] = "sha-256", "actpass", "AB:CD"
    info["contents"][0]["ice_udp"].append(fingerprint)
    after = jingle_to_sdp(info, is_from_initiator=True, base=base)
    assert after.media[0].protocol == "UDP/TLS/RTP/SAVPF"
    assert (after.media[0].fingerprints, after.media[0].setup) == (("sha-256 AB:CD",), "actpass")


def test_actions_about_unknown_contents_change_nothing() -> None:
    base = heard(BROWSER)
    for action in ("content-modify", "content-remove", "transport-info", "transport-replace", "description-info"):
        jingle = initiate(content(name="unknown"))
        jingle["action"] = action
        assert jingle_to_sdp(jingle, is_from_initiator=True, base=base) == base


# --- candidates ---


def test_candidates_trickle_with_their_credentials_and_keep_their_numbers() -> None:
    first = captured_sdp("chromium_audio_offer_first")
    whole = captured_sdp("chromium_audio_offer")
    known, seen = first, {}
    for value in whole.media[0].candidates:
        fragment = candidates_fragment(whole.with_media((whole.media[0].with_candidates([value]),)))
        jingle = fragment_to_jingle(fragment, is_from_initiator=True, creators={}, known=known)
        known = with_candidates_added(known, fragment)
        if " tcp " in value:
            assert jingle is None
            continue
        assert jingle is not None
        (candidate,) = jingle["contents"][0]["ice_udp"]["candidates"]
        assert jingle["contents"][0]["ice_udp"]["ufrag"] == first.media[0].ice_ufrag
        assert int(candidate["foundation"]) <= 255
        seen[value.split()[0]] = candidate["foundation"]
    assert len(set(seen.values())) == len(seen) == 4


def test_what_was_told_is_not_told_again() -> None:
    fragment = candidates_fragment(BROWSER)
    assert fragment_to_jingle(fragment, is_from_initiator=True, creators={}, known=BROWSER) is None
    jingle = fragment_to_jingle(fragment, is_from_initiator=True, creators={"1": "responder"})
    assert jingle is not None
    assert [said["creator"] for said in jingle["contents"]] == ["initiator", "responder"]
    ids = [candidate["id"] for said in jingle["contents"] for candidate in said["ice_udp"]["candidates"]]
    assert len(set(ids)) == len(ids) == 8


def test_a_transport_info_becomes_a_fragment_in_the_order_of_the_session() -> None:
    base = heard(BROWSER)
    common = "component='1' generation='0' priority='1' foundation='1' protocol='udp' type='host' ip='192.0.2.1'"
    jingle = initiate(
        content(name="1", transport=f"<candidate {common} id='a' port='1'/>"),
        content(name="0", transport=f"<candidate {common} id='b' port='2'/>"),
    )
    jingle["action"] = "transport-info"
    fragment = jingle_to_fragment(jingle, base=base)
    assert [(section.media, section.mid, section.ice_ufrag) for section in fragment.media] == [
        ("audio", "0", "q1Zx"),
        ("video", "1", "q1Zx"),
    ]
    assert fragment.media[0].candidates == ("1 1 udp 1 192.0.2.1 2 typ host",)


@given(st.lists(st.text("abc019", min_size=1, max_size=8), max_size=40))
def test_foundations_are_numbered_one_to_one(foundations: list[str]) -> None:
    values = [f"{f} 1 udp 1 192.0.2.1 {9 + place} typ host" for place, f in enumerate(foundations)]
    section = MediaDescription("audio", 9, "RTP/AVP", ("0",), attributes=(Attribute("mid", "0"),)).with_candidates(
        values
    )
    jingle = fragment_to_jingle(SessionDescription(media=(section,)), is_from_initiator=True, creators={})
    numbers = [] if jingle is None else [c["foundation"] for c in jingle["contents"][0]["ice_udp"]["candidates"]]
    assert len(set(zip(foundations, numbers, strict=True))) == len(set(foundations)) == len(set(numbers))


# --- answers to later offers ---


def test_an_answer_keeps_what_was_not_in_question_in_the_offered_direction() -> None:
    theirs = captured_sdp("chromium_video_answer")
    answer = jingle_to_answer(None, offer=held(BROWSER), is_from_initiator=False, previous=theirs)
    assert [section.direction for section in answer.media] == ["recvonly", "recvonly"]
    assert answer.origin.version == theirs.origin.version + 1
    assert answer.media[0].ice_ufrag == theirs.media[0].ice_ufrag


def test_an_accepted_content_joins_and_a_rejected_one_stands_in_its_place() -> None:
    theirs = captured_sdp("chromium_video_answer")
    before = theirs.with_media(theirs.media[:1]).with_attributes({"group": "BUNDLE 0"})
    accept = sdp_to_jingle(theirs, action="content-accept", is_from_initiator=False, creators={}, names=["1"])
    accepted = jingle_to_answer(over_the_wire(accept), offer=BROWSER, is_from_initiator=False, previous=before)
    assert [section.is_rejected for section in accepted.media] == [False, False]
    assert accepted.bundles == (("0", "1"),)
    refused = jingle_to_answer(None, offer=BROWSER, is_from_initiator=False, previous=before)
    assert [section.is_rejected for section in refused.media] == [False, True]
    assert refused.bundles == (("0",),)


def test_a_content_that_is_accepted_as_another_medium_is_refused() -> None:
    with pytest.raises(SdpError):
        jingle_to_answer(initiate(content(name="1")), offer=BROWSER, is_from_initiator=False)


def test_a_rejection_says_what_was_added() -> None:
    added = initiate(content(name="v", media="video", senders="initiator"), "<content name='f'/>")
    (video, other) = over_the_wire(rejection_of(added))["contents"]
    assert (video["name"], video["creator"], video["senders"]) == ("v", "initiator", "initiator")
    assert video["rtp"]["media"] == "video"
    assert video["rtp"]["payload_types"] == []
    assert (other["name"], list(other.xml)) == ("f", [])


def test_actions_are_split_into_one_for_each_content() -> None:
    whole = sdp_to_jingle(BROWSER, action="content-add", is_from_initiator=True, creators={})
    whole["sid"] = "s-77"
    singles = [over_the_wire(jingle) for jingle in one_content_each(whole)]
    assert told(singles) == [("content-add", ["0"]), ("content-add", ["1"])]
    assert [single["sid"] for single in singles] == ["s-77", "s-77"]
    assert [[group["contents"] for group in single["groups"]] for single in singles] == [[["0", "1"]]] * 2
    ended = captured_jingle("dino_audio_session_terminate")
    assert one_content_each(ended) == [ended]


def test_session_infos_are_no_change_of_media_and_changes_need_a_session() -> None:
    info = parse("<jingle xmlns='urn:xmpp:jingle:1' action='session-info' sid='s'/>")
    with pytest.raises(SdpError):
        jingle_to_sdp(info, is_from_initiator=True, base=BROWSER)
    added = initiate(content())
    added["action"] = "content-add"
    with pytest.raises(SdpError):
        jingle_to_sdp(added, is_from_initiator=True)
