"""Session timers (RFC 4028): so that a call whose other end has vanished does not live for ever.

Sans I/O: `now` is an argument, `next_deadline` says when to ask `due`. One timer per dialog; the two legs of a call
have independent ones (section 10 leaves B2BUAs that choice).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from isthmus.errors import SipParseError
from isthmus.sip.headers import parse_parameterised
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.syntax import parse_number
from isthmus.sip.validation import has_option

# Section 4: what is recommended, and the least that anybody may ask for (section 5).
DEFAULT_INTERVAL_SECONDS = 1800
SMALLEST_INTERVAL_SECONDS = 90
# Section 10: the session is given up this long before its end, or a third of the interval if that is less.
LONGEST_MARGIN_SECONDS = 32.0
# A refresh that was not possible (a glare, an overloaded peer) is tried again after half of what is left, but not more
# often than this.
SHORTEST_PAUSE_SECONDS = 5.0
_LARGEST = 2**32 - 1


@dataclass(frozen=True, slots=True)
class SessionExpires:
    """A Session-Expires header field (section 4).

    Attributes:
        seconds: length of the session interval.
        refresher: "uac" or "uas" of the request that it stands in, or "" when it leaves that open.
    """

    seconds: int
    refresher: str = ""

    @classmethod
    def parse(cls, text: str) -> SessionExpires:
        """Read the header field. Raises SipParseError when it is malformed."""
        value, parameters = parse_parameterised(text)
        seconds = parse_number(value, _LARGEST)
        if seconds is None:
            raise SipParseError("Session-Expires is not a number of seconds")
        refresher = (dict(reversed(parameters)).get("refresher") or "").lower()
        return cls(seconds, refresher if refresher in ("uac", "uas") else "")

    def __str__(self) -> str:
        return f"{self.seconds};refresher={self.refresher}" if self.refresher else str(self.seconds)


class TimerAction(Enum):
    """What the time has come for."""

    REFRESH = "send UPDATE, or a re-INVITE with unchanged media"
    EXPIRE = "send BYE: the other end was not heard of"


class SessionTimer:
    """The session timer of one end of one dialog.

    Attributes:
        interval_seconds: length of the session interval as agreed, or as we would like it before that.
        is_running: an interval was agreed (or we keep one by ourselves, with a peer that knows no timers).
        is_refresher: refreshing is our job.
    """

    __slots__ = ("_expires_at", "_minimum", "_refresh_at", "interval_seconds", "is_refresher", "is_running")

    def __init__(
        self,
        *,
        interval_seconds: int = DEFAULT_INTERVAL_SECONDS,
        minimum_seconds: int = SMALLEST_INTERVAL_SECONDS,
    ) -> None:
        self._minimum = max(minimum_seconds, SMALLEST_INTERVAL_SECONDS)
        self.interval_seconds = max(interval_seconds, self._minimum)
        self.is_running = False
        self.is_refresher = True
        self._refresh_at = float("inf")
        self._expires_at = float("inf")

    def copy(self) -> SessionTimer:
        """A timer for another dialog of the same INVITE: it knows what the peers on the way want."""
        return SessionTimer(interval_seconds=self.interval_seconds, minimum_seconds=self._minimum)

    # --- as the client of an INVITE or UPDATE (section 7) ---

    def request_headers(self) -> list[tuple[str, str]]:
        """Return Session-Expires (and Min-SE, where it is not the default) of a request that begins or refreshes.

        A running session names the refresher, so that the roles do not change (section 7.4).
        """
        refresher = ("uac" if self.is_refresher else "uas") if self.is_running else ""
        headers = [("Session-Expires", str(SessionExpires(self.interval_seconds, refresher)))]
        if self._minimum > SMALLEST_INTERVAL_SECONDS:
            headers.append(("Min-SE", str(self._minimum)))
        return headers

    def interval_was_refused(self, response: SipResponse) -> bool:
        """Take the Min-SE of a 422; True when the request is worth sending again (section 7.3)."""
        wanted = _number(response, "min-se")
        if wanted is None or wanted <= self.interval_seconds:
            return False
        self._minimum = max(self._minimum, wanted)
        self.interval_seconds = max(self.interval_seconds, wanted)
        return True

    def accepted(self, response: SipResponse, now: float) -> None:
        """Take the 2xx of our request (section 7.2).

        Without Session-Expires the peer knows no timers: then we refresh by ourselves, which finds a vanished peer all
        the same.
        """
        said = _read(response)
        if said is None:
            self.is_refresher = True
        else:
            self.interval_seconds = max(said.seconds, SMALLEST_INTERVAL_SECONDS)
            self.is_refresher = said.refresher != "uas"
        self._start(now)

    # --- as the server (section 9) ---

    def refusal(self, request: SipRequest) -> list[tuple[str, str]]:
        """Return the header fields of a 422 when the request asks for too short an interval, else nothing.

        A client that does not know the extension could not do anything with a 422 (section 8.1).
        """
        said = _read(request)
        if said is None or said.seconds >= self._minimum or not has_option(request, "timer"):
            return []
        return [("Min-SE", str(self._minimum))]

    def answer(self, request: SipRequest, now: float) -> list[tuple[str, str]]:
        """Start the interval and return the header fields of the 2xx (section 9, tables 1 and 2)."""
        said = _read(request)
        floor = max(_number(request, "min-se") or 0, SMALLEST_INTERVAL_SECONDS)
        wanted = self.interval_seconds
        if said is not None:
            wanted = min(wanted, said.seconds)  # a server may only lower it
        self.interval_seconds = max(wanted, floor)
        refresher = said.refresher if said is not None else ""
        if not has_option(request, "timer"):
            refresher = "uas"
        elif not refresher:
            # The caller's client knows its way to us; ours through its NAT may be gone some day.
            refresher = "uac"
        self.is_refresher = refresher == "uas"
        self._start(now)
        headers = [("Session-Expires", str(SessionExpires(self.interval_seconds, refresher)))]
        if refresher == "uac":
            headers.append(("Require", "timer"))
        return headers

    # --- time (section 10) ---

    def next_deadline(self) -> float | None:
        """Return when to call `due`, or None."""
        earliest = min(self._refresh_at, self._expires_at)
        return None if earliest == float("inf") else earliest

    def due(self, now: float) -> TimerAction | None:
        """Return what is to be done now, each thing once."""
        if now >= self._expires_at:
            self.stop()
            return TimerAction.EXPIRE
        if now >= self._refresh_at:
            self._refresh_at = float("inf")
            return TimerAction.REFRESH
        return None

    def refresh_failed(self, now: float) -> None:
        """The refresh came to nothing for now: try again before the end."""
        if self.is_running and self.is_refresher:
            pause = max((self._expires_at - now) / 2, SHORTEST_PAUSE_SECONDS)
            self._refresh_at = now + pause

    def stop(self) -> None:
        """The session is over."""
        self.is_running = False
        self._refresh_at = self._expires_at = float("inf")

    def _start(self, now: float) -> None:
        interval = float(self.interval_seconds)
        self.is_running = True
        self._expires_at = now + interval - min(LONGEST_MARGIN_SECONDS, interval / 3)
        self._refresh_at = now + interval / 2 if self.is_refresher else float("inf")


def _read(message: SipRequest | SipResponse) -> SessionExpires | None:
    text = message.headers.get("session-expires")
    if text is None:
        return None
    try:
        return SessionExpires.parse(text)
    except SipParseError:
        return None  # a field that cannot be read asks for nothing


def _number(message: SipRequest | SipResponse, name: str) -> int | None:
    text = message.headers.get(name)
    return None if text is None else parse_number(text.partition(";")[0].strip(), _LARGEST)
