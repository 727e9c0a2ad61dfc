"""Messages: admission, journal, acknowledgement; the way onwards is `messaging_routes`'s.

    SIP   MESSAGE -> sender proven -> policy -> journal (group commit) -> 202 -> stanza -> barrier -> settled
    XMPP  <message/> -> policy -> journal -> queue of the recipient -> MESSAGE to every device -> 2xx -> settled

Nothing that was acknowledged is lost: it is in the journal, and `start` replays what is not settled.
"""

from __future__ import annotations

import asyncio
from functools import partial
from xml.etree.ElementTree import Element

from isthmus.config import LimitSettings
from isthmus.errors import AddressError, LinkDownError, PeerError, StoreError
from isthmus.interworking.addresses import address_from_jid
from isthmus.interworking.cpim import CPIM_TYPE
from isthmus.interworking.failures import bounce, failure_from_peer_error, failure_to_sip
from isthmus.interworking.messages_sip import message_from_sip
from isthmus.interworking.messages_xmpp import message_from_stanza
from isthmus.interworking.sip_bodies import UnsupportedBodyError
from isthmus.metrics import Metrics
from isthmus.model import Address, Failure, Message, MessageKind, Origin
from isthmus.ports import Bus, Clock, IncomingRequest, JournalEntry, LeanSipEndpoint, Store, XmppLink
from isthmus.services.authentication import Identity
from isthmus.services.delivery import BusinessDelivery
from isthmus.services.directory import Directory
from isthmus.services.events import BindingsChanged, MessageAccepted, UserRemoved
from isthmus.services.loop_protection import LoopProtection
from isthmus.services.messaging_admission import Admission
from isthmus.services.messaging_notifications import Notifications, Policing, Relations
from isthmus.services.messaging_requests import MessageRequests
from isthmus.services.messaging_routes import Command, MessageRoutes
from isthmus.services.rate_limits import RateLimits
from isthmus.trace import Trace

USER_REMOVED = Failure(Origin.ADDRESS, 404, "item-not-found", "There is nobody at this address.", "user-removed")
STORE_FAILED = Failure(
    Origin.LOCAL,
    500,
    "resource-constraint",
    "The message cannot be kept now; try again later.",
    "store",
    is_temporary=True,
)


