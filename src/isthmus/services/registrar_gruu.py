"""Globally routable user agent URIs (RFC 5627): one public and one temporary address per device, without a table."""

from __future__ import annotations

import base64
import binascii
import hmac
from hashlib import sha256

from isthmus.errors import AddressError
from isthmus.interworking.addresses import address_from_sip_uri, address_to_sip_uri
from isthmus.model import Address
from isthmus.ports import Binding
from isthmus.sip.uri import SipUri

_PREFIX = "tgruu."
_NONCE_OCTETS = 8
_TAG_OCTETS = 10  # 80 bits: guessing one over the network is hopeless, and the URI stays short
_INSTANCE_OCTETS = 8
_CALL_OCTETS = 4


class Gruus:
    """Makes and reads GRUUs.

    A temporary GRUU is the user's name and a digest of device and registration, encrypted with an HMAC key stream and
    authenticated: it tells strangers nothing, and needs no table (RFC 5627 appendix A.2 describes such a scheme).

    Args:
        secret: at least 16 random octets, kept over restarts so that temporary GRUUs stay valid.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the GRUU secret needs at least 16 octets")
        self._key = hmac.digest(secret, b"gruu", "sha256")

    def public(self, binding: Binding) -> str:
        """The public GRUU: the address of record with the instance as `gr` (RFC 5627 section 3.1.1)."""
        return str(address_to_sip_uri(binding.address, binding.instance))

    def temporary(self, binding: Binding) -> str:
        """A temporary GRUU; a new one with every registration, all valid while Call-ID and device stay the same."""
        call = sha256(binding.call_id.encode()).digest()[:_CALL_OCTETS]
        plain = sha256(binding.instance.encode()).digest()[:_INSTANCE_OCTETS] + call + binding.address.local.encode()
        seed = f"{binding.call_id}\0{binding.cseq}\0{binding.instance}".encode()
        nonce = hmac.digest(self._key, b"nonce" + seed, "sha256")[:_NONCE_OCTETS]
        sealed = nonce + self._crypt(nonce, plain)
        token = base64.b32encode(sealed + self._tag(sealed, binding.address.domain)).decode().rstrip("=").lower()
        return str(SipUri(scheme="sip", host=binding.address.domain, user=_PREFIX + token, params=(("gr", None),)))

    def is_temporary(self, uri: SipUri) -> bool:
        """True for a URI in the form of our temporary GRUUs."""
        return uri.user.startswith(_PREFIX) and uri.has_param("gr")

    def owner(self, uri: SipUri) -> Address:
        """Return whose temporary GRUU it is. Raises AddressError (404) when it is not one of ours."""
        return self._open(uri)[0]

    def names(self, uri: SipUri, binding: Binding) -> bool:
        """True when the GRUU (public or temporary) means this binding."""
        if not binding.instance:
            return False
        if not self.is_temporary(uri):
            return address_from_sip_uri(uri) == (binding.address, binding.instance)
        address, instance, call = self._open(uri)
        return (
            address == binding.address
            and instance == sha256(binding.instance.encode()).digest()[:_INSTANCE_OCTETS]
            and call == sha256(binding.call_id.encode()).digest()[:_CALL_OCTETS]
        )

    def _open(self, uri: SipUri) -> tuple[Address, bytes, bytes]:
        token = uri.user[len(_PREFIX) :].upper()
        try:
            octets = base64.b32decode(token + "=" * (-len(token) % 8))
        except (binascii.Error, ValueError) as error:
            raise AddressError("this temporary address was never given out") from error
        sealed, tag = octets[:-_TAG_OCTETS], octets[-_TAG_OCTETS:]
        if len(sealed) <= _NONCE_OCTETS or not hmac.compare_digest(tag, self._tag(sealed, uri.host)):
            raise AddressError("this temporary address was never given out")
        plain = self._crypt(sealed[:_NONCE_OCTETS], sealed[_NONCE_OCTETS:])
        end = _INSTANCE_OCTETS + _CALL_OCTETS
        return Address(plain[end:].decode(), uri.host), plain[:_INSTANCE_OCTETS], plain[_INSTANCE_OCTETS:end]

    def _crypt(self, nonce: bytes, text: bytes) -> bytes:
        stream = b""
        for block in range(len(text) // 32 + 1):
            stream += hmac.digest(self._key, b"stream" + nonce + block.to_bytes(2, "big"), "sha256")
        return bytes(one ^ other for one, other in zip(text, stream, strict=False))

    def _tag(self, sealed: bytes, domain: str) -> bytes:
        return hmac.digest(self._key, b"tag" + domain.encode() + b"\0" + sealed, "sha256")[:_TAG_OCTETS]
