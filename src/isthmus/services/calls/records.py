"""Call records: who called whom, when, for how long, with what media and quality, and why it ended.

What was said in a call is not recorded anywhere.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from isthmus.config import CallSettings
from isthmus.errors import StoreError
from isthmus.interworking.call_endings import text_of
from isthmus.model import Ending
from isthmus.ports import CallRecord, Clock, MediaQuality, Store
from isthmus.services.calls.call import Call
from isthmus.services.calls.leg import IncomingCall
from isthmus.services.calls.media_path import PathKind

_log = structlog.get_logger(__name__)

# `calls.keep_records_days` is in days: nobody expects a record to go by the minute.
ERASE_SECONDS = 86_400.0


class CallRecords:
    """Writes records, and what is needed to end live calls after a crash.

    Attributes:
        keep_seconds: how long a record is kept; 0 keeps none.
    """

    def __init__(self, store: Store, clock: Clock, settings: CallSettings) -> None:
        self._store = store
        self._clock = clock
        self.keep_seconds = settings.keep_records_days * 86_400
        self._erasing: asyncio.Future[None] | None = None

    def talking(self, call: Call) -> None:
        """Note how the legs of an answered call are ended by the next run, should this one crash."""
        legs = [state for leg in call.legs if (state := leg.to_record()) is not None]
        self._store.note_live_call(
            call.id,
            {
                "caller": str(call.caller),
                "callee": str(call.callee),
                "started_at": call.started_at,
                "answered_at": call.answered_at,
                "media": call.media,
                "path": call.path_kind.value,
                "legs": legs,
            },
        )

    def ended(self, call: Call) -> None:
        """Keep the record of a call that is over."""
        self._store.note_live_call_gone(call.id)
        self._keep(
            CallRecord(
                id=call.id,
                caller=call.caller,
                callee=call.callee,
                started_at=call.started_at,
                answered_at=call.answered_at,
                ended_at=call.ended_at or self._clock.wall(),
                media=call.media,
                path="" if call.path_kind is PathKind.AUTO else call.path_kind.value,
                cause=call.ending.cause.value,
                text=text_of(call.ending),
                rule=call.ending.rule,
                device=call.device,
                quality=tuple(_quality_row(call, quality) for quality in call.counted),
            )
        )

    def refused(self, call_id: str, incoming: IncomingCall, ending: Ending) -> None:
        """Keep the record of a call that never began."""
        now = self._clock.wall()
        self._keep(
            CallRecord(
                id=call_id,
                caller=incoming.caller,
                callee=incoming.callee,
                started_at=now,
                answered_at=None,
                ended_at=now,
                cause=ending.cause.value,
                text=text_of(ending),
                rule=ending.rule,
            )
        )

    async def erase_expired(self) -> None:
        """Erase records whose time is over, now and once a day: they go whether or not somebody reads the list."""
        self._clock.call_later(ERASE_SECONDS, self._erase_again)
        try:
            await self._store.calls(limit=0)  # reading erases what has expired
        except StoreError as error:
            _log.warning("old call records could not be erased", reason=str(error))

    def _erase_again(self) -> None:
        self._erasing = asyncio.ensure_future(self.erase_expired())

    def _keep(self, record: CallRecord) -> None:
        if self.keep_seconds > 0:
            self._store.note_call(record, self._clock.wall() + self.keep_seconds)


def _quality_row(call: Call, quality: MediaQuality) -> dict[str, Any]:
    sender = call.caller if quality.party == call.caller_leg.key else call.callee
    return {
        "media": quality.media,
        "sender": str(sender),
        "packets": quality.packets,
        "octets": quality.octets,
        "lost": quality.lost,
        "jitter_ms": quality.jitter_ms,
        "round_trip_ms": quality.round_trip_ms,
        "mos": quality.mos,
    }
