"""Structured logs on standard error: readable lines for people, JSON for machines.

Modules log through `structlog.get_logger(__name__)` or the standard `logging`; both end in the same format. Message
bodies and secrets never reach a logger; as a second line of defence, values under telling names are hidden here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

# Names under which a value is never written, whoever logs it.
SECRET_NAMES = frozenset(
    {"password", "secret", "component_secret", "digest", "digests", "ha1", "token", "authorization"}
)
BODY_NAMES = frozenset({"body", "text", "stanza", "message_body"})
HIDDEN = "(hidden)"

# Their chatter at INFO repeats what the trace says better, one line per stanza or query.
_TALKATIVE = ("alembic", "websockets", "uvicorn", "httpx", "asyncio", "aiosqlite", "sqlalchemy.engine", "aioice")
# Its errors quote what it received, with everything that people wrote; what went wrong our link tells as well.
_QUOTING = "slixmpp"

_EventDict = MutableMapping[str, Any]


def configure_logs(level: str = "info", output_format: str = "text", *, shows_bodies: bool = False) -> None:
    """Set up logging for the process; call once, before anything is logged.

    Args:
        level: debug, info, warning or error.
        output_format: "text" or "json".
        shows_bodies: the operator accepts message bodies in logs.
    """
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _Hiding(shows_bodies),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(output_format, sys.stderr),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.getLogger(_QUOTING).setLevel(max(number, logging.WARNING) if shows_bodies else logging.CRITICAL)


def _renderers(output_format: str, stream: TextIO) -> list[structlog.typing.Processor]:
    if output_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Plain tracebacks: the rich ones show local variables, and those may hold what must not be written.
    return [
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]


class _Hiding:
    """Replaces secrets always, and bodies unless the operator accepts them."""

    def __init__(self, shows_bodies: bool) -> None:
        self._names = SECRET_NAMES if shows_bodies else SECRET_NAMES | BODY_NAMES

    def __call__(self, _logger: Any, _method: str, event: _EventDict) -> _EventDict:
        for name in self._names.intersection(event):
            event[name] = HIDDEN
        return event
