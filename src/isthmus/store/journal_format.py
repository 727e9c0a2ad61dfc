"""How a journal entry looks on disk: one version byte, then a JSON array with the fields in a fixed order.

A new field or a new meaning needs a new version; old versions stay readable, since a journal outlives an update.
"""

from __future__ import annotations

from typing import Any

import orjson

from isthmus.errors import StoreError
from isthmus.model import Address, ChatState, Failure, Message, MessageKind, Origin
from isthmus.ports import JournalEntry

VERSION = 1
_VERSION_BYTE = bytes((VERSION,))


def encode_entry(entry: JournalEntry) -> bytes:
    """Return the payload of `entry`; its sequence is not part of it.

    Raises:
        StoreError: a text of the message is not valid Unicode, so that it could not be read back.
    """
    message = entry.message
    failure = message.failure
    try:
        return _VERSION_BYTE + orjson.dumps(
            (
                entry.expires_at,
                entry.origin_key,
                entry.attempts,
                message.id,
                message.sender.local,
                message.sender.domain,
                message.recipient.local,
                message.recipient.domain,
                message.kind,
                message.sender_device,
                message.recipient_device,
                message.text,
                message.language,
                message.subject,
                message.thread,
                message.state,
                message.refers_to,
                message.wants_delivered,
                message.wants_displayed,
                None
                if failure is None
                else (
                    failure.origin,
                    failure.status,
                    failure.condition,
                    failure.text,
                    failure.rule,
                    failure.is_temporary,
                ),
                message.sent_at,
                message.expires_at,
                message.hops,
            )
        )
    except orjson.JSONEncodeError as error:
        raise StoreError(f"message {message.id!r} cannot be written to the journal: {error}") from error


def decode_entry(sequence: int, payload: bytes) -> JournalEntry:
    """Read a payload back.

    Raises:
        StoreError: it was written by a newer Isthmus, or is damaged.
    """
    version = payload[0] if payload else 0
    if version != VERSION:
        raise StoreError(
            f"journal entry {sequence} has format {version}, this Isthmus reads format {VERSION}: "
            "start the newer Isthmus that wrote it"
        )
    try:
        return _entry_from_fields(sequence, orjson.loads(payload[1:]))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"journal entry {sequence} is damaged ({error}): restore the database from a backup"
        ) from error


def _entry_from_fields(sequence: int, fields: list[Any]) -> JournalEntry:
    (
        entry_expires_at,
        origin_key,
        attempts,
        message_id,
        sender_local,
        sender_domain,
        recipient_local,
        recipient_domain,
        kind,
        sender_device,
        recipient_device,
        text,
        language,
        subject,
        thread,
        state,
        refers_to,
        wants_delivered,
        wants_displayed,
        failure,
        sent_at,
        expires_at,
        hops,
    ) = fields
    message = Message(
        id=message_id,
        sender=Address(sender_local, sender_domain),
        recipient=Address(recipient_local, recipient_domain),
        kind=MessageKind(kind),
        sender_device=sender_device,
        recipient_device=recipient_device,
        text=text,
        language=language,
        subject=subject,
        thread=thread,
        state=ChatState(state),
        refers_to=refers_to,
        wants_delivered=wants_delivered,
        wants_displayed=wants_displayed,
        failure=None if failure is None else Failure(Origin(failure[0]), *failure[1:]),
        sent_at=sent_at,
        expires_at=expires_at,
        hops=hops,
    )
    return JournalEntry(message, entry_expires_at, origin_key, sequence, attempts)
