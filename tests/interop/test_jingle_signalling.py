"""Calls over XMPP through a real Prosody, without media: where stanzas go, come back, and who notices what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from isthmus.config import XmppSettings
from isthmus.model import Address, EndCause, Ending
from isthmus.net.system_clock import SystemClock
from isthmus.net.xmpp_component import ComponentLink
from isthmus.net.xmpp_queries import QueryResponder
from isthmus.ports import XmppLink
from isthmus.services.calls.jingle.door import JingleDoor
from isthmus.services.calls.jingle.leg import JingleLeg, JingleSurroundings
from isthmus.services.calls.jingle.proposal_leg import JingleProposalLeg
from isthmus.services.calls.jingle.registry import JingleRegistry
from isthmus.services.calls.jingle.wire import JingleWire
from isthmus.services.calls.leg import IncomingCall, Leg, LegAccepted, LegConfirmed, LegEnded, LegEvent, LegRinging
from isthmus.trace import Trace
from tests.support.jingle_house import ANA, ANA_JID, BEN, Everybody, content, sdp, transport
from tests.support.prosody import ProsodyServer, needs_prosody
from tests.support.xmpp_client import XmppClient

pytestmark = [pytest.mark.interop, needs_prosody]

JINGLE = "{urn:xmpp:jingle:1}jingle"
JMI = "{urn:xmpp:jingle-message:0}"
ANSWER = content(transported=transport("an5w", setup="active"))


class Gateway:
    """The XMPP side of calls behind a real link; implements ports.StanzaSink as the composition root does."""

    def __init__(self, port: int) -> None:
        self.clock = SystemClock()
        links: dict[str, XmppLink] = {}
        self.around = JingleSurroundings(
            JingleWire(links), JingleRegistry(self.clock), self.clock, Trace(self.clock.wall)
        )
        self.calls: asyncio.Queue[IncomingCall] = asyncio.Queue()
        self.events: asyncio.Queue[LegEvent] = asyncio.Queue()
        self.up = asyncio.Event()
        people = Everybody("corp.test")
        self.door = JingleDoor(self.around, people, self.calls.put_nowait)
        self.link = ComponentLink(
            "corp.test",
            "component-secret",
            XmppSettings(component_port=port, reconnect_maximum_seconds=0.4),
            sink=self,
            responder=QueryResponder("corp.test", people, clock=self.clock, version="0", calls=self.door),
            trace=self.around.trace,
        )
        links["corp.test"] = self.link

    def message_received(self, link: XmppLink, stanza: Element) -> None:
        assert self.door.take_message(link, stanza)

    def presence_received(self, link: XmppLink, stanza: Element) -> None:
        self.door.presence_received(link, stanza)

    def link_up(self, link: XmppLink) -> None:
        self.up.set()
        self.door.link_up(link)

    def link_down(self, _link: XmppLink) -> None:
        self.up.clear()

    def listen(self, leg: Leg) -> None:
        leg.attach(lambda _, event: self.events.put_nowait(event))

    async def event(self) -> LegEvent:
        async with asyncio.timeout(30):
            return await self.events.get()

    async def call(self) -> JingleLeg:
        """The call that comes in."""
        async with asyncio.timeout(10):
            incoming = await self.calls.get()
        assert isinstance(incoming.leg, JingleLeg)
        self.listen(incoming.leg)
        return incoming.leg

    def propose(self, party: Address = BEN) -> JingleProposalLeg:
        leg = JingleProposalLeg(self.around, ours=ANA, our_jid=ANA_JID, party=party)
        self.listen(leg)
        leg.invite(sdp())
        return leg


class Phone(XmppClient):
    """Ben's client; the play speaks Jingle for it."""

    async def action(self, name: str) -> Element:
        """Return the next action of this name, acknowledged."""
        iq = await self.expect(lambda s: s.find(f"{JINGLE}[@action='{name}']") is not None, name)
        self.send(f"<iq type='result' id='{iq.get('id')}' to='{iq.get('from')}'/>")
        return iq[0]

    async def told(self, kind: str) -> Element:
        """Return the next message about a proposal."""
        message = await self.expect(lambda s: s.find(f"{JMI}{kind}") is not None, kind)
        assert message.get("from") == ANA_JID
        return message[0]

    async def act(self, name: str, sid: str, inner: str = "") -> str:
        """Send an action; return the type of its answer."""
        jingle = f"<jingle xmlns='urn:xmpp:jingle:1' action='{name}' sid='{sid}'>{inner}</jingle>"
        answer = await self.query(f"<iq type='set' id='{name}-{sid}' to='{ANA_JID}'>{jingle}</iq>")
        return answer.get("type", "")

    def say(self, kind: str, sid: str, to: str = ANA_JID) -> None:
        """Send a message about a proposal."""
        self.send(f"<message type='chat' to='{to}'><{kind} xmlns='urn:xmpp:jingle-message:0' id='{sid}'/></message>")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ProsodyServer]:
    server = ProsodyServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def gateway(server: ProsodyServer) -> AsyncIterator[Gateway]:
    gateway = Gateway(server.component_port)
    gateway.link.start()
    async with asyncio.timeout(10):
        await gateway.link.connected()
    yield gateway
    await gateway.link.stop()


