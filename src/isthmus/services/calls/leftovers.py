"""Ends the calls that were live when the last run crashed: both sides are told, and the record says what happened.

Direct media went on meanwhile, relayed ones as well (the relay outlives us); but nobody could hang up, and what the
relay holds would stay. A call is not taken over: its offers and answers are gone with the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from isthmus.errors import IsthmusError, TransportError
from isthmus.interworking.call_endings import ending_to_jingle, ending_to_reason_header, text_of
from isthmus.model import Address, EndCause, Ending, Origin
from isthmus.ports import CallRecord, Clock, Flow, Store
from isthmus.services.calls.jingle.media import say_reason
from isthmus.services.calls.jingle.wire import IqOutcome, JingleWire
from isthmus.services.calls.sip.calls import SipCalls
from isthmus.services.calls.sip.path import DialogPath
from isthmus.services.directory import Directory
from isthmus.sip.dialog import Dialog
from isthmus.sip.message import SipResponse
from isthmus.trace import Trace
from isthmus.xmpp.jingle import Jingle

_log = structlog.get_logger(__name__)

ENDING = Ending(EndCause.CONNECTIVITY, "The service was restarted.", Origin.LOCAL)


class Leftovers:
    """What the last run left behind."""

    def __init__(
        self, store: Store, directory: Directory, sip: SipCalls, wire: JingleWire, clock: Clock, trace: Trace
    ) -> None:
        self._store = store
        self._directory = directory
        self._sip = sip
        self._wire = wire
        self._clock = clock
        self._trace = trace

    async def end_all(self, keep_seconds: float) -> int:
        """End every call of the last run; what an XMPP server that is away must hear is sent when it is back.

        Args:
            keep_seconds: how long records are kept; 0 keeps none.

        Returns:
            How many calls there were.

        Raises:
            StoreError: the store cannot be read.
        """
        calls = await self._store.live_calls()
        for call_id, state in calls:
            try:
                self._end(call_id, state, keep_seconds)
            except (IsthmusError, KeyError, TypeError, ValueError) as error:
                _log.warning("a call of the last run cannot be read", call=call_id, reason=str(error))
            self._store.note_live_call_gone(call_id)
        return len(calls)

    def _end(self, call_id: str, state: Mapping[str, Any], keep_seconds: float) -> None:
        caller, callee = Address.parse(state["caller"]), Address.parse(state["callee"])
        for leg in state["legs"]:
            if leg["kind"] == "sip":
                self._end_dialog(leg)
            else:
                self._end_session(leg)
        now = self._clock.wall()
        record = CallRecord(
            id=call_id,
            caller=caller,
            callee=callee,
            started_at=state["started_at"],
            answered_at=state["answered_at"],
            ended_at=now,
            media=tuple(state["media"]),
            path=state["path"],
            cause=ENDING.cause.value,
            text=text_of(ENDING),
        )
        if keep_seconds > 0:
            self._store.note_call(record, now + keep_seconds)
        self._trace.decision(
            f"call {call_id} from {caller} to {callee} of the last run is ended",
            people=(str(caller), str(callee)),
            call_id=call_id,
            rule="call.left-over",
        )

    def _end_dialog(self, leg: Mapping[str, Any]) -> None:
        dialog = Dialog.from_record(leg["dialog"])
        party = Address.parse(leg["party"])
        flow = None
        if leg["flow"] is not None:
            transport, host, port = leg["flow"]
            # The connection of a stream went with the process: the device is reached as it is registered now.
            flow = Flow(transport, host, port, connection=0 if transport == "udp" else -1)
        is_hosted = self._directory.realm_of(party.domain).value == "hosted"
        path = DialogPath(self._sip, party, flow=flow, device=leg["device"], is_hosted=is_hosted)
        reason = ending_to_reason_header(ENDING)
        bye = dialog.make_request("BYE", [("Reason", reason)] if reason else [])
        self._sip.endpoint.request_nowait(bye, path.next_hop(dialog), _heard)

    def _end_session(self, leg: Mapping[str, Any]) -> None:
        reason, text = ending_to_jingle(ENDING)
        jingle = Jingle()
        jingle["action"], jingle["sid"] = "session-terminate", leg["sid"]
        say_reason(jingle, reason, text)
        domain = Address.parse(leg["ours"]).domain
        self._wire.request(jingle, domain, leg["our_jid"], leg["peer_jid"], _answered)


def _heard(_outcome: SipResponse | TransportError) -> None:
    """A device that is gone has ended the call by itself."""


def _answered(_outcome: IqOutcome) -> None:
    """Whoever does not know the session any more has ended it by itself."""
