"""The component link against a real Prosody: handshake, order, loss, refusal, silence."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from isthmus.config import XmppSettings
from isthmus.errors import LinkDownError, RequestTimeoutError
from isthmus.model import Address
from isthmus.net import xmpp_component
from isthmus.net.system_clock import SystemClock
from isthmus.net.xmpp_component import ComponentLink
from isthmus.net.xmpp_queries import QueryResponder
from isthmus.ports import Photo, Profile, XmppLink
from isthmus.trace import Trace, TraceLine
from isthmus.xmpp.vcard import MAXIMUM_PHOTO_OCTETS
from tests.support.processes import free_port
from tests.support.prosody import ProsodyServer, needs_prosody
from tests.support.xmpp import stanza
from tests.support.xmpp_client import XmppClient

NS = "{jabber:component:accept}"
BODY = f"{NS}body"


async def photo_of_ana() -> Photo:
    return Photo(b"\x89PNG\r\n\x1a\n" + bytes(MAXIMUM_PHOTO_OCTETS - 8), "image/png", "0")


class KnownUsers:
    """Implements ports.Profiles: ana is known to ben and to nobody else."""

    async def profile(self, user: Address, asked_by: Address) -> Profile | None:
        if str(user) == "ana@corp.test" and str(asked_by) == "ben@people.test":
            return Profile(display_name="Ana & Co", photo=photo_of_ana, idle_seconds=7)
        return None


class Sink:
    """Implements ports.StanzaSink: keeps what comes, in queues that can be awaited."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Element] = asyncio.Queue()
        self.presences: asyncio.Queue[Element] = asyncio.Queue()
        self.changes: asyncio.Queue[str] = asyncio.Queue()
        self.on_message: Callable[[XmppLink, Element], None] | None = None

    def message_received(self, link: XmppLink, stanza: Element) -> None:
        self.messages.put_nowait(stanza)
        if self.on_message is not None:
            self.on_message(link, stanza)

    def presence_received(self, _link: XmppLink, stanza: Element) -> None:
        self.presences.put_nowait(stanza)

    def link_up(self, link: XmppLink) -> None:
        assert link.is_connected
        self.changes.put_nowait("up")

    def link_down(self, link: XmppLink) -> None:
        assert not link.is_connected
        self.changes.put_nowait("down")


class Bench:
    """One link and what it needs."""

    def __init__(self, port: int, *, domain: str = "corp.test", secret: str = "component-secret") -> None:
        self.clock = SystemClock()
        self.trace = Trace(self.clock.wall)
        self.sink = Sink()
        settings = XmppSettings(component_port=port, reconnect_maximum_seconds=0.4)
        responder = QueryResponder(domain, KnownUsers(), clock=self.clock, version="0.1.0")
        self.link = ComponentLink(domain, secret, settings, sink=self.sink, responder=responder, trace=self.trace)

    async def up(self) -> ComponentLink:
        self.link.start()
        async with asyncio.timeout(10):
            await self.link.connected()
        return self.link

    def decisions(self) -> list[str]:
        return [line.text for line in self.trace.recent]

    async def decision(self, part: str) -> None:
        """Return when the trace holds a decision with `part`."""
        found = asyncio.Event()

        def look(line: TraceLine) -> None:
            if part in line.text:
                found.set()

        stop = self.trace.listen(look)
        try:
            if not any(part in text for text in self.decisions()):
                async with asyncio.timeout(10):
                    await found.wait()
        finally:
            stop()


def message(body: str, *, sender: str = "ana@corp.test/isthmus", to: str = "ben@people.test") -> str:
    return f"<message from='{sender}' to='{to}' type='chat'><body>{body}</body></message>"


async def within(seconds: float, queue: asyncio.Queue[Element]) -> Element:
    async with asyncio.timeout(seconds):
        return await queue.get()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ProsodyServer]:
    server = ProsodyServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def bench(server: ProsodyServer) -> AsyncIterator[Bench]:
    bench = Bench(server.component_port)
    await bench.up()
    yield bench
    await bench.link.stop()


@pytest.fixture
async def ben(server: ProsodyServer) -> AsyncIterator[XmppClient]:
    client = XmppClient("ben@people.test/phone", "pw", "127.0.0.1", server.c2s_port)
    await client.start()
    yield client
    await client.stop()


