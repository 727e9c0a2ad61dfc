"""People who want to know who works here, and people who flood: against a running server (edge case 46)."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections import Counter
from xml.etree.ElementTree import Element

import pytest

from tests.faults.conftest import Siege
from tests.support.faults.gateway import PASSWORD, Gateway
from tests.support.faults.phone import phone
from tests.support.faults.sip_agent import SipAgent, private_address, request_octets, sip_agent
from tests.support.faults.xmpp_neighbour import ACCEPT, PRESENCE, XmppNeighbour
from tests.support.processes import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANA, EVA = "ana@corp.test", "eva@corp.test"
BEN = "ben@people.test"


@pytest.fixture(scope="module")
def gateway(siege: Siege) -> Gateway:
    return siege.gateway


@pytest.fixture(scope="module")
def xmpp(siege: Siege) -> XmppNeighbour:
    return siege.xmpp


# --- edge case 46: who works here? ---

_VARIABLE = re.compile(rb'(nonce="[^"]*"|tag=[^;\r]*|branch=[^;\r]*|Call-ID: [^\r]*|rport=\d+|opaque="[^"]*")')


@pytest.mark.parametrize(
    ("method", "headers", "is_sender"),
    [
        *(("OPTIONS", (), is_sender) for is_sender in (True, False)),
        *(("MESSAGE", (), is_sender) for is_sender in (True, False)),
        *(("REGISTER", (), is_sender) for is_sender in (True, False)),
        *(("INVITE", (), is_sender) for is_sender in (True, False)),
        *(("PUBLISH", ("Event: presence",), is_sender) for is_sender in (True, False)),
        *(("SUBSCRIBE", ("Event: presence", "Contact: <sip:x@y>"), is_sender) for is_sender in (True, False)),
    ],
)
async def test_edge_case_46_a_stranger_on_sip_hears_the_same_about_everybody(
    gateway: Gateway, stranger: SipAgent, method: str, headers: tuple[str, ...], is_sender: bool
) -> None:
    """Octet for octet, but for the name itself; and with a password that is wrong as well."""
    heard = []
    for name in ("ana", "zoe"):
        person = f"{name}@corp.test"
        uri = "sip:corp.test" if method == "REGISTER" else f"sip:{BEN if is_sender else person}"
        sender = person if is_sender else "x@elsewhere.test"
        wrong = (
            f'Authorization: Digest username="{name}", realm="corp.test", nonce="0", uri="{uri}", '
            f'response="{"0" * 64}", algorithm=SHA-256, qop=auth, nc=00000001, cnonce="1"',
        )
        answers = []
        for proof in ((), wrong):
            data = request_octets(
                method, uri, sender=sender, recipient=person, via=stranger.via, headers=(*headers, *proof)
            )
            response = (await stranger.exchange(data, gateway.udp)).to_bytes()
            answers.append(_VARIABLE.sub(b"", response).replace(name.encode(), b"NAME"))
        heard.append(answers)
    assert heard[0] == heard[1]


async def test_edge_case_46_wrong_passwords_take_as_long_for_those_who_do_not_exist(gateway: Gateway) -> None:
    """Interleaved, so that the machine's load falls on both; the class of time is what counts, not microseconds."""
    spent: dict[str, list[float]] = {"ana": [], "zoe": []}
    async with phone(gateway, ANA, "wrong") as ana, phone(gateway, "zoe@corp.test", "wrong") as zoe:
        for one in (ana, zoe):
            challenge = await one.agent.exchange(
                request_octets(
                    "REGISTER", "sip:corp.test", sender=one.address, recipient=one.address, via=one.agent.via
                ),
                gateway.udp,
            )
            one.take_challenge(challenge)
        for _ in range(40):
            for one in (ana, zoe):
                proof = one.proof("REGISTER", "sip:corp.test")
                data = request_octets(
                    "REGISTER",
                    "sip:corp.test",
                    sender=one.address,
                    recipient=one.address,
                    via=one.agent.via,
                    headers=proof,
                )
                began = time.perf_counter()
                await one.agent.exchange(data, gateway.udp)
                spent[one.address.partition("@")[0]].append(time.perf_counter() - began)
    assert abs(statistics.median(spent["ana"]) - statistics.median(spent["zoe"])) < 0.01


