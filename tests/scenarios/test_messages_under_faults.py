"""Whatever happens to the streams, phones and processes: nothing that was acknowledged is lost, and order is kept."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.errors import RequestTimeoutError, StoreError
from isthmus.interworking.failures import STATUS_BY_CONDITION
from isthmus.model import Address, Message
from isthmus.services.messaging_requests import call_id_of
from isthmus.services.messaging_tables import RecentTable
from isthmus.sip.message import SipRequest
from tests.support.messaging_house import PBX, House, bodies
from tests.support.sip import MemoryIncomingRequest, message_request
from tests.support.xmpp import settle

CONDITIONS = sorted(STATUS_BY_CONDITION)
STATUSES = (*range(300, 306), *range(400, 440), 480, 481, 486, 488, 500, 503, 513, 600, 603, 699)

FAULTS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

to_xmpp_steps = st.lists(
    st.sampled_from(["send", "send", "send", "lose", "restore", "prove", "crash", "full", "free", "wait"]), max_size=40
)
to_sip_steps = st.lists(
    st.sampled_from(["send", "send", "send", "answer", "time-out", "busy", "register", "unregister", "crash", "wait"]),
    max_size=40,
)


async def play_to_xmpp(steps: Sequence[str]) -> None:
    house = await House().open()
    delivered: list[str] = []
    acknowledged: list[str] = []

    def collect() -> None:
        """What the server has certainly processed: stanzas on a stream that a barrier, or the end, has proved."""
        delivered.extend(bodies(house.pbx_link.take()))

    house.pbx_link.is_holding_barriers = True
    number = 0
    for step in steps:
        if step == "send":
            number += 1
            incoming = house.endpoint.receive(message_request("pat@pbx.test", "ben@people.test", f"text {number}"), PBX)
            await settle()
            if incoming.status == 202:
                acknowledged.append(f"text {number}")
        elif step == "lose":
            house.pbx_link.lose()
        elif step == "restore" and not house.pbx_link.is_connected:
            house.pbx_link.restore()
        elif step == "prove":
            house.pbx_link.release_barriers()
            await settle()
            if house.pbx_link.is_connected:
                collect_proved(house, delivered)
        elif step == "crash":
            house.pbx_link.lose()
            house.store.journal.fault = None
            house = house.crash()
            house.pbx_link.is_holding_barriers = True
            await house.open()
        elif step == "full":
            house.store.journal.fault = StoreError("the disk is full")
        elif step == "free":
            house.store.journal.fault = None
        else:
            house.clock.advance(0.5)
        await settle()
    house.store.journal.fault = None
    house.pbx_link.is_holding_barriers = False
    house.pbx_link.release_barriers()
    if not house.pbx_link.is_connected:
        house.pbx_link.restore()
    await house.later(10)
    collect()
    first_seen = list(dict.fromkeys(delivered))
    assert [text for text in first_seen if text in acknowledged] == acknowledged, "all of it, in order"
    assert house.journal == []


def collect_proved(house: House, delivered: list[str]) -> None:
    """Take what barriers have proved; what is not yet proved may be lost with the stream."""
    link = house.pbx_link
    count = link.proved_count
    delivered.extend(bodies(link.elements[:count]))
    link.forget(count)


async def play_to_sip(steps: Sequence[str]) -> None:
    house = await House(user_burst=1000).open()
    house.endpoint.is_holding = True
    received: list[str] = []
    sent_by_ben: list[str] = []
    seen_call_ids: dict[str, str] = {}

    def take(outcome: int | Exception) -> None:
        for sent in house.endpoint.sent:
            if not sent.outcome.done():
                sent.answer(outcome)
                if outcome == 200:
                    received.append(sent.text)
                assert seen_call_ids.setdefault(sent.request.call_id, sent.text) == sent.text

    number = 0
    for step in steps:
        if step == "send":
            number += 1
            sent_by_ben.append(f"text {number}")
            await house.chat(f"text {number}", ident=str(number))
        elif step == "answer":
            take(200)
        elif step == "time-out":
            take(RequestTimeoutError("no answer"))
        elif step == "busy":
            take(480)
        elif step in ("register", "unregister"):
            await house.register(expires=3600 if step == "register" else 0)
        elif step == "crash":
            house = house.crash()
            house.endpoint.is_holding = True
            await house.open()
        else:
            await house.later(10)
        await settle()
    await house.register()
    for _ in range(len(sent_by_ben) + 2):
        take(200)
        await settle()
        await house.later(5)
    assert list(dict.fromkeys(received)) == sent_by_ben, "all of it, in order"
    assert house.journal == []
    assert all(element.get("type") != "error" for element in house.link.elements)


@FAULTS
@given(to_xmpp_steps)
def test_towards_xmpp_nothing_acknowledged_is_lost(steps: list[str]) -> None:
    asyncio.run(play_to_xmpp(steps))


@FAULTS
@given(to_sip_steps)
def test_towards_sip_nothing_journalled_is_lost(steps: list[str]) -> None:
    asyncio.run(play_to_sip(steps))


@pytest.mark.parametrize("condition", [*CONDITIONS, "something-new"])
async def test_every_stanza_error_reaches_the_sender_in_words(condition: str) -> None:
    house = await House().open()
    await house.register()
    await house.says("ana@corp.test", "ben@people.test", "hello")
    (stanza,) = house.link.take()
    await house.hears(
        f"<message type='error' id='{stanza.get('id')}' from='ben@people.test' to='ana@corp.test'>"
        f"<error type='cancel'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    )
    (notice,) = house.taken()
    assert "was not delivered" in notice.text


@pytest.mark.parametrize(
    "status", [*range(300, 306), *range(400, 440), 480, 481, 486, 488, 500, 503, 513, 600, 603, 699]
)
async def test_every_sip_answer_is_either_tried_again_or_told(status: int) -> None:
    house = await House().open()
    await house.register()
    house.endpoint.script(status)
    await house.chat("hello")
    is_waiting = house.messaging.waiting(Address("ana", "corp.test")) == 1
    is_told = len(house.link.elements) == 1
    assert is_waiting != is_told


async def test_what_comes_in_during_the_start_goes_after_the_old_messages_and_once() -> None:
    house = await House().open(is_linked=False)
    await house.says("pat@pbx.test", "ben@people.test", "old", flow=PBX)
    again = house.crash()
    await again.directory.load()
    await again.policing.load()
    for text in ("new", "newer"):
        assert await again.says("pat@pbx.test", "ben@people.test", text, flow=PBX) == 202
    again.pbx_link.restore()
    assert again.pbx_link.stanzas == []
    await again.messaging.start()
    await again.later(1)
    await again.later(6)
    assert bodies(again.pbx_link.take()) == ["old", "new", "newer"]
    assert again.journal == []


async def test_deflated_bodies_are_read() -> None:
    """Edge case 19: Linphone compresses."""
    house = await House().open()
    request = message_request("pat@pbx.test", "ben@people.test", "", headers=[("Content-Encoding", "deflate")])
    request.body = zlib.compress(b"squeezed")
    assert (await house.sip(request, PBX)).status == 202
    await settle()
    assert bodies(house.pbx_link.take()) == ["squeezed"]


async def test_html_arrives_as_text() -> None:
    """Edge case 27."""
    house = await House().open()
    request = message_request("pat@pbx.test", "ben@people.test", "<b>Hello</b> <script>alert(1)</script>")
    request.headers.set("Content-Type", "text/html")
    assert (await house.sip(request, PBX)).status == 202
    await settle()
    (body,) = bodies(house.pbx_link.take())
    assert "Hello" in body
    assert "<b>" not in body
    assert "script" not in body


async def test_a_service_that_fails_answers_500_and_the_next_request_is_served() -> None:
    house = await House().open()

    def broken(incoming: object, identity: object, recipient: object) -> None:
        raise RuntimeError("a bug")

    house.server.serve_messages(broken)
    request: SipRequest = message_request("pat@pbx.test", "ben@people.test", "x")
    incoming: MemoryIncomingRequest = house.endpoint.receive(request, PBX)
    await settle()
    assert incoming.status == 500


async def test_a_command_that_cannot_be_kept_is_answered_in_words() -> None:
    house = await House().open()

    async def command(user: Address, text: str) -> str:
        raise StoreError("the disk is full")

    house.messaging.set_command(command)
    await house.register()
    await house.says("ana@corp.test", "isthmus@corp.test", "accept")
    await settle(20)
    (reply,) = house.taken()
    assert "That did not work" in reply.text


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9)), max_size=200), st.integers(1, 4))
def test_a_recent_table_knows_the_newest_entries(writes: list[tuple[str, int]], size: int) -> None:
    table: RecentTable[str, int] = RecentTable(size)
    order: list[str] = []
    last: dict[str, int] = {}
    for key, value in writes:
        table.put(key, value)
        last[key] = value
        order = [other for other in order if other != key] + [key]
        assert len(table) <= 2 * size
    for key in order[-size:]:
        assert table.get(key) == last[key]
        assert key in table
    for key in order:
        found = table.get(key)
        assert found is None or found == last[key]


def test_the_call_id_of_a_message_stays_the_same() -> None:
    message = Message(id="m1", sender=Address("ben", "people.test"), recipient=Address("ana", "corp.test"), sent_at=5.0)
    assert call_id_of(message) == call_id_of(message)
