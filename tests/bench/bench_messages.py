"""Messages per second and latency through one process, journalled, beside a bare slixmpp echo."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.neighbours import Neighbours, Run
from tests.bench.results import Figure, rate
from tests.bench.subject import Subject
from tests.support.processes import Process

WARM_UP = 1_000
_NAMES = {"sip-xmpp": "SIP -> XMPP", "xmpp-sip": "XMPP -> SIP"}


async def measure(count: int = 20_000) -> list[Figure]:
    """Routed domain over UDP, 32 in flight, journalled."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        echo = await _reference(Path(folder), count)
        figures = [Figure("slixmpp echo", echo.per_second, "messages/s")]
        neighbours = Neighbours()
        await neighbours.open()
        subject = Subject(Path(folder) / "data", neighbours)
        try:
            await subject.start()
            await neighbours.component_connected()
            for direction, name in _NAMES.items():
                await neighbours.measure(direction, WARM_UP)
                run = await neighbours.measure(direction, count)
                figures += _figures(name, run, echo)
        finally:
            await subject.stop()
            neighbours.close()
    return figures


def _figures(name: str, run: Run, echo: Run) -> list[Figure]:
    return [
        rate(name, run.per_second, "messages/s", echo.per_second, 1.0),
        Figure(f"{name} p50", run.percentile(0.5) * 1e3, "ms", echo.percentile(0.5) * 1e3),
        Figure(f"{name} p99", run.percentile(0.99) * 1e3, "ms", echo.percentile(0.99) * 1e3),
        Figure(
            f"{name} lost or refused",
            run.lost + sum(run.errors.values()),
            "messages",
            goal="0",
            met=not run.lost and not run.errors,
        ),
    ]


async def _reference(folder: Path, count: int) -> Run:
    neighbours = Neighbours()
    await neighbours.open()
    process = Process(
        [sys.executable, "-m", "tests.bench.reference_echo", str(neighbours.component_port)], folder / "echo.log"
    )
    try:
        await process.start()
        await neighbours.component_connected()
        await neighbours.measure("echo", WARM_UP)
        return await neighbours.measure("echo", count)
    finally:
        await process.stop()
        neighbours.close()
