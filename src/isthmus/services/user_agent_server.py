"""The user agent server: every SIP request in the order of RFC 3261 section 8.2, down to the service that answers it.

The endpoint has checked the form (`sip.validation`) and absorbed repeats. Here: method, extensions, scheme, hops,
rates, sender; then a table of services. Strangers learn nothing about who exists: they get the same answer whoever
they ask for.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from isthmus.errors import AddressError, PeerError
from isthmus.interworking.addresses import address_from_sip_uri, address_to_sip_uri
from isthmus.metrics import Metrics
from isthmus.model import Address
from isthmus.ports import IncomingRequest
from isthmus.services.authentication import Authenticator, Identity, Refusal
from isthmus.services.directory import Directory
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.rate_limits import Excess, RateLimits
from isthmus.services.registrar import Registrar
from isthmus.sip.message import SipRequest
from isthmus.sip.uri import SipUri
from isthmus.sip.validation import accepts, unsupported_options
from isthmus.trace import Trace

Service = Callable[[IncomingRequest, Identity], Awaitable[None] | None]

ALLOW = "OPTIONS, REGISTER, MESSAGE, SUBSCRIBE, NOTIFY, PUBLISH, INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, INFO, REFER"
# Extensions that a peer may require of us (RFC 3261 section 8.2.2.3).
SUPPORTED = frozenset(
    {
        *("path", "outbound", "gruu", "eventlist", "recipient-list-subscribe"),
        *("100rel", "timer", "replaces", "norefersub", "trickle-ice"),
    }
)
# Few and short: over UDP the answer should not be much longer than what a forged source asked for (STANDARDS 3.11).
OPTIONS_HEADERS = (
    ("Allow", ALLOW),
    ("Accept", "application/sdp, text/plain, message/cpim"),
    ("Supported", "path, outbound, gruu, 100rel, timer, replaces, norefersub, trickle-ice"),
)
# These act on something we would have begun: without it there is nothing to act on.
_NEEDS_DIALOG = frozenset({"BYE", "PRACK", "CANCEL", "UPDATE", "INFO"})
# Tools that look for open PBXs; an answer would only tell them that somebody is here.
_SCANNERS = ("friendly-scanner", "sipvicious", "sipcli", "sundayddr", "pplsip", "sip-scan")
_CALL_BODIES = frozenset({"", "application/sdp", "multipart/mixed", "multipart/alternative", "multipart/related"})
# RFC 4320 section 4.2: to a request other than INVITE a 408 is never sent; the transaction ends in silence.
_SILENCE = 408
_UNPROVEN_SERVICES = frozenset({"OPTIONS", "REGISTER", "ACK"})

_log = structlog.get_logger(__name__)


class Dialog(Protocol):
    """A dialog of a call."""

    def receive(self, incoming: IncomingRequest) -> None:
        """Answer a request within it."""


DialogT = TypeVar("DialogT", bound=Dialog)


class CallDoor(Protocol[DialogT]):
    """Who takes calls (`services.calls.sip.door`)."""

    def receive(self, incoming: IncomingRequest, identity: Identity, recipient: Address | None) -> None:
        """Take an INVITE outside a dialog; recipient None: the Request-URI says it."""

    def find(self, request: SipRequest) -> DialogT | None:
        """Return whose dialog a request belongs to, None when it is no call's."""

    def admits(self, owner: DialogT, incoming: IncomingRequest) -> Refusal | None:
        """Return how to refuse a request whose sender is not proven, None to let it in."""


