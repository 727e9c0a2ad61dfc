"""Who sent a SIP request: a hosted user by digest, or somebody behind a neighbour we know (RFC 3261 section 22).

From is believed only when it is proven: it equals the user whose password was shown, or it lies in the domain whose
neighbour the request came from (by address or by certificate). Identity headers from outside are never looked at.
Unknown users get the same answers, after the same work, as known ones.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.config import SipPeer, SipSettings
from isthmus.errors import AddressError, PeerError, SipParseError
from isthmus.interworking.addresses import address_from_sip_uri
from isthmus.metrics import Metrics
from isthmus.model import Address, Realm, canonical_domain
from isthmus.ports import Clock, Flow, IncomingRequest
from isthmus.services.digest_algorithms import DigestAlgorithms
from isthmus.services.directory import Directory
from isthmus.services.messaging_tables import RecentTable
from isthmus.sip.digest import Authorization, NonceSource, challenges, check_credentials, find_authorization
from isthmus.sip.message import SipRequest
from isthmus.sip.uri import SipUri
from isthmus.trace import Trace

# People mistype; machines that guess do not stop.
FREE_ATTEMPTS = 5
LONGEST_LOCK_SECONDS = 900.0
# After this without a failure the count begins anew.
LOCK_FORGOTTEN_SECONDS = 3_600.0
MAXIMUM_LOCKS = 20_000

_NO_DIGESTS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sent a request, proven.

    Attributes:
        address: the sender; equals From (To for REGISTER).
        kind: "user" (hosted, by digest) or "peer" (somebody of a routed domain, vouched for by its neighbour).
        device: `gr` of the sender's device, "" when unknown.
    """

    address: Address
    kind: str = "user"
    device: str = ""

    @property
    def is_user(self) -> bool:
        """True for a hosted user."""
        return self.kind == "user"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request whose sender is not proven, and how to answer it."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()
    rule: str = ""


class _Lock:
    """Failures of one source for one user."""

    __slots__ = ("failed_at", "failures", "locked_until")

    def __init__(self) -> None:
        self.failures = 0
        self.failed_at = 0.0
        self.locked_until = 0.0


class _Neighbour:
    """One configured peer of a routed domain, ready for comparison."""

    __slots__ = ("addresses", "host", "names", "networks")

    def __init__(self, peer: SipPeer) -> None:
        self.networks = peer.allow_from
        self.names = frozenset(name.lower() for name in peer.tls_names)
        self.host = peer.host.strip("[]").lower()
        self.addresses: frozenset[str] = frozenset()
        if not peer.allow_from and not peer.tls_names:
            # Nothing said: the peer's own address. A host name is filled in by `note_addresses`.
            self.addresses = frozenset(("127.0.0.1", "::1")) if self.host == "localhost" else _literal(self.host)

    def vouches_for(self, flow: Flow) -> bool:
        if self.names and flow.peer_names and not self.names.isdisjoint(name.lower() for name in flow.peer_names):
            return True
        if flow.remote_host in self.addresses:
            return True
        if not self.networks:
            return False
        try:
            source = ipaddress.ip_address(flow.remote_host)
        except ValueError:
            return False
        return any(source in network for network in self.networks if network.version == source.version)


