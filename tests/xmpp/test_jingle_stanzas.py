"""Jingle stanza classes in slixmpp's style: written, read, counted, serialised."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slixmpp.xmlstream import ElementBase

from isthmus.errors import PayloadError
from isthmus.xmpp import jingle_message_initiation as jmi
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.external_services import Credentials, Service, Services
from isthmus.xmpp.jingle import ACTIONS, MAXIMUM_ELEMENTS, Content, Group, Jingle, Reason, jingle_iq, jingle_of
from isthmus.xmpp.jingle_dtls import Fingerprint
from isthmus.xmpp.jingle_header_extensions import HeaderExtension
from isthmus.xmpp.jingle_ice_udp import Candidate, RemoteCandidate, Transport, transport_of
from isthmus.xmpp.jingle_rtcp_feedback import RtcpFeedback
from isthmus.xmpp.jingle_rtp import (
    SESSION_INFOS,
    Bandwidth,
    Crypto,
    Description,
    Encryption,
    Mute,
    Parameter,
    PayloadType,
    description_of,
    session_info_of,
)
from isthmus.xmpp.jingle_sources import Source, SourceGroup
from isthmus.xmpp.stanza import serialised

CAPTURES = sorted((Path(__file__).parents[1] / "messages/jingle").glob("*.xml"))


def shape(node: Element) -> tuple[object, ...]:
    return node.tag, node.attrib, (node.text or "").strip(), [shape(inner) for inner in node]


def again(stanza: ElementBase) -> Element:
    return fromstring(serialised(stanza.xml))


# --- serialising ---


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_a_captured_stanza_is_written_as_it_was_read(path: Path) -> None:
    stanza = fromstring(path.read_text())
    assert shape(fromstring(serialised(stanza))) == shape(stanza)


names = st.text("abcxyz", min_size=1, max_size=5)
spaces = st.sampled_from(["", "urn:a", "urn:b", ns.COMPONENT])
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> Element:
    namespace = draw(spaces)
    name = draw(names)
    node = Element(f"{{{namespace}}}{name}" if namespace else name, draw(st.dictionaries(names, texts, max_size=2)))
    node.text = draw(texts)
    for _ in range(draw(st.integers(0, 2)) if depth else 0):
        inner = draw(trees(depth - 1))
        inner.tail = draw(texts)
        node.append(inner)
    return node


def said(node: Element, around: str) -> tuple[object, ...]:
    namespace, name = node.tag[1:].split("}") if node.tag.startswith("{") else (around, node.tag)
    children = [(said(inner, namespace), inner.tail or "") for inner in node]
    return namespace, name, dict(node.attrib), node.text or "", children


@given(trees())
def test_any_element_is_read_back_with_its_namespaces(tree: Element) -> None:
    assert said(fromstring(serialised(tree)), "") == said(tree, "")


def test_what_xml_cannot_carry_does_not_break_the_stream() -> None:
    node = Element("{urn:a}x", {"y": "1\x00\x0b2", "{http://www.w3.org/XML/1998/namespace}lang": "en", "{urn:z}q": "1"})
    node.text = "a\x01b<"
    assert serialised(node, "urn:a") == "<x y='12' xml:lang='en'>ab&lt;</x>"
    assert serialised(node).startswith("<x xmlns='urn:a'")


# --- XEP-0166 ---


def test_a_jingle_iq_is_found_and_written() -> None:
    jingle = Jingle()
    jingle["action"], jingle["sid"], jingle["initiator"] = "session-terminate", "s-77", "ben@people.test/phone"
    jingle["reason"]["condition"] = "decline"
    jingle["reason"]["condition"] = "busy"
    jingle["reason"]["text"] = "<later>"
    text = jingle_iq(jingle, sender="ana@corp.test/isthmus", recipient="ben@people.test/phone", stanza_id="j1")
    assert text == (
        "<iq type='set' id='j1' from='ana@corp.test/isthmus' to='ben@people.test/phone'>"
        "<jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='s-77' initiator='ben@people.test/phone'>"
        "<reason><busy/><text>&lt;later&gt;</text></reason></jingle></iq>"
    )
    found = jingle_of(fromstring(text.replace("<iq ", "<iq xmlns='jabber:component:accept' ")))
    assert found is not None
    assert (found["action"], found["reason"]["condition"], found["reason"]["text"]) == (
        "session-terminate",
        "busy",
        "<later>",
    )
    assert jingle_of(fromstring("<iq xmlns='jabber:component:accept'/>")) is None


def test_a_reason_without_condition_is_empty_and_a_condition_can_be_taken_out() -> None:
    reason = Reason()
    assert reason["condition"] == ""
    reason["text"] = "x"
    reason["condition"] = "success"
    del reason["condition"]
    assert (reason["condition"], reason["text"]) == ("", "x")


def test_an_element_that_is_too_large_is_refused_before_it_is_looked_at() -> None:
    iq = Element(f"{{{ns.COMPONENT}}}iq")
    jingle = SubElement(iq, f"{{{ns.JINGLE}}}jingle", {"action": "session-initiate"})
    for _ in range(MAXIMUM_ELEMENTS - 1):
        SubElement(jingle, "{urn:x}x")
    assert jingle_of(iq) is not None
    SubElement(jingle, "{urn:x}x")
    with pytest.raises(PayloadError):
        jingle_of(iq)


def test_creators_and_senders_have_their_defaults() -> None:
    content = Content()
    assert (content["creator"], content["senders"]) == ("initiator", "both")
    content["creator"], content["senders"] = "responder", "none"
    assert (content["creator"], content["senders"]) == ("responder", "none")
    content["senders"] = "nonsense"
    assert content["senders"] == "both"


def test_groups_name_their_contents() -> None:
    group = Group()
    group["semantics"], group["contents"] = "BUNDLE", ["a", "b"]
    group["contents"] = ["c", "d"]
    jingle = Jingle()
    jingle.append(group)
    (found,) = Jingle(xml=again(jingle))["groups"]
    assert (found["semantics"], found["contents"]) == ("BUNDLE", ["c", "d"])
    del found["contents"]
    assert found["contents"] == []


def test_the_actions_of_captured_sessions_are_known() -> None:
    captured = [jingle_of(fromstring(path.read_text())) for path in CAPTURES]
    actions = {jingle["action"] for jingle in captured if jingle is not None}
    assert {"session-initiate", "session-accept", "session-terminate"} <= actions <= ACTIONS


# --- XEP-0167 and its extensions ---


def test_a_description_holds_what_its_extensions_put_into_it() -> None:
    description = Description()
    description["media"], description["rtcp-mux"] = "audio", True
    payload_type = PayloadType()
    payload_type["id"], payload_type["name"] = "111", "opus"
    parameter = Parameter()
    parameter["name"], parameter["value"] = "useinbandfec", "1"
    payload_type.append(parameter)
    feedback = RtcpFeedback()
    feedback["type"], feedback["subtype"] = "nack", "pli"
    payload_type.append(feedback)
    extension, source, group, member = HeaderExtension(), Source(), SourceGroup(), Source()
    extension["id"], extension["uri"] = "1", "urn:3gpp:video-orientation"
    source["ssrc"], group["semantics"], member["ssrc"] = "7", "FID", "7"
    group.append(member)
    bandwidth, encryption, crypto = Bandwidth(), Encryption(), Crypto()
    bandwidth["type"], bandwidth["value"], crypto["tag"] = "AS", "64", "1"
    encryption.append(crypto)
    for inner in (payload_type, extension, source, group, bandwidth, encryption):
        description.append(inner)
    content = Content()
    content.append(description)
    found = description_of(Content(xml=again(content)))
    assert found is not None
    assert (found["media"], found["rtcp-mux"]) == ("audio", True)
    (codec,) = found["payload_types"]
    assert [(p["name"], p["value"]) for p in codec["parameters"]] == [("useinbandfec", "1")]
    assert [(f["type"], f["subtype"]) for f in codec["rtcp_fbs"]] == [("nack", "pli")]
    assert [(e["id"], e["senders"]) for e in found["rtp_hdrexts"]] == [("1", "both")]
    assert [s["ssrc"] for s in found["sources"]] == ["7"]
    assert [[s["ssrc"] for s in g["sources"]] for g in found["ssrc_groups"]] == [["7"]]
    assert (found["bandwidth"]["type"], found["bandwidth"]["value"]) == ("AS", "64")
    assert [c["tag"] for c in found["encryption"]["cryptos"]] == ["1"]
    assert description_of(Content()) is None


@pytest.mark.parametrize("info", SESSION_INFOS)
def test_what_is_told_during_a_call_is_known(info: type[ElementBase]) -> None:
    jingle = Jingle()
    jingle.append(info())
    assert session_info_of(Jingle(xml=again(jingle))) == info.name


def test_muting_is_about_one_content_and_a_keep_alive_about_nothing() -> None:
    mute = Mute()
    mute["creator"], mute["name"] = "initiator", "audio"
    assert serialised(mute.xml) == f"<mute xmlns='{ns.JINGLE_RTP_INFO}' creator='initiator' name='audio'/>"
    assert session_info_of(Jingle()) == ""


def test_a_transport_holds_candidates_and_fingerprints() -> None:
    transport = Transport()
    transport["ufrag"], transport["pwd"] = "q1Zx", "7Yk2mD0sWv4pLr8nTb6cHg"
    candidate, remote, fingerprint = Candidate(), RemoteCandidate(), Fingerprint()
    candidate["ip"], candidate["rel-port"], remote["ip"] = "192.0.2.1", "9", "192.0.2.2"
    fingerprint["hash"], fingerprint["value"] = "sha-256", " AB:CD \n:EF "
    for inner in (candidate, remote, fingerprint):
        transport.append(inner)
    content = Content()
    content.append(transport)
    found = transport_of(Content(xml=again(content)))
    assert found is not None
    assert [(c["ip"], c["rel-port"]) for c in found["candidates"]] == [("192.0.2.1", "9")]
    assert [c["ip"] for c in found["remote_candidates"]] == ["192.0.2.2"]
    assert [f["value"] for f in found["fingerprints"]] == ["AB:CD:EF"]
    assert transport_of(Content()) is None


# --- XEP-0353 and XEP-0215 ---


def test_a_proposal_names_its_media() -> None:
    propose = jmi.Propose()
    propose["id"] = "s-77"
    propose["descriptions"] = [(ns.JINGLE_RTP, "audio"), ("urn:other", "")]
    found = jmi.Propose(xml=again(propose))
    assert (found["id"], found["descriptions"]) == ("s-77", [(ns.JINGLE_RTP, "audio"), ("urn:other", "")])
    del found["descriptions"]
    assert found["descriptions"] == []


def test_services_and_credentials_list_servers() -> None:
    for parent in (Services(), Credentials()):
        service = Service()
        service["host"], service["type"], service["port"] = "turn.people.test", "turn", "3478"
        parent.append(service)
        (found,) = type(parent)(xml=again(parent))["services"]
        assert (found["host"], found["type"], found["port"], found["username"]) == (
            "turn.people.test",
            "turn",
            "3478",
            "",
        )
