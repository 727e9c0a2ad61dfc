"""What one address tells another: the events that the bus carries. Past tense, frozen, complete in themselves.

An event is sent to the owner of the address it concerns (see each class); a service changes state only for that
address and never reaches into another one's.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.model import Address, AuthorisationState, Ending, Message, PresenceDocument


@dataclass(frozen=True, slots=True)
class WatchRequested:
    """To the presentity: `watcher` asked to see it. Repeats while pending change nothing (RFC 6121 section 3.1.3)."""

    watcher: Address
    presentity: Address
    note: str = ""


@dataclass(frozen=True, slots=True)
class WatchGivenUp:
    """To the presentity: `watcher` does not want to see it any more (XMPP unsubscribe, contact removed)."""

    watcher: Address
    presentity: Address


@dataclass(frozen=True, slots=True)
class WatchAnswered:
    """To the presentity: it granted or refused `watcher` (an XMPP `subscribed` or `unsubscribed` arrived)."""

    watcher: Address
    presentity: Address
    is_granted: bool


@dataclass(frozen=True, slots=True)
class AuthorisationChanged:
    """To the presentity: what `watcher` may see of `presentity` is now different.

    Attributes:
        state: None means refused or taken back.
        reason: RFC 3857 event name: subscribe, approved, rejected, probation, giveup; or "policy" (verdicts may
            differ), "repeated" (the watcher asked once more, nothing has changed).
        text: why, for people and the trace.
    """

    watcher: Address
    presentity: Address
    state: AuthorisationState | None
    reason: str = "approved"
    text: str = ""


@dataclass(frozen=True, slots=True)
class RequestUnseen:
    """To the presentity: the device that was to show the request of `watcher` has crashed before it could."""

    watcher: Address
    presentity: Address


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """To a hosted presentity: its composed presence is now `document`. Watchers of either realm are told from here."""

    document: PresenceDocument
    is_urgent: bool = False  # call state: pass the throttle the first time


@dataclass(frozen=True, slots=True)
class RemotePresenceChanged:
    """To the presentity, which lives elsewhere (XMPP, or a routed SIP domain): what `watcher` sees of it has changed.

    One watcher's view is never shown to another (RFC 8048 section 8.2), so the event names both.
    """

    watcher: Address
    document: PresenceDocument


@dataclass(frozen=True, slots=True)
class WatchingChanged:
    """To the presentity: the first SIP dialog of `watcher` began or the last one ended.

    For a presentity on XMPP this means a probe, or directed `unavailable`; the authorisation is untouched.
    """

    watcher: Address
    presentity: Address
    is_watching: bool


@dataclass(frozen=True, slots=True)
class WatcherAvailability:
    """To the presentity: an XMPP watcher of it went online (it probed) or offline (its last resource has gone)."""

    watcher: Address
    presentity: Address
    is_available: bool


@dataclass(frozen=True, slots=True)
class PresencePolled:
    """To the presentity: `watcher` fetched its presence once (SUBSCRIBE with Expires 0): no authorisation prompt."""

    watcher: Address
    presentity: Address


@dataclass(frozen=True, slots=True)
class BindingsChanged:
    """To a hosted user: its registrations changed; pending messages may be deliverable, presence may differ."""

    address: Address
    has_bindings: bool
    is_new_device: bool = False


@dataclass(frozen=True, slots=True)
class MessageAccepted:
    """To the recipient: a journalled message waits for delivery, until `expires_at` (Unix seconds)."""

    message: Message
    sequence: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """To everybody concerned (`address` None: all): verdicts may differ; live subscriptions are re-examined."""

    address: Address | None = None
    domain: str = ""


@dataclass(frozen=True, slots=True)
class UserRemoved:
    """To a hosted user: the account was disabled or removed."""

    address: Address


@dataclass(frozen=True, slots=True)
class PhotoChanged:
    """To a hosted user: contacts are to see another photo, or none any more."""

    address: Address


@dataclass(frozen=True, slots=True)
class CallEnded:
    """To the callee: a call that nobody answered is over."""

    caller: Address
    callee: Address
    at: float
    ending: Ending
