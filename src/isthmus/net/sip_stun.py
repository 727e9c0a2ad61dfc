"""STUN binding answers on the SIP port: the keep-alive of UDP flows (RFC 5626 section 4.4.2, RFC 5389)."""

from __future__ import annotations

import struct
from ipaddress import ip_address

_HEADER = struct.Struct("!HHI12s")
_MAGIC_COOKIE = 0x2112A442
_BINDING_REQUEST = 0x0001
_BINDING_SUCCESS = 0x0101
_BINDING_ERROR = 0x0111
_XOR_MAPPED_ADDRESS = 0x0020
_ERROR_CODE = 0x0009
_UNKNOWN_ATTRIBUTES = 0x000A
_FIRST_OPTIONAL_ATTRIBUTE = 0x8000  # RFC 5389 section 15: attributes below this must be understood
# USERNAME, MESSAGE-INTEGRITY, REALM, NONCE: known, and without effect, as RFC 5626 asks for no credentials.
_CREDENTIALS = frozenset({0x0006, 0x0008, 0x0014, 0x0015})
# More unknown attributes than this would make the answer larger than most questions (reflection).
_MAXIMUM_UNKNOWN_REPORTED = 4


def is_stun(data: bytes) -> bool:
    """True when a datagram is STUN and not SIP: no SIP line begins with two zero bits (RFC 5389 section 8)."""
    return len(data) >= _HEADER.size and data[0] < 2 and data[4:8] == b"\x21\x12\xa4\x42"


def binding_answer(data: bytes, host: str, port: int) -> bytes | None:
    """Answer a binding request with the address it came from; None for everything that asks nothing of us.

    Args:
        data: one datagram for which `is_stun` holds.
        host, port: its source.
    """
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind != _BINDING_REQUEST or cookie != _MAGIC_COOKIE or length % 4 or length != len(data) - _HEADER.size:
        return None
    unknown = _unknown_attributes(data)
    if unknown is None:
        return None
    if unknown:
        return _error_420(transaction, unknown)
    value = _xor_mapped_address(transaction, host, port)
    attribute = struct.pack("!HH", _XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEADER.pack(_BINDING_SUCCESS, len(attribute), _MAGIC_COOKIE, transaction) + attribute


def _unknown_attributes(data: bytes) -> list[int] | None:
    """Types of attributes we would have to understand; None when the attributes do not fit the message."""
    unknown: list[int] = []
    position = _HEADER.size
    while position < len(data):
        kind, length = struct.unpack_from("!HH", data, position)
        position += 4 + (length + 3) // 4 * 4
        if position > len(data):
            return None
        if kind < _FIRST_OPTIONAL_ATTRIBUTE and kind not in _CREDENTIALS:
            unknown.append(kind)
    return unknown[:_MAXIMUM_UNKNOWN_REPORTED]


def _xor_mapped_address(transaction: bytes, host: str, port: int) -> bytes:
    address = ip_address(host.partition("%")[0])
    mask = struct.pack("!I", _MAGIC_COOKIE) + transaction
    family = 1 if address.version == 4 else 2
    masked = bytes(one ^ other for one, other in zip(address.packed, mask, strict=False))
    return struct.pack("!BBH", 0, family, port ^ (_MAGIC_COOKIE >> 16)) + masked


def _error_420(transaction: bytes, unknown: list[int]) -> bytes:
    code = struct.pack("!HBB", 0, 4, 20)
    kinds = b"".join(struct.pack("!H", kind) for kind in unknown)
    attributes = struct.pack("!HH", _ERROR_CODE, len(code)) + code
    attributes += struct.pack("!HH", _UNKNOWN_ATTRIBUTES, len(kinds)) + kinds + b"\0" * (-len(kinds) % 4)
    return _HEADER.pack(_BINDING_ERROR, len(attributes), _MAGIC_COOKIE, transaction) + attributes
