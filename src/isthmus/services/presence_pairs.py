"""What the subscriber keeps of one watcher and one presentity, and how it reads a neighbour's answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from isthmus.errors import TransportError
from isthmus.model import Address
from isthmus.ports import TimerHandle
from isthmus.services.delivery import Way
from isthmus.sip.dialog import Dialog
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.subscription import SubscriberUsage, retry_after

LIFETIME_SECONDS = 3600


class Phase(Enum):
    """Where a pair stands between two subscriptions; within one, `SubscriberUsage.state` tells."""

    SUBSCRIBED = "a SUBSCRIBE is out or a subscription lives"
    RETRY = "gone for now: a new one follows"
    DEAD = "nobody there: asked again daily, or when the watcher acts"
    DONE = "will never change"
    IDLE = "the watcher is offline: nobody would see it"


@dataclass(slots=True, eq=False)
class Pair:
    """One watcher of one presentity.

    Attributes:
        key: Call-ID and our tag of the newest SUBSCRIBE.
        lifetime: seconds we ask for; a 423 raises it.
        attempts: tries in a row that came to nothing.
        began_at: when the newest subscription was asked for, monotonic seconds.
    """

    watcher: Address
    presentity: Address
    phase: Phase = Phase.RETRY
    usage: SubscriberUsage = field(default_factory=SubscriberUsage)
    key: tuple[str, str] = ("", "")
    subscribe: SipRequest | None = None
    dialog: Dialog | None = None
    way: Way | None = None
    lifetime: int = LIFETIME_SECONDS
    attempts: int = 0
    began_at: float = 0.0
    timer: TimerHandle | None = None
    is_ending: bool = False


def transport_of(way: Way) -> str:
    """Transport of a way, for the Contact that goes with it."""
    hop = way.next_hop
    if hop is not None and hop.flow is not None:
        return hop.flow.transport
    if hop is not None and hop.uri is not None:
        return hop.uri.param("transport") or "udp"
    return way.uri.param("transport") or "udp"


def status_of(outcome: SipResponse | TransportError) -> int:
    """Status of an outcome; no connection counts as 503 (RFC 3261 section 8.1.3.1)."""
    return outcome.status if isinstance(outcome, SipResponse) else 503


def wait_of(outcome: SipResponse | TransportError) -> int | None:
    """Seconds of Retry-After, None when not told."""
    return retry_after(outcome) if isinstance(outcome, SipResponse) else None


def minimum_expires_of(outcome: SipResponse | TransportError) -> int:
    """Seconds of Min-Expires in a 423, at most a day; 0 when not told."""
    text = (outcome.headers.get("Min-Expires") or "").strip() if isinstance(outcome, SipResponse) else ""
    return min(int(text), 86_400) if text.isdigit() and len(text) < 10 else 0
