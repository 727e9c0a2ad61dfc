"""One run of the server: from the start to the signal that ends it."""

from __future__ import annotations

import asyncio
import os
import signal

import structlog

from isthmus.app.isthmus import Isthmus
from isthmus.config import Configuration
from isthmus.errors import LocalError

_log = structlog.get_logger(__name__)


async def serve(configuration: Configuration) -> int:
    """Run until SIGTERM or SIGINT; return the exit status. Start-up failures are told in one sentence."""
    os.umask(0o077)  # what we and our companions write is for us alone
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        isthmus = Isthmus(configuration)
    except LocalError as error:
        _log.error("cannot start", reason=str(error))
        return error.exit_code
    try:
        await isthmus.start()
    except LocalError as error:
        _log.error("cannot start", reason=str(error))
        await isthmus.stop()
        return error.exit_code
    waits_for = isthmus.reasons_not_ready()
    _log.info(
        "serving, not ready yet" if waits_for else "ready",
        **{key: value for key, value in isthmus.status().items() if value},
        **({"because": list(waits_for)} if waits_for else {}),
    )
    await stopping.wait()
    _log.info("stopping")
    await isthmus.stop()
    return 0