@needs_prosody
@pytest.mark.interop
class TestALinkToProsody:
    async def test_message_and_presence_cross_in_both_directions(self, bench: Bench, ben: XmppClient) -> None:
        bench.link.send(message("Good morning"))
        assert (await ben.message("Good morning")).get("from") == "ana@corp.test/isthmus"

        ben.send_message("ana@corp.test", "Hello &lt;Ana&gt;")
        stanza = await within(5, bench.sink.messages)
        assert stanza.tag == f"{NS}message"
        assert stanza.findtext(BODY) == "Hello <Ana>"
        assert stanza.get("from") == "ben@people.test/phone"

        ben.send("<presence to='ana@corp.test' type='subscribe'/>")
        asked = await within(5, bench.sink.presences)
        assert (asked.get("type"), asked.get("from")) == ("subscribe", "ben@people.test")

    async def test_a_subscription_is_not_answered_by_the_link_itself(self, bench: Bench, ben: XmppClient) -> None:
        """STANDARDS 1.4 (g): the services answer, not slixmpp."""
        ben.send("<presence to='ana@corp.test' type='subscribe'/>")
        ben.send("<presence to='ana@corp.test' type='probe'/>")
        await within(5, bench.sink.presences)
        await bench.link.barrier()
        await ben.query("<iq type='get' id='after' to='people.test'><ping xmlns='urn:xmpp:ping'/></iq>")
        assert not [s for s in ben.received if s.get("from", "").startswith("ana@corp.test")]

    async def test_an_answered_barrier_proves_that_all_earlier_stanzas_were_routed(
        self, bench: Bench, ben: XmppClient
    ) -> None:
        for number in range(500):
            bench.link.send(message(str(number)))
        await bench.link.barrier()
        # Ben's own ping is answered after everything that Prosody has already put on his stream.
        await ben.query("<iq type='get' id='after' to='people.test'><ping xmlns='urn:xmpp:ping'/></iq>")
        bodies = [s.findtext("{jabber:client}body") for s in ben.received if s.tag.endswith("message")]
        assert bodies == [str(number) for number in range(500)]

    async def test_barriers_of_one_turn_share_one_ping(self, bench: Bench) -> None:
        waiting = [asyncio.create_task(bench.link.barrier()) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert bench.link._answers.outstanding_barriers == 1
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)

    async def test_a_cancelled_caller_does_not_cancel_the_barrier_of_the_others(self, bench: Bench) -> None:
        one, other = (asyncio.create_task(bench.link.barrier()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        async with asyncio.timeout(5):
            await other
        assert one.cancelled()

    async def test_a_query_returns_results_and_errors(self, bench: Bench, ben: XmppClient) -> None:
        del ben
        ping = "<iq type='get' id='{}' from='corp.test' to='{}'><ping xmlns='urn:xmpp:ping'/></iq>"
        assert (await bench.link.query(ping.format("q1", "people.test"), "q1")).get("type") == "result"
        refused = await bench.link.query(ping.format("q2", "ben@people.test/no-such-device"), "q2")
        assert refused.get("type") == "error"

    async def test_a_query_without_answer_times_out(self, bench: Bench, ben: XmppClient) -> None:
        iq = f"<iq type='get' id='q3' from='corp.test' to='{ben.jid}'><ping xmlns='urn:xmpp:ping'/></iq>"
        with pytest.raises(RequestTimeoutError):
            await bench.link.query(iq, "q3", timeout_seconds=0.2)

    async def test_an_answer_from_somebody_else_is_not_taken(self, bench: Bench, ben: XmppClient) -> None:
        iq = "<iq type='get' id='q4' from='corp.test' to='ben@people.test/laptop'><ping xmlns='urn:xmpp:ping'/></iq>"
        asking = asyncio.create_task(bench.link.query(iq, "q4", timeout_seconds=5))
        await asyncio.sleep(0)
        ben.send("<iq type='result' id='q4' to='corp.test'/>")
        assert (await asking).get("type") == "error"  # the server's, for a device that is not there

    async def test_a_receiver_that_raises_does_not_end_the_stream(
        self, bench: Bench, ben: XmppClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_link: XmppLink, _stanza: Element) -> None:
            raise ValueError("a mistake of ours")

        bench.sink.on_message = fail
        ben.send_message("ana@corp.test", "one")
        ben.send_message("ana@corp.test", "two")
        await within(5, bench.sink.messages)
        assert (await within(5, bench.sink.messages)).findtext(BODY) == "two"
        assert "a receiver failed" in caplog.text

    async def test_trace_lines_name_people_and_leave_out_what_they_wrote(self, bench: Bench, ben: XmppClient) -> None:
        lines: list[TraceLine] = []
        bench.trace.listen(lines.append)
        bench.link.send(message("top secret"))
        html = "<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>{}</body></html>"
        ben.send_message(
            "ana@corp.test", "very private", stanza_id="m7", extra=html.format("<p>very <b>private</b></p>")
        )
        await within(5, bench.sink.messages)
        sent, got = lines
        assert (sent.mark, sent.people) == (">", ("ana@corp.test", "ben@people.test"))
        assert (got.mark, got.call_id, got.people) == ("<", "m7", ("ben@people.test", "ana@corp.test"))
        assert "secret" not in sent.text
        assert "private" not in got.text

    async def test_stop_writes_what_was_sent(self, server: ProsodyServer, ben: XmppClient) -> None:
        bench = Bench(server.component_port)
        link = await bench.up()
        link.send(message("last words"))
        await link.stop()
        assert not link.is_connected
        await ben.message("last words")


@needs_prosody
@pytest.mark.interop
class TestQueriesOfARealClient:
    @pytest.mark.parametrize(
        ("to", "payload", "found"),
        [
            ("corp.test", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "identity"),
            ("ana@corp.test", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "identity"),
            ("ana@corp.test/isthmus", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "identity"),
            ("ana@corp.test", "<vCard xmlns='vcard-temp'/>", "FN"),
            ("ana@corp.test", "<query xmlns='jabber:iq:last'/>", "query"),
            ("ana@corp.test/isthmus", "<query xmlns='jabber:iq:version'/>", "version"),
            ("corp.test", "<time xmlns='urn:xmpp:time'/>", "utc"),
        ],
    )
    async def test_known_questions_are_answered(
        self, bench: Bench, ben: XmppClient, to: str, payload: str, found: str
    ) -> None:
        del bench
        answer = await ben.query(f"<iq type='get' id='known' to='{to}'>{payload}</iq>")
        assert answer.get("type") == "result"
        assert answer.find(f".//{{*}}{found}") is not None

    async def test_the_largest_photo_arrives_whole(self, bench: Bench, ben: XmppClient) -> None:
        del bench
        answer = await ben.query("<iq type='get' id='card' to='ana@corp.test'><vCard xmlns='vcard-temp'/></iq>")
        assert b64decode(answer.findtext(".//{vcard-temp}BINVAL", "")) == (await photo_of_ana()).content

    async def test_everything_else_is_refused_and_nothing_is_left_open(self, bench: Bench, ben: XmppClient) -> None:
        del bench
        payloads = (
            "<query xmlns='jabber:iq:register'/>",
            "<query xmlns='jabber:iq:gateway'/>",
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='x'/></pubsub>",
            "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'/>",
        )
        for number, payload in enumerate(payloads):
            for to in ("corp.test", "ana@corp.test", "ana@corp.test/isthmus", "nobody@corp.test"):
                answer = await ben.query(f"<iq type='set' id='{number}-{to}' to='{to}'>{payload}</iq>")
                assert answer.get("type") == "error"
                assert answer.find(".//{*}service-unavailable") is not None


@needs_prosody
@pytest.mark.interop
class TestLosingProsody:
    async def test_the_link_comes_back_after_a_restart_in_the_middle_of_traffic(
        self, server: ProsodyServer, bench: Bench
    ) -> None:
        """Edge case 49: nothing that was proved is lost, what was not proved is told to the sender."""
        link = bench.link
        assert await bench.sink.changes.get() == "up"
        proved: list[int] = []
        many = asyncio.Event()

        async def traffic() -> int:
            number = 0
            while True:
                link.send(message(str(number)))
                await link.barrier()
                proved.append(number)
                number += 1
                if number == 20:
                    many.set()

        sending = asyncio.create_task(traffic())
        await many.wait()
        await server.restart()
        with pytest.raises(LinkDownError):
            await sending
        async with asyncio.timeout(10):
            assert await bench.sink.changes.get() == "down"
            assert await bench.sink.changes.get() == "up"
        await link.barrier()
        # Ben was away: the messages went to his offline store, which outlives the restart.
        ben = XmppClient("ben@people.test/phone", "pw", "127.0.0.1", server.c2s_port)
        await ben.start()
        try:
            for number in proved:
                await ben.message(str(number))
        finally:
            await ben.stop()

    async def test_loss_fails_outstanding_barriers_and_queries(self, server: ProsodyServer, bench: Bench) -> None:
        iq = "<iq type='get' id='lost' from='corp.test' to='people.test'><ping xmlns='urn:xmpp:ping'/></iq>"
        bench.link._stream.write(b"<message to='ben@people.test'>")  # an open stanza: nothing after it is answered
        waiting = [asyncio.create_task(bench.link.barrier()), asyncio.create_task(bench.link.query(iq, "lost"))]
        await asyncio.sleep(0)
        await server.kill()
        async with asyncio.timeout(10):
            failures = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(failure) for failure in failures] == [LinkDownError, LinkDownError]
        with pytest.raises(LinkDownError):
            bench.link.send(message("nobody hears"))
        with pytest.raises(LinkDownError):
            await bench.link.barrier()

    async def test_a_server_that_appears_later_is_found(self, tmp_path: Path) -> None:
        server = ProsodyServer(tmp_path)
        bench = Bench(server.component_port)
        bench.link.start()
        try:
            await bench.decision("cannot be reached")
            with pytest.raises(LinkDownError):
                bench.link.send(message("too early"))
            await server.start()
            async with asyncio.timeout(10):
                await bench.link.connected()
            assert sum("cannot be reached" in text for text in bench.decisions()) == 1, "said once, not every time"
        finally:
            await bench.link.stop()
            await server.stop()

    @pytest.mark.parametrize(
        ("domain", "secret", "part"),
        [
            ("corp.test", "wrong", "make component_secret of"),
            ("other.test", "component-secret", 'add Component "other.test"'),
        ],
    )
    async def test_a_refusal_is_told_with_its_remedy(
        self, server: ProsodyServer, domain: str, secret: str, part: str
    ) -> None:
        bench = Bench(server.component_port, domain=domain, secret=secret)
        bench.link.start()
        try:
            await bench.decision(part)
            assert not bench.link.is_connected
        finally:
            await bench.link.stop()

    async def test_a_second_instance_is_told_about_the_conflict_and_takes_over_when_the_first_leaves(
        self, server: ProsodyServer, bench: Bench
    ) -> None:
        second = Bench(server.component_port)
        second.link.start()
        try:
            await second.decision("another component is connected")
            assert bench.link.is_connected
            await bench.link.stop()
            async with asyncio.timeout(10):
                await second.link.connected()
        finally:
            await second.link.stop()

    async def test_the_wrong_secret_is_retried_slowly_and_succeeds_when_it_is_mended(
        self, server: ProsodyServer
    ) -> None:
        bench = Bench(server.component_port, secret="mended")
        bench.link.start()
        try:
            await bench.decision("refused our secret")
            server.components = {"corp.test": "mended"}
            await server.restart()
            async with asyncio.timeout(10):
                await bench.link.connected()
        finally:
            await bench.link.stop()


class SilentServer:
    """Accepts a component and then neither reads nor answers."""

    def __init__(self, *, says_handshake: bool) -> None:
        self.port = free_port()
        self._says_handshake = says_handshake
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1024)

    async def stop(self) -> None:
        assert self._server is not None
        for writer in self._writers:
            writer.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await reader.read(500)
        writer.write(
            b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='s'>"
        )
        if self._says_handshake:
            await reader.read(500)
            writer.write(b"<handshake/>")


