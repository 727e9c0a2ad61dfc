"""What the services need from outside, as protocols; `net`, `store` and `bus` implement them, tests use memory.

Two clocks: `monotonic` for every deadline (a jump of the wall clock must not expire a registration early or late)
and `wall` for what is shown or kept over a restart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from xml.etree.ElementTree import Element

from isthmus.errors import StoreError, TransportError
from isthmus.model import Address, Authorisation, Failure, MediaForm, Message, MessageKind, Modality, User
from isthmus.sdp.session_description import SessionDescription
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.uri import SipUri

# --- time -----------------------------------------------------------------------------------------------------


class TimerHandle(Protocol):
    """A pending callback."""

    def cancel(self) -> None:
        """Forget the callback; harmless when it already ran."""


class Clock(Protocol):
    """Time and deferred calls; `tests.support.clock.FakeClock` turns by hand."""

    def monotonic(self) -> float:
        """Seconds that never jump."""

    def wall(self) -> float:
        """Unix seconds."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        """Run `callback` once, `seconds` from now."""


# --- SIP ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a SIP message came from and how to answer on the same path (RFC 5626 section 2, RFC 3581).

    Attributes:
        transport: "udp", "tcp", "tls", "ws" or "wss".
        remote_host, remote_port: the peer's real address.
        local_host, local_port: ours.
        connection: id of the stream connection; 0 for UDP. Not valid after a restart.
        peer_names: names proven by the peer's TLS certificate (RFC 5922), empty without client certificate.
    """

    transport: str
    remote_host: str
    remote_port: int
    local_host: str = ""
    local_port: int = 0
    connection: int = 0
    peer_names: tuple[str, ...] = ()

    @property
    def is_stream(self) -> bool:
        """True for connection-oriented transports."""
        return self.transport != "udp"


@dataclass(frozen=True, slots=True)
class NextHop:
    """An explicit place to send a request to, overriding RFC 3263 on the Request-URI.

    At most one of `flow` (answer on this connection or from this socket) and `uri` (resolve this) is set; without both
    the request goes by its Route or Request-URI.
    `tls_names`: names accepted in the peer's certificate; empty means the host of `uri`. Without `uri` they are
    accepted besides the host: a route often leads to a bare address, which no certificate names.
    """

    flow: Flow | None = None
    uri: SipUri | None = None
    tls_names: tuple[str, ...] = ()


class IncomingRequest(Protocol):
    """A request in its server transaction, already de-duplicated; it must be answered exactly once (but 1xx)."""

    request: SipRequest
    flow: Flow
    arrived_at: float  # monotonic

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


class SipEndpoint(Protocol):
    """The SIP stack as the services see it: transactions, transports and next-hop resolution are its own affair."""

    async def request(self, request: SipRequest, next_hop: NextHop | None = None) -> SipResponse:
        """Send a request in a client transaction and return its final response.

        The endpoint adds Via, and Max-Forwards when absent. Without `next_hop` the topmost Route or else the
        Request-URI is resolved (RFC 3263, with failover to the next target on timeout, 503 or transport error).

        Raises:
            RequestTimeoutError: no final response within 64*T1.
            TransportError: nowhere to send it.
        """

    def contact_uri(self, user: str, transport: str, *, host: str = "") -> SipUri:
        """Return a Contact URI that reaches this process over `transport` (our listener's address)."""

    def is_flow_alive(self, flow: Flow) -> bool:
        """False once the stream connection behind `flow` has closed; UDP flows are always alive."""

    def new_tag(self) -> str:
        """Return a fresh From/To tag with at least 64 random bits."""

    def new_call_id(self) -> str:
        """Return a fresh Call-ID with at least 128 random bits."""


class LeanSipEndpoint(SipEndpoint, Protocol):
    """An endpoint with a way to send that costs no task: what the message router uses for thousands a second."""

    def request_nowait(
        self,
        request: SipRequest,
        next_hop: NextHop | None,
        done: Callable[[SipResponse | TransportError], None],
    ) -> None:
        """As `SipEndpoint.request`, but call `done` once with the final response or error, after it returned."""


RequestSink = Callable[[IncomingRequest], None]
FlowClosedSink = Callable[[Flow], None]

