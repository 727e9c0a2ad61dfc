"""Stanzas that an XMPP server may pass on although nobody should have written them. Equal seeds give equal stanzas."""

from __future__ import annotations

import random
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

_DOMAINS = ("corp.test", "hosted.test")
_LOCALS = (
    *("ana", "eva", "isthmus", "echo", "ana\\40pbx", "d\\27artagnan", "a%b", "ана", "用户", "a" * 1_023, "a" * 1_100),
    *(
        "\\20",
        "\\5c20",
        "Ana",
        "ana.",
        "-",
        "+1555",
        "a'b",
        'a"b',
        "a b",
        "<",
        "\u202e",
        "\U0001f600",
        "ß",
    ),
)
_RESOURCES = ("", "phone", "Ä/ö@x", "r" * 1_023, " ", "a\nb", "\u200b", "<&>")
_SENDERS = (
    "ben@people.test",
    "eve@elsewhere.test",
    "people.test",
    "ben@[::1]",
    "ben@127.0.0.1",
    "xn--bcher-kva.example",
)
_TEXTS = (
    *(
        "",
        "hello",
        " ",
        "\n\n",
        "a" * 5_000,
        "ж" * 3_000,
        "\U0001f600" * 800,
        "x\ty",
        "\ufeff",
        "\u2028",
        "]]>",
        "&amp;",
    ),
    *(
        "-1",
        "0",
        "128",
        "99999999999999999999",
        "NaN",
        "true",
        "2026-02-30T99:99:99Z",
        "1970-01-01T00:00:00Z",
        "\r\n\r\n",
    ),
)
_TYPES = {
    "message": ("chat", "normal", "groupchat", "headline", "error", "", "nonsense"),
    "presence": (
        *("", "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error", "nonsense"),
        *("subscribe", "subscribe", "probe"),
    ),
    "iq": ("get", "set", "result", "error", "get", "set", "nonsense", ""),
}
# (name, namespace, attributes it may have)
_PAYLOADS = (
    *(("body", "", ("xml:lang",)), ("subject", "", ()), ("thread", "", ("parent",)), ("show", "", ())),
    *(("status", "", ("xml:lang",)), ("priority", "", ()), ("error", "", ("type", "code"))),
    *(
        ("active", "http://jabber.org/protocol/chatstates", ()),
        ("composing", "http://jabber.org/protocol/chatstates", ()),
    ),
    *(("request", "urn:xmpp:receipts", ()), ("received", "urn:xmpp:receipts", ("id",))),
    *(("displayed", "urn:xmpp:chat-markers:0", ("id",)), ("markable", "urn:xmpp:chat-markers:0", ())),
    *(("replace", "urn:xmpp:message-correct:0", ("id",)), ("reply", "urn:xmpp:reply:0", ("id", "to"))),
    *(("fallback", "urn:xmpp:fallback:0", ("for",)), ("reactions", "urn:xmpp:reactions:0", ("id",))),
    *(("retract", "urn:xmpp:message-retract:1", ("id",)), ("delay", "urn:xmpp:delay", ("stamp", "from"))),
    *(("encrypted", "eu.siacs.conversations.axolotl", ()), ("encryption", "urn:xmpp:eme:0", ("namespace", "name"))),
    *(
        ("x", "jabber:x:oob", ()),
        ("x", "http://jabber.org/protocol/muc#user", ()),
        ("x", "urn:isthmus:hop:0", ("count",)),
    ),
    *(("c", "http://jabber.org/protocol/caps", ("node", "ver", "hash")), ("x", "vcard-temp:x:update", ())),
    *(
        ("sent", "urn:xmpp:carbons:2", ()),
        ("forwarded", "urn:xmpp:forward:0", ()),
        ("html", "http://jabber.org/protocol/xhtml-im", ()),
    ),
    *(
        ("query", "http://jabber.org/protocol/disco#info", ("node",)),
        ("query", "http://jabber.org/protocol/disco#items", ("node",)),
    ),
    *(
        ("ping", "urn:xmpp:ping", ()),
        ("vCard", "vcard-temp", ()),
        ("query", "jabber:iq:last", ()),
        ("query", "jabber:iq:version", ()),
    ),
    *(
        ("jingle", "urn:xmpp:jingle:1", ("action", "sid")),
        ("idle", "urn:xmpp:idle:1", ("since",)),
        ("query", "jabber:iq:roster", ()),
    ),
    *(
        ("message", "jabber:client", ("to", "from", "type")),
        ("item-not-found", "urn:ietf:params:xml:ns:xmpp-stanzas", ()),
    ),
)


