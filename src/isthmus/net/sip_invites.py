"""INVITEs on their way out: every response is told, any number of 2xx, CANCEL, and failover (`ports.SentInvite`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from isthmus.errors import RequestTimeoutError, TransportError
from isthmus.net.sip_requests import describe
from isthmus.ports import Flow, InviteSink, NextHop
from isthmus.sip.client_transaction import ClientState, ClientTransaction
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.routing import Target
from isthmus.sip.timers import Afterlife

# INVITEs that ended lately, for the 2xx of other forks. A hundred calls a second for 32 seconds are 3,200.
MAXIMUM_REMEMBERED = 10_000

Outcome = SipResponse | TransportError


class Ways(Protocol):
    """Finds ways and starts transactions (`net.sip_requests.RequestSender`)."""

    def known_flow(self, request: SipRequest, next_hop: NextHop | None) -> Flow | None:
        """Return the flow when it is known without waiting. Raises TransportError when it is closed."""

    async def targets(self, request: SipRequest, next_hop: NextHop | None) -> Sequence[Target]:
        """Return where a request can go, best first. Raises TransportError for nowhere."""

    async def flow_to(self, target: Target, request: SipRequest, next_hop: NextHop | None) -> Flow:
        """Return a flow to a target. Raises TransportError."""

    def judge(self, target: Target, *, is_working: bool) -> None:
        """Remember that a target failed, or that it works."""

    def start_transaction(self, request: SipRequest, flow: Flow) -> ClientTransaction:
        """Send a request on a flow. Raises TransportError when it can never fit."""


class OutgoingInvite:
    """One INVITE, perhaps tried at several targets one after the other; implements `ports.SentInvite`.

    Attributes:
        transaction: the one that runs now; None while a way is looked for.
        verdict: with further targets in sight, takes a failure that another target may not share.
        is_over: a final response was told.
    """

    __slots__ = ("_cancel", "is_cancelled", "is_over", "next_hop", "reason", "request", "sink", "task", "transaction",
                 "verdict")  # fmt: skip

    def __init__(
        self,
        request: SipRequest,
        next_hop: NextHop | None,
        sink: InviteSink,
        cancel: Callable[[ClientTransaction, str], None],
    ) -> None:
        self.request = request
        self.next_hop = next_hop
        self.sink = sink
        self.transaction: ClientTransaction | None = None
        self.task: asyncio.Task[None] | None = None
        self.verdict: asyncio.Future[Outcome | None] | None = None
        self.is_cancelled = False
        self.is_over = False
        self.reason = ""
        self._cancel = cancel

    def cancel(self, reason: str = "") -> None:
        """Send CANCEL as soon as it is allowed (RFC 3261 section 9.1), with this Reason (RFC 3326)."""
        if self.is_over or self.is_cancelled:
            return
        self.is_cancelled = True
        self.reason = reason
        if self.transaction is not None:
            self._cancel(self.transaction, reason)
        elif self.task is not None:
            self.task.cancel()


class InviteSender:
    """Sends INVITEs and tells their sinks what becomes of them."""

    def __init__(
        self, sender: Ways, cancel: Callable[[ClientTransaction, str], None], *, remember_seconds: float
    ) -> None:
        """Prepare.

        Args:
            sender: finds ways and starts transactions.
            cancel: cancels a transaction, with a Reason.
            remember_seconds: how long a 2xx may come after the end, 64*T1.
        """
        self._sender = sender
        self._cancel = cancel
        self._running: dict[ClientTransaction, OutgoingInvite] = {}
        self._ended: Afterlife[str, OutgoingInvite] = Afterlife(remember_seconds, MAXIMUM_REMEMBERED)

    def invite(self, request: SipRequest, next_hop: NextHop | None, sink: InviteSink) -> OutgoingInvite:
        """Send an INVITE; its sink hears of nothing before this returned."""
        invite = OutgoingInvite(request, next_hop, sink, self._cancel)
        loop = asyncio.get_running_loop()
        try:
            flow = self._sender.known_flow(request, next_hop)
            if flow is not None:
                self._start(invite, flow)
                return invite
        except TransportError as error:
            loop.call_soon(self._fail, invite, error)
            return invite
        invite.task = loop.create_task(self._try_targets(invite))
        return invite

    def stop(self) -> None:
        """Fail everything that waits."""
        for invite in tuple(self._running.values()):
            if invite.task is None or invite.task.done():
                self._fail(invite, TransportError("the SIP endpoint is stopping"))
            else:
                invite.task.cancel()
        self._running.clear()

    # --- from the transaction layer -----------------------------------------------------------------------------

    def response_received(self, transaction: ClientTransaction, response: SipResponse) -> None:
        """Pass on a response of an INVITE that is ours."""
        invite = self._running.get(transaction) or self._ended.get(response.branch)
        if invite is None:
            return
        if response.status < 200:
            if response.status > 100:
                self._settle(invite, None)  # somebody rings there: no other target
                invite.sink.provisional(response)
        elif response.status < 300:
            self._settle(invite, None)
            self._remember(transaction, invite)
            invite.sink.accepted(response)
        else:
            self._target_failed(transaction, response)

    def stray_received(self, response: SipResponse) -> None:
        """Pass on a 2xx that came after its INVITE had failed."""
        if response.is_success and response.cseq.method == "INVITE":
            invite = self._ended.get(response.branch)
            if invite is not None:
                invite.sink.accepted(response)

    def timed_out(self, transaction: ClientTransaction) -> None:
        """Nobody answered in 64*T1, or the CANCEL was not heeded."""
        self._target_failed(transaction, RequestTimeoutError(f"{describe(transaction)} was not answered in time"))

    def failed(self, transaction: ClientTransaction) -> None:
        """The flow broke."""
        self._target_failed(transaction, TransportError(f"{describe(transaction)} failed: the peer cannot be reached"))

    def _target_failed(self, transaction: ClientTransaction, outcome: Outcome) -> None:
        invite = self._running.get(transaction)
        if invite is None:
            return
        self._remember(transaction, invite)
        is_about_target = isinstance(outcome, TransportError) or outcome.status == 503
        if not is_about_target or invite.is_cancelled or not self._settle(invite, outcome):
            self._fail(invite, outcome)

    def _remember(self, transaction: ClientTransaction, invite: OutgoingInvite) -> None:
        if self._running.pop(transaction, None) is not None:
            now = time.monotonic()
            self._ended.expire(now)
            self._ended.add(transaction.request.branch, invite, now)
            invite.transaction = None

    def _fail(self, invite: OutgoingInvite, outcome: Outcome) -> None:
        self._settle(invite, None)
        if not invite.is_over:
            invite.is_over = True
            invite.sink.failed(outcome)

    # --- one target after the other (RFC 3263 section 4.3) --------------------------------------------------------

    def _start(self, invite: OutgoingInvite, flow: Flow) -> None:
        transaction = self._sender.start_transaction(invite.request, flow)
        if transaction.state is ClientState.TERMINATED:  # the write failed at once
            raise TransportError(f"{describe(transaction)} failed: the peer cannot be reached")
        invite.transaction = transaction
        self._running[transaction] = invite

    async def _try_targets(self, invite: OutgoingInvite) -> None:
        """Send to one target after the other until somebody there rings or decides; each gets a new branch."""
        failure: Outcome = TransportError("there is nowhere to send it")
        try:
            for target in await self._sender.targets(invite.request, invite.next_hop):
                outcome = await self._try_target(invite, target)
                if outcome is None:
                    return
                failure = outcome
        except TransportError as error:
            failure = error
        except asyncio.CancelledError:
            failure = build_response(invite.request, 487)  # nothing was sent yet, so nobody else can say it
        self._fail(invite, failure)

    async def _try_target(self, invite: OutgoingInvite, target: Target) -> Outcome | None:
        """Return why this target is not the one, or None: what becomes of the INVITE is told by its responses."""
        invite.verdict = asyncio.get_running_loop().create_future()
        try:
            self._start(invite, await self._sender.flow_to(target, invite.request, invite.next_hop))
            outcome = await invite.verdict
        except TransportError as error:
            outcome = error
        finally:
            invite.verdict = None
        self._sender.judge(target, is_working=outcome is None)
        return outcome

    def _settle(self, invite: OutgoingInvite, outcome: Outcome | None) -> bool:
        """Tell the search for a target how this one did; False when there is no search."""
        if invite.verdict is None or invite.verdict.done():
            return False
        invite.verdict.set_result(outcome)
        return True