class TestASilentServer:
    @pytest.fixture
    async def silent(self) -> AsyncIterator[SilentServer]:
        server = SilentServer(says_handshake=True)
        await server.start()
        yield server
        await server.stop()

    async def test_a_dead_server_is_noticed(self, silent: SilentServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(xmpp_component, "WATCH_SECONDS", 0.05)
        bench = Bench(silent.port)
        await bench.up()
        try:
            await bench.decision("has not answered for")
            assert await bench.sink.changes.get() == "up"
            async with asyncio.timeout(5):
                assert await bench.sink.changes.get() == "down"
        finally:
            await bench.link.stop()

    async def test_a_server_that_does_not_read_congests_the_link_and_is_given_up_at_the_bound(
        self, silent: SilentServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(xmpp_component, "MAXIMUM_WAITING_OCTETS", 8 * 1024 * 1024)
        bench = Bench(silent.port)
        link = await bench.up()
        try:
            big = message("x" * 100_000)
            congested = False
            while link.is_connected:
                link.send(big)
                await asyncio.sleep(0)
                congested |= link.is_congested
            with pytest.raises(LinkDownError):
                link.send(big)
            assert congested
            assert any("stopped reading" in text for text in bench.decisions())
            async with asyncio.timeout(5):
                await link.drained()
        finally:
            await link.stop()

    async def test_somebody_who_asks_for_a_thousand_photos_does_not_cost_us_the_link(
        self, silent: SilentServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A thousand would be more than the link may owe its server: they wait until it has read the first ones."""
        monkeypatch.setattr(xmpp_component, "MAXIMUM_WAITING_OCTETS", 8 * 1024 * 1024)
        bench = Bench(silent.port)
        link = await bench.up()
        try:
            addresses = "from='ben@people.test/app' to='ana@corp.test'"
            for number in range(1_000):
                query = f"<iq type='get' id='{number}' {addresses}><vCard xmlns='vcard-temp'/></iq>"
                link.stanza_received(stanza(query))
            for _ in range(2_000):
                await asyncio.sleep(0)
            assert link.is_congested
            assert link.is_connected
            link.send(message("still there"))
        finally:
            await link.stop()

    async def test_a_server_without_handshake_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(xmpp_component, "HANDSHAKE_SECONDS", 0.1)
        server = SilentServer(says_handshake=False)
        await server.start()
        bench = Bench(server.port)
        bench.link.start()
        try:
            await bench.decision("no component handshake")
        finally:
            await bench.link.stop()
            await server.stop()
