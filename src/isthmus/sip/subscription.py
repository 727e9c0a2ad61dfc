"""Subscriptions to event packages, seen from both ends (RFC 6665): states, times, and what each failure means.

The tables follow the two state machines of presence across realms: a subscriber keeps an authorisation alive through
an endless chain of subscriptions, so every end of one says what becomes of the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from isthmus.errors import SipParseError
from isthmus.sip.headers import parse_parameterised
from isthmus.sip.message import SipRequest, SipResponse

MAXIMUM_SECONDS = 2**32 - 1

# A refresh is sent when this part of the lifetime is over, give or take the jitter, so that subscriptions that began
# together (a restart) do not stay together, and a lost refresh can be repeated before the end.
REFRESH_POINT = 0.8
REFRESH_JITTER = 0.1
# What a refresh may take: Timer F. Subscriptions too short for that are refreshed at half time.
REFRESH_MARGIN_SECONDS = 32.0

# Back-off of a subscription that failed for now: long enough for a peer to restart, short enough for a person to wait.
FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 3600.0
RETRY_JITTER = 0.2


class SubscriptionState(StrEnum):
    """The value of Subscription-State (RFC 6665 section 4.1.3). Unknown values count as active."""

    PENDING = "pending"
    ACTIVE = "active"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class SubscriptionStatus:
    """A Subscription-State header field.

    Attributes:
        state: pending, active or terminated.
        reason: why it was terminated, lower-case; empty when not told.
        expires: seconds left, None when not told.
        retry_after: seconds to wait before a new subscription, None when not told.
    """

    state: SubscriptionState
    reason: str = ""
    expires: int | None = None
    retry_after: int | None = None

    @classmethod
    def parse(cls, text: str) -> SubscriptionStatus:
        """Read the header field.

        Raises:
            SipParseError: 400, malformed.
        """
        value, parameters = parse_parameterised(text)
        value = value.lower()
        if not value:
            raise SipParseError("Subscription-State is empty")
        state = SubscriptionState(value) if value in _STATES else SubscriptionState.ACTIVE
        named = dict(reversed(parameters))
        return cls(
            state,
            (named.get("reason") or "").lower(),
            _seconds(named.get("expires")),
            _seconds(named.get("retry-after")),
        )

    def __str__(self) -> str:
        text = self.state.value
        if self.reason:
            text += f";reason={self.reason}"
        if self.expires is not None and self.state is not SubscriptionState.TERMINATED:
            text += f";expires={self.expires}"
        if self.retry_after is not None:
            text += f";retry-after={self.retry_after}"
        return text


_STATES = frozenset(SubscriptionState)


def _seconds(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    return min(int(text), MAXIMUM_SECONDS)


def subscription_state_header(
    state: str, *, reason: str = "", expires: float | None = None, retry_after: int | None = None
) -> str:
    """Return the value of Subscription-State; `expires` in seconds."""
    seconds = None if expires is None else max(0, round(expires))
    return str(SubscriptionStatus(SubscriptionState(state), reason, seconds, retry_after))


# --- the notifier's side ----------------------------------------------------------------------------------------


def granted_expires(wanted: int | None, *, minimum: int, default: int, maximum: int) -> int:
    """Return the lifetime granted to a SUBSCRIBE, in seconds: at most what was wanted (section 4.2.1.1).

    Raises:
        SipParseError: 423, shorter than our minimum and than an hour; the answer needs Min-Expires.
    """
    if wanted is None:
        return min(default, maximum)
    if 0 < wanted < min(minimum, 3600):
        raise SipParseError(f"a subscription must last at least {minimum} seconds", status=423)
    return min(wanted, maximum)


class NotifyEffect(Enum):
    """What the answer to a NOTIFY does to the subscription."""

    KEEP = "the subscription goes on"
    REMOVE = "the subscriber has forgotten it"


# Section 4.2.2 with RFC 5057: these say that the subscription does not exist at the subscriber. 408 stands for the
# timeout of our transaction as well.
_NOTIFY_REMOVES = frozenset({404, 405, 408, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604})


def notify_effect(status: int) -> NotifyEffect:
    """Return what the final status of a NOTIFY means; pass 408 for a timeout."""
    return NotifyEffect.REMOVE if status in _NOTIFY_REMOVES else NotifyEffect.KEEP


class NotifierInput(Enum):
    """What can happen to a subscription at the notifier."""

    SUBSCRIBED = "the peer refreshed"
    UNSUBSCRIBED = "the peer sent Expires 0"
    APPROVED = "the presentity agreed"
    REFUSED = "the presentity refused, or withdrew its consent"
    CHANGED = "the state of the resource changed"
    EXPIRED = "the lifetime is over"
    NOTIFY_REMOVED = "a NOTIFY was answered so that `notify_effect` says REMOVE"
    WITHDRAWN = "we stop serving it: shutdown, or it moves to another node"


@dataclass(frozen=True, slots=True)
class NotifierStep:
    """The notifier's reaction.

    Attributes:
        state: next state.
        is_notified: a NOTIFY goes out.
        reason: its termination reason.
    """

    state: SubscriptionState
    is_notified: bool = True
    reason: str = ""


_P, _A, _T = SubscriptionState.PENDING, SubscriptionState.ACTIVE, SubscriptionState.TERMINATED
_N = NotifierInput

# Every refresh is answered by a NOTIFY, even when nothing changed (section 4.2.1.2). A pending subscriber learns
# nothing of the resource. Expiry is never told as a refusal (edge case 8).
NOTIFIER_STEPS: Mapping[tuple[SubscriptionState, NotifierInput], NotifierStep] = {
    (_P, _N.SUBSCRIBED): NotifierStep(_P),
    (_P, _N.UNSUBSCRIBED): NotifierStep(_T, reason="timeout"),
    (_P, _N.APPROVED): NotifierStep(_A),
    (_P, _N.REFUSED): NotifierStep(_T, reason="rejected"),
    (_P, _N.CHANGED): NotifierStep(_P, is_notified=False),
    (_P, _N.EXPIRED): NotifierStep(_T, reason="timeout"),
    (_P, _N.NOTIFY_REMOVED): NotifierStep(_T, is_notified=False),
    (_P, _N.WITHDRAWN): NotifierStep(_T, reason="deactivated"),
    (_A, _N.SUBSCRIBED): NotifierStep(_A),
    (_A, _N.UNSUBSCRIBED): NotifierStep(_T, reason="timeout"),
    (_A, _N.APPROVED): NotifierStep(_A, is_notified=False),
    (_A, _N.REFUSED): NotifierStep(_T, reason="rejected"),
    (_A, _N.CHANGED): NotifierStep(_A),
    (_A, _N.EXPIRED): NotifierStep(_T, reason="timeout"),
    (_A, _N.NOTIFY_REMOVED): NotifierStep(_T, is_notified=False),
    (_A, _N.WITHDRAWN): NotifierStep(_T, reason="deactivated"),
}


def notifier_step(state: SubscriptionState, happened: NotifierInput) -> NotifierStep:
    """Return the row; a terminated subscription stays so and says no more."""
    return NOTIFIER_STEPS.get((state, happened), NotifierStep(_T, is_notified=False))


# --- the subscriber's side --------------------------------------------------------------------------------------


class Aftermath(Enum):
    """What becomes of a subscriber's interest after a failure or the end of one subscription."""

    KEPT = "the subscription goes on until its old expiry; try again before"
    REPEAT_WITH_MINIMUM = "repeat at once with the Min-Expires of the 423"
    RESUBSCRIBE_NOW = "gone by accident: subscribe anew at once, with a new Call-ID"
    RETRY_LATER = "gone for now: subscribe anew after Retry-After or the back-off"
    REFUSED = "the other side said no: the authorisation itself has ended"
    NO_SUCH_RESOURCE = "nobody there: no more tries until the user acts, or once a day"
    FINISHED = "the resource will never change: keep what is known and stop"