class Authenticator:
    """Proves senders.

    Args:
        secret: key of the nonces; kept over restarts, so that phones are not challenged twice.
    """

    def __init__(
        self,
        directory: Directory,
        settings: SipSettings,
        clock: Clock,
        trace: Trace,
        *,
        secret: bytes,
        metrics: Metrics | None = None,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._trace = trace
        self._metrics = metrics
        self._nonces = NonceSource(secret, settings.nonce_seconds)
        self._algorithms = DigestAlgorithms(allows_md5=settings.allow_md5)
        self._locks: RecentTable[tuple[str, Address], _Lock] = RecentTable(MAXIMUM_LOCKS)
        self._neighbours: dict[str, tuple[_Neighbour, ...]] = {}
        for name in directory.routed_domains:
            configured = directory.domain(name)
            self._neighbours[name] = tuple(_Neighbour(peer) for peer in configured.peers) if configured else ()
        self._vouchers: RecentTable[Flow, frozenset[str]] = RecentTable(4_096)

    # --- neighbours ---

    def hosts_to_resolve(self) -> tuple[str, ...]:
        """Host names of neighbours whose addresses somebody has to look up (and again every few minutes)."""
        neighbours = (neighbour for group in self._neighbours.values() for neighbour in group)
        return tuple(
            sorted(
                {
                    neighbour.host
                    for neighbour in neighbours
                    if not neighbour.networks and not neighbour.names and not _literal(neighbour.host)
                }
                - {"localhost"}
            )
        )

    def note_addresses(self, host: str, addresses: frozenset[str]) -> None:
        """A neighbour's host name means these addresses now."""
        for group in self._neighbours.values():
            for neighbour in group:
                if neighbour.host == host.lower() and not neighbour.networks and not neighbour.names:
                    neighbour.addresses = addresses
        self._vouchers = RecentTable(4_096)

    def domains_of(self, flow: Flow) -> frozenset[str]:
        """The routed domains that a request which came over `flow` may speak for; empty for everybody else."""
        known = self._vouchers.get(flow)
        if known is None:
            known = frozenset(
                domain
                for domain, group in self._neighbours.items()
                if any(neighbour.vouches_for(flow) for neighbour in group)
            )
            self._vouchers.put(flow, known)
        return known

    def is_neighbour(self, domain: str, flow: Flow) -> bool:
        """True when a request that came over `flow` may speak for `domain`."""
        return domain in self.domains_of(flow)

    # --- requests ---

    def identify(self, incoming: IncomingRequest) -> Identity | Refusal:
        """Return who sent a request other than REGISTER, or how to answer it."""
        request, flow = incoming.request, incoming.flow
        uri = request.from_address.uri
        if not isinstance(uri, SipUri):
            return Refusal(403, "The sender cannot be proven", rule="authentication.scheme")
        try:
            address, device = address_from_sip_uri(uri)
        except AddressError as error:
            return Refusal(400, str(error), rule="authentication.address")
        realm = self._directory.realm_of(address.domain)
        if realm is Realm.BUSINESS_ROUTED:
            if self.is_neighbour(address.domain, flow):
                return Identity(address, "peer", device)
            return self._refused(incoming, address, "authentication.neighbour", "The sender cannot be proven")
        if realm is Realm.CONSUMER:
            # Consumers come over XMPP: whoever says so over SIP is not one of them (edge case 43).
            return self._refused(incoming, address, "authentication.foreign", "The sender cannot be proven")
        proven = self._prove(request, flow, address.domain)
        if isinstance(proven, Refusal):
            return proven
        if proven != address:
            return self._refused(incoming, address, "authentication.from", "From is not the authenticated user")
        return Identity(address, "user", device)

    def identify_registrant(self, incoming: IncomingRequest) -> Identity | Refusal:
        """Return who sent a REGISTER: the owner of the password; the registrar compares it with To."""
        request = incoming.request
        uri = request.to_address.uri
        realm = self._realm_for_register(uri)
        if not realm:
            return Refusal(403, "No users register here", rule="authentication.no-hosted-domain")
        proven = self._prove(request, incoming.flow, realm)
        return proven if isinstance(proven, Refusal) else Identity(proven, "user")

    def _realm_for_register(self, uri: object) -> str:
        hosted = self._directory.hosted_domains
        if isinstance(uri, SipUri):
            try:
                domain = canonical_domain(uri.host)
            except PeerError:
                domain = ""
            if domain in hosted:
                return domain
        # A domain that is not ours looks like one of ours until a password is shown.
        return hosted[0] if hosted else ""

    # --- digest ---

    def _prove(self, request: SipRequest, flow: Flow, realm: str) -> Address | Refusal:
        try:
            authorization = find_authorization(request, realm)
        except SipParseError as error:
            return Refusal(400, str(error), rule="authentication.malformed")
        if authorization is None:
            offer = self._algorithms.offer(request, flow)
            return self._challenge(realm, "Unauthorized", rule="", algorithms=offer)
        self._algorithms.answered(authorization.algorithm, flow)
        try:
            claimed = Address.of(authorization.username, realm)
        except AddressError:
            claimed = Address("", realm)
        locked = self._locked_for(flow, claimed)
        if locked > 0:
            return Refusal(
                403,
                "Too many failed attempts, try again later",
                (("Retry-After", str(int(locked) + 1)),),
                "authentication.locked",
            )
        if not check_credentials(authorization, request.method, self._digests(claimed), request.body):
            self._note_failure(flow, claimed, request)
            algorithms = (authorization.algorithm,) if authorization.algorithm in self._algorithms.accepted else ()
            return self._challenge(realm, "Unauthorized", rule="authentication.password", algorithms=algorithms)
        return self._check_nonce(authorization, flow, claimed, realm)

    def _check_nonce(self, authorization: Authorization, flow: Flow, claimed: Address, realm: str) -> Address | Refusal:
        verdict = self._nonces.check(authorization.nonce, authorization.nc, self._clock.wall(), realm)
        if verdict != "ok":
            # The password was right: `stale` spares the owner the question for it (RFC 7616 section 3.3).
            algorithms = (authorization.algorithm,)  # it proved that it can use this one
            return self._challenge(
                realm, "Unauthorized", rule=f"authentication.nonce-{verdict}", is_stale=True, algorithms=algorithms
            )
        self._locks.pop((flow.remote_host, claimed))
        return claimed

    def _digests(self, claimed: Address) -> Mapping[str, str]:
        user = self._directory.user(claimed)
        if user is None or user.is_disabled:
            return _NO_DIGESTS
        return {name: value for name, value in user.digests.items() if name in self._algorithms.accepted}

    def _challenge(
        self, realm: str, reason: str, *, rule: str, is_stale: bool = False, algorithms: tuple[str, ...] = ()
    ) -> Refusal:
        nonce = self._nonces.make(self._clock.wall(), realm)
        headers = tuple(challenges(realm, nonce, algorithms or self._algorithms.accepted, is_stale=is_stale))
        return Refusal(401, reason, headers, rule)

    def _refused(self, incoming: IncomingRequest, claimed: Address, rule: str, reason: str) -> Refusal:
        self._trace.decision(
            f"{incoming.request.method} from {incoming.flow.remote_host} says it is {claimed}: {reason}",
            people=(str(claimed), *_recipient(incoming.request)),
            rule=rule,
            call_id=incoming.request.call_id,
        )
        if self._metrics is not None:
            self._metrics.authentication_failures.add(rule)
        return Refusal(403, reason, rule=rule)

    # --- lock-out ---

    def _locked_for(self, flow: Flow, claimed: Address) -> float:
        lock = self._locks.get((flow.remote_host, claimed))
        return 0.0 if lock is None else lock.locked_until - self._clock.monotonic()

    def _note_failure(self, flow: Flow, claimed: Address, request: SipRequest) -> None:
        key = (flow.remote_host, claimed)
        now = self._clock.monotonic()
        lock = self._locks.get(key)
        if lock is None or now - lock.failed_at > LOCK_FORGOTTEN_SECONDS:
            lock = _Lock()
        self._locks.put(key, lock)
        lock.failures += 1
        lock.failed_at = now
        if lock.failures >= FREE_ATTEMPTS:
            lock.locked_until = now + min(LONGEST_LOCK_SECONDS, 2.0 ** (lock.failures - FREE_ATTEMPTS))
        self._trace.decision(
            f"wrong password for {claimed} from {flow.remote_host} ({lock.failures} in a row)",
            people=(str(claimed),),
            rule="authentication.password",
            call_id=request.call_id,
        )
        if self._metrics is not None:
            self._metrics.authentication_failures.add("authentication.password")


def _recipient(request: SipRequest) -> tuple[str, ...]:
    """Whom a request is for, so that `isthmus explain` finds its refusal between the two."""
    try:
        return (str(address_from_sip_uri(request.uri)[0]),) if isinstance(request.uri, SipUri) else ()
    except AddressError:
        return ()


def _literal(host: str) -> frozenset[str]:
    try:
        return frozenset((str(ipaddress.ip_address(host)),))
    except ValueError:
        return frozenset()
