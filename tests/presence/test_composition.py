"""How many devices become one person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.model import Address, Availability, Device, Presence, PresenceSource
from isthmus.presence.composition import PRECEDENCE, compose, compose_document
from isthmus.presence.pidf import parse_pidf, write_pidf

NOW = 1_795_369_200.0
ANA = Address("ana", "corp.test")
A = Availability


def device(state: Availability, idle_since: float | None = None, name: str = "phone", priority: int = 0) -> Device:
    return Device(name, Presence(state, idle_since=idle_since), priority)


@pytest.mark.parametrize(
    ("states", "expected"),
    [([], A.UNKNOWN), ([A.OFFLINE, A.OFFLINE], A.OFFLINE), ([A.OFFLINE, A.AWAY], A.AWAY),
     ([A.AWAY, A.AVAILABLE], A.AVAILABLE), ([A.AVAILABLE, A.BUSY], A.BUSY), ([A.AVAILABLE, A.IN_A_CALL], A.IN_A_CALL),
     ([A.IN_A_CALL, A.DO_NOT_DISTURB], A.DO_NOT_DISTURB), ([A.UNKNOWN, A.OFFLINE], A.OFFLINE),
     ([A.INACTIVE, A.OFF_WORK], A.INACTIVE), ([A.UNKNOWN, A.AVAILABLE], A.AVAILABLE)],
)  # fmt: skip
def test_the_most_telling_device_speaks_for_the_person(states: list[Availability], expected: Availability) -> None:
    assert compose([device(state, name=str(n)) for n, state in enumerate(states)]).state is expected


def test_somebody_is_idle_only_when_every_device_is() -> None:
    active, idle = device(A.AVAILABLE, name="a"), device(A.INACTIVE, NOW - 60, "b")
    assert compose([active, idle]).idle_since is None
    assert compose([active, idle]).state is A.AVAILABLE
    assert compose([device(A.BUSY_INACTIVE, NOW - 60), active]).state is A.BUSY
    older = device(A.INACTIVE, NOW - 600, "c")
    assert compose([idle, older]).idle_since == NOW - 60


def test_manual_stands_over_call_over_calendar_over_devices() -> None:
    """Edge case 10: each source is told apart and shown."""
    phone = device(A.AVAILABLE)
    manual, call, calendar = Presence(A.DO_NOT_DISTURB, "Writing"), Presence(A.IN_A_CALL), Presence(A.IN_A_MEETING)
    everything = compose([phone], manual=manual, call=call, calendar=calendar)
    assert (everything.state, everything.source, everything.note) == (
        A.DO_NOT_DISTURB,
        PresenceSource.MANUAL,
        "Writing",
    )
    assert compose([phone], call=call, calendar=calendar).source is PresenceSource.CALL
    assert compose([phone], calendar=calendar).state is A.IN_A_MEETING
    assert compose([phone]).state is A.AVAILABLE


def test_a_manual_state_needs_a_device_unless_it_hides() -> None:
    assert compose([], manual=Presence(A.AVAILABLE)).state is A.UNKNOWN
    away = compose([device(A.OFFLINE)], manual=Presence(A.OUT_OF_OFFICE, "Back on Monday"))
    assert (away.state, away.note) == (A.OFFLINE, "Back on Monday")
    assert compose([device(A.AVAILABLE)], manual=Presence(A.OFFLINE)).state is A.OFFLINE


def test_a_call_proves_that_somebody_is_there() -> None:
    assert compose([device(A.OFFLINE)], call=Presence(A.IN_A_CALL)).state is A.IN_A_CALL


def test_several_resources_are_several_services_and_the_last_one_closes_once() -> None:
    """Edge case 9."""
    both = compose_document(ANA, [device(A.AVAILABLE, name="phone"), device(A.AWAY, name="web")])
    assert [found.id for found in parse_pidf(write_pidf(both, now=NOW), NOW).devices] == ["phone", "web"]
    one = compose_document(ANA, [device(A.OFFLINE, name="phone"), device(A.AWAY, name="web")])
    assert [found.id for found in one.devices] == ["web"]
    none = compose_document(ANA, [device(A.OFFLINE, name="phone"), device(A.OFFLINE, name="web")])
    body = write_pidf(none, now=NOW)
    assert body.count(b"<basic>closed</basic>") == 1
    assert parse_pidf(body, NOW).person.state is A.OFFLINE


def test_appearing_offline_hides_every_device() -> None:
    hidden = compose_document(ANA, [device(A.AVAILABLE)], manual=Presence(A.OFFLINE))
    assert b"open" not in write_pidf(hidden, now=NOW)


def test_every_state_has_its_rank() -> None:
    assert sorted(PRECEDENCE) == sorted(Availability)


states = st.sampled_from(list(Availability))
people = st.lists(st.tuples(states, st.one_of(st.none(), st.just(NOW - 5))), max_size=5)


@given(people)
def test_the_order_of_devices_does_not_matter(rows: list[tuple[Availability, float | None]]) -> None:
    listed = [device(state, idle, name=str(number)) for number, (state, idle) in enumerate(rows)]
    assert compose(listed) == compose(listed[::-1])
    assert compose(listed).state.is_online == any(state.is_online for state, _ in rows)
