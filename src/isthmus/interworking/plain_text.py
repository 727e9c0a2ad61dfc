"""Formatted bodies as plain text: HTML (Lync, SIP phones) and RTF; nothing active survives (edge case 27)."""

from __future__ import annotations

import re
from html.parser import HTMLParser

# What never shows: scripts and styles, and the text of embedded objects.
_HIDDEN = frozenset({"script", "style", "head", "title", "template", "object", "iframe", "noscript"})
_BREAKING = frozenset(
    {"p", "div", "tr", "ul", "ol", "table", "blockquote", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "section"}
)
# Schemes that are links to a person and harmless to show; `javascript:` and `data:` are not among them.
_LINK = re.compile(r"(?:https?|mailto|sips?|xmpp|tel|ftps?):", re.IGNORECASE)
_SPACES = re.compile(r"[ \t\r\n\f\v\xa0]+")


class _TextExtractor(HTMLParser):
    """Collects what a reader of the page would see, with links kept as text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden_depth = 0
        self.links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in _HIDDEN:
            self.hidden_depth += 1
        elif tag == "br":
            self.parts.append("\n")
        elif tag == "li":
            self.parts.append("\n• ")
        elif tag in _BREAKING:
            self.parts.append("\n")
        elif tag == "img" and not self.hidden_depth:
            self.parts.append(values.get("alt") or "")
        elif tag == "a":
            # Links do not nest in HTML; keeping one also keeps `<a><a><a>...` linear.
            self.links = [(values.get("href") or "", len(self.parts))]
        elif tag in ("td", "th"):
            self.parts.append("\t")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # `<script/>` does not close itself in HTML, but senders of XHTML mean it so.
        if tag not in _HIDDEN:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self.hidden_depth = max(0, self.hidden_depth - 1)
        elif tag in _BREAKING:
            self.parts.append("\n")
        elif tag == "a" and self.links:
            target, begin = self.links.pop()
            shown = "".join(self.parts[begin:]).strip()
            target = target.strip()
            if _LINK.match(target) and target != shown and target.partition(":")[2] != shown:
                self.parts.append(f" ({target})" if shown else target)

    def handle_data(self, data: str) -> None:
        if not self.hidden_depth:
            self.parts.append(_SPACES.sub(" ", data))


def html_to_text(html: str) -> str:
    """Return the readable text of an HTML body: entities decoded, scripts and styles gone, links kept as URLs."""
    extractor = _TextExtractor()
    extractor.feed(html)
    extractor.close()
    lines = [line.strip(" ") for line in "".join(extractor.parts).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


_RTF_TOKEN = re.compile(
    r"\\([a-z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-f]{2})|\\([^a-z])|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.IGNORECASE
)
# Groups that hold fonts, colours, pictures and the like: not text.
_RTF_DESTINATIONS = frozenset({"fonttbl", "colortbl", "stylesheet", "info", "pict", "object", "header", "footer"})
_RTF_BREAKS = {"par": "\n", "line": "\n", "tab": "\t", "emdash": "—", "endash": "–", "bullet": "•"}
# A real message nests its groups a few deep.
_MAXIMUM_RTF_DEPTH = 100


def rtf_to_text(rtf: str) -> str:
    """Return the readable text of an RTF body (Lync): control words dropped, `\\'hh` and `\\uN` decoded."""
    parts: list[str] = []
    hidden: list[bool] = [False]
    to_skip = 0
    for match in _RTF_TOKEN.finditer(rtf):
        word, number, octet, symbol, brace, text = match.groups()
        if brace == "{":
            hidden.append(hidden[-1] if len(hidden) < _MAXIMUM_RTF_DEPTH else True)
        elif brace == "}":
            if len(hidden) > 1:
                hidden.pop()
        elif (word and word.lower() in _RTF_DESTINATIONS) or symbol == "*":
            hidden[-1] = True
        elif hidden[-1]:
            continue
        elif word == "u" and number:
            parts.append(chr(int(number) % 0x10000))
            to_skip = 1  # the character after \uN is its replacement for old readers (\uc1)
        elif word:
            parts.append(_RTF_BREAKS.get(word, ""))
        elif octet:
            if to_skip:
                to_skip = 0
            else:
                parts.append(bytes([int(octet, 16)]).decode("cp1252", "replace"))
        elif symbol:
            parts.append({"~": "\xa0", "_": "-"}.get(symbol, symbol if symbol in "\\{}" else ""))
        elif text:
            parts.append(text[to_skip:])
            to_skip = 0
    joined = "".join(parts)
    # \uN writes UTF-16 code units: join pairs, drop what stays alone.
    return joined.encode("utf-16", "surrogatepass").decode("utf-16", "ignore").strip()
