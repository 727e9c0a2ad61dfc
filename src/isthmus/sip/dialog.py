"""Dialogs: the lasting relation of two user agents (RFC 3261 section 12), and what ends it (RFC 5057)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from isthmus.errors import SipParseError
from isthmus.sip.header_names import identify
from isthmus.sip.headers import Headers, NameAddr
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.uri import OtherUri, SipUri, parse_uri

# Requests and responses that may move the remote target (RFC 3261 12.2, RFC 3311, RFC 6665 section 4.4.1, RFC 3515).
TARGET_REFRESH_METHODS = frozenset({"INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"})
# Section 12.2.2: these carry the number of the INVITE they belong to.
_OUTSIDE_ORDER = frozenset({"ACK", "CANCEL"})
MAXIMUM_CSEQ = 2**31 - 1


class DialogId(NamedTuple):
    """What identifies a dialog at one end (section 12)."""

    call_id: str
    local_tag: str
    remote_tag: str


class ErrorEffect(Enum):
    """How far a failure response inside a dialog reaches (RFC 5057 section 5.1)."""

    TRANSACTION = "only this request failed"
    USAGE = "this usage (the call, or the subscription) is gone"
    DIALOG = "the dialog and all its usages are gone"


# RFC 5057 section 5.1: every status not named here concerns its transaction alone.
ERROR_EFFECTS: Mapping[int, ErrorEffect] = {
    **dict.fromkeys((404, 410, 416, 482, 483, 484, 485, 502, 604), ErrorEffect.DIALOG),
    **dict.fromkeys((405, 480, 481, 489, 501), ErrorEffect.USAGE),
}


def effect_of_failure(method: str, status: int) -> ErrorEffect:
    """Return what a failure response to an in-dialog request destroys; a timeout counts as 408.

    A re-INVITE or UPDATE that finds no dialog or no answer ends the call (RFC 3261 section 12.2.1.2).
    """
    if method in {"INVITE", "UPDATE"} and status in {408, 481}:
        return ErrorEffect.DIALOG
    return ERROR_EFFECTS.get(status, ErrorEffect.TRANSACTION)


class Dialog:
    """One end of a dialog.

    Addresses are kept as text, which is what requests and records need of them: a company's phones hold a hundred
    thousand dialogs, and parsed addresses would take three times the memory. They are parsed when somebody asks.

    Attributes:
        call_id: Call-ID of all its requests.
        local_cseq: number of our last request.
        remote_cseq: number of the peer's last request, None before the first.
        is_secure: made by a sips request over TLS; contacts must be sips.
        is_early: no final response yet.
    """

    __slots__ = (
        "_local",
        "_local_contact",
        "_remote",
        "_remote_target",
        "_routes",
        "call_id",
        "is_early",
        "is_secure",
        "local_cseq",
        "remote_cseq",
    )

    def __init__(
        self,
        *,
        call_id: str,
        local: NameAddr,
        remote: NameAddr,
        local_contact: SipUri | OtherUri,
        remote_target: SipUri | OtherUri,
        route_set: Iterable[NameAddr] = (),
        local_cseq: int = 0,
        remote_cseq: int | None = None,
        is_secure: bool = False,
        is_early: bool = False,
    ) -> None:
        self.call_id = call_id
        self._local = str(local)
        self._remote = str(remote)
        self._local_contact = str(local_contact)
        self._remote_target = str(remote_target)
        self._routes = tuple([str(route) for route in route_set])
        self.local_cseq = local_cseq
        self.remote_cseq = remote_cseq
        self.is_secure = is_secure
        self.is_early = is_early

    @classmethod
    def as_server(
        cls,
        request: SipRequest,
        *,
        local_tag: str,
        local_contact: SipUri | OtherUri,
        is_secure: bool = False,
        is_early: bool = False,
    ) -> Dialog:
        """Make the dialog that our response with `local_tag` in To creates (section 12.1.1).

        Also for a subscriber whose dialog is made by the first NOTIFY (RFC 6665 section 4.4.1): `local_tag` is then
        the To tag of the NOTIFY, and `local_cseq` wants the number of the SUBSCRIBE.

        Raises:
            SipParseError: 400, no usable Contact.
        """
        return cls(
            call_id=request.call_id,
            local=_with_tag(request.to_address, local_tag),
            remote=request.from_address,
            local_contact=local_contact,
            remote_target=_only_contact(request),
            route_set=[_route(value) for value in request.record_routes],
            remote_cseq=request.cseq.number,
            is_secure=is_secure and isinstance(request.uri, SipUri) and request.uri.is_secure,
            is_early=is_early,
        )

    @classmethod
    def as_client(cls, request: SipRequest, response: SipResponse, *, is_secure: bool = False) -> Dialog:
        """Make the dialog that a response to our request creates (section 12.1.2).

        Raises:
            SipParseError: no usable Contact.
        """
        return cls(
            call_id=request.call_id,
            local=request.from_address,
            remote=response.to_address,
            local_contact=_only_contact(request),
            remote_target=_only_contact(response),
            route_set=[_route(value) for value in reversed(response.record_routes)],
            local_cseq=request.cseq.number,
            is_secure=is_secure and isinstance(request.uri, SipUri) and request.uri.is_secure,
            is_early=response.status < 200,
        )

    @property
    def id(self) -> DialogId:
        """Our identifier of the dialog."""
        return DialogId(self.call_id, self.local_tag, self.remote_tag)

    @property
    def local(self) -> NameAddr:
        """From of our requests, with our tag."""
        return NameAddr.parse(self._local)

    @property
    def remote(self) -> NameAddr:
        """To of our requests; its tag may be empty (RFC 2543 peers)."""
        return NameAddr.parse(self._remote)

    @property
    def local_tag(self) -> str:
        """Our tag."""
        return self.local.tag

    @property
    def remote_tag(self) -> str:
        """The peer's tag, empty for RFC 2543 peers."""
        return self.remote.tag

    @property
    def local_contact(self) -> SipUri | OtherUri:
        """Our Contact, where the peer's requests reach us."""
        return parse_uri(self._local_contact)

    @local_contact.setter
    def local_contact(self, uri: SipUri | OtherUri) -> None:
        self._local_contact = str(uri)

    @property
    def remote_target(self) -> SipUri | OtherUri:
        """Where requests go in the end: the peer's Contact."""
        return parse_uri(self._remote_target)

    @property
    def route_set(self) -> tuple[NameAddr, ...]:
        """Route values, nearest proxy first."""
        return tuple([NameAddr.parse(route) for route in self._routes]) if self._routes else ()

    @property
    def has_routes(self) -> bool:
        """True when requests go through proxies."""
        return bool(self._routes)

    @property
    def contact_header(self) -> str:
        """Value of Contact in our requests and responses."""
        return f"<{self._local_contact}>"

    def confirm(self, response: SipResponse) -> None:
        """Take the 2xx that ends the early state: it sets route set and target anew (section 13.2.2.4)."""
        if self.is_early:
            self.is_early = False
            self._routes = tuple([str(_route(value)) for value in reversed(response.record_routes)])
        self.refresh_target(response)

    def refresh_target(self, message: SipRequest | SipResponse) -> None:
        """Take the Contact of a target refresh request, or of the 2xx to ours; anything unusable changes nothing."""
        try:
            if message.cseq.method in TARGET_REFRESH_METHODS:
                self._remote_target = str(_only_contact(message))
        except SipParseError:
            return

    def receive_request(self, request: SipRequest) -> None:
        """Check and note a request of the peer within this dialog (section 12.2.2).

        Gaps in the numbers are fine: a proxy may have refused what is missing. A number seen before is refused as
        well as a lower one: repeats end in the transaction layer, so it came over a second path.

        Raises:
            SipParseError: 500, the request is out of order.
        """
        if request.method in _OUTSIDE_ORDER:
            return
        number = request.cseq.number
        if self.remote_cseq is not None and number <= self.remote_cseq:
            raise SipParseError(f"CSeq {number} after {self.remote_cseq} is out of order", status=500)
        self.remote_cseq = number
        self.refresh_target(request)

    def make_request(
        self,
        method: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> SipRequest:
        """Build our next request (section 12.2.1.1), without Via.

        Raises:
            SipParseError: the sequence numbers are used up.
        """
        if self.local_cseq >= MAXIMUM_CSEQ:
            raise SipParseError("the dialog has used all its sequence numbers", status=500)
        self.local_cseq += 1
        return self._build(method, self.local_cseq, headers, body, content_type)

    def make_ack(self, cseq: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> SipRequest:
        """Build the ACK of a 2xx to the INVITE numbered `cseq` (section 13.2.2.4): a new transaction, same number."""
        return self._build("ACK", cseq, headers, body, "application/sdp" if body else "")

    def _build(
        self, method: str, cseq: int, headers: Iterable[tuple[str, str]], body: bytes, content_type: str
    ) -> SipRequest:
        uri, routes = self._way()
        # Header lines as `build_request` makes them, of text that is ready.
        lines = [
            ("max-forwards", "Max-Forwards", "70"),
            ("from", "From", self._local),
            ("to", "To", self._remote),
            ("call-id", "Call-ID", self.call_id),
            ("cseq", "CSeq", f"{cseq} {method}"),
        ]
        lines += [("route", "Route", route) for route in routes]
        lines += [(*identify(name), value) for name, value in headers]
        if content_type:
            lines.append(("content-type", "Content-Type", content_type))
        return SipRequest(method, uri, Headers.of_lines(lines), body)

    def _way(self) -> tuple[SipUri | OtherUri, tuple[str, ...]]:
        if not self._routes:
            return self.remote_target, ()
        first = NameAddr.parse(self._routes[0]).uri
        if not isinstance(first, SipUri) or first.has_param("lr"):
            return self.remote_target, self._routes
        # A strict router (RFC 2543) wants itself in the Request-URI and the target last (section 12.2.1.1). What must
        # not stand in a Request-URI is taken off (section 19.1.1).
        uri = SipUri(first.scheme, first.host, first.user, first.password, first.port, first.params)
        return uri.without_params("method"), (*self._routes[1:], f"<{self._remote_target}>")

    def to_record(self) -> dict[str, Any]:
        """Return the dialog as a JSON-able object, for `from_record`."""
        return {
            "call_id": self.call_id,
            "local": self._local,
            "remote": self._remote,
            "local_contact": self._local_contact,
            "remote_target": self._remote_target,
            "route_set": list(self._routes),
            "local_cseq": self.local_cseq,
            "remote_cseq": self.remote_cseq,
            "is_secure": self.is_secure,
            "is_early": self.is_early,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Dialog:
        """Restore a dialog.

        Raises:
            SipParseError: the record is damaged.
        """
        dialog = cls.__new__(cls)
        try:
            dialog.call_id = record["call_id"]
            dialog._local = _checked_address(record["local"])
            dialog._remote = _checked_address(record["remote"])
            dialog._local_contact = _checked_uri(record["local_contact"])
            dialog._remote_target = _checked_uri(record["remote_target"])
            dialog._routes = tuple([_checked_address(route) for route in record["route_set"]])
            dialog.local_cseq = int(record["local_cseq"])
            dialog.remote_cseq = None if record["remote_cseq"] is None else int(record["remote_cseq"])
            dialog.is_secure = bool(record["is_secure"])
            dialog.is_early = bool(record["is_early"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SipParseError(f"a stored dialog cannot be read: {error!r}", status=500) from error
        return dialog


# The forms that nearly every record has, told in a tenth of the time that parsing takes: there may be a hundred
# thousand dialogs to restore.
_PLAIN_URI = re.compile(r"sips?:[A-Za-z0-9\-_.!~*'()&=+$,%]{1,200}@[A-Za-z0-9.\-]{1,200}(?::[0-9]{1,5})?")
_PLAIN_ADDRESS = re.compile(rf"<{_PLAIN_URI.pattern}>(?:;tag=[A-Za-z0-9\-.!%*_+`'~]{{1,200}})?")


def _checked_address(text: str) -> str:
    if _PLAIN_ADDRESS.fullmatch(text) is None:
        NameAddr.parse(text)
    return text


def _checked_uri(text: str) -> str:
    if _PLAIN_URI.fullmatch(text) is None:
        parse_uri(text)
    return text


def _only_contact(message: SipRequest | SipResponse) -> SipUri | OtherUri:
    # Section 8.1.1.8: exactly one. Peers that send more mean the first; without any there is nowhere to send to.
    contacts = message.contacts
    if not contacts:
        raise SipParseError("a Contact is needed to make a dialog")
    return contacts[0].uri


def _route(value: NameAddr) -> NameAddr:
    return NameAddr(value.uri, "", value.params)


def _with_tag(address: NameAddr, tag: str) -> NameAddr:
    return address if address.tag else address.with_param("tag", tag)
