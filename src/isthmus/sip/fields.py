"""Structured header fields: Via, name-addr and CSeq (RFC 3261 sections 20 and 25.1)."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace

from isthmus.errors import SipParseError
from isthmus.sip.syntax import (
    Parameters,
    end_of_quoted,
    format_parameters,
    is_token,
    parameter,
    parse_number,
    parse_parameters,
    quote,
    replace_parameter,
    unquote,
)
from isthmus.sip.uri import OtherUri, SipUri, format_host, parse_host_port, parse_uri

# RFC 3261 section 8.1.1.5 keeps CSeq below 2**31; refuse only what no 32-bit peer can mean (RFC 4475 3.1.2.4).
MAXIMUM_CSEQ = 2**32 - 1
MAGIC_COOKIE = "z9hG4bK"
"""First characters of every branch made by RFC 3261 (section 8.1.1.7)."""

_HOP = re.compile(r"SIP[ \t]*/[ \t]*2\.0[ \t]*/[ \t]*([^\s/]+)[ \t]+(.*)", re.IGNORECASE)
# Names and hops repeat from message to message while tags and branches do not, so the part before the parameters is
# remembered. Longer pieces are not, which bounds each cache to 4,096 * 256 characters whatever a peer sends.
_CACHED_PIECES = 4096
_LONGEST_CACHED = 256

# In an unquoted display name these would be structure; everything else is let through (RFC 4475 section 3.1.1.6).
_NOT_IN_DISPLAY_NAME = re.compile(r'[",;<>\\]')


def _read_hop(text: str) -> tuple[str, str, int]:
    """Read `SIP/2.0/UDP host:port`, blanks allowed where the grammar has them. Raises SipParseError."""
    match = _HOP.fullmatch(text.strip())
    if match is None:
        raise SipParseError("a Via value does not begin with SIP/2.0, a transport and a host")
    transport, sent_by = match.groups()
    if not is_token(transport):
        raise SipParseError("the transport of a Via value is not a token")
    host, port = parse_host_port(sent_by)
    return transport.upper(), host, port


_parse_hop = functools.lru_cache(_CACHED_PIECES)(_read_hop)


@dataclass(frozen=True, slots=True)
class Via:
    """One Via value: a hop the response travels back over (RFC 3261 section 20.42).

    Attributes:
        transport: upper-case: "UDP", "TCP", "TLS", "WS", "WSS" or anything a peer invents.
        host: sent-by host, lower-case, IPv6 without brackets.
        port: sent-by port, 0 when absent.
        params: in order, names lower-case, values as on the wire.
    """

    transport: str
    host: str
    port: int = 0
    params: Parameters = ()

    @classmethod
    def parse(cls, text: str) -> Via:
        """Read one Via value. Raises SipParseError when it is malformed."""
        sent_by, semicolon, parameters = text.partition(";")
        # Hops repeat, branches do not.
        transport, host, port = _parse_hop(sent_by) if len(sent_by) <= _LONGEST_CACHED else _read_hop(sent_by)
        return cls(transport, host, port, parse_parameters(";" + parameters) if semicolon else ())

    def param(self, name: str) -> str | None:
        """Return a parameter's value: None if absent, "" if it has none."""
        return parameter(self.params, name)

    @property
    def branch(self) -> str:
        """The branch parameter, "" when absent (RFC 2543 peers)."""
        return parameter(self.params, "branch") or ""

    @property
    def is_rfc3261_branch(self) -> bool:
        """True when the branch identifies the transaction by itself (section 17.2.3)."""
        return self.branch.startswith(MAGIC_COOKIE)

    @property
    def received(self) -> str:
        """The address the request really came from, brackets removed (RFC 5118 section 4.5); "" when absent."""
        value = parameter(self.params, "received") or ""
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @property
    def rport(self) -> int | None:
        """None when absent; 0 when asked for but not filled in (RFC 3581 section 3); otherwise the port."""
        value = parameter(self.params, "rport")
        return None if value is None else parse_number(value, 65535) or 0

    def with_param(self, name: str, value: str | None) -> Via:
        """Return this Via with a parameter set, in its old place or at the end; None means a bare name."""
        return Via(self.transport, self.host, self.port, replace_parameter(self.params, name, value))

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"SIP/2.0/{self.transport} {format_host(self.host)}{port}{format_parameters(self.params)}"


