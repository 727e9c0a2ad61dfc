"""ICE-UDP transport of Jingle (XEP-0176)."""

from __future__ import annotations

from typing import ClassVar

from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle import Content


class Transport(ElementBase):
    """Credentials and candidates of one content.

    .. code-block:: xml

        <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='q1Zx' pwd='7Yk2mD0sWv4pLr8nTb6cHg'/>
    """

    name = "transport"
    namespace = ns.JINGLE_ICE_UDP
    plugin_attrib = "ice_udp"
    interfaces: ClassVar[set[str]] = {"pwd", "ufrag"}


class Candidate(ElementBase):
    """One candidate."""

    name = "candidate"
    namespace = ns.JINGLE_ICE_UDP
    plugin_attrib = "candidate"
    plugin_multi_attrib = "candidates"
    interfaces: ClassVar[set[str]] = {
        "component",
        "foundation",
        "generation",
        "id",
        "ip",
        "network",
        "port",
        "priority",
        "protocol",
        "rel-addr",
        "rel-port",
        "type",
    }


class RemoteCandidate(ElementBase):
    """The candidate of the other side that was chosen."""

    name = "remote-candidate"
    namespace = ns.JINGLE_ICE_UDP
    plugin_attrib = "remote_candidate"
    plugin_multi_attrib = "remote_candidates"
    interfaces: ClassVar[set[str]] = {"component", "ip", "port"}


register_stanza_plugin(Content, Transport)
register_stanza_plugin(Transport, Candidate, iterable=True)
register_stanza_plugin(Transport, RemoteCandidate, iterable=True)


def transport_of(content: Content) -> Transport | None:
    """Return the ICE-UDP transport of a content, or None when it has another or none."""
    found = content.get_plugin(Transport.plugin_attrib, check=True)
    return found if isinstance(found, Transport) else None
