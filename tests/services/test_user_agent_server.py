"""RFC 3261 section 8.2 in order, and the server-level answers of the torture set (STANDARDS 3.10, 3.11)."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.errors import PayloadError
from isthmus.interworking.addresses import address_from_sip_uri
from isthmus.ports import Flow, IncomingRequest
from isthmus.services.authentication import Identity
from isthmus.sip.headers import NameAddr
from isthmus.sip.message import SipRequest
from isthmus.sip.parser import parse_message
from isthmus.sip.uri import SipUri
from tests.support.messaging_house import PBX, House, texts
from tests.support.sip import MemoryIncomingRequest, fields, message_request, sip_request
from tests.support.xmpp import settle

MESSAGES = Path(__file__).parents[1] / "messages" / "rfc4475"
STRANGER = Flow("udp", "203.0.113.66", 5060)


def torture(name: str) -> SipRequest:
    parsed = parse_message((MESSAGES / f"{name}.dat").read_bytes())
    assert isinstance(parsed, SipRequest)
    return parsed


async def ask(house: House, request: SipRequest, flow: Flow = STRANGER) -> MemoryIncomingRequest:
    incoming = house.endpoint.receive(request, flow)
    await settle()
    return incoming


@pytest.mark.parametrize(
    ("name", "status", "header"),
    [
        ("intmeth", 501, "Allow"),
        ("esc02", 501, "Allow"),
        ("bext01", 420, "Unsupported"),
        ("invut", 415, "Accept"),
        ("sdp01", 406, "Warning"),
        ("regaut01", 401, "WWW-Authenticate"),
        ("zeromf", 200, "Allow"),
        ("unkscm", 416, ""),
        ("novelsc", 416, ""),
        ("unksm2", 400, ""),
        ("mismatch01", 400, ""),
        ("multi01", 400, ""),
        ("dblreq", 401, "WWW-Authenticate"),
        ("escnull", 401, "WWW-Authenticate"),
        ("cparam01", 401, "WWW-Authenticate"),
    ],
)
async def test_a_torture_message_gets_its_answer(name: str, status: int, header: str) -> None:
    house = await House().open()
    incoming = await ask(house, torture(name))
    assert incoming.status == status
    assert not header or header in incoming.response.headers


@pytest.mark.parametrize(
    "name", ["wsinv", "esc01", "lwsdisp", "longreq", "semiuri", "transports", "mpart01", "inv2543"]
)
async def test_a_valid_torture_message_of_a_stranger_is_refused_and_nothing_breaks(name: str) -> None:
    house = await House().open()
    incoming = await ask(house, torture(name))
    assert incoming.status in ((481,) if name == "wsinv" else (401, 403, 200)), "wsinv names a dialog that is not ours"


@pytest.mark.parametrize("name", ["cparam01", "cparam02", "regescrt"])
async def test_contact_parameters_of_the_torture_set_come_back_in_their_places(name: str) -> None:
    house = await House().open()
    request = torture(name)
    uri = request.to_address.uri
    assert isinstance(uri, SipUri)
    incoming = MemoryIncomingRequest(request, STRANGER)
    await house.registrar.register(incoming, Identity(address_from_sip_uri(uri)[0], "user"))
    assert incoming.status == 200
    (asked,) = (NameAddr.parse(value) for value in fields(request, "Contact"))
    (listed,) = (NameAddr.parse(value) for value in fields(incoming.response, "Contact"))
    assert listed.uri == asked.uri
    assert [name for name, _ in listed.params if name != "expires"] == [
        name for name, _ in asked.params if name != "expires"
    ]


async def test_every_message_of_the_torture_set_is_survived() -> None:
    house = await House(unauthenticated_burst=1000).open()
    for path in sorted(MESSAGES.glob("*.dat")):
        try:
            parsed = parse_message(path.read_bytes())
        except Exception:
            continue
        if isinstance(parsed, SipRequest):
            await ask(house, parsed)


async def test_what_a_service_finds_malformed_is_the_peers_mistake_and_the_rest_is_ours() -> None:
    house = await House().open()

    async def later(incoming: IncomingRequest, identity: Identity) -> None:
        raise PayloadError("the document ends too early")

    def at_once(incoming: IncomingRequest, identity: Identity) -> None:
        raise ValueError("a mistake")

    house.server.serve("PUBLISH", later)
    house.server.serve("NOTIFY", at_once)
    sender, flow = "sip:pat@pbx.test", PBX
    published = await ask(house, sip_request("PUBLISH", "sip:pat@pbx.test", sender=sender), flow)
    assert (published.status, published.response.reason) == (400, "the document ends too early")
    assert (await ask(house, sip_request("NOTIFY", "sip:pat@pbx.test", sender=sender), flow)).status == 500


@pytest.mark.parametrize("method", ["BYE", "PRACK", "CANCEL", "UPDATE", "INFO", "REFER", "INVITE"])
async def test_what_belongs_to_a_dialog_that_does_not_exist_is_481(method: str) -> None:
    house = await House().open()
    request = sip_request(method, "sip:ana@corp.test", sender="sip:x@evil.test", recipient="<sip:ana@corp.test>;tag=1")
    assert (await ask(house, request)).status == 481


@pytest.mark.parametrize(("method", "status"), [("NOTIFY", 405), ("FROBNICATE", 501)])
async def test_methods_we_do_not_serve_are_told_with_those_we_do(method: str, status: int) -> None:
    house = await House().open()
    incoming = await ask(house, sip_request(method, "sip:ana@corp.test", sender="sip:x@evil.test"))
    assert incoming.status == status
    assert "MESSAGE" in (incoming.response.headers.get("Allow") or "")


@pytest.mark.parametrize("method", ["INFO", "UPDATE", "PRACK"])
async def test_what_only_makes_sense_within_a_dialog_is_481_outside_of_one(method: str) -> None:
    house = await House().open()
    assert (await ask(house, sip_request(method, "sip:ana@corp.test", sender="sip:x@evil.test"))).status == 481


async def test_nobody_is_called_because_a_refer_came_out_of_the_blue() -> None:
    house = await House().open()
    request = sip_request(
        "REFER", "sip:ana@corp.test", sender="sip:pat@pbx.test", headers=[("Refer-To", "<sip:ben@people.test>")]
    )
    assert (await ask(house, request, PBX)).status == 403
    assert house.taken() == []


async def test_an_extension_that_we_lack_is_named() -> None:
    house = await House().open()
    request = sip_request(
        "INVITE", "sip:ana@corp.test", sender="sip:pat@pbx.test", headers=[("Require", "100rel, precondition")]
    )
    incoming = await ask(house, request, PBX)
    assert incoming.status == 420
    assert incoming.response.headers.get("Unsupported") == "precondition"


async def test_a_call_is_told_that_calls_are_not_offered_yet() -> None:
    house = await House().open()
    incoming = await ask(house, sip_request("INVITE", "sip:ben@people.test", sender="sip:pat@pbx.test"), PBX)
    assert incoming.status == 480
    assert incoming.response.reason == "Calls are not offered yet"
    assert "Calls are not offered yet" in (incoming.response.headers.get("Warning") or "")


async def test_options_gets_a_short_answer_whoever_asks_for_whomever() -> None:
    house = await House().open()
    answers = []
    for user in ("ana", "zoe"):
        request = sip_request("OPTIONS", f"sip:{user}@corp.test", sender="sip:probe@evil.test")
        incoming = await ask(house, request)
        assert incoming.status == 200
        assert len(incoming.response.to_bytes()) < 700
        answers.append([name for name, _ in incoming.response.headers.items()])
    assert answers[0] == answers[1]
    assert "Allow" in answers[0]


async def test_sips_never_crosses() -> None:
    house = await House().open()
    request = sip_request("MESSAGE", "sips:ben@people.test", sender="sip:pat@pbx.test", body="x")
    assert (await ask(house, request, PBX)).status == 416
    request = sip_request(
        "MESSAGE", "sip:ben@people.test", sender="sip:pat@pbx.test", recipient="sips:ben@people.test", body="x"
    )
    incoming = await ask(house, request, PBX)
    assert incoming.status == 480
    assert "sips" in (incoming.response.headers.get("Warning") or "")


async def test_a_message_without_hops_left_goes_no_further() -> None:
    house = await House().open()
    request = sip_request("MESSAGE", "sip:ben@people.test", sender="sip:pat@pbx.test", body="x", max_forwards=0)
    assert (await ask(house, request, PBX)).status == 483


async def test_a_message_in_a_dialog_we_do_not_have_is_481() -> None:
    house = await House().open()
    request = sip_request(
        "MESSAGE", "sip:ben@people.test", sender="sip:pat@pbx.test", recipient="<sip:ben@people.test>;tag=5", body="x"
    )
    assert (await ask(house, request, PBX)).status == 481


async def test_scanners_hear_nothing() -> None:
    house = await House().open()
    request = sip_request(
        "OPTIONS", "sip:100@corp.test", sender="sip:100@1.1.1.1", headers=[("User-Agent", "friendly-scanner")]
    )
    assert (await ask(house, request)).status == 408, "which is never sent: the transaction ends in silence"


async def test_strangers_get_the_same_answer_for_known_and_unknown_people() -> None:
    """Edge case 46: contact enumeration."""
    house = await House().open()
    shapes = []
    for user in ("ana", "zoe"):
        incoming = await ask(house, message_request("mallory@evil.test", f"{user}@corp.test", "hello?"))
        names = [name for name, _ in incoming.response.headers.items()]
        shapes.append((incoming.status, incoming.response.reason, names))
    assert shapes[0] == shapes[1]


async def test_a_flood_from_one_source_is_slowed_and_neighbours_are_not() -> None:
    house = await House(unauthenticated_per_second=1, unauthenticated_burst=5).open()
    statuses = []
    for _ in range(7):
        statuses.append((await ask(house, sip_request("OPTIONS", "sip:corp.test", sender="sip:x@evil.test"))).status)
    assert statuses == [200] * 5 + [503] * 2
    for _ in range(20):
        incoming = await ask(house, message_request("pat@pbx.test", "ben@people.test", "x"), PBX)
        assert incoming.status == 202


async def test_the_services_of_others_get_proven_senders() -> None:
    house = await House().open()
    seen: list[tuple[str, str]] = []

    async def subscribe(incoming: IncomingRequest, identity: Identity) -> None:
        seen.append((incoming.request.method, str(identity.address)))
        incoming.respond(200)

    def broken(_: IncomingRequest, __: Identity) -> None:
        raise RuntimeError("a bug")

    house.server.serve("SUBSCRIBE", subscribe)
    house.server.serve("PUBLISH", broken)
    request = sip_request(
        "SUBSCRIBE", "sip:ben@people.test", sender="sip:pat@pbx.test", headers=[("Event", "presence")]
    )
    assert (await ask(house, request, PBX)).status == 200
    assert seen == [("SUBSCRIBE", "pat@pbx.test")]
    assert (await ask(house, sip_request("PUBLISH", "sip:pat@pbx.test", sender="sip:pat@pbx.test"), PBX)).status == 500
    assert (await ask(house, sip_request("NOTIFY", "sip:x@corp.test", sender="sip:pat@pbx.test"), PBX)).status == 405
    stranger = sip_request("SUBSCRIBE", "sip:ben@people.test", sender="sip:ana@corp.test")
    assert (await ask(house, stranger)).status == 401


async def test_a_gruu_reaches_one_device_or_is_told_to_be_away() -> None:
    """RFC 5627 section 5.1."""
    house = await House().open()
    for number in (1, 2):
        flow = Flow("udp", f"192.0.2.{20 + number}", 5060)
        await house.register(contact=f'<sip:ana@192.0.2.{20 + number}>;+sip.instance="<urn:uuid:{number}>"', flow=flow)
    request = sip_request("MESSAGE", "sip:ana@corp.test;gr=urn:uuid:2", sender="sip:pat@pbx.test", body="to two")
    request.headers.add("Content-Type", "text/plain")
    assert (await ask(house, request, PBX)).status == 202
    (sent,) = house.taken()
    assert str(sent.request.uri) == "sip:ana@192.0.2.22"
    away = sip_request("MESSAGE", "sip:ana@corp.test;gr=urn:uuid:3", sender="sip:pat@pbx.test", body="x")
    assert (await ask(house, away, PBX)).status == 480
    forged = sip_request("MESSAGE", "sip:tgruu.abc@corp.test;gr", sender="sip:pat@pbx.test", body="x")
    assert (await ask(house, forged, PBX)).status == 404


async def test_an_ip_address_for_the_domain_means_our_only_domain_or_nobody() -> None:
    """Edge case 20."""
    house = await House().open()
    request = sip_request(
        "MESSAGE", "sip:ana@192.0.2.1", sender="sip:pat@pbx.test", body="x", content_type="text/plain"
    )
    assert (await ask(house, request, PBX)).status == 404
    assert texts(house.taken()) == []
