"""The SIP side of Isthmus on real sockets, each caller's leg glued to the first device of the callee: real phones call.

`corp.test` is hosted (ana and bea), `pbx.test` and `branch.test` are routed to neighbours on addresses of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from isthmus.bus.in_process import InProcessBus
from isthmus.config import BusinessDomain, Configuration, DomainKind, Listener, SipPeer, SipSettings, Transport
from isthmus.model import Address, User
from isthmus.net.sip_endpoint import NetworkSipEndpoint
from isthmus.net.system_clock import SystemClock
from isthmus.ports import Flow, IncomingRequest
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.authentication import Authenticator
from isthmus.services.calls.leg import IncomingCall
from isthmus.services.calls.sip.calls import SipCalls
from isthmus.services.calls.sip.door import SipDoor
from isthmus.services.calls.sip.ringer import SipRinger
from isthmus.services.delivery import BusinessDelivery
from isthmus.services.directory import Directory
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.rate_limits import RateLimits
from isthmus.services.registrar import Registrar
from isthmus.services.user_agent_server import UserAgentServer
from isthmus.sip.digest import ha1
from isthmus.sip.message import SipRequest
from isthmus.trace import Trace
from tests.support.call_glue import Glue
from tests.support.memory_store import MemoryStore

SECRET = b"a secret of calls, 32 octets....."


def _routed(name: str, host: str, port: int) -> BusinessDomain:
    peer = SipPeer(host=host, port=port, transport=Transport.UDP)
    return BusinessDomain(name=name, kind=DomainKind.ROUTED, component_secret=SecretStr("x"), peers=(peer,))


def password_of(name: str) -> str:
    """Password of a hosted user; plain enough for every phone's configuration file."""
    return f"{name}-password"


class CallGateway:
    """Takes calls between phones.

    Args:
        peers: host and port of the neighbour of each routed domain.
        late_offer: what callees are offered for a call that came without an offer.
    """

    def __init__(self, peers: dict[str, tuple[str, int]], late_offer: SessionDescription) -> None:
        listeners = tuple(Listener(transport=transport, port=0) for transport in (Transport.UDP, Transport.TCP))
        settings = SipSettings(listeners=listeners)
        domains = [_routed(name, *where) for name, where in peers.items()]
        hosted = BusinessDomain(name="corp.test", component_secret=SecretStr("x"))
        configuration = Configuration(domains=(hosted, *domains), sip=settings)
        clock, bus = SystemClock(), InProcessBus()
        self._store = MemoryStore(clock.wall, clock.monotonic)
        self._late_offer = late_offer
        self.trace = Trace(clock.wall)
        self.directory = Directory(configuration, self._store, bus)
        self.registrar = Registrar(self.directory, self._store, bus, clock, settings, self.trace, secret=SECRET)
        loops = LoopProtection(SECRET, "node")
        self.endpoint = NetworkSipEndpoint(
            settings,
            trace=self.trace,
            on_request=self._requested,
            on_flow_closed=self._flow_closed,
            on_cancel=self._cancelled,
        )
        authenticator = Authenticator(self.directory, settings, clock, self.trace, secret=SECRET)
        self.calls = SipCalls(
            endpoint=self.endpoint,
            delivery=BusinessDelivery(self.directory, self.registrar, self.endpoint, clock),
            loops=loops,
            clock=clock,
            trace=self.trace,
        )
        self.ringer = SipRinger(self.calls, self.directory, self.directory.display_name)
        self.door = SipDoor(self.calls, self.directory, authenticator, self._called)
        rates = RateLimits(configuration.limits, clock.monotonic)
        self._server = UserAgentServer(self.directory, authenticator, self.registrar, rates, loops, self.trace)
        self._server.serve_calls(self.door)
        self.glued: list[Glue] = []

    def _requested(self, incoming: IncomingRequest) -> None:
        self._server(incoming)

    def _cancelled(self, incoming: IncomingRequest, cancel: SipRequest) -> None:
        self.door.cancelled(incoming, cancel)

    def _flow_closed(self, flow: Flow) -> None:
        self.registrar.flow_closed(flow)
        self.door.flow_closed(flow)

    def _called(self, call: IncomingCall) -> None:
        self.glued.append(Glue(call, self.ringer, self._late_offer))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CallGateway]:
        """Serve."""
        await self._store.open()
        for name in ("ana", "bea"):
            digests = {kind: ha1(name, "corp.test", password_of(name), kind) for kind in ("SHA-256", "MD5")}
            await self._store.save_user(User(Address(name, "corp.test"), name.capitalize(), digests))
        await self.directory.load()
        await self.registrar.load()
        await self.endpoint.start()
        try:
            yield self
        finally:
            await self.endpoint.stop()
