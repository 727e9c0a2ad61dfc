"""RFC 4475 and RFC 5118 against a running server, on UDP and TCP, octet for octet: the answers of STANDARDS 3.10.

The sender is a neighbour: the domains of most torture messages are routed to it, so that they are answered for what
they are and not for who sent them. example.com is hosted. Answers over UDP come to the sent-by port of the message's
own Via, so the agent binds that port on an address of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from isthmus.errors import SipParseError
from isthmus.sip.message import SipResponse
from isthmus.sip.parser import BadMessage, StreamParser, parse_message
from tests.support.faults.gateway import PASSWORD, Gateway, hosted, routed
from tests.support.faults.sip_agent import private_address, request_octets, sip_agent
from tests.support.faults.xmpp_neighbour import xmpp_neighbour

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = Path(__file__).parents[1] / "messages"
USERS = ("watson", "j.user", "user", "fluffy")
SILENCE = 0

# What a server behind this configuration answers over UDP. 401: process normally, but first say who you are;
# 480: a call processed normally, to somebody who has no device.
ANSWERS = {
    "badaspec": 400,
    "badbranch": 400,
    "baddate": 480,
    "baddn": 400,
    "badinv01": 400,
    "badvers": 505,
    "bcast": SILENCE,
    "bext01": 420,
    "bigcode": SILENCE,
    "clerr": 400,
    "cparam01": 401,
    "cparam02": 401,
    "dblreq": 401,
    "esc01": 488,  # the neighbour takes the call, without any media
    "esc02": 501,
    "escnull": 401,
    "escruri": 400,
    "insuf": 400,
    "intmeth": 501,
    "inv2543": 480,
    "invut": 415,
    "longreq": 480,
    "ltgtruri": 400,
    "lwsdisp": 200,
    "lwsruri": 400,
    "lwsstart": 400,
    "mcl01": 400,
    "mismatch01": 400,
    "mismatch02": 400,
    "mpart01": 401,
    "multi01": 400,
    "ncl": 400,
    "noreason": SILENCE,
    "novelsc": 416,
    "quotbal": 400,
    "regaut01": 401,
    "regbadct": 400,
    "regescrt": 401,
    "scalar02": 400,
    "scalarlg": SILENCE,
    "sdp01": 406,
    "semiuri": 200,
    "transports": 200,
    "trws": 400,
    "unkscm": 416,
    "unksm2": 400,
    "unreason": SILENCE,
    "wsinv": 481,
    "zeromf": 200,
    # RFC 5118
    "ipv4-mapped-ipv6": 480,
    "ipv6-bad": 400,
    "ipv6-bug-abnf-3-colons": 200,
    "ipv6-correct-abnf-2-colons": 200,
    "ipv6-good": 401,
    "ipv6-in-sdp": 401,
    "mult-ip-in-header": 481,
    "mult-ip-in-sdp": 401,
    "port-ambiguous": 401,
    "port-unambiguous": 401,
    "via-received-param-no-delim": 200,
    "via-received-param-with-delim": 481,
}

# On a connection the length matters: these wait for more octets (clerr, baddn), hold two requests (dblreq), or hide
# where the next message begins, which ends the connection.
STREAM_ANSWERS = {
    **{name: [status] if status else [] for name, status in ANSWERS.items()},
    "clerr": [],
    "baddn": [],
    "dblreq": [401, 488],
    "esc01": [480],  # nobody listens where its callee should be
    "inv2543": [400],
}
CLOSES = {"mcl01", "ncl", "inv2543", "dblreq"}

# Header fields that an answer of this status must carry, and what they say.
EXPLANATIONS = {
    401: ("WWW-Authenticate", 'realm="example.com"'),
    406: ("Warning", "399"),
    415: ("Accept", "application/sdp"),
    420: ("Unsupported", "nothingSupportsThis, nothingSupportsThisEither"),
    501: ("Allow", "OPTIONS"),
}


# These repeat branch and sent-by of another one: to a server they would be one transaction (section 17.2.3).
SHARES_TRANSACTION = {"cparam02", "regescrt", "unkscm", "ipv6-good", "port-ambiguous", "port-unambiguous"} | {
    "ipv6-correct-abnf-2-colons"
}


def octets(name: str) -> bytes:
    data = next(MESSAGES.glob(f"*/{name}.dat")).read_bytes()
    if name in SHARES_TRANSACTION:
        data = re.sub(rb"(branch=z9hG4bK[^;\r]*|Call-ID: [^\r]*)", rb"\1-" + name.encode(), data)
    return data


def call_id_of(data: bytes) -> str | None:
    """Read by hand: what is malformed is answered as it was written."""
    found = re.search(rb"(?im)^(?:call-id|i)[ \t]*:\s*(.*?)\s*$", data)
    return found[1].decode() if found else None


def sent_by_port(data: bytes) -> int:
    """The port that answers over UDP go to."""
    try:
        message = parse_message(data)
    except BadMessage as error:
        if error.partial is None:
            return 5060
        message = error.partial
    try:
        return message.top_via.port or 5060
    except SipParseError:
        return 5060  # badinv01, badvers: the Via itself is what is wrong


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbour_address() -> str:
    return private_address()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(
    tmp_path_factory: pytest.TempPathFactory, neighbour_address: str
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """One for UDP, one for TCP: the same request on another transport would be a retransmission (section 17.2.3)."""
    folder = tmp_path_factory.mktemp("torture")
    names = ("example.net", "example.org", "ift.client.example.net", "east.example.com")
    domains = [hosted("example.com"), *(routed(name, neighbour_address, 5060) for name in names)]
    async with xmpp_neighbour() as xmpp:
        made = [Gateway(folder / name, xmpp.port, *domains) for name in ("udp", "tcp")]
        for one in made:
            one.configuration.write_text(one.configuration.read_text() + "[limits]\nunauthenticated_per_second = 0\n")
        try:
            await asyncio.gather(*(one.start() for one in made))
            await made[0].add_users(*(f"{user}@example.com" for user in USERS))
            yield made[0], made[1]
        finally:
            await asyncio.gather(*(one.stop() for one in made))


async def test_every_message_has_an_answer_to_expect() -> None:
    assert {path.stem for path in MESSAGES.glob("*/*.dat")} == set(ANSWERS)
    assert len(list((MESSAGES / "rfc4475").glob("*.dat"))) == 49


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_torture_datagram_gets_its_answer_and_the_server_goes_on(
    gateways: tuple[Gateway, Gateway], neighbour_address: str, name: str
) -> None:
    server = gateways[0]
    data = octets(name)
    async with sip_agent(neighbour_address, sent_by_port(data)) as agent:
        agent.send(data, server.udp)
        if ANSWERS[name]:
            response = await agent.response(lambda response: response.status >= 200)
            assert response.status == ANSWERS[name], response.reason
            assert response.headers.get("Call-ID") == call_id_of(data)
            header, saying = EXPLANATIONS.get(response.status, ("", ""))
            assert saying in (response.headers.get(header) or "")
        # Datagrams of one socket are worked off in order: when the probe is answered, silence was the answer.
        await agent.is_served(server.udp)
        assert [found for found in agent.responses if found.status >= 200] == []
        assert agent.unreadable == []
    server.assert_unharmed()


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_torture_message_on_a_connection_gets_its_answer_and_the_server_goes_on(
    gateways: tuple[Gateway, Gateway], neighbour_address: str, name: str
) -> None:
    server = gateways[1]
    wanted = STREAM_ANSWERS[name]
    reader, writer = await asyncio.open_connection(*server.udp, local_addr=(neighbour_address, 0))
    writer.write(octets(name))
    probe = request_octets("OPTIONS", "sip:example.com", via="TCP 127.0.0.1:5060")
    swallows = name in ("clerr", "baddn")
    if name not in CLOSES and not swallows:
        writer.write(probe)
        wanted = [*wanted, 200]
    parser = StreamParser()
    got: list[int] = []
    is_closed = False
    while (len(got) < len(wanted) or name in CLOSES) and not is_closed:
        found = await asyncio.wait_for(reader.read(65_536), 15)
        for item in parser.feed(found):
            assert isinstance(item, SipResponse)
            if item.status >= 200:
                got.append(item.status)
        is_closed = not found
    # A call is answered by whom it is for, so what came after it may be answered before.
    assert sorted(got) == sorted(wanted) if name == "esc01" else got == wanted
    assert is_closed == (name in CLOSES)
    async with sip_agent(neighbour_address) as agent:
        await agent.is_served(server.udp)
    if swallows:
        assert not reader.at_eof()
    writer.close()
    server.assert_unharmed()


CONTACTS = {
    "cparam01": ("watson", "<sip:+19725552222@gw1.example.net>;unknownparam"),
    "cparam02": ("watson", "<sip:+19725552222@gw1.example.net;unknownparam>"),
    "regescrt": ("user", "<sip:user@example.com?Route=%3Csip:sip.example.com%3E>"),
    "dblreq": ("j.user", "<sip:j.user@host.example.com>"),
}


@pytest.mark.parametrize("name", CONTACTS)
async def test_a_registration_of_the_set_is_kept_exactly_as_it_was_written(
    gateways: tuple[Gateway, Gateway], neighbour_address: str, name: str
) -> None:
    server = gateways[0]
    user, contact = CONTACTS[name]
    data = octets(name)
    async with sip_agent(neighbour_address, sent_by_port(data)) as agent:
        _, response = await agent.authenticated(data, server.udp, user, PASSWORD)
    assert response.status == 200
    assert any(value.startswith(contact) for value in response.headers.get_list("Contact")), response.to_bytes()
    assert not any("Route" in header for header, _ in response.headers.items())
    server.assert_unharmed()


async def test_an_overlarge_expiry_is_an_hour(gateways: tuple[Gateway, Gateway]) -> None:
    data = octets("scalar02").replace(b"36893488147419103232 REGISTER", b"7 REGISTER")
    data = data.replace(b"Max-Forwards: 300", b"Max-Forwards: 70")
    async with sip_agent(private_address(), sent_by_port(data)) as agent:
        _, response = await agent.authenticated(data, gateways[0].udp, "user", PASSWORD)
    assert response.status == 200
    contacts = [value for value in response.headers.get_list("Contact") if "host129" in value]
    assert len(contacts) == 1
    assert "expires=3600" in contacts[0]


async def test_a_multipart_message_of_a_proven_sender_is_processed(
    gateways: tuple[Gateway, Gateway], neighbour_address: str
) -> None:
    data = octets("mpart01")
    async with sip_agent(neighbour_address, sent_by_port(data)) as agent:
        _, response = await agent.authenticated(data, gateways[0].udp, "fluffy", PASSWORD)
    assert response.status == 202
    gateways[0].assert_unharmed()
