"""One `m=` section of a session description, and what it is made of (RFC 8866 section 5.14)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from isthmus.errors import PeerError

STATIC_PAYLOADS = {  # RFC 3551 tables 4 and 5: static types may come without rtpmap
    0: ("PCMU", 8000, 1),
    3: ("GSM", 8000, 1),
    4: ("G723", 8000, 1),
    8: ("PCMA", 8000, 1),
    9: ("G722", 8000, 1),  # the clock rate is 8000 for historical reasons (RFC 3551 section 4.5.2)
    13: ("CN", 8000, 1),
    15: ("G728", 8000, 1),
    18: ("G729", 8000, 1),
    26: ("JPEG", 90000, 1),
    31: ("H261", 90000, 1),
    34: ("H263", 90000, 1),
}
DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
TOKEN = re.compile(r"[!#-'*+\-.0-9A-Z^-~]+")
# A control character would end the line, and what follows it would be a line of somebody else's making.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class SdpError(PeerError):
    """A description that cannot be understood or used (RFC 3261 section 13.3.1.3: 488)."""

    status = 488
    condition = "not-acceptable"


class Attribute(NamedTuple):
    """One `a=` line; `value` is None for a property attribute."""

    name: str
    value: str | None = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}:{self.value}"


@dataclass(frozen=True, slots=True)
class Codec:
    """One RTP payload type (RFC 8866 section 6.6).

    Attributes:
        payload_type: 0 to 127.
        name: encoding name as written; names compare without case.
        clock_rate: Hz.
        channels: audio channels.
        parameters: value of `a=fmtp` without the payload type, "" when absent.
        feedback: values of `a=rtcp-fb` for this type, without it (RFC 4585).
    """

    payload_type: int
    name: str
    clock_rate: int
    channels: int = 1
    parameters: str = ""
    feedback: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str, int, int]:
        """What two ends must share: name without case, clock rate, channels."""
        return self.name.lower(), self.clock_rate, self.channels


class Section:
    """What session and media level have in common."""

    __slots__ = ()
    attributes: tuple[Attribute, ...]

    def has_attribute(self, name: str) -> bool:
        """True when an attribute of this name stands in this section."""
        return any(attribute.name == name for attribute in self.attributes)

    def value_of(self, name: str) -> str | None:
        """Return the value of the first attribute of this name ("" for a property), or None."""
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute.value or ""
        return None

    def values_of(self, name: str) -> list[str]:
        """Return the values of all attributes of this name, in order."""
        return [attribute.value or "" for attribute in self.attributes if attribute.name == name]


def changed(
    attributes: tuple[Attribute, ...], values: Mapping[str, str | None], drop: Iterable[str]
) -> tuple[Attribute, ...]:
    """Return attributes with some replaced where they stand, new ones appended, and those in `drop` left out."""
    gone = frozenset(drop)
    pending = dict(values)
    kept: list[Attribute] = []
    for attribute in attributes:
        if attribute.name in values:
            if attribute.name in pending:
                kept.append(Attribute(attribute.name, pending.pop(attribute.name)))
        elif attribute.name not in gone:
            kept.append(attribute)
    return (*kept, *(Attribute(name, value) for name, value in pending.items()))


@dataclass(frozen=True, slots=True)
class MediaDescription(Section):
    """One `m=` section.

    Attributes:
        media: "audio", "video", "application", ...
        port, port_count: transport port; 0 rejects (RFC 3264 section 6).
        protocol: "RTP/AVP", "UDP/TLS/RTP/SAVPF", ...
        formats: payload types (or other formats) as written, preferred first.
        title: `i=`; connection: `c=`; bandwidths: `b=`; key: `k=`; each without the type.
        attributes: `a=` lines in order.
    """

    media: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    port_count: int = 1
    title: str = ""
    connection: str = ""
    bandwidths: tuple[str, ...] = ()
    key: str = ""
    attributes: tuple[Attribute, ...] = ()

    @property
    def mid(self) -> str:
        """Identification tag (RFC 5888), "" when absent."""
        return self.value_of("mid") or ""

    @property
    def is_rejected(self) -> bool:
        """Port zero, unless it stands for a bundled section (RFC 8843 section 6)."""
        return self.port == 0 and not self.has_attribute("bundle-only")

    @property
    def direction(self) -> str:
        """The direction of this section; where it says none, that of the session may hold (`flattened`)."""
        return self.own_direction or "sendrecv"

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Values of `a=fingerprint` in this section (RFC 8122 section 5): hash function, space, octets."""
        return tuple(self.values_of("fingerprint"))

    @property
    def setup(self) -> str:
        """DTLS role (RFC 8842 section 5.2): "actpass", "active", "passive", "holdconn", or ""."""
        return (self.value_of("setup") or "").strip().lower()

    @property
    def ice_ufrag(self) -> str:
        """ICE user fragment of this section (RFC 8839 section 5.4), "" when absent."""
        return (self.value_of("ice-ufrag") or "").strip()

    @property
    def ice_pwd(self) -> str:
        """ICE password of this section (RFC 8839 section 5.4), "" when absent."""
        return (self.value_of("ice-pwd") or "").strip()

    @property
    def own_direction(self) -> str:
        """The direction said in this section, "" when it says none."""
        return next((attribute.name for attribute in self.attributes if attribute.name in DIRECTIONS), "")

    @property
    def has_rtcp_mux(self) -> bool:
        """RTP and RTCP on one port (RFC 5761)."""
        return self.has_attribute("rtcp-mux")

    @property
    def candidates(self) -> tuple[str, ...]:
        """Values of `a=candidate` (RFC 8839 section 5.1)."""
        return tuple(self.values_of("candidate"))

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """Payload types in the order of preference; static ones without rtpmap get their names (RFC 3551 section 6).

        Formats that are no payload types, and dynamic ones without rtpmap, are left out.
        """
        maps = _by_format(self.values_of("rtpmap"))
        parameters = _by_format(self.values_of("fmtp"))
        feedback: dict[str, list[str]] = {}
        for value in self.values_of("rtcp-fb"):
            format_, _, what = value.partition(" ")
            feedback.setdefault(format_, []).append(what.strip())
        found = []
        for format_ in self.formats:
            payload_type = read_number(format_, 127)
            if payload_type is None:
                continue
            mapped = _read_rtpmap(maps.get(format_, "")) or STATIC_PAYLOADS.get(payload_type)
            if mapped is not None:
                said = (*feedback.get("*", ()), *feedback.get(format_, ()))
                found.append(Codec(payload_type, *mapped, parameters.get(format_, ""), said))
        return tuple(found)

    def with_attributes(
        self, values: Mapping[str, str | None] | None = None, *, drop: Iterable[str] = ()
    ) -> MediaDescription:
        """Return a copy with these attributes set (once each) and those of the names in `drop` left out."""
        return replace(self, attributes=changed(self.attributes, values or {}, drop))

    def with_direction(self, direction: str) -> MediaDescription:
        """Return a copy that says this direction."""
        return self.with_attributes({direction: None}, drop=[other for other in DIRECTIONS if other != direction])

    def with_candidates(self, candidates: Iterable[str]) -> MediaDescription:
        """Return a copy with exactly these candidates."""
        kept = tuple(attribute for attribute in self.attributes if attribute.name != "candidate")
        return replace(self, attributes=(*kept, *(Attribute("candidate", value) for value in candidates)))

    def to_lines(self) -> list[str]:
        """Return the lines of this section."""
        count = f"/{self.port_count}" if self.port_count != 1 else ""
        lines = [f"m={self.media} {self.port}{count} {self.protocol} {' '.join(self.formats)}".rstrip()]
        lines += [f"i={self.title}"] if self.title else []
        lines += [f"c={self.connection}"] if self.connection else []
        lines += [f"b={bandwidth}" for bandwidth in self.bandwidths]
        lines += [f"k={self.key}"] if self.key else []
        lines += [f"a={attribute}" for attribute in self.attributes]
        return [CONTROL.sub(" ", line) for line in lines]


