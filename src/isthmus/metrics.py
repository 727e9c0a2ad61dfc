"""Counters and timings, cheap enough for every message; `admin.web` shows them to Prometheus.

Like `trace` this module sits at the bottom and knows strings and numbers only: an increment is one dictionary
operation, without locks (one event loop) and without the exposition format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Label values come partly from outside (methods, domains): what is new beyond this many is counted as "other",
# so that nobody can grow our memory or the scrape by inventing names.
MAXIMUM_LABEL_SETS = 1_000

# From one millisecond (local delivery) to a minute (a phone that answers late), in seconds.
DEFAULT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(slots=True)
class Counter:
    """A family of counters that only grow.

    Attributes:
        name: without the suffix `_total`.
        labels: label names, in the order of `add`.
        values: current number by label values.
    """

    name: str
    text: str
    labels: tuple[str, ...] = ()
    values: dict[tuple[str, ...], float] = field(default_factory=dict)

    def add(self, *labels: str, by: float = 1) -> None:
        """Count once (or `by`) for these label values."""
        values = self.values
        if labels in values:
            values[labels] += by
            return
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} takes the labels {self.labels}, not {labels}")
        if len(values) >= MAXIMUM_LABEL_SETS:
            labels = ("other",) * len(self.labels)
        values[labels] = values.get(labels, 0) + by

    def value(self, *labels: str) -> float:
        """Return the number for these label values, 0 when never counted."""
        return self.values.get(labels, 0)


@dataclass(slots=True)
class Durations:
    """A family of histograms of seconds; `buckets` holds counts per bound plus one beyond the last."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = DEFAULT_BOUNDS
    buckets: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    sums: dict[tuple[str, ...], float] = field(default_factory=dict)

    def observe(self, seconds: float, *labels: str) -> None:
        """Note one duration."""
        counts = self.buckets.get(labels)
        if counts is None:
            if len(self.buckets) >= MAXIMUM_LABEL_SETS:
                labels = ("other",) * len(self.labels)
            counts = self.buckets.setdefault(labels, [0] * (len(self.bounds) + 1))
            self.sums.setdefault(labels, 0.0)
        counts[bisect_left(self.bounds, seconds)] += 1
        self.sums[labels] += seconds


@dataclass(slots=True)
class Gauge:
    """A number that is read when somebody asks; `read` returns it by label values."""

    name: str
    text: str
    labels: tuple[str, ...]
    read: Callable[[], Mapping[tuple[str, ...], float]]


class Metrics:
    """Everything that is counted, by name; one object per process, handed to whoever counts.

    Directions are "to-consumer", "to-business" and "internal"; on the wire they are "in" and "out".
    """

    def __init__(self) -> None:
        self.messages_accepted = Counter("isthmus_messages_accepted", "Messages acknowledged", ("direction",))
        self.messages_settled = Counter(
            "isthmus_messages_settled", "Messages delivered, failed or expired", ("direction", "outcome")
        )
        self.message_delivery = Durations(
            "isthmus_message_delivery_seconds", "From acknowledged to delivered", ("direction",)
        )
        self.refusals = Counter("isthmus_refusals", "What was refused, by deciding rule", ("rule",))
        self.authentication_failures = Counter(
            "isthmus_authentication_failures", "SIP requests whose sender could not be proven", ("reason",)
        )
        self.rate_limited = Counter("isthmus_rate_limited", "Requests beyond a rate limit", ("scope",))
        self.sip_messages = Counter("isthmus_sip_messages", "SIP messages on the wire", ("direction", "kind"))
        self.sip_malformed = Counter(
            "isthmus_sip_malformed", "Bytes that were no SIP message we accept", ("transport",)
        )
        self.stanzas = Counter("isthmus_stanzas", "XMPP stanzas on the wire", ("direction", "kind"))
        self.link_losses = Counter("isthmus_xmpp_link_losses", "Component streams lost", ("domain",))
        self.notifications = Counter("isthmus_notifications", "NOTIFY requests sent", ("event",))
        self.calls_begun = Counter("isthmus_calls_begun", "Calls that were admitted", ("direction",))
        self.calls_ended = Counter("isthmus_calls_ended", "Calls that are over or were refused", ("cause",))
        self.call_setup = Durations("isthmus_call_setup_seconds", "From invited to answered", ("direction",))
        self.relay_commands = Durations("isthmus_relay_command_seconds", "Commands to media relays", ("command",))
        self.relay_failures = Counter(
            "isthmus_relay_failures", "Commands that a media relay refused or did not answer", ("command", "outcome")
        )
        self._gauges: dict[str, Gauge] = {}

    def watch(
        self,
        name: str,
        text: str,
        read: Callable[[], float | Mapping[Any, float]],
        labels: tuple[str, ...] = (),
    ) -> None:
        """Show a number that `read` returns at each scrape: plain, or by tuples of label values."""

        def by_labels() -> Mapping[tuple[str, ...], float]:
            found = read()
            return found if isinstance(found, Mapping) else {(): found}

        self._gauges[name] = Gauge(name, text, labels, by_labels)

    def counters(self) -> Iterator[Counter]:
        """All counters, in order of definition."""
        return (member for member in vars(self).values() if isinstance(member, Counter))

    def durations(self) -> Iterator[Durations]:
        """All histograms."""
        return (member for member in vars(self).values() if isinstance(member, Durations))

    def gauges(self) -> Iterator[Gauge]:
        """All watched numbers."""
        return iter(tuple(self._gauges.values()))
