"""Addresses of both realms: SIP URI <-> `Address` <-> JID (RFC 7247 section 6, XEP-0106, RFC 5627).

The invariant: every mapping is total (a result or an AddressError), injective and reversible. An address that one
side could write in two ways is refused rather than folded, because two people behind one name is how messages reach
the wrong one.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable
from urllib.parse import quote, unquote_to_bytes

import idna

from isthmus.errors import AddressError, PeerError
from isthmus.model import MAXIMUM_PART_OCTETS, Address, canonical_domain, canonical_local
from isthmus.sip.uri import OtherUri, SipUri, escape_user, parse_uri

# The one resource under which a presentity of the business realm appears when its devices have no GRUU.
SYNTHETIC_RESOURCE = "isthmus"

# A resource may be 1023 octets, percent-encoded 3069: over this a SIP phone may cut or refuse the URI.
MAXIMUM_GR_OCTETS = 255
_OPAQUE_PREFIX = "urn:x-isthmus:"

# Keys are bounded by the limits on the parts (about 2 KiB), so a hostile sender can fill at most some 60 MiB.
_CACHE = 32768

# XEP-0106 section 3: the ten characters a localpart cannot hold, and the escape character itself.
_ESCAPES = {
    " ": "\\20",
    '"': "\\22",
    "&": "\\26",
    "'": "\\27",
    "/": "\\2f",
    ":": "\\3a",
    "<": "\\3c",
    ">": "\\3e",
    "@": "\\40",
    "\\": "\\5c",
}
_UNESCAPES = {escape: character for character, escape in _ESCAPES.items()}
# A backslash is escaped only where it would read as an escape, so that `c:\cool` stays legible (XEP-0106 section 4.2).
_TO_ESCAPE = re.compile(r"[ \"&'/:<>@]|\\(?=20|22|26|27|2f|3a|3c|3e|40|5c)")
_TO_UNESCAPE = re.compile(r"\\(?:20|22|26|27|2f|3a|3c|3e|40|5c)")

# RFC 3261 section 25: unreserved characters and those of `param-unreserved` may stand in a URI parameter value.
_GR_SAFE = "-_.!~*'()[]/:&+$"

# Lync public IM connectivity wrote `user(domain)@msn.com`; gateways of the time wrote `user%domain@gateway`.
_LEGACY_PARENTHESES_HOSTS = frozenset({"msn.com"})
_LEGACY_PARENTHESES = re.compile(r"([^()]+)\(([^()@]+)\)")


def escape_localpart(local: str) -> str:
    """Return the XEP-0106 form of an unescaped, folded user part."""
    return _TO_ESCAPE.sub(lambda match: _ESCAPES[match[0]], local)


def unescape_localpart(localpart: str) -> str:
    """Return the user part behind a folded localpart.

    Raises:
        AddressError: the localpart holds an escape that its own escaping would not produce (`\\5cx`), so that two
            localparts would name one person; or `\\20` at either end (XEP-0106 section 3.2).
    """
    if "\\" not in localpart:
        return localpart
    local = _TO_UNESCAPE.sub(lambda match: _UNESCAPES[match[0]], localpart)
    if escape_localpart(local) != localpart:
        raise AddressError(f"{localpart!r} is not an address that can be mapped: its escaping is ambiguous")
    return local


@functools.lru_cache(maxsize=_CACHE)
def _mappable(local: str, host: str) -> Address:
    """Fold both parts and prove that the result survives the way to a JID and back."""
    host = host.strip("[]")
    domain = f"[{host}]" if ":" in host else canonical_domain(host)
    folded = canonical_local(local)
    localpart = escape_localpart(folded)
    if len(localpart.encode()) > MAXIMUM_PART_OCTETS:
        raise AddressError("the user part of an address is longer than 1023 octets when escaped")
    # The XMPP server folds the escaped form: a combining mark must not melt into an escape (`\\2f` + U+0307), and the
    # digits of an escape must not break the bidi rule of a right-to-left name.
    if not localpart.isascii() and (
        unicodedata.normalize("NFC", localpart) != localpart
        or canonical_local(localpart) != localpart
        or canonical_local(folded) != folded
    ):
        raise AddressError(f"{local!r} has no stable form as a JID")
    return Address(folded, domain)


def address_from_sip_uri(uri: SipUri) -> tuple[Address, str]:
    """Return the person and the device (`gr` parameter, "" when absent) that a SIP URI names.

    Password, port, headers and all other URI parameters are dropped; parameters inside the user part belong to the
    user. A temporary GRUU (`gr` without value) names no device that may be told to others (RFC 5627 section 3.1.2).

    Raises:
        AddressError: no user part, not UTF-8, control characters, or no stable counterpart as a JID (404).
    """
    return _from_sip_parts(uri.user, uri.host, (uri.param("gr") or "") if uri.params else "")


@functools.lru_cache(maxsize=_CACHE)
def _from_sip_parts(user: str, host: str, gr: str) -> tuple[Address, str]:
    local = _percent_decoded(user) if "%" in user else user
    return _mappable(local, host), _device_from_gr(gr) if gr else ""


def address_from_uri(uri: SipUri | OtherUri, phone_domain: str = "") -> tuple[Address, str]:
    """Return person and device of any URI that can name a person: sip, sips, tel, im, pres, xmpp.

    Args:
        uri: the URI.
        phone_domain: domain that `tel:` numbers belong to; a global number becomes `+E164@phone_domain`.

    Raises:
        AddressError: another scheme, a local telephone number, or no counterpart.
    """
    if isinstance(uri, SipUri):
        return address_from_sip_uri(uri)
    rest = uri.rest.partition("?")[0]
    if uri.scheme == "tel":
        number = re.sub(r"[-.()]", "", rest.partition(";")[0])
        if not phone_domain or not re.fullmatch(r"\+[0-9]{1,15}", number):
            raise AddressError("a telephone number must be global (+...) to be reached")
        return _mappable(number, phone_domain), ""
    if uri.scheme in ("im", "pres"):
        return address_from_sip_uri(_sip_form(rest))
    if uri.scheme == "xmpp":
        return address_from_jid(_percent_decoded(rest))
    raise AddressError(f"a URI of the scheme {uri.scheme} does not name a person")


def _sip_form(rest: str) -> SipUri:
    user, at, host = rest.rpartition("@")
    if not at:
        raise AddressError("the URI needs the form user@domain")
    return SipUri(scheme="sip", host=host.lower(), user=user)


def address_from_uri_text(text: str, phone_domain: str = "") -> tuple[Address, str]:
    """Like `address_from_uri` for text such as a PIDF entity or a CPIM address. Raises AddressError."""
    try:
        return address_from_uri(parse_uri(text.strip()), phone_domain)
    except AddressError:
        raise
    except PeerError as error:
        raise AddressError(str(error)) from error


@functools.lru_cache(maxsize=_CACHE)
def address_to_sip_uri(address: Address, device: str = "") -> SipUri:
    """Return the `sip:` URI of a person, with `;gr=` when a device is meant (RFC 7247 section 6.2).

    Raises:
        AddressError: the domain has no A-label form.
    """
    user = "user=phone" if re.fullmatch(r"\+[0-9]+", address.local) else ""
    params: tuple[tuple[str, str | None], ...] = (("user", "phone"),) if user else ()
    if device:
        params = (*params, ("gr", gr_from_device(device)))
    return SipUri(
        scheme="sip", host=_ascii_domain(address.domain).strip("[]"), user=escape_user(address.local), params=params
    )


@functools.lru_cache(maxsize=_CACHE)
def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain).decode("ascii")
    except idna.IDNAError as error:
        raise AddressError(f"{domain!r} is not a domain name: {error}") from error


@functools.lru_cache(maxsize=_CACHE)
def address_from_jid(text: str) -> tuple[Address, str]:
    """Return the person and the resource ("" for a bare JID) that a JID names (RFC 7622 section 3.1).

    Raises:
        AddressError: a JID without localpart (a server), or with parts that RFC 7622 or XEP-0106 forbid.
    """
    bare, _, resource = text.partition("/")
    localpart, at, domain = bare.partition("@")
    if not at or not localpart:
        raise AddressError(f"{text!r} is not the address of a person")
    if len(resource.encode("utf-8", "replace")) > MAXIMUM_PART_OCTETS or _has_controls(resource):
        raise AddressError("the resource of the JID is too long or holds control characters")
    if any(character in "\"&':<> " for character in localpart) or "@" in domain:
        raise AddressError(f"{text!r} is not a JID")
    folded = canonical_local(localpart)
    return _mappable(unescape_localpart(folded), domain), resource


@functools.lru_cache(maxsize=_CACHE)
def address_to_jid(address: Address, resource: str = "") -> str:
    """Return the JID of a person: localpart escaped by XEP-0106, resource as it is."""
    bare = f"{escape_localpart(address.local)}@{address.domain}"
    return f"{bare}/{resource}" if resource else bare


def gr_from_device(device: str) -> str:
    """Return the `gr` parameter value for a resource; a long one becomes an opaque, stable token."""
    encoded = quote(device, safe=_GR_SAFE)
    if len(encoded) <= MAXIMUM_GR_OCTETS:
        return encoded
    return _OPAQUE_PREFIX + hashlib.sha256(device.encode()).hexdigest()[:32]


def _device_from_gr(value: str) -> str:
    device = _percent_decoded(value)
    if _has_controls(device) or len(device.encode()) > MAXIMUM_PART_OCTETS:
        raise AddressError("the gr parameter of the URI is not a usable device name")
    return device


def resolve_device(device: str, known: Iterable[str]) -> str:
    """Return the resource that an opaque token from `gr_from_device` stands for, or `device` itself.

    `known` are the resources seen in presence: the token is a hash, so no table has to be kept.
    """
    if not device.startswith(_OPAQUE_PREFIX):
        return device
    return next((resource for resource in known if gr_from_device(resource) == device), device)


def _percent_decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise AddressError("the address is not UTF-8") from error


def _has_controls(text: str) -> bool:
    return any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" or c in "\ufffe\uffff" for c in text)


def address_from_legacy(text: str, gateway_domains: Collection[str] = ()) -> Address:
    """Read an address as older federations wrote it; import is the only place where these forms are accepted.

    `user(domain)@msn.com` (Lync public IM connectivity) and `user%domain@gateway` are undone once; a plain address
    passes, so importing twice changes nothing (edge case 2).

    Args:
        text: the address, with or without a `sip:` or `xmpp:` scheme.
        gateway_domains: domains that stood for "the other realm" in the old set-up.

    Raises:
        AddressError: not an address, or decorated more than once.
    """
    plain = re.sub(r"^(sips?|xmpp|im|pres):", "", text.strip(), flags=re.IGNORECASE)
    local, at, host = plain.rpartition("@")
    if not at:
        raise AddressError(f"{text!r} is not an address: it needs the form name@domain")
    gateways = {canonical_domain(domain) for domain in gateway_domains}
    host = canonical_domain(host)
    if host in gateways or host in _LEGACY_PARENTHESES_HOSTS:
        decorated = _LEGACY_PARENTHESES.fullmatch(local)
        if decorated:
            return _undecorated(decorated[1], decorated[2], gateways)
    if host in gateways and "%" in local:
        user, _, domain = local.rpartition("%")
        return _undecorated(user, domain, gateways)
    return _mappable(local, host)


def _undecorated(user: str, domain: str, gateways: set[str]) -> Address:
    address = _mappable(user, domain)
    if address.domain in gateways or "%" in user or "(" in user:
        raise AddressError(f"{user!r} at {domain!r} is decorated more than once")
    return address
