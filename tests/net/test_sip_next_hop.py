"""Finding the next hop (RFC 3263) with a real DNS server, and failing over from target to target."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from isthmus.config import Listener, SipSettings, Transport
from isthmus.errors import RequestTimeoutError, TransportError
from isthmus.net.sip_resolver import SipResolver
from isthmus.net.sip_transports import _outgoing_address
from isthmus.ports import NextHop
from isthmus.sip.message import SipRequest, build_response
from isthmus.sip.routing import Target
from isthmus.sip.uri import SipUri
from tests.support.dns_server import DnsServer
from tests.support.sip_network import Recorder, UdpPeer, outgoing, running, soon, udp_peer


class Listed:
    """Resolves everything to the same targets."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.list = list(targets)

    async def targets(self, uri: SipUri) -> list[Target]:
        return self.list


def answering(status: int) -> Callable[[SipRequest], bytes]:
    return lambda request: build_response(request, status, to_tag="theirs").to_bytes()


def at(peer: UdpPeer) -> Target:
    return Target("udp", "127.0.0.1", peer.port)


@pytest.fixture
async def zone() -> AsyncIterator[DnsServer]:
    server = DnsServer(
        {
            ("corp.test", "NAPTR"): (
                60,
                [
                    '20 50 "s" "SIP+D2U" "" _sip._udp.corp.test.',
                    '10 50 "s" "SIPS+D2T" "" _sips._tcp.corp.test.',
                ],
            ),
            ("_sip._udp.corp.test", "SRV"): (60, ["10 60 5070 one.corp.test.", "20 0 5080 two.corp.test."]),
            ("_sips._tcp.corp.test", "SRV"): (60, ["10 0 5071 one.corp.test."]),
            ("one.corp.test", "A"): (60, ["192.0.2.1"]),
            ("one.corp.test", "AAAA"): (60, ["2001:db8::1"]),
            ("two.corp.test", "A"): (60, ["192.0.2.2"]),
            ("plain.test", "A"): (60, ["192.0.2.3"]),
        }
    )
    yield server
    server.stop()


async def test_naptr_srv_and_addresses_give_targets_in_order(zone: DnsServer) -> None:
    resolver = SipResolver([await zone.start()])
    assert await resolver.targets(SipUri.parse("sip:ana@corp.test")) == [
        Target("tls", "192.0.2.1", 5071, "corp.test"),
        Target("tls", "2001:db8::1", 5071, "corp.test"),
        Target("udp", "192.0.2.1", 5070),
        Target("udp", "2001:db8::1", 5070),
        Target("udp", "192.0.2.2", 5080),
    ]
    assert {t.transport for t in await resolver.targets(SipUri.parse("sips:ana@corp.test"))} == {"tls"}


async def test_transport_and_port_of_the_uri_skip_the_questions_they_answer(zone: DnsServer) -> None:
    resolver = SipResolver([await zone.start()])
    assert (await resolver.targets(SipUri.parse("sip:ana@corp.test;transport=udp")))[0].port == 5070
    assert zone.questions["corp.test", "NAPTR"] == 0
    assert await resolver.targets(SipUri.parse("sip:plain.test:5099")) == [Target("udp", "192.0.2.3", 5099)]
    assert await resolver.targets(SipUri.parse("sip:plain.test")) == [Target("udp", "192.0.2.3", 5060)]
    assert await resolver.targets(SipUri.parse("sip:192.0.2.9")) == [Target("udp", "192.0.2.9", 5060)]
    assert await resolver.targets(SipUri.parse("sip:localhost:5062")) == [Target("udp", "127.0.0.1", 5062)]
    assert await resolver.targets(SipUri.parse("sip:absent.test")) == []


async def test_a_domain_without_service_is_a_transport_error_that_says_so() -> None:
    async with running(resolver=Listed([])) as endpoint:
        with pytest.raises(TransportError, match=r"corp\.test has no SIP service"):
            await soon(endpoint.request(outgoing("sip:ana@corp.test")))


