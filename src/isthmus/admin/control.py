"""The control socket: HTTP over a Unix socket in the data directory, for `isthmus` on the command line.

Who may open the socket (mode 0600) may do everything: there is no further sign-in.

    POST /operations/user.add   {"address": "ana@corp.test"}       -> the result, or {"error", "exit_code"}
    GET  /trace?person=ana@corp.test&call_id=...&recent=20         -> one JSON object per line, without end
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from isthmus.admin.serving import WebService, unix_socket
from isthmus.admin.socket_path import ACTOR_HEADER, SOCKET_NAME
from isthmus.errors import IsthmusError, LocalError, OperationError
from isthmus.services.administration import Administration
from isthmus.services.operations import to_plain
from isthmus.trace import Trace, TraceLine

# The longest argument is a photo as base64 (`xmpp.vcard.MAXIMUM_PHOTO_OCTETS`).
MAXIMUM_BODY_OCTETS = 262_144
# A terminal that is stopped (Ctrl-S) must not make the server's memory grow; what is lost is said.
MAXIMUM_WAITING_LINES = 10_000

_log = structlog.get_logger(__name__)


class Control:
    """Serves the operations and the trace between `start` and `stop`."""

    def __init__(self, administration: Administration, trace: Trace, data_directory: Path) -> None:
        self._administration = administration
        self._trace = trace
        self._path = data_directory / SOCKET_NAME
        self._is_ours = False
        self._streams: set[_TraceStream] = set()
        self.app = Starlette(
            routes=[
                Route("/operations/{name}", self._operate, methods=["POST"]),
                Route("/trace", self._follow, methods=["GET"]),
            ]
        )
        self._service = WebService(self.app)

    async def start(self) -> None:
        """Open the socket. Raises TransportError."""
        listening = unix_socket(self._path)
        self._is_ours = True
        await self._service.start(listening)

    async def stop(self) -> None:
        """End running traces and close the socket."""
        for stream in tuple(self._streams):
            stream.end()
        await self._service.stop()
        # A second server of the same directory never got this far, and must not take the first one's socket away.
        if self._is_ours:
            self._path.unlink(missing_ok=True)
            self._is_ours = False

    async def _operate(self, request: Request) -> Response:
        name = request.path_params["name"]
        actor = request.headers.get(ACTOR_HEADER, "local")[:200]
        try:
            arguments = await _arguments(request)
            result = await self._administration.call(name, arguments, actor=actor)
        except IsthmusError as error:
            exit_code = error.exit_code if isinstance(error, LocalError) else LocalError.exit_code
            return _json({"error": str(error), "exit_code": exit_code}, 409)
        except Exception:
            _log.exception("an operation failed", operation=name)
            text = f"{name} failed by a mistake of ours; the server's log has the details"
            return _json({"error": text, "exit_code": LocalError.exit_code}, 500)
        return _json(result)

    async def _follow(self, request: Request) -> Response:
        try:
            recent = int(request.query_params.get("recent", "0"))
        except ValueError:
            return _json({"error": "recent is a number of lines", "exit_code": OperationError.exit_code}, 409)
        stream = _TraceStream(request.query_params.get("person", ""), request.query_params.get("call_id", ""))
        self._streams.add(stream)
        stop = self._trace.listen(stream.put)
        past = [line for line in self._trace.recent if stream.wants(line)][-recent:] if recent > 0 else []

        def ended() -> None:
            stop()
            self._streams.discard(stream)

        return StreamingResponse(stream.lines(past, ended), media_type="application/x-ndjson")


class _TraceStream:
    """Lines on their way to one listener."""

    def __init__(self, person: str, call_id: str) -> None:
        self._person = person.strip().lower()
        self._call_id = call_id
        self._queue: asyncio.Queue[TraceLine | None] = asyncio.Queue()
        self._lost = 0

    def wants(self, line: TraceLine) -> bool:
        """True when the filters let the line pass."""
        if self._call_id and line.call_id != self._call_id:
            return False
        return not self._person or any(self._person == person.lower() for person in line.people)

    def put(self, line: TraceLine) -> None:
        """Take a line if it is wanted."""
        if not self.wants(line):
            return
        if self._queue.qsize() >= MAXIMUM_WAITING_LINES:
            self._lost += 1
        else:
            self._queue.put_nowait(line)

    def end(self) -> None:
        """Let the listener go after what already waits."""
        self._queue.put_nowait(None)

    async def lines(self, past: list[TraceLine], ended: Callable[[], None]) -> AsyncIterator[bytes]:
        """Yield NDJSON until the listener leaves or `end` is called; an empty first line says that it has begun."""
        try:
            yield b"\n"
            for line in past:
                yield _line(line)
            while (found := await self._queue.get()) is not None:
                if self._lost:
                    lost, self._lost = self._lost, 0
                    yield _line(TraceLine(found.at, "!", "trace", f"{lost} lines were lost: the reader is too slow"))
                yield _line(found)
        finally:
            ended()


def _line(line: TraceLine) -> bytes:
    return orjson.dumps(to_plain(line)) + b"\n"


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _arguments(request: Request) -> dict[str, object]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAXIMUM_BODY_OCTETS:
            raise OperationError(f"the arguments are longer than {MAXIMUM_BODY_OCTETS} octets")
    try:
        found = orjson.loads(bytes(body) or b"{}")
    except orjson.JSONDecodeError as error:
        raise OperationError(f"the arguments are no JSON: {error}") from error
    if not isinstance(found, dict):
        raise OperationError("the arguments are a JSON object")
    return found
