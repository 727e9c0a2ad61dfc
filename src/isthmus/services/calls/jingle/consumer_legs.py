"""The legs towards a consumer whom one of our people calls: one for all that take proposals, one for each other."""

from __future__ import annotations

from collections.abc import Callable

from isthmus.interworking.addresses import address_to_jid
from isthmus.interworking.presence import presentity_jid
from isthmus.model import Address
from isthmus.services.calls.jingle.callee_leg import JingleCalleeLeg
from isthmus.services.calls.jingle.consumer_devices import ConsumerDevices
from isthmus.services.calls.jingle.leg import JingleSurroundings
from isthmus.services.calls.jingle.proposal_leg import JingleProposalLeg


class ConsumerLegs:
    """Makes legs; they ring when they are invited.

    Args:
        around: what the legs need from outside.
        devices: what is known of a consumer's devices.
        sees: `sees(watcher, presentity)` is True when the consumer sees our person's presence anyway.
        capabilities: the entity capabilities element of one of our people (XEP-0115).
    """

    def __init__(
        self,
        around: JingleSurroundings,
        devices: ConsumerDevices,
        *,
        sees: Callable[[Address, Address], bool],
        capabilities: Callable[[Address], str],
    ) -> None:
        self._around = around
        self._devices = devices
        self._sees = sees
        self._capabilities = capabilities

    async def legs_to(self, callee: Address, caller: Address) -> list[JingleCalleeLeg]:
        """Return the legs that ring all devices of a consumer, to be invited with the same offer.

        Takes a moment when devices must be asked what they can do, and at most some seconds.

        Args:
            callee: the consumer.
            caller: one of our people.

        Returns:
            An empty list when devices are online and none of them takes calls, or too many calls to this person are
            under way.
        """
        plan = await self._devices.plan(caller, callee)
        our_jid = presentity_jid(caller)
        legs: list[JingleCalleeLeg] = []
        if plan.proposes and self._around.registry.has_room(callee):
            shown = "" if self._sees(callee, caller) else self._capabilities(caller)
            legs.append(JingleProposalLeg(self._around, ours=caller, our_jid=our_jid, party=callee, capabilities=shown))
        for resource in plan.resources:
            if self._around.registry.has_room(callee):
                legs.append(
                    JingleCalleeLeg(
                        self._around,
                        ours=caller,
                        our_jid=our_jid,
                        party=callee,
                        peer_jid=address_to_jid(callee, resource),
                        device=resource,
                    )
                )
        return legs
