"""Phones around the real SIP legs, door and user agent server: in memory, on a clock that turns by hand.

Each phone is a transaction layer of its own behind a network of its own (with its weather); our side is a
`ports.CallSipEndpoint` over one transaction layer per phone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from isthmus.errors import RequestTimeoutError, TransportError
from isthmus.model import Address, Ending
from isthmus.net.sip_invites import InviteSender
from isthmus.net.sip_received_request import ReceivedAck, ReceivedRequest
from isthmus.ports import Flow, IncomingRequest, InviteSink, NextHop, RequestSink, SentInvite
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.leg import IncomingCall, Leg, LegEnded, LegEvent
from isthmus.services.calls.sip.calls import SipCalls
from isthmus.services.calls.sip.door import SipDoor
from isthmus.services.calls.sip.leg_callee import SipCalleeLeg
from isthmus.services.delivery import BusinessDelivery
from isthmus.sip.client_transaction import ClientTransaction
from isthmus.sip.dialog import Dialog
from isthmus.sip.headers import NameAddr, Via
from isthmus.sip.message import SipRequest, SipResponse, build_request, build_response
from isthmus.sip.routing import Target as DnsTarget
from isthmus.sip.server_transaction import ServerTransaction
from isthmus.sip.transaction_layer import (
    AckReceived,
    CancelReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StrayResponse,
    TransactionFailed,
    TransactionTimedOut,
)
from isthmus.sip.uri import SipUri
from tests.support.memory_network import End, MemoryNetwork, Weather
from tests.support.messaging_house import PBX, House

SDP_TYPE = "application/sdp"
_tokens = itertools.count(1)
Done = Callable[[SipResponse | TransportError], None]


def audio(version: int = 1, port: int = 4000, extra: str = "", address: str = "192.0.2.10") -> SessionDescription:
    """A description with one audio section."""
    text = (
        f"v=0\r\no=- 1 {version} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n{extra}"
    )
    return SessionDescription.parse(text)


class LabEndpoint:
    """Our side: implements `ports.CallSipEndpoint` over the ends of several memory networks."""

    def __init__(self) -> None:
        self.on_request: RequestSink | None = None
        self.on_cancel: Callable[[IncomingRequest, SipRequest], None] | None = None
        self.faults: list[Exception] = []
        self._ends: dict[Flow, End] = {}
        self._received: dict[ServerTransaction, ReceivedRequest] = {}
        self._waiting: dict[ClientTransaction, Done] = {}
        self._transactions: dict[ClientTransaction, End] = {}
        self._closed: set[Flow] = set()
        self._inviter = InviteSender(self, self._cancel, remember_seconds=32.0)

    def add(self, end: End) -> None:
        """Join a network."""
        self._ends[end.flow] = end
        end.on_event = lambda event: self._told(end, event)

    def close(self, flow: Flow) -> None:
        """The connection of a flow is gone."""
        self._closed.add(flow)

    # --- ports.CallSipEndpoint ---

    def invite(self, request: SipRequest, next_hop: NextHop | None, sink: InviteSink) -> SentInvite:
        return self._inviter.invite(request, next_hop, sink)

    def send_ack(self, ack: SipRequest, next_hop: NextHop | None = None) -> None:
        try:
            end = self._end_for(ack, next_hop)
        except TransportError:
            return
        end.layer.send_statelessly(self._prepare(ack, end), end.flow)
        end.drain()

    async def request(self, request: SipRequest, next_hop: NextHop | None = None) -> SipResponse:
        raise NotImplementedError

    def request_nowait(self, request: SipRequest, next_hop: NextHop | None, done: Done) -> None:
        try:
            end = self._end_for(request, next_hop)
        except TransportError as error:
            done(error)
            return
        self._waiting[self.start_transaction(request, end.flow)] = done

    def contact_uri(self, user: str, transport: str, *, host: str = "") -> SipUri:
        params = () if transport == "udp" else (("transport", transport),)
        return SipUri("sip", host or "192.0.2.2", user=user, port=5060, params=params)

    def is_flow_alive(self, flow: Flow) -> bool:
        return flow not in self._closed

    def new_tag(self) -> str:
        return f"ours-{next(_tokens)}"

    def new_call_id(self) -> str:
        return f"call-{next(_tokens)}@isthmus.test"

    # --- sip_invites.Ways ---

    def known_flow(self, request: SipRequest, next_hop: NextHop | None) -> Flow | None:
        return self._end_for(request, next_hop).flow

    async def targets(self, request: SipRequest, next_hop: NextHop | None) -> Sequence[DnsTarget]:
        raise TransportError("no names here")

    async def flow_to(self, target: DnsTarget, request: SipRequest, next_hop: NextHop | None) -> Flow:
        raise TransportError("no names here")

    def judge(self, target: DnsTarget, *, is_working: bool) -> None:
        raise AssertionError("no names here")

    def start_transaction(self, request: SipRequest, flow: Flow) -> ClientTransaction:
        end = self._ends[flow]
        transaction = end.layer.send_request(self._prepare(request, end), flow, end.network.clock.monotonic())
        self._transactions[transaction] = end
        end.drain()
        return transaction

    # --- inside ---

    def _end_for(self, request: SipRequest, next_hop: NextHop | None) -> End:
        flow = next_hop.flow if next_hop is not None else None
        if flow is not None:
            if flow in self._closed:
                raise TransportError("the connection is closed")
            return self._ends[flow]
        explicit = next_hop.uri if next_hop is not None else None
        uri = explicit or (request.routes[0].uri if request.routes else request.uri)
        for end in self._ends.values():
            if isinstance(uri, SipUri) and end.flow.remote_host == uri.host and end.flow not in self._closed:
                return end
        raise TransportError(f"nobody has the address {uri}")

    def _prepare(self, request: SipRequest, end: End) -> SipRequest:
        prepared = request.copy()
        branch = (("branch", end.network.new_branch()),)
        prepared.push_via(Via(end.flow.transport.upper(), end.flow.local_host, end.flow.local_port, branch))
        return prepared

    def _cancel(self, transaction: ClientTransaction, reason: str) -> None:
        end = self._transactions[transaction]
        end.layer.cancel(transaction, end.network.clock.monotonic(), reason)
        end.drain()

    def _send_response(self, end: End) -> Callable[[ServerTransaction, SipResponse], None]:
        def send(transaction: ServerTransaction, response: SipResponse) -> None:
            end.layer.send_response(transaction, response, end.network.clock.monotonic())
            end.drain()

        return send

    def _told(self, end: End, event: Event) -> None:
        assert self.on_request is not None
        if isinstance(event, RequestReceived):
            incoming = ReceivedRequest(event.transaction, end.flow, self._send_response(end), self.new_tag)
            self._received[event.transaction] = incoming
            self.on_request(incoming)
        elif isinstance(event, AckReceived):
            self.on_request(ReceivedAck(event.request, end.flow, 0.0))
        elif isinstance(event, CancelReceived):
            assert self.on_cancel is not None
            self.on_cancel(self._received[event.transaction], event.request)
        elif isinstance(event, ResponseReceived):
            done = self._waiting.get(event.transaction)
            if done is None:
                self._inviter.response_received(event.transaction, event.response)
            elif event.response.status >= 200:
                self._waiting.pop(event.transaction)(event.response)
        elif isinstance(event, StrayResponse):
            self._inviter.stray_received(event.response)
        elif isinstance(event.transaction, ClientTransaction):
            self._gone(event, event.transaction)

    def _gone(self, event: TransactionTimedOut | TransactionFailed, transaction: ClientTransaction) -> None:
        done = self._waiting.pop(transaction, None)
        if done is not None:
            done(RequestTimeoutError("no answer"))
        elif isinstance(event, TransactionTimedOut):
            self._inviter.timed_out(transaction)
        else:
            self._inviter.failed(transaction)


class Phone:
    """A SIP user agent that does what the test says. It keeps what it hears; it acknowledges 2xx only when told."""

    def __init__(self, lab: CallLab, user: str, host: str, transport: str, weather: Weather) -> None:
        self.user = user
        self.uri = SipUri.parse(f"sip:{user}")
        self.network = MemoryNetwork(transport=transport, weather=weather, clock=lab.house.clock)
        self.end = self.network.ana
        ours, theirs = ("192.0.2.2", 5060), (host, 5060)
        connection = 0 if transport == "udp" else next(_tokens)
        self.end.flow = Flow(transport, *ours, *theirs, connection=connection)
        self.network.ben.flow = Flow(transport, *theirs, *ours, connection=connection)
        self.flow = self.network.ben.flow
        self.contact = f"<sip:{self.uri.user}@{host}:5060>"
        self._lab = lab
        lab.endpoint.add(self.network.ben)

    def behave(self, answer: SessionDescription) -> None:
        """From now on do what every phone does: acknowledge each 2xx, answer what comes within a call."""

        def act(event: Event) -> None:
            if isinstance(event, ResponseReceived) and event.response.is_success:
                request = event.transaction.request
                if request.method == "INVITE":
                    dialog = Dialog.as_client(request, event.response)
                    ack = dialog.make_ack(request.cseq.number)
                    self._push_via(ack)
                    self.end.layer.send_statelessly(ack, self.end.flow)
            elif isinstance(event, RequestReceived) and event.request.to_address.tag:
                is_offer = event.request.method == "INVITE"
                body = answer.to_bytes() if is_offer else b""
                response = build_response(
                    event.request,
                    200,
                    headers=[("Contact", self.contact)],
                    body=body,
                    content_type=SDP_TYPE if body else "",
                )
                self.end.layer.send_response(event.transaction, response, self.network.clock.monotonic())

        self.end.on_event = act

    # --- as a client ---

    def invite(
        self,
        callee: str,
        offer: SessionDescription | None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        call_id: str = "",
    ) -> ClientTransaction:
        """Call somebody."""
        request = build_request(
            "INVITE",
            SipUri.parse(f"sip:{callee}"),
            from_address=NameAddr(self.uri).with_param("tag", f"theirs-{next(_tokens)}"),
            to_address=NameAddr(SipUri.parse(f"sip:{callee}")),
            call_id=call_id or f"phone-{next(_tokens)}",
            cseq=1,
            headers=[("Contact", self.contact), *headers],
            body=offer.to_bytes() if offer is not None else b"",
            content_type=SDP_TYPE if offer is not None else "",
        )
        return self.send(request)

    def send(self, request: SipRequest) -> ClientTransaction:
        """Send a request in a transaction."""
        self._push_via(request)
        transaction = self.end.layer.send_request(request, self.end.flow, self.network.clock.monotonic())
        self.end.drain()
        self._lab.pass_time()
        return transaction

    def send_ack(self, ack: SipRequest) -> None:
        """Send the ACK of a 2xx."""
        self._push_via(ack)
        self.end.layer.send_statelessly(ack, self.end.flow)
        self.end.drain()
        self._lab.pass_time()

    def cancel(self, transaction: ClientTransaction, reason: str = "") -> None:
        """Cancel an INVITE."""
        self.end.layer.cancel(transaction, self.network.clock.monotonic(), reason)
        self.end.drain()
        self._lab.pass_time()

    def responses_to(self, transaction: ClientTransaction) -> list[SipResponse]:
        """All responses to a request."""
        return [
            event.response
            for event in self.end.seen
            if isinstance(event, ResponseReceived) and event.transaction is transaction
        ]

    def statuses_of(self, transaction: ClientTransaction) -> list[int]:
        """Their status codes, without 100."""
        return [response.status for response in self.responses_to(transaction) if response.status > 100]

    def confirm(self, transaction: ClientTransaction, answer: SessionDescription | None = None) -> Dialog:
        """Acknowledge the 2xx of our INVITE and return the dialog."""
        response = next(r for r in self.responses_to(transaction) if r.is_success)
        dialog = Dialog.as_client(transaction.request, response)
        body = answer.to_bytes() if answer is not None else b""
        self.send_ack(dialog.make_ack(transaction.request.cseq.number, body=body))
        return dialog

    # --- as a server ---

    def asked(self, method: str) -> list[ServerTransaction]:
        """Requests of this method that came, oldest first."""
        return [
            event.transaction
            for event in self.end.seen
            if isinstance(event, RequestReceived) and event.request.method == method
        ]

    @property
    def acks(self) -> list[SipRequest]:
        """ACKs of 2xx that came."""
        return self.end.acks

    def answer(
        self,
        transaction: ServerTransaction,
        status: int,
        description: SessionDescription | None = None,
        *,
        tag: str = "phone",
        headers: Iterable[tuple[str, str]] = (),
    ) -> SipResponse:
        """Answer a request that came."""
        fields = list(headers)
        if self.contact and not any(name == "Contact" for name, _ in fields):
            fields.insert(0, ("Contact", self.contact))
        response = build_response(
            transaction.request,
            status,
            headers=fields,
            body=description.to_bytes() if description is not None else b"",
            content_type=SDP_TYPE if description is not None else "",
            to_tag=tag,
        )
        self.end.layer.send_response(transaction, response, self.network.clock.monotonic())
        self.end.drain()
        self._lab.pass_time()
        return response

    def dialog(self, transaction: ServerTransaction, tag: str = "phone") -> Dialog:
        """Our end of the dialog that an INVITE made."""
        return Dialog.as_server(
            transaction.request, local_tag=tag, local_contact=NameAddr.parse(self.contact).uri, is_early=False
        )

    def _push_via(self, request: SipRequest) -> None:
        branch = (("branch", self.network.new_branch()),)
        flow = self.end.flow
        request.push_via(Via(flow.transport.upper(), flow.local_host, flow.local_port, branch))


@dataclass
class Heard:
    """A sink that keeps what a leg tells."""

    events: list[LegEvent] = field(default_factory=list)

    def __call__(self, leg: Leg, event: LegEvent) -> None:
        assert not self.is_over, f"{event} after the end"
        self.events.append(event)

    @property
    def is_over(self) -> bool:
        """The leg has ended."""
        return bool(self.events) and isinstance(self.events[-1], LegEnded)

    @property
    def ending(self) -> Ending:
        """How it ended."""
        last = self.events[-1]
        assert isinstance(last, LegEnded), self.events
        return last.ending

    @property
    def kinds(self) -> list[str]:
        """The names of the events."""
        return [type(event).__name__ for event in self.events]


class CallLab:
    """The house of messages with calls: `corp.test` hosted, `pbx.test` routed by 198.51.100.5."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.clock = house.clock
        self.endpoint = LabEndpoint()
        self.chance = 0.5
        self.calls = SipCalls(
            endpoint=self.endpoint,
            delivery=BusinessDelivery(house.directory, house.registrar, self.endpoint, house.clock),
            loops=house.loops,
            clock=house.clock,
            trace=house.trace,
            chance=lambda: self.chance,
        )
        self.incoming: list[IncomingCall] = []
        self.door = SipDoor(self.calls, house.directory, house.authenticator, self.incoming.append)
        house.server.serve_calls(self.door)
        self.endpoint.on_request = house.server
        self.endpoint.on_cancel = self.door.cancelled

    @classmethod
    async def open(cls) -> CallLab:
        """Start the house."""
        return cls(await House().open())

    def pass_time(self, seconds: float = 0.05) -> None:
        """Let messages arrive; by default less than any SIP timer."""
        self.clock.advance(seconds)

    def pbx(self, weather: Weather | None = None) -> Phone:
        """pat's phone, behind the neighbour that speaks for pbx.test."""
        return Phone(self, "pat@pbx.test", PBX.remote_host, "udp", weather or Weather())

    async def phone(
        self,
        user: str = "ana@corp.test",
        host: str = "192.0.2.20",
        transport: str = "udp",
        weather: Weather | None = None,
    ) -> Phone:
        """A registered phone of a hosted user."""
        phone = Phone(self, user, host, transport, weather or Weather())
        await self.house.register(user=user, contact=phone.contact, flow=phone.flow)
        return phone

    def leg_to(self, address: str, peer: str = "ben@people.test", number: int = 0) -> tuple[SipCalleeLeg, Heard]:
        """A leg towards a device of somebody, and what it tells."""
        party = Address.parse(address)
        target = self.calls.delivery.targets(party)[number]
        leg = SipCalleeLeg(
            self.calls, target, party=party, peer=Address.parse(peer), is_hosted=party.domain == "corp.test"
        )
        heard = Heard()
        leg.attach(heard)
        return leg, heard

    def take_call(self) -> tuple[IncomingCall, Heard]:
        """The call that came last, and what its leg tells."""
        heard = Heard()
        call = self.incoming[-1]
        call.leg.attach(heard)
        return call, heard
