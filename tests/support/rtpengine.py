"""A real rtpengine for tests: free loopback ports, ended by process id."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from isthmus.errors import RelayError
from isthmus.net.rtpengine_ng import NgAddress, NgClient
from tests.support.processes import Process, free_port, wait_until

needs_rtpengine = pytest.mark.skipif(shutil.which("rtpengine") is None, reason="rtpengine is not installed")

# Two ports for each stream of each end; the largest call of a test has three ends with two streams.
PORTS = 200


@dataclass
class Rtpengine:
    """One relay in user space.

    Attributes:
        directory: for its log.
        options: further command line options.
    """

    directory: Path
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.address = NgAddress("127.0.0.1", free_port())
        first = free_port()
        first = min(first - first % 2, 65_000 - PORTS)
        self._process = Process(
            [
                "rtpengine",
                "--config-file=none",
                "--table=-1",
                "--interface=127.0.0.1",
                f"--listen-ng={self.address}",
                f"--port-min={first}",
                f"--port-max={first + PORTS}",
                "--foreground",
                "--log-stderr",
                "--log-level=6",
                "--num-threads=2",
                "--delete-delay=0",
                *self.options,
            ],
            self.directory / "rtpengine.log",
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._process.output()

    async def start(self) -> None:
        """Start it and wait until it takes commands."""
        await self._process.start()
        client = NgClient(self.address)

        async def answers() -> bool:
            try:
                await client.ask({"command": "ping"})
            except RelayError:
                return False
            return True

        try:
            await wait_until(answers, "rtpengine to answer", detail=lambda: self.log[-2000:])
        finally:
            client.close()

    async def calls(self) -> list[str]:
        """The call ids it knows."""
        return await relayed_calls(self.address)

    async def stop(self) -> None:
        await self._process.stop()

    async def kill(self) -> None:
        await self._process.kill()


async def relayed_calls(address: NgAddress) -> list[str]:
    """The call ids that the relay there knows."""
    client = NgClient(address)
    try:
        reply = await client.ask({"command": "list", "limit": 1000})
    finally:
        client.close()
    return [str(call) for call in reply["calls"]]
