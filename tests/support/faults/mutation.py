"""Random damage: what a seed makes of well-formed messages. Equal seeds give equal damage."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support.faults.sip_agent import request_octets

_MESSAGES = Path(__file__).parents[2] / "messages"

# What breaks parsers: lengths and numbers at the edges, quotes and brackets, other encodings, escapes, other syntaxes.
_TOKENS = (
    *(b"", b" ", b"\t", b"\r\n", b"\r\n ", b"\n", b"\r", b"\0", b",", b";", b";;", b"=", b'"', b'\\"', b"<", b">"),
    *(b"@", b":", b"%", b"%00", b"%0d%0a", b"%zz", b"%ff", b"[", b"]", b"[::1]", b"[::", b"*", b"?", b"&", b"'"),
    *(b"-1", b"0", b"4294967296", b"99999999999999999999999", b"1e9", b"0x10", b"NaN", b"\xff\xfe", b"\xc3\x28"),
    *(b"\xed\xa0\x80", "\u202e".encode(), "\U0001f600".encode(), "ß".encode(), b"A" * 300, b"(" * 50, b"<" * 50),
    *(b"a,b;c=d" * 20, b"sip:", b"sips:", b"tel:+1", b"sip:@", b"sip:a@b@c", b"sip:%00@corp.test", b"SIP/2.0"),
    *(b"SIP/9.9", b"z9hG4bK", b"\r\nContent-Length: 1", b"\r\nContent-Length: -1", b"\r\nFrom: <sip:x@y>;tag=1"),
    *(b"\r\nTo: <sip:x@y>", b"\r\nRequire: path", b"\r\nRoute: <sip:127.0.0.1;lr>", b"\r\nExpires: 0"),
    *(b"\r\nVia: SIP/2.0/UDP 127.0.0.1", b"\r\nMax-Forwards: 0", b"\r\nContent-Encoding: deflate"),
    b"\r\nContent-Type: multipart/mixed;boundary=",
)

_PIDF = (
    b"<?xml version='1.0'?><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:ana@corp.test'>"
    b"<tuple id='t1'><status><basic>open</basic></status><note>here</note></tuple></presence>"
)
_CPIM = (
    b"From: <sip:ana@corp.test>\r\nTo: <sip:ben@people.test>\r\nDateTime: 2026-01-01T00:00:00Z\r\n"
    b"NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: m1\r\nimdn.Disposition-Notification: positive-delivery\r\n"
    b"\r\nContent-Type: text/plain\r\n\r\nhello"
)
_COMPOSING = (
    b"<?xml version='1.0'?><isComposing xmlns='urn:ietf:params:xml:ns:im-iscomposing'><state>active</state>"
    b"<refresh>60</refresh></isComposing>"
)
_MIXED = (
    b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>hello</b>\r\n--b--\r\n"
)
_LIST = (
    b"--b\r\nContent-Type: application/resource-lists+xml\r\n\r\n"
    b"<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'><list><entry uri='sip:ben@people.test'/></list>"
    b"</resource-lists>\r\n--b--\r\n"
)


def torture_set() -> list[bytes]:
    """The messages of RFC 4475 and RFC 5118."""
    return [path.read_bytes() for path in sorted(_MESSAGES.glob("*/*.dat"))]


Sign = Callable[[str, str], str]
"""Makes the Authorization line for a method and Request-URI; "" when nothing is to be proven."""


def valid_requests(via: str, sender: str = "ana@corp.test", sign: Sign = lambda method, uri: "") -> list[bytes]:
    """One of every kind that we serve, fresh every time.

    Args:
        via: transport and sent-by.
        sender: whose requests they are.
        sign: proves it.
    """
    ben, contact = "ben@people.test", f"Contact: <sip:{sender.partition('@')[0]}@{via.split()[1]}>"
    presence = ("Event: presence", contact)

    def build(method: str, uri: str, *headers: str, body: bytes = b"", content_type: str = "", to: str = "") -> bytes:
        proof = sign(method, uri)
        return request_octets(
            method,
            uri,
            sender=sender,
            recipient=to,
            via=via,
            body=body,
            content_type=content_type,
            headers=(*([proof] if proof else []), *headers),
        )

    texts = [
        ("text/plain", b"hello"),
        ("message/cpim", _CPIM),
        ("application/im-iscomposing+xml", _COMPOSING),
        ("multipart/mixed;boundary=b", _MIXED),
        ("text/html", b"<p>hello <b>you</b></p>"),
    ]
    messages = [
        build("MESSAGE", f"sip:{recipient}", body=body, content_type=kind)
        for kind, body in texts
        for recipient in (ben, "eva@corp.test", "eva@hosted.test")
    ]
    home = sender.partition("@")[2]
    return [
        *messages,
        build("OPTIONS", f"sip:{home}"),
        build("REGISTER", f"sip:{home}", contact, "Expires: 60", "Supported: path, gruu, outbound", to=sender),
        build("REGISTER", f"sip:{home}", "Contact: *", "Expires: 0", to=sender),
        build("SUBSCRIBE", f"sip:{ben}", *presence, "Expires: 60"),
        build("SUBSCRIBE", "sip:eva@hosted.test", *presence, "Expires: 0"),
        build("SUBSCRIBE", f"sip:{sender}", "Event: presence.winfo", contact, "Expires: 60"),
        build(
            "SUBSCRIBE",
            f"sip:{sender}",
            *(*presence, "Expires: 60", "Supported: eventlist", "Require: recipient-list-subscribe"),
            body=_LIST,
            content_type="multipart/related;boundary=b",
        ),
        *(
            build(
                "PUBLISH",
                f"sip:{sender}",
                *("Event: presence", "Expires: 60"),
                body=_PIDF,
                content_type="application/pidf+xml",
            )
            for _ in range(4)
        ),
        build(
            "NOTIFY",
            f"sip:{ben}",
            *("Event: presence", "Subscription-State: active;expires=60", contact),
            body=_PIDF,
            content_type="application/pidf+xml",
        ),
        *(build(method, f"sip:{ben}", contact) for method in ("INVITE", "CANCEL", "ACK", "BYE", "INFO")),
        b"SIP/2.0 200 OK\r\n" + build("OPTIONS", f"sip:{home}").partition(b"\r\n")[2],
    ]


class Damage:
    """Damages messages.

    Args:
        seed: of everything random.
        make: makes well-formed messages.
        torture: share of messages that are taken from the torture set instead.
    """

    def __init__(self, seed: int, make: Callable[[], list[bytes]], *, torture: float = 0.3) -> None:
        self._random = random.Random(seed)
        self._make = make
        self._torture = torture_set()
        self._torture_share = torture

    def messages(self, count: int) -> Iterator[bytes]:
        """Yield damaged messages; every tenth is whole."""
        for number in range(count):
            # Fresh ones every time: what has the same branch would be taken for a retransmission.
            pool = self._torture if self._random.random() < self._torture_share else self._make()
            data = self._random.choice(pool)
            yield data if number % 10 == 0 else self.damaged(data, pool)[:60_000]

    def chunks(self, data: bytes) -> Iterator[bytes]:
        """Cut at random, sometimes octet by octet."""
        largest = self._random.choice((1, 3, 20, 500, 5_000))
        if largest == 1 and len(data) > 200:
            largest = 30
        while data:
            size = self._random.randint(1, largest)
            yield data[:size]
            data = data[size:]

    def damaged(self, data: bytes, pool: Sequence[bytes]) -> bytes:
        """Return `data` with some damage; `pool` is where foreign parts come from."""
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 8))):
            data = self._random.choice(_WAYS)(self._random, data, pool)
        return data


def _flip(chance: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _time in range(chance.randint(1, 5) if data else 0):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _cut(chance: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.choice((1, 2, 10, 200)) :]


def _truncate(chance: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _insert(chance: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_TOKENS) + data[at:]


def _repeat(chance: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = chance.randrange(len(data) + 1)
    part = data[start : start + chance.choice((1, 10, 100))]
    return data[:start] + part * chance.choice((2, 3, 40)) + data[start:]


def _splice(chance: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    other = chance.choice(pool)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


def _lines(chance: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    """Drop, double, exchange or borrow a header line."""
    lines = data.split(b"\r\n")
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    way = chance.randrange(4)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(at, lines[other])
    elif way == 2:
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines.insert(at, chance.choice(chance.choice(pool).split(b"\r\n")))
    return b"\r\n".join(lines)


def _value(chance: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Replace the value of a header line, or a piece of it."""
    lines = data.split(b"\r\n")
    at = chance.randrange(len(lines))
    name, colon, value = lines[at].partition(b":")
    if colon:
        pieces = value.split(chance.choice((b" ", b";", b"=", b":", b"@")), 1)
        pieces[chance.randrange(len(pieces))] = chance.choice(_TOKENS)
        lines[at] = name + b": " + b"".join(pieces)
    return b"\r\n".join(lines)


_WAYS = (_flip, _cut, _truncate, _insert, _repeat, _splice, _lines, _value, _value, _lines, _insert)
