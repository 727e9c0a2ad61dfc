"""Presence between stanzas and the model (RFC 8048, STANDARDS 1.4 and 2.2)."""

from __future__ import annotations

from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import AddressError, PayloadError
from isthmus.interworking.presence import (
    device_from_stanza,
    hide_document,
    prepare_presence,
    presence_to_stanza,
    presentity_jid,
    reduce_document,
    subscription_stanza,
)
from isthmus.model import Address, Availability, Device, Presence, PresenceDocument, PresenceSource
from isthmus.presence.pidf import parse_pidf, write_pidf

NOW = 1_795_369_200.0
ANA = Address("ana", "corp.test")


def stanza(content: str = "", attributes: str = "") -> Element:
    return fromstring(
        f"<presence xmlns='jabber:component:accept' {attributes} from='ben@people.test/phone' to='ana@corp.test'>"
        f"{content}</presence>"
    )


def parsed(markup: str) -> Element:
    return fromstring(markup.replace("<presence", "<presence xmlns='jabber:component:accept'", 1))


@pytest.mark.parametrize(
    ("content", "state"),
    [("", Availability.AVAILABLE), ("<show>chat</show>", Availability.AVAILABLE),
     ("<show>away</show>", Availability.AWAY),
     ("<show>xa</show>", Availability.OFF_WORK), ("<show>dnd</show>", Availability.BUSY),
     ("<show>away</show><idle xmlns='urn:xmpp:idle:1' since='2026-11-22T17:00:00Z'/>", Availability.INACTIVE),
     ("<show>dnd</show><idle xmlns='urn:xmpp:idle:1' since='2026-11-22T17:00:00Z'/>", Availability.BUSY_INACTIVE),
     ("<show>sleeping</show>", Availability.AWAY),
     ("<status>Available!</status><show>xa</show>", Availability.OFF_WORK)],
)  # fmt: skip
def test_a_show_becomes_a_state_and_a_text_never_does(content: str, state: Availability) -> None:
    """Edge cases 7 and 11: an unknown show is not available, and the status text decides nothing."""
    assert device_from_stanza(stanza(content), NOW).presence.state is state


@pytest.mark.parametrize(
    ("content", "capabilities"),
    [
        ("<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x' ver='abc='/>", "sha-1 urn:x#abc="),
        ("<c xmlns='http://jabber.org/protocol/caps' node='urn:x' ver='1.0'/>", ""),
        (f"<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='{'x' * 600}' ver='abc='/>", ""),
        ("", ""),
    ],
)
def test_a_device_keeps_what_it_announces_of_itself(content: str, capabilities: str) -> None:
    """XEP-0115; the form of 2007, without `hash`, proves nothing."""
    assert device_from_stanza(stanza(content), NOW).capabilities == capabilities


def test_a_device_keeps_note_priority_and_idle_time() -> None:
    device = device_from_stanza(
        stanza(
            "<status xml:lang='de'>Besprechung</status><priority>-5</priority>"
            "<show>away</show><idle xmlns='urn:xmpp:idle:1' since='2026-11-22T17:00:00Z'/>"
        ),
        NOW,
    )
    assert (device.id, device.priority) == ("phone", -5)
    assert (device.presence.note, device.presence.note_language) == ("Besprechung", "de")
    assert device.presence.idle_since == 1_795_366_800.0
    assert device_from_stanza(stanza("<priority>x</priority>"), NOW).priority == 0


def test_unavailable_is_offline_with_its_note() -> None:
    device = device_from_stanza(stanza("<status>Bye</status>", "type='unavailable'"), NOW)
    assert (device.presence.state, device.presence.note) == (Availability.OFFLINE, "Bye")


@pytest.mark.parametrize("kind", ["subscribe", "probe", "error", "subscribed"])
def test_other_types_are_no_notification(kind: str) -> None:
    with pytest.raises(PayloadError):
        device_from_stanza(stanza(attributes=f"type='{kind}'"), NOW)


def test_a_server_has_no_presence() -> None:
    with pytest.raises(AddressError):
        device_from_stanza(fromstring("<presence from='people.test' to='ana@corp.test'/>"), NOW)


@pytest.mark.parametrize(
    ("state", "show", "status"),
    [(Availability.AVAILABLE, None, None), (Availability.IN_A_CALL, "dnd", "In a call"),
     (Availability.AWAY, "away", None),
     (Availability.OFF_WORK, "xa", "Off work"), (Availability.DO_NOT_DISTURB, "dnd", "Do not disturb"),
     (Availability.PRESENTING, "dnd", "Presenting"), (Availability.BE_RIGHT_BACK, "away", "Be right back")],
)  # fmt: skip
def test_a_state_shows_as_the_table_says(state: Availability, show: str | None, status: str | None) -> None:
    element = parsed(presence_to_stanza("ana@corp.test/isthmus", "ben@people.test", Presence(state)))
    assert element.findtext("{jabber:component:accept}show") == show
    assert element.findtext("{jabber:component:accept}status") == status
    assert element.get("type") is None


