"""Calls through one process: set-ups a second, the delay it adds, memory, and what relayed media lose on their way."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from pathlib import Path

from isthmus.net.rtpengine_ng import NgAddress
from tests.bench.call_neighbours import CallNeighbours, CallRun
from tests.bench.media_flow import Flow, media_socket, stream
from tests.bench.reference_calls import relay_operations
from tests.bench.results import Figure
from tests.bench.subject import Subject
from tests.support.processes import Process, free_port, wait_until

WARM_UP, COUNT, KEPT = 100, 1_000, 200
RATE, RATE_COUNT = 100.0, 1_000
MEDIA_CALLS, MEDIA_SECONDS = 100, 5.0

_MEDIA = """
[media]
embedded = {embedded}
control_port = {control_port}
first_port = 30000
last_port = 39999

[turn]
embedded = false

[[domains]]
name = "pbx.test"
kind = "routed"
component_secret = "secret"
peers = [{{host = "127.0.0.1", port = {sip_port}, transport = "udp"}}]
"""


async def measure() -> list[Figure]:
    """SIP to Jingle with direct and with relayed media; SIP to SIP for the media themselves."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        bare = await _reference(Path(folder))
        figures = [
            Figure("bare SIP callee: calls", bare.per_second, "calls/s"),
            *await _direct(Path(folder), bare),
        ]
        if shutil.which("rtpengine") is None:
            return figures
        return [*figures, *await _relayed(Path(folder), bare)]


async def _reference(folder: Path) -> CallRun:
    neighbours = CallNeighbours(is_relayed=True)
    await neighbours.open()
    port = free_port()
    process = Process([sys.executable, "-m", "tests.bench.reference_calls", str(port)], folder / "callee.log")
    try:
        await process.start()
        neighbours.sip_target = ("127.0.0.1", port)
        await _answers(port)
        await neighbours.as_fast_as_possible(WARM_UP)
        return await neighbours.as_fast_as_possible(COUNT)
    finally:
        await process.stop()
        neighbours.close()


async def _answers(port: int) -> None:
    def is_taken() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return True
        return False

    await wait_until(is_taken, "the bare callee to listen")


async def _direct(folder: Path, bare: CallRun) -> list[Figure]:
    neighbours, subject = await _started(folder / "direct", is_relayed=False)
    try:
        await neighbours.as_fast_as_possible(WARM_UP)
        fast = await neighbours.as_fast_as_possible(COUNT)
        paced = await neighbours.at_a_rate(RATE_COUNT, RATE)
        before = subject.resident_megabytes
        kept = await neighbours.keep(KEPT)
        held = subject.resident_megabytes - before
        return [
            *_set_ups("SIP -> Jingle, direct media", fast, paced, bare),
            Figure("memory per call, direct media", held * 1024 / max(1, kept.ended), "KiB"),
        ]
    finally:
        await subject.stop()
        neighbours.close()


async def _relayed(folder: Path, bare: CallRun) -> list[Figure]:
    neighbours, subject = await _started(folder / "relayed", is_relayed=True)
    try:
        await neighbours.as_fast_as_possible(WARM_UP)
        fast = await neighbours.as_fast_as_possible(COUNT)
        paced = await neighbours.at_a_rate(RATE_COUNT, RATE)
        relay = await relay_operations(NgAddress("127.0.0.1", subject.control_port), COUNT)
        figures = _set_ups("SIP -> Jingle, relayed media", fast, paced, bare)
        figures[0] = Figure(
            figures[0].name,
            fast.per_second,
            "calls/s",
            relay,
            fast.per_second / relay,
            "at least 100",
            fast.per_second >= 100,
        )
        neighbours.callee = "pat{}@pbx.test"
        return [*figures, *await _media(neighbours)]
    finally:
        await subject.stop()
        neighbours.close()


async def _started(data: Path, *, is_relayed: bool) -> tuple[CallNeighbours, Subject]:
    neighbours = CallNeighbours(is_relayed=is_relayed)
    await neighbours.open()
    control_port = free_port()
    settings = _MEDIA.format(embedded=str(is_relayed).lower(), control_port=control_port, sip_port=neighbours.sip_port)
    subject = Subject(data / "data", neighbours, settings=settings)
    subject.control_port = control_port
    await subject.start()
    await neighbours.component_connected()
    return neighbours, subject


def _set_ups(name: str, fast: CallRun, paced: CallRun, bare: CallRun) -> list[Figure]:
    added = {share: (paced.percentile(share) - bare.percentile(0.5)) * 1e3 for share in (0.5, 0.99)}
    failed = sum(fast.errors.values()) + sum(paced.errors.values())
    return [
        Figure(
            name,
            fast.per_second,
            "calls/s",
            bare.per_second,
            fast.per_second / bare.per_second,
            "at least 100",
            fast.per_second >= 100,
        ),
        Figure(f"{name}: added delay p50 at {RATE:.0f}/s", added[0.5], "ms", goal="under 30", met=added[0.5] < 30),
        Figure(f"{name}: added delay p99 at {RATE:.0f}/s", added[0.99], "ms", goal="under 30", met=added[0.99] < 30),
        Figure(f"{name}: failed", failed, "calls", goal="0", met=not failed),
    ]


async def _media(neighbours: CallNeighbours) -> list[Figure]:
    """RTP of many calls at once through the relay, beside the same packets from socket to socket."""
    mouths = [media_socket() for _ in range(MEDIA_CALLS)]
    ears = [media_socket() for _ in range(MEDIA_CALLS)]
    try:
        plain = await stream(
            [(mouth, ear.getsockname(), ear) for mouth, ear in zip(mouths, ears, strict=True)], MEDIA_SECONDS
        )
        relayed = await _through_the_relay(neighbours, mouths, ears)
    finally:
        for made in (*mouths, *ears):
            made.close()
    return [
        Figure(
            f"relayed media, {MEDIA_CALLS} calls: added delay p50",
            (relayed.percentile(0.5) - plain.percentile(0.5)) * 1e3,
            "ms",
        ),
        Figure(
            f"relayed media, {MEDIA_CALLS} calls: added delay p99",
            (relayed.percentile(0.99) - plain.percentile(0.99)) * 1e3,
            "ms",
        ),
        Figure(f"relayed media, {MEDIA_CALLS} calls: loss", relayed.loss, "%", plain.loss),
    ]


async def _through_the_relay(
    neighbours: CallNeighbours, mouths: list[socket.socket], ears: list[socket.socket]
) -> Flow:
    """Ports of caller and callee are taken in turn: INVITE and answer of each call follow one another."""
    by_port = {made.getsockname()[1]: made for made in (*mouths, *ears)}
    ports = iter(
        [
            port
            for pair in zip(mouths, ears, strict=True)
            for port in (pair[0].getsockname()[1], pair[1].getsockname()[1])
        ]
    )
    neighbours.answer_port = lambda: next(ports)
    neighbours.relay_ports.clear()
    for _ in mouths:
        await neighbours.keep(1)
    pairs = []
    for relay_port, caller_port in neighbours.relay_ports.values():
        mouth = by_port[caller_port]
        pairs.append((mouth, ("127.0.0.1", relay_port), ears[mouths.index(mouth)]))
    return await stream(pairs, MEDIA_SECONDS)
