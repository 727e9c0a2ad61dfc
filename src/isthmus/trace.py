"""The wire and decision log: what crossed, what was decided, and why, live for whoever listens.

Marks: `>` sent, `<` received, `=` state change or decision, `x` closing, `!` error, `%` keep-alive.
This module sits at the bottom and knows strings only, so every layer may write to it. Nothing is formatted
unless somebody listens: check `trace.is_listened_to` before building an expensive text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

# Enough to see the last minutes of a busy domain's refusals without growing with traffic.
MAXIMUM_RECENT_DECISIONS = 2_000


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One line of the trace.

    Attributes:
        at: Unix seconds.
        mark: one of `> < = x ! %`.
        link: where, e.g. `sip udp 127.0.0.1:5060` or `xmpp corp.test` or `policy`.
        text: the message or the decision; bodies are left out unless the operator switched them on.
        call_id: call, dialog or message id that joins lines of one story.
        people: addresses concerned, as text.
        rule: deciding rule of a decision.
    """

    at: float
    mark: str
    link: str
    text: str
    call_id: str = ""
    people: tuple[str, ...] = ()
    rule: str = ""


Listener = Callable[[TraceLine], None]


@dataclass(slots=True)
class Trace:
    """Fan-out of trace lines to listeners; keeps the most recent decisions for `isthmus explain`."""

    wall: Callable[[], float]
    recent: deque[TraceLine] = field(default_factory=lambda: deque(maxlen=MAXIMUM_RECENT_DECISIONS))
    _listeners: list[Listener] = field(default_factory=list)

    @property
    def is_listened_to(self) -> bool:
        """True when somebody wants wire lines now."""
        return bool(self._listeners)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every line from now on; returns a function that ends it."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def wire(self, mark: str, link: str, text: str, *, call_id: str = "", people: Iterable[str] = ()) -> None:
        """Tell listeners about one message on the wire; costs nothing when nobody listens."""
        if self._listeners:
            self._tell(TraceLine(self.wall(), mark, link, text, call_id, tuple(people)))

    def decision(
        self, text: str, *, people: Iterable[str] = (), rule: str = "", call_id: str = "", mark: str = "="
    ) -> None:
        """Record a decision with its reason; kept in `recent` even when nobody listens."""
        line = TraceLine(self.wall(), mark, "decision", text, call_id, tuple(people), rule)
        self.recent.append(line)
        if self._listeners:
            self._tell(line)

    def _tell(self, line: TraceLine) -> None:
        for listener in tuple(self._listeners):
            listener(line)
