"""Source-specific media attributes in Jingle (XEP-0339, for RFC 5576)."""

from __future__ import annotations

from typing import ClassVar

from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle_rtp import Description


class Source(ElementBase):
    """One synchronisation source.

    .. code-block:: xml

        <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='1656081975'>
          <parameter name='cname' value='Yv/wvbCdsDW2Prgd'/>
        </source>
    """

    name = "source"
    namespace = ns.JINGLE_SOURCES
    plugin_attrib = "source"
    plugin_multi_attrib = "sources"
    interfaces: ClassVar[set[str]] = {"ssrc"}


class SourceParameter(ElementBase):
    """One attribute of a source."""

    name = "parameter"
    namespace = ns.JINGLE_SOURCES
    plugin_attrib = "parameter"
    plugin_multi_attrib = "parameters"
    interfaces: ClassVar[set[str]] = {"name", "value"}


class SourceGroup(ElementBase):
    """Sources that belong together: FID for retransmission, SIM for simulcast."""

    name = "ssrc-group"
    namespace = ns.JINGLE_SOURCES
    plugin_attrib = "ssrc_group"
    plugin_multi_attrib = "ssrc_groups"
    interfaces: ClassVar[set[str]] = {"semantics"}


register_stanza_plugin(Source, SourceParameter, iterable=True)
register_stanza_plugin(SourceGroup, Source, iterable=True)
register_stanza_plugin(Description, Source, iterable=True)
register_stanza_plugin(Description, SourceGroup, iterable=True)
