"""Nouns that both realms share. Immutable, typed, without I/O.

An `Address` is the one identity of a person in both realms: the *unescaped*, case-folded form. How it looks as a
SIP URI or a JID is `interworking.addresses`' knowledge (RFC 7247 section 6).
Times are Unix seconds (UTC, float) in fields ending in `_at` or `since`; durations end in `_seconds`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import idna
from precis_i18n import get_profile

from isthmus.errors import AddressError

# RFC 7622 section 3.2 and 3.3: no part of a JID may be longer than 1023 octets.
MAXIMUM_PART_OCTETS = 1023
_USERNAME = get_profile("UsernameCaseMapped")


@functools.lru_cache(maxsize=65536)
def canonical_domain(name: str) -> str:
    """Return `name` lower-cased with its labels as U-labels (RFC 5890); IP literals pass unchanged.

    Raises:
        AddressError: the name is empty, too long or not a domain name.
    """
    if not name or len(name) > MAXIMUM_PART_OCTETS:
        raise AddressError("the domain of an address must have 1 to 1023 characters")
    lowered = name.rstrip(".").lower()
    if lowered.isascii():
        if not all(c.isalnum() or c in "-._[]:" for c in lowered) or not lowered:
            raise AddressError(f"{name!r} is not a domain name")
        if "xn--" not in lowered:
            return lowered
    try:
        return idna.decode(idna.encode(lowered, uts46=True))
    except idna.IDNAError as error:
        raise AddressError(f"{name!r} is not a domain name: {error}") from error


@functools.lru_cache(maxsize=65536)
def canonical_local(local: str) -> str:
    """Return the case-folded, NFC-normalised user part (the case mapping of RFC 8265 section 3.3).

    SIP compares user parts with case, XMPP without: both realms meet in the folded form, otherwise two SIP users
    could collapse into one JID. Characters that PRECIS forbids but XEP-0106 escapes (space, quote, slash, ...) stay.

    Raises:
        AddressError: empty, over-long, control characters, or leading/trailing space (XEP-0106 section 3.2).
    """
    if not local:
        raise AddressError("an address needs a user part")
    if any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" or c in "\ufffe\uffff" for c in local):
        raise AddressError("the user part of an address holds a control character")
    if local[0] == " " or local[-1] == " ":
        raise AddressError("the user part of an address must not begin or end with a space")
    # PRECIS refuses the ten XEP-0106 characters, which are legal here: it folds the runs between them.
    folded = local.lower() if local.isascii() else _fold_with_precis(local)
    if len(folded.encode()) > MAXIMUM_PART_OCTETS:
        raise AddressError("the user part of an address is longer than 1023 octets")
    return folded


_ESCAPABLE = frozenset(" \"&'/:<>@\\")


def _fold_with_precis(local: str) -> str:
    folded: list[str] = []
    run: list[str] = []
    for character in [*local, ""]:
        if character and character not in _ESCAPABLE:
            run.append(character)
            continue
        if run:
            try:
                folded.append(_USERNAME.enforce("".join(run)))
            except UnicodeEncodeError as error:
                raise AddressError(f"{local!r} cannot be a user name: {error.reason}") from error
            run = []
        folded.append(character)
    return "".join(folded)


class Address(NamedTuple):
    """A person in either realm: `ana@corp.test`.

    A tuple and not a dataclass, because every message looks people up in some twenty tables, and tuples hash and
    compare in C.

    Attributes:
        local: user part, unescaped and case-folded; any character but controls, so it may hold `@` or a space.
        domain: domain, lower-case, U-labels.
    """

    local: str
    domain: str

    @classmethod
    def of(cls, local: str, domain: str) -> Address:
        """Build an address from raw parts, folding both. Raises AddressError."""
        return cls(canonical_local(local), canonical_domain(domain))

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `local@domain` as a person types it (the last `@` separates). Raises AddressError."""
        local, at, domain = text.strip().rpartition("@")
        if not at:
            raise AddressError(f"{text!r} is not an address: it needs the form name@domain")
        return cls.of(local, domain)

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


class Realm(StrEnum):
    """Which network an address lives in."""

    BUSINESS_HOSTED = "hosted"  # a SIP domain whose users register with us
    BUSINESS_ROUTED = "routed"  # a SIP domain that a PBX or proxy owns
    CONSUMER = "consumer"  # everything reached over XMPP: our own realm and foreign servers

    @property
    def is_business(self) -> bool:
        """True for both kinds of SIP domain."""
        return self is not Realm.CONSUMER


class Modality(StrEnum):
    """What may cross; one policy flag each."""

    PRESENCE = "presence"
    MESSAGES = "messages"
    AUDIO = "audio"
    VIDEO = "video"
    FILES = "files"
    CONFERENCES = "conferences"