# Section 4.1.3. Without a reason, or with one we do not know, any later time is right.
_AFTER_TERMINATED: Mapping[str, Aftermath] = {
    "deactivated": Aftermath.RESUBSCRIBE_NOW,
    "timeout": Aftermath.RESUBSCRIBE_NOW,
    "probation": Aftermath.RETRY_LATER,
    "giveup": Aftermath.RETRY_LATER,
    "rejected": Aftermath.REFUSED,
    "noresource": Aftermath.NO_SUCH_RESOURCE,
    "invariant": Aftermath.FINISHED,
}

# Refusals that will not change by waiting, whatever the state of the subscription.
_LASTING_FAILURES: Mapping[int, Aftermath] = {
    **dict.fromkeys((403, 489, 603), Aftermath.REFUSED),
    **dict.fromkeys((404, 410, 604), Aftermath.NO_SUCH_RESOURCE),
    423: Aftermath.REPEAT_WITH_MINIMUM,
}

# Section 4.1.2.2: a refresh that is answered so found no subscription. 481 is a notifier that restarted.
_AFTER_REFRESH: Mapping[int, Aftermath] = {
    **_LASTING_FAILURES,
    481: Aftermath.RESUBSCRIBE_NOW,
    **dict.fromkeys((405, 416, 480, 482, 483, 484, 485, 501), Aftermath.RETRY_LATER),
}


