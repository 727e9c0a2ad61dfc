"""Contacts and presence under random sequences of everything that can happen to them.

Phones, XMPP servers, a PBX, an administrator, a full disk, a lost link and a crash act in any order, often before the
service has finished with what came before. What must hold all the time is checked where messages leave the house
(`Watchful...`); what must hold once it is quiet is checked by `calm`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from structlog.testing import capture_logs

from isthmus.errors import PeerError, RequestTimeoutError, StoreError, TransportError
from isthmus.interworking.addresses import address_from_jid, address_from_sip_uri, address_from_uri_text
from isthmus.model import Address, Authorisation, AuthorisationState
from isthmus.policy.settings import PresenceView
from isthmus.ports import NextHop, PolicySetting, SubscriptionRecord
from isthmus.services.authentication import Identity
from isthmus.services.presence_package import PRESENCE
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.uri import SipUri
from tests.support.clock import FakeClock
from tests.support.memory_store import MemoryStore
from tests.support.presence_house import ANA, BEN, BOB, CARL, PresenceHouse, pidf
from tests.support.sip import MemoryIncomingRequest, MemorySipEndpoint, SentRequest, sip_request
from tests.support.xmpp import MemoryXmppLink, stanza

EVE = Address("eve", "people.test")
CONTACTS = Address("contacts", "corp.test")
LIST = (("Supported", "eventlist"),)
EVERYBODY = (ANA, CARL, BOB, BEN, EVE)
POLICIES = (PolicySetting("global", "presence", "off"), PolicySetting("user:ana@corp.test", "presence", "off"))
# Most happens between the same two, or sequences would be too short to meet themselves again.
SOMEBODY_HOSTED = st.sampled_from((ANA, ANA, ANA, CARL))
SOMEBODY_ON_XMPP = st.sampled_from((BEN, BEN, BEN, EVE))
RARELY = st.sampled_from((False, False, False, True))
_STAMPS = re.compile(rb"<(dm:)?timestamp>[^<]*</(dm:)?timestamp>|from='[^']*'")


class SlowStore(MemoryStore):
    """A store whose promises take a turn of the loop, as a disk's do."""

    async def save_authorisation(self, authorisation: Authorisation) -> None:
        await asyncio.sleep(0)
        await super().save_authorisation(authorisation)

    async def delete_authorisation(self, watcher: Address, presentity: Address) -> None:
        await asyncio.sleep(0)
        await super().delete_authorisation(watcher, presentity)


class WatchfulEndpoint(MemorySipEndpoint):
    """Checks every request on its way out; answers nothing by itself."""

    def __init__(self, check: Callable[[SentRequest], None]) -> None:
        super().__init__()
        self.is_holding = True
        self._check = check

    def request_nowait(
        self, request: SipRequest, next_hop: NextHop | None, done: Callable[[SipResponse | TransportError], None]
    ) -> None:
        super().request_nowait(request, next_hop, done)
        self._check(self.sent[-1])


class WatchfulLink(MemoryXmppLink):
    """Checks every stanza on its way out."""

    def __init__(self, domain: str, check: Callable[[str], None]) -> None:
        super().__init__(domain)
        self._check = check

    def send(self, stanza: str) -> None:
        super().send(stanza)
        self._check(stanza)


