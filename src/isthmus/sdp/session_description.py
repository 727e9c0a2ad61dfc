"""Session descriptions (RFC 8866): parsed once at the edge, immutable, written back in the order of the standard.

Lenient in what is read (unknown lines and attributes are kept where they stand, `\\n` alone ends a line), strict in
what is written. What a description may cost is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from isthmus.sdp.media_description import (
    CONTROL,
    DIRECTIONS,
    STATIC_PAYLOADS,
    Attribute,
    Codec,
    MediaDescription,
    SdpError,
    Section,
    changed,
    read_attributes,
    read_media,
    read_number,
)

__all__ = [
    "DIRECTIONS",
    "STATIC_PAYLOADS",
    "Attribute",
    "Codec",
    "MediaDescription",
    "SdpError",
    "SessionDescription",
    "SessionOrigin",
    "read_number",
]

# A browser's offer with audio, video and all its codecs has 6 to 8 KiB; the rest is room for candidates.
MAXIMUM_OCTETS = 65_536
# A conference client adds one media section per participant; a person-to-person call has two or three.
MAXIMUM_MEDIA = 32
# Chromium writes about 150 attributes for video.
MAXIMUM_LINES_PER_SECTION = 1_024

# What holds for every section that does not say otherwise (RFC 8839 section 5, RFC 8842 section 5, RFC 8285).
INHERITED = ("ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup", "tls-id", "extmap", "extmap-allow-mixed")


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
class SessionDescription(Section):
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
        lines = [CONTROL.sub(" ", line) for line in lines]
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
        return replace(self, attributes=changed(self.attributes, values or {}, drop))

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


class _Reader:
    """One description being read, line by line."""

    def __init__(self, data: bytes | str) -> None:
        if len(data) > MAXIMUM_OCTETS:
            raise SdpError(f"the session description is longer than {MAXIMUM_OCTETS} octets", status=413)
        if isinstance(data, bytes):
            # RFC 8866 section 5: UTF-8; other octets can only stand in names and titles, which nobody relies on.
            data = data.decode("utf-8", "replace")
        # Only these end a line; str.splitlines knows many more that may stand in a title.
        self._lines = [CONTROL.sub(" ", line) for line in re.split(r"\r\n|\n|\r", data) if line]

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
            attributes=read_attributes(head),
            media=tuple(read_media(section) for section in sections),
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
