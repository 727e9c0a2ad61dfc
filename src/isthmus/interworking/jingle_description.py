"""A Jingle RTP description and what is about the medium in a media section: codecs, feedback, extensions, sources.

XEP-0167 section 6, XEP-0293, XEP-0294, XEP-0339. One function for each row of the table, both ways.
"""

from __future__ import annotations

from collections.abc import Iterator

from slixmpp.xmlstream import ElementBase

from isthmus.interworking.jingle_senders import direction_to_senders, one_line, senders_to_direction, token
from isthmus.sdp.session_description import (
    STATIC_PAYLOADS,
    Attribute,
    MediaDescription,
    SdpError,
    read_number,
)
from isthmus.xmpp.jingle_header_extensions import ExtmapAllowMixed, HeaderExtension, HeaderExtensionParameter
from isthmus.xmpp.jingle_rtcp_feedback import FeedbackInterval, FeedbackParameter, RtcpFeedback
from isthmus.xmpp.jingle_rtp import Bandwidth, Crypto, Description, Encryption, Parameter, PayloadType
from isthmus.xmpp.jingle_sources import Source, SourceGroup, SourceParameter

# RTP has 128 payload types.
_MAXIMUM_PAYLOAD_TYPES = 128
# Chromium writes 16 for video.
_MAXIMUM_EXTENSIONS = 64
# Two per layer of simulcast with retransmission are six.
_MAXIMUM_SOURCES = 64
# H.264 with parameter sets has about eight.
_MAXIMUM_PARAMETERS = 32
_CLOCK_RATES = {"audio": 8_000, "video": 90_000}


# --- Jingle to SDP --------------------------------------------------------------------------------------------


def description_to_section(description: Description, *, is_from_initiator: bool) -> MediaDescription:
    """Return a media section with what the description says; its port is 9 and its profile RTP/AVP.

    Raises:
        SdpError: nothing in it can be used, or it is larger than any description needs.
    """
    media = token(description["media"]).lower()
    if not media:
        raise SdpError("a Jingle description without media")
    lines: list[Attribute] = []
    formats: list[str] = []
    lines += [Attribute("rtcp-mux")] if description["rtcp-mux"] else []
    payload_types = _bounded(description["payload_types"], _MAXIMUM_PAYLOAD_TYPES, "payload types")
    for name in ("ptime", "maxptime"):
        # XEP-0167 has it for each codec, SDP for all: the preferred one that says it wins.
        said = next((value for codec in payload_types if read_number(value := codec[name], 10_000)), "")
        lines += [Attribute(name, said)] if said else []
    for payload_type in payload_types:
        number = read_number(payload_type["id"], 127)
        if number is not None and str(number) not in formats:
            codec = _codec_lines(payload_type, number, media)
            formats += [str(number)] if codec else []
            lines += codec
    lines += _feedback_lines(description, "*")
    lines += _extension_lines(description, is_from_initiator=is_from_initiator)
    lines += _source_lines(description)
    lines += _crypto_lines(description)
    if not formats:
        raise SdpError(f"the Jingle description of {media} has no codec that can be used")
    return MediaDescription(
        media, 9, "RTP/AVP", tuple(formats), bandwidths=_bandwidths(description), attributes=tuple(lines)
    )


def _bounded(items: list[ElementBase], maximum: int, what: str) -> list[ElementBase]:
    if len(items) > maximum:
        raise SdpError(f"more than {maximum} {what} in a Jingle description")
    return items


def _codec_lines(payload_type: ElementBase, number: int, media: str) -> list[Attribute]:
    name, clock_rate, channels = STATIC_PAYLOADS.get(number, ("", _CLOCK_RATES.get(media, 90_000), 1))
    name = token(payload_type["name"]) or name
    if not name:
        return []
    clock_rate = read_number(payload_type["clockrate"], 999_999_999) or clock_rate
    channels = read_number(payload_type["channels"], 99) or channels
    suffix = f"/{channels}" if channels != 1 else ""
    lines = [Attribute("rtpmap", f"{number} {name}/{clock_rate}{suffix}")]
    parameters = _bounded(payload_type["parameters"], _MAXIMUM_PARAMETERS, "parameters of a payload type")
    said = ";".join(filter(None, (_format_parameter(parameter, name) for parameter in parameters)))
    lines += [Attribute("fmtp", f"{number} {said}")] if said else []
    return lines + _feedback_lines(payload_type, str(number))


def _format_parameter(parameter: ElementBase, codec: str) -> str:
    name, value = one_line(parameter["name"]), one_line(parameter["value"])
    if name == "events" and codec.lower() == "telephone-event":
        return value  # RFC 4733 section 2.4.1: the list stands alone
    return f"{name}={value}" if name and value else name or value


