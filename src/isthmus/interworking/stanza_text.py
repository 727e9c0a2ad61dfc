"""What a stanza says to somebody whose client knows plain text only.

Corrections, replies, reactions, retractions, attachments and encrypted bodies become a short readable text
(XEP-0308, 0461, 0444, 0424, 0066, 0384); nothing that a person did not write is passed off as their words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element

from isthmus.xmpp import namespaces as ns
from isthmus.xmpp.stanza import child

Contents = Mapping[str, Element]

# Looks up the text of an earlier message by id; pure code has no archive, so the caller may bring one.
QuoteOf = Callable[[str], str]

_ENCRYPTED = {
    f"{{{ns.OMEMO_LEGACY}}}encrypted": "OMEMO",
    f"{{{ns.OMEMO}}}encrypted": "OMEMO",
    f"{{{ns.OMEMO_1}}}encrypted": "OMEMO",
    f"{{{ns.OPENPGP}}}openpgp": "OpenPGP",
    f"{{{ns.OPENPGP_LEGACY}}}x": "OpenPGP",
}
_EXPLICIT_ENCRYPTION = f"{{{ns.EXPLICIT_ENCRYPTION}}}encryption"
_CORRECTION = f"{{{ns.CORRECTION}}}replace"
_REPLY = f"{{{ns.REPLY}}}reply"
_FALLBACK = f"{{{ns.FALLBACK}}}fallback"
_REACTIONS = f"{{{ns.REACTIONS}}}reactions"
_RETRACTIONS = (f"{{{ns.RETRACT}}}retract", f"{{{ns.RETRACT_0}}}retract")
_FASTEN = f"{{{ns.FASTEN}}}apply-to"
_OOB = f"{{{ns.OOB}}}x"
_SFS = f"{{{ns.SFS}}}file-sharing"
_INVITE = f"{{{ns.CONFERENCE_INVITE}}}x"

# Any of these makes a stanza more than its body.
SPECIAL_TAGS = frozenset(
    {
        *_ENCRYPTED,
        _EXPLICIT_ENCRYPTION,
        _CORRECTION,
        _REPLY,
        _FALLBACK,
        _REACTIONS,
        *_RETRACTIONS,
        _FASTEN,
        _OOB,
        _SFS,
        _INVITE,
    }
)

# A quotation reminds of a message; it does not repeat it.
_MAXIMUM_QUOTE = 120
# A message lists a few attachments and reactions; more is noise.
_MAXIMUM_LINKS = 10
_MAXIMUM_REACTIONS = 10


_NOTICE_BEGINNING = "[This message is encrypted with "


def encryption_notice(method: str) -> str:
    """Return what the recipient reads instead of a body that only the sender's app can open (edge case 24)."""
    return (
        f"{_NOTICE_BEGINNING}{method} and cannot be shown here. "
        "Please ask the sender to switch encryption off for this conversation.]"
    )


def is_notice(text: str) -> bool:
    """True for a text of `encryption_notice`."""
    return text.startswith(_NOTICE_BEGINNING)


RETRACTION_NOTICE = "[The sender took back an earlier message.]"


def is_otr(body: str) -> bool:
    """True for the text form of Off-the-Record messages and queries."""
    return body.startswith("?OTR")


def readable_text(body: str, contents: Contents, quote_of: QuoteOf | None = None) -> str:
    """Return the text for a stanza with any of SPECIAL_TAGS; "" when it has nothing to say to a person.

    Args:
        body: text of the `<body/>`, may be empty.
        contents: children of the stanza by tag.
        quote_of: text of an earlier message by its id.
    """
    method = _encryption_method(contents)
    if method is not None:
        return encryption_notice(method) if method else ""
    if any(tag in contents for tag in _RETRACTIONS) or _is_fastened_retraction(contents):
        return RETRACTION_NOTICE
    if _REACTIONS in contents:
        return _reaction_text(contents[_REACTIONS], quote_of)
    if _REPLY in contents:
        body = _reply_text(body, contents, quote_of)
    elif _FALLBACK in contents:
        body = _without_fallback(body, contents[_FALLBACK])[0]
    if _CORRECTION in contents and body:
        body = f"✎ {body}"
    return _with_links(body, contents)


