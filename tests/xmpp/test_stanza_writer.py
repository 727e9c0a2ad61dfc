"""Serialised stanzas are always well-formed and say exactly what went in."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

from hypothesis import given
from hypothesis import strategies as st

from isthmus.xmpp.stanza import child, child_text, element, escape_attribute, escape_text, language_of, strip_illegal


def test_an_element_is_written_with_its_attributes_and_children() -> None:
    markup = element("a", {"b": "1 < 2", "c": None}, element("d"), escape_text("x & y"))
    assert markup == "<a b='1 &lt; 2'><d/>x &amp; y</a>"
    assert element("a") == "<a/>"


@given(st.text(), st.text())
def test_any_text_survives_in_content_and_attribute(text: str, value: str) -> None:
    root = fromstring(f"<a b='{escape_attribute(value)}' c=\"{escape_attribute(value)}\">{escape_text(text)}</a>")
    assert (root.text or "") == strip_illegal(text)
    assert root.get("b") == root.get("c") == strip_illegal(value)


def test_children_are_found_in_either_stanza_namespace() -> None:
    for namespace in ("jabber:component:accept", "jabber:client", ""):
        root = fromstring(f"<message xmlns='{namespace}' xml:lang='en'><body>Hi</body><x xmlns='urn:x'>1</x></message>")
        assert child_text(root, "body") == "Hi"
        assert child_text(root, "x", "urn:x") == "1"
        assert child(root, "missing") is None
        assert child_text(root, "missing") == ""
        assert language_of(root) == "en"
