"""What the store keeps, row by row, and the journal of messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from isthmus.errors import StoreError
from isthmus.model import Address, Message, MessageKind
from isthmus.ports.sip import Flow


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One message that was, or is about to be, acknowledged.

    Attributes:
        message: the message itself.
        origin_key: identifies the transmission it came from so that a retransmission after a crash is not a new
            message (SIP: Call-ID, CSeq, From tag, recipient); empty when the sender never retransmits (XMPP).
        expires_at: Unix seconds after which the sender is told instead.
        sequence: position in the journal, given by `append`.
        attempts: how often delivery was tried.
    """

    message: Message
    expires_at: float
    origin_key: str = ""
    sequence: int = 0
    attempts: int = 0


Appended = Callable[[int | StoreError], None]
"""Takes what became of an append: the sequence (0: its origin is known already), or why it is not durable."""


class Journal(Protocol):
    """Durable queue of acknowledged messages. Appends of one event-loop turn share one commit (group commit)."""

    async def append(self, entry: JournalEntry) -> int:
        """Make the entry durable (power-loss safe) and return its sequence; 0 when `origin_key` is already known.

        Raises:
            StoreError: it cannot be made durable; the message must not be acknowledged.
        """

    def append_nowait(self, entry: JournalEntry, appended: Appended) -> None:
        """As `append`, but call `appended` with the outcome in a later turn of the event loop: costs no task."""

    def settle(self, sequence: int) -> None:
        """Forget a delivered or finally failed entry with a commit soon; its `origin_key` stays known a while."""

    async def pending(self) -> Sequence[JournalEntry]:
        """Return all unsettled entries in order (at start)."""

    async def flush(self) -> None:
        """Return when every settle so far is durable."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A registration: one way to reach a user (RFC 3261 section 10, RFC 5626, RFC 3327).

    Attributes:
        address: address of record.
        contact: Contact URI as text, exactly as registered (parameters in place: RFC 4475 cparam).
        parameters: Contact header parameters (q, expires, +sip.instance, reg-id ...), values unquoted.
        call_id, cseq: of the REGISTER that made it.
        expires_at: Unix seconds.
        q: preference 0..1000.
        instance, reg_id: RFC 5626 identity; empty and 0 without outbound.
        path: Path header values, first to be pushed first.
        flow: where the REGISTER came from; requests go back there.
        user_agent: for the administrator.
        accepts: media types the device takes, from Accept or learnt by 415; empty when unknown.
    """

    address: Address
    contact: str
    call_id: str
    cseq: int
    expires_at: float
    flow: Flow
    parameters: tuple[tuple[str, str], ...] = ()
    q: int = 1000
    instance: str = ""
    reg_id: int = 0
    path: tuple[str, ...] = ()
    user_agent: str = ""
    accepts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Publication:
    """Event state published by a device (RFC 3903)."""

    address: Address
    etag: str
    body: bytes
    content_type: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class SubscriptionRecord:
    """A notifier-side subscription dialog, kept so that watchers keep their view over a restart (RFC 6665).

    `state` is an opaque JSON object that `services.presence_agent` writes and reads.
    """

    key: str
    watcher: Address
    presentity: Address
    expires_at: float
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicySetting:
    """One stored policy value. `scope` is "global", "group:NAME" or "user:ADDRESS"; `name` e.g. "messages"."""

    scope: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class DomainRule:
    """What the administrator (or discovery) says of a partner domain.

    `action`: "allow", "block" or "discovered". `includes_subdomains` matters for block and allow.
    """

    domain: str
    action: str
    includes_subdomains: bool = False
    note: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Crossing:
    """Running totals of what crossed between two people, for `isthmus explain`."""

    sender: Address
    recipient: Address
    kind: MessageKind | str
    delivered: int = 0
    failed: int = 0
    last_at: float = 0.0
    last_failure_at: float = 0.0
    last_failure: str = ""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Who changed what, when (policy, domains, users, approvals)."""

    at: float
    actor: str
    action: str
    subject: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call that is over (a call detail record).

    Attributes:
        id: of the call, as in the trace.
        caller, callee: the people.
        started_at, answered_at, ended_at: Unix seconds; `answered_at` None when nobody answered.
        media: kinds of media that were in use at the end, e.g. ("audio", "video").
        path: "direct", "relayed", or "" when it never came so far.
        cause: `model.EndCause` value; text and rule: why, as people and administrator were told.
        device: which device answered.
        quality: counters of the relay, one mapping per medium and sender.
    """

    id: str
    caller: Address
    callee: Address
    started_at: float
    answered_at: float | None
    ended_at: float
    media: tuple[str, ...] = ()
    path: str = ""
    cause: str = ""
    text: str = ""
    rule: str = ""
    device: str = ""
    quality: tuple[Mapping[str, Any], ...] = ()

    @property
    def seconds(self) -> float:
        """How long people talked."""
        return 0.0 if self.answered_at is None else max(0.0, self.ended_at - self.answered_at)
