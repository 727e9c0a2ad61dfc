"""PIDF with RPID (RFC 3863, 4479, 4480): reading what phones write, and writing what survives."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import PayloadError
from isthmus.model import Address, Availability, Device, Presence, PresenceDocument
from isthmus.presence.pidf import parse_pidf, tuple_id, write_pidf
from isthmus.presence.rpid import ACTIVITIES, state_from_lync, state_from_pidf
from isthmus.xml_text import MAXIMUM_DEPTH, MAXIMUM_DOCUMENT_OCTETS

NOW = 1_795_369_200.0
ANA = Address("ana", "corp.test")
OPEN = "<status><basic>open</basic></status>"


def document(content: str, entity: str = "sip:ana@corp.test") -> bytes:
    return (
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model'"
        f" xmlns:rpid='urn:ietf:params:xml:ns:pidf:rpid' entity='{entity}'>{content}</presence>"
    ).encode()


def person_state(content: str) -> Availability:
    return parse_pidf(document(content), NOW).person.state


def activities(*names: str, extra: str = "") -> str:
    inner = "".join(f"<rpid:{name}/>" for name in names)
    return f"<dm:person id='p'><rpid:activities>{inner}</rpid:activities>{extra}</dm:person>"


def test_the_example_of_the_design_is_read() -> None:
    body = document(
        "<tuple id='ID-isthmus'><status><basic>open</basic><show xmlns='jabber:client'>dnd</show></status>"
        "<contact priority='0.5'>sip:ana@corp.test</contact><timestamp>2026-11-22T17:40:01Z</timestamp></tuple>"
        "<dm:person id='p1'><rpid:activities><rpid:on-the-phone/></rpid:activities>"
        "<dm:note xml:lang='en'>Budget call</dm:note></dm:person>"
    )
    found = parse_pidf(body, NOW)
    assert found.entity == ANA
    assert found.person.state is Availability.IN_A_CALL
    assert (found.person.note, found.person.note_language) == ("Budget call", "en")
    assert (found.devices[0].id, found.devices[0].priority) == ("isthmus", 64)


@pytest.mark.parametrize(
    "content",
    ["", "<note>Available</note>", "<dm:person id='p'/>", "<tuple id='a'><status/></tuple>", "<tuple id='a'/>",
     "<tuple id='a'><status><basic>maybe</basic></status></tuple>",
     "<dm:person id='p'><dm:note>online</dm:note></dm:person>"],
)  # fmt: skip
def test_a_document_that_says_nothing_leaves_the_state_unknown(content: str) -> None:
    """Edge case 7: no body content, no person, no basic: never "available"."""
    assert person_state(content) is Availability.UNKNOWN


def test_closed_is_offline_even_with_a_note_and_activities() -> None:
    """Edge case 7: a closed tuple becomes unavailable whatever else it says."""
    closed = "<tuple id='a'><status><basic>closed</basic></status><note>I am available</note></tuple>"
    assert person_state(closed) is Availability.OFFLINE
    assert person_state(closed + activities("busy")) is Availability.OFFLINE
    lie = closed.replace("</status>", "<x xmlns='urn:isthmus:presence:0' state='available'/></status>")
    assert person_state(lie) is Availability.OFFLINE


@pytest.mark.parametrize("activity", ["other", "unknown", "juggling"])
def test_an_unknown_activity_is_not_available(activity: str) -> None:
    """Edge case 7."""
    assert person_state(f"<tuple id='a'>{OPEN}</tuple>" + activities(activity)) is Availability.AWAY
    foreign = "<dm:person id='p'><rpid:activities><x xmlns='urn:foreign'/></rpid:activities></dm:person>"
    assert person_state(f"<tuple id='a'>{OPEN}</tuple>{foreign}") is Availability.AWAY


@pytest.mark.parametrize("text", ["Available", "On the phone", "Busy", "Ringing"])
def test_display_text_decides_nothing(text: str) -> None:
    """Edge case 11: state never comes from text made for people."""
    assert person_state(f"<tuple id='a'>{OPEN}<note>{text}</note></tuple>") is Availability.AVAILABLE
    assert person_state(f"<note>{text}</note><tuple id='a'>{OPEN}</tuple>" + activities("away")) is Availability.AWAY


@pytest.mark.parametrize(
    ("names", "state"),
    [((), Availability.AVAILABLE), (("working",), Availability.AVAILABLE), (("busy",), Availability.BUSY),
     (("on-the-phone",), Availability.IN_A_CALL), (("on-the-phone", "meeting"), Availability.IN_A_CONFERENCE),
     (("meeting",), Availability.IN_A_MEETING), (("appointment",), Availability.IN_A_MEETING),
     (("presentation",), Availability.PRESENTING), (("away",), Availability.AWAY), (("lunch",), Availability.AWAY),
     (("away", "other"), Availability.OFF_WORK), (("vacation",), Availability.OUT_OF_OFFICE),
     (("travel",), Availability.OUT_OF_OFFICE), (("steering",), Availability.BUSY)],
)  # fmt: skip
def test_activities_become_states_as_the_table_says(names: tuple[str, ...], state: Availability) -> None:
    """Edge case 10: call, meeting, busy, idle and offline stay distinct."""
    assert person_state(f"<tuple id='a'>{OPEN}</tuple>" + (activities(*names) if names else "")) is state


def test_activities_inside_the_tuple_are_accepted() -> None:
    inner = "<rpid:activities><rpid:on-the-phone/></rpid:activities>"
    within_status = f"<tuple id='a'><status><basic>open</basic>{inner}</status></tuple>"
    assert person_state(within_status) is Availability.IN_A_CALL
    assert person_state(f"<tuple id='a'>{OPEN}{inner}</tuple>") is Availability.IN_A_CALL


def test_idle_is_inactive_with_its_time() -> None:
    idle = "<rpid:user-input last-input='2026-11-22T17:00:00Z'>idle</rpid:user-input>"
    found = parse_pidf(document(f"<tuple id='a'>{OPEN}</tuple><dm:person id='p'>{idle}</dm:person>"), NOW).person
    assert (found.state, found.idle_since) == (Availability.INACTIVE, 1_795_366_800.0)
    assert person_state(f"<tuple id='a'>{OPEN}</tuple>" + activities("busy", extra=idle)) is Availability.BUSY_INACTIVE


def test_the_newest_of_several_persons_wins() -> None:
    old = activities("away", extra="<dm:timestamp>2026-11-22T10:00:00Z</dm:timestamp>")
    new = activities("busy", extra="<dm:timestamp>2026-11-22T11:00:00Z</dm:timestamp>")
    assert person_state(f"<tuple id='a'>{OPEN}</tuple>{new}{old}") is Availability.BUSY


def test_the_dialog_knows_better_than_the_entity() -> None:
    body = document(f"<tuple id='a'>{OPEN}</tuple>", entity="pres:someone@10.0.0.9")
    assert parse_pidf(body, NOW, presentity=ANA).entity == ANA
    assert parse_pidf(document("", entity="pres:ANA@corp.test"), NOW).entity == ANA
    with pytest.raises(PayloadError):
        parse_pidf(document("", entity="tel:112"), NOW)


def test_devices_are_named_by_their_gruu_or_tuple() -> None:
    body = document(
        f"<tuple id='t1'>{OPEN}<contact>sip:ana@corp.test;gr=urn:uuid:7</contact></tuple>"
        f"<tuple id='t2'>{OPEN}<contact priority='1.0'>broken uri</contact></tuple>"
        f"<tuple id='ID-t2'>{OPEN}<contact priority='7'/></tuple>"
    )
    devices = parse_pidf(body, NOW).devices
    assert [(device.id, device.priority) for device in devices] == [("urn:uuid:7", None), ("t2", 127), ("ID-t2", None)]


@pytest.mark.parametrize(
    "body",
    [b"", b"<", b"<presence/>", b"\xff\xfe", b"<?xml version='1.0' encoding='klingon'?><a/>",
     b"<!DOCTYPE p [<!ENTITY a 'b'>]><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:a@b'>&a;</presence>",
     b"<!DOCTYPE p SYSTEM 'http://evil.test/'><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:a@b'/>",
     b"<a>" * (MAXIMUM_DEPTH + 1) + b"</a>" * (MAXIMUM_DEPTH + 1), b"<a>" + b"<b/>" * 20_000 + b"</a>",
     b" " * (MAXIMUM_DOCUMENT_OCTETS + 1)],
)  # fmt: skip
def test_bombs_and_broken_documents_are_refused(body: bytes) -> None:
    with pytest.raises(PayloadError):
        parse_pidf(body, NOW)


@given(st.binary(max_size=300))
def test_no_octets_break_the_reader(body: bytes) -> None:
    for octets in (body, document(body.decode("latin-1"))):
        try:
            parse_pidf(octets, NOW)
        except PayloadError:
            continue


ONLINE = [state for state in Availability if state.is_online]
notes = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), max_size=30).map(str.strip)
times = st.one_of(st.none(), st.integers(1_000_000_000, int(NOW)).map(float))
presences = st.builds(
    Presence, st.sampled_from([*ONLINE, Availability.OFFLINE]), notes, st.sampled_from(["", "en", "de-AT"]),
    st.frozensets(st.sampled_from(sorted(ACTIVITIES)), max_size=2), times, times,
)  # fmt: skip
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=20)
devices = st.lists(st.builds(Device, names, presences, st.one_of(st.none(), st.integers(-128, 127))), max_size=4)


@given(presences, devices)
def test_what_we_write_we_read(person: Presence, listed: list[Device]) -> None:
    """The canonical state survives (STANDARDS 2.2), and reading and writing again changes nothing more."""
    if person.state.is_online and listed and not any(d.presence.state.is_online for d in listed):
        return  # nobody composes an online person from devices that are all offline
    written = PresenceDocument(ANA, person, tuple(listed))
    first = parse_pidf(write_pidf(written, now=NOW), NOW)
    assert first.person.state is person.state
    if person.note:
        assert first.person.note == person.note
    if person.state.is_online and not listed:
        assert first.person.idle_since == person.idle_since
    second = parse_pidf(write_pidf(first, now=NOW), NOW)
    assert second.person == first.person
    assert [(d.id, d.presence.state, d.priority) for d in second.devices] == [
        (d.id, d.presence.state, d.priority) for d in first.devices
    ]


@given(names)
def test_a_tuple_id_is_a_valid_and_stable_xml_id(name: str) -> None:
    identifier = tuple_id(name)
    assert identifier == tuple_id(name)
    assert identifier.isascii()
    assert identifier.startswith("ID-")
    assert not set(identifier) & set(" '\"<>&:/")


@pytest.mark.parametrize(("priority", "text"), [(0, "0.000"), (127, "1.000"), (5, "0.039"), (-5, None), (None, None)])
def test_priorities_map_as_the_rfc_says_and_negative_ones_not_at_all(priority: int | None, text: str | None) -> None:
    written = PresenceDocument(
        ANA, Presence(Availability.AVAILABLE), (Device("phone", Presence(Availability.AVAILABLE), priority),)
    )
    contact = fromstring(write_pidf(written, now=NOW)).find(".//{urn:ietf:params:xml:ns:pidf}contact")
    assert contact is not None
    assert contact.get("priority") == text


def test_all_priorities_stay_apart() -> None:
    written = [f"{priority / 127:.3f}" for priority in range(128)]
    assert len(set(written)) == 128
    assert [round(float(text) * 127) for text in written] == list(range(128))


def test_nothing_is_written_of_somebody_unknown() -> None:
    """Edge case 7."""
    root = fromstring(write_pidf(PresenceDocument(ANA, Presence(Availability.UNKNOWN)), now=NOW))
    assert len(root) == 0


def test_documents_that_follow_each_other_differ_in_time() -> None:
    written = PresenceDocument(ANA, Presence(Availability.AVAILABLE))
    assert write_pidf(written, now=NOW) != write_pidf(written, now=NOW + 0.01)


def test_lync_numbers_are_understood() -> None:
    numbers = [0, 3500, 5000, 6500, 7500, 9500, 12500, 15500, 18500]
    assert [state_from_lync(number) for number in numbers] == [
        Availability.UNKNOWN, Availability.AVAILABLE, Availability.INACTIVE, Availability.BUSY,
        Availability.BUSY_INACTIVE, Availability.DO_NOT_DISTURB, Availability.BE_RIGHT_BACK, Availability.AWAY,
        Availability.OFFLINE,
    ]  # fmt: skip


@given(
    st.sampled_from([True, False, None]), st.frozensets(st.sampled_from(sorted(ACTIVITIES)), max_size=3),
    st.sampled_from([None, "", "chat", "away", "xa", "dnd", "strange"]), st.booleans(),
)  # fmt: skip
def test_available_needs_an_open_door_and_nothing_in_the_way(
    is_open: bool | None, names: frozenset[str], show: str | None, is_idle: bool
) -> None:
    """Edge case 7, over the whole input space."""
    state = state_from_pidf(is_open, names, show, is_idle=is_idle)
    if state is Availability.AVAILABLE:
        assert is_open is not False
        assert is_open or show is not None
        assert not is_idle
        assert show in (None, "", "chat")
    if is_open is False:
        assert state is Availability.OFFLINE
