"""TCP: framing, keep-alives, reuse, and the bounds that keep one peer from exhausting us."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from isthmus.config import Listener, SipSettings, Transport
from isthmus.errors import ConfigurationError, TransportError
from isthmus.net.sip_connection import ConnectionLimits
from isthmus.ports import NextHop
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.uri import SipUri
from tests.support.sip_network import (
    Recorder,
    StreamPeer,
    outgoing,
    request_text,
    running,
    settings,
    soon,
    stream_peer,
    udp_peer,
)

TCP_VIA = "SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK{n};rport"
SWIFT = ConnectionLimits(sweep_seconds=0.02)


def tcp_request(method: str = "MESSAGE", **changes: str) -> bytes:
    return request_text(method, via=TCP_VIA, **changes)  # type: ignore[arg-type]  # only text is changed here


@asynccontextmanager
async def tcp_server(answers: bool = True) -> AsyncIterator[tuple[int, asyncio.Queue[StreamPeer]]]:
    """A SIP peer that listens on TCP; yields its port and the connections it gets."""
    accepted: asyncio.Queue[StreamPeer] = asyncio.Queue()
    peers: list[StreamPeer] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = StreamPeer(reader, writer)
        peers.append(peer)
        accepted.put_nowait(peer)
        while answers:
            try:
                message = await peer.next_message()
            except (AssertionError, OSError, TimeoutError):
                return
            if isinstance(message, SipRequest):
                peer.send(build_response(message, 200, to_tag="theirs").to_bytes())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], accepted
    finally:
        server.close()
        for peer in peers:
            await peer.close()
        await server.wait_closed()


async def test_requests_on_one_connection_are_answered_on_it_in_any_cut() -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint, stream_peer(endpoint.bound["tcp"]) as peer:
        data = tcp_request() + b"\r\n\r\n" + tcp_request() + tcp_request()
        for position in range(0, len(data), 97):
            peer.send(data[position : position + 97])
            await asyncio.sleep(0)
        for _ in range(3):
            response = await peer.next_message()
            assert isinstance(response, SipResponse)
            assert response.status == 200
        incoming = await recorder.next()
        assert incoming.flow.is_stream
        assert incoming.flow.connection > 0
        assert incoming.flow.peer_names == ()
        assert endpoint.is_flow_alive(incoming.flow)


async def test_a_double_crlf_is_answered_with_one() -> None:
    """RFC 5626 section 4.4.1."""
    async with running() as endpoint, stream_peer(endpoint.bound["tcp"]) as peer:
        peer.send(b"\r\n\r\n")
        assert await soon(peer.reader.readexactly(2)) == b"\r\n"


@pytest.mark.parametrize("spoil", [(b"Content-Length: 5", b"Content-Length: -5"), (b"Content-Length: 5\r\n", b"")])
async def test_a_stream_that_lost_its_framing_is_answered_400_and_closed(spoil: tuple[bytes, bytes]) -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint, stream_peer(endpoint.bound["tcp"]) as peer:
        peer.send(tcp_request().replace(*spoil))
        response = await peer.next_message()
        assert isinstance(response, SipResponse)
        assert response.status == 400
        assert await peer.is_closed()
        assert (await soon(recorder.closed.get())).transport == "tcp"


async def test_a_malformed_request_with_sound_framing_leaves_the_connection_open() -> None:
    async with running() as endpoint, stream_peer(endpoint.bound["tcp"]) as peer:
        peer.send(tcp_request().replace(b"CSeq: 1 MESSAGE", b"CSeq: 1 OPTIONS") + tcp_request())
        statuses = [(await peer.next_message()) for _ in range(2)]
        assert [r.status for r in statuses if isinstance(r, SipResponse)] == [400, 200]


async def test_noise_closes_the_connection() -> None:
    async with running() as endpoint, stream_peer(endpoint.bound["tcp"]) as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await peer.is_closed()


async def test_a_registered_flow_takes_our_requests_until_it_closes() -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint:
        async with stream_peer(endpoint.bound["tcp"]) as peer:
            peer.send(tcp_request("OPTIONS"))
            await peer.next_message()
            flow = (await recorder.next()).flow
            waiting = asyncio.ensure_future(endpoint.request(outgoing("sip:ben@phone.invalid"), NextHop(flow=flow)))
            request = await peer.next_message()
            assert isinstance(request, SipRequest)
            assert request.top_via.transport == "TCP"
            assert request.top_via.port == endpoint.bound["tcp"][1]
            peer.send(build_response(request, 200, to_tag="x").to_bytes())
            assert (await soon(waiting)).status == 200
        assert await soon(recorder.closed.get()) == flow
        assert not endpoint.is_flow_alive(flow)
        with pytest.raises(TransportError, match="closed"):
            await endpoint.request(outgoing("sip:ben@phone.invalid"), NextHop(flow=flow))


async def test_a_connection_that_closes_fails_the_requests_waiting_on_it() -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint, stream_peer(endpoint.bound["tcp"]) as peer:
        peer.send(tcp_request("OPTIONS"))
        await peer.next_message()
        flow = (await recorder.next()).flow
        waiting = asyncio.ensure_future(endpoint.request(outgoing("sip:ben@phone.invalid"), NextHop(flow=flow)))
        await peer.next_message()
        await peer.close()
        with pytest.raises(TransportError, match="cannot be reached"):
            await soon(waiting)


async def test_requests_to_one_peer_share_one_connection() -> None:
    async with running() as endpoint, tcp_server() as (port, accepted):
        for _ in range(3):
            response = await soon(endpoint.request(outgoing(f"sip:ben@127.0.0.1:{port};transport=tcp")))
            assert response.status == 200
        assert accepted.qsize() == 1


async def test_requests_that_come_while_connecting_wait_for_the_same_connection() -> None:
    async with running() as endpoint, tcp_server() as (port, accepted):
        requests = (endpoint.request(outgoing(f"sip:ben@127.0.0.1:{port};transport=tcp")) for _ in range(20))
        first = asyncio.ensure_future(endpoint.request(outgoing(f"sip:ben@127.0.0.1:{port};transport=tcp")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()  # who gives up does not take the connection away from the others
        responses = await soon(asyncio.gather(*requests))
        assert {response.status for response in responses} == {200}
        assert accepted.qsize() == 1


async def test_stopping_while_connecting_is_a_transport_error() -> None:
    async with running() as endpoint:
        # A listener whose backlog is full never answers: the connection stays half open.
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            with socket.create_connection(address), socket.socket() as second:
                second.setblocking(False)
                second.connect_ex(address)
                uri = f"sip:ben@127.0.0.1:{address[1]};transport=tcp"
                waiting = asyncio.ensure_future(endpoint.request(outgoing(uri)))
                for _ in range(5):
                    await asyncio.sleep(0)
                await endpoint.stop()
                with pytest.raises(TransportError):
                    await soon(waiting)


async def test_a_refused_connection_is_a_transport_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    async with running() as endpoint:
        with pytest.raises(TransportError, match=f"port {port} \\(tcp\\)"):
            await soon(endpoint.request(outgoing(f"sip:ben@127.0.0.1:{port};transport=tcp")))


async def test_a_large_request_to_loopback_stays_on_udp() -> None:
    async with running() as endpoint, udp_peer() as peer:
        endpoint.request_nowait(outgoing(f"sip:ben@127.0.0.1:{peer.port}", body=b"x" * 5_000), None, lambda _: None)
        assert (await peer.next_message()).body == b"x" * 5_000


async def test_we_send_keep_alives_on_connections_we_opened_and_close_when_a_pong_stays_out() -> None:
    """RFC 5626 section 4.4.1: silence counts only once the peer has shown that it answers."""
    limits = ConnectionLimits(sweep_seconds=0.01, keep_alive_seconds=0.03, pong_seconds=0.05)
    recorder = Recorder()
    async with running(recorder, limits=limits) as endpoint, tcp_server(answers=False) as (port, accepted):
        endpoint.request_nowait(outgoing(f"sip:ben@127.0.0.1:{port};transport=tcp"), None, lambda _: None)
        peer = await soon(accepted.get())
        request = await peer.next_message()
        assert isinstance(request, SipRequest)
        peer.send(build_response(request, 200, to_tag="x").to_bytes())
        for _ in range(3):
            assert await soon(peer.reader.readexactly(4)) == b"\r\n\r\n"
        assert recorder.closed.empty()
        peer.send(b"\r\n")
        assert (await soon(recorder.closed.get())).remote_port == port


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (ConnectionLimits(sweep_seconds=0.01, first_message_seconds=0.05), b""),
        (
            ConnectionLimits(sweep_seconds=0.01, partial_message_seconds=0.05),
            b"MESSAGE sip:ben@people.test SIP/2.0\r\n",
        ),
        (ConnectionLimits(sweep_seconds=0.01, partial_message_seconds=0.05), tcp_request()[:-3]),
        (ConnectionLimits(sweep_seconds=0.01, idle_seconds=0.05), tcp_request()),
    ],
    ids=["silent from the start", "slow head", "slow body", "idle"],
)
async def test_a_peer_that_only_holds_a_connection_loses_it(limits: ConnectionLimits, data: bytes) -> None:
    async with running(limits=limits) as endpoint, stream_peer(endpoint.bound["tcp"]) as peer:
        if data:
            peer.send(data)
        assert await peer.is_closed()


async def test_octets_that_trickle_in_do_not_prolong_a_message() -> None:
    """Slow loris: each octet is traffic, but the message as a whole must arrive in time."""
    limits = ConnectionLimits(sweep_seconds=0.01, partial_message_seconds=0.1)
    async with running(limits=limits) as endpoint, stream_peer(endpoint.bound["tcp"]) as peer:
        closed = asyncio.ensure_future(peer.is_closed())
        for octet in tcp_request():
            if closed.done() or peer.writer.is_closing():
                break
            peer.send(bytes([octet]))
            await asyncio.wait([closed], timeout=0.01)
        assert await soon(closed)


async def test_connections_are_limited_in_all_and_per_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with running(limits=ConnectionLimits(maximum_per_address=2)) as endpoint:
        async with stream_peer(endpoint.bound["tcp"]) as one, stream_peer(endpoint.bound["tcp"]) as two:
            for peer in (one, two):
                peer.send(tcp_request())
                await peer.next_message()
            async with stream_peer(endpoint.bound["tcp"]) as three:
                assert await three.is_closed()
        assert "too many connections" in caplog.text
        for _ in range(50):  # the places come back with the end of the first two
            async with stream_peer(endpoint.bound["tcp"]) as four:
                four.send(tcp_request())
                if await soon(four.reader.read(7)) == b"SIP/2.0":
                    return
        pytest.fail("no place came back")


async def test_a_peer_that_does_not_read_is_cut_off_and_the_others_are_served() -> None:
    recorder = Recorder(status=0)
    limits = ConnectionLimits(unwritten_octets=64 << 10)
    async with running(recorder, limits=limits) as endpoint:
        deaf = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, endpoint.bound["tcp"])
        await loop.sock_sendall(deaf, tcp_request("OPTIONS"))
        flow = (await recorder.next()).flow
        for _ in range(400):
            if not endpoint.is_flow_alive(flow):
                break
            endpoint.request_nowait(outgoing("sip:x@y.test", body=b"x" * 60_000), NextHop(flow=flow), lambda _: None)
        assert await soon(recorder.closed.get()) == flow
        deaf.close()
        async with stream_peer(endpoint.bound["tcp"]) as peer:
            peer.send(tcp_request("OPTIONS"))
            (await recorder.next()).respond(200)
            await peer.next_message()


async def test_stopping_closes_connections_and_frees_the_port() -> None:
    async with running() as endpoint:
        address = endpoint.bound["tcp"]
        async with stream_peer(address) as peer:
            peer.send(tcp_request())
            await peer.next_message()
            await endpoint.stop()
            assert await peer.is_closed()
    again = SipSettings(listeners=(Listener(transport=Transport.TCP, port=address[1]),))
    async with running(config=again) as endpoint:
        assert endpoint.bound["tcp"] == address


async def test_a_tcp_port_in_use_is_a_configuration_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = SipSettings(listeners=(Listener(transport=Transport.TCP, port=port),))
        with pytest.raises(ConfigurationError, match=f"port {port} \\(tcp\\) is already in use"):
            async with running(config=config):
                pass


async def test_requests_over_websocket_to_a_host_need_its_connection() -> None:
    async with running(config=settings("ws")) as endpoint:
        uri = SipUri.parse("sip:browser@127.0.0.1;transport=ws")
        with pytest.raises(TransportError):
            await soon(endpoint.request(outgoing("sip:x@y.test"), NextHop(uri=uri)))
