"""Who sent it: digest, neighbours, spoofed From, lock-out (STANDARDS 3.7, edge case 43)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.model import Address
from isthmus.ports import Flow
from isthmus.services.authentication import Identity, Refusal
from isthmus.sip.digest import answer_challenge
from isthmus.sip.message import SipRequest, SipResponse
from tests.support.messaging_house import ANA, PBX, House
from tests.support.sip import UDP_PHONE, MemoryIncomingRequest, message_request, register_request

STRANGER = Flow("udp", "203.0.113.66", 5060)


async def challenged(house: House, request: SipRequest, flow: Flow = UDP_PHONE) -> SipResponse:
    incoming = house.endpoint.receive(request, flow)
    return await incoming.answered()


def answered(
    request: SipRequest, challenge: SipResponse, user: str = "ana", password: str = "ana's password", suffix: str = "a"
) -> SipRequest:
    again = answer_challenge(request, challenge, username=user, password=password, cnonce="c0ffee")
    assert again is not None
    again.headers.prepend("Via", f"SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-{suffix}-{id(again)}")
    return again


async def identify(house: House, request: SipRequest, flow: Flow = UDP_PHONE) -> Identity | Refusal:
    return house.authenticator.identify(MemoryIncomingRequest(request, flow))


async def test_the_challenge_offers_sha_256_before_md5() -> None:
    house = await House().open()
    response = await challenged(house, message_request("ana@corp.test", "ben@people.test", "hi"))
    assert response.status == 401
    first, second = response.headers.get_all("WWW-Authenticate")
    assert "algorithm=SHA-256" in first
    assert "algorithm=MD5" in second
    assert 'realm="corp.test"' in first


async def test_md5_is_neither_offered_nor_taken_when_switched_off() -> None:
    house = House()
    house.settings = house.settings.model_copy(update={"allow_md5": False})
    from isthmus.services.authentication import Authenticator

    strict = Authenticator(house.directory, house.settings, house.clock, house.trace, secret=b"0123456789abcdef")
    await house.open()
    refusal = strict.identify(MemoryIncomingRequest(message_request("ana@corp.test", "ben@people.test", "hi")))
    assert isinstance(refusal, Refusal)
    assert len(refusal.headers) == 1
    assert "SHA-256" in refusal.headers[0][1]


async def test_the_right_password_proves_the_sender() -> None:
    house = await House().open()
    request = message_request("ana@corp.test", "ben@people.test", "hi")
    proven = await identify(house, answered(request, await challenged(house, request)))
    assert proven == Identity(ANA, "user")


async def test_a_wrong_password_and_an_unknown_user_look_the_same() -> None:
    house = await House().open()
    shapes = []
    for sender in ("ana@corp.test", "zoe@corp.test"):
        request = message_request(sender, "ben@people.test", "hi")
        user = sender.partition("@")[0]
        again = answered(request, await challenged(house, request), user, "wrong")
        response = await challenged(house, again)
        names = [name for name, _ in response.headers.items()]
        shapes.append((response.status, response.reason, names))
    assert shapes[0] == shapes[1]
    assert shapes[0][0] == 401


async def test_from_must_be_the_authenticated_user() -> None:
    """Edge case 43: bea's password does not make anybody ana."""
    house = await House().open()
    request = message_request("ana@corp.test", "ben@people.test", "I am ana, really")
    again = answered(request, await challenged(house, request), "bea", "bea's password")
    assert (await challenged(house, again)).status == 403
    assert house.link.stanzas == []
    assert any(line.rule == "authentication.from" for line in house.trace.recent)


async def test_an_outsider_cannot_be_one_of_ours() -> None:
    """Edge case 43: a spoofed From from outside is challenged, and nothing is delivered."""
    house = await House().open()
    response = await challenged(house, message_request("ana@corp.test", "bea@corp.test", "spoof"), STRANGER)
    assert response.status == 401


async def test_a_neighbour_is_believed_within_its_own_domain_only() -> None:
    house = await House().open()
    assert await identify(house, message_request("pat@pbx.test", "ben@people.test", "x"), PBX) == Identity(
        Address("pat", "pbx.test"), "peer"
    )
    spoofed = await challenged(house, message_request("ana@corp.test", "ben@people.test", "x"), PBX)
    assert spoofed.status == 401, "a hosted user needs the password wherever the request comes from"
    foreign = await challenged(house, message_request("ben@people.test", "ana@corp.test", "x"), PBX)
    assert foreign.status == 403
    assert house.trace.recent[-1].rule == "authentication.foreign"
    told = [line for line in house.trace.recent if {"ben@people.test", "ana@corp.test"} <= set(line.people)]
    assert told, "`isthmus explain` finds it between the two"


async def test_a_stranger_is_not_believed_to_be_a_neighbour() -> None:
    house = await House().open()
    assert (await challenged(house, message_request("pat@pbx.test", "ben@people.test", "x"), STRANGER)).status == 403


async def test_a_neighbour_is_known_by_network_or_its_own_address() -> None:
    house = await House().open()
    inside = replace(PBX, remote_host="198.51.100.2")
    second = replace(PBX, remote_host="198.51.100.6")
    outside = replace(PBX, remote_host="198.51.100.9")
    assert [house.authenticator.is_neighbour("pbx.test", flow) for flow in (inside, second, outside)] == [
        True,
        True,
        False,
    ]


