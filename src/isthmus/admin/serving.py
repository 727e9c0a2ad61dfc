"""Runs a small ASGI application beside everything else on the event loop, without touching the process's signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Generator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from isthmus.admin.socket_path import reachable_path
from isthmus.errors import TransportError

# Nothing served here takes long; a client that hangs must not delay the end of the process.
GRACEFUL_SECONDS = 2


class _Server(uvicorn.Server):
    """uvicorn's server as a guest: signals belong to the application, and start-up can be awaited."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell who waits."""
        await super().startup(sockets=sockets)
        self.is_up.set()


class WebService:
    """Serves `app` on a bound socket between `start` and `stop`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, listening: socket.socket) -> None:
        """Serve on `listening` (bound; closed by `stop`)."""
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )
        server = self._server = _Server(config)
        self._task = asyncio.ensure_future(server.serve(sockets=[listening]))
        up = asyncio.ensure_future(server.is_up.wait())
        await asyncio.wait({self._task, up}, return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            up.cancel()
            await self._task

    async def stop(self) -> None:
        """Stop serving; harmless when not started."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self._server = self._task = None


def tcp_socket(host: str, port: int, setting: str) -> socket.socket:
    """Bind a TCP port. Raises TransportError naming the `setting` that chose it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), port))
    except OSError as error:
        listening.close()
        raise TransportError(
            f"cannot listen on {host} port {port} ({error.strerror}): stop what uses it, or change {setting}"
        ) from error
    return listening


def unix_socket(path: Path) -> socket.socket:
    """Bind a Unix socket that only its owner may use; one left behind by a dead process is replaced.

    Raises:
        TransportError: somebody answers there already, or the place cannot be written.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with reachable_path(path) as name:
            if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
                _refuse_living(name, path)
                path.unlink()
            # The mode holds from the first moment: between bind and chmod there would be a gap.
            before = os.umask(0o177)
            try:
                listening.bind(name)
            finally:
                os.umask(before)
    except OSError as error:
        listening.close()
        raise TransportError(f"cannot make the control socket {path} ({error.strerror or error})") from error
    except TransportError:
        listening.close()
        raise
    return listening


def _refuse_living(name: str, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(name)
        except ConnectionRefusedError:
            return
        raise TransportError(f"another server answers on {path}: stop it first, or use another data directory")