class OddStanzas:
    """Makes stanzas.

    Args:
        seed: of everything random.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def stanzas(self, count: int) -> Iterator[tuple[str, str, str]]:
        """Yield the component a stanza is for, the id of a query that must be answered ("" for none), and the text."""
        for number in range(count):
            kind = self._random.choice(("message", "message", "presence", "presence", "iq"))
            domain = self._random.choice(_DOMAINS)
            stanza_type = self._random.choice(_TYPES[kind])
            stanza_id = (
                f"odd-{number}" if kind == "iq" else self._random.choice((f"odd-{number}", "", "same", "i" * 2_000))
            )
            attributes = {"type": stanza_type, "id": stanza_id, "to": self._recipient(domain), "from": self._sender()}
            if self._random.random() < 0.05:
                attributes["xml:lang"] = self._random.choice(_TEXTS)
            written = "".join(f" {name}={_quoted(value)}" for name, value in attributes.items() if value)
            payload = "".join(self._payload(0) for _ in range(self._random.choice((0, 1, 1, 1, 2, 3, 12))))
            if kind == "message" and self._random.random() < 0.7:
                payload += f"<body>{_text(self._random.choice(_TEXTS))}</body>"
            asks = kind == "iq" and stanza_type not in ("result", "error")
            yield domain, stanza_id if asks else "", f"<{kind}{written}>{payload}</{kind}>"

    def _recipient(self, domain: str) -> str:
        local = self._random.choice(_LOCALS[:2] if self._random.random() < 0.6 else _LOCALS)
        resource = self._random.choice(_RESOURCES) if self._random.random() < 0.4 else ""
        bare = domain if self._random.random() < 0.1 else f"{local}@{domain}"
        return f"{bare}/{resource}" if resource else bare

    def _sender(self) -> str:
        if self._random.random() < 0.7:
            return f"{self._random.choice(_SENDERS[:2])}/phone"
        resource = self._random.choice(_RESOURCES)
        sender = self._random.choice(_SENDERS)
        if self._random.random() < 0.3:
            sender = f"{self._random.choice(_LOCALS)}@people.test"
        return f"{sender}/{resource}" if resource else sender

    def _payload(self, depth: int) -> str:
        if depth == 0 and self._random.random() < 0.02:
            return "<deep>" * 400 + "</deep>" * 400
        name, namespace, attributes = self._random.choice(_PAYLOADS)
        written = f" xmlns='{namespace}'" if namespace and self._random.random() < 0.95 else ""
        for attribute in attributes:
            if self._random.random() < 0.8:
                written += f" {attribute}={_quoted(self._random.choice((*_TEXTS, 'odd-1', 'same')))}"
        inside = ""
        if self._random.random() < 0.6:
            inside += _text(self._random.choice(_TEXTS))
        while depth < 6 and self._random.random() < 0.35:
            inside += self._payload(depth + 1)
        return f"<{name}{written}>{inside}</{name}>"


def _quoted(value: str) -> str:
    return quoteattr(value, {"\n": "&#10;", "\t": "&#9;", "\r": "&#13;"})


def _text(value: str) -> str:
    return escape(value, {"\r": "&#13;"})