def test_a_note_of_the_person_stands_before_our_default() -> None:
    presence = Presence(Availability.IN_A_CALL, "Budget <call>", "en")
    element = parsed(presence_to_stanza("a@b/isthmus", "c@d", presence, priority=5))
    assert element.findtext("{jabber:component:accept}status") == "Budget <call>"
    assert element.findtext("{jabber:component:accept}priority") == "5"


def test_offline_is_unavailable_and_unknown_is_silence() -> None:
    """Edge case 7: ignorance is neither presence nor absence."""
    assert presence_to_stanza("a@b/isthmus", "c@d", Presence(Availability.UNKNOWN)) == ""
    element = parsed(presence_to_stanza("a@b/isthmus", "c@d", Presence(Availability.OFFLINE)))
    assert element.get("type") == "unavailable"
    assert len(element) == 0


ONLINE = [state for state in Availability if state.is_online]
notes = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), max_size=30).map(str.strip)
times = st.one_of(st.none(), st.integers(1_000_000_000, int(NOW)).map(float))


@given(st.sampled_from(ONLINE), notes, times)
def test_a_state_survives_two_hops_over_xmpp(state: Availability, note: str, idle_since: float | None) -> None:
    """The round trip of STANDARDS 2.2 is stable: state, note, and the idle time where it shows."""
    presence = Presence(state, note, "en" if note else "", idle_since=idle_since)
    element = parsed(presence_to_stanza("ana@corp.test/isthmus", "ben@people.test", presence))
    back = device_from_stanza(element, NOW).presence
    assert back.state is state
    assert (back.note, back.note_language) == (note, presence.note_language)
    assert back.idle_since in (None, idle_since)
    again = parsed(presence_to_stanza("ana@corp.test/isthmus", "ben@people.test", back))
    assert device_from_stanza(again, NOW).presence == back


@given(st.sampled_from([*ONLINE, Availability.OFFLINE]), notes)
def test_a_state_survives_from_xmpp_through_pidf_and_back(state: Availability, note: str) -> None:
    presence = Presence(state, note, "en" if note else "", source=PresenceSource.FEDERATED)
    document = PresenceDocument(ANA, presence, (Device("phone", presence, 5),))
    person = parse_pidf(write_pidf(document, now=NOW), NOW).person
    assert person.state is state
    element = parsed(presence_to_stanza("ana@corp.test/isthmus", "ben@people.test", person))
    assert device_from_stanza(element, NOW).presence.state is state


def test_one_payload_serves_every_watcher() -> None:
    prepared = prepare_presence(presentity_jid(ANA), Presence(Availability.BUSY), extra="<c xmlns='caps'/>")
    one, other = parsed(prepared.to("ben@people.test")), parsed(prepared.to_escaped("eve@people.test"))
    assert (one.get("to"), other.get("to")) == ("ben@people.test", "eve@people.test")
    assert one.get("from") == other.get("from") == "ana@corp.test/isthmus"
    assert one.find("{caps}c") is not None
    assert parsed(prepared.to("o'hara@people.test/a<b")).get("to") == "o'hara@people.test/a<b"
    assert prepare_presence("a@b/c", Presence(Availability.UNKNOWN)).to("c@d") == ""


@pytest.mark.parametrize("kind", ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe"])
def test_subscription_stanzas_run_between_bare_jids(kind: str) -> None:
    markup = subscription_stanza(kind, Address("o'hara", "corp.test"), ANA, status="Hi & please", id="s1")
    element = fromstring(markup)
    assert (element.get("from"), element.get("to")) == ("o\\27hara@corp.test", "ana@corp.test")
    assert (element.get("type"), element.get("id"), element.findtext("status")) == (kind, "s1", "Hi & please")
    with pytest.raises(ValueError, match="not a type"):
        subscription_stanza("unavailable", ANA, ANA)


def test_the_reduced_view_tells_availability_only() -> None:
    presence = Presence(Availability.IN_A_CALL, "Budget", "en", frozenset({"on-the-phone"}), NOW, NOW)
    document = PresenceDocument(ANA, presence, (Device("desk", presence, contact="sip:ana@10.0.0.9"),))
    reduced = reduce_document(document)
    assert reduced.person == Presence(Availability.BUSY, source=PresenceSource.POLICY)
    assert reduced.devices == ()
    body = write_pidf(reduced, now=NOW)
    assert b"Budget" not in body
    assert b"phone" not in body
    assert b"10.0.0.9" not in body


def test_a_blocked_watcher_sees_somebody_offline() -> None:
    document = PresenceDocument(ANA, Presence(Availability.AVAILABLE, "Secret"), ())
    hidden = parse_pidf(write_pidf(hide_document(document), now=NOW), NOW)
    assert hidden.person.state is Availability.OFFLINE
    assert hidden.person.note == ""
