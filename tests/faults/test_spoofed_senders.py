"""People who are not who they say, who say nothing about it, and who guess: against a running server (edge case 43)."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Siege
from tests.support.faults.gateway import PASSWORD, Gateway
from tests.support.faults.phone import phone
from tests.support.faults.sip_agent import SipAgent, private_address, request_octets, sip_agent
from tests.support.faults.xmpp_neighbour import ACCEPT, MESSAGE, XmppNeighbour
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


@pytest.fixture(scope="module")
def pbx(siege: Siege) -> SipAgent:
    return siege.pbx


async def texts_of(gateway: Gateway, xmpp: XmppNeighbour) -> list[str]:
    """Every text that reached the XMPP server, after a proven one has (which is not among them)."""
    xmpp_before = len(xmpp.received)
    async with phone(gateway, ANA, PASSWORD) as ana:
        assert (await ana.say(BEN, "the proven one")).status == 202
    await xmpp.expect(
        lambda stanza: (
            stanza in xmpp.received[xmpp_before:] and stanza.findtext(f"{{{ACCEPT}}}body") == "the proven one"
        ),
        "the proven message",
    )
    texts = [stanza.findtext(f"{{{ACCEPT}}}body", "") for stanza in xmpp.received if stanza.tag == MESSAGE]
    return [text for text in texts if text != "the proven one"]


# --- edge case 43: who says they are somebody else ---


@pytest.mark.parametrize(
    ("claimed", "status"),
    [
        (ANA, 401),  # a user of ours: show the password
        ("joe@pbx.test", 403),  # somebody behind a neighbour, from another address
        (BEN, 403),  # a consumer, who comes over XMPP and never over SIP
        ("mallory@elsewhere.test", 403),
        ("isthmus@corp.test", 401),  # our own voice
    ],
)
async def test_edge_case_43_a_spoofed_from_is_not_believed(
    gateway: Gateway, xmpp: XmppNeighbour, stranger: SipAgent, claimed: str, status: int
) -> None:
    before = sum(value for name, value in (await gateway.metrics()).items() if "authentication_failures" in name)
    for recipient in (BEN, EVA):
        identity = ("P-Asserted-Identity: <sip:ana@corp.test>", "Remote-Party-ID: <sip:ana@corp.test>;privacy=off")
        data = request_octets(
            "MESSAGE", f"sip:{recipient}", sender=claimed, via=stranger.via, body=b"believe me", headers=identity
        )
        assert (await stranger.exchange(data, gateway.udp)).status == status
    assert "believe me" not in await texts_of(gateway, xmpp)
    if status == 403:  # the administrator sees who was not believed, and why
        assert "cannot be proven" in await gateway.cli("explain", claimed, EVA if claimed == BEN else BEN)
    after = sum(value for name, value in (await gateway.metrics()).items() if "authentication_failures" in name)
    assert (after > before) == (status == 403)  # asking for the password first is no failure yet


async def test_edge_case_43_a_neighbour_speaks_only_for_its_own_domain(
    gateway: Gateway, xmpp: XmppNeighbour, pbx: SipAgent
) -> None:
    for claimed, status in ((ANA, 401), (BEN, 403), ("x@elsewhere.test", 403), ("joe@pbx.test", 202)):
        data = request_octets("MESSAGE", f"sip:{BEN}", sender=claimed, via=pbx.via, body=b"from " + claimed.encode())
        assert (await pbx.exchange(data, gateway.udp)).status == status
    await texts_of(gateway, xmpp)
    found = [stanza.findtext(f"{{{ACCEPT}}}body", "") for stanza in xmpp.received if stanza.tag == MESSAGE]
    assert [text for text in found if text.startswith("from ")] == ["from joe@pbx.test"]


async def test_edge_case_43_a_signed_in_user_cannot_be_a_colleague(gateway: Gateway, xmpp: XmppNeighbour) -> None:
    async with phone(gateway, EVA, PASSWORD) as eva:
        refused = await eva.request("MESSAGE", f"sip:{BEN}", body=b"I am ana", sender=ANA)
        assert (refused.status, refused.reason) == (403, "From is not the authenticated user")
        contact = f"Contact: <sip:eva@{eva.agent.host}:{eva.agent.port}>"
        stolen = await eva.request("REGISTER", "sip:corp.test", contact, "Expires: 600", sender=ANA, recipient=ANA)
        assert stolen.status == 403
        assert (await eva.request("PUBLISH", f"sip:{ANA}", "Event: presence", "Expires: 600")).status == 403
    assert "I am ana" not in await texts_of(gateway, xmpp)
    assert (await gateway.metrics())["isthmus_registrations"] == 0


@pytest.mark.parametrize("field", ["From", "To", "f", "t", "Call-ID", "CSeq", "Max-Forwards", "Content-Type"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_edge_case_43_doubled_header_fields_are_refused_whichever_comes_first(
    gateway: Gateway, xmpp: XmppNeighbour, pbx: SipAgent, field: str, is_first: bool
) -> None:
    values = {"From": "<sip:ana@corp.test>;tag=2", "To": "<sip:eva@corp.test>", "Call-ID": "other", "CSeq": "2 MESSAGE"}
    value = {**values, "f": values["From"], "t": values["To"], "Max-Forwards": "70"}.get(field, "text/html")
    data = request_octets("MESSAGE", f"sip:{BEN}", sender="joe@pbx.test", via=pbx.via, body=b"which one?")
    line = f"{field}: {value}\r\n".encode()
    start, _, rest = data.partition(b"\r\n")
    doubled = start + b"\r\n" + line + rest if is_first else data.replace(b"Content-Length", line + b"Content-Length")
    pbx.responses.clear()
    pbx.send(doubled, gateway.udp)
    assert (await pbx.response(lambda response: True)).status == 400
    assert "which one?" not in await texts_of(gateway, xmpp)


# --- who says nothing about who they are ---


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("MESSAGE", ()),
        ("SUBSCRIBE", ("Event: presence", "Expires: 600", "Contact: <sip:x@127.0.0.1>")),
        ("SUBSCRIBE", ("Event: presence.winfo", "Expires: 600", "Contact: <sip:x@127.0.0.1>")),
        ("PUBLISH", ("Event: presence", "Expires: 600")),
        ("REGISTER", ("Contact: <sip:x@127.0.0.1>", "Expires: 600")),
        ("REGISTER", ("Contact: *", "Expires: 0")),
        ("REGISTER", ()),
        ("NOTIFY", ("Event: presence", "Subscription-State: active", "Contact: <sip:x@127.0.0.1>")),
        ("INVITE", ("Contact: <sip:x@127.0.0.1>",)),
    ],
)
async def test_without_a_password_there_is_only_the_question_for_it(
    gateway: Gateway, xmpp: XmppNeighbour, stranger: SipAgent, method: str, headers: tuple[str, ...]
) -> None:
    uri = "sip:corp.test" if method == "REGISTER" else f"sip:{BEN}"
    data = request_octets(method, uri, sender=ANA, recipient=ANA, via=stranger.via, headers=headers)
    response = await stranger.exchange(data, gateway.udp)
    assert response.status == 401
    challenges = response.headers.get_all("WWW-Authenticate")
    assert challenges
    assert 'realm="corp.test"' in challenges[0]
    assert "algorithm=SHA-256" in challenges[0]
    assert response.body == b""
    metrics = await gateway.metrics()
    assert metrics["isthmus_registrations"] == metrics["isthmus_subscriptions"] == 0


async def test_guessing_passwords_is_locked_out_where_it_comes_from_and_nowhere_else(gateway: Gateway) -> None:
    async with phone(gateway, ANA, PASSWORD) as guesser, phone(gateway, ANA, PASSWORD) as ana:
        challenge = await guesser.agent.exchange(
            request_octets("REGISTER", "sip:corp.test", sender=ANA, recipient=ANA, via=guesser.agent.via), gateway.udp
        )

        async def attempt(password: str) -> tuple[int, int]:
            guesser.take_challenge(challenge)
            proof = guesser.proof("REGISTER", "sip:corp.test", password=password, nc=next(counts))
            data = request_octets(
                "REGISTER", "sip:corp.test", sender=ANA, recipient=ANA, via=guesser.agent.via, headers=proof
            )
            response = await guesser.agent.exchange(data, gateway.udp)
            return response.status, int(response.headers.get("Retry-After") or 0)

        counts = iter(range(1, 100))
        assert [(await attempt(f"guess-{number}"))[0] for number in range(5)] == [401] * 5
        status, wait = await attempt(PASSWORD)  # now the right one does not help either
        assert status == 403
        assert 1 <= wait <= 2
        assert (await ana.register()).status == 200  # her own phone does not notice

        async def is_let_in() -> bool:
            return (await attempt(PASSWORD))[0] == 200

        await wait_until(is_let_in, "the lock to end", 15)
        await ana.register(expires_seconds=0)


async def test_what_was_overheard_cannot_be_used_again(gateway: Gateway, xmpp: XmppNeighbour) -> None:
    async with phone(gateway, ANA, PASSWORD) as ana:
        assert (await ana.say(BEN, "first")).status == 202
        (proof,) = ana.proof("MESSAGE", f"sip:{BEN}")
        data = request_octets("MESSAGE", f"sip:{BEN}", sender=ANA, via=ana.agent.via, body=b"once", headers=(proof,))
        assert (await ana.agent.exchange(data, gateway.udp)).status == 202
        async with sip_agent(private_address()) as listener:
            for via in (ana.agent.via, listener.via):
                again = request_octets("MESSAGE", f"sip:{BEN}", sender=ANA, via=via, body=b"twice", headers=(proof,))
                response = await (listener if via == listener.via else ana.agent).exchange(again, gateway.udp)
                assert response.status == 401
                assert "stale=true" in (response.headers.get("WWW-Authenticate") or "").lower()
    found = await texts_of(gateway, xmpp)
    assert "once" in found
    assert "twice" not in found
