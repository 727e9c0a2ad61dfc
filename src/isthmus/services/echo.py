"""`echo@domain`: sends back what it gets, so that anybody (and `isthmus doctor`) can prove a round trip."""

from __future__ import annotations

from dataclasses import replace

from isthmus.model import Message, MessageKind


def echo_of(message: Message, now: float) -> Message | None:
    """Return the answer of the echo address, or None when answering could begin a loop.

    Only what people write is answered, to the device it came from; the id says what it answers, the hop count goes on.

    Args:
        message: what was sent to the echo address.
        now: Unix seconds.
    """
    if message.kind is not MessageKind.TEXT or message.sender.local == message.recipient.local:
        return None
    return replace(
        message,
        id=f"echo-{message.id}",
        sender=message.recipient,
        recipient=message.sender,
        sender_device="",
        recipient_device=message.sender_device,
        wants_delivered=False,
        wants_displayed=False,
        sent_at=now,
        expires_at=None,
        hops=message.hops + 1,
    )
