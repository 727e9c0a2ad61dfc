"""Session descriptions (RFC 8866): parsed once at the edge, immutable, written back in the order of the standard.

Lenient in what is read (unknown lines and attributes are kept where they stand, `\\n` alone ends a line), strict in
what is written. What a description may cost is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from isthmus.errors import PeerError

# A browser's offer with audio, video and all its codecs has 6 to 8 KiB; the rest is room for candidates.
MAXIMUM_OCTETS = 65_536
# A conference client adds one media section per participant; a person-to-person call has two or three.
MAXIMUM_MEDIA = 32
# Chromium writes about 150 attributes for video.
MAXIMUM_LINES_PER_SECTION = 1_024

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
# What holds for every section that does not say otherwise (RFC 8839 section 5, RFC 8842 section 5, RFC 8285).
INHERITED = ("ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup", "tls-id", "extmap", "extmap-allow-mixed")
_TOKEN = re.compile(r"[!#-'*+\-.0-9A-Z^-~]+")
# A control character would end the line, and what follows it would be a line of somebody else's making.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


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


class _Section:
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


def _changed(
    attributes: tuple[Attribute, ...], values: Mapping[str, str | None], drop: Iterable[str]
) -> tuple[Attribute, ...]:
    """Replace where it stands, append what is new, leave out what is dropped."""
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
class MediaDescription(_Section):
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
        return replace(self, attributes=_changed(self.attributes, values or {}, drop))

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
        return [_CONTROL.sub(" ", line) for line in lines]


class SessionOrigin(NamedTuple):
    """`o=` (RFC 8866 section 5.2): who made the description, and which version it is."""

    username: str = "-"
    session_id: str = "0"
    version: int = 0
    network: str = "IN"
    address_type: str = "IP4"
    address: str = "127.0.0.1"

    def __str__(self) -> str:
        return " ".join((self.username, self.session_id, str(self.version), self.network, self.address_type)) + (
            f" {self.address}"
        )


_NO_ORIGIN = SessionOrigin()


@dataclass(frozen=True, slots=True)
class SessionDescription(_Section):
    """A whole description.

    Attributes:
        origin: `o=`.
        name: `s=`.
        connection: `c=` of the session, "" when each section has its own.
        bandwidths: `b=` of the session.
        times: `t=` values.
        others: lines between `s=` and `t=` that we do not use (`i`, `u`, `e`, `p`, `r`, `z`, `k`), whole, in order.
        attributes: session-level `a=` lines.
        media: sections in order; the order never changes within a session (RFC 3264 section 8).
    """

    origin: SessionOrigin = _NO_ORIGIN
    name: str = "-"
    connection: str = ""
    bandwidths: tuple[str, ...] = ()
    times: tuple[str, ...] = ("0 0",)
    others: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    media: tuple[MediaDescription, ...] = ()

    @classmethod
    def parse(cls, data: bytes | str) -> SessionDescription:
        """Read a description.

        Raises:
            SdpError: it is too long, not text, or a line that must be understood cannot be.
        """
        return _Reader(data).read()

    def to_text(self) -> str:
        """Return the description with CRLF line ends, the lines in the order of RFC 8866 section 5."""
        before = [line for line in self.others if line[0] in "iuep"]
        after = [line for line in self.others if line[0] not in "iuep"]
        lines = ["v=0", f"o={self.origin}", f"s={self.name or '-'}", *before]
        lines += [f"c={self.connection}"] if self.connection else []
        lines += [f"b={bandwidth}" for bandwidth in self.bandwidths]
        lines += [f"t={time}" for time in self.times]
        lines += after
        lines += [f"a={attribute}" for attribute in self.attributes]
        lines = [_CONTROL.sub(" ", line) for line in lines]
        for section in self.media:
            lines += section.to_lines()
        return "\r\n".join(lines) + "\r\n"

    def to_bytes(self) -> bytes:
        """Return the description as a message body."""
        return self.to_text().encode("utf-8", "replace")

    # --- what a section says, or else the session says for it ---

    def effective(self, section: MediaDescription, name: str) -> str | None:
        """Return the value of an attribute of a section, falling back to the session's."""
        value = section.value_of(name)
        return self.value_of(name) if value is None else value

    def direction(self, section: MediaDescription) -> str:
        """Return the direction of a section; "sendrecv" when nobody says one (RFC 8866 section 6.7)."""
        said = section.own_direction
        return said or next((a.name for a in self.attributes if a.name in DIRECTIONS), "sendrecv")

    def fingerprints(self, section: MediaDescription) -> tuple[str, ...]:
        """Return the certificate fingerprints that hold for a section (RFC 8122 section 5)."""
        return tuple(section.values_of("fingerprint") or self.values_of("fingerprint"))

    def address(self, section: MediaDescription) -> str:
        """Return the connection address of a section, "" when there is none."""
        words = (section.connection or self.connection).split()
        return words[2].partition("/")[0] if len(words) >= 3 else ""

    @property
    def bundles(self) -> tuple[tuple[str, ...], ...]:
        """The mids of each BUNDLE group (RFC 9143)."""
        groups = (value.split() for value in self.values_of("group"))
        return tuple(tuple(group[1:]) for group in groups if group and group[0] == "BUNDLE")

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each section, unique and stable: its mid, or else one made from its kind and place."""
        taken = {section.mid for section in self.media if section.mid}
        found: list[str] = []
        for index, section in enumerate(self.media):
            name = section.mid
            if not name or name in found:
                name = section.media if section.media not in taken else f"{section.media}-{index}"
                while name in taken:
                    name += "-"
            taken.add(name)
            found.append(name)
        return tuple(found)

    def with_attributes(
        self, values: Mapping[str, str | None] | None = None, *, drop: Iterable[str] = ()
    ) -> SessionDescription:
        """Return a copy with these session-level attributes set and those of the names in `drop` left out."""
        return replace(self, attributes=_changed(self.attributes, values or {}, drop))

    def flattened(self) -> SessionDescription:
        """Return the same description with what the session says for all sections (`INHERITED`, direction) in each."""
        said = [attribute for attribute in self.attributes if attribute.name in INHERITED]
        direction = next((attribute.name for attribute in self.attributes if attribute.name in DIRECTIONS), "")
        if not said and not direction:
            return self
        sections = []
        for section in self.media:
            own = {attribute.name for attribute in section.attributes}
            inherited = tuple(attribute for attribute in said if attribute.name not in own)
            whole = replace(section, attributes=(*section.attributes, *inherited))
            sections.append(whole if section.own_direction or not direction else whole.with_direction(direction))
        return replace(self.with_attributes(drop=(*INHERITED, *DIRECTIONS)), media=tuple(sections))

    def with_media(self, media: Iterable[MediaDescription]) -> SessionDescription:
        """Return a copy with these sections."""
        return replace(self, media=tuple(media))


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


class _Reader:
    """One description being read, line by line."""

    def __init__(self, data: bytes | str) -> None:
        if len(data) > MAXIMUM_OCTETS:
            raise SdpError(f"the session description is longer than {MAXIMUM_OCTETS} octets", status=413)
        if isinstance(data, bytes):
            # RFC 8866 section 5: UTF-8; other octets can only stand in names and titles, which nobody relies on.
            data = data.decode("utf-8", "replace")
        # Only these end a line; str.splitlines knows many more that may stand in a title.
        self._lines = [line for line in re.split(r"\r\n|\n|\r", data) if line]

    def read(self) -> SessionDescription:
        starts = [number for number, line in enumerate(self._lines) if line.startswith("m=")]
        if len(starts) > MAXIMUM_MEDIA:
            raise SdpError(f"more than {MAXIMUM_MEDIA} media sections")
        bounds = [*starts, len(self._lines)]
        head = self._section(0, bounds[0])
        if not head or head[0] != ("v", "0"):
            raise SdpError("a session description begins with v=0")
        sections = [self._section(start, end) for start, end in zip(starts, bounds[1:], strict=True)]
        fields = dict(reversed(head))
        if "o" not in fields:
            raise SdpError("the session description has no o= line")
        return SessionDescription(
            origin=_read_origin(fields["o"]),
            name=fields.get("s", "-").strip() or "-",
            connection=fields.get("c", ""),
            bandwidths=tuple(value for letter, value in head if letter == "b"),
            times=tuple(value for letter, value in head if letter == "t") or ("0 0",),
            others=tuple(f"{letter}={value}" for letter, value in head if letter in "iueprzk"),
            attributes=_read_attributes(head),
            media=tuple(_read_media(section) for section in sections),
        )

    def _section(self, start: int, end: int) -> list[tuple[str, str]]:
        if end - start > MAXIMUM_LINES_PER_SECTION:
            raise SdpError(f"a section with more than {MAXIMUM_LINES_PER_SECTION} lines")
        found = []
        for line in self._lines[start:end]:
            if len(line) < 2 or line[1] != "=" or not ("a" <= line[0] <= "z"):
                raise SdpError(f"{line[:40]!r} is not a line of a session description")
            found.append((line[0], line[2:].rstrip()))
        return found


def _read_origin(value: str) -> SessionOrigin:
    words = value.split()
    if len(words) < 6:
        raise SdpError("o= needs six fields")
    # Some peers write versions beyond 64 bits, or none at all: only "differs" and "rises" matter.
    version = read_number(words[2], 10**30) or 0
    return SessionOrigin(words[0], words[1], version, words[3], words[4], words[5])


def _read_attributes(section: Iterable[tuple[str, str]]) -> tuple[Attribute, ...]:
    found = []
    for letter, line in section:
        if letter == "a" and line:
            name, colon, value = line.partition(":")
            if _TOKEN.fullmatch(name) is None:
                raise SdpError(f"a={line[:40]} has no attribute name")
            found.append(Attribute(name, value if colon else None))
    return tuple(found)


def _read_media(section: list[tuple[str, str]]) -> MediaDescription:
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
        attributes=_read_attributes(section[1:]),
    )
