"""What administrators do with calls: look at those that are live or over, and end one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from isthmus.errors import ServerNotRunningError, UnknownSubjectError
from isthmus.model import EndCause, Ending, Origin
from isthmus.ports import AuditRecord, CallRecord, Clock, Store
from isthmus.services.accounts import parse_address
from isthmus.services.calls.call import Call
from isthmus.services.calls.media_path import PathKind
from isthmus.services.operations import Function, Plain, to_plain

MAXIMUM_LISTED = 1_000


class LiveCalls(Protocol):
    """The part of `services.calls` that operations use."""

    @property
    def live(self) -> Mapping[str, Call]:
        """Calls that are not over, by id."""


class CallOperations:
    """Adds the operations `call.*` to the table of `services.administration`.

    Args:
        calls: the calls of the running server; None without one.
    """

    def __init__(self, store: Store, clock: Clock, calls: LiveCalls | None) -> None:
        self._store = store
        self._clock = clock
        self._calls = calls

    @property
    def functions(self) -> Mapping[str, Function]:
        """The operations by name."""
        return {
            "call.list": self.list_calls,
            "call.show": self.show_call,
            "call.live": self.list_live_calls,
            "call.end": self.end_call,
        }

    async def list_calls(self, person: str = "", limit: int = 50) -> Plain:
        """Calls that are over, newest first; of one person, or of everybody."""
        address = parse_address(person) if person else None
        records = await self._store.calls(person=address, limit=max(0, min(limit, MAXIMUM_LISTED)))
        return [plain_record(record) for record in records]

    async def show_call(self, call_id: str) -> Plain:
        """One call with its quality, whether it is over or not."""
        record = await self._store.call(call_id)
        if record is not None:
            return plain_record(record)
        return _plain_call(self._live_call(call_id), self._clock.wall())

    async def list_live_calls(self) -> Plain:
        """Calls that are not over."""
        now = self._clock.wall()
        return [_plain_call(call, now) for call in self._running().live.values()]

    async def end_call(self, call_id: str, *, actor: str) -> Plain:
        """End a live call; both sides are told that the administrator did."""
        call = self._live_call(call_id)
        await self._store.save_audit(
            AuditRecord(self._clock.wall(), actor, "call end", call_id, f"{call.caller} to {call.callee}")
        )
        call.end(Ending(EndCause.HUNG_UP, "The administrator ended the call.", Origin.LOCAL, "administrator"))
        await call.over()
        return {"id": call_id, "caller": str(call.caller), "callee": str(call.callee), "is_ended": True}

    def _running(self) -> LiveCalls:
        if self._calls is None:
            raise ServerNotRunningError("without a running server there are no calls: start it with `isthmus serve`")
        return self._calls

    def _live_call(self, call_id: str) -> Call:
        call = self._running().live.get(call_id)
        if call is None:
            raise UnknownSubjectError(
                f"there is no call {call_id}; `isthmus call list` and `isthmus call live` tell all"
            )
        return call


def plain_record(record: CallRecord) -> dict[str, Plain]:
    """Return a record as operations tell it."""
    return {**to_plain(record), "seconds": round(record.seconds, 3)}


def _plain_call(call: Call, now: float) -> dict[str, Plain]:
    return {
        "id": call.id,
        "caller": str(call.caller),
        "callee": str(call.callee),
        "state": call.state.value,
        "started_at": call.started_at,
        "answered_at": call.answered_at,
        "seconds": 0.0 if call.answered_at is None else round(now - call.answered_at, 3),
        "media": list(call.media),
        "path": "" if call.path_kind is PathKind.AUTO else call.path_kind.value,
        "device": call.device,
    }
