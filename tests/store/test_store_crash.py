"""SIGKILL at random instants: every append that had returned is there afterwards."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

from isthmus.store.sql_store import SqlStore

_APPEND_ON = """
import asyncio, os, sys
from pathlib import Path
from isthmus.model import Address, Message
from isthmus.ports import JournalEntry
from isthmus.store.sql_store import SqlStore

run = sys.argv[2]
ana, ben = Address("ana", "corp.test"), Address("ben", "people.test")

async def append_on(store, name):
    number = 0
    while True:
        number += 1
        id = f"{run}-{name}-{number}"
        message = Message(id=id, sender=ana, recipient=ben, text="x" * 200)
        sequence = await store.journal.append(JournalEntry(message, 2e9, origin_key=id))
        os.write(1, f"kept {id}\\n".encode())
        if number % 2:
            os.write(1, f"settling {id}\\n".encode())
            store.journal.settle(sequence)

async def main():
    store = SqlStore(Path(sys.argv[1]))
    await store.open()
    await asyncio.gather(*(append_on(store, name) for name in range(8)))

asyncio.run(main())
"""


def lines_until_killed(directory: Path, run: int, lines_before: int) -> list[str]:
    with subprocess.Popen(
        [sys.executable, "-c", _APPEND_ON, str(directory), str(run)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(lines_before)]
        process.kill()
        lines += process.stdout.readlines()
        assert process.wait() == -signal.SIGKILL
    return [line.strip() for line in lines if line.endswith("\n")]


async def test_no_append_that_had_returned_is_lost_by_kill_9(tmp_path: Path) -> None:
    instants = random.Random(7)
    kept: set[str] = set()
    settling: set[str] = set()
    for run in range(4):
        for line in lines_until_killed(tmp_path, run, instants.randrange(1, 2_000)):
            word, _, message_id = line.partition(" ")
            (kept if word == "kept" else settling).add(message_id)
        store = SqlStore(tmp_path)
        await store.open()
        entries = await store.journal.pending()
        pending = {entry.message.id for entry in entries}
        assert len(pending) == len(entries)
        assert kept - settling <= pending
        # Known over the crash as well: a retransmission is no new message.
        unsettled = entries[-1]
        assert await store.journal.append(unsettled) == 0
        await store.close()
    assert len(kept) > 100
