"""RTP header extensions in Jingle RTP sessions (XEP-0294, for RFC 8285)."""

from __future__ import annotations

from typing import ClassVar

from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle_rtp import Description


class HeaderExtension(ElementBase):
    """One header extension.

    .. code-block:: xml

        <rtp-hdrext xmlns='urn:xmpp:jingle:apps:rtp:rtp-hdrext:0' id='1' uri='urn:3gpp:video-orientation'/>
    """

    name = "rtp-hdrext"
    namespace = ns.JINGLE_HEADER_EXTENSIONS
    plugin_attrib = "rtp_hdrext"
    plugin_multi_attrib = "rtp_hdrexts"
    interfaces: ClassVar[set[str]] = {"id", "senders", "uri"}

    def get_senders(self) -> str:
        """Who uses it: "both" unless it says so."""
        senders: str = self._get_attr("senders")
        return senders if senders in {"initiator", "responder", "none"} else "both"


class HeaderExtensionParameter(ElementBase):
    """One extension attribute; one that is no `name=value` stands in `name` alone."""

    name = "parameter"
    namespace = ns.JINGLE_HEADER_EXTENSIONS
    plugin_attrib = "parameter"
    plugin_multi_attrib = "parameters"
    interfaces: ClassVar[set[str]] = {"name", "value"}


class ExtmapAllowMixed(ElementBase):
    """One-byte and two-byte headers may be mixed (RFC 8285 section 6)."""

    name = "extmap-allow-mixed"
    namespace = ns.JINGLE_HEADER_EXTENSIONS
    plugin_attrib = "extmap_allow_mixed"
    interfaces: ClassVar[set[str]] = set()


register_stanza_plugin(HeaderExtension, HeaderExtensionParameter, iterable=True)
register_stanza_plugin(Description, HeaderExtension, iterable=True)
register_stanza_plugin(Description, ExtmapAllowMixed)
