"""One message on its way to one device: in as many parts and tries as it takes (RFC 3428)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

from isthmus.errors import AddressError, RequestTimeoutError, TransportError
from isthmus.interworking.failures import failure_from_sip
from isthmus.interworking.text_parts import MAXIMUM_REQUEST_OCTETS
from isthmus.model import Failure, Message, Origin
from isthmus.services.delivery import BusinessDelivery, Outcome, Target, Way
from isthmus.services.messaging_requests import MessageRequests
from isthmus.sip.message import SipRequest, SipResponse


@dataclass(frozen=True, slots=True)
class Delivered:
    """How a device took a message.

    Attributes:
        status: 200 when a device has it, 202 when somebody keeps it for later (RFC 3428 section 7).
        asked_for_receipt: the device was asked for an IMDN, so it will tell by itself.
    """

    status: int
    asked_for_receipt: bool


class Parcel:
    """A message in a queue; `sequence` 0 means that it is not worth keeping (typing, receipts).

    `queued_at` is monotonic: when a message says that it was sent is for its reader and not to be measured with.
    """

    __slots__ = ("attempts", "expires_at", "failures", "is_settled", "message", "outstanding", "queued_at", "sequence")

    def __init__(self, message: Message, sequence: int, expires_at: float, queued_at: float = 0.0) -> None:
        self.message = message
        self.sequence = sequence
        self.expires_at = expires_at
        self.queued_at = queued_at
        self.attempts = 0
        self.outstanding = 0
        self.is_settled = False
        self.failures: list[Failure] = []


class Lane:
    """One device: a MESSAGE under way and what waits behind it."""

    __slots__ = ("is_busy", "shipments")

    def __init__(self) -> None:
        self.is_busy = False
        self.shipments: deque[Shipment] = deque()


class ShipmentOwner(Protocol):
    """The queues, as a shipment sees them."""

    delivery: BusinessDelivery
    requests: MessageRequests

    def shipped(self, queue: Any, parcel: Parcel, result: Delivered | Failure) -> None:
        """One device is through with a parcel of `queue` (the owner's own object, handed back)."""

    def next_in_lane(self, lane: Lane) -> None:
        """Start what waits for this device."""


class Shipment:
    """One parcel on its way to one device, in as many parts and tries as it takes."""

    __slots__ = ("_lane", "_owner", "_parcel", "_part", "_parts", "_problem", "_queue", "_target", "_tries")

    def __init__(self, owner: ShipmentOwner, queue: object, lane: Lane, parcel: Parcel, target: Target) -> None:
        self._owner = owner
        self._queue = queue
        self._lane = lane
        self._parcel = parcel
        self._target = target
        self._parts: list[Message] = [parcel.message]
        self._part = 0
        self._tries = 0
        self._problem: Failure | None = None

    def start(self) -> None:
        """Send the first part; a long text takes a connection if the device has one, else several parts."""
        ways = self._target.ways
        message = self._parcel.message
        if len(message.text) > MAXIMUM_REQUEST_OCTETS // 8:
            streams = tuple(way for way in ways if way.is_stream)
            if streams:
                self._target = Target(self._target.key, streams)
            elif ways:
                try:
                    self._parts = self._owner.requests.parts(message, ways[0])
                except AddressError as error:
                    self._finish(_failure_of_address(error))
                    return
        self._send()

    def lost(self, failure: Failure) -> None:
        """The device lags too far behind: it will not get this one."""
        self._owner.shipped(self._queue, self._parcel, failure)

    def _send(self) -> None:
        if self._target.ways:
            self._owner.delivery.send_to(self._target, self._build, self._answered)
        else:
            self._finish(NO_NEIGHBOUR)

    def _build(self, way: Way) -> SipRequest:
        """Build the request for this way; what cannot be built ends the shipment with `_problem`."""
        try:
            request = self._owner.requests.build(self._parts[self._part], way, self._parcel.attempts + self._tries)
        except AddressError as error:
            self._problem = _failure_of_address(error)
            raise
        if request is None:
            self._problem = NOT_SAYABLE
            raise AddressError(NOT_SAYABLE.text)
        return request

    def _answered(self, outcome: Outcome, way: Way) -> None:
        if not isinstance(outcome, SipResponse):
            self._finish(self._problem or _failure_of_transport(outcome))
            return
        status = outcome.status
        if status < 300:
            self._part += 1
            if self._part < len(self._parts):
                self._send()
            else:
                is_cpim = self._owner.requests.takes_cpim(way, self._parcel.message.recipient)
                self._finish(Delivered(status, asked_for_receipt=is_cpim and self._parcel.message.wants_delivered))
        # COMPAT: Linphone answers 488, not 415, to a CPIM that it does not like.
        elif status in (415, 488) and self._owner.requests.refused(way, self._parcel.message):
            self._tries += 1
            self._send()
        else:
            self._finish(_failure_of_response(outcome))

    def _finish(self, result: Delivered | Failure) -> None:
        lane = self._lane
        lane.is_busy = False
        if isinstance(result, Failure) and result.origin in (Origin.TIMEOUT, Origin.NO_DEVICE):
            self._clear_backlog(lane)
        self._owner.shipped(self._queue, self._parcel, result)
        self._owner.next_in_lane(lane)

    def _clear_backlog(self, lane: Lane) -> None:
        """Who did not answer for half a minute will not answer what waits behind it either: do not pile up."""
        shipments, lane.shipments = lane.shipments, deque()
        for shipment in shipments:
            shipment.lost(UNANSWERED)


EXPIRED = Failure(
    Origin.TIMEOUT, 480, "recipient-unavailable", "The message expired before the recipient could be reached.", "expiry"
)
UNANSWERED = Failure(
    Origin.TIMEOUT, 504, "remote-server-timeout", "The recipient's device did not answer.", is_temporary=True
)
BACKLOG_FULL = Failure(Origin.LIMIT, 480, "resource-constraint", "The device lags too far behind.", is_temporary=True)
NO_NEIGHBOUR = Failure(
    Origin.LOCAL, 500, "internal-server-error", "No neighbour is configured for this domain.", is_temporary=True
)
NOT_SAYABLE = Failure(Origin.FORMAT, 415, "not-acceptable", "The device has no way to be told this.")


def _failure_of_transport(error: TransportError) -> Failure:
    if isinstance(error, RequestTimeoutError):
        return UNANSWERED
    return Failure(
        Origin.NO_DEVICE, 480, "recipient-unavailable", "The recipient cannot be reached now.", is_temporary=True
    )


def _failure_of_response(response: SipResponse) -> Failure:
    contacts = response.headers.get("Contact")
    contact = contacts.partition(";")[0].strip().strip("<>") if contacts and 300 <= response.status < 400 else ""
    return failure_from_sip(response.status, response.reason, contact=contact)


def _failure_of_address(error: AddressError) -> Failure:
    return Failure(Origin.ADDRESS, 404, "jid-malformed", str(error))