# --- XMPP -----------------------------------------------------------------------------------------------------


class XmppLink(Protocol):
    """The component stream of one business domain (XEP-0114)."""

    domain: str

    @property
    def is_connected(self) -> bool:
        """True between handshake and loss."""

    def send(self, stanza: str) -> None:
        """Write one serialised stanza (default namespace `jabber:component:accept`). Raises LinkDownError."""

    async def barrier(self) -> None:
        """Return when the server has answered a ping: all stanzas sent before it were processed in order.

        Raises:
            LinkDownError: the link was lost first; the stanzas before it may or may not have been processed.
        """

    async def query(self, iq: str, stanza_id: str, timeout_seconds: float = 20.0) -> Element:
        """Send an IQ get/set and return the answer (result or error). Raises LinkDownError, RequestTimeoutError."""


class StanzaSink(Protocol):
    """Who takes stanzas from a link. Elements are in the namespace `jabber:component:accept`; IQs never arrive here."""

    def message_received(self, link: XmppLink, stanza: Element) -> None:
        """A `<message/>` of any type."""

    def presence_received(self, link: XmppLink, stanza: Element) -> None:
        """A `<presence/>` of any type."""

    def link_up(self, link: XmppLink) -> None:
        """The component is connected (again)."""

    def link_down(self, link: XmppLink) -> None:
        """The stream is lost."""


@dataclass(frozen=True, slots=True)
class IqRefusal:
    """The error that answers an IQ.

    Attributes:
        condition: of RFC 6120 section 8.3.3.
        application: an application-specific condition beside it, serialised (XEP-0166 section 10); may be empty.
    """

    condition: str
    application: str = ""


class JingleSink(Protocol):
    """Who takes calls that come over XMPP."""

    def jingle_received(self, iq: Element) -> IqRefusal | None:
        """Take an IQ set with one `<jingle/>`, addressed to one of our users (their bare JID or a resource).

        Returns:
            None to answer with an empty result, which is written before anything that follows from the IQ.
        """


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture of somebody.

    Attributes:
        content: the file as it is.
        media_type: `image/png` or `image/jpeg`.
        sha1: of the content, in hexadecimal: its name in presence (XEP-0153).
    """

    content: bytes = field(repr=False)
    media_type: str
    sha1: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What a contact may know of a business user: answers vCard, last activity and disco queries.

    Attributes:
        photo: fetches the photo, which only a vCard needs; None: nobody has one here. May raise StoreError.
        calls: what calls to the user may carry: AUDIO and VIDEO, or nothing.
    """

    display_name: str = ""
    photo: Callable[[], Awaitable[Photo | None]] | None = None
    idle_seconds: int | None = None
    is_known: bool = True
    calls: frozenset[Modality] = frozenset()


class Profiles(Protocol):
    """Answers the link's IQs about our users; uniform for unknown users and strangers."""

    async def profile(self, user: Address, asked_by: Address) -> Profile | None:
        """Return what `asked_by` may know of `user`, or None (answered as for an unknown user)."""


# --- store ----------------------------------------------------------------------------------------------------


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


