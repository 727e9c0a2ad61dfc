"""Messages in both directions; the two halves live in `messages_xmpp` and `messages_sip`."""

from isthmus.interworking.messages_sip import (
    PLAIN_TEXT_TYPE,
    derived_message_id,
    failure_notice,
    message_from_sip,
    message_to_sip_body,
    message_to_sip_headers,
    origin_key,
)
from isthmus.interworking.messages_xmpp import (
    MAXIMUM_ID_LENGTH,
    MAXIMUM_TEXT_OCTETS,
    message_from_stanza,
    message_to_stanza,
)
from isthmus.interworking.sip_bodies import ACCEPT, ACCEPT_ENCODING, ACCEPTED_TYPES, UnsupportedBodyError
from isthmus.interworking.text_parts import MAXIMUM_REQUEST_OCTETS, split_message, split_text

__all__ = [
    "ACCEPT",
    "ACCEPTED_TYPES",
    "ACCEPT_ENCODING",
    "MAXIMUM_ID_LENGTH",
    "MAXIMUM_REQUEST_OCTETS",
    "MAXIMUM_TEXT_OCTETS",
    "PLAIN_TEXT_TYPE",
    "UnsupportedBodyError",
    "derived_message_id",
    "failure_notice",
    "message_from_sip",
    "message_from_stanza",
    "message_to_sip_body",
    "message_to_sip_headers",
    "message_to_stanza",
    "origin_key",
    "split_message",
    "split_text",
]
