"""Jingle Message Initiation (XEP-0353) as slixmpp stanza classes.

slixmpp has those of version 0.3; what later versions added (ringing, finish, reasons, tie-breaks, migration) is here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from xml.etree.ElementTree import SubElement

from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.jingle import Reason


class JingleMessage(ElementBase):
    """What all have: the id of the session that is, or would be."""

    namespace = ns.JINGLE_MESSAGE
    interfaces: ClassVar[set[str]] = {"id"}


class Propose(JingleMessage):
    """Would you like to talk?

    .. code-block:: xml

        <propose xmlns='urn:xmpp:jingle-message:0' id='s-77'>
          <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>
        </propose>
    """

    name = "propose"
    plugin_attrib = "jingle_propose"
    interfaces: ClassVar[set[str]] = {"descriptions", "id"}

    def get_descriptions(self) -> list[tuple[str, str]]:
        """(namespace, media) of each description; media is "" where the application has no such attribute."""
        found = []
        for inner in self.xml:
            namespace, _, name = inner.tag[1:].partition("}")
            if name == "description":
                found.append((namespace, inner.get("media", "")))
        return found

    def set_descriptions(self, descriptions: Iterable[tuple[str, str]]) -> None:
        """Put these (namespace, media) in the place of all others."""
        self.del_descriptions()
        for namespace, media in descriptions:
            SubElement(self.xml, f"{{{namespace}}}description", {"media": media} if media else {})

    def del_descriptions(self) -> None:
        """Take all descriptions out."""
        for inner in self.xml.findall("{*}description"):
            self.xml.remove(inner)


class Ringing(JingleMessage):
    """A device alerts somebody."""

    name = "ringing"
    plugin_attrib = "jingle_ringing"


class Accept(JingleMessage):
    """Told to one's own devices by old clients, beside `<proceed/>` (before version 0.6)."""

    name = "accept"
    plugin_attrib = "jingle_accept"


class Proceed(JingleMessage):
    """This device takes the call: send it a session-initiate."""

    name = "proceed"
    plugin_attrib = "jingle_proceed"


class TieBreakMessage(JingleMessage):
    """One that may carry `<tie-break/>`."""

    interfaces: ClassVar[set[str]] = {"id", "tie-break"}
    bool_interfaces: ClassVar[set[str]] = {"tie-break"}


class Reject(TieBreakMessage):
    """The call is not taken, by nobody."""

    name = "reject"
    plugin_attrib = "jingle_reject"


class Retract(TieBreakMessage):
    """The caller gave up."""

    name = "retract"
    plugin_attrib = "jingle_retract"


class Finish(JingleMessage):
    """A call that took place is over."""

    name = "finish"
    plugin_attrib = "jingle_finish"


class Migrated(JingleMessage):
    """The session that goes on in the place of the finished one."""

    name = "migrated"
    plugin_attrib = "migrated"
    interfaces: ClassVar[set[str]] = {"to"}


MESSAGES: tuple[type[JingleMessage], ...] = (Propose, Ringing, Accept, Proceed, Reject, Retract, Finish)

for _message in (Reject, Retract, Finish):
    register_stanza_plugin(_message, Reason)
register_stanza_plugin(Finish, Migrated)
