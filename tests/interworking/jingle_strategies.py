"""Hypothesis strategies for descriptions that Jingle can say in full, written the way our translation writes them."""

from __future__ import annotations

from hypothesis import strategies as st

from isthmus.sdp.session_description import Attribute, MediaDescription, SessionDescription, SessionOrigin
from tests.sdp.description_strategies import directions

words = st.text("abcXYZ019-._", min_size=1, max_size=8)
# Printable, within one line, and with what XML must escape.
texts = st.text("abc019 -._/+=<>&'\"é", min_size=1, max_size=12).map(str.strip).filter(bool)
numbers = st.integers(1, 2**32 - 1)
parameter = st.builds("{}={}".format, words, texts)
credentials = st.text("abcXYZ019+/", min_size=4, max_size=32)
roles = st.sampled_from(["actpass", "active", "passive"])
fingerprint = st.lists(st.integers(0, 255), min_size=4, max_size=32).map(lambda o: ":".join(f"{x:02X}" for x in o))


@st.composite
def codec_lines(draw: st.DrawFn, payload_type: int) -> list[Attribute]:
    name = draw(words)
    channels = draw(st.sampled_from(["", "/2"]))
    lines = [Attribute("rtpmap", f"{payload_type} {name}/{draw(st.integers(1, 192_000))}{channels}")]
    said = ";".join(draw(st.lists(parameter, max_size=3)) or draw(st.sampled_from([[], ["111/111"]])))
    lines += [Attribute("fmtp", f"{payload_type} {said}")] if said else []
    return lines + draw(feedback_lines(str(payload_type)))


def feedback_lines(format_: str) -> st.SearchStrategy[list[Attribute]]:
    known = st.lists(
        st.sampled_from(["nack", "nack pli", "ccm fir", "transport-cc", "ccm tmmbr smaxpr=120"]), unique=True
    )
    interval = st.sampled_from([[], ["trr-int 100"]])
    return st.builds(
        lambda kinds, more: [Attribute("rtcp-fb", f"{format_} {kind}") for kind in (*kinds, *more)], known, interval
    )


@st.composite
def extension_lines(draw: st.DrawFn) -> list[Attribute]:
    lines = []
    for number in draw(st.lists(st.integers(1, 14), max_size=3, unique=True)):
        direction = draw(st.sampled_from(["", "/sendonly", "/recvonly", "/inactive"]))
        more = draw(st.sampled_from(["", " vad=on", " short"]))
        lines.append(Attribute("extmap", f"{number}{direction} urn:ietf:params:rtp-hdrext:{draw(words)}{more}"))
    return lines + draw(st.sampled_from([[], [Attribute("extmap-allow-mixed")]]))


@st.composite
def source_lines(draw: st.DrawFn) -> list[Attribute]:
    sources = draw(st.lists(numbers, max_size=3, unique=True))
    if not sources:
        return []
    stream = draw(st.sampled_from(["", "stream-1 track-1", "- track-2"]))
    lines = [Attribute("msid", stream)] if stream else []
    lines += [Attribute("ssrc-group", f"FID {sources[0]} {sources[1]}")] if len(sources) > 1 else []
    for number in sources:
        lines += [Attribute("ssrc", f"{number} cname:{draw(words)}"), Attribute("ssrc", f"{number} label")]
        lines += [Attribute("ssrc", f"{number} msid:{stream}")] if stream else []
    return lines


@st.composite
def candidates(draw: st.DrawFn) -> str:
    address = draw(st.ip_addresses().filter(lambda a: getattr(a, "scope_id", None) is None))
    foundation, component, port = draw(st.integers(1, 6)), draw(st.integers(1, 2)), draw(st.integers(1, 65_535))
    head = f"{foundation} {component} udp {draw(numbers)} {address} {port}"
    kind = draw(st.sampled_from(["host", "srflx", "prflx", "relay"]))
    related = "" if kind == "host" else f" raddr {draw(st.ip_addresses(v=4))} rport {draw(st.integers(0, 65_535))}"
    generation = draw(st.sampled_from(["", " generation 1"]))
    network = draw(st.sampled_from(["", " network-id 3"]))
    return f"{head} typ {kind}{related}{generation}{network}"


@st.composite
def transport_lines(draw: st.DrawFn) -> list[Attribute]:
    lines = [Attribute("ice-ufrag", draw(credentials)), Attribute("ice-pwd", draw(credentials))]
    lines.append(Attribute("ice-options", "trickle"))
    lines += [Attribute("fingerprint", f"sha-256 {draw(fingerprint)}"), Attribute("setup", draw(roles))]
    found = draw(st.lists(candidates(), max_size=4, unique=True))
    return lines + [Attribute("candidate", value) for value in found]


@st.composite
def sections(draw: st.DrawFn, mid: str) -> MediaDescription:
    payload_types = draw(st.lists(st.integers(0, 127), min_size=1, max_size=4, unique=True))
    lines = [Attribute("mid", mid), Attribute(draw(directions))]
    lines += draw(st.sampled_from([[], [Attribute("rtcp-mux")]]))
    lines += draw(
        st.sampled_from([[], [Attribute("ptime", "20")], [Attribute("ptime", "20"), Attribute("maxptime", "60")]])
    )
    for payload_type in payload_types:
        lines += draw(codec_lines(payload_type))
    lines += draw(feedback_lines("*"))
    lines += draw(extension_lines())
    lines += draw(source_lines())
    lines += draw(transport_lines())
    return MediaDescription(
        draw(st.sampled_from(["audio", "video"])),
        9,
        "UDP/TLS/RTP/SAVPF",
        tuple(str(payload_type) for payload_type in payload_types),
        connection="IN IP4 0.0.0.0",
        bandwidths=draw(st.sampled_from([(), ("AS:512",)])),
        attributes=tuple(lines),
    )


@st.composite
def descriptions(draw: st.DrawFn) -> SessionDescription:
    mids = draw(st.lists(words | st.sampled_from(["a~b", "x!y"]), min_size=1, max_size=3, unique=True))
    bundled = draw(st.lists(st.sampled_from(mids), unique=True))
    groups = (Attribute("group", " ".join(("BUNDLE", *bundled))),) if bundled else ()
    media = tuple(draw(sections(mid)) for mid in mids)
    return SessionDescription(origin=SessionOrigin(session_id="0", version=1), attributes=groups, media=media)
