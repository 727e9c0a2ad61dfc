"""Order, re-entrancy and failures on the bus of one node."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from isthmus.bus.in_process import InProcessBus
from isthmus.model import Address

ANA = Address("ana", "corp.test")
BEN = Address("ben", "people.test")


@dataclass(frozen=True, slots=True)
class Said:
    word: str


@dataclass(frozen=True, slots=True)
class Heard:
    word: str


@pytest.fixture
def bus() -> InProcessBus:
    return InProcessBus()


def test_a_synchronous_receiver_has_run_when_send_returns(bus: InProcessBus) -> None:
    seen: list[tuple[Address, object]] = []
    bus.register(Said, lambda address, event: seen.append((address, event)))
    bus.send(ANA, Said("hello"))
    assert seen == [(ANA, Said("hello"))]


def test_receivers_run_in_the_order_they_registered(bus: InProcessBus) -> None:
    seen: list[str] = []
    bus.register(Said, lambda address, event: seen.append("first"))
    bus.register(Said, lambda address, event: seen.append("second"))
    bus.send(ANA, Said("hello"))
    assert seen == ["first", "second"]


def test_an_event_nobody_registered_for_is_ignored(bus: InProcessBus) -> None:
    bus.send(ANA, Heard("nothing"))


async def test_bus_without_events_is_drained(bus: InProcessBus) -> None:
    await bus.drained()


def test_an_event_sent_while_its_address_is_busy_runs_after_all_receivers_of_the_first(bus: InProcessBus) -> None:
    seen: list[str] = []

    def answer(address: Address, event: Said) -> None:
        seen.append(event.word)
        if event.word == "one":
            bus.send(address, Said("two"))
            seen.append("sent two")

    bus.register(Said, answer)
    bus.register(Said, lambda address, event: seen.append(f"second {event.word}"))
    bus.send(ANA, Said("one"))
    assert seen == ["one", "sent two", "second one", "two", "second two"]


def test_an_event_to_another_address_runs_at_once(bus: InProcessBus) -> None:
    seen: list[str] = []

    def pass_on(address: Address, event: Said) -> None:
        if address == ANA:
            bus.send(BEN, event)
        seen.append(address.local)

    bus.register(Said, pass_on)
    bus.send(ANA, Said("hello"))
    assert seen == ["ben", "ana"]


async def test_events_of_one_address_wait_for_the_coroutine_of_the_one_before(bus: InProcessBus) -> None:
    seen: list[str] = []
    gate = asyncio.Event()

    async def slow(address: Address, event: Said) -> None:
        seen.append(f"begin {event.word}")
        await gate.wait()
        seen.append(f"end {event.word}")

    bus.register(Said, slow)
    bus.register(Said, lambda address, event: seen.append(f"after {event.word}"))
    bus.register(Heard, lambda address, event: seen.append(f"heard {event.word}"))
    bus.send(ANA, Said("one"))
    bus.send(ANA, Said("two"))
    bus.send(ANA, Heard("three"))
    bus.send(BEN, Heard("ben's"))
    assert seen == ["heard ben's"]
    gate.set()
    await bus.drained()
    assert seen[1:] == ["begin one", "end one", "after one", "begin two", "end two", "after two", "heard three"]


def test_a_receiver_that_raises_hides_nothing_from_the_others(bus: InProcessBus) -> None:
    seen: list[str] = []

    def fail(address: Address, event: Said) -> None:
        raise ValueError("broken receiver")

    bus.register(Said, fail)
    bus.register(Said, lambda address, event: seen.append(event.word))
    with capture_logs() as logs:
        bus.send(ANA, Said("one"))
        bus.send(ANA, Said("two"))
    assert seen == ["one", "two"]
    assert [(entry["address"], entry["event_type"]) for entry in logs] == [("ana@corp.test", "Said")] * 2


async def test_a_coroutine_that_raises_or_is_cancelled_hides_nothing_from_later_events(bus: InProcessBus) -> None:
    seen: list[str] = []

    async def fail(address: Address, event: Said) -> None:
        if event.word == "cancelled":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        raise ValueError("broken receiver")

    bus.register(Said, fail)
    bus.register(Said, lambda address, event: seen.append(event.word))
    with capture_logs() as logs:
        for word in ("raised", "cancelled", "last"):
            bus.send(ANA, Said(word))
        await bus.drained()
    assert seen == ["raised", "cancelled", "last"]
    assert len(logs) == 3


async def test_thousands_of_events_sent_from_receivers_do_not_exhaust_the_stack(bus: InProcessBus) -> None:
    seen: list[int] = []

    async def count_down(address: Address, event: Said) -> None:
        seen.append(int(event.word))
        if event.word != "0":
            bus.send(address, Said(str(int(event.word) - 1)))

    bus.register(Said, count_down)
    bus.send(ANA, Said("5000"))
    await bus.drained()
    assert len(seen) == 5001
