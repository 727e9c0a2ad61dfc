"""Gateways that take and place Jingle calls, consumers' devices that a play speaks for, and a server between them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, tostring

from isthmus.errors import LinkDownError, RequestTimeoutError
from isthmus.model import Address, Realm
from isthmus.net.xmpp_queries import QueryResponder
from isthmus.ports import Profile, XmppLink
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.jingle.door import JingleDoor
from isthmus.services.calls.jingle.leg import JingleSurroundings
from isthmus.services.calls.jingle.registry import JingleRegistry
from isthmus.services.calls.jingle.wire import JingleWire
from isthmus.services.calls.leg import IncomingCall, Leg, LegEnded, LegEvent
from isthmus.trace import Trace
from tests.support.clock import FakeClock, FakeTimer
from tests.support.xmpp import settle as turns
from tests.support.xmpp import stanza

NS = "{jabber:component:accept}"
JINGLE = "{urn:xmpp:jingle:1}"
JMI = "{urn:xmpp:jingle-message:0}"
ERRORS = "{urn:xmpp:jingle:errors:1}"
STANZA_ERRORS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"

ANA = Address("ana", "corp.test")
BEN = Address("ben", "people.test")
ANA_JID = "ana@corp.test/isthmus"
BEN_PHONE = "ben@people.test/phone"
BEN_LAPTOP = "ben@people.test/laptop"

FINGERPRINT = "AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89"


def transport(
    ufrag: str = "q1Zx", *, setup: str = "actpass", candidates: str = "", fingerprint: str = FINGERPRINT
) -> str:
    """A `<transport/>` of ICE-UDP with DTLS; without `fingerprint` it has none."""
    proof = (
        f"<fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='{setup}'>{fingerprint}</fingerprint>"
        if fingerprint
        else ""
    )
    return (
        f"<transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='{ufrag}' pwd='{ufrag}Yk2mD0sWv4pLr8nTb6cHg'>"
        f"{proof}{candidates}</transport>"
    )


def candidate(port: int = 40_000, *, id: str = "c1") -> str:
    return (
        f"<candidate component='1' foundation='1' generation='0' id='{id}' ip='192.0.2.7' network='0' port='{port}'"
        " priority='2130706431' protocol='udp' type='host'/>"
    )


AUDIO_DESCRIPTION = (
    "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>"
    "<payload-type id='111' name='opus' clockrate='48000' channels='2'/>"
    "<payload-type id='0' name='PCMU' clockrate='8000'/><rtcp-mux/></description>"
)
VIDEO_DESCRIPTION = (
    "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='video'>"
    "<payload-type id='96' name='VP8' clockrate='90000'/><rtcp-mux/></description>"
)


def content(
    name: str = "audio",
    *,
    creator: str = "initiator",
    senders: str = "both",
    description: str = AUDIO_DESCRIPTION,
    transported: str | None = None,
) -> str:
    carried = transport() if transported is None else transported
    return f"<content creator='{creator}' name='{name}' senders='{senders}'>{description}{carried}</content>"


def video(*, creator: str = "initiator", transported: str | None = None) -> str:
    return content("video", creator=creator, description=VIDEO_DESCRIPTION, transported=transported)


def sdp(
    *media: str,
    direction: str = "sendrecv",
    setup: str = "actpass",
    ufrag: str = "G4te",
    rejected: tuple[str, ...] = (),
    fingerprint: str = FINGERPRINT,
) -> SessionDescription:
    """A WebRTC description with these media ("audio", "video"); `rejected` ones have port zero."""
    codecs = {"audio": ("111 0", "a=rtpmap:111 opus/48000/2"), "video": ("96", "a=rtpmap:96 VP8/90000")}
    lines = ["v=0", "o=- 7 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    for name in media or ("audio",):
        if name in rejected:
            lines += [f"m={name} 0 UDP/TLS/RTP/SAVPF {codecs[name][0]}", f"a=mid:{name}"]
            continue
        lines += [f"m={name} 9 UDP/TLS/RTP/SAVPF {codecs[name][0]}", "c=IN IP4 0.0.0.0", f"a=mid:{name}"]
        lines += [f"a={direction}", codecs[name][1], "a=rtcp-mux", f"a=ice-ufrag:{ufrag}"]
        lines += [f"a=ice-pwd:{ufrag}2mD0sWv4pLr8nTb6cHgYk", f"a=setup:{setup}"]
        lines += [f"a=fingerprint:sha-256 {fingerprint}"] if fingerprint else []
    return SessionDescription.parse("\r\n".join(lines) + "\r\n")


def trickled(port: int = 50_000, *, mid: str = "audio", ufrag: str = "G4te") -> SessionDescription:
    """One more candidate, as a fragment."""
    return SessionDescription.parse(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
        f"a=mid:{mid}\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{ufrag}2mD0sWv4pLr8nTb6cHgYk\r\n"
        f"a=candidate:1 1 udp 2130706431 198.51.100.3 {port} typ host\r\n"
    )


class PromptClock(FakeClock):
    """Turns by hand, but what is due at once runs on the next turn of the event loop, as with a real clock."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> FakeTimer:
        if seconds > 0:
            return super().call_later(seconds, callback)
        timer = FakeTimer(callback)
        asyncio.get_running_loop().call_soon(lambda: timer.callback is not None and timer.callback())
        return timer


