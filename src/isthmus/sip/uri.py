"""SIP and SIPS URIs, and every other URI kept as text (RFC 3261 sections 19.1 and 25.1)."""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import unquote_to_bytes

from isthmus.errors import SipParseError
from isthmus.sip.syntax import Parameters, parse_number

# URIs repeat: the same people write again and again. Long ones are not worth remembering, and leaving them out
# bounds the cache to about 8,192 * 256 characters whatever a peer sends.
_CACHED_URIS = 8192
_LONGEST_CACHED_URI = 256

# Printable ASCII without space, quotes, angle brackets and the characters no URI may hold (RFC 3986 section 2).
_URI_CHARACTERS = re.compile(r"[!#-;=?-\[\]_a-z~]*")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+\-.]*")
# "#" is not in the grammar, but star codes such as #21# are dialled on every office phone.  COMPAT: PBX feature codes.
_USER = re.compile(r"[A-Za-z0-9\-_.!~*'()&=+$,;?/%#]+")
_PASSWORD = re.compile(r"[A-Za-z0-9\-_.!~*'()&=+$,%]*")
# "_" is no letter of a host name, but names of machines in private networks hold it. COMPAT: Windows host names.
_HOST = re.compile(r"[A-Za-z0-9._\-]+")
_UNSAFE_IN_USER = re.compile(r"[^A-Za-z0-9\-_.!~*'()&=+$,;?/]")

# RFC 3261 section 19.1.4: these never match a URI that lacks them.
_ALWAYS_COMPARED = frozenset({"user", "ttl", "method", "maddr", "transport"})


def parse_host_port(text: str) -> tuple[str, int]:
    """Read `host[:port]`, host lower-case and an IPv6 reference without its brackets; port 0 means absent.

    Raises:
        SipParseError: neither a host name nor an IPv4 address nor a bracketed IPv6 address, or a bad port. An IPv6
            address without brackets is refused, because its end cannot be told (RFC 5118 section 4.2).
    """
    if text.startswith("["):
        literal, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise SipParseError("an IPv6 reference has no closing bracket")
        host = _checked_ipv6(literal)
        colon = rest.lstrip()[:1]
        if rest.strip() and colon != ":":
            raise SipParseError("unexpected text after an IPv6 reference")
        port = rest.partition(":")[2] if colon else None
    else:
        host, has_port, port_text = text.partition(":")
        host = host.strip().lower()
        if _HOST.fullmatch(host) is None:
            raise SipParseError("a host is neither a name nor an address")
        port = port_text if has_port else None
    if port is None:
        return host, 0
    number = parse_number(port, 65535)
    if not number:
        raise SipParseError("a port is not a number from 1 to 65535")
    return host, number


def _checked_ipv6(literal: str) -> str:
    # RFC 3261's grammar allows 2001:db8:::192.0.2.1, a slip inherited from RFC 2373; read it, write it correctly
    # (RFC 5118 section 4.10).
    literal = literal.replace(":::", "::", 1)
    try:
        ipaddress.IPv6Address(literal)
    except ValueError as error:
        raise SipParseError("an IPv6 reference does not hold an IPv6 address") from error
    if "%" in literal:
        # RFC 3261 section 25.1 knows no zone; it would mean something on the sender's machine only.
        raise SipParseError("an IPv6 reference must not name a zone")
    return literal.lower()


def format_host(host: str) -> str:
    """Return a host as it is written in a URI or Via: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _unescape(text: str) -> str:
    # Latin-1 keeps every octet distinct, which is all a comparison needs.
    return unquote_to_bytes(text).decode("latin-1") if "%" in text else text


@dataclass(frozen=True, slots=True)
class SipUri:
    """A `sip:` or `sips:` URI.

    Attributes:
        scheme: "sip" or "sips".
        host: lower-case; an IPv6 address without brackets.
        user: as on the wire, still percent-escaped, may hold `;` or `?`; "" when absent.
        password: as on the wire.
        port: 0 when absent.
        params: URI parameters in order, names lower-case, values as on the wire, None for a bare name.
        headers: raw text after `?`, kept but never applied (RFC 4475 section 3.1.2.11).
    """

    scheme: str
    host: str
    user: str = ""
    password: str = ""
    port: int = 0
    params: Parameters = ()
    headers: str = ""

    @classmethod
    def parse(cls, text: str) -> SipUri:
        """Read a SIP or SIPS URI without angle brackets.

        Raises:
            SipParseError: malformed (status 400) or of another scheme (status 416).
        """
        uri = parse_uri(text)
        if isinstance(uri, OtherUri):
            raise SipParseError(f"{uri.scheme!r} is not a SIP scheme", status=416)
        return uri

    def param(self, name: str) -> str | None:
        """Return a parameter's value as on the wire: None if absent, "" if it has none."""
        for candidate, value in self.params:
            if candidate == name or ("%" in candidate and _unescape(candidate).lower() == name):
                return value or ""
        return None

    def has_param(self, name: str) -> bool:
        """Tell whether a parameter is there, with or without value."""
        return self.param(name) is not None

    def with_param(self, name: str, value: str | None) -> SipUri:
        """Return this URI with a parameter set, in its old place or at the end; None means a bare name."""
        name = name.lower()
        if self.has_param(name):
            return replace(self, params=tuple((n, value if n == name else v) for n, v in self.params))
        return replace(self, params=(*self.params, (name, value)))

    def without_params(self, *names: str) -> SipUri:
        """Return this URI without the named parameters, or without all when none is named."""
        kept = tuple(item for item in self.params if item[0] not in names) if names else ()
        return replace(self, params=kept)

    @property
    def user_decoded(self) -> str:
        """The user part, percent-decoded once.

        Raises:
            SipParseError: it is not UTF-8 or holds a NUL, so it cannot name a person (RFC 4475 section 3.1.1.4).
        """
        if "%" not in self.user:
            return self.user
        try:
            decoded = unquote_to_bytes(self.user).decode()
        except UnicodeDecodeError as error:
            raise SipParseError("the user part of a URI is not UTF-8") from error
        if "\0" in decoded:
            raise SipParseError("the user part of a URI holds a NUL")
        return decoded

    @property
    def is_secure(self) -> bool:
        """True for `sips:`."""
        return self.scheme == "sips"

    def is_equivalent(self, other: SipUri | OtherUri) -> bool:
        """Compare as RFC 3261 section 19.1.4 demands, which is not transitive and so is not `==`."""
        if not isinstance(other, SipUri) or self.scheme != other.scheme or self.port != other.port:
            return False
        if _unescape(self.user) != _unescape(other.user) or _unescape(self.password) != _unescape(other.password):
            return False
        if not _are_hosts_equal(self.host, other.host):
            return False
        ours, theirs = _comparable(self.params), _comparable(other.params)
        for name in ours.keys() | theirs.keys():
            in_both = name in ours and name in theirs
            if in_both and ours[name] != theirs[name]:
                return False
            if not in_both and name in _ALWAYS_COMPARED:
                return False
        return _comparable_headers(self.headers) == _comparable_headers(other.headers)

    def __str__(self) -> str:
        text = f"[{self.host}]" if ":" in self.host else self.host
        if self.user:
            secret = f":{self.password}" if self.password else ""
            text = f"{self.user}{secret}@{text}"
        text = f"{self.scheme}:{text}"
        if self.port:
            text = f"{text}:{self.port}"
        for name, value in self.params:
            text += f";{name}" if value is None else f";{name}={value}"
        return f"{text}?{self.headers}" if self.headers else text


