"""JsSIP, the SIP stack of browsers, in Node: registers over WebSocket, sends and receives MESSAGE."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "interop" / "jssip" / "client.mjs"

needs_jssip = pytest.mark.skipif(
    shutil.which("node") is None or not (SCRIPT.parent / "node_modules" / "jssip").is_dir(),
    reason="JsSIP is not installed: run `npm ci` in tests/interop/jssip",
)


@dataclass
class JsSip:
    """One user agent.

    Args:
        url: of the WebSocket, `ws://127.0.0.1:5066`.
        authority: PEM file of whom it believes besides those that everybody does.
    """

    url: str
    address: str
    password: str
    authority: Path | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    _child: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Connect and register; fails when the registration does."""
        self._child = await asyncio.create_subprocess_exec(
            *("node", str(SCRIPT), self.url, self.address, self.password),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **({"NODE_EXTRA_CA_CERTS": str(self.authority)} if self.authority else {})},
        )
        self._reader = asyncio.create_task(self._read())
        told = await self.expect("registered", "registration failed")
        assert told["event"] == "registered", told

    async def stop(self) -> None:
        """Close its input and end it."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()
        if self._reader is not None:
            await self._reader
        if self._child.stdin is not None:
            self._child.stdin.close()
            with contextlib.suppress(OSError):
                await self._child.stdin.wait_closed()

    async def command(self, command: str, **parameters: str) -> None:
        """Write one command, see client.mjs."""
        assert self._child is not None, "start it first"
        assert self._child.stdin is not None, "it was made with a pipe"
        self._child.stdin.write(json.dumps({"command": command, **parameters}).encode() + b"\n")
        await self._child.stdin.drain()

    async def message(self, text: str) -> dict[str, Any]:
        """Return and take the received message with this text; one that was not yet answered may come again."""
        return await self.expect("message", text=text)

    async def expect(self, *names: str, seconds: float = 10.0, **details: str) -> dict[str, Any]:
        """Return and take the first event of one of these names and with these details, now or when it comes."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for event in self.events:
                        if event["event"] in names and details.items() <= event.items():
                            self.events.remove(event)
                            return event
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"JsSIP: waited {seconds:g} s for {' or '.join(names)}; had {self.events}") from None

    async def _read(self) -> None:
        assert self._child is not None, "started before"
        assert self._child.stdout is not None, "it was made with a pipe"
        async for line in self._child.stdout:
            self.events.append(json.loads(line))
            self._arrived.set()
