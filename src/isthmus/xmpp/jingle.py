"""Jingle sessions (XEP-0166) as slixmpp stanza classes.

What a content is about (`description`) and how it travels (`transport`) are plug-ins of other modules.
"""

from __future__ import annotations

from typing import ClassVar
from xml.etree.ElementTree import Element, SubElement

from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from isthmus.errors import PayloadError
from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.stanza import child, element, serialised

# A browser's offer of audio and video with all its codecs has about 170 elements; each costs some 10 microseconds.
MAXIMUM_ELEMENTS = 2_048

# XEP-0166 section 7.2: all there are.
ACTIONS = frozenset(
    (
        "content-accept",
        "content-add",
        "content-modify",
        "content-reject",
        "content-remove",
        "description-info",
        "security-info",
        "session-accept",
        "session-info",
        "session-initiate",
        "session-terminate",
        "transport-accept",
        "transport-info",
        "transport-reject",
        "transport-replace",
    )
)


class Jingle(ElementBase):
    """The `<jingle/>` of an IQ.

    .. code-block:: xml

        <jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' initiator='ben@people.test/phone' sid='s-77'/>
    """

    name = "jingle"
    namespace = ns.JINGLE
    plugin_attrib = "jingle"
    interfaces: ClassVar[set[str]] = {"action", "initiator", "responder", "sid"}


class Content(ElementBase):
    """One medium of a session.

    .. code-block:: xml

        <content creator='initiator' name='audio' senders='both'/>
    """

    name = "content"
    namespace = ns.JINGLE
    plugin_attrib = "content"
    plugin_multi_attrib = "contents"
    interfaces: ClassVar[set[str]] = {"creator", "disposition", "name", "senders"}

    def get_creator(self) -> str:
        """Who made this content: "initiator" unless it says so (XEP-0166 section 7.3)."""
        return "responder" if self._get_attr("creator") == "responder" else "initiator"

    def get_senders(self) -> str:
        """Who sends: "both", "initiator", "responder" or "none"."""
        senders: str = self._get_attr("senders")
        return senders if senders in {"initiator", "responder", "none"} else "both"


class Reason(ElementBase):
    """Why something is done (XEP-0166 section 7.4).

    .. code-block:: xml

        <reason xmlns='urn:xmpp:jingle:1'><busy/><text>On another call.</text></reason>
    """

    name = "reason"
    namespace = ns.JINGLE
    plugin_attrib = "reason"
    interfaces: ClassVar[set[str]] = {"condition", "text"}
    sub_interfaces: ClassVar[set[str]] = {"text"}

    def get_condition(self) -> str:
        """The name of the condition's element, "" when there is none."""
        for inner in self.xml:
            namespace, _, name = inner.tag[1:].partition("}")
            if namespace == self.namespace and name != "text":
                return name
        return ""

    def set_condition(self, condition: str) -> None:
        """Put this condition in the place of any other."""
        self.del_condition()
        self.xml.insert(0, Element(f"{{{self.namespace}}}{condition}"))

    def del_condition(self) -> None:
        """Take the condition out."""
        for inner in list(self.xml):
            if inner.tag.startswith(f"{{{self.namespace}}}") and not inner.tag.endswith("}text"):
                self.xml.remove(inner)


class Group(ElementBase):
    """Contents that belong together (XEP-0338); its `contents` are their names.

    .. code-block:: xml

        <group xmlns='urn:xmpp:jingle:apps:grouping:0' semantics='BUNDLE'><content name='audio'/></group>
    """

    name = "group"
    namespace = ns.JINGLE_GROUPING
    plugin_attrib = "group"
    plugin_multi_attrib = "groups"
    interfaces: ClassVar[set[str]] = {"contents", "semantics"}

    def get_contents(self) -> list[str]:
        """Names in order."""
        return [inner.get("name", "") for inner in self.xml.findall(f"{{{self.namespace}}}content")]

    def set_contents(self, names: list[str]) -> None:
        """Put these names in the place of all others."""
        self.del_contents()
        for name in names:
            SubElement(self.xml, f"{{{self.namespace}}}content", {"name": name})

    def del_contents(self) -> None:
        """Take all names out."""
        for inner in self.xml.findall(f"{{{self.namespace}}}content"):
            self.xml.remove(inner)


register_stanza_plugin(Jingle, Content, iterable=True)
register_stanza_plugin(Jingle, Reason)
register_stanza_plugin(Jingle, Group, iterable=True)


def jingle_of(iq: Element) -> Jingle | None:
    """Return the `<jingle/>` in an IQ, or None.

    Raises:
        PayloadError: it is larger than any session needs.
    """
    found = child(iq, "jingle", ns.JINGLE)
    if found is None:
        return None
    if sum(1 for _ in found.iter()) > MAXIMUM_ELEMENTS:
        raise PayloadError("the Jingle element is too large", condition="policy-violation")
    return Jingle(xml=found)


def jingle_iq(jingle: Jingle, *, sender: str, recipient: str, stanza_id: str) -> str:
    """Return the IQ that carries this `<jingle/>`, as text for the component stream.

    Args:
        jingle: what is sent; action, sid and what else is in it are set.
        sender, recipient: full JIDs.
        stanza_id: id of the IQ.
    """
    return element(
        "iq", {"type": "set", "id": stanza_id, "from": sender, "to": recipient}, serialised(jingle.xml, ns.COMPONENT)
    )
