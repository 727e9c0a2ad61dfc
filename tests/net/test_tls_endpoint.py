"""SIP over TLS between domains (RFC 5922, RFC 5923), with a private authority and real handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from isthmus.config import SipSettings, TlsSettings
from isthmus.errors import TransportError
from isthmus.net.sip_connection import ConnectionLimits
from isthmus.net.sip_endpoint import NetworkSipEndpoint
from isthmus.ports import NextHop
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.uri import SipUri
from tests.support.certificates import IssuedCertificate, TestAuthority
from tests.support.sip_network import Recorder, outgoing, request_text, running, settings, soon, stream_peer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("authority"))


def tls_config(authority: TestAuthority, issued: IssuedCertificate, *transports: str) -> SipSettings:
    tls = TlsSettings(
        certificate=issued.certificate, private_key=issued.private_key, trusted_authorities=authority.authority
    )
    return settings(*(transports or ("tls",)), tls=tls)


def phone_context(authority: TestAuthority, issued: IssuedCertificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.authority))
    context.check_hostname = False
    if issued is not None:
        context.load_cert_chain(issued.certificate, issued.private_key)
    return context


def to(endpoint: NetworkSipEndpoint, *names: str) -> NextHop:
    host, port = endpoint.bound["tls"]
    return NextHop(uri=SipUri.parse(f"sip:{host}:{port};transport=tls"), tls_names=names)


VIA = "SIP/2.0/TLS 127.0.0.1:5061;branch=z9hG4bK{n};rport"


async def test_a_phone_without_certificate_is_served_without_proven_names(authority: TestAuthority) -> None:
    recorder = Recorder()
    async with (
        running(recorder, tls_config(authority, authority.issue("corp.test"))) as endpoint,
        stream_peer(endpoint.bound["tls"], phone_context(authority)) as phone,
    ):
        phone.send(request_text(via=VIA))
        response = await phone.next_message()
        assert isinstance(response, SipResponse)
        assert response.status == 200
        flow = (await recorder.next()).flow
        assert (flow.transport, flow.peer_names) == ("tls", ())


async def test_two_domains_prove_their_names_to_each_other(authority: TestAuthority) -> None:
    theirs = Recorder()
    ours = authority.issue("corp.test", uris=("sip:sales.corp.test",))
    async with (
        running(theirs, tls_config(authority, authority.issue("partner.test"))) as peer,
        running(config=tls_config(authority, ours)) as endpoint,
    ):
        response = await soon(endpoint.request(outgoing("sip:ben@partner.test"), to(peer, "partner.test")))
        assert response.status == 200
        assert set((await theirs.next()).flow.peer_names) == {"corp.test", "sales.corp.test"}


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("other.test",), "partner.test"),
        (("*.partner.test",), "sip.partner.test"),
        (("sip.partner.test",), "partner.test"),
        (("partner.test",), "sip.partner.test"),
    ],
    ids=["another name", "wildcard", "name of a host", "suffix"],
)
async def test_a_certificate_for_another_name_is_refused_and_says_so(
    authority: TestAuthority, names: tuple[str, ...], wanted: str
) -> None:
    """Edge case 44: the administrator sees which check failed."""
    recorder = Recorder()
    async with (
        running(recorder, tls_config(authority, authority.issue(*names))) as peer,
        running(config=tls_config(authority, authority.issue("corp.test"))) as endpoint,
    ):
        with pytest.raises(TransportError, match=f"not for {wanted}"):
            await soon(endpoint.request(outgoing("sip:ben@partner.test"), to(peer, wanted)))
        assert recorder.requests.empty()


async def test_an_expired_certificate_and_an_unknown_authority_are_told_apart(
    authority: TestAuthority, tmp_path: Path
) -> None:
    """Edge case 44."""
    expired = authority.issue("partner.test", is_expired=True)
    stranger = TestAuthority(tmp_path, "another authority")
    async with running(config=tls_config(authority, authority.issue("corp.test"))) as endpoint:
        async with running(config=tls_config(authority, expired)) as peer:
            with pytest.raises(TransportError, match="expired"):
                await soon(endpoint.request(outgoing("sip:b@partner.test"), to(peer, "partner.test")))
        async with running(config=tls_config(authority, stranger.issue("partner.test"))) as peer:
            with pytest.raises(TransportError, match=r"is not valid: .*trusted_authorities"):
                await soon(endpoint.request(outgoing("sip:b@partner.test"), to(peer, "partner.test")))


async def test_a_client_certificate_of_an_unknown_authority_ends_the_handshake(
    authority: TestAuthority, tmp_path: Path
) -> None:
    stranger = TestAuthority(tmp_path, "another authority")
    recorder = Recorder()
    async with running(recorder, tls_config(authority, authority.issue("corp.test"))) as endpoint:
        context = phone_context(authority, stranger.issue("partner.test"))
        with contextlib.suppress(ssl.SSLError, OSError):
            async with stream_peer(endpoint.bound["tls"], context) as phone:
                phone.send(request_text(via=VIA))
                assert await phone.is_closed()
        assert recorder.requests.empty()


async def test_connections_are_reused_for_the_name_they_proved_and_no_other(authority: TestAuthority) -> None:
    theirs = Recorder()
    async with (
        running(theirs, tls_config(authority, authority.issue("partner.test", "also.test"))) as peer,
        running(config=tls_config(authority, authority.issue("corp.test"))) as endpoint,
    ):
        for name in ("partner.test", "partner.test", "also.test"):
            await soon(endpoint.request(outgoing("sip:ben@partner.test"), to(peer, name)))
        flows = {(await theirs.next()).flow for _ in range(3)}
        assert len(flows) == 1
        with pytest.raises(TransportError, match=r"not for third\.test"):
            await soon(endpoint.request(outgoing("sip:ben@partner.test"), to(peer, "third.test")))


async def test_a_route_may_lead_to_an_address_whose_owner_proves_a_name_we_know(authority: TestAuthority) -> None:
    """A Record-Route names a bare address; no certificate does."""
    theirs = Recorder()
    async with (
        running(theirs, tls_config(authority, authority.issue("partner.test"))) as peer,
        running(config=tls_config(authority, authority.issue("corp.test"))) as endpoint,
    ):
        request = outgoing("sip:ben@partner.test")
        request.headers.add("Route", f"<sip:127.0.0.1:{peer.bound['tls'][1]};transport=tls;lr>")
        with pytest.raises(TransportError, match=r"not for 127\.0\.0\.1"):
            await soon(endpoint.request(request))
        with pytest.raises(TransportError, match=r"not for 127\.0\.0\.1"):
            await soon(endpoint.request(request, NextHop(tls_names=("third.test",))))
        await soon(endpoint.request(request, NextHop(tls_names=("partner.test",))))
        assert (await theirs.next()).request.uri == request.uri


async def test_a_proven_peer_with_alias_gets_our_requests_on_its_own_connection(authority: TestAuthority) -> None:
    """RFC 5923: connection reuse, only over mutual TLS."""
    recorder = Recorder()
    context = phone_context(authority, authority.issue("partner.test"))
    via = "SIP/2.0/TLS 127.0.0.1:5999;branch=z9hG4bK{n};alias"
    async with (
        running(recorder, tls_config(authority, authority.issue("corp.test"))) as endpoint,
        stream_peer(endpoint.bound["tls"], context) as partner,
    ):
        partner.send(request_text(via=via))
        await partner.next_message()
        assert (await recorder.next()).flow.peer_names == ("partner.test",)
        hop = NextHop(uri=SipUri.parse("sip:127.0.0.1:5999;transport=tls"), tls_names=("partner.test",))
        waiting = asyncio.ensure_future(endpoint.request(outgoing("sip:ben@partner.test"), hop))
        request = await partner.next_message()
        assert isinstance(request, SipRequest)
        assert request.top_via.param("alias") is not None
        partner.send(build_response(request, 200, to_tag="x").to_bytes())
        assert (await soon(waiting)).status == 200
        other = NextHop(uri=SipUri.parse("sip:127.0.0.1:5999;transport=tls"), tls_names=("victim.test",))
        with pytest.raises(TransportError):
            await soon(endpoint.request(outgoing("sip:ben@victim.test"), other))


async def test_a_peer_without_certificate_cannot_claim_an_alias(authority: TestAuthority) -> None:
    via = "SIP/2.0/TLS 127.0.0.1:5999;branch=z9hG4bK{n};alias"
    async with (
        running(config=tls_config(authority, authority.issue("corp.test"))) as endpoint,
        stream_peer(endpoint.bound["tls"], phone_context(authority)) as thief,
    ):
        thief.send(request_text(via=via))
        await thief.next_message()
        hop = NextHop(uri=SipUri.parse("sip:127.0.0.1:5999;transport=tls"), tls_names=("partner.test",))
        with pytest.raises(TransportError):
            await soon(endpoint.request(outgoing("sip:ben@partner.test"), hop))


async def test_clear_text_on_the_tls_port_is_dropped_and_harms_nobody(authority: TestAuthority) -> None:
    async with running(config=tls_config(authority, authority.issue("corp.test"))) as endpoint:
        async with stream_peer(endpoint.bound["tls"]) as lost:
            lost.send(request_text(via=VIA))
            assert await lost.is_closed()
        async with stream_peer(endpoint.bound["tls"], phone_context(authority)) as phone:
            phone.send(request_text(via=VIA))
            await phone.next_message()


async def test_the_place_of_a_closed_connection_comes_back(authority: TestAuthority) -> None:
    """Otherwise a company behind one address is shut out after its phones have reconnected for a while."""
    limits = ConnectionLimits(maximum_per_address=4)  # our side learns of an end a moment later
    async with running(config=tls_config(authority, authority.issue("corp.test")), limits=limits) as endpoint:
        for _ in range(12):
            async with stream_peer(endpoint.bound["tls"], phone_context(authority)) as phone:
                phone.send(request_text(via=VIA))
                await phone.next_message()


async def test_browsers_come_over_wss(authority: TestAuthority) -> None:
    recorder = Recorder()
    config = tls_config(authority, authority.issue("corp.test"), "wss")
    async with running(recorder, config) as endpoint:
        host, port = endpoint.bound["wss"]
        sip = [Subprotocol("sip")]
        async with connect(f"wss://{host}:{port}/", ssl=phone_context(authority), subprotocols=sip) as client:
            await client.send(request_text(via="SIP/2.0/WSS x.invalid;branch=z9hG4bK{n}"))
            answer = await soon(client.recv())
            assert isinstance(answer, str)
            assert answer.startswith("SIP/2.0 200")
            assert (await recorder.next()).flow.transport == "wss"
        assert endpoint.contact_uri("ana", "wss").param("transport") == "wss"


async def test_an_expired_certificate_of_ours_is_told_with_the_remedy(
    authority: TestAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    expired = authority.issue("corp.test", is_expired=True)
    async with running(config=tls_config(authority, expired)):
        pass
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert f"{expired.certificate} expired on" in said
    assert "renew it" in said
