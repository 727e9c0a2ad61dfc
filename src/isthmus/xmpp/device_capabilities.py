"""What a client says of itself when it is asked (XEP-0030), and whether its hash proves it (XEP-0115 section 5.4)."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.capabilities import DISCO_INFO
from isthmus.xmpp.stanza import XML_LANG

_DATA = "jabber:x:data"

# Clients have some fifty features; a longer list is an attack on the cache.
MAXIMUM_ELEMENTS = 500

# Names of the registry of hash functions (XEP-0115 section 4) -> those of hashlib.
_DIGESTS = {"sha-1": "sha1", "sha-224": "sha224", "sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}

_RTP_CALL = frozenset({ns.JINGLE, ns.JINGLE_RTP, ns.JINGLE_RTP_AUDIO, ns.JINGLE_ICE_UDP})


@dataclass(frozen=True, slots=True)
class DeviceCapabilities:
    """What a device can do, as far as calls are concerned."""

    features: frozenset[str] = frozenset()

    @property
    def can_call(self) -> bool:
        """True when it takes a session-initiate with audio over ICE."""
        return self.features >= _RTP_CALL

    @property
    def can_see(self) -> bool:
        """True when it takes video as well."""
        return self.can_call and ns.JINGLE_RTP_VIDEO in self.features

    @property
    def takes_proposals(self) -> bool:
        """True when it rings on a propose (XEP-0353)."""
        return ns.JINGLE_MESSAGE in self.features


def features_of(query: Element) -> frozenset[str]:
    """Return the features of a disco#info `<query/>`; more than we would keep are cut off."""
    found = (element.get("var", "") for element in query.findall(f"{{{DISCO_INFO}}}feature")[:MAXIMUM_ELEMENTS])
    return frozenset(feature for feature in found if feature)


def is_proved(query: Element, algorithm: str, ver: str) -> bool:
    """Return True when a disco#info answer hashes to what presence announced.

    Only such an answer may be kept for every device with the same `ver`, or one client could say what others can do
    (XEP-0115 section 5.4).

    Args:
        query: the `<query/>` of the answer.
        algorithm: `hash` of the presence.
        ver: its `ver`.
    """
    digest = _DIGESTS.get(algorithm)
    text = _verified_text(query)
    if digest is None or text is None:
        return False
    hashed = hashlib.new(digest, text.encode("utf-8", "replace"), usedforsecurity=False).digest()
    return base64.b64encode(hashed).decode("ascii") == ver


def _verified_text(query: Element) -> str | None:
    """The string of XEP-0115 section 5.1, None when the answer is not wellformed by section 5.4."""
    if len(query) > MAXIMUM_ELEMENTS:
        return None
    identities = [
        "/".join((i.get("category", ""), i.get("type", ""), i.get(XML_LANG, ""), i.get("name", "")))
        for i in query.findall(f"{{{DISCO_INFO}}}identity")
    ]
    features = [feature.get("var", "") for feature in query.findall(f"{{{DISCO_INFO}}}feature")]
    forms = [form for form in map(_form, query.findall(f"{{{_DATA}}}x")) if form is not None]
    names = [name for name, _ in forms]
    # Section 5.4 points 3.3 to 3.5: doubles would let two answers share one hash.
    if any(len(set(listed)) != len(listed) for listed in (identities, features, names)):
        return None
    parts = [*sorted(identities), *sorted(features)]
    for name, fields in sorted(forms):
        parts.append(name)
        for field, values in fields:
            parts += [field, *values]
    return "".join(f"{part}<" for part in parts)


def _form(form: Element) -> tuple[str, list[tuple[str, list[str]]]] | None:
    """A form of XEP-0128: its FORM_TYPE and its other fields, sorted; None for one without, which is left out."""
    name, fields = "", []
    for field in form.findall(f"{{{_DATA}}}field")[:MAXIMUM_ELEMENTS]:
        values = sorted(value.text or "" for value in field.findall(f"{{{_DATA}}}value"))
        if field.get("var") == "FORM_TYPE":
            name = values[0] if values else ""
        else:
            fields.append((field.get("var", ""), values))
    return (name, sorted(fields)) if name else None
