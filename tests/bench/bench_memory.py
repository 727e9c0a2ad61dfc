"""Memory and start with 10,000 registered users who have 10 contacts each in the other realm.

Three gateways are started on prepared stores: with one user (the reference: what the process needs by itself), with
all users registered and published, and with all their contacts as well, both directions granted and a presence of
every contact known. The differences are what a user and a contact cost.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from isthmus.model import Address
from isthmus.services.xmpp_presence import REFRESHES_PER_SECOND
from tests.bench.hosted_site import HostedSite
from tests.bench.results import Figure

PEOPLE = 10_000
CONTACTS_EACH = 10
GOAL_MEGABYTES = 600.0
GOAL_START_SECONDS = 10.0
# The first seconds after "ready": whoever floods does it now.
WATCHED_SECONDS = 10.0
# Presence of consumers is fed in slices, so that what is measured is memory and not a queue of unread stanzas.
_SLICE = 1_000


@dataclass(slots=True)
class _Measured:
    megabytes: float
    start_seconds: float = 0.0
    busiest_second: int = 0


async def measure() -> list[Figure]:
    """All figures of memory and of the start."""
    empty = await _run(people=1, contacts=0)
    registered = await _run(people=PEOPLE, contacts=0)
    full = await _run(people=PEOPLE, contacts=CONTACTS_EACH)
    per_user = (registered.megabytes - empty.megabytes) * 1024 / PEOPLE
    per_contact = (full.megabytes - registered.megabytes) * 1024 / (PEOPLE * CONTACTS_EACH)
    storm = REFRESHES_PER_SECOND * 1.2
    return [
        Figure(
            f"memory with {PEOPLE:,} users and {CONTACTS_EACH} contacts each",
            full.megabytes,
            "MB",
            empty.megabytes,
            empty.megabytes / full.megabytes,
            f"under {GOAL_MEGABYTES:g}",
            full.megabytes < GOAL_MEGABYTES,
        ),
        Figure("memory per registered user", per_user, "KiB"),
        Figure("memory per contact in the other realm", per_contact, "KiB"),
        Figure(
            "start with all of them",
            full.start_seconds,
            "s",
            empty.start_seconds,
            empty.start_seconds / full.start_seconds,
            f"under {GOAL_START_SECONDS:g}",
            full.start_seconds < GOAL_START_SECONDS,
        ),
        Figure(
            "presence stanzas in the busiest second after the start",
            full.busiest_second,
            "stanzas/s",
            goal=f"at most {storm:,.0f}",
            met=full.busiest_second <= storm,
        ),
    ]


async def _run(*, people: int, contacts: int) -> _Measured:
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as name:
        site = HostedSite(Path(name), people)
        preload = await site.prepare()
        preload.registrations()
        preload.publications()
        for number in range(people):
            preload.contacts((preload.address(number), _consumer(number, other)) for other in range(contacts))
        await preload.write()
        try:
            told = site.consumers.expect(0)
            seconds = await site.start()
            await site.consumers.connected()
            if contacts:
                await asyncio.sleep(WATCHED_SECONDS)
                busiest = max(Counter(int(at) for at in told.arrived_at).values(), default=0)
                await _show_everybody(site, people, contacts)
            else:
                busiest = 0
            return _Measured(site.subject.resident_megabytes, seconds, busiest)
        finally:
            await site.stop()


def _consumer(number: int, other: int) -> Address:
    return Address(f"ben{number}-{other}", "people.test")


async def _show_everybody(site: HostedSite, people: int, contacts: int) -> None:
    """Every consumer becomes available to the user who watches them."""
    stanzas = [
        f"<presence from='ben{number}-{other}@people.test/phone' to='{site.phones.phones[number].user}@{site.domain}'>"
        f"<show>away</show><status>back at {other}</status></presence>"
        for number in range(people)
        for other in range(contacts)
    ]
    for start in range(0, len(stanzas), _SLICE):
        site.consumers.write("".join(stanzas[start : start + _SLICE]))
        before = site.subject.cpu_seconds
        # Read when the gateway has become quiet again.
        while True:
            await asyncio.sleep(0.05)
            now = site.subject.cpu_seconds
            if now - before < 0.03:
                break
            before = now
