"""Jingle as XML, written and read for the test client alone: it must not share mistakes with what it tests.

XEP-0166 (sessions), 0167 (RTP), 0176 (ICE), 0293 (feedback), 0320 (DTLS), 0338 (groups), 0339 (sources),
0353 (proposals), 0181 (digits), 0251 (transfer).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, SubElement

JINGLE = "urn:xmpp:jingle:1"
ERRORS = "urn:xmpp:jingle:errors:1"
RTP = "urn:xmpp:jingle:apps:rtp:1"
RTP_INFO = "urn:xmpp:jingle:apps:rtp:info:1"
DTMF = "urn:xmpp:jingle:dtmf:0"
TRANSFER = "urn:xmpp:jingle:transfer:0"
FEEDBACK = "urn:xmpp:jingle:apps:rtp:rtcp-fb:0"
SOURCES = "urn:xmpp:jingle:apps:rtp:ssma:0"
ICE = "urn:xmpp:jingle:transports:ice-udp:1"
DTLS = "urn:xmpp:jingle:apps:dtls:0"
GROUPS = "urn:xmpp:jingle:apps:grouping:0"
PROPOSALS = "urn:xmpp:jingle-message:0"

FEATURES = (JINGLE, RTP, "urn:xmpp:jingle:apps:rtp:audio", RTP_INFO, DTMF, FEEDBACK, SOURCES, ICE, DTLS, GROUPS)
VIDEO_FEATURE = "urn:xmpp:jingle:apps:rtp:video"


@dataclass(frozen=True)
class Payload:
    """A codec as one side names it."""

    number: int
    name: str
    clock_rate: int
    channels: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict)
    feedback: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Candidate:
    """An ICE candidate of one component."""

    foundation: str
    component: int
    protocol: str
    priority: int
    address: str
    port: int
    type: str
    related_address: str = ""
    related_port: int = 0


@dataclass(frozen=True)
class Transport:
    """Where and how one side takes media."""

    user: str = ""
    password: str = ""
    fingerprints: tuple[tuple[str, str], ...] = ()
    setup: str = ""
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class Content:
    """One medium of a session; without `media` only what the action is about is there."""

    name: str
    creator: str
    senders: str = ""
    media: str = ""
    payloads: tuple[Payload, ...] = ()
    sources: tuple[int, ...] = ()
    transport: Transport | None = None


def jingle(
    action: str,
    sid: str,
    contents: Iterable[Content] = (),
    *,
    bundled: Iterable[str] = (),
    reason: str = "",
    text: str = "",
    info: str = "",
    info_attributes: Mapping[str, str] | None = None,
    **roles: str,
) -> Element:
    """A `<jingle/>`.

    Args:
        bundled: names of the contents that share one transport.
        reason: condition of a session-terminate, content-reject or content-remove.
        info, info_attributes: element of a session-info, `{namespace}name`.
        roles: `initiator` and `responder`.
    """
    root = Element(f"{{{JINGLE}}}jingle", {"action": action, "sid": sid, **roles})
    for content in contents:
        _write_content(root, content)
    names = list(bundled)
    if names:
        group = SubElement(root, f"{{{GROUPS}}}group", {"semantics": "BUNDLE"})
        for name in names:
            SubElement(group, f"{{{GROUPS}}}content", {"name": name})
    if reason:
        _write_reason(root, reason, text)
    if info:
        SubElement(root, info, dict(info_attributes or {}))
    return root


def _write_reason(parent: Element, condition: str, text: str = "") -> None:
    reason = SubElement(parent, f"{{{JINGLE}}}reason")
    SubElement(reason, f"{{{JINGLE}}}{condition}")
    if text:
        SubElement(reason, f"{{{JINGLE}}}text").text = text


def _write_content(root: Element, content: Content) -> None:
    attributes = {"creator": content.creator, "name": content.name}
    if content.senders:
        attributes["senders"] = content.senders
    element = SubElement(root, f"{{{JINGLE}}}content", attributes)
    if content.media:
        description = SubElement(element, f"{{{RTP}}}description", {"media": content.media})
        for payload in content.payloads:
            _write_payload(description, payload)
        for source in content.sources:
            marked = SubElement(description, f"{{{SOURCES}}}source", {"ssrc": str(source)})
            SubElement(marked, f"{{{SOURCES}}}parameter", {"name": "cname", "value": "jingle-client"})
        SubElement(description, f"{{{RTP}}}rtcp-mux")
    if content.transport is not None:
        _write_transport(element, content.transport)


def _write_payload(description: Element, payload: Payload) -> None:
    attributes = {"id": str(payload.number), "name": payload.name, "clockrate": str(payload.clock_rate)}
    if payload.channels > 1:
        attributes["channels"] = str(payload.channels)
    element = SubElement(description, f"{{{RTP}}}payload-type", attributes)
    for name, value in payload.parameters.items():
        SubElement(element, f"{{{RTP}}}parameter", {"name": name, "value": value})
    for kind, subtype in payload.feedback:
        SubElement(element, f"{{{FEEDBACK}}}rtcp-fb", {"type": kind, **({"subtype": subtype} if subtype else {})})


def _write_transport(content: Element, transport: Transport) -> None:
    element = SubElement(content, f"{{{ICE}}}transport")
    if transport.user:
        element.attrib.update({"ufrag": transport.user, "pwd": transport.password})
    for algorithm, value in transport.fingerprints:
        mark = SubElement(element, f"{{{DTLS}}}fingerprint", {"hash": algorithm, "setup": transport.setup})
        mark.text = value
    for number, candidate in enumerate(transport.candidates):
        attributes = {
            "component": str(candidate.component),
            "foundation": candidate.foundation,
            "generation": "0",
            "id": f"{transport.user}{number}",
            "ip": candidate.address,
            "network": "0",
            "port": str(candidate.port),
            "priority": str(candidate.priority),
            "protocol": candidate.protocol,
            "type": candidate.type,
        }
        if candidate.related_address:
            attributes |= {"rel-addr": candidate.related_address, "rel-port": str(candidate.related_port)}
        SubElement(element, f"{{{ICE}}}candidate", attributes)


def contents_of(root: Element) -> list[Content]:
    """Read the contents of a `<jingle/>`."""
    return [_read_content(element) for element in root.findall(f"{{{JINGLE}}}content")]


def _read_content(element: Element) -> Content:
    description = element.find(f"{{{RTP}}}description")
    transport = element.find(f"{{{ICE}}}transport")
    return Content(
        name=element.get("name", ""),
        creator=element.get("creator", ""),
        senders=element.get("senders", ""),
        media="" if description is None else description.get("media", ""),
        payloads=()
        if description is None
        else tuple(map(_read_payload, description.findall(f"{{{RTP}}}payload-type"))),
        sources=()
        if description is None
        else tuple(int(source.get("ssrc", "0")) for source in description.findall(f"{{{SOURCES}}}source")),
        transport=None if transport is None else _read_transport(transport),
    )


def _read_payload(element: Element) -> Payload:
    return Payload(
        number=int(element.get("id", "0")),
        name=element.get("name", ""),
        clock_rate=int(element.get("clockrate", "8000")),
        channels=int(element.get("channels", "1")),
        parameters={p.get("name", ""): p.get("value", "") for p in element.findall(f"{{{RTP}}}parameter")},
        feedback=tuple((f.get("type", ""), f.get("subtype", "")) for f in element.findall(f"{{{FEEDBACK}}}rtcp-fb")),
    )


def _read_transport(element: Element) -> Transport:
    marks = element.findall(f"{{{DTLS}}}fingerprint")
    return Transport(
        user=element.get("ufrag", ""),
        password=element.get("pwd", ""),
        fingerprints=tuple((mark.get("hash", ""), (mark.text or "").strip()) for mark in marks),
        setup=marks[0].get("setup", "") if marks else "",
        candidates=tuple(
            Candidate(
                foundation=c.get("foundation", ""),
                component=int(c.get("component", "1")),
                protocol=c.get("protocol", "udp"),
                priority=int(c.get("priority", "0")),
                address=c.get("ip", ""),
                port=int(c.get("port", "0")),
                type=c.get("type", "host"),
                related_address=c.get("rel-addr", ""),
                related_port=int(c.get("rel-port", "0")),
            )
            for c in element.findall(f"{{{ICE}}}candidate")
        ),
    )


def bundled_names(root: Element) -> list[str]:
    """Names of the contents that the other side wants on one transport."""
    group = root.find(f"{{{GROUPS}}}group[@semantics='BUNDLE']")
    return [] if group is None else [content.get("name", "") for content in group]


def reason_of(root: Element) -> str:
    """The condition of its `<reason/>`, "" without one."""
    reason = root.find(f"{{{JINGLE}}}reason")
    names = [] if reason is None else [child.tag.partition("}")[2] for child in reason]
    return next((name for name in names if name != "text"), "")


def proposal(kind: str, sid: str, *, media: Iterable[str] = (), reason: str = "") -> Element:
    """The child of a message of XEP-0353: propose, ringing, proceed, accept, reject, retract, finish."""
    root = Element(f"{{{PROPOSALS}}}{kind}", {"id": sid})
    for name in media:
        SubElement(root, f"{{{RTP}}}description", {"media": name})
    if reason:
        _write_reason(root, reason)
    return root