async def settle() -> None:
    """Let everything arrive that is on its way, and what follows from it."""
    await turns(60)


class MemoryServer:
    """Routes stanzas between gateways and devices in order, as Prosody would; answers for whoever is not there.

    Nothing arrives in the turn in which it was sent, so that stanzas can cross.
    """

    def __init__(self) -> None:
        self.houses: dict[str, House] = {}
        self.devices: dict[str, Device] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def deliver(self, text: str) -> None:
        """Route a message or presence."""
        self._later(self._arrive, stanza(text))

    def ask(self, text: str) -> asyncio.Future[str]:
        """Route an IQ get or set; the answer comes by the same way."""
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._later(self._ask, stanza(text), answered)
        return answered

    def _later(self, work: Callable[..., None], *arguments: object) -> None:
        asyncio.get_running_loop().call_soon(work, *arguments)

    def _arrive(self, element: Element) -> None:
        bare, _, resource = element.get("to", "").partition("/")
        house = self.houses.get(bare.rpartition("@")[2])
        if house is not None:
            house.stanza_received(element)
            return
        for jid, device in self.devices.items():
            if jid == element.get("to") or (not resource and jid.partition("/")[0] == bare):
                device.received.append(element)

    def _ask(self, element: Element, answered: asyncio.Future[str]) -> None:
        recipient = element.get("to", "")
        house = self.houses.get(recipient.partition("/")[0].rpartition("@")[2])
        if house is None:
            device = self.devices.get(recipient)
            if device is None:
                self._answer(answered, error_to(element, "service-unavailable"))
            else:
                self._spawn(device.asked(element), answered)
            return
        answer = house.responder.answer(element)
        assert answer is not None, "an IQ is always answered"
        if isinstance(answer, str):
            self._answer(answered, answer)
        else:
            self._spawn(answer, answered)

    def _spawn(self, answering: Coroutine[Any, Any, str], answered: asyncio.Future[str]) -> None:
        async def answer() -> None:
            try:
                self._answer(answered, await answering)
            except RequestTimeoutError as error:
                answered.set_exception(error)

        task = asyncio.ensure_future(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer(self, answered: asyncio.Future[str], text: str) -> None:
        self._later(lambda: None if answered.done() else answered.set_result(text))


def error_to(iq: Element, condition: str, own: str = "") -> str:
    """The error that answers an IQ."""
    more = f"<{own} xmlns='urn:xmpp:jingle:errors:1'/>" if own else ""
    return (
        f"<iq type='error' id='{iq.get('id')}' from='{iq.get('to')}' to='{iq.get('from')}'><error type='cancel'>"
        f"<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>{more}</error></iq>"
    )


class ServerLink:
    """Implements `ports.XmppLink` on a `MemoryServer`."""

    def __init__(self, server: MemoryServer, domain: str) -> None:
        self.domain = domain
        self.is_connected = True
        self.sent: list[Element] = []
        self._server = server
        self._open: set[asyncio.Future[str]] = set()

    def send(self, text: str) -> None:
        if not self.is_connected:
            raise LinkDownError("down")
        self.sent.append(stanza(text))
        self._server.deliver(text)

    async def barrier(self) -> None:
        raise NotImplementedError("calls need no barrier")

    async def query(self, iq: str, stanza_id: str, timeout_seconds: float = 20.0) -> Element:
        if not self.is_connected:
            raise LinkDownError("down")
        self.sent.append(stanza(iq))
        asking = self._server.ask(iq)
        self._open.add(asking)
        try:
            return stanza(await asking)
        except asyncio.CancelledError:
            raise LinkDownError("lost") from None
        finally:
            self._open.discard(asking)

    def lose(self) -> None:
        """The server goes away."""
        self.is_connected = False
        for asking in self._open:
            asking.cancel()


def _as_link(link: ServerLink) -> XmppLink:
    """Prove to the type checker that the fake keeps the contract."""
    return link


class Everybody:
    """Implements ports.Profiles and the door's Realms: people of the house's own domain are business."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    async def profile(self, user: Address, asked_by: Address) -> Profile | None:
        return Profile(display_name=user.local)

    def realm_of(self, domain: str) -> Realm:
        return Realm.BUSINESS_HOSTED if domain == self._domain else Realm.CONSUMER


class Ear:
    """Takes the events of legs, and holds them against the life of a leg."""

    def __init__(self) -> None:
        self.heard: list[LegEvent] = []
        self.by_leg: dict[str, list[LegEvent]] = {}

    def __call__(self, leg: Leg, event: LegEvent) -> None:
        events = self.by_leg.setdefault(leg.key, [])
        assert not any(isinstance(old, LegEnded) for old in events), f"{event} follows the end"
        events.append(event)
        self.heard.append(event)

    def take(self) -> list[LegEvent]:
        """What was heard since the last time."""
        heard, self.heard = self.heard, []
        return heard

    def kinds(self) -> list[str]:
        """Names of the events since the last time."""
        return [type(event).__name__ for event in self.take()]


class House:
    """One gateway with the XMPP side of calls."""

    def __init__(self, server: MemoryServer, clock: FakeClock, domain: str = "corp.test") -> None:
        self.clock = clock
        self.domain = domain
        self.link = ServerLink(server, domain)
        ids = (f"{domain[0]}{number:04d}-{'0' * 20}" for number in itertools.count(1))
        self.wire = JingleWire({domain: _as_link(self.link)}, new_id=lambda: next(ids))
        self.registry = JingleRegistry(clock)
        self.around = JingleSurroundings(self.wire, self.registry, clock, Trace(clock.wall))
        people = Everybody(domain)
        self.calls: list[IncomingCall] = []
        self.door = JingleDoor(self.around, people, self.calls.append)
        self.responder = QueryResponder(domain, people, clock=clock, version="0", calls=self.door)
        self.ear = Ear()
        server.houses[domain] = self

    def stanza_received(self, element: Element) -> None:
        if element.tag == f"{NS}presence":
            self.door.presence_received(_as_link(self.link), element)
        else:
            self.door.take_message(_as_link(self.link), element)

    def restore(self) -> None:
        """The server is back."""
        self.link.is_connected = True
        self.door.link_up(_as_link(self.link))

    @property
    def call(self) -> IncomingCall:
        """The only call that came in; its leg speaks to our ear."""
        assert len(self.calls) == 1, f"{len(self.calls)} calls came in"
        self.calls[0].leg.attach(self.ear)
        return self.calls[0]


@dataclass(eq=False)
class Device:
    """A consumer's device that a play speaks for; IQs are acknowledged unless the play says otherwise.

    Attributes:
        refuses: action -> (condition, Jingle condition) to answer it with; "ping" and "disco" count as actions.
        silent: actions that are never answered.
        disco: payload that answers disco#info.
    """

    server: MemoryServer
    jid: str = BEN_PHONE
    received: list[Element] = field(default_factory=list)
    refuses: dict[str, tuple[str, str]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    held: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    disco: str = ""
    asks: list[str] = field(default_factory=list)
    _ids: Callable[[], int] = field(default_factory=lambda: itertools.count(1).__next__)

    def __post_init__(self) -> None:
        self.server.devices[self.jid] = self

    # --- what it sends ---

    async def jingle(self, action: str, sid: str = "s-77", inner: str = "", *, to: str = ANA_JID) -> Element:
        """Send an action; return the answer to the IQ."""
        text = (
            f"<iq type='set' id='d{self._ids()}' from='{self.jid}' to='{to}'>"
            f"<jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='{sid}'>{inner}</jingle></iq>"
        )
        answer = stanza(await self.server.ask(text))
        await settle()
        return answer

    async def accepted(self, action: str, sid: str = "s-77", inner: str = "", *, to: str = ANA_JID) -> None:
        """Send an action that must be acknowledged."""
        answer = await self.jingle(action, sid, inner, to=to)
        assert answer.get("type") == "result", tostring(answer, encoding="unicode")

    async def refused(self, action: str, sid: str = "s-77", inner: str = "", *, to: str = ANA_JID) -> str:
        """Send an action that must be refused; return its condition, with Jingle's own after a slash."""
        return refusal(await self.jingle(action, sid, inner, to=to))

    async def say(self, kind: str, sid: str, inner: str = "", *, to: str = ANA_JID, type: str = "chat") -> None:
        """Send a message about a proposal (XEP-0353)."""
        self.server.deliver(
            f"<message type='{type}' from='{self.jid}' to='{to}'>"
            f"<{kind} xmlns='urn:xmpp:jingle-message:0' id='{sid}'>{inner}</{kind}></message>"
        )
        await settle()

    # --- what it gets ---

    async def asked(self, iq: Element) -> str:
        self.received.append(iq)
        kind = action_of(iq) or {"ping": "ping", "query": "disco"}[iq[0].tag.rpartition("}")[2]]
        self.asks.append(kind)
        if kind in self.silent:
            raise RequestTimeoutError("silence")
        if kind in self.held:
            await self.held[kind]
        if kind in self.refuses:
            return error_to(iq, *self.refuses[kind])
        payload = self.disco if kind == "disco" else ""
        return f"<iq type='result' id='{iq.get('id')}' from='{iq.get('to')}' to='{iq.get('from')}'>{payload}</iq>"

    def take(self, what: str) -> Element:
        """Return the oldest action or message of this kind (`session-accept`, `proceed`), and forget it."""
        for element in self.received:
            found = element.find(f"{JINGLE}jingle[@action='{what}']")
            if found is None:
                found = element.find(f"{JMI}{what}")
            if found is not None:
                self.received.remove(element)
                return found
        seen = "\n".join(tostring(element, encoding="unicode")[:300] for element in self.received)
        raise AssertionError(f"{self.jid} got no {what}; it has\n{seen}")

    def has(self, what: str) -> bool:
        """True when one is there."""
        return any(
            element.find(f"{JINGLE}jingle[@action='{what}']") is not None or element.find(f"{JMI}{what}") is not None
            for element in self.received
        )

    @property
    def kinds(self) -> list[str]:
        """What it has, in short."""
        return [action_of(e) or (e[0].tag.rpartition("}")[2] if len(e) else e.tag) for e in self.received]


def action_of(iq: Element) -> str:
    """The Jingle action of an IQ, "" for another one."""
    found = iq.find(f"{JINGLE}jingle")
    return "" if found is None else found.get("action", "")


def refusal(answer: Element) -> str:
    """What an IQ was refused with; "" for a result."""
    if answer.get("type") == "result":
        return ""
    error = answer.find(f"{NS}error")
    assert error is not None
    return "/".join(part.tag.rpartition("}")[2] for part in error)


def reason_of(element: Element) -> str:
    """The reason in an action or a message, "" when there is none."""
    found = element.find(f"{JINGLE}reason")
    return "" if found is None else found[0].tag.rpartition("}")[2]
