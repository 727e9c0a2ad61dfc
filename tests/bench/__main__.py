"""Measure Isthmus. usage: scripts/bench [--json] [messages|presence|registrations|calls|memory ...]"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

import uvloop

from tests.bench import bench_calls, bench_memory, bench_messages, bench_presence, bench_registrations
from tests.bench.results import Figure, as_json, as_table

BENCHES = {
    "messages": bench_messages.measure,
    "registrations": bench_registrations.measure,
    "presence": bench_presence.measure,
    "calls": bench_calls.measure,
    "memory": bench_memory.measure,
}


def main() -> int:
    """Run the named benches, or all."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("benches", nargs="*", metavar="bench", help=f"one of {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.benches if name not in BENCHES]
    if unknown:
        parser.error(f"no bench is called {', '.join(unknown)}; there are {', '.join(BENCHES)}")

    async def run() -> list[Figure]:
        figures: list[Figure] = []
        for name in arguments.benches or BENCHES:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            figures += await BENCHES[name]()
        return figures

    figures = uvloop.run(run()) if "uvloop" in sys.modules else asyncio.run(run())
    print(as_json(figures) if arguments.json else as_table(figures) + f"\n{os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
