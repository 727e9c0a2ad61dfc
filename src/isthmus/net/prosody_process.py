"""The embedded Prosody as a process: started, adopted after a crash of ours, restarted when it dies, stopped by id."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import random
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from isthmus.config import Configuration
from isthmus.errors import ConfigurationError, TransportError
from isthmus.model import canonical_domain
from isthmus.net.prosody_certificate import ensure_certificate, write_private
from isthmus.net.prosody_configuration import ProsodyPaths, certificate_paths, embedded_configuration
from isthmus.net.xmpp_backoff import Backoff
from isthmus.trace import Trace

log = logging.getLogger(__name__)

# Prosody listens after 0.3 s on an idle machine; a busy one may take its time.
START_SECONDS = 20.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
LASTING_SECONDS = 10.0


def prosody_paths(config: Configuration) -> ProsodyPaths:
    """Return where the embedded server of this configuration lives."""
    return ProsodyPaths(config.data_directory.resolve() / "prosody", is_root=os.geteuid() == 0)


class ProsodyProcess:
    """One embedded server.

    It is a session of its own with its output in files, so that it outlives a crash of Isthmus: the customers stay
    signed in, and the next Isthmus finds it by its pidfile and adopts it.

    Args:
        config: the whole configuration.
        trace: where its deaths are told.
        executable: name or path of the program.
        random_fraction: 0.0 to 1.0, for the jitter of restarts.
    """

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
        self._trace = trace
        self._executable = executable
        self._backoff = Backoff(30.0, random_fraction)
        self._watcher: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self.pid: int | None = None
        self.was_adopted = False

    async def start(self) -> None:
        """Bring the server up and watch it; return when it takes components.

        Raises:
            ConfigurationError: Prosody is not installed, or a port of its is taken.
            TransportError: it does not come up; its log says why.
        """
        is_new_text = self._write_files()
        running = self._find_running()
        if running is not None and is_new_text:
            self._trace.decision(f"the running Prosody (pid {running}) has an old configuration: it is restarted")
            await _end(running, None)
            running = None
        if running is not None:
            self.pid, self.was_adopted = running, True
            self._trace.decision(f"the running Prosody (pid {running}) is adopted", rule="prosody.process")
            await self._wait_until_ready()
        else:
            await self._spawn()
        self._watcher = asyncio.create_task(self._keep_running(), name="prosody")

    async def stop(self) -> None:
        """End the watching and the server; harmless when it does not run."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        if self.pid is not None:
            await _end(self.pid, self._child)
            self.pid = self._child = None

    async def leave_running(self) -> None:
        """Stop watching but let the server run, for the next Isthmus to adopt."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None

    # --- starting ---

    def _write_files(self) -> bool:
        """Write configuration and certificate; return True when the configuration differs from that on disk."""
        directory = self.paths.directory
        try:
            for folder in (directory, self.paths.data, self.paths.certificates):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            certificate, key = certificate_paths(self._config, self.paths)
            names = [self._config.xmpp.consumer_domain, *(domain.name for domain in self._config.domains)]
            ensure_certificate(
                certificate, key, [canonical_domain(name) for name in names], datetime.datetime.now(datetime.UTC)
            )
            text = embedded_configuration(self._config, self.paths).encode()
            if self.paths.configuration.exists() and self.paths.configuration.read_bytes() == text:
                return False
            write_private(self.paths.configuration, text)
        except OSError as error:
            raise ConfigurationError(
                f"the embedded Prosody cannot be set up in {directory}: {error.strerror}; make data_directory writable"
            ) from error
        return True

    def _find_running(self) -> int | None:
        """Return the process id of a server that an earlier Isthmus started from the same directory."""
        try:
            pid = int(self.paths.pidfile.read_text().strip() or "0")
            # The id may belong to somebody else by now: the command line must name our configuration.
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if pid > 1 else []
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.paths.configuration) in command else None

    async def _spawn(self) -> None:
        program = shutil.which(self._executable)
        if program is None:
            raise ConfigurationError(
                "Prosody is not installed: run `apt-get install prosody`, or set xmpp.embedded = false and name your "
                "own server in xmpp.host"
            )
        self._check_ports()
        with self.paths.output.open("ab") as output:
            self._child = await asyncio.create_subprocess_exec(
                program,
                "-F",
                "--config",
                str(self.paths.configuration),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid, self.was_adopted = self._child.pid, False
        try:
            await self._wait_until_ready()
        except BaseException:
            await _end(self._child.pid, self._child)
            self.pid = self._child = None
            raise

    def _check_ports(self) -> None:
        """Prosody only logs a port that is taken and goes on without it; we say so at once."""
        xmpp = self._config.xmpp
        for setting, interface, port in (
            ("xmpp.component_port", xmpp.host, xmpp.component_port),
            ("xmpp.c2s_port", xmpp.interface, xmpp.c2s_port),
            ("xmpp.s2s_port", xmpp.interface, xmpp.s2s_port),
            ("xmpp.websocket_port", xmpp.interface, xmpp.websocket_port),
        ):
            if not port:
                continue
            host = "0.0.0.0" if interface == "*" else interface  # noqa: S104 - probes what Prosody was told to serve
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Prosody does: TIME_WAIT is no owner
                try:
                    probe.bind((host, port))
                except OSError as error:
                    raise ConfigurationError(
                        f"the embedded Prosody cannot listen on {host}:{port} ({setting}): {error.strerror}; stop the "
                        "program that has it or choose another port"
                    ) from error

    async def _wait_until_ready(self) -> None:
        """Poll port and pidfile, by which the next Isthmus finds it: a process outside has no event to wait for."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not (await self._takes_components() and self._find_running()):
            has_ended = self._child.returncode is not None if self._child else not _is_alive(self.pid)
            if has_ended or asyncio.get_running_loop().time() > deadline:
                raise TransportError(f"Prosody does not come up: see {self.paths.log} and {self.paths.output}")
            await asyncio.sleep(POLL_SECONDS)

    async def _takes_components(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self._config.xmpp.host, self._config.xmpp.component_port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        # Accounts are made over the admin socket, which Prosody may open after its ports.
        return not self.paths.has_admin_socket or self.paths.admin_socket.exists()

    # --- watching ---

    async def _keep_running(self) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            assert self.pid is not None, "a server is watched after its start"
            await _ended(self.pid, self._child)
            self._tell(f"Prosody (pid {self.pid}) has died; it is started again")
            self.pid = self._child = None
            if asyncio.get_running_loop().time() - began > LASTING_SECONDS:
                self._backoff.reset()
            while self.pid is None:
                await asyncio.sleep(self._backoff.next_delay())
                try:
                    await self._spawn()
                except (ConfigurationError, TransportError) as error:
                    self._tell(f"Prosody cannot be started again: {error}")
                except OSError as error:
                    self._tell(f"Prosody cannot be started again: {error.strerror}")

    def _tell(self, text: str) -> None:
        self._trace.decision(text, rule="prosody.process", mark="!")
        log.warning("%s", text)


def _is_alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


async def _ended(pid: int, child: asyncio.subprocess.Process | None) -> None:
    """Return when the process has ended, ours or an adopted one."""
    if child is not None:
        await child.wait()
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return  # gone already
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    try:
        loop.add_reader(descriptor, gone.set)
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _end(pid: int, child: asyncio.subprocess.Process | None) -> None:
    """End one process by its id: politely, and after `STOP_SECONDS` by force."""
    if child is not None and child.returncode is not None:
        return  # ended and reaped: the id may belong to somebody else by now
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await _ended(pid, child)
        except TimeoutError:
            continue
        return
    if child is not None:
        await child.wait()