class ContactsMachine(RuleBasedStateMachine):
    """See the module's text."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.trouble: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.trouble.append(str(context)))
        self._capture = capture_logs()
        self.logs = self._capture.__enter__()
        self.clock = FakeClock()
        self.store = SlowStore(self.clock.wall, self.clock.monotonic)
        self.granted: set[tuple[Address, Address]] = set()
        self.cseqs: dict[tuple[str, str], int] = {}
        self.last: dict[tuple[str, str], SentRequest] = {}
        self.dialogs: list[tuple[MemoryIncomingRequest, int]] = []
        self.written: list[SubscriptionRecord] = []
        self.pbx_cseq = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(are_friends=st.booleans())
    def begin(self, are_friends: bool) -> None:
        self._build()
        if are_friends:
            self.consumer_becomes_a_friend(ANA, BEN)
            self.employee_becomes_a_friend(ANA, BEN)

    def _build(self) -> None:
        async def opened() -> None:
            links = (WatchfulLink("corp.test", self.check_stanza), WatchfulLink("pbx.test", self.check_stanza))
            self.house = PresenceHouse(self.store, self.clock, WatchfulEndpoint(self.check_request), links)
            await self.house.open()

        self.run(opened())

    def teardown(self) -> None:
        try:
            if hasattr(self, "house"):
                self.calm()
        finally:
            self._capture.__exit__(None, None, None)
            self.loop.close()

    # --- checks at the door ---

    def may_show(self, watcher: Address, presentity: Address) -> bool:
        if watcher == presentity:
            return True
        if self.house.contacts.state(watcher, presentity) is not AuthorisationState.ACTIVE:
            return False
        return self.house.policing.view(presentity, watcher) is not PresenceView.NOTHING

    def check_request(self, sent: SentRequest) -> None:
        request = sent.request
        if request.method != "NOTIFY":
            return
        key = (request.call_id, request.from_address.tag)
        before = self.last.get(key)
        if before is not None:
            if not before.outcome.done():
                self.trouble.append(f"two NOTIFY in flight: {request}")
            if "terminated" in (before.request.headers.get("Subscription-State") or ""):
                self.trouble.append(f"NOTIFY after the last one: {request}")
        if request.cseq.number <= self.cseqs.get(key, 0):
            self.trouble.append(f"CSeq does not rise: {request}")
        self.cseqs[key], self.last[key] = request.cseq.number, sent
        if request.event == PRESENCE:
            uri = request.to_address.uri
            assert isinstance(uri, SipUri)
            watcher = address_from_sip_uri(uri)[0]
            for entity in re.findall(rb"entity='([^']+)'", request.body):
                shown = address_from_uri_text(entity.decode())[0]
                if not self.may_show(watcher, shown):
                    self.trouble.append(f"{watcher} was shown {shown}")

    def check_stanza(self, text: str) -> None:
        element = stanza(text)
        pair = (address_from_jid(element.get("to", ""))[0], address_from_jid(element.get("from", ""))[0])
        kind = element.get("type", "")
        if kind == "subscribed":
            self.granted.add(pair)
        elif kind == "unsubscribed":
            self.granted.discard(pair)
        elif kind == "":
            if not self.may_show(*pair):
                self.trouble.append(f"{pair[0]} was shown {pair[1]}")
            if pair not in self.granted:
                self.trouble.append(f"{pair[0]} was shown {pair[1]} before the grant")

    def check_trouble(self) -> None:
        errors = [entry for entry in self.logs if entry["log_level"] in ("error", "critical")]
        assert not errors, errors
        assert not self.trouble, self.trouble

    def finish(self, *, is_settled: bool) -> None:
        if is_settled:
            self.run(self.house.settle())
        self.check_trouble()

    # --- what happens, in one go ---

    @rule(user=SOMEBODY_HOSTED, peer=SOMEBODY_ON_XMPP)
    def consumer_becomes_a_friend(self, user: Address, peer: Address) -> None:
        self.stanza_arrives("subscribe", peer, user, "", is_settled=True)
        self.employee_decides("accept", user, peer, is_settled=True)

    @rule(user=SOMEBODY_HOSTED, peer=SOMEBODY_ON_XMPP)
    def employee_becomes_a_friend(self, user: Address, peer: Address) -> None:
        self.phone_subscribes(user, peer)
        self.stanza_arrives("subscribed", peer, user, "", is_settled=False)
        self.stanza_arrives("", peer, user, "/phone", is_settled=True)

    # --- what happens, one by one ---

    @rule(
        kind=st.sampled_from(["subscribe", "unsubscribe", "subscribed", "unsubscribed", "probe", "", "unavailable"]),
        sender=SOMEBODY_ON_XMPP,
        recipient=st.sampled_from((ANA, ANA, ANA, BOB, CARL)),
        resource=st.sampled_from(["", "/phone", "/laptop"]),
        is_settled=st.booleans(),
    )
    def stanza_arrives(self, kind: str, sender: Address, recipient: Address, resource: str, is_settled: bool) -> None:
        link = self.house.pbx_link if recipient == BOB else self.house.link
        if not link.is_connected:
            return
        typed = f" type='{kind}'" if kind else ""
        text = f"<presence{typed} from='{sender}{resource}' to='{recipient}'/>"

        async def arrives() -> None:
            link.receive(text)

        self.run(arrives())
        self.finish(is_settled=is_settled)

    @rule(watcher=SOMEBODY_HOSTED, resource=st.sampled_from((BEN, BEN, BEN, *EVERYBODY, CONTACTS)))
    def phone_subscribes(self, watcher: Address, resource: Address) -> None:
        headers = LIST if resource == CONTACTS else ()
        incoming = self.run(self.house.subscribe(watcher, resource, headers=headers))
        assert incoming.status in (200, 403), incoming.status
        if incoming.status == 200:
            self.dialogs.append((incoming, 1))
        self.finish(is_settled=True)

    @precondition(lambda self: self.dialogs)
    @rule(data=st.data(), expires=st.sampled_from([0, 600, 3600]))
    def phone_refreshes(self, data: st.DataObject, expires: int) -> None:
        index = data.draw(st.integers(0, len(self.dialogs) - 1))
        first, cseq = self.dialogs[index]
        self.dialogs[index] = (first, cseq + 1)
        incoming = self.run(self.house.resubscribe(first, expires=expires, cseq=cseq + 1))
        assert incoming.status in (200, 481), incoming.status
        self.finish(is_settled=True)

    @rule(user=SOMEBODY_HOSTED, basic=st.sampled_from(["open", "closed"]))
    def phone_publishes(self, user: Address, basic: str) -> None:
        self.run(self.house.publish(user, pidf(user, basic)))
        self.finish(is_settled=True)

    @rule(status=st.sampled_from([200, 200, 200, 481, 500, 503, 0]), is_settled=st.booleans())
    def notify_is_answered(self, status: int, is_settled: bool) -> None:
        waiting = [sent for sent in self.last.values() if not sent.outcome.done()]
        if waiting:
            waiting[0].answer(self._answer(status))
        self.finish(is_settled=is_settled)

    @staticmethod
    def _answer(status: int) -> int | tuple[int, list[tuple[str, str]]] | Exception:
        if status == 0:
            return RequestTimeoutError("no answer")
        return (503, [("Retry-After", "20")]) if status == 503 else status

    @rule(
        state=st.sampled_from(["active;expires=3600", "pending", "terminated;reason=rejected", "terminated"]),
        status=st.sampled_from([200, 200, 404, 403, 0]),
        basic=st.sampled_from(["open", "closed"]),
    )
    def pbx_answers(self, state: str, status: int, basic: str) -> None:
        asked = [sent for sent in self.house.endpoint.sent if sent.request.method == "SUBSCRIBE"]
        waiting = [sent for sent in asked if not sent.outcome.done()]
        if not waiting:
            return
        sent = waiting[0]
        contact = [("Contact", "<sip:192.0.2.50>"), ("Expires", "3600")]
        sent.answer((200, contact) if status == 200 else self._answer(status))
        self.finish(is_settled=True)
        if status == 200:
            self.run(self._pbx_notifies(sent, state, basic))
        self.finish(is_settled=True)

    async def _pbx_notifies(self, sent: SentRequest, state: str, basic: str) -> None:
        self.pbx_cseq += 1
        body = pidf(BOB, basic) if state.startswith("active") else ""
        request = sip_request(
            "NOTIFY",
            "sip:somebody@192.0.2.1",
            sender="<sip:bob@pbx.test>;tag=peer-tag",
            recipient=str(sent.request.from_address),
            call_id=sent.request.call_id,
            cseq=self.pbx_cseq,
            headers=(("Event", "presence"), ("Subscription-State", state), ("Contact", "<sip:192.0.2.50>")),
            body=body,
            content_type="application/pidf+xml" if body else "",
        )
        incoming = MemoryIncomingRequest(request)
        self.house.subscriber.notify_received(incoming, Identity(BOB, "peer"))
        assert incoming.status in (200, 481), incoming.status

    @rule(
        verb=st.sampled_from(["accept", "accept", "accept", "decline", "block", "unblock", "add", "remove"]),
        user=SOMEBODY_HOSTED,
        peer=st.sampled_from((BEN, BEN, BEN, EVE, BOB)),
        is_settled=st.booleans(),
    )
    def employee_decides(self, verb: str, user: Address, peer: Address, is_settled: bool) -> None:
        async def decides() -> None:
            try:
                await self.house.consent.command_received(user, f"{verb} {peer}")
            except (PeerError, StoreError):
                return

        self.run(decides())
        self.finish(is_settled=is_settled)

    @rule(setting=st.sampled_from(POLICIES), is_off=RARELY)
    def policy_changes(self, setting: PolicySetting, is_off: bool) -> None:
        async def changes() -> None:
            try:
                await self.house.policing.change([setting] if is_off else [], [] if is_off else [setting])
            except StoreError:
                return

        self.run(changes())
        self.finish(is_settled=True)

    @rule(seconds=st.sampled_from([1, 6, 31, 70, 400, 3700]))
    def time_passes(self, seconds: int) -> None:
        async def passes() -> None:
            self.clock.advance(seconds)

        self.run(passes())
        self.finish(is_settled=True)

    @rule(is_full=RARELY)
    def disk_fills_up(self, is_full: bool) -> None:
        self.finish(is_settled=True)
        self.store.fault = StoreError("the disk is full") if is_full else None

    @rule(
        kind=st.sampled_from(["subscribe", "unsubscribe", "subscribed", "unsubscribed"]),
        sender=SOMEBODY_ON_XMPP,
        recipient=SOMEBODY_HOSTED,
    )
    def disk_is_full_for_a_moment(self, kind: str, sender: Address, recipient: Address) -> None:
        """What was said just then is made durable later, or taken back by a later word."""
        self.disk_fills_up(is_full=True)
        self.stanza_arrives(kind, sender, recipient, "", is_settled=True)
        self.disk_fills_up(is_full=False)

    @rule(is_down=RARELY)
    def link_flaps(self, is_down: bool) -> None:
        async def flaps() -> None:
            if not is_down and not self.house.link.is_connected:
                self.house.link.restore()
            elif is_down and self.house.link.is_connected:
                self.house.link.lose(forget_unproved=False)

        self.run(flaps())
        self.finish(is_settled=True)

    @rule()
    def write_behind_catches_up(self) -> None:
        if self.store.fault is None:
            self.written = list(self.run(self.store.subscriptions()))

    @precondition(lambda self: self.store.fault is None)
    @rule(is_crash=st.booleans())
    def house_restarts(self, is_crash: bool) -> None:
        """In a crash dialogs are as they were last written down; what was done before took time."""
        self.finish(is_settled=True)
        if is_crash:
            for record in self.run(self.store.subscriptions()):
                self.store.note_subscription_gone(record.key)
            for record in self.written:
                self.store.note_subscription(record)
        self.clock.forget()
        self.clock.advance(30)
        # What was in flight died with the process; after a crash even a dialog that had ended may say more.
        self.last = {} if is_crash else {key: sent for key, sent in self.last.items() if _is_final(sent)}
        self._build()
        self.run(self._link_up())
        self.finish(is_settled=True)

    async def _link_up(self) -> None:
        for link in (self.house.link, self.house.pbx_link):
            link.restore()

    # --- what holds once it is quiet ---

    @rule()
    def calm(self) -> None:
        self.store.fault = None
        for _ in range(12):
            self.run(self.house.settle())
            for sent in self.last.values():
                if not sent.outcome.done():
                    sent.answer(200)
            self.run(self.house.settle())
            self.time_passes(6)
        self.check_trouble()
        self._check_store()
        self._check_views()

    def _check_store(self) -> None:
        stored = {(row.watcher, row.presentity): row for row in self.run(self.store.authorisations())}
        assert {(row.watcher, row.presentity): row for row in self.house.contacts.all()} == stored
        for owner, peer in self.run(self.store.blocks()):
            assert (peer, owner) not in stored or peer.domain != "people.test"

    def _check_views(self) -> None:
        for watch in self.house.notifier:
            assert not watch.is_in_flight
            assert not watch.is_dirty
            if watch.package != PRESENCE or watch.is_list:
                continue
            needs_consent = watch.watcher != watch.resource
            state = self.house.contacts.state(watch.watcher, watch.resource)
            if needs_consent:
                assert watch.is_pending == (state is not AuthorisationState.ACTIVE)
                assert state is not None
            last = self.last.get((watch.dialog.call_id, watch.dialog.local_tag))
            if last is None:
                continue  # nothing was sent in this life: the phone keeps what it had
            content = self.house.package.content(watch)
            current = content[1] if content is not None else b""
            assert _STAMPS.sub(b"", last.request.body) == _STAMPS.sub(b"", current)


def _is_final(sent: SentRequest) -> bool:
    return "terminated" in (sent.request.headers.get("Subscription-State") or "")


ContactsMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestContacts = ContactsMachine.TestCase
