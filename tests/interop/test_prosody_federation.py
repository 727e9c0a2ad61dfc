"""People on a foreign XMPP server reach the component through server-to-server connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from xml.etree.ElementTree import Element

import pytest

from isthmus.config import XmppSettings
from isthmus.model import Address
from isthmus.net.system_clock import SystemClock
from isthmus.net.xmpp_component import ComponentLink
from isthmus.net.xmpp_queries import QueryResponder
from isthmus.ports import Profile, XmppLink
from isthmus.trace import Trace
from tests.support.prosody import ProsodyServer, needs_prosody
from tests.support.xmpp_client import XmppClient

pytestmark = [pytest.mark.interop, needs_prosody]


class Everybody:
    """Implements ports.Profiles: everybody may know everybody."""

    async def profile(self, _user: Address, _asked_by: Address) -> Profile | None:
        return Profile(display_name="Ana")


class Inbox:
    """Implements ports.StanzaSink."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Element] = asyncio.Queue()

    def message_received(self, _link: XmppLink, stanza: Element) -> None:
        self.messages.put_nowait(stanza)

    def presence_received(self, link: XmppLink, stanza: Element) -> None: ...

    def link_up(self, link: XmppLink) -> None: ...

    def link_down(self, link: XmppLink) -> None: ...


async def test_a_message_crosses_a_foreign_server_in_both_directions(
    federation: tuple[ProsodyServer, ProsodyServer], sign_in: Callable[..., Awaitable[XmppClient]]
) -> None:
    """Edge case 48: each direction has its own server-to-server connection, so both are tried."""
    home, elsewhere = federation
    clock, inbox = SystemClock(), Inbox()
    link = ComponentLink(
        "corp.test",
        "component-secret",
        XmppSettings(host=home.interface, component_port=home.component_port),
        sink=inbox,
        responder=QueryResponder("corp.test", Everybody(), clock=clock, version="0"),
        trace=Trace(clock.wall),
    )
    link.start()
    try:
        async with asyncio.timeout(15):
            await link.connected()
            eva = await sign_in(elsewhere, "eva")
            eva.send_message("ana@corp.test", "Is anybody there?")
            assert (await inbox.messages.get()).get("from") == "eva@elsewhere.test/phone"
            link.send("<message from='ana@corp.test' to='eva@elsewhere.test' type='chat'><body>Yes</body></message>")
            await link.barrier()
            await eva.message("Yes", sender="ana@corp.test")
            answer = await eva.query("<iq type='get' id='d1' to='ana@corp.test'><vCard xmlns='vcard-temp'/></iq>")
            assert answer.findtext(".//{vcard-temp}FN") == "Ana"
    finally:
        await link.stop()


async def test_ben_reaches_eva(
    federation: tuple[ProsodyServer, ProsodyServer], sign_in: Callable[..., Awaitable[XmppClient]]
) -> None:
    home, elsewhere = federation
    ben, eva = await sign_in(home, "ben"), await sign_in(elsewhere, "eva")
    ben.send_message(eva.jid, "Hello over there")
    await eva.message("Hello over there", sender="ben@people.test")
