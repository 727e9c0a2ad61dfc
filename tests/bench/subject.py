"""The Isthmus under measurement: an own process with an own data directory, between the neighbours of the bench."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Protocol

from tests.support.processes import Process, free_port, wait_until

_CONFIGURATION = """\
[sip]
listeners = [{{transport = "udp", host = "127.0.0.1", port = {sip_port}}}]

[xmpp]
host = "127.0.0.1"
component_port = {component_port}
consumer_domain = "people.test"
embedded = false

[[domains]]
name = "{domain}"
kind = "{kind}"
component_secret = "{secret}"
{peers}

[limits]
user_requests_per_second = 1000000
user_burst = 1000000
peer_requests_per_second = 1000000
peer_burst = 1000000
unauthenticated_per_second = 1000000
unauthenticated_burst = 1000000

[web]
port = 0

[log]
level = "warning"
"""


# Nothing else may run beside what is measured.
_NO_MEDIA = """
[media]
embedded = false

[turn]
embedded = false
"""


class Surroundings(Protocol):
    """Who stands on both sides of the gateway.

    Attributes:
        domain, secret: of its component.
        component_port: where the XMPP server takes it.
        sip_port: where the SIP side listens on UDP.
        sip_target: where the gateway will listen; the subject sets it.
    """

    domain: str
    secret: str
    component_port: int
    sip_port: int
    sip_target: tuple[str, int]


class Subject:
    """Starts `isthmus serve` and knows what it uses.

    Args:
        settings: further TOML, media among it; without any there is no media relay.

    Attributes:
        control_port: of the embedded media relay, where there is one.
    """

    def __init__(self, data: Path, neighbours: Surroundings, *, kind: str = "routed", settings: str = "") -> None:
        self.data = data
        self.control_port = 0
        self.sip_port = free_port()
        neighbours.sip_target = ("127.0.0.1", self.sip_port)
        peers = f'peers = [{{host = "127.0.0.1", port = {neighbours.sip_port}, transport = "udp"}}]'
        data.mkdir(parents=True, mode=0o700)
        (data / "isthmus.toml").write_text(
            _CONFIGURATION.format(
                sip_port=self.sip_port,
                component_port=neighbours.component_port,
                domain=neighbours.domain,
                secret=neighbours.secret,
                kind=kind,
                peers=peers if kind == "routed" else "",
            )
            + (settings or _NO_MEDIA)
        )
        self.process = Process(
            [sys.executable, "-m", "isthmus.cli", "serve"],
            data.parent / "isthmus.log",
            environment={"ISTHMUS_DATA": str(data)},
        )

    async def start(self) -> float:
        """Return seconds from the command to the ready file."""
        began = time.perf_counter()
        await self.process.start()
        await wait_until(
            lambda: (self.data / "ready").exists() or not self.process.is_running,
            "isthmus to be ready",
            60,
            detail=self.process.output,
        )
        assert self.process.is_running, self.process.output()
        return time.perf_counter() - began

    async def stop(self) -> None:
        await self.process.stop()

    @property
    def resident_megabytes(self) -> float:
        """Memory that the process holds now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    @property
    def cpu_seconds(self) -> float:
        """Processor time used so far, by all threads."""
        return cpu_seconds(self.process.pid)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
