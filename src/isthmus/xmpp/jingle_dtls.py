"""DTLS-SRTP in Jingle sessions (XEP-0320)."""

from __future__ import annotations

from typing import ClassVar

from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle_ice_udp import Transport


class Fingerprint(ElementBase):
    """The digest of a certificate, and who opens the DTLS association.

    .. code-block:: xml

        <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>02:1A:CC</fingerprint>
    """

    name = "fingerprint"
    namespace = ns.JINGLE_DTLS
    plugin_attrib = "fingerprint"
    plugin_multi_attrib = "fingerprints"
    interfaces: ClassVar[set[str]] = {"hash", "setup", "value"}

    def get_value(self) -> str:
        """The octets in hexadecimal with colons; white space that clients put around or between them is gone."""
        return "".join((self.xml.text or "").split())

    def set_value(self, value: str) -> None:
        """Set the octets."""
        self.xml.text = value


register_stanza_plugin(Transport, Fingerprint, iterable=True)
