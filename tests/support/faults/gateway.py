"""The gateway under attack: a real `isthmus serve` child, seen from outside only (ports, files, log, metrics)."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import httpx

from tests.support.processes import Process, free_port, wait_until

SECRET = "component-secret-of-the-test"
PASSWORD = "correct-horse-battery"

_HEAD = """\
[sip]
listeners = [{listeners}]
{sip}
[xmpp]
host = "127.0.0.1"
component_port = {component_port}
consumer_domain = "people.test"
embedded = false
reconnect_maximum_seconds = 0.5

[web]
port = {web_port}

[media]
control_port = {relay_port}

[turn]
port = {turn_port}

{sections}
"""

_DOMAIN = """\
[[domains]]
name = "{name}"
kind = "{kind}"
component_secret = "{secret}"
{peers}
"""


def hosted(name: str) -> str:
    """TOML of a domain whose users register with us."""
    return _DOMAIN.format(name=name, kind="hosted", secret=SECRET, peers="")


def routed(name: str, host: str, port: int, *, transport: str = "udp") -> str:
    """TOML of a domain whose users a neighbour owns."""
    peers = f'peers = [{{host = "{host}", port = {port}, transport = "{transport}"}}]'
    return _DOMAIN.format(name=name, kind="routed", secret=SECRET, peers=peers)


class Gateway:
    """One installation without an own Prosody.

    Args:
        folder: empty directory; the data directory is made in it.
        component_port: of the XMPP server.
        domains: TOML of the business domains (`hosted`, `routed`).
        sections: further TOML sections (limits, log).
        sip: further lines of the section [sip].
        transports: listeners besides UDP and TCP, which share `sip_port`.
        command: what starts the server; for wrappers such as prlimit.
    """

    def __init__(
        self,
        folder: Path,
        component_port: int,
        *domains: str,
        sections: str = "",
        sip: str = "",
        transports: tuple[str, ...] = ("ws",),
        command: tuple[str, ...] = (sys.executable, "-m", "isthmus.cli", "serve"),
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.sip_port, self.web_port = free_port(), free_port()
        self.ports = {"udp": self.sip_port, "tcp": self.sip_port, **{name: free_port() for name in transports}}
        listeners = ", ".join(
            f'{{transport = "{name}", host = "127.0.0.1", port = {port}}}' for name, port in self.ports.items()
        )
        self.data.mkdir(parents=True, mode=0o700)
        self.configuration = self.data / "isthmus.toml"
        self.configuration.write_text(
            _HEAD.format(
                listeners=listeners,
                sip=sip,
                component_port=component_port,
                web_port=self.web_port,
                relay_port=free_port(),
                turn_port=free_port(),
                sections=sections + "\n" + "\n".join(domains),
            )
        )
        self.configuration.chmod(0o600)
        self.process = Process(list(command), folder / "isthmus.log", environment={"ISTHMUS_DATA": str(self.data)})

    @property
    def udp(self) -> tuple[str, int]:
        """Where SIP over UDP and TCP is served."""
        return "127.0.0.1", self.sip_port

    # --- life ---

    async def start(self) -> None:
        """Start and wait until it is ready, or fail with its log."""
        await self.begin()
        await wait_until(
            lambda: (self.data / "ready").exists() or not self.process.is_running,
            "isthmus to be ready",
            60,
            detail=self.process.output,
        )
        assert self.process.is_running, self.process.output()

    async def begin(self) -> None:
        """Start without waiting."""
        (self.data / "ready").unlink(missing_ok=True)
        await self.process.start()

    async def refuses_to_start(self, seconds: float = 30.0) -> tuple[int, str]:
        """Start something that must end by itself; return exit status and what it said."""
        before = len(self.process.output())
        await self.begin()
        await wait_until(lambda: not self.process.is_running, "isthmus to give up", seconds, detail=self.process.output)
        return await self.process.stop(), self.process.output()[before:]

    async def stop(self) -> int:
        """Ask it to end; return its exit status."""
        return await self.process.stop(timeout_seconds=20)

    async def kill(self) -> None:
        """kill -9."""
        await self.process.kill()

    async def cli(self, *arguments: str, check: bool = True) -> str:
        """Run `isthmus ARGUMENTS` and return what it prints."""
        child = Process(
            [sys.executable, "-m", "isthmus.cli", *arguments],
            self.folder / f"cli-{len(list(self.folder.glob('cli-*')))}.log",
            environment=self.process.environment,
        )
        await child.start()
        await wait_until(lambda: not child.is_running, f"isthmus {arguments}", 30, detail=child.output)
        status = await child.stop()
        assert not check or status == 0, f"isthmus {arguments}: {status}\n{child.output()}"
        return child.output()

    async def add_users(self, *users: str, password: str = PASSWORD) -> None:
        """Make accounts."""
        secret = self.folder / "password"
        secret.write_text(password + "\n")
        for user in users:
            await self.cli("user", "add", user, "--password-file", str(secret))
        secret.unlink()

    # --- what is seen from outside ---

    @property
    def log(self) -> str:
        """Everything it wrote."""
        return self.process.output()

    async def metrics(self) -> dict[str, float]:
        """All numbers of /metrics by name with labels."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{self.web_port}/metrics", timeout=30)).text
        rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    async def transactions(self) -> float:
        """Unfinished SIP transactions of both sides."""
        return (await self.metrics())["isthmus_sip_transactions"]

    @property
    def resident_megabytes(self) -> float:
        """Memory that the process holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    @property
    def sockets(self) -> int:
        """Open sockets of the process."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        count = 0
        for descriptor in folder.iterdir():
            try:
                count += os.readlink(descriptor).startswith("socket:")
            except FileNotFoundError:
                continue
        return count

    def assert_unharmed(self) -> None:
        """It runs, and nothing of what it wrote tells of a mistake of ours."""
        assert self.process.is_running, self.log[-4_000:]
        for sign in ("Traceback", "a service failed", "was not taken", "a receiver failed", "an error of ours"):
            assert sign not in self.log, self.log[-6_000:]
        levels = [json.dumps(line) for line in self.log.splitlines() if "[error" in line or "[critical" in line]
        assert not levels, "\n".join(levels)
