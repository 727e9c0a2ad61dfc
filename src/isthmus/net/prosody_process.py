"""The embedded Prosody as a process beside us."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import random
from collections.abc import Callable, Iterable

from isthmus.config import Configuration
from isthmus.model import canonical_domain
from isthmus.net.companion_process import CompanionFiles, CompanionProcess, WantedPort
from isthmus.net.private_files import write_when_changed
from isthmus.net.prosody_certificate import ensure_certificate
from isthmus.net.prosody_configuration import ProsodyPaths, certificate_paths, embedded_configuration
from isthmus.trace import Trace


def prosody_paths(config: Configuration) -> ProsodyPaths:
    """Return where the embedded server of this configuration lives."""
    return ProsodyPaths(config.data_directory.resolve() / "prosody", is_root=os.geteuid() == 0)


class ProsodyProcess(CompanionProcess):
    """One embedded server; while Isthmus is away the customers stay signed in.

    Args:
        config: the whole configuration.
        trace: where its deaths are told.
        executable: name or path of the program.
        random_fraction: 0.0 to 1.0, for the jitter of restarts.
    """

    NAME = "Prosody"
    RULE = "prosody.process"

    def __init__(
        self,
        config: Configuration,
        *,
        trace: Trace,
        executable: str = "prosody",
        random_fraction: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self.paths = prosody_paths(config)
        files = CompanionFiles(self.paths.configuration, self.paths.pidfile, self.paths.output)
        super().__init__(files, trace=trace, executable=executable, random_fraction=random_fraction)

    def _prepare(self) -> bool:
        for folder in (self.paths.directory, self.paths.data, self.paths.certificates):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate, key = certificate_paths(self._config, self.paths)
        names = [self._config.xmpp.consumer_domain, *(domain.name for domain in self._config.domains)]
        ensure_certificate(
            certificate, key, [canonical_domain(name) for name in names], datetime.datetime.now(datetime.UTC)
        )
        return write_when_changed(self.paths.configuration, embedded_configuration(self._config, self.paths))

    def _arguments(self) -> list[str]:
        return ["-F", "--config", str(self.paths.configuration)]

    def _wanted_ports(self) -> Iterable[WantedPort]:
        xmpp = self._config.xmpp
        yield WantedPort("xmpp.component_port", xmpp.host, xmpp.component_port)
        yield WantedPort("xmpp.c2s_port", xmpp.interface, xmpp.c2s_port)
        yield WantedPort("xmpp.s2s_port", xmpp.interface, xmpp.s2s_port)
        yield WantedPort("xmpp.websocket_port", xmpp.interface, xmpp.websocket_port)

    async def _is_ready(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self._config.xmpp.host, self._config.xmpp.component_port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        # Accounts are made over the admin socket, which Prosody may open after its ports.
        return not self.paths.has_admin_socket or self.paths.admin_socket.exists()

    def _missing(self) -> str:
        return (
            "Prosody is not installed: run `apt-get install prosody`, or set xmpp.embedded = false and name your own "
            "server in xmpp.host"
        )

    def _logs(self) -> str:
        return f"{self.paths.log} and {self.paths.output}"