def _feedback_lines(parent: ElementBase, format_: str) -> list[Attribute]:
    lines = []
    for feedback in _bounded(parent["rtcp_fbs"], _MAXIMUM_PARAMETERS, "kinds of feedback"):
        more = (_assignment(parameter) for parameter in feedback["parameters"])
        said = " ".join(filter(None, (token(feedback["type"]), token(feedback["subtype"]), *more)))
        lines += [Attribute("rtcp-fb", f"{format_} {said}")] if token(feedback["type"]) else []
    interval = parent.get_plugin("rtcp_fb_trr_int", check=True)
    if interval is not None and read_number(interval["value"], 10**9) is not None:
        lines.append(Attribute("rtcp-fb", f"{format_} trr-int {interval['value']}"))
    return lines


def _assignment(parameter: ElementBase) -> str:
    name, value = one_line(parameter["name"]), one_line(parameter["value"])
    return f"{name}={value}" if value else name


def _extension_lines(description: Description, *, is_from_initiator: bool) -> list[Attribute]:
    lines = []
    for extension in _bounded(description["rtp_hdrexts"], _MAXIMUM_EXTENSIONS, "header extensions"):
        number = read_number(extension["id"], 65_535)
        uri = one_line(extension["uri"])
        if number is None or not uri or " " in uri:
            continue
        direction = senders_to_direction(extension["senders"], is_from_initiator=is_from_initiator)
        suffix = "" if direction == "sendrecv" else f"/{direction}"
        more = "".join(f" {_assignment(parameter)}" for parameter in extension["parameters"])
        lines.append(Attribute("extmap", f"{number}{suffix} {uri}{more}"))
    if description.get_plugin("extmap_allow_mixed", check=True) is not None:
        lines.append(Attribute("extmap-allow-mixed"))
    return lines


def _source_lines(description: Description) -> list[Attribute]:
    groups = [
        (token(group["semantics"]), [number for source in group["sources"] if (number := _ssrc(source)) is not None])
        for group in _bounded(description["ssrc_groups"], _MAXIMUM_SOURCES, "groups of sources")
    ]
    sources = _described_sources(description)
    for _, members in groups:
        # COMPAT: stanza 12 describes the first source of a group alone. They have one CNAME (RFC 4588 section 5.3), and
        # each must be described (RFC 5576 section 4.2): Chromium refuses the whole description otherwise.
        names = [said for number in members for name, said in sources.get(number, ()) if name == "cname"]
        for number in members if names else ():
            sources.setdefault(number, [("cname", names[0])])
    lines = [
        Attribute("ssrc-group", " ".join((semantics, *members)))
        for semantics, members in groups
        if semantics and members and all(number in sources for number in members)
    ]
    streams = []
    for number, parameters in sources.items():
        for name, value in parameters:
            lines.append(Attribute("ssrc", f"{number} {name}:{value}" if value else f"{number} {name}"))
            streams += [value] if name == "msid" and value else []
    if streams:
        # RFC 8830 says for the section what RFC 5576 said for the source; browsers of today look at the former.
        lines.insert(0, Attribute("msid", streams[0]))
    return lines


def _described_sources(description: Description) -> dict[str, list[tuple[str, str]]]:
    """Names and values of the parameters of each source that has some."""
    described: dict[str, list[tuple[str, str]]] = {}
    for source in _bounded(description["sources"], _MAXIMUM_SOURCES, "sources"):
        number = _ssrc(source)
        if number is None:
            continue
        for parameter in _bounded(source["parameters"], _MAXIMUM_PARAMETERS, "parameters of a source"):
            name = token(parameter["name"])
            if name:
                described.setdefault(number, []).append((name, one_line(parameter["value"])))
    return described


def _ssrc(source: ElementBase) -> str | None:
    number = read_number(source["ssrc"], 2**32 - 1)
    return None if number is None else str(number)


def _crypto_lines(description: Description) -> list[Attribute]:
    encryption = description.get_plugin("encryption", check=True)
    if encryption is None:
        return []
    lines = []
    for crypto in _bounded(encryption["cryptos"], _MAXIMUM_PARAMETERS, "keys"):
        parts = [one_line(crypto[name]) for name in ("tag", "crypto-suite", "key-params", "session-params")]
        if all(parts[:3]):
            lines.append(Attribute("crypto", " ".join(filter(None, parts))))
    return lines


def _bandwidths(description: Description) -> tuple[str, ...]:
    bandwidth = description.get_plugin("bandwidth", check=True)
    if bandwidth is None or not token(bandwidth["type"]) or read_number(bandwidth["value"].strip(), 10**12) is None:
        return ()
    return (f"{bandwidth['type']}:{bandwidth['value'].strip()}",)


# --- SDP to Jingle --------------------------------------------------------------------------------------------


