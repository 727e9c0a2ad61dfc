"""Many deadlines on one timer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.services.deadlines import Deadlines
from tests.support.clock import FakeClock


def test_a_single_deadline_is_met_to_the_moment() -> None:
    clock, due = FakeClock(), list[str]()
    deadlines = Deadlines(clock, due.append, width_seconds=1.0)
    deadlines.add("ana", clock.monotonic() + 60.5)
    clock.advance(60.4)
    assert not due
    clock.advance(0.1)
    assert due == ["ana"]


def test_an_earlier_deadline_that_comes_later_is_not_forgotten() -> None:
    clock, due = FakeClock(), list[str]()
    deadlines = Deadlines(clock, due.append, width_seconds=1.0)
    deadlines.add("ana", clock.monotonic() + 3_600)
    deadlines.add("ben", clock.monotonic() + 60)
    clock.advance(61)
    assert due == ["ben"]
    clock.advance(3_600)
    assert due == ["ben", "ana"]


def test_what_was_discarded_is_never_due() -> None:
    clock, due = FakeClock(), list[str]()
    deadlines = Deadlines(clock, due.append, width_seconds=1.0)
    at = clock.monotonic() + 60
    deadlines.add("ana", at)
    deadlines.add("ben", at)
    deadlines.discard("ana", at)
    deadlines.discard("nobody", at + 1_000)
    clock.advance(100)
    assert due == ["ben"]


def test_what_is_due_may_set_its_next_deadline() -> None:
    clock = FakeClock()
    times: list[float] = []

    def again(item: str) -> None:
        times.append(clock.monotonic())
        if len(times) < 3:
            deadlines.add(item, clock.monotonic() + 10)

    deadlines = Deadlines(clock, again, width_seconds=1.0)
    deadlines.add("ana", clock.monotonic() + 10)
    for _ in range(10):
        clock.advance(10)
    assert len(times) == 3


@given(st.lists(st.tuples(st.floats(0.0, 1_000.0), st.booleans()), max_size=60), st.sampled_from((0.05, 1.0, 30.0)))
def test_everything_is_due_once_never_early_and_hardly_late(wanted: list[tuple[float, bool]], width: float) -> None:
    clock = FakeClock()
    due: dict[int, float] = {}
    began = clock.monotonic()
    deadlines = Deadlines[int](
        clock, lambda item: due.__setitem__(item, clock.monotonic() - began), width_seconds=width
    )
    for item, (seconds, _) in enumerate(wanted):
        deadlines.add(item, began + seconds)
    for item, (seconds, is_discarded) in enumerate(wanted):
        if is_discarded:
            deadlines.discard(item, began + seconds)
    clock.advance(1_100)
    assert due.keys() == {item for item, (_, is_discarded) in enumerate(wanted) if not is_discarded}
    for item, at in due.items():
        assert wanted[item][0] - 0.01 <= at <= wanted[item][0] + width + 0.01
