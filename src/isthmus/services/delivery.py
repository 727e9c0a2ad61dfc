"""How to reach a business user: every device of a hosted one, the neighbours of a routed domain with failover.

A *target* is one device (or the neighbour of a routed domain); it has one or more *ways* that are tried in order: the
flows of an instance, newest first (RFC 5626 section 7: never two at once), or neighbours by priority.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from isthmus.config import SipPeer, Transport
from isthmus.errors import AddressError, RequestTimeoutError, TransportError
from isthmus.interworking.addresses import address_to_sip_uri
from isthmus.model import Address, Realm
from isthmus.ports import Binding, Clock, LeanSipEndpoint, NextHop
from isthmus.services.directory import Directory
from isthmus.services.registrar import Registrar
from isthmus.services.registrar_contacts import is_dialable
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.uri import SipUri

# A neighbour that did not answer is tried last for this long: nobody should wait 32 s for it once per message.
PEER_REST_SECONDS = 30.0
MAXIMUM_CACHED_TARGETS = 20_000

Outcome = SipResponse | TransportError


# COMPAT: Linphone (seen with 5.1) opens a conversation of its own for each `;gr=` of a sender, and does not find there
# the message that a notification is about.
_TAKES_GRUU_FOR_A_PERSON = "linphone"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to one device.

    Attributes:
        uri: Request-URI.
        next_hop: where to send it; None: by Route or Request-URI.
        routes: Route header values (Path of RFC 3327).
        key: names the device or neighbour, for what is learnt about it.
        is_stream: the way is congestion-safe and takes more than 1300 octets (RFC 3428 section 8).
        accepts: media types the device said it takes; empty when unknown.
        knows_gruu: the device understands that `;gr=` names a device of the same person.
    """

    uri: SipUri
    next_hop: NextHop | None
    routes: tuple[str, ...] = ()
    key: str = ""
    is_stream: bool = False
    accepts: frozenset[str] = frozenset()
    knows_gruu: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """One device with its ways in the order to be tried."""

    key: str
    ways: tuple[Way, ...]


BuildRequest = Callable[[Way], SipRequest]
Done = Callable[[Outcome, Way], None]


class NoWayError(TransportError):
    """Nobody is registered, or no neighbour is configured: nothing was sent."""


