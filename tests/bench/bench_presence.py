"""One change of presence and who hears of it: to 1,000 watchers, and many people's changes to 50 watchers each.

A change is a PUBLISH with digest; it has arrived when every watcher has its NOTIFY (SIP) or stanza (XMPP). The
references send as many prepared NOTIFYs from a bare datagram endpoint (`reference_sip`), and as many stanzas from a
bare slixmpp component (`reference_presence`). Rounds follow each other at the pace of the notifier's throttle (five
seconds per watcher), so that none is measured by its timer.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.model import Address
from isthmus.services.notifier import THROTTLE_SECONDS
from tests.bench.consumers import Consumers
from tests.bench.hosted_site import HostedSite
from tests.bench.phones import Phone, Phones
from tests.bench.preload import Preload
from tests.bench.results import Figure
from tests.support.processes import Process, free_port

MANY_WATCHERS = 1_000
FEW_WATCHERS = 50
PUBLISHERS = 100
ROUNDS = 3
# Who publishes: one person for SIP and one for XMPP, then a hundred for each.
_TO_SIP, _TO_XMPP = slice(0, 1), slice(1, 2)
_EACH_TO_SIP, _EACH_TO_XMPP = slice(2, 2 + PUBLISHERS), slice(2 + PUBLISHERS, 2 + 2 * PUBLISHERS)
_LIMIT_SECONDS = 30.0
# After a figure: the answers to its NOTIFYs are still on their way, and belong to no other figure.
_SETTLE_SECONDS = 0.5


@dataclass(slots=True)
class _Times:
    """Seconds of each round until the last watcher knew."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0

    @property
    def typical(self) -> float:
        return statistics.median(self.seconds)


