"""Thousands of damaged messages on UDP, TCP and WebSocket: nothing is raised, nothing leaks, everybody is still served.

The seed of a run is printed; ISTHMUS_FAULT_SEED repeats it and ISTHMUS_FAULT_CASES multiplies the number of cases.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from isthmus.sip.digest import build_authorization, choose_challenge
from tests.support.certificates import TestAuthority
from tests.support.faults.chance import FACTOR, SEED, cases
from tests.support.faults.gateway import PASSWORD, Gateway, hosted, routed
from tests.support.faults.mutation import Damage, valid_requests
from tests.support.faults.sip_agent import SipAgent, private_address, request_octets, sip_agent
from tests.support.faults.xmpp_neighbour import XmppNeighbour, xmpp_neighbour
from tests.support.processes import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Octets that a case may leave behind for good: none; this is what allocator and caches may keep of all of them.
GROWTH_MEGABYTES = 24.0
EVA = "eva@hosted.test"
LIMITS = """
[limits]
user_requests_per_second = 0
peer_requests_per_second = 0
unauthenticated_per_second = 0
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def xmpp() -> AsyncIterator[XmppNeighbour]:
    async with xmpp_neighbour() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent() -> AsyncIterator[SipAgent]:
    """The neighbour of corp.test: what it says of its people is believed, so damage gets as far as it can."""
    async with sip_agent(private_address(), 5060) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    xmpp: XmppNeighbour, agent: SipAgent, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    print(f"seed {SEED}")
    folder = tmp_path_factory.mktemp("fuzzed")
    own = TestAuthority(folder).issue("corp.test")
    made = Gateway(
        folder,
        xmpp.port,
        routed("corp.test", agent.host, agent.port),
        hosted("hosted.test"),
        sections=f'{LIMITS}\n[sip.tls]\ncertificate = "{own.certificate}"\nprivate_key = "{own.private_key}"',
        transports=("ws", "tls"),
        sip='dns_servers = ["127.0.0.1"]',  # nobody there: names of damaged messages shall not go out
    )
    await made.start()
    await made.add_users(EVA)
    yield made
    await made.stop()


async def test_damaged_datagrams_are_survived(gateway: Gateway, agent: SipAgent, xmpp: XmppNeighbour) -> None:
    damage = Damage(SEED, partial(valid_requests, agent.via))
    for number, data in enumerate(damage.messages(cases(3_000))):
        agent.send(data, gateway.udp)
        if number % 50 == 49:  # so that no datagram is lost in a full socket buffer
            await agent.is_served(gateway.udp)
            agent.responses.clear()
            agent.requests.clear()
    assert agent.unreadable == []
    assert xmpp.faults == []
    gateway.assert_unharmed()


async def test_damaged_requests_of_a_signed_in_user_are_survived(gateway: Gateway, xmpp: XmppNeighbour) -> None:
    """What only hosted users may do: register, publish, watch their watchers."""
    async with sip_agent(private_address()) as phone:
        asking = request_octets("REGISTER", "sip:hosted.test", sender=EVA, recipient=EVA, via=phone.via)
        challenged = await phone.exchange(asking, gateway.udp)
        challenge = choose_challenge(challenged.headers.get_all("WWW-Authenticate"))
        assert challenge is not None
        numbers = itertools.count(1)

        def sign(method: str, uri: str) -> str:
            value = build_authorization(
                challenge, username="eva", password=PASSWORD, method=method, uri=uri, cnonce="c", nc=next(numbers)
            )
            return f"Authorization: {value}"

        damage = Damage(SEED + 6, partial(valid_requests, phone.via, EVA, sign), torture=0.0)
        statuses: Counter[int] = Counter()
        for number, data in enumerate(damage.messages(cases(1_000))):
            phone.send(data, gateway.udp)
            if number % 25 == 24:
                await phone.is_served(gateway.udp)
                statuses.update(response.status for response in phone.responses)
                phone.responses.clear()
                phone.requests.clear()
    assert statuses[200] > cases(1_000) / 20  # the proofs are good: damage got to where it could hurt
    assert xmpp.faults == []
    gateway.assert_unharmed()


async def test_damaged_messages_on_connections_are_survived_in_any_cut(
    gateway: Gateway, agent: SipAgent, xmpp: XmppNeighbour
) -> None:
    damage = Damage(SEED + 1, partial(valid_requests, agent.via.replace("UDP", "TCP")))
    messages = list(damage.messages(cases(1_200)))
    workers = 4

    async def speak(mine: list[bytes]) -> None:
        while mine:
            reader, writer = await asyncio.open_connection(*gateway.udp, local_addr=(agent.host, 0))
            draining = asyncio.create_task(_drain(reader))
            with contextlib.suppress(OSError):
                for _ in range(20):
                    for chunk in damage.chunks(mine.pop()) if mine else ():
                        writer.write(chunk)
                        await writer.drain()
                        await asyncio.sleep(0)
                    if draining.done():
                        break
            writer.transport.abort()
            await draining

    await asyncio.gather(*(speak(messages[start::workers]) for start in range(workers)))
    await agent.is_served(gateway.udp)
    reader, writer = await asyncio.open_connection(*gateway.udp)
    writer.write(request_octets("OPTIONS", "sip:corp.test", via="TCP 127.0.0.1:5060"))
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 15)).startswith(b"SIP/2.0 200")
    writer.close()
    assert xmpp.faults == []
    gateway.assert_unharmed()