class Origin(StrEnum):
    """Who decided that something cannot happen."""

    POLICY = "policy"
    PEER = "peer"
    TIMEOUT = "timeout"
    NO_DEVICE = "no device"
    LIMIT = "limit"
    ADDRESS = "address"
    FORMAT = "format"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to "may this cross?", with its reason.

    Attributes:
        is_allowed: the decision.
        rule: name of the deciding rule, stable and greppable, e.g. `user.messages` or `domain.blocked`.
        text: a sentence for sender, trace and administrator.
    """

    is_allowed: bool
    rule: str
    text: str

    def __bool__(self) -> bool:
        return self.is_allowed


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something that was tried did not happen; carried to sender, trace and administrator.

    Attributes:
        origin: who decided.
        status: SIP status code that says it on the SIP side, 300 to 699.
        condition: RFC 6120 stanza error condition that says it on the XMPP side.
        text: a sentence fit for the sender; no addresses or secrets of third parties.
        rule: deciding policy rule, if any.
        is_temporary: worth another try later.
        alternative: URI to use instead (RFC 3261 301/302 Contact, RFC 6120 `gone` and `redirect`), if told.
    """

    origin: Origin
    status: int
    condition: str
    text: str
    rule: str = ""
    is_temporary: bool = False
    alternative: str = ""


class Availability(StrEnum):
    """Canonical presence states: the rows of the state table that both realms map to and from."""

    AVAILABLE = "available"
    INACTIVE = "inactive"
    BUSY = "busy"
    IN_A_CALL = "in-a-call"
    IN_A_CONFERENCE = "in-a-conference"
    IN_A_MEETING = "in-a-meeting"
    BUSY_INACTIVE = "busy-inactive"
    DO_NOT_DISTURB = "do-not-disturb"
    PRESENTING = "presenting"
    BE_RIGHT_BACK = "be-right-back"
    AWAY = "away"
    OFF_WORK = "off-work"
    OUT_OF_OFFICE = "out-of-office"
    OFFLINE = "offline"
    UNKNOWN = "unknown"  # nothing is known: never shown as available

    @property
    def is_online(self) -> bool:
        """True when the person can be reached by at least one device."""
        return self not in (Availability.OFFLINE, Availability.UNKNOWN)


class PresenceSource(StrEnum):
    """Where a presence state comes from; shown to the administrator, never derived from display text."""

    MANUAL = "manual"  # set by the person
    DEVICE = "device"  # a phone or client published it
    REGISTRATION = "registration"  # seeded from a live registration
    CALL = "call"  # our own call control
    CALENDAR = "calendar"
    FEDERATED = "federated"  # told by the other realm
    POLICY = "policy"  # hidden or reduced by policy
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Presence:
    """Canonical presence of one device or one person.

    Attributes:
        state: row of the state table.
        note: free text set by the person ("Budget call"); empty when none.
        note_language: BCP 47 tag of the note, may be empty.
        activities: RPID activity names (RFC 4480 section 3.2) as they came, known names only.
        idle_since: when the person was last active (RPID user-input, XEP-0319); None when active or unknown.
        since: when this state began; None when unknown.
        source: where it comes from.
    """

    state: Availability
    note: str = ""
    note_language: str = ""
    activities: frozenset[str] = frozenset()
    idle_since: float | None = None
    since: float | None = None
    source: PresenceSource = PresenceSource.NONE


@dataclass(frozen=True, slots=True)
class Device:
    """One device (SIP binding or publication, XMPP resource) and its presence.

    Attributes:
        id: stable name: XMPP resource, `gr` value or PIDF tuple id.
        presence: what it says.
        priority: XMPP priority, -128 to 127; None when the device gave none (lowest).
        contact: URI the device can be reached at, if told.
        capabilities: what an XMPP client announced of itself (XEP-0115): hash, node and ver as `sha-1 NODE#VER`, ""
            when it announced nothing.
    """

    id: str
    presence: Presence
    priority: int | None = None
    contact: str = ""
    capabilities: str = ""


@dataclass(frozen=True, slots=True)
class PresenceDocument:
    """All that is known of one presentity: the composed person and every device (RFC 4479 data model)."""

    entity: Address
    person: Presence
    devices: tuple[Device, ...] = ()


class ChatState(StrEnum):
    """XEP-0085 states; RFC 3994 knows only active (composing) and idle."""

    ACTIVE = "active"
    COMPOSING = "composing"
    PAUSED = "paused"
    INACTIVE = "inactive"
    GONE = "gone"


