"""What a REGISTER asks for, read in full before anything changes (RFC 3261 section 10.3, RFC 5626, RFC 5627)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.config import SipSettings
from isthmus.errors import SipParseError
from isthmus.ports import Binding, Flow
from isthmus.sip.headers import NameAddr
from isthmus.sip.message import SipRequest
from isthmus.sip.uri import SipUri

# RFC 3261 section 10.2.1.1: an unusable expiry counts as one hour.
UNUSABLE_EXPIRY_SECONDS = 3600
# A device has a handful of contact parameters; more is somebody filling our store.
MAXIMUM_CONTACT_OCTETS = 2_048
_STREAM_ONLY = frozenset({"ws", "wss"})


class IntervalTooBriefError(SipParseError):
    """A wish for less time than we grant (RFC 3261 section 10.3 step 7)."""

    status = 423


@dataclass(frozen=True, slots=True)
class ContactChange:
    """One Contact of a REGISTER.

    Attributes:
        uri: the Contact URI.
        text: the same as text, for the store and for listing it in its own place (RFC 4475 section 3.1.1.12).
        parameters: header parameters but `expires`, values unquoted, "" for a bare name.
        expires_seconds: what is granted; 0 removes.
        q: preference 0 to 1000.
        instance: `+sip.instance` without angle brackets, "" when absent.
        reg_id: outbound flow number, 0 when absent or unusable.
    """

    uri: SipUri
    text: str
    parameters: tuple[tuple[str, str], ...]
    expires_seconds: int
    q: int
    instance: str
    reg_id: int

    @property
    def key(self) -> str:
        """What makes two registrations the same binding with outbound; "" without."""
        return f"{self.instance};{self.reg_id}" if self.instance and self.reg_id else ""


@dataclass(frozen=True, slots=True)
class RegisterWish:
    """Everything a REGISTER asks for.

    Attributes:
        removes_all: `Contact: *`.
        changes: the Contacts; empty for a query.
    """

    removes_all: bool
    changes: tuple[ContactChange, ...]


def read_wish(request: SipRequest, settings: SipSettings, *, is_outbound: bool) -> RegisterWish:
    """Read the Contacts of a REGISTER.

    Args:
        is_outbound: the client supports RFC 5626, so `reg-id` counts.

    Raises:
        SipParseError: 400 for a misused `*` or a Contact that is no SIP URI.
        IntervalTooBriefError: 423.
    """
    values = request.headers.get_list("Contact")
    if any(value.strip() == "*" for value in values):
        if len(values) != 1 or request.expires != 0:
            raise SipParseError("Contact: * stands alone and with Expires: 0")
        return RegisterWish(True, ())
    changes = tuple(_read(value, request, settings, is_outbound) for value in values)
    if sum(1 for change in changes if change.key) > 1:
        raise SipParseError("only one Contact of a REGISTER may have a reg-id (RFC 5626 section 4.2)")
    return RegisterWish(False, changes)


def _read(value: str, request: SipRequest, settings: SipSettings, is_outbound: bool) -> ContactChange:
    if len(value) > MAXIMUM_CONTACT_OCTETS:
        raise SipParseError("a Contact is too long", status=413)
    contact = NameAddr.parse(value)
    if not isinstance(contact.uri, SipUri):
        raise SipParseError("a Contact must be a sip: or sips: URI")
    parameters = tuple((name, contact.param(name) or "") for name, _ in contact.params if name != "expires")
    instance = (contact.param("+sip.instance") or "").strip("<>")
    return ContactChange(
        uri=contact.uri,
        text=str(contact.uri),
        parameters=parameters,
        expires_seconds=_granted(contact, request, settings),
        q=_preference(contact.param("q")),
        instance=instance,
        reg_id=_reg_id(contact.param("reg-id")) if instance and is_outbound else 0,
    )


def _granted(contact: NameAddr, request: SipRequest, settings: SipSettings) -> int:
    asked_text = contact.param("expires")
    if asked_text is not None:
        asked = int(asked_text) if asked_text.isdecimal() and len(asked_text) <= 10 else UNUSABLE_EXPIRY_SECONDS
    elif request.expires is not None:
        asked = request.expires
    else:
        asked = settings.default_expires_seconds
    if asked == 0:
        return 0
    minimum = settings.minimum_expires_seconds
    if asked < minimum and asked < UNUSABLE_EXPIRY_SECONDS:
        raise IntervalTooBriefError(f"a registration lasts at least {minimum} seconds")
    return min(max(asked, minimum), settings.maximum_expires_seconds)


def _preference(text: str | None) -> int:
    if text is None:
        return 1000
    try:
        q = float(text)
    except ValueError as error:
        raise SipParseError("q is a number from 0 to 1") from error
    if not 0.0 <= q <= 1.0:
        raise SipParseError("q is a number from 0 to 1")
    return round(q * 1000)


def _reg_id(text: str | None) -> int:
    # RFC 5626 section 4.2: 1 to 2**31 - 1; anything else is as if there were none.
    if text is None or not text.isdecimal() or len(text) > 10:
        return 0
    return int(text) if 0 < int(text) < 2**31 else 0


def is_dialable(contact: SipUri, flow: Flow) -> bool:
    """Tell whether a new connection to this Contact could reach the device.

    A private address may belong to somebody else's network (STANDARDS: RFC 6314), a browser listens nowhere: these
    are reached over their flow or not at all. The address that the registration really came from is proven.
    """
    transport = (contact.param("transport") or "").lower()
    if transport in _STREAM_ONLY or flow.transport in _STREAM_ONLY or contact.host.endswith(".invalid"):
        return False
    if contact.host == flow.remote_host:
        return True
    try:
        address = ipaddress.ip_address(contact.host)
    except ValueError:
        return "." in contact.host and not contact.host.endswith((".local", ".invalid", ".localhost"))
    return address.is_global and not address.is_multicast


def is_bound_to_flow(binding: Binding) -> bool:
    """True when the binding ends with its connection: outbound, WebSocket, or a Contact that nobody can dial."""
    if not binding.flow.is_stream:
        return False
    if binding.reg_id:
        return True
    return not is_dialable(SipUri.parse(binding.contact), binding.flow)


def write_contact(binding: Binding, seconds_left: int, gruus: Sequence[tuple[str, str]]) -> str:
    """Return one Contact value of the 200: the parameters in the places they were registered in, then ours."""
    contact = NameAddr(SipUri.parse(binding.contact))
    for name, value in (*binding.parameters, ("expires", str(seconds_left)), *gruus):
        if name not in ("pub-gruu", "temp-gruu") or (name, value) in gruus:
            contact = contact.with_param(name, value or None)
    return str(contact)
