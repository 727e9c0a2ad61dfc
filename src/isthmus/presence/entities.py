"""The `entity` of presence documents and list entries: `sip:` or `pres:` URIs of people."""

from __future__ import annotations

import functools

import idna

from isthmus.errors import AddressError, PayloadError, PeerError
from isthmus.model import Address
from isthmus.sip.uri import SipUri, escape_user, parse_uri


@functools.lru_cache(maxsize=8192)
def address_to_entity(address: Address) -> str:
    """Return the `sip:` URI of a person; PIDF compares entities as text, so there is one spelling only."""
    domain = address.domain
    if not domain.isascii():
        try:
            domain = idna.encode(domain).decode("ascii")
        except idna.IDNAError as error:
            raise AddressError(f"{domain!r} is not a domain name") from error
    return f"sip:{escape_user(address.local)}@{domain}"


def address_from_entity(text: str) -> Address:
    """Return the person behind a `sip:`, `sips:`, `pres:` or `im:` URI.

    Raises:
        PayloadError: the URI does not name a person.
    """
    try:
        uri = parse_uri(text.strip())
        if not isinstance(uri, SipUri):
            if uri.scheme not in ("pres", "im"):
                raise PayloadError(f"an entity of the scheme {uri.scheme} is not a person")
            uri = SipUri.parse(f"sip:{uri.rest}")
        host = f"[{uri.host}]" if ":" in uri.host else uri.host
        return Address.of(uri.user_decoded, host)
    except PayloadError:
        raise
    except PeerError as error:
        raise PayloadError(f"the entity does not name a person: {error}") from error
