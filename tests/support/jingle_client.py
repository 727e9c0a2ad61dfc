"""An XMPP app that makes calls: Jingle and Jingle Message Initiation (XEP-0353) on slixmpp, media by aiortc."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from typing import Any
from xml.etree.ElementTree import Element, tostring

from aiortc import RTCCertificate, RTCIceServer

from tests.support.jingle_call import JingleCall
from tests.support.jingle_contents import Abilities
from tests.support.jingle_xml import ERRORS, FEATURES, JINGLE, PROPOSALS, RTP, VIDEO_FEATURE, proposal
from tests.support.xmpp_client import XmppClient

DISCO = "http://jabber.org/protocol/disco#info"
CAPS = "http://jabber.org/protocol/caps"
NODE = "https://jingle-client.test"


class JingleClient(XmppClient):
    """One device of one account.

    Args:
        hertz: the tone that it says.
        proposes: calls with a proposal (XEP-0353) first, and says in its features that it takes them.
        trickles: sends its candidates after the offer or answer.
        bundles: offers and takes one transport for all contents (XEP-0338).
        audio, video: codecs in its order; without video ones it is a device without camera and screen.
        setup: DTLS role of its answers.
        servers: STUN and TURN servers that it knows.
        is_relayed: gathers nothing but addresses at TURN servers, as behind a strict firewall.
    """

    def __init__(
        self,
        jid: str,
        password: str,
        host: str,
        port: int,
        *,
        hertz: float = 1_000,
        proposes: bool = True,
        trickles: bool = False,
        bundles: bool = True,
        audio: Sequence[str] = ("opus", "PCMU", "PCMA"),
        video: Sequence[str] = (),
        setup: str = "active",
        servers: Sequence[RTCIceServer] = (),
        is_relayed: bool = False,
    ) -> None:
        super().__init__(jid, password, host, port)
        self.proposes = proposes
        self.bundles = bundles
        certificate = RTCCertificate.generateCertificate()
        self.abilities = Abilities(
            hertz, trickles, tuple(audio), tuple(video), setup, tuple(servers), is_relayed, certificate
        )
        self.calls: dict[str, JingleCall] = {}
        self._ringing: asyncio.Queue[JingleCall] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_leaving = False

    @property
    def features(self) -> list[str]:
        """What it answers to disco#info."""
        own = [DISCO, CAPS, *FEATURES]
        return sorted(
            [*own, *([PROPOSALS] if self.proposes else []), *([VIDEO_FEATURE] if self.abilities.video else [])]
        )

    async def start(self, *, is_available: bool = True) -> None:
        """Sign in, and tell what it can in its presence."""
        await super().start(is_available=False)
        if is_available:
            self.send(f"<presence>{self.capabilities()}</presence>")
            await self.presence(None, sender=self.jid)  # from now on it is among the devices that ring

    def capabilities(self) -> str:
        """The `<c/>` of its presence (XEP-0115)."""
        text = "client/phone//Jingle client<" + "".join(f"{feature}<" for feature in self.features)
        version = base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()
        return f"<c xmlns='{CAPS}' hash='sha-1' node='{NODE}' ver='{version}'/>"

    async def stop(self) -> None:
        """Sign out; calls are dropped without a word, as when the battery is empty."""
        self._is_leaving = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await asyncio.gather(*(call.close() for call in self.calls.values()))
        finally:
            await super().stop()

    # --- calls ---

    async def call(self, to: str, *, video: bool = False) -> JingleCall:
        """Call somebody: with a proposal to all devices of a bare JID, or with an offer at once.

        Args:
            to: a full JID takes the offer at once, even from a client that proposes otherwise.
        """
        made = JingleCall(self, str(uuid.uuid4()), to, is_outgoing=True, video=video)
        self.calls[made.sid] = made
        if self.proposes and "/" not in to:
            self.propose(to, "propose", made.sid, media=["audio", *(["video"] if video else [])])
        else:
            await made.initiate()
        return made

    async def incoming(self, seconds: float = 15.0) -> JingleCall:
        """Return the next call that comes in, proposed or offered. Ringing and taking it is up to the play."""
        async with asyncio.timeout(seconds):
            return await self._ringing.get()

    async def device_of(self, address: str) -> str:
        """The full JID in the next presence of a contact that is available."""
        presence = await self.presence(None, sender=address)
        return presence.get("from", "")

    # --- stanzas ---

    def propose(self, to: str, kind: str, sid: str, *, media: Iterable[str] = (), reason: str = "") -> None:
        """Send a message of XEP-0353."""
        child = tostring(proposal(kind, sid, media=media, reason=reason), encoding="unicode")
        store = "<store xmlns='urn:xmpp:hints'/>"
        self.send(f"<message to='{to}' type='chat' id='{uuid.uuid4()}'>{child}{store}</message>")

    async def request(self, to: str, element: Element) -> Element:
        """Send an IQ of type set and return its result.

        Raises:
            AssertionError: it was answered with an error, or not at all.
        """
        answer = await self.query(
            f"<iq type='set' to='{to}' id='{uuid.uuid4()}'>{tostring(element, encoding='unicode')}</iq>"
        )
        assert answer.get("type") == "result", tostring(answer, encoding="unicode")
        return answer

    def _note(self, stanza: Any) -> None:
        """Take what belongs to calls, and leave everything else to the play."""
        element: Element = stanza.xml
        kind = element.tag.partition("}")[2]
        if self._is_leaving:
            super()._note(stanza)
        elif kind == "iq" and element.get("type") == "get" and element.find(f"{{{DISCO}}}query") is not None:
            self._tell_features(element)
        elif kind == "iq" and element.get("type") == "set" and element.find(f"{{{JINGLE}}}jingle") is not None:
            self._on_jingle(element)
        elif kind == "message" and (found := _proposal_in(element)) is not None:
            self._on_proposal(element, found)
        else:
            super()._note(stanza)

    def _tell_features(self, iq: Element) -> None:
        query = iq.find(f"{{{DISCO}}}query")
        node = "" if query is None else query.get("node", "")
        marked = f" node='{node}'" if node else ""
        features = "".join(f"<feature var='{feature}'/>" for feature in self.features)
        identity = "<identity category='client' type='phone' name='Jingle client'/>"
        self._answer(iq, f"<query xmlns='{DISCO}'{marked}>{identity}{features}</query>")

    def _answer(self, iq: Element, inner: str = "", kind: str = "result") -> None:
        to = f" to='{iq.get('from')}'" if iq.get("from") else ""
        self.send(f"<iq type='{kind}'{to} id='{iq.get('id')}'>{inner}</iq>")

    def _refuse(self, iq: Element, condition: str, kind: str, special: str = "") -> None:
        inner = f"<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        inner += f"<{special} xmlns='{ERRORS}'/>" if special else ""
        self._answer(iq, f"<error type='{kind}'>{inner}</error>", "error")

    def _on_jingle(self, iq: Element) -> None:
        root = iq.find(f"{{{JINGLE}}}jingle")
        assert root is not None, "looked at before"
        sender, sid, action = iq.get("from", ""), root.get("sid", ""), root.get("action", "")
        call = self.calls.get(sid)
        if action == "session-initiate" and (call is None or call.awaits_offer):
            self._answer(iq)
            if call is None:
                call = self.calls[sid] = JingleCall(self, sid, sender, is_outgoing=False)
                self._ringing.put_nowait(call)
        elif call is None or call.has_ended:
            self._refuse(iq, "item-not-found", "cancel", "unknown-session")
            return
        elif action == "session-initiate":
            self._refuse(iq, "unexpected-request", "wait", "out-of-order")
            return
        else:
            self._answer(iq)
        call.feed(sender, root)

    def _on_proposal(self, message: Element, found: Element) -> None:
        kind, sid, sender = found.tag.partition("}")[2], found.get("id", ""), message.get("from", "")
        call = self.calls.get(sid)
        if kind == "propose" and call is None and sender.partition("/")[0] != self.bare:
            call = self.calls[sid] = JingleCall(self, sid, sender, is_outgoing=False, is_proposed=True)
            call.media = [d.get("media", "") for d in found.findall(f"{{{RTP}}}description")]
            self._ringing.put_nowait(call)
        elif call is not None:
            call.on_proposal(sender, kind, found)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something of a call in the background until the client stops."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _proposal_in(message: Element) -> Element | None:
    """What XEP-0353 put into a message, also into one that is a copy of another device's (XEP-0280)."""
    return next((child for child in message.iter() if child.tag.startswith(f"{{{PROPOSALS}}}")), None)


@contextlib.asynccontextmanager
async def signed_in(*clients: JingleClient) -> AsyncIterator[None]:
    """Start clients and stop them at the end."""
    try:
        for client in clients:
            await client.start()
        yield
    finally:
        await asyncio.gather(*(client.stop() for client in clients))