def _read_address(text: str) -> tuple[SipUri | OtherUri, str]:
    """Read `"Ana" <sip:ana@corp.test>`, up to its closing bracket. Raises SipParseError."""
    if text.startswith('"'):
        end = end_of_quoted(text, 0)
        display_name = unquote(text[:end])
        rest = text[end:].lstrip()
        if not rest.startswith("<"):
            raise SipParseError("a display name is not followed by an address in angle brackets")
        return parse_uri(rest[1:-1]), display_name
    name, _, uri = text.partition("<")
    display_name = name.rstrip()
    if _NOT_IN_DISPLAY_NAME.search(display_name) is not None:
        raise SipParseError("a display name with special characters must be quoted")
    return parse_uri(uri[:-1]), display_name


_parse_address = functools.lru_cache(_CACHED_PIECES)(_read_address)


@dataclass(frozen=True, slots=True)
class NameAddr:
    """A From, To, Contact, Route, ... value: display name, URI and header parameters (RFC 3261 section 20.10).

    Attributes:
        uri: the address.
        display_name: unquoted text, "" when absent.
        params: header (not URI) parameters in order, names lower-case, values as on the wire.
    """

    uri: SipUri | OtherUri
    display_name: str = ""
    params: Parameters = ()

    @classmethod
    def parse(cls, text: str) -> NameAddr:
        """Read one name-addr or addr-spec with its header parameters.

        In the form without angle brackets every parameter belongs to the header field (section 20), and a URI
        that holds a comma or question mark is refused there (section 20.10).

        Raises:
            SipParseError: malformed.
        """
        text = text.strip()
        bracket = 0
        if text[:1] != "<":
            quoted = end_of_quoted(text, 0) if text[:1] == '"' else 0
            bracket = text.find("<", quoted)
            if bracket < 0 or (not quoted and text.find(";", 0, bracket) >= 0):
                # A semicolon before the bracket: no display name, as in sip:ana@10.0.0.9;+sip.instance="<urn:...>"
                return cls._parse_bare(text)
        end = text.find(">", bracket) + 1
        if not end:
            raise SipParseError("an angle bracket is not closed")
        address = text[:end]
        uri, display_name = _parse_address(address) if end <= _LONGEST_CACHED else _read_address(address)
        return cls(uri, display_name, parse_parameters(text[end:]) if end < len(text) else ())

    @classmethod
    def _parse_bare(cls, text: str) -> NameAddr:
        uri, semicolon, parameters = text.partition(";")
        uri = uri.rstrip()
        if "?" in uri or "," in uri:
            raise SipParseError("an address with a comma or question mark must stand in angle brackets")
        return cls(parse_uri(uri), "", parse_parameters(";" + parameters) if semicolon else ())

    @property
    def tag(self) -> str:
        """The tag parameter, "" when absent."""
        return parameter(self.params, "tag") or ""

    def param(self, name: str) -> str | None:
        """Return a header parameter's value, unquoted: None if absent, "" if it has none."""
        return parameter(self.params, name)

    def with_param(self, name: str, value: str | None) -> NameAddr:
        """Return this value with a header parameter set, quoted where it must be; None means a bare name."""
        return NameAddr(self.uri, self.display_name, replace_parameter(self.params, name, value))

    def without_params(self, *names: str) -> NameAddr:
        """Return this value without the named header parameters, or without all when none is named."""
        return replace(self, params=tuple(p for p in self.params if p[0] not in names) if names else ())

    def __str__(self) -> str:
        address = f"{quote(self.display_name)} <{self.uri}>" if self.display_name else f"<{self.uri}>"
        return address + format_parameters(self.params) if self.params else address


@dataclass(frozen=True, slots=True)
class CSeq:
    """Sequence number and method of a request (RFC 3261 section 20.16)."""

    number: int
    method: str

    @classmethod
    def parse(cls, text: str) -> CSeq:
        """Read a CSeq value. Raises SipParseError when malformed or beyond 32 bits."""
        return _parse_cseq(text) if len(text) <= _LONGEST_CACHED else cls._read(text)

    @classmethod
    def _read(cls, text: str) -> CSeq:
        parts = text.split()
        if len(parts) == 2 and (number := parse_number(parts[0], MAXIMUM_CSEQ)) is not None and is_token(parts[1]):
            return cls(number, parts[1])
        raise SipParseError("CSeq is not a number up to 4294967295 and a method")

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


# Most senders begin every transaction with the same small number.
_parse_cseq = functools.lru_cache(_CACHED_PIECES)(CSeq._read)
