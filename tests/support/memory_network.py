"""A network in memory that loses, delays, reorders and duplicates datagrams, between two transaction layers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from isthmus.ports import Flow
from isthmus.sip.client_transaction import ClientTransaction
from isthmus.sip.headers import NameAddr, Via
from isthmus.sip.message import SipRequest, SipResponse, build_request, build_response
from isthmus.sip.parser import parse_message
from isthmus.sip.server_transaction import ServerTransaction
from isthmus.sip.timers import TimerTable
from isthmus.sip.transaction_layer import AckReceived, Event, RequestReceived, ResponseReceived, TransactionLayer
from isthmus.sip.uri import SipUri
from tests.support.clock import FakeClock, FakeTimer


@dataclass
class Weather:
    """What the network does to datagrams. Probabilities from 0 to 1, times in seconds; streams only have `delay`.

    Attributes:
        jitter: longest extra delay; longer than the pause between two datagrams, it reorders them.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.01
    jitter: float = 0.0


@dataclass(eq=False)
class End:
    """One end: its transaction layer, and a user that acts on events through `on_event`."""

    network: MemoryNetwork
    name: str
    flow: Flow
    layer: TransactionLayer
    seen: list[Event] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    on_event: Callable[[Event], None] = lambda event: None
    peer: End | None = None
    _timer: FakeTimer | None = None

    def send(
        self,
        method: str,
        *,
        branch: str = "",
        call_id: str = "call-1",
        cseq: int = 1,
        to_tag: str = "",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> ClientTransaction:
        """Send a request in a client transaction."""
        request = self.make_request(method, branch=branch, call_id=call_id, cseq=cseq, to_tag=to_tag, headers=headers)
        transaction = self.layer.send_request(request, self.flow, self.network.clock.monotonic())
        self.drain()
        return transaction

    def make_request(
        self,
        method: str,
        *,
        branch: str = "",
        call_id: str = "call-1",
        cseq: int = 1,
        to_tag: str = "",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> SipRequest:
        """Build a request with our Via on top."""
        from_address = NameAddr(SipUri("sip", "corp.test", user="ana")).with_param("tag", "a1")
        to_address = NameAddr(SipUri("sip", "people.test", user="ben"))
        request = build_request(
            method,
            SipUri("sip", "people.test", user="ben"),
            from_address=from_address,
            to_address=to_address.with_param("tag", to_tag) if to_tag else to_address,
            call_id=call_id,
            cseq=cseq,
            headers=headers,
        )
        branch = branch or self.network.new_branch()
        transport = self.flow.transport.upper()
        request.push_via(Via(transport, self.flow.local_host, self.flow.local_port, (("branch", branch),)))
        return request

    def respond(self, transaction: ServerTransaction, status: int, to_tag: str = "b1") -> None:
        """Answer a request."""
        response = build_response(transaction.request, status, to_tag=to_tag if status > 100 else "")
        self.layer.send_response(transaction, response, self.network.clock.monotonic())
        self.drain()

    def cancel(self, transaction: ClientTransaction) -> None:
        """Cancel an INVITE."""
        self.layer.cancel(transaction, self.network.clock.monotonic())
        self.drain()

    def break_flow(self) -> None:
        """Tell our layer that the flow broke."""
        self.layer.transport_failed(self.flow, self.network.clock.monotonic())
        self.drain()

    def receive_bytes(self, data: bytes) -> None:
        """Take what arrived."""
        self.layer.receive(parse_message(data), self.flow, self.network.clock.monotonic())
        self.drain()

    def drain(self) -> None:
        """Write what the layer wants written, act on its events, arm its timer."""
        while True:
            outgoing = self.layer.outgoing()
            for data, flow in outgoing:
                assert flow == self.flow
                self.sent.append(data)
                self.sent_at.append(self.network.clock.monotonic())
                self.network.carry(self, data)
            events = self.layer.events()
            for event in events:
                self.seen.append(event)
                self.on_event(event)
            if not outgoing and not events:
                break
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.layer.next_deadline()
        if deadline is not None:
            clock = self.network.clock
            self._timer = clock.call_later(deadline - clock.monotonic(), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self.layer.handle_timer(self.network.clock.monotonic())
        self.drain()

    # --- what a test asks -------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[SipRequest]:
        """Requests that reached the user."""
        return [event.request for event in self.seen if isinstance(event, RequestReceived)]

    @property
    def transactions(self) -> list[ServerTransaction]:
        """Their transactions."""
        return [event.transaction for event in self.seen if isinstance(event, RequestReceived)]

    @property
    def responses(self) -> list[SipResponse]:
        """Responses that reached the user."""
        return [event.response for event in self.seen if isinstance(event, ResponseReceived)]

    @property
    def statuses(self) -> list[int]:
        """Their status codes."""
        return [response.status for response in self.responses]

    @property
    def acks(self) -> list[SipRequest]:
        """ACKs of 2xx that reached the user."""
        return [event.request for event in self.seen if isinstance(event, AckReceived)]

    def first_lines(self) -> list[str]:
        """First line of everything written, without the version."""
        return [data.split(b"\r\n", 1)[0].decode().replace("SIP/2.0", "").strip() for data in self.sent]


class MemoryNetwork:
    """Two ends, `ana` and `ben`, and the weather between them.

    Everything random comes from `seed`, so that a failing run can be repeated.
    """

    def __init__(
        self,
        *,
        transport: str = "udp",
        weather: Weather | None = None,
        seed: int = 0,
        timers: TimerTable | None = None,
        clock: FakeClock | None = None,
        maximum_pending: int = 1000,
        maximum_completed: int = 1000,
    ) -> None:
        self.clock = clock or FakeClock()
        self.weather = weather or Weather()
        self._random = random.Random(seed)
        self._branches = itertools.count(1)
        self.is_up = True

        def end(name: str, local: tuple[str, int], remote: tuple[str, int]) -> End:
            flow = Flow(transport, *remote, *local, connection=0 if transport == "udp" else 1)
            layer = TransactionLayer(
                timers=timers,
                new_branch=self.new_branch,
                maximum_pending=maximum_pending,
                maximum_completed=maximum_completed,
            )
            return End(self, name, flow, layer)

        ana, ben = ("192.0.2.1", 5060), ("192.0.2.2", 5060)
        self.ana = end("ana", ana, ben)
        self.ben = end("ben", ben, ana)
        self.ana.peer, self.ben.peer = self.ben, self.ana

    def new_branch(self) -> str:
        """Return a branch that no other test message has."""
        return f"z9hG4bK{next(self._branches):06d}"

    def advance(self, seconds: float) -> None:
        """Let time pass: datagrams arrive and timers fire."""
        self.clock.advance(seconds)

    def carry(self, sender: End, data: bytes) -> None:
        """Take bytes from one end to the other, as the weather permits."""
        if not self.is_up:
            return
        receiver = sender.peer
        assert receiver is not None
        weather = self.weather
        if sender.flow.is_stream:
            # A stream keeps its order and loses nothing.
            self.clock.call_later(weather.delay, lambda: receiver.receive_bytes(data))
            return
        copies = 2 if self._random.random() < weather.duplication else 1
        for _ in range(copies):
            if self._random.random() < weather.loss:
                continue
            delay = weather.delay + self._random.random() * weather.jitter
            self.clock.call_later(delay, lambda: receiver.receive_bytes(data))
