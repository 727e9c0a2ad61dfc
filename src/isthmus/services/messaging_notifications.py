"""What accompanies messages: typing, receipts, markers and late failures, in both directions (STANDARDS 1.5).

None of it is stored: typing and receipts are sent now or never. What an answer refers to is remembered in bounded
tables; after a restart a receipt for something older is passed on to whoever is known to understand it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from isthmus.model import (
    Address,
    AuthorisationState,
    ChatState,
    Failure,
    Message,
    MessageKind,
    Modality,
    Verdict,
)
from isthmus.ports import Clock, TimerHandle
from isthmus.services.messaging_tables import RecentTable
from isthmus.services.rate_limits import TokenBuckets

# About 10 MB each when full; a receipt for something older than the newest 20,000 messages is still passed on.
MAXIMUM_REMEMBERED = 20_000
# "Displayed" covers everything before it: this many are told one by one, the rest is old news.
MAXIMUM_UNDISPLAYED = 100
MAXIMUM_CONVERSATIONS = 20_000
MAXIMUM_TYPING = 10_000
TYPING_PER_SECOND = 1.0
TYPING_BURST = 6.0

Pair = tuple[Address, Address]


class Relations(Protocol):
    """The part of `services.contacts` that messaging asks."""

    def is_contact(self, sender: Address, recipient: Address) -> bool:
        """True when `recipient` wants to hear from `sender`."""

    def state(self, watcher: Address, presentity: Address) -> AuthorisationState | None:
        """PENDING, ACTIVE or None."""


class Policing(Protocol):
    """The part of `services.policing` that messaging asks."""

    def verdict(self, sender: Address, recipient: Address, modality: Modality, *, is_contact: bool) -> Verdict:
        """May this cross now?"""


class Notifications:
    """Decides which notifications cross, and remembers what they refer to.

    Args:
        send: carries a notification to its recipient's realm; may drop it.
        understands_receipts: True for business users whose devices are known to speak CPIM.
        tell_failure: tells the sender of an earlier message that it failed after all.
    """

    def __init__(
        self,
        relations: Relations,
        policing: Policing,
        clock: Clock,
        *,
        send: Callable[[Message], None],
        is_business: Callable[[str], bool],
        understands_receipts: Callable[[Address], bool],
        tell_failure: Callable[[Message, Failure], None],
    ) -> None:
        self._relations = relations
        self._policing = policing
        self._clock = clock
        self._send = send
        self._is_business = is_business
        self._understands_receipts = understands_receipts
        self._tell_failure = tell_failure
        self._spoken: RecentTable[Pair, bool] = RecentTable(MAXIMUM_REMEMBERED)
        # (sender, recipient, id) of texts -> the text without its body, to tell what became of it
        self._texts: RecentTable[tuple[Address, Address, str], Message] = RecentTable(MAXIMUM_REMEMBERED)
        self._undisplayed: RecentTable[Pair, OrderedDict[str, bool]] = RecentTable(MAXIMUM_CONVERSATIONS)
        self._told: RecentTable[tuple[Address, Address, str, MessageKind], bool] = RecentTable(MAXIMUM_REMEMBERED)
        self._ephemeral: RecentTable[tuple[Address, str], bool] = RecentTable(MAXIMUM_REMEMBERED)
        self._typing: dict[Pair, TimerHandle] = {}
        self._typing_rate: TokenBuckets[Address] = TokenBuckets(TYPING_PER_SECOND, TYPING_BURST, clock.monotonic)

    # --- texts ---

    def text_sent(self, message: Message) -> None:
        """A text was accepted: it ends the typing of its sender, and answers will refer to it."""
        pair = (message.sender, message.recipient)
        if pair not in self._spoken:
            self._spoken.put(pair, True)
        if self._typing:
            self._forget_typing(pair)
        # Sixty characters tell people which message is meant; long texts are not worth their memory.
        brief = message if len(message.text) <= 200 else replace(message, text=message.text[:60] + "…")
        self._texts.put((message.sender, message.recipient, message.id), brief)
        if message.wants_displayed:
            undisplayed = self._undisplayed.get(pair)
            if undisplayed is None:
                undisplayed = OrderedDict()
                self._undisplayed.put(pair, undisplayed)
            undisplayed[message.id] = True
            if len(undisplayed) > MAXIMUM_UNDISPLAYED:
                undisplayed.popitem(last=False)

    def quote(self, one: Address, other: Address, identifier: str) -> str:
        """The beginning of a text between these two, "" when it is not remembered."""
        text = self._texts.get((one, other, identifier)) or self._texts.get((other, one, identifier))
        return text.text if text is not None else ""

    # --- what comes in ---

    def receive(self, message: Message) -> None:
        """Take a notification of an authenticated sender: pass it on, or drop it silently."""
        if message.kind is MessageKind.FAILED:
            self._failed(message)
            return
        is_contact = self._relations.is_contact(message.sender, message.recipient)
        if not self._policing.verdict(message.sender, message.recipient, Modality.MESSAGES, is_contact=is_contact):
            return
        if message.kind is MessageKind.TYPING:
            self._received_typing(message)
        elif message.kind is MessageKind.DISPLAYED:
            self._received_displayed(message)
        else:
            self._received_receipt(message)

    def delivered(self, message: Message) -> None:
        """A device has taken a text of somebody who asked for a receipt, and will not tell by itself.

        A receipt says that a device is switched on, so it goes to people who may see that (never a claim of "read").
        """
        if self._relations.state(message.sender, message.recipient) is AuthorisationState.ACTIVE:
            self._received_receipt(
                Message(
                    id=f"{message.id}.delivered",
                    sender=message.recipient,
                    recipient=message.sender,
                    kind=MessageKind.DELIVERED,
                    refers_to=message.id,
                    sent_at=self._clock.wall(),
                    hops=message.hops,
                )
            )

    def is_ephemeral(self, sender: Address, identifier: str) -> bool:
        """True when `sender` sent a notification under this id, so that its bounce concerns nobody."""
        return (sender, identifier) in self._ephemeral

    # --- typing ---

    def _received_typing(self, message: Message) -> None:
        pair = (message.sender, message.recipient)
        # It tells that somebody is there: only to people who may know that, who take part in the conversation.
        if self._relations.state(message.recipient, message.sender) is not AuthorisationState.ACTIVE:
            return
        if (message.recipient, message.sender) not in self._spoken:
            return
        if self._typing_rate.take(message.sender):
            return
        self._forget_typing(pair)
        if message.state is ChatState.COMPOSING and message.expires_at is not None:
            self._watch_typing(pair, message)
        self._pass(message)

    def _watch_typing(self, pair: Pair, message: Message) -> None:
        """RFC 3994 section 3.3: composing that is not refreshed has paused; XMPP expects to be told so."""
        if len(self._typing) >= MAXIMUM_TYPING or message.expires_at is None:
            return
        paused = replace(message, id=f"{message.id}.paused", state=ChatState.PAUSED, expires_at=None)

        def pause() -> None:
            self._typing.pop(pair, None)
            self._pass(paused)

        seconds = max(1.0, message.expires_at - self._clock.wall())
        self._typing[pair] = self._clock.call_later(seconds, pause)

    def _forget_typing(self, pair: Pair) -> None:
        timer = self._typing.pop(pair, None)
        if timer is not None:
            timer.cancel()

    # --- receipts and markers ---

    def _received_receipt(self, message: Message) -> None:
        """`message.sender` has got `message.refers_to` of `message.recipient`."""
        original = self._texts.get((message.recipient, message.sender, message.refers_to))
        if original is not None and not original.wants_delivered:
            return
        self._tell_once(message, original)

    def _received_displayed(self, message: Message) -> None:
        """A marker covers everything before it, so each undisplayed one is told (RFC 5438 knows single ones only)."""
        undisplayed = self._undisplayed.get((message.recipient, message.sender))
        covered = [message.refers_to]
        if undisplayed is not None and message.refers_to in undisplayed and self._is_business(message.recipient.domain):
            covered = []
            for identifier in list(undisplayed):
                del undisplayed[identifier]
                covered.append(identifier)
                if identifier == message.refers_to:
                    break
        for identifier in covered:
            original = self._texts.get((message.recipient, message.sender, identifier))
            if original is not None and not original.wants_displayed:
                continue
            is_named = identifier == message.refers_to
            self._tell_once(
                message if is_named else replace(message, id=f"{message.id}.{identifier}", refers_to=identifier),
                original,
            )

    def _tell_once(self, message: Message, original: Message | None) -> None:
        key = (message.sender, message.recipient, message.refers_to, message.kind)
        if key in self._told:
            return  # another device, a carbon, or a repeat
        if original is None and self._is_business(message.recipient.domain):
            # Sent before a restart, perhaps: worth passing on to a device that would understand it.
            if not self._understands_receipts(message.recipient):
                return
        elif original is not None and original.sender_device:
            message = replace(message, recipient_device=original.sender_device)
        self._told.put(key, True)
        self._pass(message)

    def _pass(self, message: Message) -> None:
        self._ephemeral.put((message.sender, message.id), True)
        self._send(message)

    # --- late failures ---

    def _failed(self, message: Message) -> None:
        """`message.sender` (or its server) says that `refers_to` of `message.recipient` failed after all."""
        if self.is_ephemeral(message.recipient, message.refers_to):
            return
        key = (message.recipient, message.sender, message.refers_to)
        original = self._texts.get(key)
        if original is None and not self._relations.is_contact(message.sender, message.recipient):
            return  # anybody can send an error stanza; only one about a known message is believed
        told = (message.sender, message.recipient, message.refers_to, MessageKind.FAILED)
        if message.failure is None or told in self._told:
            return
        self._told.put(told, True)
        if original is None:
            original = Message(id=message.refers_to, sender=message.recipient, recipient=message.sender)
        self._tell_failure(original, message.failure)