class Messaging:
    """The message router; the sink of MESSAGE requests and of message stanzas.

    Args:
        relations: contacts: who is whose contact, who may see whom.
        policing: the policy in force.
    """

    def __init__(
        self,
        directory: Directory,
        delivery: BusinessDelivery,
        endpoint: LeanSipEndpoint,
        store: Store,
        bus: Bus,
        clock: Clock,
        trace: Trace,
        *,
        relations: Relations,
        policing: Policing,
        rates: RateLimits,
        loops: LoopProtection,
        limits: LimitSettings,
        metrics: Metrics | None = None,
    ) -> None:
        self._journal = store.journal
        self._bus = bus
        self._clock = clock
        self._trace = trace
        self._rates = rates
        self._loops = loops
        self._metrics = metrics
        self._held: list[MessageAccepted] | None = []  # accepted before `start`
        self._replayed: set[int] = set()
        self._requests = MessageRequests(endpoint, clock, loops.header)
        self.routes = MessageRoutes(
            directory,
            delivery,
            self._requests,
            store,
            clock,
            trace,
            offline_seconds=limits.offline_seconds,
            delivered=self._taken_by_device,
            metrics=metrics,
        )
        self._notifications = Notifications(
            relations,
            policing,
            clock,
            send=self.routes.send_once,
            is_business=directory.is_business,
            understands_receipts=self._requests.speaks_cpim,
            tell_failure=self.routes.tell_sender,
        )
        self._admission = Admission(directory, relations, policing, loops, self.routes, limits, clock, trace)
        bus.register(MessageAccepted, self._accepted)
        bus.register(BindingsChanged, self._bindings_changed)
        bus.register(UserRemoved, self._user_removed)

    async def start(self) -> int:
        """Send what a previous run acknowledged but did not settle; return how many. Raises StoreError.

        What came in before is held back until then, so that the old messages go first and nothing goes twice.
        """
        entries = await self._journal.pending()
        held, self._held = self._held or [], None
        self._replayed = {entry.sequence for entry in entries}
        self.routes.replay(entries)
        for event in held:
            if event.sequence not in self._replayed:
                self._bus.send(event.message.recipient, event)
        return len(entries)

    async def stop(self) -> None:
        """Finish what can be finished now; the rest is in the journal. Raises StoreError."""
        await self.routes.drained()
        await self._journal.flush()

    def set_command(self, command: Command) -> None:
        """Let `command(user, text)` answer what business users write to the service address."""
        self.routes.command = command

    async def send_notice(self, recipient: Address, text: str, *, sender: Address | None = None) -> None:
        """Send our own words, from `sender` or the service address of the domain. Raises StoreError."""
        await self.routes.send_notice(recipient, text, sender)

    def waiting(self, address: Address) -> int:
        """How many messages wait for a business user."""
        return self.routes.queues.waiting(address)

    # --- from SIP ---

    def receive_request(self, incoming: IncomingRequest, identity: Identity, recipient: Address | None = None) -> None:
        """Take a MESSAGE whose sender is proven.

        Args:
            recipient: who it is for when the Request-URI does not say it (edge case 20: rewritten to an IP address).
        """
        request = incoming.request
        try:
            messages = message_from_sip(
                request,
                self._clock.wall(),
                sender=identity.address,
                sender_device=identity.device,
                recipient=recipient,
                hops=self._loops.hops(request),
            )
        except UnsupportedBodyError as error:
            incoming.respond(415, headers=error.headers)
            return
        except PeerError as error:
            incoming.respond(error.status or 400, str(error))
            return
        if request.content_type == CPIM_TYPE:
            self._requests.note_cpim_speaker(identity.address)
        texts = [message for message in messages if message.kind is MessageKind.TEXT]
        for message in texts:
            failure = self._admission.refusal(message)
            if failure is not None:
                self._admission.note_refusal(message, failure)
                status, reason = failure_to_sip(failure, "MESSAGE", is_only_target=True)
                headers = [("Retry-After", "60")] if failure.is_temporary else []
                incoming.respond(status, reason, headers=headers)
                return
        for message in messages:
            if message.kind is not MessageKind.TEXT and not self._loops.refusal(message.hops):
                self._notifications.receive(message)
        if not texts:
            incoming.respond(200)
        elif texts[0].expires_at is not None and texts[0].expires_at <= self._clock.wall():
            self._trace.decision(f"message {texts[0].id} was stale on arrival", rule="expiry", call_id=texts[0].id)
            incoming.respond(200)
        else:
            # What stays the same when a client sends once more (RFC 3261 section 17): not the Call-ID alone (edge 16).
            number = request.headers.get("cseq")
            key = f"{request.call_id}\n{number}\n{request.from_address.tag}\n{texts[0].recipient}"
            self._append_from_sip(incoming, texts, key)

    def _append_from_sip(self, incoming: IncomingRequest, texts: list[Message], key: str) -> None:
        """Journal one text (usually) or several, then acknowledge all at once."""
        if len(texts) == 1:
            message = texts[0]
            expires_at = self._admission.expires_at(message)
            self._journal.append_nowait(
                JournalEntry(message, expires_at, key), partial(self._appended_from_sip, incoming, message, expires_at)
            )
            return
        entries = [
            JournalEntry(message, self._admission.expires_at(message), f"{key}\n{number}")
            for number, message in enumerate(texts)
        ]
        all_appended = asyncio.gather(*(self._journal.append(entry) for entry in entries))
        all_appended.add_done_callback(partial(self._all_appended_from_sip, incoming, entries))

    def _appended_from_sip(
        self, incoming: IncomingRequest, message: Message, expires_at: float, outcome: int | StoreError
    ) -> None:
        if isinstance(outcome, StoreError):
            self._refuse_for_store(incoming, message, outcome)
            return
        incoming.respond(202)
        self._announce(message, outcome, expires_at)

    def _all_appended_from_sip(
        self, incoming: IncomingRequest, entries: list[JournalEntry], appended: asyncio.Future[list[int]]
    ) -> None:
        try:
            sequences = appended.result()
        except StoreError as error:
            self._refuse_for_store(incoming, entries[0].message, error)
            return
        incoming.respond(202)
        for entry, sequence in zip(entries, sequences, strict=True):
            self._announce(entry.message, sequence, entry.expires_at)

    def _refuse_for_store(self, incoming: IncomingRequest, message: Message, error: StoreError) -> None:
        self._trace.decision(
            f"message {message.id} cannot be kept: {error}", mark="!", rule="store", call_id=message.id
        )
        incoming.respond(500, "The message cannot be kept now", headers=[("Retry-After", "10")])

    def _note_store_failure(self, message: Message, error: StoreError) -> None:
        text = f"message {message.id} cannot be kept: {error}"
        self._trace.decision(text, mark="!", rule="store", call_id=message.id)

    # --- from XMPP ---

    def message_received(self, link: XmppLink, stanza: Element) -> None:
        """Take a `<message/>` (a part of `ports.StanzaSink`)."""
        try:
            messages = message_from_stanza(stanza, self._clock.wall(), quote_of=partial(self._quote, stanza))
        except PeerError as error:
            self._bounce(link, stanza, failure_from_peer_error(error))
            return
        is_counted = False
        for message in messages:
            if message.recipient.domain != link.domain:
                continue  # the server routes by domain, so this is none of ours
            if message.kind is not MessageKind.FAILED and not is_counted:
                is_counted = True
                excess = self._rates.user(message.sender)
                if excess is not None:
                    self._note_excess(excess.rule)
                    if message.kind is MessageKind.TEXT:
                        if excess.is_news:
                            self._admission.note_refusal(message, excess.failure())
                        self._bounce(link, stanza, excess.failure())
                    return
            if message.kind is not MessageKind.TEXT:
                if not self._loops.refusal(message.hops):
                    self._notifications.receive(message)
                continue
            failure = self._admission.refusal(message)
            if failure is not None:
                self._refuse_stanza(link, stanza, message, failure)
                return
            expires_at = self._admission.expires_at(message)
            self._journal.append_nowait(
                JournalEntry(message, expires_at), partial(self._appended_from_xmpp, link, stanza, message, expires_at)
            )

    def _appended_from_xmpp(
        self, link: XmppLink, stanza: Element, message: Message, expires_at: float, outcome: int | StoreError
    ) -> None:
        if isinstance(outcome, StoreError):
            self._note_store_failure(message, outcome)
            self._bounce(link, stanza, STORE_FAILED)
            return
        self._announce(message, outcome, expires_at)

    def _refuse_stanza(self, link: XmppLink, stanza: Element, message: Message, failure: Failure) -> None:
        self._admission.note_refusal(message, failure)
        self._bounce(link, stanza, failure)

    def _bounce(self, link: XmppLink, stanza: Element, failure: Failure) -> None:
        """Answer a stanza that was never accepted; when the link is lost its sender's server tells instead."""
        answer = bounce(stanza, failure)
        if answer:
            try:
                link.send(answer)
            except LinkDownError:
                return

    def _quote(self, stanza: Element, identifier: str) -> str:
        """The beginning of an earlier text of the same two people, for replies and reactions."""
        try:
            sender, _ = address_from_jid(stanza.get("from", ""))
            recipient, _ = address_from_jid(stanza.get("to", ""))
        except AddressError:
            return ""
        return self._notifications.quote(sender, recipient, identifier)

    def link_up(self, link: XmppLink) -> None:
        """The component of a domain is connected (again) (a part of `ports.StanzaSink`)."""
        outbox = self.routes.outboxes.get(link.domain)
        if outbox is not None:
            outbox.link_up(link)

    def link_down(self, link: XmppLink) -> None:
        """The stream is lost (a part of `ports.StanzaSink`)."""
        outbox = self.routes.outboxes.get(link.domain)
        if outbox is not None:
            outbox.link_down()

    # --- accepted ---

    def _announce(self, message: Message, sequence: int, expires_at: float) -> None:
        if not sequence or sequence in self._replayed:
            return  # a retransmission after a crash, or replayed by `start`: the message is on its way already
        if self._metrics is not None:
            self._metrics.messages_accepted.add(self.routes.direction(message))
        event = MessageAccepted(message, sequence, expires_at)
        if self._held is None:
            self._bus.send(message.recipient, event)
        else:
            self._held.append(event)

    def _accepted(self, _: Address, event: MessageAccepted) -> None:
        self._notifications.text_sent(event.message)
        self.routes.route(event.message, event.sequence, event.expires_at)

    def _taken_by_device(self, message: Message) -> None:
        self._notifications.delivered(message)

    def _bindings_changed(self, address: Address, event: BindingsChanged) -> None:
        if event.has_bindings:
            self.routes.queues.registrations_changed(address)

    def _user_removed(self, address: Address, _: UserRemoved) -> None:
        self.routes.queues.drop(address, USER_REMOVED)

    def _note_excess(self, rule: str) -> None:
        if self._metrics is not None:
            self._metrics.rate_limited.add(rule)
