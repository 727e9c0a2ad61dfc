"""Timer table, timer queue and the memory of finished transactions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.sip.timers import BATCH_KEYS, BATCH_SECONDS, Afterlife, Lane, Timer, TimerQueue, TimerTable


class Machine:
    def __init__(self) -> None:
        self.repeat_lane: Lane | None = None
        self.limit_lane: Lane | None = None


def test_default_durations_are_those_of_table_4() -> None:
    timers = TimerTable()
    assert (timers.t1, timers.t2, timers.t4, timers.timeout) == (0.5, 4.0, 5.0, 32.0)
    assert timers.d >= 32
    assert timers.c > 180
    assert timers.late_trying == 3.5  # 0.5 + 1 + 2


def test_a_scaled_t1_scales_what_follows_from_it() -> None:
    assert TimerTable(t1=0.01).timeout == 0.64


def test_a_timer_fires_once_at_its_time() -> None:
    queue, machine = TimerQueue(), Machine()
    queue.arm_limit(machine, queue.lane(Timer.F, 32.0), 100.0)
    assert queue.next_deadline() == 132.0
    assert list(queue.due(131.9)) == []
    assert list(queue.due(132.0)) == [(machine, Timer.F)]
    assert machine.limit_lane is None
    assert list(queue.due(200.0)) == []
    assert queue.next_deadline() is None


def test_a_machine_has_one_repeating_and_one_limiting_timer() -> None:
    queue, machine = TimerQueue(), Machine()
    queue.arm_limit(machine, queue.lane(Timer.F, 32.0), 0.0)
    queue.arm_repeat(machine, queue.lane(Timer.E, 0.5), 0.0)
    queue.arm_repeat(machine, queue.lane(Timer.E, 1.0), 0.0)
    assert len(queue) == 2
    assert list(queue.due(1.0)) == [(machine, Timer.E)]
    queue.disarm_repeat(machine)
    assert len(queue) == 1


def test_a_disarmed_timer_leaves_nothing_behind() -> None:
    queue, machine = TimerQueue(), Machine()
    queue.arm_limit(machine, queue.lane(Timer.F, 32.0), 0.0)
    queue.arm_repeat(machine, queue.lane(Timer.E, 0.5), 0.0)
    queue.disarm(machine)
    assert len(queue) == 0
    assert list(queue.due(1000.0)) == []


def test_a_machine_may_arm_again_while_timers_fire() -> None:
    queue, machine = TimerQueue(), Machine()
    lane = queue.lane(Timer.E, 1.0)
    queue.arm_repeat(machine, lane, 0.0)
    fired = 0
    for fired_machine, _ in queue.due(1.0):
        fired += 1
        queue.arm_repeat(fired_machine, lane, 1.0)
    assert fired == 1
    assert queue.next_deadline() == 2.0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 7),
            st.sampled_from(["arm_repeat", "arm_limit", "disarm", "pass"]),
            st.sampled_from([0.5, 1.0, 4.0]),
        ),
        max_size=30,
    )
)
def test_next_deadline_is_never_late_and_every_timer_fires_exactly_when_due(
    script: list[tuple[int, str, float]],
) -> None:
    queue, now = TimerQueue(), 0.0
    machines = [Machine() for _ in range(8)]
    expected: dict[tuple[int, str], float] = {}
    for index, what, seconds in script:
        machine = machines[index]
        if what == "pass":
            now += seconds
            fired = [machines.index(m) for m, _ in queue.due(now)]  # type: ignore[arg-type]  # only Machines are in
            due = [key for key, deadline in expected.items() if deadline <= now]
            assert sorted(fired) == sorted(key[0] for key in due)
            for key in due:
                del expected[key]
        elif what == "disarm":
            queue.disarm(machine)
            expected.pop((index, "arm_repeat"), None)
            expected.pop((index, "arm_limit"), None)
        else:
            timer = Timer.E if what == "arm_repeat" else Timer.F
            getattr(queue, what)(machine, queue.lane(timer, seconds), now)
            expected[index, what] = now + seconds
        assert len(queue) == len(expected)
        if expected:
            deadline = queue.next_deadline()
            assert deadline is not None
            assert deadline <= min(expected.values())


def test_an_answer_is_kept_for_its_time_and_hardly_longer() -> None:
    answers: Afterlife[str, bytes] = Afterlife(32.0, 10)
    answers.add("one", b"202", 100.0)
    answers.expire(132.0)
    assert answers.get("one") == b"202"
    deadline = answers.next_deadline()
    assert deadline is not None
    assert 132.0 <= deadline <= 132.0 + BATCH_SECONDS
    answers.expire(deadline)
    assert answers.get("one") is None
    assert len(answers) == 0
    assert answers.next_deadline() is None


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=60))
def test_no_answer_is_forgotten_early(pauses: list[float]) -> None:
    answers: Afterlife[int, bool] = Afterlife(2.0, 1000)
    now = 0.0
    added: dict[int, float] = {}
    for key, pause in enumerate(pauses):
        now += pause
        answers.expire(now)
        for old, at in added.items():
            assert (old in answers) or now >= at + 2.0
        answers.add(key, True, now)
        added[key] = now


def test_beyond_its_capacity_the_oldest_answers_are_shed() -> None:
    answers: Afterlife[int, bool] = Afterlife(32.0, 5000)
    for key in range(20_000):
        answers.add(key, True, 1.0)
        assert len(answers) <= 5000
    assert 19_999 in answers
    assert len(answers) > 5000 - 2 * BATCH_KEYS
    assert 0 not in answers
