"""The other end of the control socket, for the command line. Standard library only: it must start fast."""

from __future__ import annotations

import contextlib
import getpass
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from isthmus.admin.socket_path import ACTOR_HEADER, SOCKET_NAME, reachable_path
from isthmus.errors import LocalError, ServerNotRunningError, TransportError

# The doctor waits for DNS and for a message to travel both ways.
TIMEOUT_SECONDS = 120.0


class RemoteError(LocalError):
    """The server could not do it; text and exit code are its own."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("isthmus", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            with reachable_path(self._path) as name:
                self.sock.connect(name)
        except BaseException:
            self.sock.close()
            raise


class ControlClient:
    """Talks to the server of one data directory."""

    def __init__(self, data_directory: Path) -> None:
        self._path = data_directory / SOCKET_NAME

    def is_running(self) -> bool:
        """True when a server answers there. Raises TransportError when we may not ask."""
        connection = _Connection(self._path, 5.0)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except PermissionError as error:
            raise TransportError(
                f"{self._path} belongs to somebody else: run this as the user that runs the server"
            ) from error
        except OSError as error:
            raise TransportError(f"{self._path} cannot be opened ({error.strerror or error})") from error
        connection.close()
        return True

    def call(self, name: str, arguments: Mapping[str, object]) -> Any:
        """Run an operation in the server.

        Raises:
            RemoteError: the server refuses; text and exit code are its own.
            ServerNotRunningError: nobody answers.
        """
        with contextlib.closing(_Connection(self._path, TIMEOUT_SECONDS)) as connection:
            body = json.dumps(dict(arguments)).encode()
            headers = {"content-type": "application/json", ACTOR_HEADER: actor()}
            status, content = self._exchange(connection, "POST", f"/operations/{name}", body, headers)
        found = json.loads(content)
        if status != http.client.OK:
            raise RemoteError(str(found.get("error", "the server refused")), int(found.get("exit_code", 70)))
        return found

    def trace(self, person: str, call_id: str, recent: int) -> Iterator[dict[str, Any]]:
        """Follow the trace until the server ends it. Raises ServerNotRunningError."""
        query = urlencode({"person": person, "call_id": call_id, "recent": recent})
        with contextlib.closing(_Connection(self._path, None)) as connection:
            try:
                connection.request("GET", f"/trace?{query}")
                response = connection.getresponse()
                while line := response.readline():
                    if line.strip():
                        yield json.loads(line)
            except (FileNotFoundError, ConnectionError, http.client.HTTPException) as error:
                raise self._gone(error) from error

    def _exchange(
        self, connection: _Connection, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError as error:
            raise TransportError("the server did not answer in two minutes; its log may say why") from error
        except (FileNotFoundError, ConnectionError, http.client.HTTPException) as error:
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> ServerNotRunningError:
        return ServerNotRunningError(f"the server on {self._path} is gone ({error}): start it with `isthmus serve`")


def actor() -> str:
    """Who runs this command, for the audit log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
