"""Tells people of calls they missed, by message: durable, so that somebody who was offline hears of it, too."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from isthmus.errors import StoreError
from isthmus.model import Address, EndCause, Realm
from isthmus.ports import Bus
from isthmus.services.events import CallEnded

_log = structlog.get_logger(__name__)

_WHY = {
    EndCause.BUSY: "while you were busy",
    EndCause.UNREACHABLE: "while no device of yours could be reached",
}


class Notices(Protocol):
    """Sends a message from the service address of the recipient's domain."""

    async def send_notice(self, recipient: Address, text: str) -> None:
        """Journal a notice. Raises StoreError."""


class MissedCalls:
    """Listens to `CallEnded`.

    Business users are told by a message from the service address. Consumers see missed calls in their client where it
    was rung; where nothing could be rung, `tell_consumer` says it.
    """

    def __init__(
        self,
        bus: Bus,
        realm_of: Callable[[str], Realm],
        notices: Notices,
        tell_consumer: Callable[[CallEnded, str], Awaitable[None]],
    ) -> None:
        self._realm_of = realm_of
        self._notices = notices
        self._tell_consumer = tell_consumer
        bus.register(CallEnded, self._call_ended)

    async def _call_ended(self, callee: Address, event: CallEnded) -> None:
        realm = self._realm_of(callee.domain)
        try:
            if realm is Realm.BUSINESS_HOSTED:
                await self._notices.send_notice(callee, notice_of(event))
            elif realm is Realm.CONSUMER and event.ending.cause is EndCause.UNREACHABLE:
                await self._tell_consumer(event, notice_of(event))
        except StoreError as error:
            _log.error("a missed call could not be told", callee=str(callee), reason=str(error))


def notice_of(event: CallEnded) -> str:
    """Return the sentence about a missed call; the time is UTC, as the server does not know where people are."""
    at = datetime.datetime.fromtimestamp(event.at, datetime.UTC)
    why = _WHY.get(event.ending.cause)
    return f"{event.caller} called you at {at:%H:%M} UTC on {at:%d %B %Y}{f' {why}' if why else ''}."