def read_number(text: str, maximum: int) -> int | None:
    """Return an unsigned number in ASCII digits, or None for anything else and for what is above `maximum`."""
    # Other digits of Unicode are digits to str.isdigit and int() alike, or to one of them.
    if not (text.isascii() and text.isdigit() and len(text) <= 30):
        return None
    number = int(text)
    return number if number <= maximum else None


def _by_format(values: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        format_, _, rest = value.strip().partition(" ")
        found.setdefault(format_, rest.strip())
    return found


def _read_rtpmap(value: str) -> tuple[str, int, int] | None:
    name, slash, rest = value.partition("/")
    rate, _, channels = rest.partition("/")
    clock_rate = read_number(rate.strip(), 999_999_999)
    if not slash or not name or clock_rate is None:
        return None
    return name, clock_rate, read_number(channels.strip(), 99) or 1


def read_attributes(section: Iterable[tuple[str, str]]) -> tuple[Attribute, ...]:
    """Return the `a=` lines among (letter, value) pairs. Raises SdpError."""
    found = []
    for letter, line in section:
        if letter == "a" and line:
            name, colon, value = line.partition(":")
            if TOKEN.fullmatch(name) is None:
                raise SdpError(f"a={line[:40]} has no attribute name")
            found.append(Attribute(name, value if colon else None))
    return tuple(found)


def read_media(section: list[tuple[str, str]]) -> MediaDescription:
    """Read the (letter, value) pairs of one section, beginning with `m`. Raises SdpError."""
    words = section[0][1].split()
    if len(words) < 3:
        raise SdpError(f"m={section[0][1][:40]} needs media, port and protocol")
    before, slash, after = words[1].partition("/")
    port, count = read_number(before, 65_535), read_number(after, 1_000) if slash else 1
    if port is None or not count:
        raise SdpError(f"{words[1][:20]!r} is not a port")
    fields = dict(reversed(section))
    return MediaDescription(
        media=words[0].lower(),
        port=port,
        protocol=words[2],
        formats=tuple(words[3:]),
        port_count=count,
        title=fields.get("i", ""),
        connection=fields.get("c", ""),
        bandwidths=tuple(value for letter, value in section if letter == "b"),
        key=fields.get("k", ""),
        attributes=read_attributes(section[1:]),
    )
