"""The NG protocol without a socket: cookies, repeats, patience; and the client against a relay that misbehaves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import RelayError
from isthmus.net.rtpengine_ng import (
    FIRST_REPEAT_SECONDS,
    MAXIMUM_DATAGRAM,
    MAXIMUM_PENDING,
    PATIENCE_SECONDS,
    NgAddress,
    NgAnswered,
    NgClient,
    NgConversation,
    NgUnanswered,
    RelayRefusedError,
)


def conversation() -> NgConversation:
    numbers = itertools.count(1)
    return NgConversation(lambda: f"c{next(numbers)}")


def test_a_command_is_a_cookie_a_blank_and_a_json_object() -> None:
    cookie, datagram = conversation().ask({"command": "ping"}, 0.0)
    assert datagram == b'c1 {"command":"ping"}'
    assert cookie == "c1"


def test_a_reply_ends_the_waiting_and_its_repeat_is_nothing() -> None:
    ng = conversation()
    ng.ask({"command": "ping"}, 0.0)
    assert ng.receive(b'c1 {"result":"pong"}') == NgAnswered("c1", {"result": "pong"})
    assert ng.receive(b'c1 {"result":"pong"}') is None
    assert ng.next_deadline() is None


def test_a_lost_command_is_repeated_under_its_cookie_ever_slower_and_given_up() -> None:
    ng = conversation()
    _, datagram = ng.ask({"command": "ping"}, 0.0)
    now, sent_at = 0.0, []
    while (deadline := ng.next_deadline()) is not None:
        now = deadline
        repeats, ended = ng.handle_timer(now)
        if ended:
            assert ended == [NgUnanswered("c1")]
            break
        assert repeats == [datagram]
        sent_at.append(now)
    assert sent_at == [FIRST_REPEAT_SECONDS, FIRST_REPEAT_SECONDS * 3, FIRST_REPEAT_SECONDS * 7]
    assert now == PATIENCE_SECONDS
    assert ng.next_deadline() is None


def test_every_new_command_has_a_cookie_of_its_own() -> None:
    ng = conversation()
    assert ng.ask({"command": "ping"}, 0.0)[0] != ng.ask({"command": "ping"}, 0.0)[0]


def test_what_is_too_long_or_too_much_is_refused_here() -> None:
    ng = conversation()
    with pytest.raises(RelayError, match="too long"):
        ng.ask({"command": "offer", "sdp": "x" * MAXIMUM_DATAGRAM}, 0.0)
    for _ in range(MAXIMUM_PENDING):
        ng.ask({"command": "ping"}, 0.0)
    with pytest.raises(RelayError, match="too many"):
        ng.ask({"command": "ping"}, 0.0)


@given(st.one_of(st.binary(), st.binary().map(lambda tail: b"c1 " + tail), st.binary().map(lambda x: b"c1 {" + x)))
def test_no_datagram_makes_it_raise_and_only_an_object_answers(datagram: bytes) -> None:
    ng = conversation()
    ng.ask({"command": "ping"}, 0.0)
    answered = ng.receive(datagram)
    assert answered is None or isinstance(answered.reply, dict)
    assert (ng.next_deadline() is None) == (answered is not None)


@given(st.lists(st.one_of(st.just("ask"), st.integers(1, 5), st.floats(0.0, 3.0)), max_size=40))
def test_every_command_is_answered_or_given_up_once(steps: list[str | int | float]) -> None:
    ng, now, asked, finished = conversation(), 0.0, [], []
    for step in steps:
        if step == "ask":
            asked.append(ng.ask({"command": "ping"}, now)[0])
        elif isinstance(step, int):
            answered = ng.receive(f'c{step} {{"result":"pong"}}'.encode())
            finished += [answered.cookie] if answered else []
        elif isinstance(step, float):
            now += step
            finished += [one.cookie for one in ng.handle_timer(now)[1]]
    finished += [one.cookie for one in ng.abandon()]
    assert sorted(finished) == sorted(asked)


class OddRelay(asyncio.DatagramProtocol):
    """Answers as a test wants it to."""

    def __init__(self, answer: Callable[[bytes, dict[str, object], int], list[bytes]]) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append(data)
        cookie, _, body = data.partition(b" ")
        assert self.transport is not None
        for datagram in self.answer(cookie, orjson.loads(body), len(self.heard)):
            self.transport.sendto(datagram, addr)

    async def open(self) -> NgAddress:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        return NgAddress(*transport.get_extra_info("sockname"))

    def close(self) -> None:
        assert self.transport is not None
        self.transport.close()


@pytest.fixture
async def relay() -> AsyncIterator[OddRelay]:
    server = OddRelay(lambda cookie, command, count: [cookie + b' {"result":"pong"}'])
    yield server
    server.close()


async def test_a_reply_that_was_lost_is_asked_for_again_with_the_same_bytes(relay: OddRelay) -> None:
    relay.answer = lambda cookie, command, count: [cookie + b' {"result":"pong"}'] if count == 2 else []
    client = NgClient(await relay.open())
    assert await client.ask({"command": "ping"}) == {"result": "pong"}
    assert relay.heard[0] == relay.heard[1]
    client.close()


async def test_a_refusal_is_told_in_the_relays_own_words(relay: OddRelay) -> None:
    relay.answer = lambda cookie, command, count: [cookie + b' {"result":"error","error-reason":"Unknown call-id"}']
    client = NgClient(await relay.open())
    with pytest.raises(RelayRefusedError, match=r"^Unknown call-id$") as refused:
        await client.ask({"command": "query"})
    assert not refused.value.is_full
    relay.answer = lambda cookie, command, count: [cookie + b' {"result":"load limit","message":"Load too high"}']
    with pytest.raises(RelayRefusedError, match="Load too high") as refused:
        await client.ask({"command": "offer"})
    assert refused.value.is_full
    client.close()


async def test_answers_find_their_question_whatever_their_order(relay: OddRelay) -> None:
    kept: list[bytes] = []

    def answer_in_reverse(cookie: bytes, command: dict[str, object], count: int) -> list[bytes]:
        kept.insert(0, cookie + b" " + orjson.dumps({"result": "ok", "you": command["n"]}))
        return kept if count == 10 else []

    relay.answer = answer_in_reverse
    client = NgClient(await relay.open())
    replies = await asyncio.gather(*(client.ask({"command": "x", "n": number}) for number in range(10)))
    assert [reply["you"] for reply in replies] == list(range(10))
    client.close()


async def test_where_nobody_listens_it_is_known_at_once(relay: OddRelay) -> None:
    address = await relay.open()
    relay.close()
    client = NgClient(address, patience_seconds=60.0)
    with pytest.raises(RelayError, match="does not answer"):
        async with asyncio.timeout(5):
            await client.ask({"command": "ping"})
    client.close()


async def test_who_waits_is_told_when_the_client_closes(relay: OddRelay) -> None:
    has_heard = asyncio.Event()

    def hear(cookie: bytes, command: dict[str, object], count: int) -> list[bytes]:
        has_heard.set()
        return []

    relay.answer = hear
    client = NgClient(await relay.open())
    asking = asyncio.ensure_future(client.ask({"command": "ping"}))
    await has_heard.wait()
    client.close()
    with pytest.raises(RelayError, match="closed"):
        await asking


def test_addresses_are_written_as_they_are_typed() -> None:
    assert str(NgAddress("127.0.0.1", 22222)) == "127.0.0.1:22222"
    assert str(NgAddress("::1", 22222)) == "[::1]:22222"
