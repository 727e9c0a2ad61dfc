"""Jingle messages (XEP-0353): each is written and read, and what is no such message is told from it."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import PayloadError
from isthmus.interworking.call_endings import ENDINGS
from isthmus.interworking.jingle_message import (
    Accept,
    Finish,
    JingleMessage,
    Proceed,
    Propose,
    Reject,
    Retract,
    Ringing,
    jingle_message_from_stanza,
    jingle_message_to_stanza,
    wins_tie_break,
)

CAPTURES = Path(__file__).parents[1] / "messages/jingle"
SID = "42fb99a4-0fa6-46c7-bfdb-ec81aef06b79"

sids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
reasons = st.sampled_from(sorted({row.reason for row in ENDINGS.values()}))
media = st.lists(st.sampled_from(["audio", "video"]), max_size=2, unique=True).map(tuple)
messages = st.one_of(
    st.builds(Propose, sids, media),
    st.builds(Ringing, sids),
    st.builds(Proceed, sids),
    st.builds(Accept, sids),
    st.builds(Reject, sids, reasons, texts, st.booleans()) | st.builds(Reject, sids),
    st.builds(Retract, sids, reasons, texts, st.booleans()) | st.builds(Retract, sids),
    st.builds(Finish, sids, reasons, texts, st.just("") | sids) | st.builds(Finish, sids),
)


def stanza(inner: str) -> Element:
    return fromstring(f"<message xmlns='jabber:component:accept'>{inner}</message>")


@given(messages)
def test_a_message_is_read_as_it_was_written(message: JingleMessage) -> None:
    text = jingle_message_to_stanza(message, sender="ana@corp.test/isthmus", recipient="ben@people.test", stanza_id="1")
    read = fromstring(text.replace("<message ", "<message xmlns='jabber:component:accept' ", 1))
    assert jingle_message_from_stanza(read) == message
    assert read.get("type") == "chat"
    assert read.find("{urn:xmpp:hints}store") is not None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jmi_propose", Propose(SID, ("audio",))),
        ("jmi_accept", Accept(SID)),
        ("jmi_proceed", Proceed(SID)),
    ],
)
def test_what_a_client_said_is_understood(name: str, message: JingleMessage) -> None:
    assert jingle_message_from_stanza(fromstring((CAPTURES / f"dino_audio_{name}.xml").read_text())) == message


def test_a_video_call_is_proposed_with_both_media() -> None:
    read = jingle_message_from_stanza(fromstring((CAPTURES / "dino_video_jmi_propose.xml").read_text()))
    assert isinstance(read, Propose)
    assert read.media == ("audio", "video")


def test_a_message_that_is_none_is_none() -> None:
    assert jingle_message_from_stanza(stanza("<body>Hi</body>")) is None
    assert jingle_message_from_stanza(stanza("<propose xmlns='urn:xmpp:jingle-message:1' id='s'/>")) is None


@pytest.mark.parametrize(
    "inner",
    [
        "<propose xmlns='urn:xmpp:jingle-message:0'/>",
        f"<proceed xmlns='urn:xmpp:jingle-message:0' id='{'x' * 300}'/>",
        "<propose xmlns='urn:xmpp:jingle-message:0' id='s'>" + "<description xmlns='urn:x'/>" * 9 + "</propose>",
    ],
)
def test_what_could_be_no_session_is_refused(inner: str) -> None:
    with pytest.raises(PayloadError):
        jingle_message_from_stanza(stanza(inner))


def test_other_applications_are_no_media_and_long_texts_are_cut() -> None:
    other = "<propose xmlns='urn:xmpp:jingle-message:0' id='s'><description xmlns='urn:xmpp:jingle:apps:x'/></propose>"
    assert jingle_message_from_stanza(stanza(other)) == Propose("s", ())
    reason = f"<reason xmlns='urn:xmpp:jingle:1'><busy/><text>{'x' * 999}</text></reason>"
    read = jingle_message_from_stanza(stanza(f"<reject xmlns='urn:xmpp:jingle-message:0' id='s'>{reason}</reject>"))
    assert isinstance(read, Reject)
    assert (read.reason, len(read.text)) == ("busy", 300)


@given(sids, sids)
def test_exactly_one_of_two_proposals_goes_on(one: str, other: str) -> None:
    assert wins_tie_break(one, other) != wins_tie_break(other, one) or one == other
    assert wins_tie_break("a", "b")