class MessageKind(StrEnum):
    """What a message carries; only TEXT is journalled for hours, the rest is short-lived."""

    TEXT = "text"
    TYPING = "typing"
    DELIVERED = "delivered"  # delivery receipt for `refers_to`
    DISPLAYED = "displayed"  # displayed marker for `refers_to`
    FAILED = "failed"  # late failure of `refers_to`, with `failure`


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message between two people, in either direction.

    Attributes:
        id: unique per sender; the same string is stanza id and imdn.Message-ID, and stays over redelivery.
        sender, recipient: the people.
        sender_device, recipient_device: XMPP resource or `gr` value; empty for the bare address.
        kind: what it carries.
        text, language, subject, thread: content of TEXT.
        state: chat state of TYPING (a TEXT implies ACTIVE).
        refers_to: id of the message that a receipt, marker or failure is about.
        wants_delivered, wants_displayed: the sender asked for these notifications.
        failure: why, for FAILED.
        sent_at: when the sender sent it.
        expires_at: when it is stale (SIP Expires), None for the default of the journal.
        hops: how many Isthmus crossings it has behind it; over 5 is a loop.
    """

    id: str
    sender: Address
    recipient: Address
    kind: MessageKind = MessageKind.TEXT
    sender_device: str = ""
    recipient_device: str = ""
    text: str = ""
    language: str = ""
    subject: str = ""
    thread: str = ""
    state: ChatState = ChatState.ACTIVE
    refers_to: str = ""
    wants_delivered: bool = False
    wants_displayed: bool = False
    failure: Failure | None = None
    sent_at: float = 0.0
    expires_at: float | None = None
    hops: int = 0


class AuthorisationState(StrEnum):
    """State of "watcher may see presentity" (RFC 3857 section 4.7 names; XMPP pending-in is PENDING or WAITING)."""

    PENDING = "pending"  # asked, not yet answered
    ACTIVE = "active"  # granted


@dataclass(frozen=True, slots=True)
class Authorisation:
    """One direction of a contact: `watcher` asked to see `presentity`. Permanent until taken back (RFC 6121 section 3).

    Attributes:
        watcher, presentity: the people.
        state: pending or active; a refused one does not exist.
        asked_at, decided_at: when it was asked and granted.
        note: text the watcher sent with the request, shown to the presentity.
    """

    watcher: Address
    presentity: Address
    state: AuthorisationState
    asked_at: float
    decided_at: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Contact:
    """How one person sees another: both directions of authorisation joined, in RFC 6121 words.

    Attributes:
        owner, peer: whose contact list, and who is in it.
        subscription: "none", "to" (owner sees peer), "from" (peer sees owner) or "both".
        is_pending_out: owner asked and waits; is_pending_in: peer asked and owner must decide.
        is_blocked: owner blocked peer.
    """

    owner: Address
    peer: Address
    subscription: str = "none"
    is_pending_out: bool = False
    is_pending_in: bool = False
    is_blocked: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """A hosted business user.

    Attributes:
        digests: HA1 per algorithm token ("SHA-256", "MD5"), hex; never logged.
        groups: policy groups, most important first.
    """

    address: Address
    display_name: str = ""
    digests: dict[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)
    is_disabled: bool = False
    groups: tuple[str, ...] = ()
    created_at: float = 0.0


class EndCause(StrEnum):
    """Why a call, or one leg of it, ended or never came about; one row each in `interworking.call_endings`."""

    HUNG_UP = "hung up"  # a person ended it
    CANCELLED = "cancelled"  # the caller gave up before anybody answered
    ANSWERED_ELSEWHERE = "answered elsewhere"  # another device of the callee was faster
    BUSY = "busy"
    DECLINED = "declined"  # a person said no
    NO_ANSWER = "no answer"  # it rang, nobody came
    UNREACHABLE = "unreachable"  # no device, or none that could be reached
    NOT_FOUND = "not found"  # there is nobody at this address
    GONE = "gone"  # the address is no longer in use
    FORBIDDEN = "forbidden"  # policy, ours or the peer's
    MEDIA_MISMATCH = "media mismatch"  # no common codec, or not what the peer's device can do
    SECURITY = "security"  # encryption that one side demands and the other has not
    CONNECTIVITY = "connectivity"  # media or signalling broke
    EXPIRED = "expired"  # the session timer ran out (RFC 4028)
    TRANSFERRED = "transferred"  # the leg was replaced by another one
    LOOP = "loop"
    OVERLOADED = "overloaded"  # a limit of ours, or no media relay
    FAILED = "failed"  # an error inside one of the systems


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call or a leg ended, and who decided; carried to both sides, the record, trace and administrator.

    Attributes:
        cause: what happened.
        text: a sentence fit for the people concerned; empty takes the cause's own.
        origin: who decided.
        rule: deciding policy rule, if any.
        status: SIP status it came as; 0 when it did not come from SIP.
        alternative: URI to call instead (RFC 3261 section 21.3), if told.
    """

    cause: EndCause
    text: str = ""
    origin: Origin = Origin.PEER
    rule: str = ""
    status: int = 0
    alternative: str = ""


class MediaForm(StrEnum):
    """What a leg's media look like on the wire; decides between direct and relayed, and how the relay speaks."""

    WEBRTC = "webrtc"  # ICE, DTLS-SRTP, rtcp-mux: UDP/TLS/RTP/SAVPF (browsers, every Jingle client)
    DTLS = "dtls"  # DTLS-SRTP without ICE: UDP/TLS/RTP/SAVP
    SDES = "sdes"  # RTP/SAVP with keys in the SDP (RFC 4568)
    RTP = "rtp"  # RTP/AVP in clear