class BusinessDelivery:
    """Finds targets and sends to them.

    Args:
        spread: source of randomness in [0, 1) for sharing load among neighbours of one priority.
    """

    def __init__(
        self,
        directory: Directory,
        registrar: Registrar,
        endpoint: LeanSipEndpoint,
        clock: Clock,
        *,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._directory = directory
        self._registrar = registrar
        self._endpoint = endpoint
        self._clock = clock
        self._spread = spread
        self._hosted: dict[Address, tuple[tuple[Binding, ...], tuple[Target, ...]]] = {}
        self._routed_ways: dict[Address, tuple[Target, tuple[tuple[int, Way], ...]]] = {}
        self._shares_load: dict[str, bool] = {}
        self._resting: dict[str, float] = {}

    # --- where ---

    def targets(self, address: Address, device: str = "") -> tuple[Target, ...]:
        """Return the targets of a business user; empty when nobody is registered.

        Args:
            device: `gr` value: only this device (RFC 5627). A device that is gone falls back to all of them, because a
                message is for a person.
        """
        if self._directory.realm_of(address.domain) is Realm.BUSINESS_ROUTED:
            return (self._routed(address),)
        bindings = self._registrar.bindings(address)
        if not bindings:
            return ()
        cached = self._hosted.get(address)
        if cached is None or cached[0] is not bindings:
            cached = (bindings, _hosted_targets(bindings))
            if len(self._hosted) >= MAXIMUM_CACHED_TARGETS:
                self._hosted.clear()
            self._hosted[address] = cached
        if device:
            chosen = tuple(target for target in cached[1] if target.key == device)
            return chosen or cached[1]
        return cached[1]

    def can_reach(self, address: Address) -> bool:
        """True when there is somewhere to send to now."""
        return self._directory.realm_of(address.domain) is Realm.BUSINESS_ROUTED or bool(
            self._registrar.bindings(address)
        )

    def _routed(self, address: Address) -> Target:
        ways = self._routed_ways.get(address)
        if ways is None:
            ways = self._ways_to_neighbours(address)
            if len(self._routed_ways) >= MAXIMUM_CACHED_TARGETS:
                self._routed_ways.clear()
            self._routed_ways[address] = ways
        if not self._resting and not self._shares_load.get(address.domain):
            return ways[0]
        now = self._clock.monotonic()
        self._resting = {key: until for key, until in self._resting.items() if until > now}
        ordered = sorted(ways[1], key=lambda ranked: (ranked[1].key in self._resting, ranked[0], self._spread()))
        return Target(ways[0].key, tuple(way for _, way in ordered))

    def _ways_to_neighbours(self, address: Address) -> tuple[Target, tuple[tuple[int, Way], ...]]:
        """The neighbours by priority, and each with its priority for when one of them rests."""
        configured = self._directory.domain(address.domain)
        peers = sorted(configured.peers if configured is not None else (), key=lambda peer: peer.priority)
        uri = address_to_sip_uri(address)
        ranked = tuple(
            (
                peer.priority,
                Way(uri, _next_hop(peer), key=_peer_key(peer), is_stream=peer.transport is not Transport.UDP),
            )
            for peer in peers
        )
        priorities = [priority for priority, _ in ranked]
        self._shares_load[address.domain] = len(set(priorities)) < len(priorities)
        return Target(f"domain:{address.domain}", tuple(way for _, way in ranked)), ranked

    # --- sending ---

    def send_to(self, target: Target, build: BuildRequest, done: Done) -> None:
        """Send to one target, trying its ways; call `done` once with the final outcome and the way it came by."""
        _Attempt(self, target.ways, build, done).next()

    async def send(self, address: Address, build: BuildRequest, device: str = "") -> SipResponse:
        """Send a request to a business user, to all devices at once, and return the best final response.

        The best is a 2xx, else a 6xx, else the lowest (RFC 3261 section 16.7 step 6).

        Raises:
            NoWayError: nobody is registered.
            TransportError: no device could be reached.
        """
        targets = self.targets(address, device)
        if not targets:
            raise NoWayError(f"{address} has no registered device")
        loop = asyncio.get_running_loop()
        outcomes: list[asyncio.Future[Outcome]] = []
        for target in targets:
            future: asyncio.Future[Outcome] = loop.create_future()
            outcomes.append(future)
            self.send_to(target, build, partial(_set, future))
        return best_response(await asyncio.gather(*outcomes))

    def request(self, request: SipRequest, way: Way, done: Callable[[Outcome], None]) -> None:
        """Send one request one way."""
        for route in way.routes:
            request.headers.add("Route", route)
        self._endpoint.request_nowait(request, way.next_hop, done)

    def rest(self, way: Way) -> None:
        """Try this neighbour last for a while."""
        if way.key.startswith("peer:"):
            self._resting[way.key] = self._clock.monotonic() + PEER_REST_SECONDS


class _Attempt:
    """One request on its way through the ways of a target."""

    __slots__ = ("_build", "_delivery", "_done", "_index", "_ways")

    def __init__(self, delivery: BusinessDelivery, ways: Sequence[Way], build: BuildRequest, done: Done) -> None:
        self._delivery = delivery
        self._ways = ways
        self._build = build
        self._done = done
        self._index = 0

    def next(self) -> None:
        way = self._ways[self._index]
        try:
            request = self._build(way)
        except AddressError as error:
            self._done(TransportError(str(error)), way)
            return
        self._delivery.request(request, way, self._finished)

    def _finished(self, outcome: Outcome) -> None:
        way = self._ways[self._index]
        if _is_about_the_way(outcome):
            self._delivery.rest(way)
            self._index += 1
            if self._index < len(self._ways):
                self.next()
                return
        self._done(outcome, way)


def _is_about_the_way(outcome: Outcome) -> bool:
    """Another way to the same device may work: no connection, no answer, a failed flow, an overloaded neighbour."""
    if isinstance(outcome, SipResponse):
        return outcome.status in (408, 430, 503)
    return True


def best_response(outcomes: Sequence[Outcome]) -> SipResponse:
    """Return the response to pass on (RFC 3261 section 16.7 step 6). Raises TransportError when there is none."""
    responses = [outcome for outcome in outcomes if isinstance(outcome, SipResponse)]
    if responses:
        return min(responses, key=lambda response: (_RANK_BY_CLASS[response.status // 100], response.status))
    errors = [outcome for outcome in outcomes if isinstance(outcome, TransportError)]
    timeouts = [error for error in errors if isinstance(error, RequestTimeoutError)]
    raise (timeouts or errors or [NoWayError("there is nowhere to send it")])[0]


_RANK_BY_CLASS = {2: 0, 6: 1, 3: 2, 4: 3, 5: 4}


def _set(future: asyncio.Future[Outcome], outcome: Outcome, _way: Way) -> None:
    if not future.done():
        future.set_result(outcome)


def _hosted_targets(bindings: Sequence[Binding]) -> tuple[Target, ...]:
    """Group bindings by device, in the order of preference (q), newest first."""
    devices: dict[str, list[Binding]] = {}
    for binding in bindings:
        devices.setdefault(binding.instance or binding.contact, []).append(binding)
    ordered = sorted(devices.items(), key=lambda item: -max(binding.q for binding in item[1]))
    return tuple(Target(key, tuple(_hosted_way(binding, key) for binding in group)) for key, group in ordered)


def _hosted_way(binding: Binding, key: str) -> Way:
    uri = SipUri.parse(binding.contact)
    flow = binding.flow
    hop: NextHop | None = NextHop(flow=flow)
    if binding.path and not flow.is_stream:
        hop = None  # the proxies on the path know the way (RFC 3327)
    elif flow.is_stream and flow.connection < 0 and is_dialable(uri, flow):
        hop = None if binding.path else NextHop(uri=uri)  # a connection of the run before: dial anew
    knows_gruu = not binding.user_agent.lower().startswith(_TAKES_GRUU_FOR_A_PERSON)
    return Way(uri, hop, binding.path, key, flow.is_stream, binding.accepts, knows_gruu)


def _next_hop(peer: SipPeer) -> NextHop:
    uri = SipUri("sip", peer.host.lower(), port=peer.port, params=(("transport", peer.transport.value),))
    return NextHop(uri=uri, tls_names=peer.tls_names)


def _peer_key(peer: SipPeer) -> str:
    return f"peer:{peer.transport.value}:{peer.host}:{peer.port}"