def after_terminated(status: SubscriptionStatus) -> Aftermath:
    """Return what a NOTIFY with a terminated subscription means for the next one; `retry_after` is to be kept."""
    aftermath = _AFTER_TERMINATED.get(status.reason, Aftermath.RETRY_LATER)
    if aftermath is Aftermath.RESUBSCRIBE_NOW and status.retry_after:
        return Aftermath.RETRY_LATER
    return aftermath


def after_subscribe_failed(status: int) -> Aftermath:
    """Return what a failure response to the first SUBSCRIBE means; pass 408 for a timeout, 503 for no connection."""
    return _LASTING_FAILURES.get(status, Aftermath.RETRY_LATER)


def after_refresh_failed(status: int) -> Aftermath:
    """Return what a failure response to a refresh means; pass 408 for a timeout, 503 for no connection."""
    return _AFTER_REFRESH.get(status, Aftermath.KEPT)


def retry_delay(attempt: int, random: float, retry_after: int | None = None) -> float:
    """Return seconds to wait before a new try: doubling from 30 s to an hour, ±20 %, never before Retry-After.

    Args:
        attempt: 0 for the first retry.
        random: between 0 and 1.
        retry_after: what the peer asked for, in seconds.
    """
    if retry_after is not None:
        # Everyone was told the same time: spread out after it, never before.
        return min(retry_after, 24 * 3600) * (1 + RETRY_JITTER * random) + random
    delay = min(FIRST_RETRY_SECONDS * 2.0 ** min(attempt, 16), LONGEST_RETRY_SECONDS)
    return delay * (1 + RETRY_JITTER * (2 * random - 1))


def refresh_delay(expires: float, random: float) -> float:
    """Return seconds after which a subscription that lasts `expires` seconds is refreshed: 70 to 90 % of it, with
    room for a refresh to be repeated.

    Args:
        expires: lifetime in seconds.
        random: between 0 and 1.
    """
    delay = expires * (REFRESH_POINT + REFRESH_JITTER * (2 * random - 1))
    return max(min(delay, expires - REFRESH_MARGIN_SECONDS), expires / 2)


