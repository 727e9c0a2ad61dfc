"""Messages that are too large, too deep or worse once unpacked: refused rightly, in little time and memory."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from isthmus.sip.message import SipResponse
from isthmus.sip.parser import StreamParser
from tests.faults.conftest import Siege
from tests.support.faults.gateway import PASSWORD, Gateway
from tests.support.faults.phone import phone
from tests.support.faults.sip_agent import SipAgent, request_octets
from tests.support.faults.xmpp_neighbour import ACCEPT, MESSAGE, XmppNeighbour

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOE, ANA, BEN = "joe@pbx.test", "ana@corp.test", "ben@people.test"
# What one hostile message may cost while it is worked off; the machine of the tests may be slow and busy.
SECONDS = 5.0
MEGABYTES = 40.0


@pytest.fixture(scope="module")
def gateway(siege: Siege) -> Gateway:
    return siege.gateway


@pytest.fixture(scope="module")
def xmpp(siege: Siege) -> XmppNeighbour:
    return siege.xmpp


@pytest.fixture(scope="module")
def pbx(siege: Siege) -> SipAgent:
    return siege.pbx


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def cheap(gateway: Gateway, pbx: SipAgent) -> AsyncIterator[None]:
    """Every test: little time, little memory, and the next request is answered."""
    memory, began = gateway.resident_megabytes, time.perf_counter()
    yield
    await pbx.is_served(gateway.udp)
    assert time.perf_counter() - began < SECONDS * 2
    assert gateway.resident_megabytes - memory < MEGABYTES
    gateway.assert_unharmed()


async def over_tcp(gateway: Gateway, pbx: SipAgent, data: bytes, *, closes: bool = False) -> list[int]:
    """Send on a connection of the neighbour's; return the statuses of the answers, and wait for its end if asked."""
    reader, writer = await asyncio.open_connection(*gateway.udp, local_addr=(pbx.host, 0))
    writer.write(data)
    statuses: list[int] = []
    parser = StreamParser()
    async with asyncio.timeout(SECONDS):
        while closes or not statuses:
            try:
                found = await reader.read(65_536)
            except ConnectionError:
                break  # it had not read all that we wrote, so the system says it harshly
            if not found:
                break
            statuses += [item.status for item in parser.feed(found) if isinstance(item, SipResponse)]
    writer.close()
    return statuses


def message(pbx: SipAgent, body: bytes, content_type: str = "text/plain", *headers: str, via: str = "") -> bytes:
    return request_octets(
        "MESSAGE",
        f"sip:{BEN}",
        sender=JOE,
        via=via or pbx.via,
        body=body,
        content_type=content_type,
        headers=headers,
    )


# --- too much ---


async def test_a_text_beyond_the_limit_is_413_and_one_within_it_passes(gateway: Gateway, pbx: SipAgent) -> None:
    assert await over_tcp(gateway, pbx, message(pbx, b"x" * 70_000)) == [413]
    assert await over_tcp(gateway, pbx, message(pbx, b"x" * 60_000)) == [202]
    assert (await pbx.exchange(message(pbx, b"x" * 60_000), gateway.udp)).status == 202


async def test_a_message_that_nobody_could_mean_ends_its_connection(gateway: Gateway, pbx: SipAgent) -> None:
    assert await over_tcp(gateway, pbx, message(pbx, b"x" * 300_000), closes=True) == [513]


async def test_connections_that_say_much_and_nothing_cost_what_they_may(gateway: Gateway, pbx: SipAgent) -> None:
    """A header that never ends, on many connections: each may hold its bound and no more."""
    writers = []
    for _ in range(100):
        _, writer = await asyncio.open_connection(*gateway.udp, local_addr=(pbx.host, 0))
        writers.append(writer)
        writer.write(b"MESSAGE sip:x SIP/2.0\r\nSubject: " + b"x" * 400_000)
    await pbx.is_served(gateway.udp)
    for writer in writers:
        writer.transport.abort()