@dataclass(frozen=True, slots=True)
class OtherUri:
    """A URI of a scheme that is not SIP: `tel:`, `urn:`, `http:`, `im:`.

    Attributes:
        scheme: lower-case.
        rest: everything after the first colon, as on the wire.
    """

    scheme: str
    rest: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"


def parse_uri(text: str) -> SipUri | OtherUri:
    """Read any absolute URI, without angle brackets.

    Raises:
        SipParseError: malformed; status 400.
    """
    return _parse_cached(text) if len(text) <= _LONGEST_CACHED_URI else _parse(text)


def _parse(text: str) -> SipUri | OtherUri:
    if _URI_CHARACTERS.fullmatch(text) is None:
        raise SipParseError("a URI holds a character that must be escaped")
    if "%" in text and _BROKEN_ESCAPE.search(text) is not None:
        raise SipParseError("a URI holds a percent sign without two hexadecimal digits")
    scheme, colon, rest = text.partition(":")
    if not colon or not rest or _SCHEME.fullmatch(scheme) is None:
        raise SipParseError("a URI has no scheme or nothing after it")
    scheme = scheme.lower()
    if scheme not in ("sip", "sips"):
        return OtherUri(scheme, rest)
    # The user part may hold ";" and "?" (RFC 4475 section 3.1.1.13), so "@" must be found before them.
    userinfo, at, tail = rest.partition("@")
    user = password = ""
    if at:
        user, _, password = userinfo.partition(":")
        if _USER.fullmatch(user) is None or _PASSWORD.fullmatch(password) is None:
            raise SipParseError("the user part of a SIP URI is malformed")
    else:
        tail = rest
    tail, _, headers = tail.partition("?")
    host_port, _, parameters = tail.partition(";")
    host, port = parse_host_port(host_port)
    return SipUri(scheme, host, user, password, port, _parse_parameters(parameters), headers)


_parse_cached = functools.lru_cache(_CACHED_URIS)(_parse)


def _parse_parameters(text: str) -> Parameters:
    if not text:
        return ()
    parameters: list[tuple[str, str | None]] = []
    for piece in text.split(";"):
        name, equals, value = piece.partition("=")
        if name:
            parameters.append((name.lower(), value if equals else None))
        elif equals:
            raise SipParseError("a URI parameter has no name")
    return tuple(parameters)


def _are_hosts_equal(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    if ":" not in ours or ":" not in theirs:
        return False
    # RFC 5954 section 4.2: IPv6 addresses are compared by value, not by spelling.
    try:
        return ipaddress.IPv6Address(ours) == ipaddress.IPv6Address(theirs)
    except ValueError:
        return False


def _comparable(parameters: Parameters) -> dict[str, str]:
    return {_unescape(name).lower(): _unescape(value or "").lower() for name, value in parameters}


def _comparable_headers(text: str) -> list[tuple[str, str]]:
    if not text:
        return []
    pairs = (piece.partition("=") for piece in text.split("&"))
    return sorted((_unescape(name).lower(), _unescape(value)) for name, _, value in pairs)


def escape_user(text: str) -> str:
    """Return `text` with every octet percent-encoded that the user part of a SIP URI must not hold bare."""
    if _UNSAFE_IN_USER.search(text) is None:
        return text
    return _UNSAFE_IN_USER.sub(lambda match: "".join(f"%{octet:02X}" for octet in match.group().encode()), text)