def _encryption_method(contents: Contents) -> str | None:
    """Return the name of the encryption, "" for an encrypted stanza without content, None for a plain one."""
    for tag, method in _ENCRYPTED.items():
        found = contents.get(tag)
        if found is not None:
            # OMEMO sends stanzas without payload to exchange keys: nothing was said.
            if method == "OMEMO" and not any(part.tag.endswith("}payload") for part in found):
                return ""
            return method
    explicit = contents.get(_EXPLICIT_ENCRYPTION)
    if explicit is None:
        return None
    named = {"urn:xmpp:otr:0": "OTR", ns.OPENPGP_LEGACY: "OpenPGP", ns.OPENPGP: "OpenPGP"}
    return named.get(explicit.get("namespace", "")) or " ".join(explicit.get("name", "").split())[:40] or "OMEMO"


def _is_fastened_retraction(contents: Contents) -> bool:
    fastened = contents.get(_FASTEN)
    return fastened is not None and any(part.tag.endswith("}retract") for part in fastened)


def _reaction_text(reactions: Element, quote_of: QuoteOf | None) -> str:
    """`👍` or `👍 to: “Shall we talk”`; an empty set withdraws a reaction, which needs no message."""
    marks = [" ".join((part.text or "").split())[:20] for part in reactions][:_MAXIMUM_REACTIONS]
    shown = " ".join(mark for mark in marks if mark)
    if not shown:
        return ""
    quoted = _shortened(quote_of(reactions.get("id", ""))) if quote_of else ""
    return f"{shown} to: “{quoted}”" if quoted else shown


def _reply_text(body: str, contents: Contents, quote_of: QuoteOf | None) -> str:
    """One line of quotation, then what the person wrote; the fallback quotation of the sender's app is cut out."""
    quoted = ""
    if _FALLBACK in contents:
        body, removed = _without_fallback(body, contents[_FALLBACK])
        quoted = " ".join(line.lstrip("> ").strip() for line in removed.splitlines())
    if quote_of:
        quoted = quote_of(contents[_REPLY].get("id", "")) or quoted
    quoted = _shortened(quoted)
    return f"> {quoted}\n{body}" if quoted and body else body


def _without_fallback(body: str, fallback: Element) -> tuple[str, str]:
    """Return the body without the range that is there for old clients only (XEP-0428), and that range."""
    ranges = [part for part in fallback if part.tag.endswith("}body")]
    if not ranges:
        # Without `<body/>` the whole stanza is a fallback, also when other elements are named: nothing was written.
        return ("", body) if not len(fallback) else (body, "")
    begin, end = ranges[0].get("start"), ranges[0].get("end")
    if begin is None and end is None:
        return "", body
    try:
        first, last = int(begin or 0), int(end) if end is not None else len(body)
    except ValueError:
        return body, ""
    if not 0 <= first <= last <= len(body):
        return body, ""
    return body[:first] + body[last:], body[first:last]


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAXIMUM_QUOTE else line[: _MAXIMUM_QUOTE - 1].rstrip() + "…"


def _with_links(body: str, contents: Contents) -> str:
    """Add the URLs of attachments that the body does not already hold (XEP-0066, XEP-0447, XEP-0249)."""
    links: list[str] = []
    if _OOB in contents:
        url = child(contents[_OOB], "url", ns.OOB)
        links.append((url.text or "").strip() if url is not None else "")
    if _SFS in contents:
        links.extend(part.get("target", "") for part in contents[_SFS].iter(f"{{{ns.URL_DATA}}}url-data"))
    lines = [body] if body else []
    for link in links[:_MAXIMUM_LINKS]:
        if link and "\n" not in link and link not in body and link not in lines:
            lines.append(link)
    if _INVITE in contents and not body:
        room = contents[_INVITE].get("jid", "")
        if room:
            lines.append(f"[Invitation to the group conversation {room}]")
    return "\n".join(lines)