@pytest.mark.parametrize(
    "headers",
    [
        (f"Subject: {'x' * 9_000}",),
        tuple(f"X-Bomb-{number}: x" for number in range(300)),
        ("Route: " + ",".join(f"<sip:{number}.test;lr>" for number in range(2_000)),),
        ("Via: SIP/2.0/UDP a.test" + ", SIP/2.0/UDP a.test" * 900,),
    ],
    ids=["line", "lines", "routes", "vias"],
)
async def test_header_bombs_are_refused(gateway: Gateway, pbx: SipAgent, headers: tuple[str, ...]) -> None:
    data = message(pbx, b"hello", "text/plain", *headers)
    response = await pbx.exchange(data, gateway.udp)
    assert response.status == (400 if len(headers) > 1 else 513)
    assert await over_tcp(gateway, pbx, data) == [response.status]


async def test_a_long_text_from_xmpp_comes_back_as_a_violation(gateway: Gateway, xmpp: XmppNeighbour) -> None:
    text = "x" * 250_000
    xmpp.send("corp.test", f"<message type='chat' id='long' from='{BEN}/x' to='{ANA}'><body>{text}</body></message>")
    answer = await xmpp.expect(lambda stanza: stanza.get("id") == "long", "the error")
    error = answer.find(f"{{{ACCEPT}}}error")
    assert error is not None
    assert error[0].tag == "{urn:ietf:params:xml:ns:xmpp-stanzas}policy-violation"


# --- bombs ---

_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
PRESENCE = "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:ana@corp.test'>{}</presence>"
XML_BOMBS = {
    "laughs": f'<!DOCTYPE p [<!ENTITY l0 "ha">{_LAUGHS}]>' + PRESENCE.format("<note>&l11;</note>"),
    "quadratic": f'<!DOCTYPE p [<!ENTITY a "{"a" * 20_000}">]>' + PRESENCE.format(f"<note>{'&a;' * 5_000}</note>"),
    "outside": '<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + PRESENCE.format("<note>&x;</note>"),
    "remote": '<!DOCTYPE p SYSTEM "http://127.0.0.1:9/x.dtd">' + PRESENCE.format(""),
    "deep": PRESENCE.format("<a>" * 5_000 + "</a>" * 5_000),
    "wide": PRESENCE.format("<tuple id='t'><status><basic>open</basic></status></tuple>" * 900),
    "attributes": PRESENCE.format("<a " + " ".join(f"b{n}='c'" for n in range(5_000)) + "/>"),
    "cut": PRESENCE.format("")[:-5],
    "utf-7": "<?xml version='1.0' encoding='utf-7'?>" + PRESENCE.format(""),
}


@pytest.mark.parametrize("name", XML_BOMBS)
async def test_xml_bombs_in_presence_are_defused(gateway: Gateway, name: str) -> None:
    async with phone(gateway, ANA, PASSWORD) as ana:
        response = await ana.request(
            "PUBLISH",
            f"sip:{ANA}",
            *("Event: presence", "Expires: 60"),
            body=XML_BOMBS[name].encode(),
            content_type="application/pidf+xml",
        )
    assert (name, response.status) in (("wide", 200), ("attributes", 200)) or response.status == 400


@pytest.mark.parametrize("name", ["laughs", "outside", "deep"])
async def test_xml_bombs_in_typing_notifications_are_defused(gateway: Gateway, pbx: SipAgent, name: str) -> None:
    body = XML_BOMBS[name].replace("presence", "isComposing").encode()
    response = await pbx.exchange(message(pbx, body, "application/im-iscomposing+xml"), gateway.udp)
    assert response.status == 400


def _nested(depth: int) -> bytes:
    body = b"Content-Type: text/plain\r\n\r\nhello\r\n"
    for level in range(depth):
        edge = f"b{level}".encode()
        body = b"Content-Type: multipart/mixed;boundary=%b\r\n\r\n--%b\r\n%b\r\n--%b--\r\n" % (edge, edge, body, edge)
    return body.partition(b"\r\n\r\n")[2]