async def test_a_neighbour_with_a_host_name_is_known_once_its_address_is() -> None:
    house = House()
    from ipaddress import ip_network

    from pydantic import SecretStr

    from isthmus.config import BusinessDomain, Configuration, DomainKind, SipPeer
    from isthmus.services.authentication import Authenticator
    from isthmus.services.directory import Directory

    peers = (
        SipPeer(host="sbc.pbx.test"),
        SipPeer(host="tls.pbx.test", tls_names=("tls.pbx.test",)),
        SipPeer(host="net.pbx.test", allow_from=(ip_network("2001:db8::/32"),)),
    )
    domain = BusinessDomain(name="pbx.test", kind=DomainKind.ROUTED, component_secret=SecretStr("x"), peers=peers)
    directory = Directory(Configuration(domains=(domain,)), house.store, house.bus)
    authenticator = Authenticator(directory, house.settings, house.clock, house.trace, secret=b"0123456789abcdef")
    flow = Flow("udp", "192.0.2.77", 5060)
    assert authenticator.hosts_to_resolve() == ("sbc.pbx.test",)
    assert not authenticator.is_neighbour("pbx.test", flow)
    authenticator.note_addresses("sbc.pbx.test", frozenset({"192.0.2.77"}))
    assert authenticator.is_neighbour("pbx.test", flow)
    assert authenticator.is_neighbour("pbx.test", Flow("tls", "9.9.9.9", 1, peer_names=("TLS.pbx.test",)))
    assert not authenticator.is_neighbour("pbx.test", Flow("tls", "9.9.9.9", 1, peer_names=("other.test",)))
    assert authenticator.is_neighbour("pbx.test", Flow("udp", "2001:db8::5", 1))


async def test_identity_headers_from_outside_are_never_looked_at() -> None:
    house = await House().open()
    request = message_request(
        "mallory@evil.test", "bea@corp.test", "x", headers=[("P-Asserted-Identity", "<sip:ana@corp.test>")]
    )
    assert (await challenged(house, request, STRANGER)).status == 403


async def test_a_captured_answer_cannot_be_used_again() -> None:
    house = await House().open()
    request = message_request("ana@corp.test", "ben@people.test", "hi")
    again = answered(request, await challenged(house, request))
    assert isinstance(await identify(house, again), Identity)
    replay = await identify(house, again)
    assert isinstance(replay, Refusal)
    assert replay.status == 401
    assert "stale=true" in replay.headers[0][1]


async def test_an_old_nonce_is_stale_and_no_reason_to_ask_for_the_password() -> None:
    house = await House().open()
    request = message_request("ana@corp.test", "ben@people.test", "hi")
    again = answered(request, await challenged(house, request))
    house.clock.advance(301)
    refusal = await identify(house, again)
    assert isinstance(refusal, Refusal)
    assert "stale=true" in refusal.headers[0][1]


async def test_guessing_is_locked_out_longer_and_longer_and_others_are_not() -> None:
    house = await House().open()
    request = message_request("ana@corp.test", "ben@people.test", "hi")

    async def guess(flow: Flow, password: str) -> int:
        again = answered(request, await challenged(house, request, flow), "ana", password)
        incoming = house.endpoint.receive(again, flow)
        return (await incoming.answered()).status

    assert [await guess(STRANGER, f"guess {number}") for number in range(5)] == [401] * 5
    assert await guess(STRANGER, "ana's password") == 403, "locked: even the right one is not looked at"
    assert await guess(UDP_PHONE, "ana's password") == 202, "the owner, elsewhere, is not locked out"
    house.clock.advance(2)
    assert await guess(STRANGER, "wrong again") == 401
    house.clock.advance(1.5)
    assert await guess(STRANGER, "x") == 403, "the second lock lasts twice as long"
    house.clock.advance(10)
    assert await guess(STRANGER, "ana's password") == 202
    assert await guess(STRANGER, "a typing mistake") == 401, "the count began anew"


async def test_a_disabled_user_is_an_unknown_user() -> None:
    house = await House().open()
    await house.directory.disable_user(ANA)
    request = message_request("ana@corp.test", "ben@people.test", "hi")
    again = answered(request, await challenged(house, request))
    assert (await challenged(house, again)).status == 401


async def test_an_unknown_scheme_is_answered_with_our_challenge() -> None:
    """RFC 4475 regaut01."""
    house = await House().open()
    request = register_request(
        "ana@corp.test", "<sip:ana@192.0.2.10>", headers=[("Authorization", 'NoOneKnowsThisScheme opaque-data="here"')]
    )
    response = await challenged(house, request)
    assert response.status == 401
    assert response.headers.get("WWW-Authenticate") is not None


@pytest.mark.parametrize("header", ['Digest username="ana"', "Digest realm=,,,", 'Digest username="ana", username="b"'])
async def test_a_malformed_answer_is_400(header: str) -> None:
    house = await House().open()
    request = message_request("ana@corp.test", "ben@people.test", "hi", headers=[("Authorization", header)])
    assert (await challenged(house, request)).status == 400


async def test_a_registration_for_a_foreign_domain_learns_nothing() -> None:
    house = await House().open()
    response = await challenged(house, register_request("joe@elsewhere.test", "<sip:joe@192.0.2.9>"))
    assert response.status == 401