async def test_503_timeout_and_unreachable_move_on_to_the_next_target_with_a_new_branch() -> None:
    async with (
        udp_peer(answering(503)) as busy,
        udp_peer() as silent,
        udp_peer(answering(202)) as good,
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            unreachable = Target("udp", "127.0.0.1", gone.getsockname()[1])
        resolver = Listed([unreachable, at(busy), at(silent), at(good)])
        async with running(resolver=resolver) as endpoint:
            response = await soon(endpoint.request(outgoing("sip:ana@corp.test")))
            assert response.status == 202
            messages = [await peer.next_message() for peer in (busy, silent, good)]
            assert len({message.top_via.branch for message in messages}) == 3
            assert all(len(message.vias) == 1 for message in messages)
            assert len({message.call_id for message in messages}) == 1


async def test_a_target_that_failed_is_tried_last_for_a_while() -> None:
    targets = Listed([])
    async with (
        udp_peer(answering(503)) as busy,
        udp_peer(answering(200)) as good,
        running(resolver=targets) as endpoint,
    ):
        targets.list = [at(busy), at(good)]
        for _ in range(3):
            assert (await soon(endpoint.request(outgoing("sip:ana@corp.test")))).status == 200
        assert busy.received.qsize() == 1
        assert good.received.qsize() == 3


async def test_other_failures_are_the_answer_and_not_a_reason_to_move_on() -> None:
    targets = Listed([])
    async with (
        udp_peer(answering(500)) as first,
        udp_peer(answering(200)) as second,
        running(resolver=targets) as endpoint,
    ):
        targets.list = [at(first), at(second)]
        assert (await soon(endpoint.request(outgoing("sip:ana@corp.test")))).status == 500
        assert second.received.empty()


async def test_when_all_targets_fail_the_last_503_or_the_error_comes_back() -> None:
    async with udp_peer(answering(503)) as busy, udp_peer() as silent:
        async with running(resolver=Listed([at(busy), at(silent)])) as endpoint:
            assert (await soon(endpoint.request(outgoing("sip:ana@corp.test")))).status == 503
        async with running(resolver=Listed([at(silent)])) as endpoint:
            with pytest.raises(RequestTimeoutError):
                await soon(endpoint.request(outgoing("sip:ana@corp.test")))


async def test_a_dead_tcp_target_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = Target("tcp", "127.0.0.1", gone.getsockname()[1])
    async with udp_peer(answering(200)) as good, running(resolver=Listed([dead, at(good)])) as endpoint:
        assert (await soon(endpoint.request(outgoing("sip:ana@corp.test")))).status == 200


async def test_requests_that_wait_for_dns_do_not_block_those_that_need_none() -> None:
    class Stuck:
        async def targets(self, uri: SipUri) -> list[Target]:
            never: asyncio.Future[list[Target]] = asyncio.get_running_loop().create_future()
            return await never

    async with udp_peer(answering(200)) as peer:
        async with running(resolver=Stuck()) as endpoint:
            outcomes: asyncio.Queue[object] = asyncio.Queue()
            endpoint.request_nowait(outgoing("sip:ana@corp.test"), None, outcomes.put_nowait)
            await soon(endpoint.request(outgoing(f"sip:ana@127.0.0.1:{peer.port}")))
            assert outcomes.empty()
        assert isinstance(await soon(outcomes.get()), TransportError)  # stop() leaves nobody waiting


def outside_address() -> str:
    address = _outgoing_address("192.0.2.1")
    if address.startswith("127."):
        pytest.skip("this machine has only loopback")
    return address


async def test_a_request_over_1300_octets_goes_over_tcp_where_the_path_is_not_our_own() -> None:
    """Edge case 18 (RFC 3261 section 18.1.1); a small one to the same peer stays on UDP."""
    host = outside_address()
    listeners = (
        Listener(transport=Transport.TCP, host=host, port=0),
        Listener(transport=Transport.UDP, host=host, port=0),
    )
    recorder = Recorder()
    async with running(recorder, SipSettings(listeners=listeners[:1])) as peer:
        port = peer.bound["tcp"][1]
        async with (
            running(recorder, SipSettings(listeners=(listeners[1].model_copy(update={"port": port}),))),
            running(config=SipSettings(listeners=listeners[1:])) as endpoint,
        ):
            hop = NextHop(uri=SipUri.parse(f"sip:{host}:{port}"))
            for body, transport in ((b"x" * 300, "udp"), (b"x" * 1_300, "tcp")):
                assert (await soon(endpoint.request(outgoing("sip:ben@y.test", body=body), hop))).status == 200
                assert (await recorder.next()).flow.transport == transport


async def test_a_large_request_falls_back_to_udp_when_nobody_listens_on_tcp() -> None:
    """RFC 3261 section 18.1.1, last sentence of the third paragraph."""
    host = outside_address()
    config = SipSettings(listeners=(Listener(transport=Transport.UDP, host=host, port=0),))
    recorder = Recorder()
    async with running(recorder, config) as peer, running(config=config) as endpoint:
        hop = NextHop(uri=SipUri.parse(f"sip:{host}:{peer.bound['udp'][1]}"))
        assert (await soon(endpoint.request(outgoing("sip:ben@y.test", body=b"x" * 1_300), hop))).status == 200
        assert (await recorder.next()).flow.transport == "udp"


async def test_a_request_without_a_sip_destination_is_a_transport_error() -> None:
    async with running() as endpoint:
        request = outgoing("sip:ben@y.test")
        request.headers.add("Route", "<tel:+15550100>")
        with pytest.raises(TransportError, match="not a SIP URI"):
            await endpoint.request(request)
