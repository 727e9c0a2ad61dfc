"""Jingle and SDP: what both can say comes through unchanged, both ways; what one cannot say does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.interworking.jingle_sdp import (
    UnsupportedContentError,
    content_names,
    jingle_to_answer,
    jingle_to_sdp,
    sdp_to_jingle,
)
from isthmus.sdp.offer_answer import form_of, is_hold, rejecting
from isthmus.sdp.session_description import Attribute, MediaDescription, SdpError, SessionDescription
from isthmus.xmpp.jingle import Jingle
from tests.interworking.jingle_samples import (
    DTLS,
    ICE,
    captured_jingle,
    captured_sdp,
    content,
    initiate,
    over_the_wire,
)
from tests.interworking.jingle_strategies import descriptions


def with_numbered_foundations(sdp: SessionDescription) -> SessionDescription:
    numbers: dict[str, int] = {}
    sections = []
    for section in sdp.media:
        values = []
        for value in section.candidates:
            foundation, _, rest = value.partition(" ")
            values.append(f"{numbers.setdefault(foundation, len(numbers) + 1)} {rest}")
        sections.append(section.with_candidates(values))
    return sdp.with_media(sections)


def lines_of(section: MediaDescription) -> list[str]:
    return sorted(section.to_lines())


# --- round trips ---


@given(descriptions(), st.booleans())
def test_what_both_can_say_goes_to_jingle_and_back_unchanged(sdp: SessionDescription, is_from_initiator: bool) -> None:
    jingle = over_the_wire(
        sdp_to_jingle(sdp, action="session-initiate", is_from_initiator=is_from_initiator, creators={})
    )
    back = jingle_to_sdp(jingle, is_from_initiator=is_from_initiator)
    expected = with_numbered_foundations(sdp)
    assert back.attributes == expected.attributes
    assert [section.formats for section in back.media] == [section.formats for section in expected.media]
    assert [lines_of(section) for section in back.media] == [lines_of(section) for section in expected.media]


@given(descriptions(), st.booleans())
def test_jingle_goes_to_sdp_and_back_unchanged(sdp: SessionDescription, is_from_initiator: bool) -> None:
    first = sdp_to_jingle(sdp, action="session-initiate", is_from_initiator=is_from_initiator, creators={})
    again = sdp_to_jingle(
        SessionDescription.parse(jingle_to_sdp(first, is_from_initiator=is_from_initiator).to_text()),
        action="session-initiate",
        is_from_initiator=is_from_initiator,
        creators={},
    )
    assert list(shapes(again.xml)) == list(shapes(first.xml))


Shape = tuple[str, tuple[tuple[str, str], ...], str]


def shapes(element: Element) -> Iterator[Shape]:
    """Everything in an element but the ids of candidates, which are made anew."""
    is_candidate = element.tag.endswith("}candidate")
    attributes = tuple(sorted(item for item in element.attrib.items() if not (is_candidate and item[0] == "id")))
    yield element.tag, attributes, (element.text or "").strip()
    for inner in element:
        yield from shapes(inner)


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_a_captured_offer_comes_back_but_for_its_second_kind_of_keys(kind: str) -> None:
    jingle = captured_jingle(f"dino_{kind}_session_initiate")
    sdp = jingle_to_sdp(jingle, is_from_initiator=True)
    assert form_of(sdp) == "webrtc"
    again = sdp_to_jingle(sdp, action="session-initiate", is_from_initiator=True, creators={})

    def told(jingle: Jingle) -> list[Shape]:
        dropped = ("}encryption", "}crypto", "}jingle")
        # Dino says network 0, which is the same as saying nothing.
        return sorted(
            (tag, tuple(item for item in attributes if item != ("network", "0")), text)
            for tag, attributes, text in shapes(jingle.xml)
            if not tag.endswith(dropped)
        )

    assert told(again) == told(jingle)


# --- what browsers and phones say ---


def test_a_browser_s_offer_becomes_jingle_with_all_that_jingle_can_say() -> None:
    offer = captured_sdp("chromium_video_offer")
    jingle = over_the_wire(sdp_to_jingle(offer, action="session-initiate", is_from_initiator=True, creators={}))
    assert [group["contents"] for group in jingle["groups"]] == [["0", "1"]]
    back = jingle_to_sdp(jingle, is_from_initiator=True)
    for said, heard in zip(offer.flattened().media, back.media, strict=True):
        assert heard.codecs == said.codecs
        assert heard.formats == said.formats
        for name in ("extmap", "ssrc", "ssrc-group", "msid", "fingerprint", "ice-ufrag", "ice-pwd", "setup", "mid"):
            assert heard.values_of(name) == said.values_of(name), name
        assert heard.has_rtcp_mux
        assert heard.has_attribute("extmap-allow-mixed")
        udp = [value for value in said.candidates if " udp " in value]
        assert [value.split()[1:8] for value in heard.candidates] == [value.split()[1:8] for value in udp]


@pytest.mark.parametrize(("name", "is_from_initiator"), [("offer", True), ("answer", False)])
def test_what_a_web_client_makes_of_a_browser_s_words_is_read_as_the_browser_said_it(
    name: str, is_from_initiator: bool
) -> None:
    said = captured_sdp(f"chromium_video_{name}").flattened()
    if is_from_initiator:
        jingle = captured_jingle("stanza_video_session_initiate")
        heard = jingle_to_sdp(jingle, is_from_initiator=True)
    else:
        jingle = captured_jingle("stanza_video_session_accept")
        heard = jingle_to_sdp(jingle, is_from_initiator=False, base=captured_sdp("chromium_video_offer"))
    assert heard.bundles == said.bundles
    for theirs, ours in zip(said.media, heard.media, strict=True):
        assert (ours.codecs, ours.formats, ours.direction) == (theirs.codecs, theirs.formats, theirs.direction)
        assert ours.protocol == theirs.protocol
        for attribute in ("extmap", "fingerprint", "ice-ufrag", "ice-pwd", "setup", "mid", "rtcp-mux"):
            assert ours.values_of(attribute) == theirs.values_of(attribute)
        udp = [value.split()[:8] for value in theirs.candidates if " udp " in value]
        assert [value.split()[:8] for value in ours.candidates] == udp


def test_hidden_addresses_are_left_out() -> None:
    jingle = sdp_to_jingle(
        captured_sdp("chromium_mdns_offer"), action="session-initiate", is_from_initiator=True, creators={}
    )
    assert jingle["contents"][0]["ice_udp"]["candidates"] == []


def test_a_phone_s_session_level_keys_and_static_codecs_are_told() -> None:
    phone = captured_sdp("baresip_ice_dtls_offer")
    jingle = sdp_to_jingle(phone, action="session-initiate", is_from_initiator=True, creators={})
    (said,) = jingle["contents"]
    assert said["name"] == "audio"
    assert [codec["name"] for codec in said["rtp"]["payload_types"]] == ["opus", "PCMU", "PCMA", "telephone-event"]
    assert [codec["ptime"] for codec in said["rtp"]["payload_types"]] == ["20"] * 4
    transport = said["ice_udp"]
    assert transport["ufrag"] == "6NuMXzC"
    assert [(f["hash"], f["setup"]) for f in transport["fingerprints"]] == [("sha-256", "actpass")]
    assert [candidate["protocol"] for candidate in transport["candidates"]] == ["udp", "udp"]
    events = said["rtp"]["payload_types"][3]["parameters"]
    assert [(parameter["name"], parameter["value"]) for parameter in events] == [("events", "0-15")]


def test_g729_without_rtpmap_gets_its_name() -> None:
    jingle = sdp_to_jingle(
        captured_sdp("linphone_audio_offer"), action="session-initiate", is_from_initiator=True, creators={}
    )
    codec = next(codec for codec in jingle["contents"][0]["rtp"]["payload_types"] if codec["id"] == "18")
    assert (codec["name"], codec["clockrate"]) == ("G729", "8000")


def test_keys_of_sdes_are_told_where_there_is_no_fingerprint() -> None:
    phone = captured_sdp("linphone_video_srtp_offer")
    jingle = over_the_wire(sdp_to_jingle(phone, action="session-initiate", is_from_initiator=True, creators={}))
    back = jingle_to_sdp(jingle, is_from_initiator=True)
    assert form_of(back) == "sdes"
    assert [s.values_of("crypto") for s in back.media] == [s.values_of("crypto") for s in phone.media]


def test_the_line_that_keeps_rtpengine_from_taking_it_for_a_hold_is_in_every_section() -> None:
    sdp = jingle_to_sdp(initiate(content(), content(name="video", media="video")), is_from_initiator=True)
    assert [section.value_of("ice-options") for section in sdp.media] == ["trickle", "trickle"]
    assert not is_hold(sdp)


# --- senders ---


@pytest.mark.parametrize(
    ("senders", "by_initiator", "by_responder"),
    [
        ("both", "sendrecv", "sendrecv"),
        ("initiator", "sendonly", "recvonly"),
        ("responder", "recvonly", "sendonly"),
        ("none", "inactive", "inactive"),
    ],
)
def test_senders_is_absolute_and_the_direction_is_relative(senders: str, by_initiator: str, by_responder: str) -> None:
    jingle = initiate(content(senders=senders))
    for is_from_initiator, direction in ((True, by_initiator), (False, by_responder)):
        sdp = jingle_to_sdp(jingle, is_from_initiator=is_from_initiator)
        assert sdp.media[0].own_direction == direction
        again = sdp_to_jingle(sdp, action="session-initiate", is_from_initiator=is_from_initiator, creators={})
        assert again["contents"][0]["senders"] == senders


# --- names ---


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
def test_any_name_of_a_content_survives_as_a_mid(name: str) -> None:
    jingle = initiate(content())
    jingle["contents"][0]["name"] = name
    sdp = SessionDescription.parse(jingle_to_sdp(jingle, is_from_initiator=True).to_text())
    assert content_names(sdp) == (name,)
    assert " " not in sdp.media[0].mid


def test_two_contents_of_one_name_are_refused() -> None:
    with pytest.raises(SdpError):
        jingle_to_sdp(initiate(content(), content()), is_from_initiator=True)


def test_creators_stay_who_they_were() -> None:
    offer = captured_sdp("chromium_video_offer")
    jingle = sdp_to_jingle(offer, action="session-accept", is_from_initiator=False, creators={"1": "responder"})
    assert [said["creator"] for said in jingle["contents"]] == ["initiator", "responder"]
    added = sdp_to_jingle(offer, action="content-add", is_from_initiator=False, creators={}, names=["1"])
    assert [said["creator"] for said in added["contents"]] == ["responder"]


# --- answers ---


def test_a_captured_answer_fits_the_offer_it_answers() -> None:
    offer = jingle_to_sdp(captured_jingle("dino_video_session_initiate"), is_from_initiator=True)
    answer = jingle_to_sdp(captured_jingle("dino_video_session_accept"), is_from_initiator=False, base=offer)
    assert [section.mid for section in answer.media] == ["audio", "video"]
    assert [section.setup for section in answer.media] == ["active", "active"]
    assert [codec.name for codec in answer.media[0].codecs] == ["opus"]


def test_an_answer_to_a_phone_has_its_profile_and_no_mids() -> None:
    offer = captured_sdp("baresip_ice_dtls_offer")
    jingle = initiate(content("<payload-type id='96' name='opus' clockrate='48000' channels='2'/>"))
    answer = jingle_to_answer(jingle, offer=offer, is_from_initiator=False)
    assert (answer.media[0].mid, answer.media[0].protocol) == ("", "UDP/TLS/RTP/SAVPF")


def test_a_content_that_is_not_accepted_is_rejected_in_its_place() -> None:
    offer = captured_sdp("chromium_video_offer")
    accept = sdp_to_jingle(
        captured_sdp("chromium_video_answer"),
        action="session-accept",
        is_from_initiator=False,
        creators={},
        names=["0"],
    )
    answer = jingle_to_sdp(accept, is_from_initiator=False, base=offer)
    assert [(section.mid, section.is_rejected) for section in answer.media] == [("0", False), ("1", True)]
    assert answer.bundles == (("0",),)


def test_what_an_answer_rejects_is_left_out_of_session_accept() -> None:
    offer, answer = captured_sdp("chromium_video_offer"), captured_sdp("chromium_video_answer")
    refused = answer.with_media((answer.media[0], rejecting(offer.media[1])))
    accept = sdp_to_jingle(refused, action="session-accept", is_from_initiator=False, creators={}, answering=offer)
    assert [said["name"] for said in accept["contents"]] == ["0"]
    assert [group["contents"] for group in accept["groups"]] == [["0"]]
    reject = sdp_to_jingle(refused, action="content-reject", is_from_initiator=False, creators={}, answering=offer)
    assert [(said["name"], said["creator"]) for said in reject["contents"]] == [("1", "initiator")]
    assert [(said["rtp"]["media"], list(said["ice_udp"].xml)) for said in reject["contents"]] == [("video", [])]


def test_an_answer_without_mids_has_the_names_of_its_offer() -> None:
    offer = jingle_to_sdp(captured_jingle("dino_audio_session_initiate"), is_from_initiator=True)
    accept = sdp_to_jingle(
        captured_sdp("baresip_ice_dtls_offer"),
        action="session-accept",
        is_from_initiator=False,
        creators={},
        answering=offer,
    )
    (said,) = accept["contents"]
    assert (said["name"], said["creator"]) == ("audio", "initiator")
    assert [fingerprint["setup"] for fingerprint in said["ice_udp"]["fingerprints"]] == ["active"]


def test_an_answer_that_leaves_the_dtls_role_open_is_the_client() -> None:
    offer = captured_sdp("chromium_audio_offer")
    transport = f"<fingerprint xmlns='{DTLS}' hash='sha-256' setup='actpass'>\n  AB:CD\n</fingerprint>"
    answer = jingle_to_answer(initiate(content(transport=transport, name="0")), offer=offer, is_from_initiator=False)
    assert answer.media[0].setup == "active"
    assert answer.media[0].fingerprints == ("sha-256 AB:CD",)


# --- traps ---


def test_preferred_packet_times_become_those_of_the_section() -> None:
    codecs = "<payload-type id='0' name='PCMU' clockrate='8000'/>" + (
        "<payload-type id='96' name='opus' clockrate='48000' channels='2' ptime='40' maxptime='60'/>"
    )
    (section,) = jingle_to_sdp(initiate(content(codecs)), is_from_initiator=True).media
    assert (section.value_of("ptime"), section.value_of("maxptime")) == ("40", "60")


def test_static_payload_types_need_neither_name_nor_rate() -> None:
    (section,) = jingle_to_sdp(
        initiate(content("<payload-type id='9'/><payload-type id='99'/>")), is_from_initiator=True
    ).media
    assert section.formats == ("9",)
    assert section.values_of("rtpmap") == ["9 G722/8000"]


def test_candidates_that_lead_nowhere_are_left_out() -> None:
    common = "component='1' generation='0' network='1' priority='1' foundation='1'"
    transport = (
        f"<candidate {common} id='a' ip='192.0.2.1' port='9' protocol='udp' type='host'/>"
        f"<candidate {common} id='b' ip='192.0.2.1' port='9' protocol='tcp' type='host'/>"
        f"<candidate {common} id='c' ip='abc.local' port='9' protocol='udp' type='host'/>"
        f"<candidate {common} id='d' ip='192.0.2.1' port='0' protocol='udp' type='host'/>"
        f"<candidate {common} id='e' ip='2001:db8::1' port='9' protocol='udp' type='relay'/>"
    )
    (section,) = jingle_to_sdp(initiate(content(transport=transport)), is_from_initiator=True).media
    assert section.candidates == (
        "1 1 udp 1 192.0.2.1 9 typ host network-id 1",
        "1 1 udp 1 2001:db8::1 9 typ relay raddr :: rport 9 network-id 1",
    )


def test_a_line_break_in_an_attribute_begins_no_line() -> None:
    evil = "<payload-type id='96' name='x'><parameter name='a' value='1&#10;a=crypto:1 x y'/></payload-type>"
    sdp = jingle_to_sdp(initiate(content(evil, name="a&#13;&#10;m=video")), is_from_initiator=True)
    read = SessionDescription.parse(sdp.to_text())
    assert read == sdp
    assert len(read.media) == 1
    assert not read.media[0].has_attribute("crypto")


def test_a_content_that_no_section_can_carry_says_which_reason_to_give() -> None:
    files = (
        "<content creator='initiator' name='f'><description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/></content>"
    )
    with pytest.raises(UnsupportedContentError) as caught:
        jingle_to_sdp(initiate(files), is_from_initiator=True)
    assert caught.value.reason == "unsupported-applications"
    bytestreams = content().replace(ICE, "urn:xmpp:jingle:transports:ibb:1")
    with pytest.raises(UnsupportedContentError) as caught:
        jingle_to_sdp(initiate(bytestreams), is_from_initiator=True)
    assert caught.value.reason == "unsupported-transports"


@pytest.mark.parametrize(
    "inner",
    [
        "",
        content("").replace("media='audio'", "media=''"),
        content(""),
        content("<payload-type id='200' name='x'/>"),
        content("".join(f"<payload-type id='{number}' name='x'/>" for number in range(129))),
        content(transport="<candidate/>" * 129),
        "".join(content(name=str(number)) for number in range(33)),
    ],
)
def test_what_cannot_be_used_or_is_too_much_is_refused(inner: str) -> None:
    with pytest.raises(SdpError):
        jingle_to_sdp(initiate(inner), is_from_initiator=True)


FRAGMENTS = st.sampled_from(
    [
        content(),
        content(name="b", senders="initiator"),
        content("<rtcp-mux/>"),
        "<content name='x'/>",
        "<content creator='responder' name=''/>",
        "<group xmlns='urn:xmpp:jingle:apps:grouping:0' semantics='BUNDLE'><content name='audio'/><content/></group>",
        "<group xmlns='urn:xmpp:jingle:apps:grouping:0'/>",
        "<reason><success/></reason>",
        content(transport="<candidate ip='1' port='x' priority='²' component='-1'/>"),
        content(
            transport=f"<fingerprint xmlns='{DTLS}'/><fingerprint xmlns='{DTLS}' hash='a b' setup='x'>?</fingerprint>"
        ),
        content("<payload-type id='1'/><payload-type id='٣' clockrate='²' channels='x' name='a b'/><bandwidth/>"),
        content("<encryption><crypto/></encryption>", name="c"),
        content(
            "<source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0'/><ssrc-group xmlns='urn:xmpp:jingle:apps:rtp:ssma:0'/>"
        ),
    ]
)


@given(
    st.sampled_from(["session-initiate", "session-accept", "content-add", "content-modify", "content-remove"])
    | st.sampled_from(["transport-info", "transport-replace", "description-info", "session-info", "", "nonsense"]),
    st.lists(FRAGMENTS, max_size=4),
    st.booleans(),
)
def test_whatever_comes_is_understood_or_refused(action: str, inner: list[str], is_from_initiator: bool) -> None:
    jingle = initiate(*inner)
    jingle["action"] = action
    base = jingle_to_sdp(captured_jingle("dino_audio_session_initiate"), is_from_initiator=True)
    try:
        sdp = jingle_to_sdp(jingle, is_from_initiator=is_from_initiator, base=base)
    except SdpError:
        return
    assert SessionDescription.parse(sdp.to_text()) == sdp
    if action != "session-initiate":
        assert len(sdp.media) >= len(base.media)


def test_sections_that_jingle_has_no_words_for_lose_only_these_words() -> None:
    offer = captured_sdp("chromium_audio_offer")
    odd = replace(
        offer.media[0], attributes=(*offer.media[0].attributes, Attribute("label", "1"), Attribute("extmap", "x"))
    )
    jingle = sdp_to_jingle(offer.with_media((odd,)), action="session-initiate", is_from_initiator=True, creators={})
    assert jingle_to_sdp(jingle, is_from_initiator=True).media[0].codecs == offer.media[0].codecs
