"""HTML and RTF as text, and long texts in parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.interworking.plain_text import html_to_text, rtf_to_text
from isthmus.interworking.text_parts import MINIMUM_PART_OCTETS, split_message, split_text
from isthmus.model import Address, Message


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("&lt;b&gt; &#x1f600; &nbsp;x", "<b> 😀 x"),
        ("<script>alert(1)</script><style>b{}</style>safe", "safe"),
        ("<a href='https://x.test/'>https://x.test/</a>", "https://x.test/"),
        ("<a href='https://x.test/'>here</a>", "here (https://x.test/)"),
        ("<a href='mailto:ana@corp.test'>ana@corp.test</a>", "ana@corp.test"),
        ("<a href='javascript:alert(1)'>click</a>", "click"),
        ("<a href='https://x.test/'><img src=x></a>", "https://x.test/"),
        ("<ul><li>one<li>two</ul>", "• one\n• two"),
        ("<img src='x' alt='smile' onerror='alert(1)'>", "smile"),
        ("<div style='font:x'><span>MS Shell Dlg 2</span></div>", "MS Shell Dlg 2"),
        ("plain   text\n with   spaces", "plain text with spaces"),
        ("<b>unclosed", "unclosed"),
        ("<iframe src='//evil'>inner</iframe>ok", "ok"),
    ],
)
def test_html_is_reduced_to_what_a_reader_sees(html: str, text: str) -> None:
    """Edge case 27: no scripts, entities decoded, links kept."""
    assert html_to_text(html) == text


@pytest.mark.parametrize(
    ("rtf", "text"),
    [
        (
            r"{\rtf1\ansi{\fonttbl{\f0 Segoe UI;}}{\colortbl ;\red0;}\f0\fs20 Hello {\b bold}\par next}",
            "Hello bold\nnext",
        ),
        (r"{\rtf1 caf\'e9 \u8364? \{x\}}", "café € {x}"),
        (r"{\rtf1 \u-10179?\u-8704?}", "😀"),
        (r"{\rtf1{\*\generator Msft;}{\pict 89504e47}shown}", "shown"),
        ("not rtf at all", "not rtf at all"),
    ],
)
def test_rtf_is_reduced_to_its_text(rtf: str, text: str) -> None:
    """Edge case 27: RTF from Lync."""
    assert rtf_to_text(rtf) == text


@given(st.text(alphabet="<>/ab c='\"&;!-scriptRTF{}\\'u123"))
def test_no_markup_breaks_the_reader(markup: str) -> None:
    html_to_text(markup)
    rtf_to_text(markup).encode()


def test_a_short_text_stays_whole() -> None:
    assert split_text("ü" * 50, 100, is_numbered=True) == ["ü" * 50]


def test_a_long_text_is_split_between_words_and_numbered() -> None:
    """Edge case 18: on characters, in order, never the whole body per part."""
    text = " ".join(f"word{number}" for number in range(100))
    parts = split_text(text, 200, is_numbered=True)
    assert [part.partition(" ")[0] for part in parts] == [f"({n}/{len(parts)})" for n in range(1, len(parts) + 1)]
    assert "".join(part.partition(" ")[2] for part in parts) == text
    assert all(part.endswith(" ") for part in parts[:-1])


@given(st.text(min_size=0, max_size=600), st.integers(MINIMUM_PART_OCTETS, 200), st.booleans())
def test_parts_fit_and_join_to_the_text(text: str, limit: int, is_numbered: bool) -> None:
    """Edge case 18: the limit counts UTF-8 octets, the cut falls between characters."""
    parts = split_text(text, limit, is_numbered=is_numbered)
    assert all(len(part.encode()) <= limit for part in parts)
    unnumbered = [part.partition(") ")[2] for part in parts] if is_numbered and len(parts) > 1 else parts
    assert "".join(unnumbered) == text


@pytest.mark.parametrize("cluster", ["e\u0301", "👩\u200d👩\u200d👧", "👍🏽", "❤\ufe0f"])
def test_a_cut_does_not_tear_an_accent_or_an_emoji(cluster: str) -> None:
    """Edge case 18."""
    for part in split_text(cluster * 40, 70):
        assert part.replace(cluster, "") == ""


def test_the_split_needs_room() -> None:
    with pytest.raises(ValueError, match="at least"):
        split_text("x" * 100, MINIMUM_PART_OCTETS - 1)


def test_the_last_part_carries_the_id_and_the_wishes() -> None:
    message = Message(
        id="m-1", sender=Address("a", "b"), recipient=Address("c", "d"), text="x" * 500, wants_delivered=True
    )
    parts = split_message(message, 200)
    assert [part.id for part in parts] == ["m-1.1", "m-1.2", "m-1"]
    assert [part.wants_delivered for part in parts] == [False, False, True]
    assert split_message(message, 1000) == [message]