def retry_after(response: SipResponse) -> int | None:
    """Return the seconds of Retry-After (RFC 3261 section 20.33), None when absent or unusable."""
    digits = (response.headers.get("Retry-After") or "").partition(";")[0].partition("(")[0].strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def is_notify_for(notify: SipRequest, subscribe: SipRequest) -> bool:
    """Tell whether a NOTIFY belongs to our SUBSCRIBE, before any dialog exists: it may overtake the 200
    (section 4.4.1): same Call-ID, its To tag is our From tag, same event package and id."""
    return (
        notify.call_id == subscribe.call_id
        and notify.to_address.tag == subscribe.from_address.tag
        and notify.event == subscribe.event
        and notify.event_id == subscribe.event_id
    )


@dataclass(slots=True)
class SubscriberUsage:
    """One subscription at the subscriber: its state and its times (section 4.1.2). Deadlines are monotonic seconds.

    Attributes:
        state: None until the first NOTIFY.
        expires_at: end of the lifetime as last told.
        refresh_at: when to send the next SUBSCRIBE, None when none is due.
        notify_by: Timer N: a NOTIFY must have come by then, None when one has.
        attempts: failed tries since the last success, for `retry_delay`.
    """

    state: SubscriptionState | None = None
    expires_at: float = 0.0
    refresh_at: float | None = None
    notify_by: float | None = None
    attempts: int = 0

    def subscribe_sent(self, now: float, timer_n_seconds: float) -> None:
        """Start Timer N with the first SUBSCRIBE and with every refresh."""
        self.notify_by = now + timer_n_seconds
        self.refresh_at = None

    def subscribe_accepted(self, expires: float, now: float, random: float) -> None:
        """Take the lifetime of a 2xx; 200 and 202 mean the same (RFC 6665 section 8.3.1)."""
        self.attempts = 0
        self._lasts(expires, now, random)

    def refresh_failed(self, status: int, now: float, random: float, retry_after: int | None = None) -> Aftermath:
        """Take a failed refresh: when the subscription survives it, another try comes before the old expiry."""
        aftermath = after_refresh_failed(status)
        self.notify_by = None
        if aftermath is Aftermath.KEPT:
            wait = retry_delay(self.attempts, random, retry_after)
            self.attempts += 1
            self.refresh_at = min(now + wait, max(now + (self.expires_at - now) / 2, now + 1.0))
        elif aftermath is not Aftermath.REPEAT_WITH_MINIMUM:
            self._end()
        return aftermath

    def notify_received(self, status: SubscriptionStatus, now: float, random: float) -> Aftermath:
        """Take a NOTIFY of this subscription."""
        self.notify_by = None
        if status.state is SubscriptionState.TERMINATED:
            self._end()
            return after_terminated(status)
        self.state = status.state
        # The notifier may shorten the lifetime at any time, not lengthen it (section 4.1.3).
        if status.expires is not None and (not self.expires_at or now + status.expires < self.expires_at):
            self._lasts(status.expires, now, random)
        return Aftermath.KEPT

    def next_deadline(self) -> float | None:
        """Return when `handle_timer` should be called, or None."""
        if self.state is SubscriptionState.TERMINATED:
            return None
        deadlines = [self.notify_by, self.refresh_at, self.expires_at or None]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timer(self, now: float) -> Aftermath | None:
        """Return RETRY_LATER when Timer N fired or the lifetime ended without a refresh; KEPT when a refresh is due
        now; None when nothing is."""
        if self.state is SubscriptionState.TERMINATED:
            return None
        if (self.notify_by is not None and now >= self.notify_by) or (self.expires_at and now >= self.expires_at):
            self._end()
            return Aftermath.RETRY_LATER
        if self.refresh_at is not None and now >= self.refresh_at:
            self.refresh_at = None
            return Aftermath.KEPT
        return None

    def _lasts(self, expires: float, now: float, random: float) -> None:
        self.expires_at = now + expires
        self.refresh_at = now + refresh_delay(expires, random)

    def _end(self) -> None:
        self.state = SubscriptionState.TERMINATED
        self.refresh_at = self.notify_by = None
        self.expires_at = 0.0
