"""RTCP feedback in Jingle RTP sessions (XEP-0293, for RFC 4585)."""

from __future__ import annotations

from typing import ClassVar

from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle_rtp import Description, PayloadType


class RtcpFeedback(ElementBase):
    """One kind of feedback, for a codec or for all of a description.

    .. code-block:: xml

        <rtcp-fb xmlns='urn:xmpp:jingle:apps:rtp:rtcp-fb:0' type='nack' subtype='pli'/>
    """

    name = "rtcp-fb"
    namespace = ns.JINGLE_RTCP_FEEDBACK
    plugin_attrib = "rtcp_fb"
    plugin_multi_attrib = "rtcp_fbs"
    interfaces: ClassVar[set[str]] = {"subtype", "type"}


class FeedbackParameter(ElementBase):
    """What a feedback message has besides its type."""

    name = "parameter"
    namespace = ns.JINGLE_RTCP_FEEDBACK
    plugin_attrib = "parameter"
    plugin_multi_attrib = "parameters"
    interfaces: ClassVar[set[str]] = {"name", "value"}


class FeedbackInterval(ElementBase):
    """The least interval between regular reports, milliseconds in `value`."""

    name = "rtcp-fb-trr-int"
    namespace = ns.JINGLE_RTCP_FEEDBACK
    plugin_attrib = "rtcp_fb_trr_int"
    interfaces: ClassVar[set[str]] = {"value"}


register_stanza_plugin(RtcpFeedback, FeedbackParameter, iterable=True)
for _parent in (Description, PayloadType):
    register_stanza_plugin(_parent, RtcpFeedback, iterable=True)
    register_stanza_plugin(_parent, FeedbackInterval)