async def _drain(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(65_536):
            pass


async def test_damaged_messages_over_websocket_are_survived(gateway: Gateway, xmpp: XmppNeighbour) -> None:
    damage = Damage(SEED + 2, partial(valid_requests, "WS df7jal23ls0d.invalid"))
    messages = list(damage.messages(cases(600)))
    while messages:
        with contextlib.suppress(WebSocketException, OSError):
            url = f"ws://127.0.0.1:{gateway.ports['ws']}/"
            async with connect(url, subprotocols=[Subprotocol("sip")], max_queue=None) as browser:
                for _ in range(25):
                    data = messages.pop() if messages else b"\r\n\r\n"
                    try:
                        await browser.send(data.decode())
                    except UnicodeDecodeError:
                        await browser.send(data)
                    if len(data) % 7 == 0:
                        await browser.send(list(damage.chunks(data)))
    assert xmpp.faults == []
    gateway.assert_unharmed()


async def test_damaged_websocket_frames_and_handshakes_are_survived(gateway: Gateway) -> None:
    chance = random.Random(SEED + 3)
    shake = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: sip\r\n\r\n"
    )
    damage = Damage(SEED + 4, list)
    for number in range(cases(200)):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["ws"])
        if number % 2:
            writer.write(shake)
            with contextlib.suppress(asyncio.IncompleteReadError):
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
            writer.write(chance.randbytes(chance.choice((1, 2, 10, 300))))
        else:
            writer.write(damage.damaged(shake, [shake]))
        writer.write_eof()
        with contextlib.suppress(OSError):
            await asyncio.wait_for(reader.read(), 15)
        writer.close()
    gateway.assert_unharmed()


async def _is_idle(gateway: Gateway) -> bool:
    return await gateway.transactions() == 0


# What somebody says who only wants to hold a connection, by the listener it is said to.
LORISES = {
    "nothing on TCP": ("tcp", b""),
    "half a header on TCP": ("tcp", b"OPTIONS sip:corp.test SIP/2.0\r\nVia: SIP/2.0/TCP x\r\nFrom"),
    "half a body on TCP": ("tcp", b"MESSAGE sip:corp.test SIP/2.0\r\nContent-Length: 1000\r\n\r\nhello"),
    "nothing on TLS": ("tls", b""),
    "half a handshake on TLS": ("tls", bytes.fromhex("160301020001")),
    "nothing on WebSocket": ("ws", b""),
    "half a handshake on WebSocket": ("ws", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgr"),
}


async def hold(port: int, said: bytes) -> None:
    """Say it, then one octet a second, and return when the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(OSError):
        writer.write(said)
        while True:
            try:
                async with asyncio.timeout(1.0):
                    if not await reader.read(1_000):
                        break
            except TimeoutError:
                if said:
                    writer.write(b"x")
    writer.close()


async def test_nothing_is_left_of_all_the_damage(gateway: Gateway, agent: SipAgent) -> None:
    """A second helping, with other seeds, needs no more memory than the first, and everything ends by itself.

    Meanwhile others hold connections and say next to nothing (slow loris): they lose them.
    """
    before, sockets = gateway.resident_megabytes, gateway.sockets
    lorises = [
        asyncio.create_task(hold(gateway.ports[name], said)) for name, said in LORISES.values() for _ in range(20)
    ]
    await wait_until(lambda: gateway.sockets >= sockets + len(lorises), "all connections to be held")
    damage = Damage(SEED + 5, partial(valid_requests, agent.via))
    for number, data in enumerate(damage.messages(cases(2_000))):
        agent.send(data, gateway.udp)
        if number % 50 == 49:
            await agent.is_served(gateway.udp)
            agent.responses.clear()
    after = gateway.resident_megabytes
    print(f"{before:.0f} MB before, {after:.0f} MB after {cases(2_000)} more")
    assert after - before < GROWTH_MEGABYTES * max(1.0, FACTOR)
    # A call that nobody answers rings for a minute; 64*T1 for what waits for retransmissions, and once more for
    # requests of ours that these caused.
    await wait_until(partial(_is_idle, gateway), "all transactions to end", 150)
    await asyncio.wait_for(asyncio.gather(*lorises), 60)
    # Listeners for UDP, TCP, TLS, WebSocket, metrics and control, two component streams, the loop's own pair, and the
    # connection of the last look at the metrics.
    assert gateway.sockets <= 12
    await agent.is_served(gateway.udp)
    gateway.assert_unharmed()
    assert await gateway.stop() == 0
