"""The entrance of calls from SIP: INVITEs become calls, requests within dialogs find theirs, CANCEL finds its INVITE.

`services.user_agent_server` has inspected what comes here; who sent an INVITE is proven by then. Requests within a
dialog are proven by where they come from, or by digest: see `admits`.
"""

from __future__ import annotations

from collections.abc import Callable

from isthmus.errors import AddressError, PeerError
from isthmus.interworking.addresses import address_from_sip_uri
from isthmus.interworking.session_bodies import session_in
from isthmus.model import Address, Realm
from isthmus.ports import Flow, IncomingRequest
from isthmus.services.authentication import Authenticator, Identity, Refusal
from isthmus.services.calls.leg import CallSink, IncomingCall, Leg
from isthmus.services.calls.sip.calls import SipCalls
from isthmus.services.calls.sip.dialogs import DialogOwner
from isthmus.services.calls.sip.leg_caller import SipCallerLeg
from isthmus.services.calls.sip.path import DialogPath
from isthmus.services.calls.sip.refusals import respond_to_bad_body
from isthmus.services.directory import Directory
from isthmus.sip.message import SipRequest
from isthmus.sip.replaces import replaces_of
from isthmus.sip.routing import DEFAULT_MAX_BREADTH, DEFAULT_MAX_FORWARDS
from isthmus.sip.syntax import parse_number
from isthmus.sip.uri import SipUri

# A proxied INVITE may say any number; more than this is never used (RFC 5393 section 5.3.3.1).
_LARGEST_BREADTH = 10_000


MessageService = Callable[[IncomingRequest, Identity, Address | None], None]


class SipDoor:
    """Takes what comes by SIP and belongs to calls."""

    def __init__(self, calls: SipCalls, directory: Directory, authenticator: Authenticator, sink: CallSink) -> None:
        self._calls = calls
        self._directory = directory
        self._authenticator = authenticator
        self._sink = sink

    def messages_to(self, service: MessageService) -> None:
        """Let `service` take MESSAGEs within calls; without one they are refused (405)."""

        def take(session: DialogOwner, incoming: IncomingRequest) -> None:
            kind = "user" if self._directory.realm_of(session.party.domain) is Realm.BUSINESS_HOSTED else "peer"
            service(incoming, Identity(session.party, kind), session.peer)

        self._calls.messages = take

    # --- new calls ---

    def receive(self, incoming: IncomingRequest, identity: Identity, recipient: Address | None) -> None:
        """Take an INVITE outside a dialog.

        Args:
            identity: who sent it, proven.
            recipient: whom it is for; None when the Request-URI says that.
        """
        request = incoming.request
        try:
            callee, device = _callee_of(request, recipient)
            replaces = replaces_of(request)
            offer = session_in(request)
        except AddressError as error:
            incoming.respond(404, str(error))
            return
        except PeerError as error:
            respond_to_bad_body(incoming, error)
            return
        refusal = self._calls.session_timer().refusal(request)
        if refusal:
            incoming.respond(422, headers=refusal)
            return
        path = self._path_to(identity, incoming.flow)
        leg = SipCallerLeg(self._calls, incoming, party=identity.address, peer=callee, path=path, offer=offer)
        call = IncomingCall(
            leg=leg,
            caller=identity.address,
            callee=callee,
            offer=offer,
            callee_device=device,
            hops=self._calls.loops.hops(request),
            breadth=_breadth_of(request),
            max_forwards=DEFAULT_MAX_FORWARDS if request.max_forwards is None else request.max_forwards,
            replaces=None if replaces is None else (replaces.call_id, replaces.to_tag, replaces.from_tag),
            is_replacing_early_only=replaces is not None and replaces.is_early_only,
        )
        self._sink(call)

    def _path_to(self, identity: Identity, flow: Flow) -> DialogPath:
        is_hosted = self._directory.realm_of(identity.address.domain) is Realm.BUSINESS_HOSTED
        device = ""
        if is_hosted:
            for target in self._calls.delivery.targets(identity.address):
                if any(way.next_hop is not None and way.next_hop.flow == flow for way in target.ways):
                    device = target.key
        return DialogPath(self._calls, identity.address, flow=flow, device=device, is_hosted=is_hosted)

    # --- within dialogs ---

    def find(self, request: SipRequest) -> DialogOwner | None:
        """Return whose dialog a request belongs to, None when it is no call's."""
        tag = request.to_address.tag
        return self._calls.dialogs.find(request.call_id, tag, request.from_address.tag) if tag else None

    def admits(self, owner: DialogOwner, incoming: IncomingRequest) -> Refusal | None:
        """Return how to refuse a request within a dialog whose sender is not proven; None lets it in.

        Nobody but the two ends knows our tag (64 random bits) unless he reads the wire. A request from where the
        device was last heard is taken without another question; from elsewhere the sender must prove himself again.
        """
        if incoming.request.method == "ACK" or owner.is_heard_on(incoming.flow):
            return None
        if self._authenticator.is_neighbour(owner.party.domain, incoming.flow):
            return None
        identity = self._authenticator.identify(incoming)
        if isinstance(identity, Refusal):
            return identity
        if identity.address != owner.party:
            return Refusal(403, "This is not your call", rule="authentication.dialog")
        return None

    def cancelled(self, incoming: IncomingRequest, cancel: SipRequest) -> None:
        """An INVITE that is not answered yet was cancelled (the sink of the endpoint)."""
        request = incoming.request
        owner = self.find(request) or self._calls.dialogs.of_sender(request.call_id, request.from_address.tag)
        if owner is None:
            incoming.respond(487)
        else:
            owner.cancelled(incoming, cancel)

    def flow_closed(self, flow: Flow) -> None:
        """A connection is gone."""
        self._calls.dialogs.flow_closed(flow)

    def leg_named(self, replaces: tuple[str, str, str]) -> Leg | None:
        """Return the leg that a Replaces means: (Call-ID, to-tag, from-tag) in the words of who sent it."""
        return self._calls.dialogs.leg_named(replaces)


def _callee_of(request: SipRequest, recipient: Address | None) -> tuple[Address, str]:
    if recipient is not None:
        return recipient, ""
    if not isinstance(request.uri, SipUri):
        raise AddressError("the address is not a sip: URI")
    return address_from_sip_uri(request.uri)


def _breadth_of(request: SipRequest) -> int:
    """Max-Breadth, capped; a malformed one counts as absent (RFC 5393 section 5.3.3.1)."""
    said = parse_number(request.headers.get("max-breadth") or "", _LARGEST_BREADTH)
    return DEFAULT_MAX_BREADTH if said is None else min(said, DEFAULT_MAX_BREADTH)
