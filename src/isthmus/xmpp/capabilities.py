"""What a business user's device can do, as XMPP sees it: service discovery identities, features and caps hash.

Every device behind the gateway shows one of three sets (no calls, audio, audio and video), so three hashes serve them
all and clients ask once for each (XEP-0115).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from isthmus.model import Modality
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.stanza import element

DISCO_INFO = "http://jabber.org/protocol/disco#info"
DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
PING = "urn:xmpp:ping"
VERSION = "jabber:iq:version"
LAST_ACTIVITY = "jabber:iq:last"
TIME = "urn:xmpp:time"


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
ACCOUNT_FEATURES = tuple(sorted((DISCO_INFO, DISCO_ITEMS, PING, LAST_ACTIVITY, ns.VCARD)))

# A full JID: the device. A client offers a call only where the Jingle features are advertised.
DEVICE_IDENTITY = Identity("client", "phone", "Isthmus")
DEVICE_FEATURES = tuple(
    sorted((DISCO_INFO, ns.CAPS, PING, VERSION, LAST_ACTIVITY, ns.RECEIPTS, ns.CHAT_STATES, ns.CHAT_MARKERS))
)
# Not XEP-0353: a client that finds it proposes a call first, without saying what it can do; one that does not sends a
# whole session-initiate, so that ringing, busy and answered map one to one to what the phones say.
AUDIO_FEATURES = (
    ns.JINGLE,
    ns.JINGLE_DTLS,
    ns.JINGLE_ICE_UDP,
    ns.JINGLE_RTP,
    ns.JINGLE_RTP_AUDIO,
    ns.JINGLE_RTCP_FEEDBACK,
    ns.JINGLE_HEADER_EXTENSIONS,
    ns.SDP_GROUPING,
    ns.SDP_SOURCES,
)
VIDEO_FEATURES = (ns.JINGLE_RTP_VIDEO,)

# XEP-0115 section 5.1: a URI that names the software. It is compared, never opened.
CAPS_NODE = "urn:x-isthmus:device"


def verification_string(identities: Iterable[Identity], features: Iterable[str]) -> str:
    """Return the `ver` of XEP-0115 section 5.1 (SHA-1, base64); the order of the arguments does not matter."""
    parts = sorted(f"{i.category}/{i.type}//{i.name}" for i in identities)
    parts += sorted(set(features))
    text = "".join(f"{part}<" for part in parts)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()  # the algorithm that XEP-0115 names
    return base64.b64encode(digest).decode("ascii")


def device_features(calls: Collection[Modality] = ()) -> tuple[str, ...]:
    """Return the features of a device, sorted.

    Args:
        calls: what calls may carry; video without audio is no call that clients could place.
    """
    if Modality.AUDIO not in calls:
        return DEVICE_FEATURES
    video = VIDEO_FEATURES if Modality.VIDEO in calls else ()
    return tuple(sorted((*DEVICE_FEATURES, *AUDIO_FEATURES, *video)))


_AUDIO = frozenset({Modality.AUDIO})
_AUDIO_AND_VIDEO = frozenset({Modality.AUDIO, Modality.VIDEO})

# ver -> features, for every set that a device may show.
FEATURES_BY_VER: dict[str, tuple[str, ...]] = {
    verification_string([DEVICE_IDENTITY], features): features
    for features in map(device_features, (frozenset(), _AUDIO, _AUDIO_AND_VIDEO))
}
_VER_BY_FEATURES = {features: ver for ver, features in FEATURES_BY_VER.items()}


def capabilities_element(calls: Collection[Modality] = ()) -> str:
    """Return the `<c/>` that presence from a business user's device carries (XEP-0115 section 3)."""
    ver = _VER_BY_FEATURES[device_features(calls)]
    return element("c", {"xmlns": ns.CAPS, "hash": "sha-1", "node": CAPS_NODE, "ver": ver})


def disco_info(identity: Identity, features: Iterable[str], node: str = "") -> str:
    """Return a disco#info `<query/>`; `node` is repeated as it was asked (XEP-0115 section 6.2)."""
    return element(
        "query",
        {"xmlns": DISCO_INFO, "node": node if node else None},
        identity.to_xml(),
        *(element("feature", {"var": feature}) for feature in features),
    )
