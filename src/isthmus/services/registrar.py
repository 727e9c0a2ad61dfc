"""The registrar: which devices a hosted user can be reached at (RFC 3261 section 10, 3327, 5626, 5627).

A registration is soft state, but it is committed to the store before it is confirmed, so that after a restart
messages and calls find their phones at once. Deadlines run on the monotonic clock: a jump of the wall clock neither
ends nor prolongs anything.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from isthmus.config import SipSettings
from isthmus.errors import AddressError, SipParseError, StoreError
from isthmus.interworking.addresses import address_from_sip_uri
from isthmus.model import Address
from isthmus.ports import Binding, Bus, Clock, Flow, IncomingRequest, Store, TimerHandle
from isthmus.services.authentication import Identity
from isthmus.services.directory import Directory
from isthmus.services.events import BindingsChanged, UserRemoved
from isthmus.services.registrar_contacts import (
    ContactChange,
    IntervalTooBriefError,
    RegisterWish,
    is_bound_to_flow,
    read_wish,
    write_contact,
)
from isthmus.services.registrar_gruu import Gruus
from isthmus.sip.headers import NameAddr
from isthmus.sip.message import SipRequest
from isthmus.sip.uri import SipUri
from isthmus.trace import Trace

# RFC 5626 section 5.4: how often a client should prove its flow; below the idle time of common NATs.
FLOW_TIMER_SECONDS = 120


@dataclass(frozen=True, slots=True)
class _Registration:
    binding: Binding
    ends_at: float  # monotonic


class _RefusedError(Exception):
    """A REGISTER that gets a final answer other than 200."""

    def __init__(self, status: int, reason: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = tuple(headers)


class Registrar:
    """Owns the bindings of all hosted users; sends `BindingsChanged` to the user after every change.

    Args:
        secret: for temporary GRUUs; kept over restarts.
    """

    def __init__(
        self,
        directory: Directory,
        store: Store,
        bus: Bus,
        clock: Clock,
        settings: SipSettings,
        trace: Trace,
        *,
        secret: bytes,
    ) -> None:
        self._directory = directory
        self._store = store
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._trace = trace
        self._gruus = Gruus(secret)
        self._registrations: dict[Address, tuple[_Registration, ...]] = {}
        self._bindings: dict[Address, tuple[Binding, ...]] = {}
        self._by_flow: dict[Flow, set[Address]] = {}
        self._locks: dict[Address, asyncio.Lock] = {}  # one per hosted user who ever registered
        self._deadlines: list[tuple[float, Address]] = []
        self._timer: TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        bus.register(UserRemoved, self._user_removed)

    async def load(self) -> None:
        """Take over the registrations of the run before. Raises StoreError.

        Connections do not survive a restart, so bindings that end with theirs are dropped, and the others must not be
        mistaken for new connections that happen to get the same number.
        """
        now, wall = self._clock.monotonic(), self._clock.wall()
        found: dict[Address, list[_Registration]] = {}
        for binding in await self._store.bindings():
            if is_bound_to_flow(binding) or not self._directory.is_known_user(binding.address):
                continue
            if binding.flow.is_stream:
                binding = replace(binding, flow=replace(binding.flow, connection=-1))  # noqa: PLW2901  same binding
            left = min(binding.expires_at - wall, self._settings.maximum_expires_seconds)
            found.setdefault(binding.address, []).append(_Registration(binding, now + left))
        for address, registrations in found.items():
            self._keep(address, tuple(registrations))

    # --- questions ---

    def bindings(self, address: Address) -> tuple[Binding, ...]:
        """All live bindings of a user, newest first."""
        return self._bindings.get(address, ())

    def has_bindings(self, address: Address) -> bool:
        """True when at least one device is registered."""
        return address in self._bindings

    def count(self) -> int:
        """Number of live bindings, for metrics."""
        return sum(len(bindings) for bindings in self._bindings.values())

    def registered(self) -> tuple[Address, ...]:
        """Everybody who is registered."""
        return tuple(self._bindings)

    def owner_of(self, uri: SipUri) -> Address:
        """Return the user that a Request-URI names, seeing through temporary GRUUs. Raises AddressError (404)."""
        return self._gruus.owner(uri) if self._gruus.is_temporary(uri) else address_from_sip_uri(uri)[0]

    def bindings_of_gruu(self, uri: SipUri) -> tuple[Binding, ...]:
        """Return the flows of the one device that a GRUU names; empty when it is not registered (answer 480).

        Raises:
            AddressError: the GRUU is not one of ours (404).
        """
        owner = self.owner_of(uri)
        return tuple(binding for binding in self.bindings(owner) if self._gruus.names(uri, binding))

    # --- REGISTER ---

    async def register(self, incoming: IncomingRequest, identity: Identity) -> None:
        """Carry out a REGISTER whose sender is proven (RFC 3261 section 10.3 from step 4 on)."""
        try:
            address = self._address_of_record(incoming.request, identity)
            async with self._locks.setdefault(address, asyncio.Lock()):
                await self._register(incoming, address)
        except _RefusedError as refusal:
            self._trace.decision(
                f"REGISTER refused: {refusal.reason}",
                people=(str(identity.address),),
                rule=f"registrar.{refusal.status}",
                call_id=incoming.request.call_id,
            )
            incoming.respond(refusal.status, refusal.reason, headers=refusal.headers)

    def _address_of_record(self, request: SipRequest, identity: Identity) -> Address:
        uri = request.to_address.uri
        if not isinstance(uri, SipUri):
            raise _RefusedError(400, "The address of record must be a sip: URI")
        try:
            address = address_from_sip_uri(uri)[0]
        except AddressError as error:
            raise _RefusedError(404, str(error)) from error
        if identity.address != address or not identity.is_user:
            raise _RefusedError(403, "You may register only your own address")
        return address

    async def _register(self, incoming: IncomingRequest, address: Address) -> None:
        request = incoming.request
        is_outbound = "outbound" in _tokens(request, "Supported")
        try:
            wish = read_wish(request, self._settings, is_outbound=is_outbound)
        except IntervalTooBriefError as error:
            minimum = str(self._settings.minimum_expires_seconds)
            raise _RefusedError(423, "Interval Too Brief", [("Min-Expires", minimum)]) from error
        except SipParseError as error:
            raise _RefusedError(error.status, str(error)) from error
        self._check_first_hop(request, wish)
        before = self._registrations.get(address, ())
        after = self._changed(before, wish, incoming, address)
        if after is not before:
            try:
                await self._store.save_bindings(address, [registration.binding for registration in after])
            except StoreError as error:
                raise _RefusedError(500, "The registration cannot be kept now", [("Retry-After", "10")]) from error
            self._keep(address, after)
        self._confirm(incoming, address, wish)
        if after is not before:
            known = {_identity_of(registration.binding) for registration in before}
            is_new = any(_identity_of(registration.binding) not in known for registration in after)
            self._bus.send(address, BindingsChanged(address, bool(after), is_new))

    def _check_first_hop(self, request: SipRequest, wish: RegisterWish) -> None:
        # RFC 5626 section 6: through a proxy, outbound works only when that proxy said so in its Path.
        if len(request.vias) < 2 or not any(change.key for change in wish.changes):
            return
        path = request.headers.get_list("Path")
        first = NameAddr.parse(path[-1]).uri if path else None
        if not isinstance(first, SipUri) or not first.has_param("ob"):
            raise _RefusedError(439, "First Hop Lacks Outbound Support")

    def _changed(
        self, before: tuple[_Registration, ...], wish: RegisterWish, incoming: IncomingRequest, address: Address
    ) -> tuple[_Registration, ...]:
        """Return the registrations as they will be; the same object when nothing changes."""
        request = incoming.request
        if wish.removes_all:
            for registration in before:
                _check_order(registration.binding, request)
            return ()
        if not wish.changes:
            return before
        after = list(before)
        for change in wish.changes:
            for registration in before:
                if _is_same(registration.binding, change):
                    _check_order(registration.binding, request)
            after = [registration for registration in after if not _is_same(registration.binding, change)]
            if change.expires_seconds:
                after.insert(0, self._registration(change, incoming, address))
        if len(after) > self._settings.maximum_bindings:
            # A phone that forgot its old registrations in a reboot must get in: the ones that end first make room.
            after = sorted(after, key=lambda registration: -registration.ends_at)[: self._settings.maximum_bindings]
        return tuple(after)

    def _registration(self, change: ContactChange, incoming: IncomingRequest, address: Address) -> _Registration:
        request = incoming.request
        accept = request.headers.get_list("Accept")
        binding = Binding(
            address=address,
            contact=change.text,
            call_id=request.call_id,
            cseq=request.cseq.number,
            expires_at=self._clock.wall() + change.expires_seconds,
            flow=incoming.flow,
            parameters=change.parameters,
            q=change.q,
            instance=change.instance,
            reg_id=change.reg_id,
            path=tuple(request.headers.get_list("Path")),
            user_agent=(request.headers.get("User-Agent") or "")[:200],
            accepts=frozenset(value.partition(";")[0].strip().lower() for value in accept),
        )
        return _Registration(binding, self._clock.monotonic() + change.expires_seconds)

    def _confirm(self, incoming: IncomingRequest, address: Address, wish: RegisterWish) -> None:
        request = incoming.request
        supported = _tokens(request, "Supported")
        now = self._clock.monotonic()
        headers: list[tuple[str, str]] = []
        for registration in self._registrations.get(address, ()):
            binding = registration.binding
            gruus: list[tuple[str, str]] = []
            if "gruu" in supported and binding.instance:
                gruus = [("pub-gruu", self._gruus.public(binding)), ("temp-gruu", self._gruus.temporary(binding))]
            seconds_left = max(1, round(registration.ends_at - now))
            headers.append(("Contact", write_contact(binding, seconds_left, gruus)))
        if "path" in supported:
            headers.extend(("Path", value) for value in request.headers.get_list("Path"))
        if any(change.key for change in wish.changes):
            headers.append(("Require", "outbound"))
            headers.append(("Flow-Timer", str(FLOW_TIMER_SECONDS)))
        headers.append(("Supported", "path, outbound, gruu"))
        incoming.respond(200, headers=headers)

    # --- ends ---

    def flow_closed(self, flow: Flow) -> None:
        """A connection has ended: bindings that live on it end with it (RFC 5626 section 5.3)."""
        for address in tuple(self._by_flow.pop(flow, ())):
            self._drop(address, lambda binding: binding.flow == flow and is_bound_to_flow(binding))

    def _user_removed(self, address: Address, _: UserRemoved) -> None:
        self._drop(address, lambda _binding: True)

    def _drop(self, address: Address, is_gone: Callable[[Binding], bool]) -> None:
        before = self._registrations.get(address, ())
        after = tuple(registration for registration in before if not is_gone(registration.binding))
        if len(after) == len(before):
            return
        self._keep(address, after)
        self._save_later(address)
        self._bus.send(address, BindingsChanged(address, bool(after)))

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        due: set[Address] = set()
        while self._deadlines and self._deadlines[0][0] <= now:
            due.add(heapq.heappop(self._deadlines)[1])
        for address in sorted(due):
            before = self._registrations.get(address, ())
            after = tuple(registration for registration in before if registration.ends_at > now)
            if len(after) != len(before):
                self._keep(address, after)
                self._save_later(address)
                self._bus.send(address, BindingsChanged(address, bool(after)))
        self._arm()

    # --- keeping ---

    def _keep(self, address: Address, registrations: tuple[_Registration, ...]) -> None:
        self._registrations[address] = registrations
        if registrations:
            self._bindings[address] = tuple(registration.binding for registration in registrations)
            heapq.heappush(self._deadlines, (min(item.ends_at for item in registrations), address))
            self._arm()
        else:
            self._registrations.pop(address)
            self._bindings.pop(address, None)
        for registration in registrations:
            flow = registration.binding.flow
            if flow.is_stream and flow.connection >= 0:
                self._by_flow.setdefault(flow, set()).add(address)

    def _arm(self) -> None:
        if self._timer is not None or not self._deadlines:
            return
        delay = max(0.0, self._deadlines[0][0] - self._clock.monotonic())
        # An earlier deadline than the armed one can only come from a shorter registration: a minute is soon enough.
        self._timer = self._clock.call_later(min(delay, float(self._settings.minimum_expires_seconds)), self._expire)

    def _save_later(self, address: Address) -> None:
        """Commit what has ended; when the store cannot, the next start finds it expired anyway."""

        async def save() -> None:
            try:
                await self._store.save_bindings(address, self.bindings(address))
            except StoreError as error:
                self._trace.decision(f"an ended registration stays in the store: {error}", people=(str(address),))

        task = asyncio.ensure_future(save())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _tokens(request: SipRequest, name: str) -> set[str]:
    return {value.lower() for value in request.headers.get_list(name)}


def _identity_of(binding: Binding) -> str:
    return binding.instance or binding.contact


def _is_same(binding: Binding, change: ContactChange) -> bool:
    if change.key or (binding.instance and binding.reg_id):
        return binding.instance == change.instance and binding.reg_id == change.reg_id
    return SipUri.parse(binding.contact).is_equivalent(change.uri)


def _check_order(binding: Binding, request: SipRequest) -> None:
    # RFC 3261 section 10.3 step 7: an older request of the same client must not undo a newer one.
    if binding.call_id == request.call_id and request.cseq.number <= binding.cseq:
        raise _RefusedError(500, "An older REGISTER came after a newer one")
