"""Jingle RTP sessions (XEP-0167): descriptions, codecs, SDES keys, and what is told during a call."""

from __future__ import annotations

from typing import ClassVar

from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle import Content, Jingle


class Description(ElementBase):
    """What a content is about.

    .. code-block:: xml

        <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>
          <payload-type id='111' name='opus' clockrate='48000' channels='2'/>
          <rtcp-mux/>
        </description>
    """

    name = "description"
    namespace = ns.JINGLE_RTP
    plugin_attrib = "rtp"
    interfaces: ClassVar[set[str]] = {"media", "rtcp-mux", "ssrc"}
    bool_interfaces: ClassVar[set[str]] = {"rtcp-mux"}


class PayloadType(ElementBase):
    """One codec, in the order of preference (XEP-0167 section 4)."""

    name = "payload-type"
    namespace = ns.JINGLE_RTP
    plugin_attrib = "payload_type"
    plugin_multi_attrib = "payload_types"
    interfaces: ClassVar[set[str]] = {"channels", "clockrate", "id", "maxptime", "name", "ptime"}


class Parameter(ElementBase):
    """A format parameter of a codec."""

    name = "parameter"
    namespace = ns.JINGLE_RTP
    plugin_attrib = "parameter"
    plugin_multi_attrib = "parameters"
    interfaces: ClassVar[set[str]] = {"name", "value"}


class Bandwidth(ElementBase):
    """Bandwidth, in the units of its type: kbit/s for AS (RFC 8866 section 5.8)."""

    name = "bandwidth"
    namespace = ns.JINGLE_RTP
    plugin_attrib = "bandwidth"
    interfaces: ClassVar[set[str]] = {"type", "value"}

    def get_value(self) -> str:
        """The number as text."""
        return self.xml.text or ""

    def set_value(self, value: str) -> None:
        """Set the number."""
        self.xml.text = value


class Encryption(ElementBase):
    """Keys for SRTP in the signalling (XEP-0167 section 7, RFC 4568)."""

    name = "encryption"
    namespace = ns.JINGLE_RTP
    plugin_attrib = "encryption"
    interfaces: ClassVar[set[str]] = {"required"}


class Crypto(ElementBase):
    """One key of `<encryption/>`."""

    name = "crypto"
    namespace = ns.JINGLE_RTP
    plugin_attrib = "crypto"
    plugin_multi_attrib = "cryptos"
    interfaces: ClassVar[set[str]] = {"crypto-suite", "key-params", "session-params", "tag"}


class SessionInfo(ElementBase):
    """What needs no negotiation (XEP-0167 section 8); an empty element."""

    namespace = ns.JINGLE_RTP_INFO
    interfaces: ClassVar[set[str]] = set()


class Active(SessionInfo):
    """The session goes on."""

    name = plugin_attrib = "active"


class Hold(SessionInfo):
    """The other side is not listened to for a while."""

    name = plugin_attrib = "hold"


class Unhold(SessionInfo):
    """It is listened to again."""

    name = plugin_attrib = "unhold"


class Ringing(SessionInfo):
    """The device alerts somebody."""

    name = plugin_attrib = "ringing"


class Mute(SessionInfo):
    """The sender's microphone or camera is off, for one content or for all."""

    name = plugin_attrib = "mute"
    interfaces: ClassVar[set[str]] = {"creator", "name"}


class Unmute(SessionInfo):
    """It is on again."""

    name = plugin_attrib = "unmute"
    interfaces: ClassVar[set[str]] = {"creator", "name"}


SESSION_INFOS: tuple[type[SessionInfo], ...] = (Active, Hold, Unhold, Ringing, Mute, Unmute)

register_stanza_plugin(Content, Description)
register_stanza_plugin(Description, PayloadType, iterable=True)
register_stanza_plugin(Description, Bandwidth)
register_stanza_plugin(Description, Encryption)
register_stanza_plugin(Encryption, Crypto, iterable=True)
register_stanza_plugin(PayloadType, Parameter, iterable=True)
for _info in SESSION_INFOS:
    register_stanza_plugin(Jingle, _info)


def session_info_of(jingle: Jingle) -> str:
    """Return what a session-info says: "ringing", "hold", ..., or "" when it is only a keep-alive or unknown."""
    for info in SESSION_INFOS:
        if jingle.get_plugin(info.plugin_attrib, check=True) is not None:
            return info.plugin_attrib
    return ""


def description_of(content: Content) -> Description | None:
    """Return the RTP description of a content, or None when it is about something else."""
    found = content.get_plugin(Description.plugin_attrib, check=True)
    return found if isinstance(found, Description) else None
