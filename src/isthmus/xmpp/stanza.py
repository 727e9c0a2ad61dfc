"""A tiny writer of serialised stanzas, and finders for parsed ones.

Stanzas go out as text in the default namespace of the component stream (XEP-0114) and come in as ElementTree
elements in `jabber:component:accept`; embedded copies may be in `jabber:client`, so finders know both.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree.ElementTree import Element

from isthmus.xml_text import escape_attribute, escape_text, local_name, strip_illegal
from isthmus.xmpp import namespaces as ns

__all__ = [
    "XML_LANG",
    "attributes_text",
    "child",
    "child_text",
    "element",
    "escape_attribute",
    "escape_text",
    "language_of",
    "local_name",
    "serialised",
    "strip_illegal",
]

XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def attributes_text(attributes: Mapping[str, str | None]) -> str:
    """Return ` name='value'` for each attribute, leaving out those that are None."""
    return "".join(f" {name}='{escape_attribute(value)}'" for name, value in attributes.items() if value is not None)


def element(name: str, attributes: Mapping[str, str | None] | None = None, *children: str) -> str:
    """Return one serialised element.

    Args:
        name: tag name as written; its namespace is an `xmlns` attribute.
        attributes: raw values (escaped here); None values are left out.
        children: markup that is already serialised; wrap plain text in `escape_text`.
    """
    opening = f"<{name}{attributes_text(attributes)}" if attributes else f"<{name}"
    inner = "".join(children)
    return f"{opening}>{inner}</{name}>" if inner else f"{opening}/>"


def serialised(node: Element, around: str = "") -> str:
    """Return an element and all in it as text.

    Namespaces are declared as the default one wherever they change, which is how XMPP software writes them. Attributes
    in namespaces other than `xml:` are left out.

    Args:
        node: an element of bounded depth: our own, or one that a parser with limits made.
        around: namespace of the element that this one will stand in, which need not be said again.
    """
    namespace, name = node.tag[1:].split("}", 1) if node.tag[0] == "{" else (around, node.tag)
    attributes: dict[str, str | None] = {"xmlns": namespace if namespace != around else None}
    for key, value in node.attrib.items():
        if key == XML_LANG:
            attributes["xml:lang"] = value
        elif key[0] != "{":
            attributes[key] = value
    children = (serialised(inner, namespace) + escape_text(inner.tail or "") for inner in node)
    return element(name, attributes, escape_text(node.text or ""), *children)


def child(parent: Element, name: str, namespace: str = "") -> Element | None:
    """Return the first child called `name`; without `namespace` in that of the stanza itself."""
    if namespace:
        return parent.find(f"{{{namespace}}}{name}")
    found = parent.find(f"{{{ns.COMPONENT}}}{name}")
    if found is None:
        found = parent.find(f"{{{ns.CLIENT}}}{name}")
    return found if found is not None else parent.find(name)


def child_text(parent: Element, name: str, namespace: str = "") -> str:
    """Return the text of that child, or "" when there is none."""
    found = child(parent, name, namespace)
    return (found.text or "") if found is not None else ""


def language_of(element: Element) -> str:
    """Return `xml:lang` of the element itself, or ""."""
    return element.get(XML_LANG, "")
