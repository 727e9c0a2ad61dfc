"""Reliable provisional responses, the option tag `100rel` (RFC 3262), seen from both ends.

Sans I/O: `now` is an argument, `next_deadline` says when to ask `due`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from isthmus.errors import SipParseError
from isthmus.sip.message import SipResponse
from isthmus.sip.syntax import is_token, parse_number
from isthmus.sip.validation import has_option

OPTION_TAG = "100rel"
# Section 3: the first RSeq lies between 1 and this.
LARGEST_FIRST_RSEQ = 2**31 - 1
_LARGEST = 2**32 - 1
# A call has a ringing and an early media response, perhaps each twice.
MAXIMUM_WAITING = 8


class RAck(NamedTuple):
    """What a PRACK acknowledges (section 7.2): RSeq of the response, CSeq of its request."""

    rseq: int
    cseq: int
    method: str

    @classmethod
    def parse(cls, text: str) -> RAck:
        """Read the header field. Raises SipParseError when it is malformed."""
        parts = text.split()
        if len(parts) == 3 and is_token(parts[2]):
            rseq, cseq = parse_number(parts[0], _LARGEST), parse_number(parts[1], _LARGEST)
            if rseq is not None and cseq is not None:
                return cls(rseq, cseq, parts[2])
        raise SipParseError("RAck is not two numbers and a method")

    def __str__(self) -> str:
        return f"{self.rseq} {self.cseq} {self.method}"


@dataclass(frozen=True, slots=True)
class Provisional:
    """A response that must be acknowledged.

    Attributes:
        status: 101 to 199.
        body: SDP or nothing.
        rseq: 0 until it is sent.
    """

    status: int
    body: bytes = b""
    rseq: int = 0


class Delivery(Enum):
    """What the time has come for."""

    REPEAT = "send the response again"
    GIVE_UP = "nobody acknowledges: refuse the INVITE with a 5xx (section 3)"


class ReliableProvisionals:
    """Our reliable responses to one INVITE: one at a time, each repeated until its PRACK comes.

    Section 3 forbids a second one only before the first PRACK; one at a time keeps their order for every client.

    Args:
        first_rseq: random, 1 to `LARGEST_FIRST_RSEQ`.
        t1_seconds: first interval of the repeats, which double without the ceiling of T2.
    """

    __slots__ = ("_cseq", "_give_up_at", "_interval", "_repeat_at", "_rseq", "_t1", "_waiting", "unacknowledged")

    def __init__(self, *, cseq: int, first_rseq: int, t1_seconds: float) -> None:
        self._cseq = cseq
        self._rseq = first_rseq
        self._t1 = t1_seconds
        self._waiting: deque[Provisional] = deque()
        self.unacknowledged: Provisional | None = None
        self._interval = 0.0
        self._repeat_at = self._give_up_at = float("inf")

    @property
    def must_final_wait(self) -> bool:
        """True while a response with SDP is not acknowledged: no 2xx before that (section 3)."""
        return self.unacknowledged is not None and bool(self.unacknowledged.body)

    def send(self, status: int, body: bytes, now: float) -> Provisional | None:
        """Return the response to send now, or None when it must wait for the PRACK of the one before.

        What waits and says nothing new (a second 180) is dropped.
        """
        provisional = Provisional(status, body)
        if self.unacknowledged is None:
            return self._go(provisional, now)
        last = self._waiting[-1] if self._waiting else self.unacknowledged
        if (last.status, last.body) != (status, body) and len(self._waiting) < MAXIMUM_WAITING:
            self._waiting.append(provisional)
        return None

    def acknowledge(self, rack: RAck) -> Provisional | None:
        """Return the response that a PRACK acknowledges, or None: answer the PRACK 481."""
        sent = self.unacknowledged
        if sent is None or rack != RAck(sent.rseq, self._cseq, "INVITE"):
            return None
        self.unacknowledged = None
        self._repeat_at = self._give_up_at = float("inf")
        return sent

    def next(self, now: float) -> Provisional | None:
        """Return the response that waited for the PRACK, if one did: send it now."""
        if self.unacknowledged is None and self._waiting:
            return self._go(self._waiting.popleft(), now)
        return None

    def stop(self) -> None:
        """A final response ends all repeats; a PRACK that comes now is still matched."""
        self._waiting.clear()
        self._repeat_at = self._give_up_at = float("inf")

    def next_deadline(self) -> float | None:
        """Return when to call `due`, or None."""
        earliest = min(self._repeat_at, self._give_up_at)
        return None if earliest == float("inf") else earliest

    def due(self, now: float) -> Delivery | None:
        """Return what is to be done now."""
        if now >= self._give_up_at:
            self.stop()
            return Delivery.GIVE_UP
        if now >= self._repeat_at:
            self._interval *= 2
            self._repeat_at = now + self._interval
            return Delivery.REPEAT
        return None

    def _go(self, provisional: Provisional, now: float) -> Provisional:
        sent = Provisional(provisional.status, provisional.body, self._rseq)
        self._rseq += 1
        self.unacknowledged = sent
        self._interval = self._t1
        self._repeat_at = now + self._t1
        self._give_up_at = now + 64 * self._t1
        return sent


class ReliableReceipts:
    """The peer's reliable responses to our INVITE, within one early dialog (section 4)."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def is_reliable(self, response: SipResponse) -> bool:
        """True for a response that wants a PRACK."""
        return rseq_of(response) is not None

    def receive(self, response: SipResponse) -> RAck | None:
        """Return what to PRACK, or None: not reliable, repeated (our PRACK is on its way), or out of order."""
        rseq = rseq_of(response)
        if rseq is None or (self._last and rseq != self._last + 1):
            return None
        self._last = rseq
        cseq = response.cseq
        return RAck(rseq, cseq.number, cseq.method)


def rseq_of(response: SipResponse) -> int | None:
    """Return the RSeq of a response that requires a PRACK, else None."""
    text = response.headers.get("rseq")
    if text is None or not 100 < response.status < 200 or not has_option(response, OPTION_TAG, "require"):
        return None
    return parse_number(text, _LARGEST) or None