async def test_multipart_bombs_are_refused(gateway: Gateway, pbx: SipAgent) -> None:
    deep = message(pbx, _nested(60), "multipart/mixed;boundary=b59")
    assert (await pbx.exchange(deep, gateway.udp)).status in (400, 413, 415)
    parts = b"--b\r\n\r\nx\r\n" * 5_000 + b"--b--\r\n"
    many = message(pbx, parts, "multipart/mixed;boundary=b")
    assert (await pbx.exchange(many, gateway.udp)).status in (400, 413, 415)
    shallow = message(pbx, _nested(2), "multipart/mixed;boundary=b1")
    assert (await pbx.exchange(shallow, gateway.udp)).status == 202


async def test_cpim_bombs_are_refused(gateway: Gateway, pbx: SipAgent) -> None:
    wrapped = b"From: <sip:joe@pbx.test>\r\nTo: <sip:ben@people.test>\r\n" + b"X: y\r\n" * 6_000
    wrapped += b"\r\nContent-Type: text/plain\r\n\r\nhello"
    assert (await pbx.exchange(message(pbx, wrapped, "message/cpim"), gateway.udp)).status in (400, 413)


@pytest.mark.parametrize("wbits", [15, -15, 31], ids=["zlib", "raw", "gzip"])
async def test_what_grows_when_it_is_unpacked_is_not_unpacked(gateway: Gateway, pbx: SipAgent, wbits: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    packed = packer.compress(b"a" * 50_000_000) + packer.flush()
    assert len(packed) < 60_000
    response = await pbx.exchange(message(pbx, packed, "text/plain", "Content-Encoding: deflate"), gateway.udp)
    assert response.status in (400, 413, 415)
    small = zlib.compress(b"hello from Linphone")
    response = await pbx.exchange(message(pbx, small, "text/plain", "Content-Encoding: deflate"), gateway.udp)
    assert response.status == 202  # edge case 19: the honest ones do this too


async def test_a_text_that_is_no_text_is_refused_and_control_characters_do_not_cross(
    gateway: Gateway, pbx: SipAgent, xmpp: XmppNeighbour
) -> None:
    assert (await pbx.exchange(message(pbx, b"\xff\xfe\x00"), gateway.udp)).status == 400
    odd = "a\0b\x08c\ufffe<script>&amp;]]>\x1b[2J"
    assert (await pbx.exchange(message(pbx, odd.encode()), gateway.udp)).status == 202
    found = await xmpp.expect(
        lambda stanza: stanza.tag == MESSAGE and "<script>" in stanza.findtext(f"{{{ACCEPT}}}body", ""), "the text"
    )
    text = found.findtext(f"{{{ACCEPT}}}body", "")
    assert not set(text) & {"\0", "\x08", "\x1b", "\ufffe"}
    assert xmpp.faults == []


# --- browsers ---


async def test_a_page_of_another_origin_may_not_connect(gateway: Gateway) -> None:
    url = f"ws://127.0.0.1:{gateway.ports['ws']}/"
    for origin in ("https://evil.test", "null", "http://127.0.0.1.evil.test"):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, subprotocols=[Subprotocol("sip")], origin=Origin(origin)):
                pass
        assert refused.value.response.status_code == 403
    async with connect(url, subprotocols=[Subprotocol("sip")], origin=Origin("http://127.0.0.1:8080")):
        pass


async def test_a_websocket_message_that_is_too_large_is_refused_with_1009(gateway: Gateway) -> None:
    url = f"ws://127.0.0.1:{gateway.ports['ws']}/"
    async with connect(url, subprotocols=[Subprotocol("sip")]) as browser:
        await browser.send("x" * 400_000)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(browser.recv(), SECONDS)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