@pytest.fixture
async def phone(server: ProsodyServer) -> AsyncIterator[Phone]:
    phone = Phone("ben@people.test/phone", "pw", "127.0.0.1", server.c2s_port)
    await phone.start()
    await phone.presence(sender=phone.jid)
    yield phone
    await phone.stop()


@pytest.fixture
async def laptop(server: ProsodyServer) -> AsyncIterator[Phone]:
    laptop = Phone("ben@people.test/laptop", "pw", "127.0.0.1", server.c2s_port)
    await laptop.start()
    await laptop.presence(sender=laptop.jid)  # the server knows that it is there
    yield laptop
    await laptop.stop()


async def test_ben_calls_ana_who_answers_and_he_hangs_up(gateway: Gateway, phone: Phone) -> None:
    assert await phone.act("session-initiate", "s1", content()) == "result"
    leg = await gateway.call()
    leg.ring()
    info = await phone.action("session-info")
    assert info.find("{urn:xmpp:jingle:apps:rtp:info:1}ringing") is not None
    leg.accept(sdp(setup="active"))
    await phone.action("session-accept")
    assert await gateway.event() == LegConfirmed()
    assert await phone.act("session-terminate", "s1", "<reason><success/></reason>") == "result"
    ended = await gateway.event()
    assert isinstance(ended, LegEnded)
    assert ended.ending.cause is EndCause.HUNG_UP
    assert await phone.act("session-info", "s1") == "error"


async def test_ana_rings_both_of_bens_devices_and_one_takes_the_call(
    gateway: Gateway, phone: Phone, laptop: Phone
) -> None:
    leg = gateway.propose()
    for device in (phone, laptop):
        assert (await device.told("propose")).get("id") == leg.sid
    laptop.say("ringing", leg.sid)
    assert await gateway.event() == LegRinging()
    phone.say("proceed", leg.sid)
    assert (await phone.action("session-initiate")).get("sid") == leg.sid
    assert await phone.act("session-accept", leg.sid, ANSWER) == "result"
    accepted = await gateway.event()
    assert isinstance(accepted, LegAccepted)
    assert accepted.device == "phone"
    leg.hang_up(Ending(EndCause.HUNG_UP))
    await phone.action("session-terminate")
    assert (await phone.told("finish")).get("id") == leg.sid


async def test_a_person_who_does_not_exist_is_unreachable(gateway: Gateway) -> None:
    """The server sends the proposal back: nobody waits for a minute."""
    gateway.propose(Address("nobody", "people.test"))
    ended = await gateway.event()
    assert isinstance(ended, LegEnded)
    assert ended.ending.cause is EndCause.UNREACHABLE


async def test_a_client_that_signs_out_in_a_call_is_noticed(gateway: Gateway, phone: Phone) -> None:
    phone.send("<presence to='ana@corp.test'/>")
    assert await phone.act("session-initiate", "s1", content()) == "result"
    leg = await gateway.call()
    leg.accept(sdp(setup="active"))
    await phone.action("session-accept")
    assert await gateway.event() == LegConfirmed()
    await phone.stop()
    ended = await gateway.event()
    assert isinstance(ended, LegEnded)
    assert ended.ending.cause is EndCause.CONNECTIVITY


async def test_a_call_outlives_a_restart_of_the_server_only_as_long_as_its_client(
    server: ProsodyServer, gateway: Gateway, phone: Phone
) -> None:
    """Edge case 49."""
    assert await phone.act("session-initiate", "s1", content()) == "result"
    leg = await gateway.call()
    leg.accept(sdp(setup="active"))
    await phone.action("session-accept")
    assert await gateway.event() == LegConfirmed()
    await server.stop()
    gateway.up.clear()
    assert gateway.events.empty()
    await server.start()
    async with asyncio.timeout(20):
        await gateway.up.wait()
    # The client has not signed in again. One ping has not told that it answers pings, so the error says nothing yet.
    leg._watch._is_answered = True
    leg.verify()
    ended = await gateway.event()
    assert isinstance(ended, LegEnded)
    assert ended.ending.cause is EndCause.CONNECTIVITY
