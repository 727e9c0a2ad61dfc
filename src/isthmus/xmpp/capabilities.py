"""What a business user's device can do, as XMPP sees it: service discovery identities, features and caps hash.

Every device behind the gateway shows the same set, so one hash serves them all and clients ask once (XEP-0115).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.stanza import element

DISCO_INFO = "http://jabber.org/protocol/disco#info"
DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
CAPS = "http://jabber.org/protocol/caps"
PING = "urn:xmpp:ping"
VERSION = "jabber:iq:version"
LAST_ACTIVITY = "jabber:iq:last"
TIME = "urn:xmpp:time"
VCARD = "vcard-temp"


@dataclass(frozen=True, slots=True)
class Identity:
    """One disco#info identity (XEP-0030 section 3.1); categories and types are from the XMPP registry."""

    category: str
    type: str
    name: str = ""

    def to_xml(self) -> str:
        """Return the serialised `<identity/>`."""
        return element(
            "identity", {"category": self.category, "type": self.type, "name": self.name if self.name else None}
        )


# The component itself: a translator to SIP.
GATEWAY_IDENTITY = Identity("gateway", "sip", "Isthmus")
GATEWAY_FEATURES = tuple(sorted((DISCO_INFO, DISCO_ITEMS, PING, VERSION, LAST_ACTIVITY, TIME)))

# A bare JID: the account (XEP-0030 section 8).
ACCOUNT_IDENTITY = Identity("account", "registered")
ACCOUNT_FEATURES = tuple(sorted((DISCO_INFO, DISCO_ITEMS, PING, LAST_ACTIVITY, VCARD)))

# A full JID: the device. No Jingle namespaces: a client offers a call only where they are advertised.
DEVICE_IDENTITY = Identity("client", "phone", "Isthmus")
DEVICE_FEATURES = tuple(
    sorted((DISCO_INFO, CAPS, PING, VERSION, LAST_ACTIVITY, ns.RECEIPTS, ns.CHAT_STATES, ns.CHAT_MARKERS))
)

# XEP-0115 section 5.1: a URI that names the software. It is compared, never opened.
CAPS_NODE = "urn:x-isthmus:device"


def verification_string(identities: Iterable[Identity], features: Iterable[str]) -> str:
    """Return the `ver` of XEP-0115 section 5.1 (SHA-1, base64); the order of the arguments does not matter."""
    parts = sorted(f"{i.category}/{i.type}//{i.name}" for i in identities)
    parts += sorted(set(features))
    text = "".join(f"{part}<" for part in parts)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()  # the algorithm that XEP-0115 names
    return base64.b64encode(digest).decode("ascii")


DEVICE_VER = verification_string([DEVICE_IDENTITY], DEVICE_FEATURES)
_CAPS_ELEMENT = element("c", {"xmlns": CAPS, "hash": "sha-1", "node": CAPS_NODE, "ver": DEVICE_VER})


def capabilities_element() -> str:
    """Return the `<c/>` that presence from a business user's device carries (XEP-0115 section 3)."""
    return _CAPS_ELEMENT


def disco_info(identity: Identity, features: Iterable[str], node: str = "") -> str:
    """Return a disco#info `<query/>`; `node` is repeated as it was asked (XEP-0115 section 6.2)."""
    return element(
        "query",
        {"xmlns": DISCO_INFO, "node": node if node else None},
        identity.to_xml(),
        *(element("feature", {"var": feature}) for feature in features),
    )