class UserAgentServer:
    """The sink of the endpoint's requests: call it with an `IncomingRequest`."""

    def __init__(
        self,
        directory: Directory,
        authenticator: Authenticator,
        registrar: Registrar,
        rates: RateLimits,
        loops: LoopProtection,
        trace: Trace,
        *,
        metrics: Metrics | None = None,
    ) -> None:
        self._directory = directory
        self._authenticator = authenticator
        self._registrar = registrar
        self._rates = rates
        self._loops = loops
        self._trace = trace
        self._metrics = metrics
        self._services: dict[str, Service] = {"INVITE": self._refuse_call}
        self._calls: CallDoor[Any] | None = None
        self._message: Callable[[IncomingRequest, Identity, Address | None], None] | None = None
        self._tasks: set[asyncio.Future[None]] = set()

    def serve(self, method: str, service: Service) -> None:
        """Let `service` answer requests of this method (SUBSCRIBE, NOTIFY, PUBLISH) whose sender is proven."""
        self._services[method] = service

    def serve_messages(self, service: Callable[[IncomingRequest, Identity, Address | None], None]) -> None:
        """Let `service(incoming, identity, recipient)` answer MESSAGE; recipient None: the Request-URI says it."""
        self._message = service

    def serve_calls(self, door: CallDoor[Any]) -> None:
        """Let `door` take INVITEs whose sender is proven, and requests within the dialogs of calls."""
        self._calls = door
        self._services["INVITE"] = self._serve_call

    def __call__(self, incoming: IncomingRequest) -> None:
        """Answer a request, now or when its service is ready."""
        try:
            self._receive(incoming)
        except Exception as error:
            self._failed(incoming, error)

    def _receive(self, incoming: IncomingRequest) -> None:
        request = incoming.request
        if self._calls is not None and request.to_address.tag and self._serve_dialog(self._calls, incoming):
            return
        if not self._authenticator.domains_of(incoming.flow) and not self._pass_source(incoming):
            return
        if not self._pass_inspection(incoming):
            return
        method = request.method
        if method == "OPTIONS":
            incoming.respond(200, headers=OPTIONS_HEADERS)
        elif method == "REGISTER":
            self._register(incoming)
        elif method != "ACK":
            self._serve_proven(incoming)

    # --- dialogs of calls ---

    def _serve_dialog(self, door: CallDoor[Any], incoming: IncomingRequest) -> bool:
        """Answer a request within a call; False when it belongs to none."""
        owner = door.find(incoming.request)
        if owner is None:
            return False
        refusal = door.admits(owner, incoming)
        if refusal is not None:
            self._refuse(incoming, refusal)
        elif self._pass_options(incoming):
            owner.receive(incoming)
        return True

    # --- sources that are no neighbours of ours ---

    def _pass_source(self, incoming: IncomingRequest) -> bool:
        """Bound what sources that prove nothing can ask; whoever shows credentials is bounded as a person."""
        if self._is_scanner(incoming.request):
            incoming.respond(_SILENCE)
            return False
        if "authorization" in incoming.request.headers:
            return True
        excess = self._rates.unauthenticated(incoming.flow.remote_host)
        if excess is not None:
            self._refuse_excess(incoming, excess)
        return excess is None

    # --- inspection (RFC 3261 sections 8.2.1 to 8.2.3) ---

    def _pass_inspection(self, incoming: IncomingRequest) -> bool:
        """Answer what is wrong whoever sent it. True when nothing is."""
        request = incoming.request
        method = request.method
        if method == "MESSAGE" and "require" not in request.headers and "proxy-require" not in request.headers:
            return self._pass_address(incoming)  # the hot path: nothing of the following can apply
        is_in_dialog = bool(request.to_address.tag)
        if method in _NEEDS_DIALOG or (is_in_dialog and method in ("INVITE", "REFER")):
            incoming.respond(481)
        elif method == "REFER":
            # Who could ask us to call somebody, outside a call, could ask that of anybody's phone (STANDARDS 3.11).
            incoming.respond(403, "A transfer is asked for within a call")
        elif method not in self._services and method not in _UNPROVEN_SERVICES and method != "MESSAGE":
            incoming.respond(405 if method in ALLOW.split(", ") else 501, headers=[("Allow", ALLOW)])
        elif self._pass_options(incoming) and (method != "INVITE" or self._pass_call_body(incoming)):
            return self._pass_address(incoming)
        return False

    def _pass_options(self, incoming: IncomingRequest) -> bool:
        request = incoming.request
        unsupported = [
            *unsupported_options(request, SUPPORTED),
            *unsupported_options(request, frozenset(), "Proxy-Require"),
        ]
        if unsupported:
            incoming.respond(420, headers=[("Unsupported", ", ".join(unsupported))])
        return not unsupported

    def _pass_address(self, incoming: IncomingRequest) -> bool:
        request = incoming.request
        method = request.method
        if method in _UNPROVEN_SERVICES:
            return True
        uri = request.uri
        # A sips: address promises TLS on every hop, which nobody can keep beyond us: never downgrade (STANDARDS 1.1).
        if isinstance(uri, SipUri) and uri.is_secure:
            incoming.respond(416, "A sips: address cannot be reached across realms")
            return False
        to_uri = request.to_address.uri
        if isinstance(to_uri, SipUri) and to_uri.is_secure:
            self._respond_with_warning(incoming, 480, "A sips: address cannot be reached across realms")
            return False
        if method == "MESSAGE" and request.to_address.tag:
            incoming.respond(481)  # we keep no dialogs that a MESSAGE could belong to
            return False
        if request.max_forwards == 0 and method in ("MESSAGE", "INVITE"):
            incoming.respond(483)
            return False
        if self._loops.refusal(self._loops.hops(request)) is not None:
            self._trace.decision(f"{method} {uri} goes round in a loop", rule="loop", call_id=request.call_id)
            incoming.respond(482)
            return False
        return True

    def _pass_call_body(self, incoming: IncomingRequest) -> bool:
        request = incoming.request
        if request.content_type not in _CALL_BODIES:
            incoming.respond(415, headers=[("Accept", "application/sdp")])
            return False
        if not accepts(request, "application/sdp"):
            self._respond_with_warning(incoming, 406, "The answer would be application/sdp")
            return False
        return True

    # --- senders ---

    def _register(self, incoming: IncomingRequest) -> None:
        identity = self._authenticator.identify_registrant(incoming)
        if isinstance(identity, Refusal):
            self._refuse(incoming, identity)
            return
        excess = self._rates.user(identity.address)
        if excess is not None:
            self._refuse_excess(incoming, excess)
            return
        self._run(incoming, self._registrar.register(incoming, identity))

    def _serve_proven(self, incoming: IncomingRequest) -> None:
        identity = self._authenticator.identify(incoming)
        if isinstance(identity, Refusal):
            self._refuse(incoming, identity)
            return
        excess = None if identity.is_user else self._rates.peer(identity.address.domain)
        excess = excess or self._rates.user(identity.address)
        if excess is not None:
            self._refuse_excess(incoming, excess)
            return
        method = incoming.request.method
        if method == "MESSAGE":
            self._serve_message(incoming, identity)
            return
        answering = self._services[method](incoming, identity)
        if answering is not None:
            self._run(incoming, answering)

    def _serve_message(self, incoming: IncomingRequest, identity: Identity) -> None:
        if self._message is None:
            incoming.respond(405, headers=[("Allow", ALLOW)])
        else:
            self._pass_on(incoming, identity, self._message)

    def _serve_call(self, incoming: IncomingRequest, identity: Identity) -> None:
        if self._calls is not None:
            self._pass_on(incoming, identity, self._calls.receive)

    def _pass_on(
        self,
        incoming: IncomingRequest,
        identity: Identity,
        service: Callable[[IncomingRequest, Identity, Address | None], None],
    ) -> None:
        """Hand a request to a service that wants to know whom it is for."""
        try:
            recipient = self._recipient(incoming)
        except AddressError as error:
            incoming.respond(404, str(error))
            return
        except LookupError:
            incoming.respond(480, "The device is not registered")
            return
        service(incoming, identity, recipient)

    def _recipient(self, incoming: IncomingRequest) -> Address | None:
        """Who a request is for when the Request-URI alone does not tell; None when it does.

        Raises:
            AddressError: there is no such person.
            LookupError: a GRUU whose device is not registered (RFC 5627 section 5.1).
        """
        request = incoming.request
        uri = request.uri
        if not isinstance(uri, SipUri):
            raise AddressError("the address is not a sip: URI")
        if self._directory.is_business(uri.host):
            if uri.params and uri.has_param("gr"):
                self._resolve_gruu(request, uri)
            return None
        if not _is_numeric(uri.host):
            return None
        # Edge case 20: a provider wrote our address (or another number) for the domain. The To field still names the
        # person; without it the user part means somebody of our only domain.
        to_uri = request.to_address.uri
        if isinstance(to_uri, SipUri) and not _is_numeric(to_uri.host):
            return address_from_sip_uri(to_uri)[0]
        domains = (*self._directory.hosted_domains, *self._directory.routed_domains)
        if len(domains) != 1:
            raise AddressError("the domain of the recipient is missing")
        return Address.of(uri.user_decoded, domains[0])

    def _resolve_gruu(self, request: SipRequest, uri: SipUri) -> None:
        if uri.host not in self._directory.hosted_domains:
            return
        bindings = self._registrar.bindings_of_gruu(uri)
        if not bindings:
            raise LookupError(str(uri))
        request.uri = address_to_sip_uri(bindings[0].address, bindings[0].instance)

    def _refuse_call(self, incoming: IncomingRequest, _: Identity) -> None:
        """Nobody takes calls here: everybody is told why."""
        self._respond_with_warning(incoming, 480, "Calls are not offered yet")

    # --- answers ---

    def _refuse(self, incoming: IncomingRequest, refusal: Refusal) -> None:
        request = incoming.request
        if refusal.rule:
            self._trace.decision(
                f"{request.method} {request.uri} from {incoming.flow.remote_host} refused: {refusal.reason}",
                rule=refusal.rule,
                call_id=request.call_id,
            )
        incoming.respond(refusal.status, refusal.reason, headers=refusal.headers)

    def _refuse_excess(self, incoming: IncomingRequest, excess: Excess) -> None:
        if excess.is_news:
            said = f"{incoming.request.method} from {incoming.flow.remote_host} refused, perhaps more: {excess.text}"
            self._trace.decision(said, rule=excess.rule)
        if self._metrics is not None:
            self._metrics.rate_limited.add(excess.rule)
        if incoming.request.method != "ACK":
            incoming.respond(excess.sip_status, excess.text, headers=[excess.retry_after])

    def _respond_with_warning(self, incoming: IncomingRequest, status: int, text: str) -> None:
        incoming.respond(status, text, headers=[("Warning", f'399 isthmus "{text}"')])

    def _is_scanner(self, request: SipRequest) -> bool:
        agent = request.headers.get("User-Agent")
        return agent is not None and agent.lower().startswith(_SCANNERS)

    # --- services that take time ---

    def _run(self, incoming: IncomingRequest, answering: Awaitable[None]) -> None:
        task = asyncio.ensure_future(answering)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ran, incoming))

    def _ran(self, incoming: IncomingRequest, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(incoming, error)

    def _failed(self, incoming: IncomingRequest, error: BaseException) -> None:
        """Answer what its service could not: theirs is a header field that only the service reads, the rest is ours."""
        if isinstance(error, PeerError):
            status, reason = error.status or 400, str(error)
        else:
            status, reason = 500, ""
            _log.error("a service failed", method=incoming.request.method, exc_info=error)
        incoming.respond(status, reason)


def _is_numeric(host: str) -> bool:
    if not host[:1].isdigit() and ":" not in host:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