QUERIES = {
    "profile": "<vCard xmlns='vcard-temp'/>",
    "idle time": "<query xmlns='jabber:iq:last'/>",
    "features": "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    "devices": "<query xmlns='http://jabber.org/protocol/disco#items'/>",
    "version": "<query xmlns='jabber:iq:version'/>",
    "ping": "<ping xmlns='urn:xmpp:ping'/>",
}


@pytest.mark.parametrize("what", QUERIES)
@pytest.mark.parametrize("resource", ["", "/phone"])
async def test_edge_case_46_a_stranger_on_xmpp_hears_the_same_about_everybody(
    gateway: Gateway, xmpp: XmppNeighbour, what: str, resource: str
) -> None:
    async with phone(gateway, ANA, PASSWORD) as ana:
        await ana.register()  # she exists, she is there; and nobody shall know
        heard = []
        for name in ("ana", "zoe"):
            number = f"ask-{what.replace(' ', '-')}-{len(resource)}-{name}"
            addresses = f"from='spy@elsewhere.test/x' to='{name}@corp.test{resource}'"
            xmpp.send("corp.test", f"<iq type='get' id='{number}' {addresses}>{QUERIES[what]}</iq>")
            answer = await xmpp.expect(lambda stanza, number=number: stanza.get("id") == number, "an answer")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            heard.append([*[(part.tag, part.attrib, part.text) for part in answer.iter()][1:], answer.get("type")])
        await ana.register(expires_seconds=0)
    assert heard[0] == heard[1]


async def test_edge_case_46_a_probe_of_a_stranger_is_answered_alike(gateway: Gateway, xmpp: XmppNeighbour) -> None:
    async with phone(gateway, ANA, PASSWORD) as ana:
        await ana.register()
        for name in ("ana", "zoe"):
            probe = f"<presence type='probe' from='spy@elsewhere.test' to='{name}@corp.test'/>"
            xmpp.send("corp.test", probe)
        await xmpp.ping("corp.test")
        await ana.register(expires_seconds=0)
    heard: dict[str, list[tuple[str | None, list[str]]]] = {"ana": [], "zoe": []}
    for stanza in xmpp.received:
        if stanza.tag == PRESENCE and stanza.get("to", "").startswith("spy@elsewhere.test"):
            name = stanza.get("from", "").partition("@")[0]
            heard[name].append((stanza.get("type"), [part.tag for part in stanza]))
    assert heard["ana"] == heard["zoe"]


def _condition(stanza: Element) -> str:
    error = stanza.find(f"{{{ACCEPT}}}error")
    assert error is not None, stanza.attrib
    return error[0].tag.partition("}")[2]


async def test_edge_case_46_an_unknown_partner_may_write_slowly_and_address_few_people(
    gateway: Gateway, xmpp: XmppNeighbour
) -> None:
    """Both bounds of a discovered domain are told to the sender, and our own domain is not held up by them."""
    write = "<message type='chat' id='{0}-{1}' from='x{1}@{0}/x' to='{2}'><body>buy this</body></message>"
    for number in range(200):
        xmpp.send("corp.test", write.format("flooding.test", number, ANA))
    for number in range(12):  # guesses names, within the rate
        xmpp.send("corp.test", write.format("guessing.test", number, f"person{number}@corp.test"))
    xmpp.send("corp.test", write.format("people.test", 1, ANA))
    await xmpp.ping("corp.test")
    found = {domain: Counter[str]() for domain in ("flooding.test", "guessing.test", "people.test")}
    for stanza in xmpp.received:
        domain = stanza.get("id", "").rpartition("-")[0]
        if domain in found:
            found[domain][_condition(stanza)] += 1
    assert set(found["flooding.test"]) == {"resource-constraint"}
    assert 100 <= found["flooding.test"]["resource-constraint"] <= 180  # 20 at once, and 20 a second from then on
    assert found["guessing.test"] == {"recipient-unavailable": 5, "policy-violation": 7}
    assert not found["people.test"]
    explained = await gateway.cli("explain", ANA, "x199@flooding.test")
    assert "domain.discovered.rate" in explained or "not yet listed" in explained


