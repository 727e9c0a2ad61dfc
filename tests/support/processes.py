"""Real servers and clients as child processes: free loopback ports, output in files, ended by process id."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Below what the kernel gives to connections and to `bind` without a port (ip_local_port_range), so that nobody takes a
# port between our look and its use; above the well-known ones, and beside baresip's RTP. Each process has an order of
# its own, and gives no port twice before it has given all.
_PORTS = itertools.cycle(random.sample(range(10_000, 26_000), 16_000))


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for UDP and TCP alike, and so is the one after it."""
    for port in itertools.islice(_PORTS, 200):
        with contextlib.suppress(OSError):
            for kind, wanted in ((socket.SOCK_STREAM, port), (socket.SOCK_DGRAM, port), (socket.SOCK_STREAM, port + 1)):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((host, wanted))
            return port
    raise RuntimeError("no port is free for both UDP and TCP")


class Process:
    """A child process whose output is kept in a file that tests can watch."""

    def __init__(self, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.log = log
        self.environment = dict(environment or {})
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.command[0]} was not started"
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._child = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    async def stop(self, *, signal_number: int = signal.SIGTERM, timeout_seconds: float = 10.0) -> int:
        """End it and return its exit status; SIGKILL after `timeout_seconds`."""
        if self._child is None:
            return 0
        if self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signal_number)
            try:
                await asyncio.wait_for(self._child.wait(), timeout_seconds)
            except TimeoutError:
                self._child.kill()
                await self._child.wait()
        status = self._child.returncode
        return status if status is not None else 0

    async def kill(self) -> None:
        await self.stop(signal_number=signal.SIGKILL)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    async def wait_for_output(self, text: str, *, timeout_seconds: float = 15.0, after: int = 0) -> str:
        """Return the output once it holds `text` beyond character `after`; fails with the output's tail."""
        found: str = await wait_until(
            lambda: self.output() if text in self.output()[after:] else None,
            f"{self.command[0]} to print {text!r}",
            timeout_seconds,
            detail=lambda: self.output()[-2000:],
        )
        return found

    async def wait_for_file(self, path: Path, *, timeout_seconds: float = 15.0) -> None:
        """Return when a file exists; fails with the output's tail."""
        await wait_until(
            path.exists, f"{self.command[0]} to write {path}", timeout_seconds, detail=lambda: self.output()[-2000:]
        )


async def wait_until(
    look: Callable[[], Any],
    what: str,
    timeout_seconds: float = 15.0,
    *,
    detail: Callable[[], str] = lambda: "",
) -> Any:
    """Look at something outside our process (a file, a port) until it is there. In-process events are awaited instead.

    Args:
        look: returns the thing (or an awaitable of it); None and False mean "not yet".

    Raises:
        AssertionError: `what` did not happen in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while True:
        found = look()
        if isinstance(found, Awaitable):
            found = await found
        if found is not None and found is not False:
            return found
        if loop.time() > deadline:
            raise AssertionError(f"waited {timeout_seconds:.0f} s for {what}\n{detail()}")
        await asyncio.sleep(0.02)


async def wait_for_port(port: int, *, host: str = "127.0.0.1", timeout_seconds: float = 15.0) -> None:
    """Return when something listens on a TCP port."""

    async def connects() -> bool | None:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return None
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    await wait_until(connects, f"port {port} to be served", timeout_seconds)
