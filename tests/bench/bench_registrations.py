"""Registrations per second: digest (SHA-256, nonce kept), over UDP, 32 in flight, durable before they are confirmed.

The reference is `reference_sip`: a bare datagram endpoint that checks the digest and commits the Contact to SQLite
before it answers, one registration after the other. It was chosen because it needs nothing but Python, makes the same
promise, and is not ours: our own endpoint with an empty service would make the ratio better whenever the endpoint
itself became slower. The same endpoint without the database is shown for orientation.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.hosted_site import HostedSite
from tests.bench.neighbours import Run
from tests.bench.phones import Phones
from tests.bench.results import Figure
from tests.bench.subject import cpu_seconds
from tests.support.processes import Process, free_port

PEOPLE = 5_000
# A company's phones all come back at once after a power cut: 10,000 of them should not wait longer than ten seconds.
LEAST_PER_SECOND = 1_000.0


async def measure(people: int = PEOPLE) -> list[Figure]:
    """First registrations of everybody, then refreshes of everybody."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        bare = await _reference(Path(folder), people, [])
        reference = await _reference(Path(folder), people, ["--database", f"{folder}/reference.db"])
        site = HostedSite(Path(folder), people)
        await (await site.prepare()).write()
        try:
            await site.start()
            phones = site.phones
            await phones.ask_for_nonces(phones.phones)
            figures = [Figure("bare endpoint, in memory", bare.run.per_second, "registrations/s")]
            for name in ("first registration", "refresh"):
                before = site.subject.cpu_seconds
                run = await phones.run(phones.every(phones.register))
                cost = (site.subject.cpu_seconds - before) / people
                figures += _figures(name, Measured(run, cost), reference)
            return figures
        finally:
            await site.stop()


@dataclass(frozen=True, slots=True)
class Measured:
    """A run, and the processor time of the server for each registration in seconds."""

    run: Run
    cost: float


def _figures(name: str, measured: Measured, reference: Measured) -> list[Figure]:
    run, bare = measured.run, reference.run
    failures = run.lost + sum(run.errors.values())
    return [
        Figure(
            name,
            run.per_second,
            "registrations/s",
            bare.per_second,
            run.per_second / bare.per_second,
            f"at least {LEAST_PER_SECOND:,.0f}",
            run.per_second >= LEAST_PER_SECOND,
        ),
        Figure(
            f"{name}: processor time", measured.cost * 1e6, "µs", reference.cost * 1e6, reference.cost / measured.cost
        ),
        Figure(f"{name} p99", run.percentile(0.99) * 1e3, "ms", bare.percentile(0.99) * 1e3),
        Figure(f"{name}: lost or refused", failures, "registrations", goal="0", met=failures == 0),
    ]


async def _reference(folder: Path, people: int, options: list[str]) -> Measured:
    phones = Phones(people)
    await phones.open()
    port = free_port()
    phones.target = ("127.0.0.1", port)
    command = [sys.executable, "-m", "tests.bench.reference_sip", str(port), *options]
    process = Process(command, folder / f"reference-{port}.log")
    try:
        await process.start()
        await process.wait_for_output("ready")
        await phones.ask_for_nonces(phones.phones)
        before = cpu_seconds(process.pid)
        run = await phones.run(phones.every(phones.register))
        return Measured(run, (cpu_seconds(process.pid) - before) / people)
    finally:
        await process.stop()
        phones.close()