# --- floods ---


async def test_a_flood_from_one_source_is_limited_and_others_are_served(gateway: Gateway, stranger: SipAgent) -> None:
    before = (await gateway.metrics()).get('isthmus_rate_limited_total{scope="limit.source"}', 0)
    count = 600
    for _ in range(count):
        data = request_octets("REGISTER", "sip:corp.test", sender=ANA, recipient=ANA, via=stranger.via)
        stranger.send(data, gateway.udp)
    async with phone(gateway, EVA, PASSWORD) as eva:
        began = time.perf_counter()
        await eva.register()
        assert time.perf_counter() - began < 5
        await eva.register(expires_seconds=0)

    async def all_are_answered() -> bool:
        return len(stranger.responses) >= count

    await wait_until(all_are_answered, "every request to be answered", 20)
    answers = Counter(response.status for response in stranger.responses)
    assert set(answers) == {401, 503}
    assert answers[401] <= 400  # the burst of 200, and 50 a second while this lasts
    assert all(response.headers.get("Retry-After") for response in stranger.responses if response.status == 503)
    assert (await gateway.metrics())['isthmus_rate_limited_total{scope="limit.source"}'] - before == answers[503]


async def test_a_flooding_consumer_is_slowed_down_and_others_are_heard(gateway: Gateway, xmpp: XmppNeighbour) -> None:
    for number in range(400):
        people = f"from='flood@people.test/x' to='{EVA}'"
        xmpp.send("corp.test", f"<message type='chat' id='flood-{number}' {people}><body>!</body></message>")
    xmpp.send("corp.test", f"<message type='chat' id='calm' from='{BEN}/x' to='{EVA}'><body>hello</body></message>")
    await xmpp.ping("corp.test")
    refused = [stanza for stanza in xmpp.received if stanza.get("id", "").startswith("flood-")]
    assert 200 <= len(refused) <= 300  # a burst of 100, and 20 a second while this lasts
    assert all(stanza.get("type") == "error" for stanza in refused)
    assert {part.get("type") for stanza in refused for part in stanza.iter(f"{{{ACCEPT}}}error")} == {"wait"}
    async with phone(gateway, EVA, PASSWORD) as eva:
        await eva.register()
        await eva.agent.expect_request(lambda request: request.body == b"hello", 30)
        await eva.register(expires_seconds=0)


async def test_scanners_hear_nothing(gateway: Gateway, stranger: SipAgent) -> None:
    for agent in ("friendly-scanner", "sipvicious/0.3", "sipcli/v1.8"):
        data = request_octets("OPTIONS", "sip:100@127.0.0.1", via=stranger.via, headers=(f"User-Agent: {agent}",))
        stranger.send(data, gateway.udp)
    await stranger.is_served(gateway.udp)
    assert stranger.responses == []


async def test_many_strangers_at_once_do_not_keep_a_phone_waiting(gateway: Gateway) -> None:
    """Fifty sources, each within its own limit: what is cheap for us stays cheap for others."""

    async def knock() -> None:
        async with sip_agent(private_address()) as one:
            for _ in range(20):
                one.send(request_octets("OPTIONS", "sip:corp.test", via=one.via), gateway.udp)
            await one.is_served(gateway.udp, 30)

    async with phone(gateway, EVA, PASSWORD) as eva:
        knocking = asyncio.gather(*(knock() for _ in range(50)))
        await eva.register()
        await eva.register(expires_seconds=0)
        await knocking
