"""XML as text: escaping on the way out, bounded parsing without DTDs on the way in.

Output is built from string templates because the documents are small and the paths hot. Input from strangers goes
through `parse_xml`, which refuses DTDs, entities, deep nesting and oversize before a tree exists.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from isthmus.errors import PayloadError

# No event document that a phone or server really sends comes near: a PIDF of ten devices is about 4 KiB.
MAXIMUM_DOCUMENT_OCTETS = 256 * 1024
# PIDF, RPID, winfo and RLMI nest six deep; the rest is room for extensions.
MAXIMUM_DEPTH = 32
# Bounds the memory of `<a/><a/>...`, which costs 20 times its size as a tree.
MAXIMUM_ELEMENTS = 10_000

# XML 1.0 section 2.2: what may not appear at all, not even as a character reference.
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_TEXT_SPECIAL = re.compile("[&<>\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
_ATTRIBUTE_SPECIAL = re.compile("[&<>'\"\x00-\x1f\ud800-\udfff\ufffe\uffff]")


def strip_illegal(text: str) -> str:
    """Return `text` without the characters that XML 1.0 cannot carry (C0 controls, surrogates, U+FFFE, U+FFFF)."""
    return _ILLEGAL.sub("", text)


def escape_text(text: str) -> str:
    """Return `text` fit to stand between tags; illegal characters are dropped, a CR survives as a reference."""
    if not _TEXT_SPECIAL.search(text):
        return text
    escaped = _ILLEGAL.sub("", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("\r", "&#13;")


def escape_attribute(text: str) -> str:
    """Return `text` fit to stand in an attribute in either kind of quotes; white space survives normalisation."""
    if not _ATTRIBUTE_SPECIAL.search(text):
        return text
    escaped = _ILLEGAL.sub("", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = escaped.replace("'", "&apos;").replace('"', "&quot;")
    return escaped.replace("\t", "&#9;").replace("\n", "&#10;").replace("\r", "&#13;")


class _BoundedBuilder(TreeBuilder):
    """Builds the tree and stops as soon as it grows too deep or too wide."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.elements = 0

    def start(self, tag: str, attrs: dict[Any, Any], /) -> Element:
        self.depth += 1
        self.elements += 1
        if self.depth > MAXIMUM_DEPTH or self.elements > MAXIMUM_ELEMENTS:
            raise PayloadError("the XML document is nested too deeply or has too many elements")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self.depth -= 1
        return super().end(tag)


def parse_xml(body: bytes | str, *, maximum_octets: int = MAXIMUM_DOCUMENT_OCTETS) -> Element:
    """Parse a document from a stranger.

    Raises:
        PayloadError: not well-formed, over `maximum_octets`, too deep, or with a DTD (RFC 6120 section 11.1).
    """
    if len(body) > maximum_octets:
        raise PayloadError("the XML document is too large", status=413, condition="policy-violation")
    parser = DefusedXMLParser(target=_BoundedBuilder(), forbid_dtd=True)
    try:
        parser.feed(body)
        root: Element = parser.close()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise PayloadError(f"the XML document cannot be read: {type(error).__name__}") from error
    return root


def local_name(tag: str) -> str:
    """Return the name of an ElementTree tag without its namespace."""
    return tag.rpartition("}")[2]
