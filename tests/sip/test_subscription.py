"""RFC 6665 at both ends: states, times, and what each failure means for the next subscription."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.message import SipRequest
from isthmus.sip.parser import parse_message
from isthmus.sip.subscription import (
    NOTIFIER_STEPS,
    Aftermath,
    NotifierInput,
    NotifyEffect,
    SubscriberUsage,
    SubscriptionState,
    SubscriptionStatus,
    after_refresh_failed,
    after_subscribe_failed,
    after_terminated,
    granted_expires,
    is_notify_for,
    notifier_step,
    notify_effect,
    refresh_delay,
    retry_delay,
    subscription_state_header,
)

RANDOM = st.floats(0, 1, exclude_max=True)


# --- Subscription-State -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("active;expires=3000", SubscriptionStatus(SubscriptionState.ACTIVE, expires=3000)),
        ("Pending ; Expires=60", SubscriptionStatus(SubscriptionState.PENDING, expires=60)),
        ("terminated;reason=Rejected", SubscriptionStatus(SubscriptionState.TERMINATED, "rejected")),
        (
            "terminated;reason=probation;retry-after=30",
            SubscriptionStatus(SubscriptionState.TERMINATED, "probation", retry_after=30),
        ),
        ("waiting", SubscriptionStatus(SubscriptionState.ACTIVE)),
        ("active;expires=-1", SubscriptionStatus(SubscriptionState.ACTIVE)),
        ("active;expires=99999999999", SubscriptionStatus(SubscriptionState.ACTIVE)),
        ("active;expires=5;expires=9", SubscriptionStatus(SubscriptionState.ACTIVE, expires=5)),
    ],
)
def test_a_subscription_state_is_read(text: str, expected: SubscriptionStatus) -> None:
    assert SubscriptionStatus.parse(text) == expected


@pytest.mark.parametrize("text", ["", ";expires=3", "active;=", 'active;reason="'])
def test_a_malformed_subscription_state_is_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        SubscriptionStatus.parse(text)


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(SipParseError):
        SubscriptionStatus.parse(text)


@given(
    st.sampled_from(SubscriptionState),
    st.sampled_from(["", "timeout", "rejected", "giveup"]),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read_back(
    state: SubscriptionState, reason: str, expires: int | None, retry_after: int | None
) -> None:
    if state is SubscriptionState.TERMINATED:
        expires = None
    status = SubscriptionStatus(state, reason, expires, retry_after)
    assert SubscriptionStatus.parse(str(status)) == status


def test_the_header_is_built_from_plain_values() -> None:
    assert subscription_state_header("active", expires=59.6) == "active;expires=60"
    assert subscription_state_header("pending", expires=-3) == "pending;expires=0"
    assert subscription_state_header("terminated", reason="timeout", expires=3) == "terminated;reason=timeout"
    text = subscription_state_header("terminated", reason="probation", retry_after=30)
    assert text == "terminated;reason=probation;retry-after=30"


# --- the notifier -------------------------------------------------------------------------------------------------


def test_every_pair_of_a_living_state_and_an_input_is_a_row() -> None:
    living = (SubscriptionState.PENDING, SubscriptionState.ACTIVE)
    assert set(NOTIFIER_STEPS) == {(state, happened) for state in living for happened in NotifierInput}


@given(st.lists(st.sampled_from(NotifierInput), max_size=20))
def test_a_terminated_subscription_stays_so_and_tells_its_end_once(script: list[NotifierInput]) -> None:
    state, endings = SubscriptionState.PENDING, 0
    for happened in script:
        before = state
        step = notifier_step(state, happened)
        state = step.state
        endings += step.is_notified and state is SubscriptionState.TERMINATED
        assert not (before is SubscriptionState.TERMINATED and state is not before)
        assert bool(step.reason) == (step.is_notified and state is SubscriptionState.TERMINATED)
    assert endings <= 1


def test_a_pending_watcher_learns_nothing_of_the_resource() -> None:
    assert not notifier_step(SubscriptionState.PENDING, NotifierInput.CHANGED).is_notified


@pytest.mark.parametrize("state", [SubscriptionState.PENDING, SubscriptionState.ACTIVE])
def test_an_expired_subscription_is_never_told_as_a_refusal(state: SubscriptionState) -> None:
    """Edge case 8."""
    for happened in (NotifierInput.EXPIRED, NotifierInput.UNSUBSCRIBED):
        assert notifier_step(state, happened).reason == "timeout"
    assert notifier_step(state, NotifierInput.REFUSED).reason == "rejected"
    assert notifier_step(state, NotifierInput.WITHDRAWN).reason == "deactivated"


def test_every_refresh_is_answered_by_a_notification() -> None:
    for state in (SubscriptionState.PENDING, SubscriptionState.ACTIVE):
        step = notifier_step(state, NotifierInput.SUBSCRIBED)
        assert step.is_notified
        assert step.state is state


@pytest.mark.parametrize("status", range(300, 700))
def test_notify_failures_that_end_the_subscription_are_those_of_the_table(status: int) -> None:
    gone = {404, 405, 408, 410, 416, *range(480, 486), 489, 501, 604}
    assert (notify_effect(status) is NotifyEffect.REMOVE) == (status in gone)


@pytest.mark.parametrize(
    ("wanted", "granted"), [(None, 3600), (0, 0), (60, 60), (600, 600), (7200, 7200), (99999, 7200)]
)
def test_a_lifetime_is_granted_up_to_what_was_wanted(wanted: int | None, granted: int) -> None:
    assert granted_expires(wanted, minimum=60, default=3600, maximum=7200) == granted


def test_a_short_lifetime_is_refused_423_unless_it_is_an_hour() -> None:
    with pytest.raises(SipParseError) as caught:
        granted_expires(59, minimum=60, default=3600, maximum=7200)
    assert caught.value.status == 423
    assert granted_expires(3600, minimum=7000, default=7200, maximum=7200) == 3600


# --- the subscriber -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "aftermath"),
    [
        ("deactivated", Aftermath.RESUBSCRIBE_NOW),
        ("timeout", Aftermath.RESUBSCRIBE_NOW),
        ("probation", Aftermath.RETRY_LATER),
        ("giveup", Aftermath.RETRY_LATER),
        ("rejected", Aftermath.REFUSED),
        ("noresource", Aftermath.NO_SUCH_RESOURCE),
        ("invariant", Aftermath.FINISHED),
        ("", Aftermath.RETRY_LATER),
        ("invented", Aftermath.RETRY_LATER),
    ],
)
def test_each_reason_of_termination_has_its_aftermath(reason: str, aftermath: Aftermath) -> None:
    assert after_terminated(SubscriptionStatus(SubscriptionState.TERMINATED, reason)) is aftermath


def test_only_a_rejection_ends_the_authorisation() -> None:
    """Edge case 8: a timeout must never look like a refusal."""
    for reason in ("deactivated", "timeout", "probation", "giveup", "noresource", "invariant", "", "x"):
        assert after_terminated(SubscriptionStatus(SubscriptionState.TERMINATED, reason)) is not Aftermath.REFUSED


def test_a_peer_that_asks_for_patience_gets_it() -> None:
    status = SubscriptionStatus(SubscriptionState.TERMINATED, "timeout", retry_after=60)
    assert after_terminated(status) is Aftermath.RETRY_LATER


@pytest.mark.parametrize("status", range(300, 700))
def test_each_failure_of_a_refresh_has_its_row(status: int) -> None:
    """STANDARDS 1.4, machine A; edge case 6: 423 repeats, 403 and 489 stop."""
    if status in {403, 489, 603}:
        expected = Aftermath.REFUSED
    elif status in {404, 410, 604}:
        expected = Aftermath.NO_SUCH_RESOURCE
    elif status == 423:
        expected = Aftermath.REPEAT_WITH_MINIMUM
    elif status == 481:
        expected = Aftermath.RESUBSCRIBE_NOW
    elif status in {405, 416, 480, 482, 483, 484, 485, 501}:
        expected = Aftermath.RETRY_LATER
    else:
        expected = Aftermath.KEPT
    assert after_refresh_failed(status) is expected


@pytest.mark.parametrize("status", range(300, 700))
def test_a_failed_first_subscribe_is_never_kept(status: int) -> None:
    aftermath = after_subscribe_failed(status)
    assert aftermath is not Aftermath.KEPT
    assert (aftermath is Aftermath.REFUSED) == (status in {403, 489, 603})


@given(st.floats(1, 86400), RANDOM)
def test_a_refresh_comes_in_time_and_not_too_often(expires: float, random: float) -> None:
    delay = refresh_delay(expires, random)
    assert expires / 2 <= delay <= expires * 0.9
    if expires >= 320:
        assert expires * 0.7 - 1e-6 <= delay
        assert expires - delay >= 31.9


def test_watchers_that_began_together_do_not_refresh_together() -> None:
    """Edge case 6: no storm after a restart."""
    delays = {round(refresh_delay(3600, step / 100)) for step in range(100)}
    assert len(delays) == 100
    assert max(delays) - min(delays) > 700


@given(st.integers(0, 10_000), RANDOM)
def test_a_back_off_grows_to_an_hour(attempt: int, random: float) -> None:
    delay = retry_delay(attempt, random)
    assert 24 <= delay <= 4320
    if attempt >= 7:
        assert delay >= 2880


@given(st.integers(0, 2**32 - 1), RANDOM)
def test_retry_after_is_honoured_up_to_a_day(seconds: int, random: float) -> None:
    delay = retry_delay(5, random, seconds)
    assert min(seconds, 86400) <= delay <= min(seconds, 86400) * 1.2 + 1


def make_subscribed(expires: float = 3600) -> SubscriberUsage:
    usage = SubscriberUsage()
    usage.subscribe_sent(0.0, 32.0)
    usage.subscribe_accepted(expires, 0.1, 0.5)
    return usage


def active(expires: int | None = None) -> SubscriptionStatus:
    return SubscriptionStatus(SubscriptionState.ACTIVE, expires=expires)


def test_a_subscription_without_a_notify_is_gone_after_timer_n() -> None:
    usage = make_subscribed()
    assert usage.next_deadline() == 32.0
    assert usage.handle_timer(31.9) is None
    assert usage.handle_timer(32.0) is Aftermath.RETRY_LATER
    assert usage.state is SubscriptionState.TERMINATED
    assert usage.next_deadline() is None
    assert usage.handle_timer(99.0) is None


def test_a_notify_may_overtake_the_answer_to_its_subscribe() -> None:
    usage = SubscriberUsage()
    usage.subscribe_sent(0.0, 32.0)
    assert (
        usage.notify_received(SubscriptionStatus(SubscriptionState.PENDING, expires=3600), 0.1, 0.5) is Aftermath.KEPT
    )
    usage.subscribe_accepted(3600, 0.2, 0.5)
    assert usage.state is SubscriptionState.PENDING
    assert usage.notify_by is None


def test_a_subscription_is_refreshed_before_it_ends() -> None:
    usage = make_subscribed()
    usage.notify_received(active(3600), 0.2, 0.5)
    deadline = usage.next_deadline()
    assert deadline == pytest.approx(2880.1, abs=0.2)
    assert usage.handle_timer(2881.0) is Aftermath.KEPT
    assert usage.handle_timer(2881.0) is None
    usage.subscribe_sent(2881.0, 32.0)
    usage.subscribe_accepted(3600, 2881.1, 0.5)
    assert usage.expires_at == pytest.approx(6481.1)


def test_a_notifier_may_shorten_a_lifetime_but_not_lengthen_it() -> None:
    usage = make_subscribed()
    usage.notify_received(active(600), 1.0, 0.5)
    assert usage.expires_at == 601.0
    usage.notify_received(active(9000), 2.0, 0.5)
    assert usage.expires_at == 601.0
    usage.notify_received(active(), 3.0, 0.5)
    assert usage.expires_at == 601.0


def test_a_refresh_that_failed_for_now_is_tried_again_before_the_end() -> None:
    usage = make_subscribed(600)
    usage.notify_received(active(600), 0.2, 0.5)
    tries, now = 0, usage.refresh_at or 0.0
    while True:
        outcome = usage.handle_timer(now)
        if outcome is Aftermath.RETRY_LATER:
            break
        if outcome is Aftermath.KEPT:
            tries += 1
            usage.subscribe_sent(now, 32.0)
            assert usage.refresh_failed(503, now, 0.5) is Aftermath.KEPT
        deadline = usage.next_deadline()
        assert deadline is not None
        now = max(deadline, now)
    assert 2 <= tries <= 20
    assert now == pytest.approx(600.1, abs=0.2)


def test_a_refresh_that_found_nothing_ends_the_subscription() -> None:
    usage = make_subscribed()
    usage.notify_received(active(), 0.2, 0.5)
    assert usage.refresh_failed(481, 10.0, 0.5) is Aftermath.RESUBSCRIBE_NOW
    assert usage.next_deadline() is None


def test_a_423_leaves_the_subscription_as_it_was() -> None:
    usage = make_subscribed()
    usage.notify_received(active(), 0.2, 0.5)
    assert usage.refresh_failed(423, 10.0, 0.5) is Aftermath.REPEAT_WITH_MINIMUM
    assert usage.state is SubscriptionState.ACTIVE
    assert usage.next_deadline() is not None


def test_a_terminating_notify_ends_it_with_its_aftermath() -> None:
    usage = make_subscribed()
    status = SubscriptionStatus(SubscriptionState.TERMINATED, "rejected")
    assert usage.notify_received(status, 1.0, 0.5) is Aftermath.REFUSED
    assert usage.next_deadline() is None


def make(method: str, from_tag: str, to_tag: str, event: str, call_id: str = "c1") -> SipRequest:
    text = (
        f"{method} sip:x@y.test SIP/2.0\r\nVia: SIP/2.0/UDP z.test;branch=z9hG4bK1\r\n"
        f"From: <sip:a@b.test>;tag={from_tag}\r\n"
        f"To: <sip:c@d.test>{';tag=' + to_tag if to_tag else ''}\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n"
        f"Event: {event}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
    message = parse_message(text.encode())
    assert isinstance(message, SipRequest)
    return message


def test_a_notify_is_matched_by_call_id_our_tag_and_event() -> None:
    """RFC 6665 section 4.4.1."""
    subscribe = make("SUBSCRIBE", "ours", "", "presence;id=3")
    assert is_notify_for(make("NOTIFY", "theirs", "ours", "Presence;id=3"), subscribe)
    assert not is_notify_for(make("NOTIFY", "theirs", "other", "presence;id=3"), subscribe)
    assert not is_notify_for(make("NOTIFY", "theirs", "ours", "presence"), subscribe)
    assert not is_notify_for(make("NOTIFY", "theirs", "ours", "dialog;id=3"), subscribe)
    assert not is_notify_for(make("NOTIFY", "theirs", "ours", "presence;id=3", "c2"), subscribe)
