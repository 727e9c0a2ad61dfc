"""Where an accepted message goes, and what happens when it has arrived or never will.

Everything here works on journalled messages: a row is settled when the message is proved delivered, or when its sender
has been told (durably) that it is not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from uuid import uuid4

import structlog

from isthmus.errors import IsthmusError, StoreError
from isthmus.interworking.messages_xmpp import message_to_stanza
from isthmus.metrics import Metrics
from isthmus.model import Address, Failure, Message, MessageKind
from isthmus.ports import Clock, JournalEntry, Store
from isthmus.services.delivery import BusinessDelivery
from isthmus.services.directory import Directory
from isthmus.services.echo import echo_of
from isthmus.services.messaging_requests import MessageRequests
from isthmus.services.messaging_shipment import Delivered, Parcel
from isthmus.services.messaging_to_sip import SipQueues
from isthmus.services.messaging_to_xmpp import XmppOutbox
from isthmus.trace import Trace

Command = Callable[[Address, str], Awaitable[str]]

# How long an answer of ours to a sender waits for the store before it is tried again.
STORE_RETRY_SECONDS = 5.0
_QUOTED_LENGTH = 60

_log = structlog.get_logger(__name__)


class MessageRoutes:
    """Carries journalled messages to their realm and settles them.

    Args:
        offline_seconds: how long a notice of ours may wait for its reader.
        command: carries out what a business user writes to the service address, and returns the reply.
        delivered: told about every text that a device has taken (not for later), when nobody else will tell.
    """

    def __init__(
        self,
        directory: Directory,
        delivery: BusinessDelivery,
        requests: MessageRequests,
        store: Store,
        clock: Clock,
        trace: Trace,
        *,
        offline_seconds: float,
        delivered: Callable[[Message], None],
        metrics: Metrics | None = None,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._directory = directory
        self._store = store
        self._journal = store.journal
        self._clock = clock
        self._trace = trace
        self._offline_seconds = offline_seconds
        self._tell_delivered = delivered
        self._metrics = metrics
        self.command: Command | None = None
        self.outboxes = {
            name: XmppOutbox(name, clock) for name in (*directory.hosted_domains, *directory.routed_domains)
        }
        self.queues = SipQueues(
            delivery, requests, clock, delivered=self._taken_by_device, failed=self._given_up, spread=spread
        )
        self._tasks: set[asyncio.Future[object]] = set()

    # --- onwards ---

    def route(self, message: Message, sequence: int, expires_at: float) -> None:
        """Send a journalled message on its way."""
        recipient = message.recipient
        if self._directory.is_business(recipient.domain):
            if self._directory.is_service(recipient):
                self._start(self._obey(message, sequence))
            elif self._directory.is_echo(recipient):
                self._echo(message, sequence)
            else:
                self.queues.enqueue(message, sequence, expires_at)
            return
        outbox = self.outboxes.get(message.sender.domain)
        if outbox is None:
            self._trace.decision(f"message {message.id} has no way to {recipient}", mark="!", rule="no-component")
            self._journal.settle(sequence)
        else:
            stanza = message_to_stanza(message, now=self._clock.wall())
            outbox.send(stanza, partial(self._proved, message, sequence))

    def send_once(self, message: Message) -> None:
        """Send a notification now or never."""
        if self._directory.is_business(message.recipient.domain):
            if not self._directory.is_service(message.recipient) and not self._directory.is_echo(message.recipient):
                self.queues.offer(message, may_queue=message.kind is not MessageKind.TYPING)
            return
        outbox = self.outboxes.get(message.sender.domain)
        if outbox is not None:
            outbox.send_once(message_to_stanza(message))

    def has_room(self, message: Message, maximum_waiting: int) -> bool:
        """False when too much waits already for this recipient (or for XMPP as a whole)."""
        if self._directory.is_business(message.recipient.domain):
            return self.queues.waiting(message.recipient) < maximum_waiting
        outbox = self.outboxes.get(message.sender.domain)
        return outbox is not None and not outbox.is_full

    # --- arrived ---

    def _proved(self, message: Message, sequence: int) -> None:
        """The XMPP server has processed the stanza."""
        self._journal.settle(sequence)
        self._store.note_crossing(message.sender, message.recipient, message.kind, self._clock.wall())
        if self._metrics is not None:
            self._metrics.messages_settled.add("to-consumer", "delivered")

    def _taken_by_device(self, parcel: Parcel, how: Delivered) -> None:
        message = parcel.message
        now = self._clock.wall()
        self._journal.settle(parcel.sequence)
        self._store.note_crossing(message.sender, message.recipient, message.kind, now)
        if self._metrics is not None:
            direction = self.direction(message)
            self._metrics.messages_settled.add(direction, "delivered")
            self._metrics.message_delivery.observe(self._clock.monotonic() - parcel.queued_at, direction)
        # 202 promises nothing about a device (STANDARDS 1.5): no receipt is invented for it.
        if message.wants_delivered and how.status == 200 and not how.asked_for_receipt:
            self._tell_delivered(message)

    # --- failed ---

    def _given_up(self, parcel: Parcel, failure: Failure) -> None:
        self.tell_sender(parcel.message, failure, parcel.sequence)

    def note_failure(self, message: Message, failure: Failure) -> None:
        """Count a message that was refused or failed, for `isthmus explain`."""
        self._store.note_crossing(message.sender, message.recipient, message.kind, self._clock.wall(), failure)

    def tell_sender(self, message: Message, failure: Failure, sequence: int = 0) -> None:
        """Tell the sender that a message failed; settle its row (`sequence`) when that is safe with somebody else."""
        self._trace.decision(
            f"message of {message.sender} to {message.recipient} failed: {failure.text}",
            people=(str(message.sender), str(message.recipient)),
            rule=failure.rule or str(failure.origin),
            call_id=message.id,
            mark="!",
        )
        self.note_failure(message, failure)
        if self._metrics is not None:
            outcome = "expired" if failure.rule == "expiry" else "failed"
            self._metrics.messages_settled.add(self.direction(message), outcome)
        sender = message.sender
        if message.kind is not MessageKind.TEXT or sender in self._directory.service_addresses:
            self._settle(sequence)  # nobody is told that telling somebody failed
        elif self._directory.is_business(sender.domain):
            self._start(self._notify(self._failure_message(message, failure), sequence))
        else:
            self._bounce(message, failure, sequence)

    def _bounce(self, message: Message, failure: Failure, sequence: int) -> None:
        error = self._report(message, failure)
        outbox = self.outboxes.get(message.recipient.domain)
        if outbox is None:
            self._settle(sequence)
        else:
            outbox.send(message_to_stanza(error), partial(self._settle, sequence))

    def _report(self, message: Message, failure: Failure) -> Message:
        return Message(
            id=f"{message.id}.failed",
            sender=message.recipient,
            recipient=message.sender,
            kind=MessageKind.FAILED,
            recipient_device=message.sender_device,
            refers_to=message.id,
            failure=failure,
            sent_at=self._clock.wall(),
            hops=message.hops,
        )

    def _failure_message(self, message: Message, failure: Failure) -> Message:
        """An IMDN for who asked for notifications, words from the service address for everybody else."""
        if message.wants_delivered or message.wants_displayed:
            return self._report(message, failure)
        quoted = " ".join(message.text.split())
        if len(quoted) > _QUOTED_LENGTH:
            quoted = quoted[:_QUOTED_LENGTH] + "…"
        saying = f" It began: “{quoted}”" if quoted else ""
        return self._notice(
            message.sender,
            f"Your message to {message.recipient} was not delivered. {failure.text}{saying}",
            message.hops,
        )

    def _notice(self, recipient: Address, text: str, hops: int = 0, sender: Address | None = None) -> Message:
        return Message(
            id=uuid4().hex,
            sender=sender or self._directory.service_address(recipient.domain),
            recipient=recipient,
            text=text,
            sent_at=self._clock.wall(),
            hops=hops,
        )

    # --- our own words ---

    async def send_notice(self, recipient: Address, text: str, sender: Address | None = None) -> None:
        """Send our own words, from `sender` or the service address of the domain. Raises StoreError."""
        await self._append_and_route(self._notice(recipient, text, sender=sender))

    async def _append_and_route(self, message: Message) -> None:
        expires_at = self._clock.wall() + self._offline_seconds
        sequence = await self._journal.append(JournalEntry(message, expires_at))
        self.route(message, sequence, expires_at)

    async def _notify(self, message: Message, settles: int) -> None:
        """Journal what the sender of a failed message is told, then settle that message."""
        try:
            await self._append_and_route(message)
        except StoreError as error:
            self._trace.decision(f"a sender cannot be told now: {error}", mark="!", people=(str(message.recipient),))
            self._clock.call_later(STORE_RETRY_SECONDS, lambda: self._start(self._notify(message, settles)))
            return
        self._settle(settles)

    async def _obey(self, message: Message, sequence: int) -> None:
        """Somebody wrote to the service address."""
        reply = "There is nothing here that answers."
        if self.command is not None:
            try:
                reply = await self.command(message.sender, message.text)
            except IsthmusError as error:
                reply = f"That did not work: {error}"
        await self._notify(self._notice(message.sender, reply, message.hops + 1), sequence)

    def _echo(self, message: Message, sequence: int) -> None:
        answer = echo_of(message, self._clock.wall())
        if answer is None:
            self._settle(sequence)
        else:
            self._start(self._notify(answer, sequence))

    # --- inside ---

    def direction(self, message: Message) -> str:
        """Label for metrics."""
        if not self._directory.is_business(message.recipient.domain):
            return "to-consumer"
        return "internal" if self._directory.is_business(message.sender.domain) else "to-business"

    def replay(self, entries: Iterable[JournalEntry]) -> int:
        """Route what a previous run has acknowledged and not settled, in order; return how many."""
        count = 0
        for entry in entries:
            self.route(entry.message, entry.sequence, entry.expires_at)
            count += 1
        return count

    async def drained(self) -> None:
        """Return when nothing of ours is being written (for an orderly stop)."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        for outbox in self.outboxes.values():
            await outbox.drained()

    def _settle(self, sequence: int) -> None:
        if sequence:
            self._journal.settle(sequence)

    def _start(self, work: Awaitable[None]) -> None:
        task: asyncio.Future[object] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Future[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # The row stays in the journal, so the next start tries again.
            _log.error("a message could not be worked off", error=repr(task.exception()))