async def measure(rounds: int = ROUNDS) -> list[Figure]:
    """All figures; `rounds` times each, of which the median counts."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as name:
        folder = Path(name)
        bare_sip = [await _bare_sip(folder, rounds, *load) for load in ((1, MANY_WATCHERS), (PUBLISHERS, FEW_WATCHERS))]
        bare_xmpp = await _bare_xmpp(folder, rounds)
        site = HostedSite(folder, MANY_WATCHERS + 1)
        preload = await site.prepare()
        _fill(preload)
        await preload.write()
        try:
            told_at_start = site.consumers.expect(MANY_WATCHERS + PUBLISHERS * FEW_WATCHERS)
            await site.start()
            # What follows every start, the current state to every XMPP watcher once, must be over.
            await _wait(told_at_start.done)
            ours = await _measure_site(site, rounds)
        finally:
            await site.stop()
    return [
        *_one_change("SIP", ours[0], bare_sip[0]),
        *_one_change("XMPP", ours[1], bare_xmpp[0]),
        *_many_changes("SIP", ours[2], bare_sip[1]),
        *_many_changes("XMPP", ours[3], bare_xmpp[1]),
    ]


def _one_change(realm: str, ours: _Times, bare: _Times) -> list[Figure]:
    name = f"one change to {MANY_WATCHERS:,} {realm} watchers"
    ratio = bare.typical / ours.typical
    # Nobody should see a colleague's change later than a second after another colleague did.
    return [
        Figure(name, ours.typical * 1e3, "ms", bare.typical * 1e3, ratio, "at most 1,000", ours.typical <= 1.0),
        Figure(f"{name}: not told", ours.lost, "watchers", goal="0", met=ours.lost == 0),
    ]


def _many_changes(realm: str, ours: _Times, bare: _Times) -> list[Figure]:
    name = f"changes, each to {FEW_WATCHERS} {realm} watchers"
    value, reference = PUBLISHERS / ours.typical, PUBLISHERS / bare.typical
    return [
        Figure(name, value, "publications/s", reference, value / reference, "at least 50", value >= 50.0),
        Figure(f"{name}: not told", ours.lost, "watchers", goal="0", met=ours.lost == 0),
    ]


# --- Isthmus ------------------------------------------------------------------------------------------------------


def _fill(preload: Preload) -> None:
    people = [preload.address(number) for number in range(MANY_WATCHERS + 1)]

    def watch_by_sip(presentities: slice, count: int) -> None:
        for start, presentity in enumerate(people[presentities]):
            others = [person for person in people if person != presentity]
            for number in range(count):
                watcher = others[(start * count + number) % len(others)]
                preload.authorisation(watcher, presentity)
                preload.subscription(watcher, presentity)

    def watch_by_xmpp(presentities: slice, count: int) -> None:
        for presentity in people[presentities]:
            for number in range(count):
                preload.authorisation(Address(f"{presentity.local}w{number}", "people.test"), presentity)

    watch_by_sip(_TO_SIP, MANY_WATCHERS)
    watch_by_xmpp(_TO_XMPP, MANY_WATCHERS)
    watch_by_sip(_EACH_TO_SIP, FEW_WATCHERS)
    watch_by_xmpp(_EACH_TO_XMPP, FEW_WATCHERS)


async def _measure_site(site: HostedSite, rounds: int) -> list[_Times]:
    phones = site.phones
    times = [_Times() for _ in range(4)]
    await phones.ask_for_nonces(phones.phones[: _EACH_TO_XMPP.stop])
    for number in range(rounds):
        began = time.perf_counter()
        note = f"round {number}"
        await _to_phones(phones, phones.phones[_TO_SIP], MANY_WATCHERS, note, times[0])
        await _to_consumers(site, phones.phones[_TO_XMPP], MANY_WATCHERS, note, times[1])
        await _to_phones(phones, phones.phones[_EACH_TO_SIP], FEW_WATCHERS, note, times[2])
        await _to_consumers(site, phones.phones[_EACH_TO_XMPP], FEW_WATCHERS, note, times[3])
        # The throttle counts from the last NOTIFY of the round.
        await asyncio.sleep(THROTTLE_SECONDS + time.perf_counter() - began)
    return times


async def _to_phones(phones: Phones, publishers: Sequence[Phone], watchers: int, note: str, times: _Times) -> None:
    wanted = len(publishers) * watchers
    seen = phones.expect_notifications(wanted)
    began = time.perf_counter()
    run = await phones.run(phones.publish(phone, "busy", note) for phone in publishers)
    await _wait(seen.done)
    times.seconds.append(seen.last_at - began)
    times.lost += wanted - len(seen.dialogs) + run.lost + sum(run.errors.values())
    await asyncio.sleep(_SETTLE_SECONDS)


async def _to_consumers(site: HostedSite, publishers: Sequence[Phone], watchers: int, note: str, times: _Times) -> None:
    wanted = len(publishers) * watchers
    seen = site.consumers.expect(wanted)
    began = time.perf_counter()
    run = await site.phones.run(site.phones.publish(phone, "busy", note) for phone in publishers)
    await _wait(seen.done)
    times.seconds.append(seen.last_at - began)
    times.lost += wanted - len(seen.watchers) + run.lost + sum(run.errors.values())
    await asyncio.sleep(_SETTLE_SECONDS)


async def _wait(done: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(done.wait(), _LIMIT_SECONDS)
    except TimeoutError:
        return  # what is missing is counted


# --- references ---------------------------------------------------------------------------------------------------


async def _bare_sip(folder: Path, rounds: int, publishers: int, watchers: int) -> _Times:
    phones = Phones(publishers)
    await phones.open()
    port = free_port()
    phones.target = ("127.0.0.1", port)
    command = [sys.executable, "-m", "tests.bench.reference_sip", str(port), "--watchers", str(watchers)]
    process = Process(command, folder / f"reference-{port}.log")
    times = _Times()
    try:
        await process.start()
        await process.wait_for_output("ready")
        await _to_phones(phones, phones.phones, watchers, "warm-up", _Times())
        for number in range(rounds):
            await _to_phones(phones, phones.phones, watchers, f"round {number}", times)
    finally:
        await process.stop()
        phones.close()
    return times


async def _bare_xmpp(folder: Path, rounds: int) -> list[_Times]:
    consumers = Consumers()
    await consumers.open()
    command = [sys.executable, "-m", "tests.bench.reference_presence", str(consumers.component_port)]
    process = Process(command, folder / "reference-presence.log")
    times = [_Times(), _Times()]
    try:
        await process.start()
        await consumers.connected()
        for _ in range(rounds):
            for kept, publishers, watchers in ((times[0], 1, MANY_WATCHERS), (times[1], PUBLISHERS, FEW_WATCHERS)):
                seen = consumers.expect(publishers * watchers)
                began = time.perf_counter()
                consumers.write(
                    "".join(
                        f"<message from='bench@people.test' to='p@corp.test'><body>tell p{number} {watchers}</body>"
                        "</message>"
                        for number in range(publishers)
                    )
                )
                await _wait(seen.done)
                kept.seconds.append(seen.last_at - began)
    finally:
        await process.stop()
        consumers.close()
    return times
