"""A company whose calls are real and whose devices are scripted: policy, records, presence, transfers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from isthmus.config import CallSettings
from isthmus.model import Address, MediaForm, Presence, Realm
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.calls import Calls
from isthmus.services.calls.leg import IncomingCall, Leg, LegAccepted, LegConfirmed, LegEvent
from isthmus.services.calls.missed import MissedCalls
from isthmus.services.calls.operations import CallOperations
from isthmus.services.calls.records import CallRecords
from isthmus.services.calls.ringing import Invitation, Ring
from isthmus.services.events import CallEnded
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.operations import Operation
from tests.support.administration import AdministrationWorld
from tests.support.scripted_legs import ScriptedLeg, ScriptedRelay, sdp

ANA, BEA = Address("ana", "corp.test"), Address("bea", "corp.test")
BEN, CAT = Address("ben", "people.test"), Address("cat", "people.test")


class ScriptedDevices:
    """Implements `Ringer`: every person has the devices that the test gave them."""

    def __init__(self) -> None:
        self.forms: dict[Address, list[tuple[MediaForm, ...]]] = {}
        self.rung: list[ScriptedLeg] = []
        self.invitations: list[Invitation] = []

    async def rings(self, invitation: Invitation) -> list[Ring]:
        self.invitations.append(invitation)
        return [Ring(self._maker(invitation.callee), forms) for forms in self.forms.get(invitation.callee, [])]

    def _maker(self, callee: Address) -> Any:
        def make(form: MediaForm) -> ScriptedLeg:
            leg = ScriptedLeg(callee, form, device=f"device-{len(self.rung)}")
            self.rung.append(leg)
            return leg

        return make


class CallWorld(AdministrationWorld):
    """`ana` and `bea` have a phone each, `ben` and `cat` a client each."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.relay = ScriptedRelay()
        self.devices = ScriptedDevices()
        self.shown: list[tuple[Address, Presence | None]] = []
        self.notices: list[tuple[Address, str]] = []
        self.names: dict[tuple[str, str, str], Leg] = {}
        self.settings = CallSettings(**settings)
        self.records = CallRecords(self.store, self.clock, self.settings)
        self.calls = Calls(
            self.directory,
            self.policing,
            self.contacts,
            LoopProtection(b"secret of the calls, 32 octets..", "node-1"),
            self.bus,
            self.clock,
            self.trace,
            self.settings,
            relay=self.relay,
            presence=self,
            records=self.records,
            find_leg=self.names.get,
        )
        self.calls.ring_with(self.devices, *Realm)
        MissedCalls(self.bus, self.directory.realm_of, self, self.tell_consumer)
        self.operations: Mapping[str, Operation] = {
            name: Operation.of(name, function)
            for name, function in CallOperations(self.store, self.clock, self.calls).functions.items()
        }

    async def start(self) -> None:
        await super().start()
        for person in (ANA, BEA):
            await self.do("user.add", address=str(person))
        self.devices.forms = {
            ANA: [(MediaForm.RTP, MediaForm.SDES)],
            BEA: [(MediaForm.RTP,)],
            BEN: [(MediaForm.WEBRTC,)],
            CAT: [(MediaForm.WEBRTC,)],
        }

    # --- what calls ask of their surroundings ---

    def call_state_changed(self, presentity: Address, presence: Presence | None) -> None:
        self.shown.append((presentity, presence))

    async def send_notice(self, recipient: Address, text: str) -> None:
        self.notices.append((recipient, text))

    async def tell_consumer(self, event: CallEnded, text: str) -> None:
        self.notices.append((event.callee, text))

    # --- plays ---

    async def arrive(
        self,
        caller: Address,
        callee: Address,
        offer: SessionDescription | None = None,
        *,
        form: MediaForm | None = None,
        **more: Any,
    ) -> ScriptedLeg:
        """A call comes in; returns the caller's leg."""
        form = form or (MediaForm.RTP if self.directory.is_business(caller.domain) else MediaForm.WEBRTC)
        leg = ScriptedLeg(caller, form, is_caller=True)
        self.calls.receive(IncomingCall(leg, caller, callee, offer or sdp(form), **more))
        await self.settle()
        return leg

    async def tell(self, leg: ScriptedLeg, *events: LegEvent) -> None:
        for event in events:
            leg.tell(event)
        await self.settle()

    async def connect(self, caller: Address, callee: Address, *media: str) -> tuple[ScriptedLeg, ScriptedLeg]:
        """Two people talk; returns both legs."""
        business = self.directory.is_business(caller.domain)
        form = MediaForm.RTP if business else MediaForm.WEBRTC
        one = await self.arrive(caller, callee, sdp(form, *media))
        other = self.devices.rung[-1]
        await self.tell(other, LegAccepted(sdp(other.form, *media)))
        await self.tell(one, LegConfirmed())
        assert one.words()[-1] == "accept", one.told
        return one, other

    async def settle(self) -> None:
        """Until nothing is left to do."""
        for _ in range(50):
            await asyncio.sleep(0)
        await self.bus.drained()

    async def ask(self, operation: str, **arguments: Any) -> Any:
        """Run a `call.*` operation."""
        return await self.operations[operation].call(arguments, "root")
