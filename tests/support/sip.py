"""A SIP network in memory: records what services send, answers as scripted, and hands requests in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from isthmus.errors import SipParseError, TransportError
from isthmus.ports import Flow, FlowClosedSink, IncomingRequest, NextHop, RequestSink
from isthmus.sip.headers import Headers, NameAddr
from isthmus.sip.message import SipRequest, SipResponse, build_request, build_response
from isthmus.sip.uri import SipUri
from isthmus.sip.validation import check_request

# What a scripted answer may be: a status, a status with headers, a whole response maker, or an error to raise.
Answer = int | tuple[int, list[tuple[str, str]]] | Callable[[SipRequest], SipResponse] | Exception

UDP_PHONE = Flow("udp", "192.0.2.10", 5060, "192.0.2.1", 5060)
TCP_PHONE = Flow("tcp", "192.0.2.10", 40010, "192.0.2.1", 5060, connection=10)


@dataclass(eq=False)
class MemoryIncomingRequest:
    """Implements `ports.IncomingRequest`: keeps the answers instead of sending them."""

    request: SipRequest
    flow: Flow = UDP_PHONE
    arrived_at: float = 0.0
    responses: list[SipResponse] = field(default_factory=list)
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    def respond(
        self,
        status: int,
        reason: str = "",
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
        to_tag: str = "",
    ) -> None:
        assert self.status < 200, f"answered twice: {self.status}, then {status} {reason}"
        self.responses.append(
            build_response(
                self.request,
                status,
                reason,
                headers=headers,
                body=body,
                content_type=content_type,
                to_tag=to_tag or "memory-tag",
            )
        )
        if status >= 200:
            self._answered.set()

    @property
    def status(self) -> int:
        """Status of the last answer; 0 while there is none."""
        return self.responses[-1].status if self.responses else 0

    @property
    def response(self) -> SipResponse:
        """The last answer."""
        assert self.responses, f"{self.request.method} was not answered"
        return self.responses[-1]

    async def answered(self, seconds: float = 5.0) -> SipResponse:
        """Wait for the final answer and return it."""
        async with asyncio.timeout(seconds):
            await self._answered.wait()
        return self.response


@dataclass(eq=False)
class SentRequest:
    """A request that a service sent. `answer` settles it by hand when the endpoint holds its answers."""

    request: SipRequest
    next_hop: NextHop | None
    outcome: asyncio.Future[SipResponse]

    def answer(self, answer: Answer = 200) -> None:
        """Give the request its outcome."""
        if self.outcome.done():
            return
        if isinstance(answer, Exception):
            self.outcome.set_exception(answer)
        elif isinstance(answer, int):
            self.outcome.set_result(build_response(self.request, answer, to_tag="peer-tag"))
        elif isinstance(answer, tuple):
            status, headers = answer
            self.outcome.set_result(build_response(self.request, status, headers=headers, to_tag="peer-tag"))
        else:
            self.outcome.set_result(answer(self.request))

    @property
    def text(self) -> str:
        """The body as text."""
        return self.request.body.decode()


class MemorySipEndpoint:
    """Implements `ports.SipEndpoint`.

    Every request is answered 200 unless something else was scripted: `script(480, 200)` answers the next two
    requests, `answer_when(predicate, answer)` whatever matches from now on (the newest rule first), and
    `is_holding = True` leaves requests unanswered until `SentRequest.answer` is called.
    """

    def __init__(self, on_request: RequestSink | None = None, on_flow_closed: FlowClosedSink | None = None) -> None:
        self.on_request = on_request
        self.on_flow_closed = on_flow_closed
        self.sent: list[SentRequest] = []
        self.is_holding = False
        self.host = "192.0.2.1"
        self._closed_flows: set[Flow] = set()
        self._script: list[Answer] = []
        self._rules: list[tuple[Callable[[SipRequest, NextHop | None], bool], Answer]] = []
        self._something_sent = asyncio.Event()

    # --- ports.SipEndpoint ---

    async def request(self, request: SipRequest, next_hop: NextHop | None = None) -> SipResponse:
        return await self._send(request, next_hop).outcome

    def request_nowait(
        self,
        request: SipRequest,
        next_hop: NextHop | None,
        done: Callable[[SipResponse | TransportError], None],
    ) -> None:
        """Send and call `done` with the final response or the error (`ports.LeanSipEndpoint`)."""

        def finished(outcome: asyncio.Future[SipResponse]) -> None:
            error = outcome.exception()
            if error is None:
                done(outcome.result())
            else:
                assert isinstance(error, TransportError), error
                done(error)

        self._send(request, next_hop).outcome.add_done_callback(finished)

    def contact_uri(self, user: str, transport: str, *, host: str = "") -> SipUri:
        params = () if transport == "udp" else (("transport", transport),)
        return SipUri(scheme="sip", user=user, host=host or self.host, port=5060, params=params)

    def is_flow_alive(self, flow: Flow) -> bool:
        return flow not in self._closed_flows

    def new_tag(self) -> str:
        return f"tag-{next(_tokens)}"

    def new_call_id(self) -> str:
        return f"call-{next(_tokens)}@isthmus.test"

    # --- for plays ---

    def script(self, *answers: Answer) -> None:
        """Answer the next requests so, in order."""
        self._script.extend(answers)

    def answer_when(self, predicate: Callable[[SipRequest, NextHop | None], bool], answer: Answer) -> None:
        """Answer every matching request so from now on."""
        self._rules.insert(0, (predicate, answer))

    def forget_rules(self) -> None:
        """Answer 200 again."""
        self._rules.clear()
        self._script.clear()

    def receive(self, request: SipRequest, flow: Flow = UDP_PHONE, arrived_at: float = 0.0) -> MemoryIncomingRequest:
        """Hand a request to the server side, as if it had come over `flow`; what is malformed is answered here."""
        incoming = MemoryIncomingRequest(request, flow, arrived_at)
        assert self.on_request is not None, "no sink: pass on_request or set it"
        try:
            check_request(request)
        except SipParseError as error:
            incoming.respond(error.status)
        else:
            self.on_request(_as_incoming(incoming))
        return incoming

    def close_flow(self, flow: Flow) -> None:
        """Let the connection behind `flow` end."""
        self._closed_flows.add(flow)
        if self.on_flow_closed is not None:
            self.on_flow_closed(flow)

    async def until_sent(self, count: int, seconds: float = 5.0) -> list[SentRequest]:
        """Wait until `count` requests were sent in all, and return them."""
        async with asyncio.timeout(seconds):
            while len(self.sent) < count:
                self._something_sent.clear()
                await self._something_sent.wait()
        return self.sent

    def sent_to(self, uri: str) -> list[SentRequest]:
        """What was sent to this Request-URI."""
        return [sent for sent in self.sent if str(sent.request.uri) == uri]

    def take(self) -> list[SentRequest]:
        """Return what was sent so far and forget it."""
        taken, self.sent = self.sent, []
        return taken

    def _send(self, request: SipRequest, next_hop: NextHop | None) -> SentRequest:
        sent = SentRequest(request, next_hop, asyncio.get_running_loop().create_future())
        self.sent.append(sent)
        self._something_sent.set()
        if not self.is_holding:
            sent.answer(self._answer_for(request, next_hop))
        return sent

    def _answer_for(self, request: SipRequest, next_hop: NextHop | None) -> Answer:
        if self._script:
            return self._script.pop(0)
        for predicate, answer in self._rules:
            if predicate(request, next_hop):
                return answer
        if next_hop is not None and next_hop.flow is not None and not self.is_flow_alive(next_hop.flow):
            return TransportError("the connection is closed")
        return 200


def _as_incoming(incoming: MemoryIncomingRequest) -> IncomingRequest:
    """Prove to the type checker that the fake keeps the contract."""
    return incoming


_branches = itertools.count(1)
_tokens = itertools.count(1)


def sip_request(
    method: str,
    uri: str,
    *,
    sender: str,
    recipient: str = "",
    call_id: str = "",
    cseq: int = 1,
    from_tag: str = "",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | str = b"",
    content_type: str = "",
    max_forwards: int = 70,
) -> SipRequest:
    """Build a complete request as a peer would send it: `sip_request("MESSAGE", "sip:ben@people.test", ...)`.

    `sender` and `recipient` are URIs (or name-addrs); `recipient` defaults to the Request-URI.
    """
    number = next(_branches)
    from_address = NameAddr.parse(sender if "<" in sender else f"<{sender}>")
    if from_address.tag == "":
        from_address = from_address.with_param("tag", from_tag or f"from-{number}")
    to_text = recipient or uri
    request = build_request(
        method,
        SipUri.parse(uri),
        from_address=from_address,
        to_address=NameAddr.parse(to_text if "<" in to_text else f"<{to_text}>"),
        call_id=call_id or f"peer-call-{number}",
        cseq=cseq,
        headers=headers,
        body=body.encode() if isinstance(body, str) else body,
        content_type=content_type,
        max_forwards=max_forwards,
    )
    request.headers.prepend("Via", f"SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-memory-{number};rport")
    return request


def message_request(
    sender: str, recipient: str, text: str, *, headers: Iterable[tuple[str, str]] = (), call_id: str = "", cseq: int = 1
) -> SipRequest:
    """A plain text MESSAGE between two addresses: `message_request("ana@corp.test", "ben@people.test", "Hello")`."""
    return sip_request(
        "MESSAGE",
        f"sip:{recipient}",
        sender=f"sip:{sender}",
        call_id=call_id,
        cseq=cseq,
        headers=headers,
        body=text,
        content_type="text/plain;charset=UTF-8",
    )


def register_request(
    user: str,
    contact: str,
    *,
    expires: int | None = 3600,
    call_id: str = "register-call",
    cseq: int = 1,
    headers: Iterable[tuple[str, str]] = (),
) -> SipRequest:
    """A REGISTER of `user` ("ana@corp.test") with one Contact value as text ("" for none, "*" for all)."""
    fields = list(headers)
    if contact:
        fields.append(("Contact", contact))
    if expires is not None:
        fields.append(("Expires", str(expires)))
    domain = user.rpartition("@")[2]
    return sip_request(
        "REGISTER",
        f"sip:{domain}",
        sender=f"sip:{user}",
        recipient=f"sip:{user}",
        call_id=call_id,
        cseq=cseq,
        headers=fields,
    )


def fields(message: SipRequest | SipResponse, name: str) -> list[str]:
    """All values of a header field, for short asserts."""
    headers: Headers = message.headers
    return headers.get_list(name)
