"""Requests as the services get them: implements `ports.IncomingRequest`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from isthmus.ports import Flow
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.server_transaction import ServerTransaction


class ReceivedRequest:
    """A request in its server transaction.

    Attributes:
        request: as received, its topmost Via completed.
        flow: where it came from, and where a request to this peer would go.
        arrived_at: monotonic seconds.
    """

    __slots__ = ("_new_tag", "_send", "_transaction", "arrived_at", "flow", "request")

    def __init__(
        self,
        transaction: ServerTransaction,
        flow: Flow,
        send: Callable[[ServerTransaction, SipResponse], None],
        new_tag: Callable[[], str],
    ) -> None:
        self.request = transaction.request
        self.flow = flow
        self.arrived_at = transaction.arrived_at
        self._transaction = transaction
        self._send = send
        self._new_tag = new_tag

    @property
    def is_answered(self) -> bool:
        """True once a final response was given, or can no longer be."""
        return self._transaction.is_answered

    def respond(
        self,
        status: int,
        reason: str = "",
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
        to_tag: str = "",
    ) -> None:
        """Answer within the transaction. An empty `reason` takes the standard phrase; a To tag is made if absent."""
        if not to_tag and status > 100:
            to_tag = self._new_tag()
        response = build_response(
            self.request, status, reason, headers=headers, body=body, content_type=content_type, to_tag=to_tag
        )
        self._send(self._transaction, response)


class ReceivedAck:
    """The ACK of a 2xx: shaped like a request, but nothing answers it (RFC 3261 section 13.3.1.4)."""

    __slots__ = ("arrived_at", "flow", "request")

    def __init__(self, request: SipRequest, flow: Flow, arrived_at: float) -> None:
        self.request = request
        self.flow = flow
        self.arrived_at = arrived_at

    @property
    def is_answered(self) -> bool:
        """Always: there is nothing to answer."""
        return True

    def respond(
        self,
        status: int,
        reason: str = "",
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
        to_tag: str = "",
    ) -> None:
        """Do nothing."""
