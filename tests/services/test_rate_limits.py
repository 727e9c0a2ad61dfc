"""Rates are bounded per source, person and neighbour, and so are the tables that count them."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.config import LimitSettings
from isthmus.model import Address
from isthmus.services import rate_limits
from isthmus.services.rate_limits import RateLimits, TokenBuckets
from tests.support.clock import FakeClock

ANA = Address("ana", "corp.test")


def limits(clock: FakeClock) -> RateLimits:
    settings = LimitSettings(user_requests_per_second=2, user_burst=3, unauthenticated_per_second=1, peer_burst=10)
    return RateLimits(settings, clock.monotonic)


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    clock = FakeClock()
    rates = limits(clock)
    assert [rates.user(ANA) for _ in range(3)] == [None, None, None]
    excess = rates.user(ANA)
    assert excess is not None
    assert excess.sip_status == 480
    assert excess.retry_after == ("Retry-After", "1")
    clock.advance(0.5)
    assert rates.user(ANA) is None
    assert rates.user(ANA) is not None


def test_one_person_does_not_use_up_the_rate_of_another() -> None:
    rates = limits(FakeClock())
    while rates.user(ANA) is None:
        pass
    assert rates.user(Address("bea", "corp.test")) is None


def test_a_flooding_source_is_told_that_the_server_wants_to_be_spared() -> None:
    rates = limits(FakeClock())
    excess = None
    while excess is None:
        excess = rates.unauthenticated("203.0.113.9")
    assert excess.sip_status == 503
    assert excess.rule == "limit.source"


def test_a_flood_is_news_once_in_a_while() -> None:
    clock = FakeClock()
    rates = RateLimits(LimitSettings(unauthenticated_per_second=1, unauthenticated_burst=1), clock.monotonic)
    found = [rates.unauthenticated("203.0.113.1") for _ in range(50)]
    assert found[0] is None
    assert [excess.is_news for excess in found[1:] if excess is not None] == [True] + [False] * 48
    other = [rates.unauthenticated("203.0.113.2") for _ in range(2)][1]
    assert other is not None
    assert other.is_news
    clock.advance(10.5)
    again = [rates.unauthenticated("203.0.113.1") for _ in range(2)][1]
    assert again is not None
    assert again.is_news


def test_a_failure_for_the_other_realm_is_never_503() -> None:
    rates = limits(FakeClock())
    excess = None
    while excess is None:
        excess = rates.peer("flood.test")
    failure = excess.failure()
    assert (failure.status, failure.condition, failure.is_temporary) == (480, "policy-violation", True)


def test_the_tables_stay_bounded_under_a_flood_of_sources() -> None:
    clock = FakeClock()
    buckets: TokenBuckets[int] = TokenBuckets(1, 100, clock.monotonic)
    limit = rate_limits.MAXIMUM_BUCKETS
    for key in range(limit + 10):
        buckets.take(key)
    assert len(buckets) <= limit


def test_a_rate_of_zero_switches_the_limit_off() -> None:
    buckets: TokenBuckets[str] = TokenBuckets(0, 1, FakeClock().monotonic)
    assert all(buckets.take("x") == 0.0 for _ in range(1000))


@given(st.lists(st.floats(min_value=0, max_value=3, allow_nan=False), max_size=50))
def test_never_more_than_burst_plus_rate_times_time_passes(pauses: list[float]) -> None:
    clock = FakeClock()
    buckets: TokenBuckets[str] = TokenBuckets(2.0, 4.0, clock.monotonic)
    began = clock.monotonic()
    passed = 0
    for pause in pauses:
        clock.advance(pause)
        while buckets.take("k") == 0.0:
            passed += 1
    assert passed <= 4.0 + 2.0 * (clock.monotonic() - began) + 1e-6
