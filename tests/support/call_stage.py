"""The people of plays with calls: phones, apps and web pages that enter a running Isthmus and leave with the play."""

from __future__ import annotations

from typing import Any

from isthmus.net.rtpengine_ng import NgAddress
from tests.support.baresip_calls import CallPhone
from tests.support.chromium import Chromium, WebPhone
from tests.support.isthmus_process import PASSWORD
from tests.support.jingle_call import JingleCall
from tests.support.jingle_client import JingleClient
from tests.support.processes import free_port, wait_until
from tests.support.rtpengine import relayed_calls
from tests.support.stage import Stage


class CallStage(Stage):
    """A stage whose people can call."""

    async def call_phone(self, address: str, *contacts: str, **options: Any) -> CallPhone:
        """A baresip that is registered; options as of `CallPhone`."""
        name = f"{address.partition('@')[0]}-{free_port()}"
        proxy = f"127.0.0.1:{self.isthmus.sip_port}"
        phone = CallPhone(
            self.isthmus.folder / name, address, PASSWORD, proxy, contacts=contacts, publish_seconds=60, **options
        )
        self.leave_at_the_end(phone)
        await phone.start()
        return phone

    async def call_app(self, address: str, resource: str = "app", **options: Any) -> JingleClient:
        """An XMPP app that is signed in; options as of `JingleClient`."""
        isthmus = self.isthmus
        app = JingleClient(f"{address}/{resource}", PASSWORD, isthmus.xmpp_interface, isthmus.c2s_port, **options)
        self.leave_at_the_end(app)
        await app.start()
        return app

    async def softphone(self, browser: Chromium, address: str, **options: Any) -> WebPhone:
        """A page with JsSIP that is registered; options as of its `register`."""
        page = await browser.business()
        self.leave_at_the_end(page)
        await page.register(url=f"ws://127.0.0.1:{self.isthmus.ws_port}", address=address, password=PASSWORD, **options)
        return page

    async def web_app(self, browser: Chromium, address: str, resource: str = "web") -> WebPhone:
        """A page with stanza that is signed in."""
        page = await browser.consumer()
        self.leave_at_the_end(page)
        url = f"ws://{self.isthmus.xmpp_interface}:{self.isthmus.http_port}/xmpp-websocket"
        await page.register(url=url, address=address, password=PASSWORD, resource=resource)
        return page

    # --- calls as far as both talk ---

    async def phone_calls_app(self, phone: CallPhone, app: JingleClient, **media: bool) -> JingleCall:
        """The phone dials the app's account, it rings, is taken, and stands."""
        await phone.dial(app.bare)
        call = await app.incoming()
        await call.ring()
        await phone.hears_ringing()
        await call.accept(**media)
        await phone.is_in_call()
        return call

    async def app_calls_phone(
        self, app: JingleClient, phone: CallPhone, *, to: str = "", video: bool = False
    ) -> JingleCall:
        """The app calls the phone's owner (or `to`, one of the owner's JIDs), it rings, is taken, and stands."""
        call = await app.call(to or phone.address, video=video)
        await phone.rings()
        await call.is_ringing()
        await phone.answer()
        await call.is_accepted()
        await phone.is_in_call()
        return call

    async def last_record(self) -> dict[str, Any]:
        """The latest call record, once no call is live."""

        async def look() -> dict[str, Any] | None:
            if await self.isthmus.operation("call.live"):
                return None
            found: list[dict[str, Any]] = await self.isthmus.operation("call.list")
            return found[0] if found else None

        record: dict[str, Any] = await wait_until(look, "the record of the call")
        return record

    async def calls_in_relay(self) -> list[str]:
        """The calls whose media the relay carries now."""
        return await relayed_calls(NgAddress("127.0.0.1", self.isthmus.relay_port))

    async def record(self, caller: str, *, after: float = 0.0) -> dict[str, Any]:
        """Wait for the record of the latest call of this caller, begun after a time (Unix seconds), and return it."""

        async def look() -> dict[str, Any] | None:
            records = await self.isthmus.operation("call.list", person=caller, limit=1)
            is_it = records and records[0]["caller"] == caller and records[0]["started_at"] > after
            return dict(records[0]) if is_it else None

        found: dict[str, Any] = await wait_until(look, f"the record of a call of {caller}")
        return found

    async def make_contacts(self, employee: str, consumer: str) -> None:
        """Let two people see each other, as they would have agreed to long ago."""
        phone, app = await self.phone(employee, consumer), await self.app(consumer, resource="long-ago")
        await app.presence("subscribe", sender=employee)
        app.send(f"<presence type='subscribed' to='{employee}'/>")
        app.send(f"<presence type='subscribe' to='{employee}'/>")
        await app.presence("subscribed", sender=employee)
        for client in (app, phone):
            await client.stop()
            self._leaving.remove(client)
