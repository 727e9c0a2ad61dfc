"""Stanzas as lines of the trace: whom they concern, and without what people wrote."""

from __future__ import annotations

import re

from isthmus.trace import Trace

# What people wrote, in the elements of plain text, XHTML, corrections and files.
_WRITTEN = re.compile(r"<((?:[\w.-]+:)?(?:body|subject|url|desc))((?:\s[^>]*)?)(?<!/)>.*?</\1>", re.DOTALL)
_ADDRESSES = re.compile(r"\s(id|from|to)=(?:'([^']*)'|\"([^\"]*)\")")


def trace_stanza(trace: Trace, mark: str, link: str, text: str, *, shows_bodies: bool) -> None:
    """Tell the listeners of `trace` about one serialised stanza; call it only when there are any."""
    if not shows_bodies:
        text = _WRITTEN.sub(r"<\1\2>...</\1>", text)
    opening = {name: one or other for name, one, other in _ADDRESSES.findall(text.partition(">")[0])}
    people = [opening[name].partition("/")[0] for name in ("from", "to") if name in opening]
    trace.wire(mark, link, text, call_id=opening.get("id", ""), people=people)
