"""MESSAGE requests for business users: body by what the device takes, fresh identifiers, hop marker (RFC 3428)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2s

from isthmus.interworking.addresses import address_to_sip_uri
from isthmus.interworking.cpim import CPIM_TYPE
from isthmus.interworking.messages_sip import message_to_sip_body, message_to_sip_headers
from isthmus.interworking.text_parts import MAXIMUM_REQUEST_OCTETS, MINIMUM_PART_OCTETS, split_message
from isthmus.model import Address, Message, MessageKind
from isthmus.ports import Clock, LeanSipEndpoint
from isthmus.services.delivery import Way
from isthmus.services.messaging_tables import RecentTable
from isthmus.sip.headers import Headers
from isthmus.sip.message import SipRequest

# What the transport adds: Via with branch and rport, Content-Length, Route of one proxy.
TRANSPORT_OCTETS = 180
# Bodies below this fit whatever the headers are, so that the usual message is not measured.
_SURELY_SMALL_OCTETS = 300
MAXIMUM_REMEMBERED_DEVICES = 20_000


@functools.lru_cache(maxsize=32_768)
def _uri_text(address: Address, device: str = "") -> str:
    return str(address_to_sip_uri(address, device))


class MessageRequests:
    """Builds MESSAGE requests and remembers what devices take.

    Args:
        hop_header: returns the signed hop marker for a number of crossings.
    """

    def __init__(self, endpoint: LeanSipEndpoint, clock: Clock, hop_header: Callable[[int], tuple[str, str]]) -> None:
        self._clock = clock
        # Unique and random as a whole; a MESSAGE makes no dialog that somebody could break into by guessing the rest.
        self._from_tag = f";tag={endpoint.new_tag()}."
        self._tag_numbers = itertools.count()
        self._hop_header = hop_header
        self._speak_cpim: RecentTable[Address, bool] = RecentTable(MAXIMUM_REMEMBERED_DEVICES)
        self._refuse_cpim: RecentTable[tuple[str, Address], bool] = RecentTable(MAXIMUM_REMEMBERED_DEVICES)
        self._refuse_typing: RecentTable[tuple[str, Address], bool] = RecentTable(MAXIMUM_REMEMBERED_DEVICES)

    # --- what devices take ---

    def note_cpim_speaker(self, address: Address) -> None:
        """A device of this user sent CPIM: it takes CPIM as well."""
        if address not in self._speak_cpim:
            self._speak_cpim.put(address, True)

    def speaks_cpim(self, address: Address) -> bool:
        """True when a device of this user sent CPIM."""
        return address in self._speak_cpim

    def takes_cpim(self, way: Way, recipient: Address) -> bool:
        """True when CPIM is worth trying: the device lists it, or was heard speaking it, and did not refuse it."""
        if CPIM_TYPE not in way.accepts and recipient not in self._speak_cpim:
            return False
        return (way.key, recipient) not in self._refuse_cpim

    def refused(self, way: Way, message: Message) -> bool:
        """A device took offence (415, 488): remember it. True when the message is worth another try in plain text."""
        key = (way.key, message.recipient)
        if message.kind is MessageKind.TYPING:
            self._refuse_typing.put(key, True)  # RFC 3994 section 4: no more of them in this conversation
            return False
        if not self.takes_cpim(way, message.recipient):
            return False  # it was plain text that was refused
        self._refuse_cpim.put(key, True)
        return message.kind in (MessageKind.TEXT, MessageKind.FAILED)

    # --- requests ---

    def build(self, message: Message, way: Way, attempt: int) -> SipRequest | None:
        """Return the request, or None when this device has no way to be told (typing refused, receipt without CPIM).

        The Call-ID belongs to the message: fresh for each (edge case 16: some phones drop what repeats a Call-ID),
        the same when it is delivered again after a crash, so that a careful phone shows it once.

        Raises:
            AddressError: the sender has no SIP form.
        """
        recipient = message.recipient
        if message.kind is MessageKind.TYPING and (way.key, recipient) in self._refuse_typing:
            return None
        now = self._clock.wall()
        if message.sender_device and not way.knows_gruu:
            message = replace(message, sender_device="")
        content = message_to_sip_body(message, self.takes_cpim(way, recipient), now)
        if content is None:
            return None
        content_type, body = content
        sender = message.sender
        call_id = call_id_of(message)
        hop_name, hop = self._hop_header(message.hops + 1)
        tag = f"{self._from_tag}{next(self._tag_numbers):x}"
        # Lines that are known to be clean, in the form that costs least (this runs for every message).
        headers = Headers.of_lines(
            [
                ("max-forwards", "Max-Forwards", "70"),
                ("from", "From", f"<{_uri_text(sender, message.sender_device)}>{tag}"),
                ("to", "To", f"<{_uri_text(recipient)}>"),
                ("call-id", "Call-ID", f"{call_id}@{sender.domain}" if sender.domain.isascii() else call_id),
                ("cseq", "CSeq", f"{attempt + 1} MESSAGE"),
                (hop_name.lower(), hop_name, hop),
                ("content-type", "Content-Type", content_type),
            ]
        )
        if message.subject or message.language or message.expires_at is not None:
            for name, value in message_to_sip_headers(message, now):
                headers.add(name, value)
        return SipRequest("MESSAGE", way.uri, headers, body)

    def parts(self, message: Message, way: Way) -> list[Message]:
        """Split a text that is too long for a way without congestion control (RFC 3428 section 8; edge case 18)."""
        if way.is_stream or message.kind is not MessageKind.TEXT or len(message.text) * 4 <= _SURELY_SMALL_OCTETS:
            return [message]
        request = self.build(message, way, 0)
        if request is None:
            return [message]
        size = len(request.to_bytes()) + TRANSPORT_OCTETS + sum(len(route) + 10 for route in way.routes)
        if size <= MAXIMUM_REQUEST_OCTETS:
            return [message]
        room = MAXIMUM_REQUEST_OCTETS - (size - len(message.text.encode()))
        return split_message(message, max(room, MINIMUM_PART_OCTETS))

    def is_long(self, message: Message, way: Way) -> bool:
        """True when the message does not fit one datagram."""
        return len(self.parts(message, way)) > 1


def call_id_of(message: Message) -> str:
    """Return the Call-ID of a message: stable over redelivery, different for every message of a sender."""
    seed = f"{message.id}\n{message.sender.local}\n{message.sender.domain}\n{message.recipient}\n{message.sent_at!r}"
    return blake2s(seed.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