class Store(Protocol):
    """Durable state. Every method raises StoreError when it cannot keep its promise.

    `save_*` and `delete_*` return when durable. `note_*` are written behind (within a second) and may be lost in a
    crash: soft state only.
    """

    @property
    def journal(self) -> Journal:
        """The message journal of this store."""

    async def open(self) -> None:
        """Create or migrate the schema. Raises StoreError with the remedy (locked, read-only, full, newer schema)."""

    async def close(self) -> None:
        """Flush what is written behind and close."""

    async def users(self, domain: str = "") -> Sequence[User]:
        """All hosted users, or those of one domain, by address."""

    async def save_user(self, user: User) -> None:
        """Insert or replace."""

    async def delete_user(self, address: Address) -> None:
        """Remove the user, bindings, publications and photo (not contacts)."""

    async def photo_hashes(self) -> Sequence[tuple[Address, str]]:
        """Who has a photo, and its `sha1` (loaded at start)."""

    async def photo(self, address: Address) -> Photo | None:
        """The photo of a hosted user."""

    async def save_photo(self, address: Address, photo: Photo) -> None:
        """Insert or replace."""

    async def delete_photo(self, address: Address) -> None:
        """Forget it; no error when absent."""

    async def consumers(self) -> Sequence[User]:
        """Consumer accounts made with `consumer add` (no digests)."""

    async def save_consumer(self, user: User) -> None:
        """Insert or replace."""

    async def authorisations(self) -> Sequence[Authorisation]:
        """All of them (loaded at start)."""

    async def save_authorisation(self, authorisation: Authorisation) -> None:
        """Insert or replace by (watcher, presentity)."""

    async def delete_authorisation(self, watcher: Address, presentity: Address) -> None:
        """Forget it; no error when absent."""

    async def blocks(self) -> Sequence[tuple[Address, Address]]:
        """All (owner, blocked peer) pairs."""

    async def save_block(self, owner: Address, peer: Address) -> None:
        """Owner blocks peer."""

    async def delete_block(self, owner: Address, peer: Address) -> None:
        """Owner unblocks peer."""

    async def bindings(self) -> Sequence[Binding]:
        """Unexpired registrations (loaded at start)."""

    async def save_bindings(self, address: Address, bindings: Sequence[Binding]) -> None:
        """Replace all bindings of one user at once (all-or-nothing, RFC 3261 section 10.3 step 7)."""

    async def publications(self) -> Sequence[Publication]:
        """Unexpired publications (loaded at start)."""

    def note_publication(self, publication: Publication) -> None:
        """Insert or replace by (address, etag), written behind."""

    def note_publication_gone(self, address: Address, etag: str) -> None:
        """Forget, written behind."""

    async def subscriptions(self, *, after: str = "", limit: int = 0) -> Sequence[SubscriptionRecord]:
        """Unexpired notifier subscriptions by key (loaded at start).

        Args:
            after: only those with a greater key.
            limit: only so many, as there may be a hundred thousand; 0 for all.
        """

    def note_subscription(self, record: SubscriptionRecord) -> None:
        """Insert or replace by key, written behind."""

    def note_subscription_gone(self, key: str) -> None:
        """Forget, written behind."""

    async def policy_settings(self) -> Sequence[PolicySetting]:
        """All of them."""

    async def save_policy_settings(self, changed: Sequence[PolicySetting], removed: Sequence[PolicySetting]) -> None:
        """Apply one change atomically."""

    async def domain_rules(self) -> Sequence[DomainRule]:
        """All of them."""

    async def save_domain_rule(self, rule: DomainRule) -> None:
        """Insert or replace by domain."""

    async def delete_domain_rule(self, domain: str) -> None:
        """Forget it."""

    def note_crossing(
        self, sender: Address, recipient: Address, kind: str, at: float, failure: Failure | None = None
    ) -> None:
        """Count one crossing or failure, coalesced in memory and written behind."""

    async def crossings(self, one: Address, other: Address) -> Sequence[Crossing]:
        """Totals between two people, both directions, including what is not yet written."""

    def note_call(self, record: CallRecord, expires_at: float) -> None:
        """Insert or replace the record of a call that is over, until `expires_at` (Unix seconds), written behind."""

    async def calls(self, *, person: Address | None = None, limit: int = 100) -> Sequence[CallRecord]:
        """Calls that are over, newest first; those of one person, or of everybody. Erases what has expired."""

    async def call(self, call_id: str) -> CallRecord | None:
        """One of them."""

    def note_live_call(self, call_id: str, state: Mapping[str, Any]) -> None:
        """Keep what is needed to end a live call cleanly after a crash, written behind."""

    def note_live_call_gone(self, call_id: str) -> None:
        """Forget it, written behind."""

    async def live_calls(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """The calls that were live when the last run ended."""

    async def save_audit(self, record: AuditRecord) -> None:
        """Append to the audit log."""

    async def audit(self, limit: int = 100) -> Sequence[AuditRecord]:
        """Newest first."""


# --- bus ------------------------------------------------------------------------------------------------------


class Bus(Protocol):
    """Carries an event to the owner of an address. In one process that is a function call, in order per address."""

    def register(self, event_type: type, receiver: Callable[[Address, Any], Awaitable[None] | None]) -> None:
        """Let `receiver(address, event)` take events of this type for addresses we own; receivers run in the order
        they registered."""

    def send(self, address: Address, event: object) -> None:
        """Send; events to one address arrive in the order they were sent."""


# --- calls ----------------------------------------------------------------------------------------------------


class InviteSink(Protocol):
    """Takes what becomes of an INVITE. Called in order; must not raise."""

    def provisional(self, response: SipResponse) -> None:
        """A 101 to 199 came (100 is not told)."""

    def accepted(self, response: SipResponse) -> None:
        """A 2xx came; also each further one, from other forks or repeated because our ACK was lost: ACK each."""

    def failed(self, outcome: SipResponse | TransportError) -> None:
        """A final response of 300 to 699 (already ACKed), a timeout, or nothing could be sent.

        Nothing follows but perhaps, for half a minute, a 2xx of a fork that a proxy let through (`accepted`): it wants
        ACK and BYE (RFC 3261 section 16.7 step 5).
        """


class SentInvite(Protocol):
    """An INVITE on its way."""

    def cancel(self, reason: str = "") -> None:
        """Send CANCEL as soon as it is allowed (RFC 3261 section 9.1), with this Reason; no effect after a final
        response. The outcome comes to the sink as usual."""


class CallSipEndpoint(LeanSipEndpoint, Protocol):
    """An endpoint that can also make calls."""

    def invite(self, request: SipRequest, next_hop: NextHop | None, sink: InviteSink) -> SentInvite:
        """Send an INVITE (initial or within a dialog)."""

    def send_ack(self, ack: SipRequest, next_hop: NextHop | None = None) -> None:
        """Send the ACK of a 2xx, which belongs to no transaction (RFC 3261 section 13.2.2.4).

        What cannot be sent is dropped: the peer repeats its 2xx and gets another.
        """


@dataclass(frozen=True, slots=True)
class MediaQuality:
    """What the relay counted for one direction of one medium (RFC 3550 sections 6.4 and A).

    Attributes:
        media: "audio" or "video".
        party: key of the leg that sent it.
        packets, octets, lost: counts.
        jitter_ms, round_trip_ms: latest or mean values, None when unknown.
        mos: mean opinion score 1.0 to 5.0 as the relay computed it, None when unknown.
    """

    media: str
    party: str
    packets: int
    octets: int
    lost: int = 0
    jitter_ms: float | None = None
    round_trip_ms: float | None = None
    mos: float | None = None


class RelaySession(Protocol):
    """One call's media in one relay (rtpengine NG). Operations of one session are made one after the other.

    `by` names who said this description, `to` the other end (keys of legs). `form` is what the description must look
    like on the other side. What comes back is ready to be sent there.
    """

    async def offer(self, sdp: SessionDescription, *, by: str, to: str, form: MediaForm) -> SessionDescription:
        """Rewrite an offer. Raises RelayError."""

    async def answer(self, sdp: SessionDescription, *, by: str, to: str, form: MediaForm) -> SessionDescription:
        """Rewrite the answer to the last offer; `form` is that of the offerer's side. Raises RelayError."""

    async def add_candidates(self, fragment: SessionDescription, *, by: str) -> None:
        """Feed trickled candidates (RFC 8840); failures are only traced: ICE finds peer-reflexive ones."""

    async def drop(self, party: str) -> None:
        """Take an end out that left while the others go on: a device that lost the race, one that transferred the call.

        Nothing of it reaches the others any more, and its ports are free; never raises.
        """

    async def quality(self) -> tuple[MediaQuality, ...]:
        """Ask for the counters; empty when the relay does not answer."""

    async def delete(self) -> tuple[MediaQuality, ...]:
        """End it and return the last counters; never raises."""


class MediaRelay(Protocol):
    """All relays there are."""

    @property
    def is_available(self) -> bool:
        """True when at least one answers."""

    def open(self, on_dead: Callable[[], None]) -> RelaySession:
        """Choose the least loaded relay for a new call; nothing is sent yet.

        Args:
            on_dead: called once when the relay is lost or says that no media have come for too long.

        Raises:
            RelayError: no relay answers.
        """
