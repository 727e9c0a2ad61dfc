"""The 2xx of an INVITE: repeated until its ACK comes, on every transport (RFC 3261 section 13.3.1.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from isthmus.interworking.session_bodies import SDP_TYPE
from isthmus.model import EndCause, Ending, Origin
from isthmus.ports import Clock, IncomingRequest, TimerHandle
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.sip.calls import SessionState
from isthmus.sip.message import SipRequest
from isthmus.sip.timers import TimerTable

if TYPE_CHECKING:
    from isthmus.services.calls.sip.session import SipSession


class Repeats:
    """A response that is sent again until it is acknowledged: T1, doubling to T2, given up after 64*T1.

    The 2xx of an INVITE, on every transport (RFC 3261 section 13.3.1.4).
    """

    __slots__ = ("_clock", "_ends_at", "_give_up", "_interval", "_send", "_timer", "_timers")

    def __init__(self, clock: Clock, timers: TimerTable, send: Callable[[], None], give_up: Callable[[], None]) -> None:
        self._clock = clock
        self._timers = timers
        self._send = send
        self._give_up = give_up
        self._interval = timers.t1
        self._ends_at = clock.monotonic() + timers.timeout
        self._timer: TimerHandle | None = clock.call_later(self._interval, self._fire)
        send()

    def stop(self) -> None:
        """It was acknowledged."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        left = self._ends_at - self._clock.monotonic()
        if left <= 0.001:
            self._give_up()
            return
        self._interval = min(2 * self._interval, self._timers.t2)
        self._timer = self._clock.call_later(min(self._interval, left), self._fire)
        self._send()


class Acceptance:
    """The one 2xx of a dialog that may wait for its ACK.

    Args:
        settled: is called when the ACK has come and was acted on.
    """

    __slots__ = ("_acked", "_cseq", "_repeats", "_session", "_settled")

    def __init__(self, session: SipSession, settled: Callable[[], None]) -> None:
        self._session = session
        self._settled = settled
        self._repeats: Repeats | None = None
        self._acked: Callable[[SipRequest], None] | None = None
        self._cseq = 0

    @property
    def is_waiting(self) -> bool:
        """True between the 2xx and its ACK."""
        return self._repeats is not None

    def begin(
        self,
        incoming: IncomingRequest,
        headers: list[tuple[str, str]],
        description: SessionDescription | None,
        acked: Callable[[SipRequest], None],
    ) -> None:
        """Send the 2xx, and again until its ACK comes; call `acked` with it."""
        body = description.to_bytes() if description is not None else b""
        content_type = SDP_TYPE if body else ""
        tag = self._session.dialog.local_tag

        def send() -> None:
            incoming.respond(200, headers=headers, body=body, content_type=content_type, to_tag=tag)

        calls = self._session.calls
        self._acked = acked
        self._cseq = incoming.request.cseq.number
        self._repeats = Repeats(calls.clock, calls.timers, send, self._lost)

    def receive_ack(self, incoming: IncomingRequest) -> None:
        """Take an ACK; repeats of it, and those of an earlier INVITE, mean nothing."""
        acked = self._acked
        if acked is None or incoming.request.cseq.number != self._cseq:
            return
        self.stop()
        if self._session.state is SessionState.ENDED:
            self._session.ack_settled()
        else:
            acked(incoming.request)
            self._settled()

    def stop(self) -> None:
        """Nobody waits for the ACK any more."""
        if self._repeats is not None:
            self._repeats.stop()
        self._repeats = self._acked = None

    def _lost(self) -> None:
        """Without ACK the session counts as confirmed and is ended with BYE."""
        self._repeats = self._acked = None
        if self._session.state is SessionState.ENDED:
            self._session.ack_settled()
            return
        ending = Ending(EndCause.CONNECTIVITY, "The device did not confirm the answer.", Origin.TIMEOUT)
        self._session.note("no ACK came for our 200", "sip.no-ack")
        self._session.end(ending, has_bye=True)
