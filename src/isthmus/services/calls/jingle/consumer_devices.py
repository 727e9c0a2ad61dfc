"""Which devices of a consumer can be called, and how each is rung: what presence announced, asked once (XEP-0115).

A device that rings on a proposal is reached through the bare JID; one that does not gets a session of its own. Where
nothing is known the bare JID is asked as well (edge case 32): the consumer's server knows more than we do.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from isthmus.interworking.addresses import address_to_jid
from isthmus.interworking.presence import presentity_jid
from isthmus.model import Address, Device
from isthmus.ports import Bus
from isthmus.services.calls.jingle.wire import JingleWire
from isthmus.services.events import PresencePolled, RemotePresenceChanged
from isthmus.services.remote_presence import RemotePresence
from isthmus.xmpp import capabilities as caps
from isthmus.xmpp.device_capabilities import DeviceCapabilities, features_of, is_proved
from isthmus.xmpp.stanza import element

# Programs and versions in use by all consumers; some hundred in practice.
MAXIMUM_CACHED = 2_000
# A person waits meanwhile: who has not answered is rung by the bare JID, or not at all.
QUERY_SECONDS = 3.0
PROBE_SECONDS = 1.5
# A server answers a probe for all devices in one go.
SETTLE_SECONDS = 0.1
# Devices rung with a session of their own (RFC 5393 bounds the breadth of what one call becomes).
MAXIMUM_DIRECT = 16


@dataclass(frozen=True, slots=True)
class RingPlan:
    """How the devices of one person are rung.

    Attributes:
        proposes: ask all at once through the bare JID (XEP-0353).
        resources: devices that get a session-initiate each, most important first.
    """

    proposes: bool
    resources: tuple[str, ...] = ()


def ring_plan(known: Sequence[tuple[str, DeviceCapabilities | None]] | None) -> RingPlan:
    """Return how to ring somebody.

    Args:
        known: resource and abilities of every device that is online, None for abilities that could not be learnt;
            None or empty when no device is known of.
    """
    if not known:
        return RingPlan(proposes=True)
    takes_proposals = any(able is not None and able.takes_proposals for _, able in known)
    direct = tuple(name for name, able in known if able is not None and able.can_call and not able.takes_proposals)
    is_unsure = not direct and any(able is None for _, able in known)
    return RingPlan(takes_proposals or is_unsure, direct[:MAXIMUM_DIRECT])


class ConsumerDevices:
    """Devices of consumers as our people see them.

    Args:
        wire: asks devices.
        remote: the presence that our people see; one person's view is never used for another.
        bus: carries probes.
        may_probe: `may_probe(ours, theirs)` is True when our person may see the presence of the other one.
    """

    def __init__(
        self, wire: JingleWire, remote: RemotePresence, bus: Bus, may_probe: Callable[[Address, Address], bool]
    ) -> None:
        self._wire = wire
        self._remote = remote
        self._bus = bus
        self._may_probe = may_probe
        self._cache: OrderedDict[str, DeviceCapabilities] = OrderedDict()
        self._asking: dict[str, asyncio.Future[DeviceCapabilities | None]] = {}
        self._waiting: dict[tuple[Address, Address], list[asyncio.Future[None]]] = {}
        bus.register(RemotePresenceChanged, self._presence_changed)

    async def plan(self, ours: Address, theirs: Address) -> RingPlan:
        """Return how `ours` rings `theirs`; takes a few seconds at most, and nothing when all is known."""
        devices = await self._online(ours, theirs)
        known = await asyncio.gather(*(self._abilities(ours, theirs, device) for device in devices))
        return ring_plan([(device.id, able) for device, able in zip(devices, known, strict=True)])

    # --- presence ---

    async def _online(self, ours: Address, theirs: Address) -> list[Device]:
        document = self._remote.document(ours, theirs)
        if document is None and self._may_probe(ours, theirs):
            await self._probe(ours, theirs)
            document = self._remote.document(ours, theirs)
        if document is None:
            return []
        online = [device for device in document.devices if device.id and device.presence.state.is_online]
        return sorted(online, key=lambda device: -(device.priority or 0))

    async def _probe(self, ours: Address, theirs: Address) -> None:
        """After a restart nothing is known until it is asked for."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault((ours, theirs), [])
        waiting.append(answered)
        self._bus.send(theirs, PresencePolled(ours, theirs))
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await answered
            await asyncio.sleep(SETTLE_SECONDS)
        except TimeoutError:
            pass
        finally:
            waiting.remove(answered)
            if not waiting:
                self._waiting.pop((ours, theirs), None)

    def _presence_changed(self, theirs: Address, event: RemotePresenceChanged) -> None:
        for answered in self._waiting.get((event.watcher, theirs), ()):
            if not answered.done():
                answered.set_result(None)

    # --- abilities ---

    async def _abilities(self, ours: Address, theirs: Address, device: Device) -> DeviceCapabilities | None:
        announced = device.capabilities
        known = self._cache.get(announced) if announced else None
        if known is not None:
            self._cache.move_to_end(announced)
            return known
        # Devices with the same program are asked once; one that announces nothing is asked for itself.
        key = announced or address_to_jid(theirs, device.id)
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.ensure_future(self._ask(ours, theirs, device))
            self._asking[key] = asking
            asking.add_done_callback(partial(self._asked, key))
        return await asyncio.shield(asking)

    def _asked(self, key: str, _asking: asyncio.Future[DeviceCapabilities | None]) -> None:
        self._asking.pop(key, None)

    async def _ask(self, ours: Address, theirs: Address, device: Device) -> DeviceCapabilities | None:
        algorithm, _, node = device.capabilities.partition(" ")
        payload = element("query", {"xmlns": caps.DISCO_INFO, "node": node if node else None})
        recipient = address_to_jid(theirs, device.id)
        answer = await self._wire.query(ours.domain, presentity_jid(ours), recipient, payload, QUERY_SECONDS)
        query = answer.find(f"{{{caps.DISCO_INFO}}}query") if answer is not None else None
        if query is None:
            return None
        able = DeviceCapabilities(features_of(query))
        if node and is_proved(query, algorithm, node.rpartition("#")[2]):
            self._cache[device.capabilities] = able
            if len(self._cache) > MAXIMUM_CACHED:
                self._cache.popitem(last=False)
        return able
