"""Where a request goes next: RFC 3263 as a plan that asks for DNS answers, and the bounds on its way (RFC 5393).

No I/O: `resolution_plan` is a generator that yields questions, is sent the answers, and returns targets in the order
in which they are to be tried.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple, TypeAlias

from isthmus.errors import SipParseError
from isthmus.sip.headers import MAGIC_COOKIE, Via
from isthmus.sip.message import SipRequest
from isthmus.sip.uri import SipUri

DEFAULT_PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 80, "wss": 443}
# Most wanted first, when the peer's DNS leaves us the choice.
PREFERRED_TRANSPORTS = ("tls", "tcp", "udp")
_SECURE = frozenset({"tls", "wss"})
_SECURED = {"tcp": "tls", "tls": "tls", "ws": "wss", "wss": "wss"}
# RFC 3263 section 4.1, RFC 7118 section 5.4: NAPTR service -> transport, and SRV prefix of each transport.
_NAPTR_SERVICES = {
    "sips+d2t": "tls",
    "sip+d2t": "tcp",
    "sip+d2u": "udp",
    "sip+d2w": "ws",
    "sips+d2w": "wss",
}
_SRV_PREFIXES = {
    "tls": "_sips._tcp.",
    "tcp": "_sip._tcp.",
    "udp": "_sip._udp.",
    "ws": "_sip._ws.",
    "wss": "_sips._ws.",
}

# A domain's DNS is written by others: these keep one request from trying, or asking for, more than anyone needs.
MAXIMUM_NAPTR_RECORDS = 8
MAXIMUM_SRV_RECORDS = 16
MAXIMUM_ADDRESSES = 8
MAXIMUM_TARGETS = 16

DEFAULT_MAX_FORWARDS = 70
DEFAULT_MAX_BREADTH = 60  # RFC 5393 section 5.3.3.1


@dataclass(frozen=True, slots=True)
class Target:
    """One place to try.

    Attributes:
        transport: udp, tcp, tls, ws or wss.
        host: numeric address.
        port: 1 to 65535.
        tls_name: name that the peer's certificate must prove: the domain that was asked for, never an SRV target
            (RFC 5922 section 4); empty without TLS.
    """

    transport: str
    host: str
    port: int
    tls_name: str = ""


class Question(NamedTuple):
    """A DNS question: `kind` is NAPTR, SRV, A or AAAA."""

    kind: str
    name: str


class NaptrRecord(NamedTuple):
    """RFC 3403, as text."""

    order: int
    preference: int
    flags: str
    service: str
    replacement: str


class SrvRecord(NamedTuple):
    """RFC 2782, as text."""

    priority: int
    weight: int
    port: int
    target: str


Record: TypeAlias = NaptrRecord | SrvRecord | str
Answers: TypeAlias = Sequence[Sequence[Record]]
Plan: TypeAlias = Generator[tuple[Question, ...], Answers, list[Target]]
"""Yields questions that may be asked at the same time; wants one sequence of records for each, empty for none."""


def resolution_plan(
    uri: SipUri,
    *,
    random: Callable[[], float],
    transports: Sequence[str] = PREFERRED_TRANSPORTS,
    address_kinds: Sequence[str] = ("A", "AAAA"),
) -> Plan:
    """Plan how to reach `uri` (RFC 3263 section 4); drive it with `resolve` or by hand.

    Args:
        uri: the topmost Route or the Request-URI.
        random: numbers from 0 to below 1, for SRV weights.
        transports: those we can use, most wanted first.
        address_kinds: A and AAAA in the order in which addresses are tried.

    Returns:
        Targets in order of trial; empty when there is none, among others for a secure URI without a secure transport.
    """
    # maddr names the machine, the domain stays what the certificate must prove (RFC 5922 section 7.1).
    host = uri.param("maddr") or uri.host
    explicit, is_explicit = _explicit_transport(uri)
    if is_explicit and explicit not in transports:
        return []
    usable = [transport for transport in transports if transport in _SECURE or not uri.is_secure]
    if _is_numeric(host):
        transport = explicit or ("tls" if uri.is_secure else "udp")
        ends = [(transport, host, uri.port or DEFAULT_PORTS[transport])]
    elif uri.port:
        transport = explicit or ("tls" if uri.is_secure else "udp")
        ends = [(transport, host, uri.port)]
    elif explicit:
        served = yield from _by_srv([(explicit, _SRV_PREFIXES[explicit] + host)], random)
        ends = served if served is not None else [(explicit, host, DEFAULT_PORTS[explicit])]
    else:
        ends = yield from _by_naptr(host, uri.is_secure, usable, random)
    ends = [end for end in ends if end[0] in usable]
    return (yield from _addresses(ends, uri.host, address_kinds))


_End: TypeAlias = tuple[str, str, int]


def _explicit_transport(uri: SipUri) -> tuple[str, bool]:
    """Return the transport that the URI names, and whether it names one; "" with True for one that cannot be."""
    named = (uri.param("transport") or "").lower()
    if not named:
        return "", False
    if uri.is_secure:
        return _SECURED.get(named, ""), True  # sips over UDP does not exist (RFC 3261 section 26.2.2)
    return (named if named in DEFAULT_PORTS else ""), True


def _by_naptr(
    host: str, is_secure: bool, usable: Sequence[str], random: Callable[[], float]
) -> Generator[tuple[Question, ...], Answers, list[_End]]:
    (answer,) = yield (Question("NAPTR", host),)
    records = sorted(record for record in answer if isinstance(record, NaptrRecord) and record.flags.lower() == "s")
    services = [
        (transport, record.replacement.rstrip("."))
        for record in records[:MAXIMUM_NAPTR_RECORDS]
        if (transport := _NAPTR_SERVICES.get(record.service.lower(), "")) in usable
    ]
    if not services:
        # Section 4.1: no NAPTR, so ask for every service we could use, in our own order.
        services = [(transport, _SRV_PREFIXES[transport] + host) for transport in usable]
    ends = yield from _by_srv(services, random)
    if ends is not None:
        return ends
    transport = "tls" if is_secure else "udp"
    return [(transport, host, DEFAULT_PORTS[transport])]


def _by_srv(
    services: Sequence[tuple[str, str]], random: Callable[[], float]
) -> Generator[tuple[Question, ...], Answers, list[_End] | None]:
    """Return the ends of all services in order, or None when no service has an SRV record at all."""
    answers = yield tuple(Question("SRV", name) for _, name in services)
    ends: list[_End] = []
    has_records = False
    for (transport, _), answer in zip(services, answers, strict=True):
        records = [record for record in answer if isinstance(record, SrvRecord)][:MAXIMUM_SRV_RECORDS]
        has_records = has_records or bool(records)
        for record in order_by_weight(records, random):
            target = record.target.rstrip(".")
            if target:  # "." says: this service is decidedly not offered (RFC 2782)
                ends.append((transport, target, record.port))
    return ends if has_records else None


def order_by_weight(records: Iterable[SrvRecord], random: Callable[[], float]) -> list[SrvRecord]:
    """Order SRV records: by priority, and within one by the weighted lottery of RFC 2782."""
    ordered: list[SrvRecord] = []
    waiting = sorted(records, key=lambda record: (record.priority, record.weight))
    while waiting:
        peers = [record for record in waiting if record.priority == waiting[0].priority]
        total = sum(record.weight for record in peers)
        ticket = random() * total
        drawn = peers[0] if total else peers.pop(int(random() * len(peers)))
        for record in peers if total else ():
            ticket -= record.weight
            drawn = record
            # Weightless records stand first and are drawn only by a ticket of exactly zero.
            if ticket < 0 or (ticket == 0 and record.weight == 0):
                break
        waiting.remove(drawn)
        ordered.append(drawn)
    return ordered


def _addresses(
    ends: Sequence[_End], domain: str, kinds: Sequence[str]
) -> Generator[tuple[Question, ...], Answers, list[Target]]:
    names = list(dict.fromkeys(name for _, name, _ in ends if not _is_numeric(name)))[:MAXIMUM_TARGETS]
    found: dict[str, list[str]] = {}
    if names:
        questions = [Question(kind, name) for name in names for kind in kinds]
        answers = yield tuple(questions)
        for question, answer in zip(questions, answers, strict=True):
            addresses = [record for record in answer if isinstance(record, str)]
            found.setdefault(question.name, []).extend(addresses[:MAXIMUM_ADDRESSES])
    targets = [
        Target(transport, address, port, domain if transport in _SECURE else "")
        for transport, name, port in ends
        for address in ([_bare(name)] if _is_numeric(name) else found.get(name, ()))
        if 0 < port < 65_536
    ]
    return list(dict.fromkeys(targets))[:MAXIMUM_TARGETS]


def _bare(host: str) -> str:
    return host.strip("[]")


def _is_numeric(host: str) -> bool:
    try:
        ip_address(_bare(host))
    except ValueError:
        return False
    return True


def next_hop_uri(request: SipRequest) -> SipUri:
    """Return what is to be resolved for `request`: its topmost Route, else its Request-URI (RFC 3261 section 8.1.2).

    Raises:
        SipParseError: 416, it is not a SIP URI.
    """
    routes = request.routes
    uri = routes[0].uri if routes else request.uri
    if not isinstance(uri, SipUri):
        raise SipParseError(f"requests cannot be sent to {uri.scheme} addresses", status=416)
    return uri


# --- bounds on the way of a request -----------------------------------------------------------------------------


def next_max_forwards(received: int | None) -> int:
    """Return Max-Forwards for the other side; an absent one counts as 70 (RFC 3261 16.6, RFC 7332 for B2BUAs).

    Raises:
        SipParseError: 483, the request has made too many hops.
    """
    if received is None:
        return DEFAULT_MAX_FORWARDS
    if received <= 0:
        raise SipParseError("the request has passed too many hops", status=483)
    return min(received, 255) - 1


def split_max_breadth(received: int | None, branches: int) -> list[int]:
    """Share Max-Breadth among parallel branches (RFC 5393 section 5.3.3): absent counts as 60, more is capped to it.

    Raises:
        SipParseError: 440, fewer than one for each branch; fork to fewer, or one after the other.
    """
    breadth = DEFAULT_MAX_BREADTH if received is None else min(received, DEFAULT_MAX_BREADTH)
    if branches < 1 or breadth < branches:
        raise SipParseError("the request would be forked too widely", status=440)
    share, rest = divmod(breadth, branches)
    return [share + (1 if index < rest else 0) for index in range(branches)]


class LoopDetector:
    """Finds our own passage in the Vias of a request (RFC 5393 section 4.2).

    Our branch is `z9hG4bK` + a unique part + "." + a hash of all that decides where the request goes. When it comes
    back with the same hash it is a loop; with another one it is a spiral, which is legal.
    """

    HASH_DIGITS = 16  # 64 bits: no two routes of one request will share them

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def branch(self, unique: str, request: SipRequest) -> str:
        """Return the branch of our Via for this request; `unique` makes it a new transaction."""
        return f"{MAGIC_COOKIE}{unique}.{self._hash(request)}"

    def is_looping(self, request: SipRequest, is_ours: Callable[[Via], bool]) -> bool:
        """Tell whether the request passed us before, bound for the same place; `is_ours` knows our sent-by."""
        vias = [via for via in request.vias if is_ours(via)]
        if not vias:
            return False
        wanted = self._hash(request)
        return any(hmac.compare_digest(via.branch.rpartition(".")[2], wanted) for via in vias)

    def _hash(self, request: SipRequest) -> str:
        # Not the method: a CANCEL must get the hash of its INVITE. Not Max-Forwards or Via: they change on each turn.
        parts = [str(request.uri), *(str(route) for route in request.routes)]
        digest = hmac.new(self._secret, "\n".join(parts).encode("utf-8", "replace"), hashlib.sha256)
        return digest.hexdigest()[: self.HASH_DIGITS]
