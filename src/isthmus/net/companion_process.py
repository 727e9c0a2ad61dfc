"""A server that runs beside us as a process: started, adopted after a crash of ours, restarted when it dies, stopped.

It is a session of its own with its output in files, so that it outlives a crash of Isthmus: what goes through it goes
on, and the next Isthmus finds it by its pidfile and adopts it.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
import os
import random
import shutil
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from isthmus.errors import ConfigurationError, TransportError
from isthmus.net.xmpp_backoff import Backoff
from isthmus.trace import Trace

log = logging.getLogger(__name__)

# They listen after 0.1 to 0.3 s on an idle machine; a busy one may take its time.
START_SECONDS = 20.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
LASTING_SECONDS = 10.0
MAXIMUM_PAUSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class CompanionFiles:
    """What every companion has in its directory, which is private to its owner.

    Attributes:
        configuration: generated; its path stands in the command line and so tells our process from others.
        pidfile: written by the program itself.
        output: what it prints.
    """

    configuration: Path
    pidfile: Path
    output: Path


@dataclass(frozen=True, slots=True)
class WantedPort:
    """A port that must be free before the program starts, as it may only log that it is not.

    Attributes:
        setting: what to change, for the message.
    """

    setting: str
    host: str
    port: int
    kind: socket.SocketKind = socket.SOCK_STREAM


class CompanionProcess(abc.ABC):
    """One program beside us.

    Args:
        files: where its things are.
        trace: where its deaths are told.
        executable: name or path of the program.
        is_essential: `start` fails when it does not come up; otherwise that is told, and tried again and again.
        random_fraction: 0.0 to 1.0, for the jitter of restarts.
    """

    NAME: ClassVar[str]
    RULE: ClassVar[str]

    def __init__(
        self,
        files: CompanionFiles,
        *,
        trace: Trace,
        executable: str,
        is_essential: bool = True,
        random_fraction: Callable[[], float] = random.random,
    ) -> None:
        self._files = files
        self._trace = trace
        self._executable = executable
        self._is_essential = is_essential
        self._backoff = Backoff(MAXIMUM_PAUSE_SECONDS, random_fraction)
        self._watcher: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self.pid: int | None = None
        self.was_adopted = False
        self.trouble = ""  # why it does not run, while it does not
        self.on_started: Callable[[], None] = lambda: None  # called when it was started again

    # --- what each program is like ---

    @abc.abstractmethod
    def _prepare(self) -> bool:
        """Write its files; return True when the configuration differs from that on disk. Raises OSError."""

    @abc.abstractmethod
    def _arguments(self) -> list[str]:
        """Return the command line without the program."""

    @abc.abstractmethod
    def _wanted_ports(self) -> Iterable[WantedPort]:
        """Return what it will listen on."""

    @abc.abstractmethod
    async def _is_ready(self) -> bool:
        """Return whether it does its work now."""

    @abc.abstractmethod
    def _missing(self) -> str:
        """Return what to do when the program is not installed."""

    @property
    def is_installed(self) -> bool:
        """True when the program can be found."""
        return shutil.which(self._executable) is not None

    # --- life ---

    async def start(self) -> None:
        """Bring it up and watch it; return when it is ready.

        Raises:
            ConfigurationError: it is essential, and not installed, or a port of its is taken.
            TransportError: it is essential and does not come up; its log says why.
        """
        try:
            await self._adopt_or_spawn()
        except (ConfigurationError, TransportError) as error:
            if self._is_essential:
                raise
            self._failed(error)
            if not self.is_installed:
                return
        self._watcher = asyncio.create_task(self._keep_running(), name=self.NAME)

    async def _adopt_or_spawn(self) -> None:
        is_new_text = self._prepared()
        running = self._find_running()
        if running is not None and is_new_text:
            self._trace.decision(f"the running {self.NAME} (pid {running}) has an old configuration: it is restarted")
            await _end(running, None)
            running = None
        if running is None:
            await self._spawn()
            return
        self.pid, self.was_adopted = running, True
        self._trace.decision(f"the running {self.NAME} (pid {running}) is adopted", rule=self.RULE)
        await self._wait_until_ready()

    def _prepared(self) -> bool:
        try:
            return self._prepare()
        except OSError as error:
            raise ConfigurationError(
                f"the embedded {self.NAME} cannot be set up in {self._files.configuration.parent}: {error.strerror}; "
                "make data_directory writable"
            ) from error

    async def stop(self) -> None:
        """End the watching and the server; harmless when it does not run."""
        await self.leave_running()
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

    def _find_running(self) -> int | None:
        """Return the process id of a server that an earlier Isthmus started from the same directory."""
        try:
            pid = int(self._files.pidfile.read_text().strip() or "0")
            # The id may belong to somebody else by now: the command line must name our configuration.
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if pid > 1 else []
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._files.configuration) in command else None

    async def _spawn(self) -> None:
        program = shutil.which(self._executable)
        if program is None:
            raise ConfigurationError(self._missing())
        self._check_ports()
        self._files.output.touch(mode=0o600)
        with self._files.output.open("ab") as output:
            self._child = await asyncio.create_subprocess_exec(
                program,
                *self._arguments(),
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
        self.trouble = ""

    def _check_ports(self) -> None:
        for wanted in self._wanted_ports():
            if not wanted.port:
                continue
            host = "0.0.0.0" if wanted.host == "*" else wanted.host.strip("[]")  # noqa: S104 - probes what it will serve
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, wanted.kind) as probe:
                if wanted.kind is socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as they do: TIME_WAIT is no owner
                try:
                    probe.bind((host, wanted.port))
                except OSError as error:
                    raise ConfigurationError(
                        f"the embedded {self.NAME} cannot listen on {host}:{wanted.port} ({wanted.setting}): "
                        f"{error.strerror}; stop the program that has it or choose another port"
                    ) from error

    async def _wait_until_ready(self) -> None:
        """Poll it and its pidfile, by which the next Isthmus finds it: a process outside has no event to wait for."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not (self._find_running() and await self._is_ready()):
            has_ended = self._child.returncode is not None if self._child else not _is_alive(self.pid)
            if has_ended or asyncio.get_running_loop().time() > deadline:
                raise TransportError(f"{self.NAME} does not come up: see {self._logs()}")
            await asyncio.sleep(POLL_SECONDS)

    def _logs(self) -> str:
        """Return which files say why it does not run."""
        return str(self._files.output)

    # --- watching ---

    async def _keep_running(self) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            if self.pid is not None:
                await _ended(self.pid, self._child)
                self._tell(f"{self.NAME} (pid {self.pid}) has died; it is started again")
                self.trouble = "it has died"
            self.pid = self._child = None
            if asyncio.get_running_loop().time() - began > LASTING_SECONDS:
                self._backoff.reset()
            is_running = False
            while not is_running:
                await asyncio.sleep(self._backoff.next_delay())
                is_running = await self._is_spawned()
            self.on_started()

    async def _is_spawned(self) -> bool:
        """Try to start it; return whether it runs."""
        try:
            await self._spawn()
        except (ConfigurationError, TransportError) as error:
            self._failed(error)
        except OSError as error:
            self._failed(TransportError(error.strerror or str(error)))
        else:
            return True
        return False

    def _failed(self, error: ConfigurationError | TransportError) -> None:
        if str(error) != self.trouble:  # once each, though it is tried again and again
            self._tell(f"{self.NAME} cannot be started: {error}")
        self.trouble = str(error)

    def _tell(self, text: str) -> None:
        self._trace.decision(text, rule=self.RULE, mark="!")
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
