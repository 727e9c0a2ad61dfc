"""Rows of the tables of calls, and the questions asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, or_, select

from isthmus.model import Address
from isthmus.ports import CallRecord
from isthmus.store import schema
from isthmus.store.row_statements import Row
from isthmus.store.rows import Addresses, to_json


@dataclass(frozen=True, slots=True)
class CallToKeep:
    """A record and when it is thrown away (Unix seconds)."""

    record: CallRecord
    expires_at: float


def call_row(call: CallToKeep) -> Row:
    """Return the row of `calls`."""
    record = call.record
    details = {
        "answered_at": record.answered_at,
        "ended_at": record.ended_at,
        "media": record.media,
        "path": record.path,
        "cause": record.cause,
        "text": record.text,
        "rule": record.rule,
        "device": record.device,
        "quality": [dict(row) for row in record.quality],
    }
    return (record.id, str(record.caller), str(record.callee), record.started_at, call.expires_at, to_json(details))


def live_call_row(call: tuple[str, Mapping[str, Any]]) -> Row:
    """Return the row of `live_calls`."""
    return (call[0], to_json(call[1]))


def read_calls(
    connection: Connection, now: float, *, person: Address | None, call_id: str = "", limit: int = 1
) -> list[CallRecord]:
    """Return records, newest first; what has expired is thrown away on the way."""
    table = schema.calls
    connection.execute(delete(table).where(table.c.expires_at <= now))
    query = select(table).order_by(table.c.started_at.desc(), table.c.id).limit(max(0, limit))
    if person is not None:
        query = query.where(or_(table.c.caller == str(person), table.c.callee == str(person)))
    if call_id:
        query = query.where(table.c.id == call_id)
    return [_call_from_row(row) for row in connection.execute(query)]


def read_live_calls(connection: Connection) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what is needed to end the calls of the last run."""
    query = select(schema.live_calls).order_by(schema.live_calls.c.id)
    return [(call_id, orjson.loads(state)) for call_id, state in connection.execute(query)]


def _call_from_row(row: Sequence[Any]) -> CallRecord:
    call_id, caller, callee, started_at, _, text = row
    details = orjson.loads(text)
    addresses = Addresses()
    return CallRecord(
        id=call_id,
        caller=addresses[caller],
        callee=addresses[callee],
        started_at=started_at,
        answered_at=details["answered_at"],
        ended_at=details["ended_at"],
        media=tuple(details["media"]),
        path=details["path"],
        cause=details["cause"],
        text=details["text"],
        rule=details["rule"],
        device=details["device"],
        quality=tuple(details["quality"]),
    )