def section_to_description(section: MediaDescription, *, is_from_initiator: bool, has_keys: bool) -> Description:
    """Return the description for a media section (`SessionDescription.flattened` before).

    Args:
        section: a live section.
        is_from_initiator: who says it.
        has_keys: write the SDES keys; false beside a DTLS fingerprint, which wins (RFC 5763 section 5).
    """
    description = Description()
    description["media"] = section.media
    for payload_type in _payload_types(section):
        description.append(payload_type)
    _add_feedback(description, section, "*")
    description["rtcp-mux"] = section.has_rtcp_mux
    for value in section.values_of("extmap"):
        extension = _extension(value, is_from_initiator=is_from_initiator)
        if extension is not None:
            description.append(extension)
    if section.has_attribute("extmap-allow-mixed"):
        description.append(ExtmapAllowMixed())
    for item in _sources(section):
        description.append(item)
    if has_keys:
        _add_keys(description, section)
    if section.bandwidths:
        bandwidth = Bandwidth()
        bandwidth["type"], _, bandwidth["value"] = section.bandwidths[0].partition(":")
        description.append(bandwidth)
    return description


def _payload_types(section: MediaDescription) -> Iterator[PayloadType]:
    for codec in section.codecs:
        payload_type = PayloadType()
        payload_type["id"] = str(codec.payload_type)
        payload_type["name"] = codec.name
        payload_type["clockrate"] = str(codec.clock_rate)
        if codec.channels != 1:
            payload_type["channels"] = str(codec.channels)
        for name in ("ptime", "maxptime"):
            value = (section.value_of(name) or "").strip()
            if read_number(value, 10_000):
                payload_type[name] = value
        for name, value in _format_parameters(codec.name, codec.parameters):
            payload_type.append(_parameter(Parameter(), name, value))
        _add_feedback(payload_type, section, str(codec.payload_type))
        yield payload_type


def _format_parameters(codec: str, said: str) -> Iterator[tuple[str, str]]:
    for part in said.split(";"):
        name, equals, value = part.strip().partition("=")
        if equals and name:
            yield name.strip(), value.strip()
        elif part.strip():
            yield ("events" if codec.lower() == "telephone-event" else ""), part.strip()


def _parameter(parameter: ElementBase, name: str, value: str) -> ElementBase:
    parameter["name"] = name
    parameter["value"] = value
    return parameter


def _add_feedback(parent: ElementBase, section: MediaDescription, format_: str) -> None:
    for value in section.values_of("rtcp-fb"):
        said, *words = value.split() or [""]
        if said != format_ or not words:
            continue
        if words[0] == "trr-int":
            interval = FeedbackInterval()
            interval["value"] = words[1] if len(words) > 1 else "0"
            parent.append(interval)
            continue
        feedback = RtcpFeedback()
        feedback["type"] = words[0]
        if len(words) > 1:
            feedback["subtype"] = words[1]
        for word in words[2:]:
            name, _, assigned = word.partition("=")
            feedback.append(_parameter(FeedbackParameter(), name, assigned))
        parent.append(feedback)


def _extension(value: str, *, is_from_initiator: bool) -> HeaderExtension | None:
    words = value.split()
    if len(words) < 2:
        return None
    number, _, direction = words[0].partition("/")
    extension = HeaderExtension()
    extension["id"] = number
    extension["uri"] = words[1]
    if direction in {"sendonly", "recvonly", "inactive"}:
        extension["senders"] = direction_to_senders(direction, is_from_initiator=is_from_initiator)
    for word in words[2:]:
        name, _, assigned = word.partition("=")
        extension.append(_parameter(HeaderExtensionParameter(), name, assigned))
    return extension


def _sources(section: MediaDescription) -> Iterator[ElementBase]:
    for value in section.values_of("ssrc-group"):
        semantics, *members = value.split() or [""]
        group = SourceGroup()
        group["semantics"] = semantics
        for number in members:
            member = Source()
            member["ssrc"] = number
            group.append(member)
        yield group
    said: dict[str, list[tuple[str, str]]] = {}
    for value in section.values_of("ssrc"):
        number, _, attribute = value.strip().partition(" ")
        name, _, assigned = attribute.strip().partition(":")
        if number and name:
            said.setdefault(number, []).append((name, assigned.strip()))
    stream = (section.value_of("msid") or "").strip()
    for number, attributes in said.items():
        if stream and not any(name == "msid" for name, _ in attributes):
            attributes.append(("msid", stream))
        source = Source()
        source["ssrc"] = number
        for name, assigned in attributes:
            source.append(_parameter(SourceParameter(), name, assigned))
        yield source


def _add_keys(description: Description, section: MediaDescription) -> None:
    encryption = Encryption()
    for value in section.values_of("crypto"):
        words = value.split()
        if len(words) < 3:
            continue
        crypto = Crypto()
        crypto["tag"], crypto["crypto-suite"], crypto["key-params"] = words[:3]
        if words[3:]:
            crypto["session-params"] = " ".join(words[3:])
        encryption.append(crypto)
    if encryption["cryptos"]:
        description.append(encryption)
