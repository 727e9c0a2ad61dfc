"""Messages per second and latency through one process, journalled, beside a bare slixmpp echo."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.neighbours import Neighbours, Run
from tests.bench.results import Figure, rate
from tests.bench.subject import Subject
from tests.support.processes import Process

WARM_UP = 1_000
# The reference and both directions take turns, and the middle one of their runs counts: who else uses the machine
# changes from second to second, and would make a ratio of two single runs a matter of luck.
ROUNDS = 3
_NAMES = {"sip-xmpp": "SIP -> XMPP", "xmpp-sip": "XMPP -> SIP"}


async def measure(count: int = 20_000) -> list[Figure]:
    """Routed domain over UDP, 32 in flight, journalled."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as name:
        folder = Path(name)
        async with _echo(folder) as echo, _isthmus(folder) as isthmus:
            parties = {"echo": echo, "sip-xmpp": isthmus, "xmpp-sip": isthmus}
            runs: dict[str, list[Run]] = {direction: [] for direction in parties}
            for direction, neighbours in parties.items():
                await neighbours.measure(direction, WARM_UP)
            for _ in range(ROUNDS):
                for direction, neighbours in parties.items():
                    runs[direction].append(await neighbours.measure(direction, count))
    reference = _middle(runs["echo"])
    figures = [Figure("slixmpp echo", reference.per_second, "messages/s")]
    for direction, name in _NAMES.items():
        figures += _figures(name, runs[direction], reference)
    return figures


def _middle(runs: list[Run]) -> Run:
    return sorted(runs, key=lambda run: run.per_second)[len(runs) // 2]


def _figures(name: str, runs: list[Run], echo: Run) -> list[Figure]:
    run = _middle(runs)
    failures = sum(each.lost + sum(each.errors.values()) for each in runs)
    return [
        rate(name, run.per_second, "messages/s", echo.per_second, 1.0),
        Figure(f"{name} p50", run.percentile(0.5) * 1e3, "ms", echo.percentile(0.5) * 1e3),
        Figure(f"{name} p99", run.percentile(0.99) * 1e3, "ms", echo.percentile(0.99) * 1e3),
        Figure(f"{name} lost or refused", failures, "messages", goal="0", met=not failures),
    ]


@asynccontextmanager
async def _isthmus(folder: Path) -> AsyncIterator[Neighbours]:
    neighbours = Neighbours()
    await neighbours.open()
    subject = Subject(folder / "data", neighbours)
    try:
        await subject.start()
        await neighbours.component_connected()
        yield neighbours
    finally:
        await subject.stop()
        neighbours.close()


@asynccontextmanager
async def _echo(folder: Path) -> AsyncIterator[Neighbours]:
    neighbours = Neighbours()
    await neighbours.open()
    process = Process(
        [sys.executable, "-m", "tests.bench.reference_echo", str(neighbours.component_port)], folder / "echo.log"
    )
    try:
        await process.start()
        await neighbours.component_connected()
        yield neighbours
    finally:
        await process.stop()
        neighbours.close()
