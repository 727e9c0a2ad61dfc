"""An XMPP client (slixmpp) whose stanzas can be awaited: what a person's app receives, as a play would tell it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, cast
from xml.etree.ElementTree import Element, fromstring, tostring

from slixmpp import ClientXMPP
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

NAMESPACE = "jabber:client"
SECONDS = 10.0


class XmppClient:
    """One resource of one account.

    `received` keeps every stanza that came and that no `expect` has taken yet. Nothing is answered by itself: a
    subscription waits until the play answers it.

    Args:
        jid: with the resource, `ben@people.test/phone`.
        password: of the account.
        host, port: the server's c2s port.
    """

    def __init__(self, jid: str, password: str, host: str, port: int) -> None:
        self.jid = jid
        self.received: list[Element] = []
        self._host = host
        self._port = port
        self._arrived = asyncio.Event()
        self._client = ClientXMPP(jid, password, plugin_config={"feature_mechanisms": {"unencrypted_scram": True}})
        self._client.enable_plaintext = True
        self._client.enable_starttls = False
        self._client.enable_direct_tls = False
        self._client.auto_authorize = None
        self._client.auto_subscribe = False
        self._client.whitespace_keepalive = False
        for event in ("presence_subscribe", "presence_subscribed", "presence_unsubscribe", "presence_unsubscribed"):
            for handler, _ in tuple(self._client._XMLStream__event_handlers.get(event, ())):  # type: ignore[attr-defined]  # slixmpp has no public way
                self._client.del_event_handler(event, handler)
        for name in ("message", "presence", "iq"):
            matcher = MatchXPath(f"{{{NAMESPACE}}}{name}")
            self._client.register_handler(Callback(f"play {name}", matcher, self._note))

    @property
    def bare(self) -> str:
        return self.jid.partition("/")[0]

    async def start(self, *, is_available: bool = True) -> None:
        """Sign in; fetches the roster and sends initial presence like any app."""
        outcome: asyncio.Queue[bool] = asyncio.Queue()
        self._client.add_event_handler("session_start", lambda _: outcome.put_nowait(True))
        self._client.add_event_handler("failed_all_auth", lambda _: outcome.put_nowait(False))
        self._client.connect(self._host, self._port)
        async with asyncio.timeout(SECONDS):
            assert await outcome.get(), f"{self.jid} cannot sign in"
            await self.query(f"<iq type='get' id='roster-{id(self)}'><query xmlns='jabber:iq:roster'/></iq>")
        if is_available:
            self.send("<presence/>")

    async def stop(self) -> None:
        """Sign out and close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                await self._client.disconnect(2.0)
        self._client.abort()
        self._client.cancel_connection_attempt()
        task = self._client._run_out_filters
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def send(self, stanza: str) -> None:
        """Write one serialised stanza."""
        self._client.send_raw(stanza)

    def send_message(self, to: str, body: str, *, stanza_id: str = "", type: str = "chat", extra: str = "") -> None:
        """Write a message; `extra` is further markup inside it."""
        marked = f" id='{stanza_id}'" if stanza_id else ""
        self.send(f"<message to='{to}' type='{type}'{marked}><body>{body}</body>{extra}</message>")

    async def query(self, iq: str) -> Element:
        """Send an IQ and return its result or error."""
        stanza_id = fromstring(iq).get("id")
        self.send(iq)
        return await self.expect(
            lambda s: (
                s.tag == f"{{{NAMESPACE}}}iq" and s.get("id") == stanza_id and s.get("type") in ("result", "error")
            ),
            f"an answer to {stanza_id}",
        )

    async def expect(self, matches: Callable[[Element], bool], what: str, seconds: float = SECONDS) -> Element:
        """Return and take the first stanza that matches, now or when it comes."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for stanza in self.received:
                        if matches(stanza):
                            self.received.remove(stanza)
                            return stanza
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            seen = "\n".join(tostring(stanza, encoding="unicode") for stanza in self.received)
            raise AssertionError(f"{self.jid} waited {seconds:g} s for {what}; it has\n{seen}") from None

    async def message(
        self, body: str | None = None, *, sender: str = "", type: str = "", seconds: float = SECONDS
    ) -> Element:
        """Return and take the next message, with this body and from this bare or full JID if given."""

        def matches(stanza: Element) -> bool:
            return (
                stanza.tag == f"{{{NAMESPACE}}}message"
                and (body is None or stanza.findtext(f"{{{NAMESPACE}}}body") == body)
                and _is_from(stanza, sender)
                and (not type or stanza.get("type") == type)
            )

        return await self.expect(matches, f"the message {body!r} from {sender or 'anybody'}", seconds)

    async def presence(
        self, type: str | None = None, *, sender: str = "", show: str | None = None, seconds: float = SECONDS
    ) -> Element:
        """Return and take the next presence; `type` None is "available", `show` "" means none."""

        def matches(stanza: Element) -> bool:
            return (
                stanza.tag == f"{{{NAMESPACE}}}presence"
                and stanza.get("type") == type
                and _is_from(stanza, sender)
                and (show is None or stanza.findtext(f"{{{NAMESPACE}}}show", "") == show)
            )

        return await self.expect(matches, f"presence {type or 'available'} from {sender or 'anybody'}", seconds)

    async def marked(self, mark: str, identifier: str) -> Element:
        """Return and take the stanza with this child (`{namespace}name`) about the message `identifier`."""
        return await self.expect(lambda s: s.find(f"{mark}[@id='{identifier}']") is not None, f"{mark} of {identifier}")

    def _note(self, stanza: Any) -> None:
        self.received.append(cast(Element, stanza.xml))
        self._arrived.set()


def _is_from(stanza: Element, sender: str) -> bool:
    got = stanza.get("from", "")
    return not sender or got == sender or got.partition("/")[0] == sender
