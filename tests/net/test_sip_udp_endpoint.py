"""The endpoint over UDP: answers, faults, keep-alives and errors of the network, with real loopback sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from isthmus.config import Listener, SipSettings, Transport
from isthmus.errors import ConfigurationError, RequestTimeoutError, TransportError
from isthmus.net.sip_endpoint import NetworkSipEndpoint
from isthmus.net.sip_stun import binding_answer, is_stun
from isthmus.net.sip_udp import binding_error
from isthmus.ports import IncomingRequest, NextHop
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.parser import parse_message
from isthmus.sip.uri import SipUri
from isthmus.trace import Trace, TraceLine
from tests.support.sip_network import Recorder, outgoing, request_text, running, settings, soon, udp_peer


def answer_200(request: SipRequest) -> bytes:
    return build_response(request, 200, to_tag="theirs").to_bytes()


async def test_a_request_reaches_the_services_and_its_answer_the_sender() -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint, udp_peer() as peer:
        peer.send(request_text(), endpoint.bound["udp"])
        response = await peer.next_message()
        assert isinstance(response, SipResponse)
        assert response.status == 200
        assert response.to_address.tag
        assert response.top_via.rport == peer.port
        assert response.top_via.received == "127.0.0.1"
        incoming = await recorder.next()
        assert incoming.request.body == b"hello"
        assert (incoming.flow.transport, incoming.flow.remote_port) == ("udp", peer.port)
        assert incoming.flow.local_port == endpoint.bound["udp"][1]


async def test_a_repeated_request_reaches_the_services_once_and_is_answered_again() -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint, udp_peer() as peer:
        data = request_text()
        for _ in range(3):
            peer.send(data, endpoint.bound["udp"])
        answers = {await peer.next() for _ in range(3)}
        assert len(answers) == 1
        assert recorder.requests.qsize() == 1


async def test_without_rport_the_answer_goes_to_the_port_of_the_via() -> None:
    async with running() as endpoint, udp_peer() as sender, udp_peer() as listener:
        via = f"SIP/2.0/UDP 127.0.0.1:{listener.port};branch=z9hG4bK{{n}}"
        sender.send(request_text(via=via), endpoint.bound["udp"])
        assert (await listener.next()).startswith(b"SIP/2.0 200")


async def test_behind_nat_without_rport_the_answer_goes_to_the_source() -> None:
    async with running() as endpoint, udp_peer() as peer:
        via = "SIP/2.0/UDP 10.1.2.3:5060;branch=z9hG4bK{n};received=192.0.2.9"
        peer.send(request_text(via=via), endpoint.bound["udp"])
        response = await peer.next_message()
        assert response.top_via.received == "127.0.0.1"


@pytest.mark.parametrize(
    ("spoilt", "status"),
    [
        (request_text().replace(b"CSeq: 1 MESSAGE", b"CSeq: 1 INVITE"), 400),
        (request_text().replace(b"SIP/2.0\r\nVia", b"SIP/7.0\r\nVia"), 505),
        (request_text().replace(b"sip:ben@people.test SIP", b"nobody:ben SIP"), 416),
        (request_text(body="short").replace(b"Content-Length: 5", b"Content-Length: 999"), 400),
        (request_text(extra=["Max-Forwards: 70"]), 400),
    ],
)
async def test_a_malformed_request_is_answered_and_never_reaches_the_services(spoilt: bytes, status: int) -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint, udp_peer() as peer:
        peer.send(spoilt, endpoint.bound["udp"])
        response = await peer.next_message()
        assert isinstance(response, SipResponse)
        assert response.status == status
        assert recorder.requests.empty()


async def test_noise_is_dropped_and_the_next_request_is_served() -> None:
    async with running() as endpoint, udp_peer() as peer:
        noise = [b"", b"\r\n\r\n", b"\0", b"\0\0\0\0", b"hello", b"\x00\x01" + b"x" * 30, b"SIP/2.0 200", b"\xff" * 900]
        for data in [*noise, b"ACK sip:x SIP/2.0\r\n\r\n", request_text("ACK").replace(b"Call-ID", b"Nothing")]:
            peer.send(data, endpoint.bound["udp"])
        peer.send(request_text(), endpoint.bound["udp"])
        assert (await peer.next()).startswith(b"SIP/2.0 200")


@given(data=st.binary(max_size=200))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_datagram_makes_the_endpoint_raise(data: bytes) -> None:
    async def play() -> None:
        async with running() as endpoint:
            flow = endpoint._transports.udp_flow("127.0.0.1", 9)
            endpoint.datagram_received(data, flow)
            endpoint.datagram_received(request_text() + data, flow)
            endpoint.datagram_received(data + request_text(), flow)

    asyncio.run(play())


async def test_an_error_in_a_service_is_answered_500_and_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()

    def fail_once(incoming: IncomingRequest) -> None:
        if incoming.request.body == b"poison":
            raise RuntimeError("a mistake")
        recorder.on_request(incoming)

    async with running(on_request=fail_once) as endpoint, udp_peer() as peer:
        peer.send(request_text(body="poison"), endpoint.bound["udp"])
        assert (await peer.next()).startswith(b"SIP/2.0 500")
        peer.send(request_text(), endpoint.bound["udp"])
        assert (await peer.next()).startswith(b"SIP/2.0 200")
    assert "a mistake" in caplog.text


async def test_a_stun_binding_request_is_answered_with_the_senders_address() -> None:
    """RFC 5626 section 4.4.2: the keep-alive of UDP flows."""
    async with running() as endpoint, udp_peer() as peer:
        transaction = b"abcdefghijkl"
        peer.send(struct.pack("!HHI12s", 1, 0, 0x2112A442, transaction), endpoint.bound["udp"])
        answer = await peer.next()
        kind, length, cookie, echoed = struct.unpack_from("!HHI12s", answer)
        assert (kind, length, cookie, echoed) == (0x0101, 12, 0x2112A442, transaction)
        attribute, _, _, family, port = struct.unpack_from("!HHBBH", answer, 20)
        assert (attribute, family, port ^ 0x2112) == (0x0020, 1, peer.port)
        address = struct.unpack_from("!I", answer, 28)[0] ^ 0x2112A442
        assert address == 0x7F000001


def test_stun_answers_ipv6_refuses_the_unknown_and_ignores_the_broken() -> None:
    head = struct.Struct("!HHI12s")
    plain = head.pack(1, 0, 0x2112A442, bytes(12))
    answer = binding_answer(plain, "2001:db8::1", 5060)
    assert answer is not None
    assert answer[20:28] == b"\0\x20\0\x14\0\x02" + struct.pack("!H", 5060 ^ 0x2112)
    unknown = head.pack(1, 8, 0x2112A442, bytes(12)) + struct.pack("!HHI", 0x0024, 4, 7)
    refusal = binding_answer(unknown, "127.0.0.1", 5060)
    assert refusal is not None
    assert refusal[:2] == b"\x01\x11"
    optional = head.pack(1, 8, 0x2112A442, bytes(12)) + struct.pack("!HHI", 0x8022, 4, 7)
    assert binding_answer(optional, "127.0.0.1", 5060) is not None
    assert binding_answer(head.pack(0x0011, 0, 0x2112A442, bytes(12)), "127.0.0.1", 1) is None
    assert binding_answer(head.pack(1, 8, 0x2112A442, bytes(12)), "127.0.0.1", 1) is None
    assert binding_answer(head.pack(1, 4, 0x2112A442, bytes(12)) + b"\0\x24\0\x40", "127.0.0.1", 1) is None
    assert not is_stun(plain[:19])
    assert not is_stun(b"OPTIONS sip:x SIP/2.0\r\n")


async def test_our_request_is_answered_and_carries_via_and_max_forwards() -> None:
    async with running() as endpoint, udp_peer(answer_200) as peer:
        request = outgoing(f"sip:ben@127.0.0.1:{peer.port}")
        request.headers.remove("Max-Forwards")
        response = await soon(endpoint.request(request))
        assert response.status == 200
        sent = await peer.next_message()
        assert sent.top_via.port == endpoint.bound["udp"][1]
        assert sent.top_via.transport == "UDP"
        assert sent.top_via.branch.startswith("z9hG4bK")
        assert sent.max_forwards == 70
        assert "Via" not in request.headers  # the caller's request is its own


async def test_a_request_follows_its_route_or_the_next_hop_before_its_uri() -> None:
    async with running() as endpoint, udp_peer(answer_200) as route, udp_peer(answer_200) as hop:
        request = outgoing("sip:ben@192.0.2.1")
        request.headers.add("Route", f"<sip:127.0.0.1:{route.port};lr>")
        await soon(endpoint.request(request))
        assert route.received.qsize() == 1
        await soon(endpoint.request(request, NextHop(uri=SipUri.parse(f"sip:127.0.0.1:{hop.port}"))))
        assert hop.received.qsize() == 1


async def test_a_request_over_the_flow_of_a_registration_leaves_from_the_same_socket() -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint, udp_peer() as peer:
        peer.send(request_text("OPTIONS"), endpoint.bound["udp"])
        await peer.next()
        flow = (await recorder.next()).flow
        waiting = asyncio.ensure_future(endpoint.request(outgoing("sip:ben@unreachable.invalid"), NextHop(flow=flow)))
        request = await peer.next_message()
        assert isinstance(request, SipRequest)
        peer.send(build_response(request, 180).to_bytes(), endpoint.bound["udp"])
        peer.send(build_response(request, 486, to_tag="x").to_bytes(), endpoint.bound["udp"])
        assert (await soon(waiting)).status == 486
        assert endpoint.is_flow_alive(flow)


async def test_silence_is_a_timeout_after_retransmissions() -> None:
    async with running() as endpoint, udp_peer() as peer:
        with pytest.raises(RequestTimeoutError):
            await soon(endpoint.request(outgoing(f"sip:ben@127.0.0.1:{peer.port}")))
        assert peer.received.qsize() > 3
        assert endpoint.pending == 0


async def test_an_icmp_error_fails_the_request_long_before_its_timeout() -> None:
    async with running(timers=None) as endpoint:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            port = gone.getsockname()[1]
        with pytest.raises(TransportError, match="cannot be reached"):
            await soon(endpoint.request(outgoing(f"sip:ben@127.0.0.1:{port}")))


async def test_an_icmp_error_of_one_peer_does_not_lose_the_request_to_another() -> None:
    async with running() as endpoint, udp_peer(answer_200) as peer:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            port = gone.getsockname()[1]
        outcomes = await asyncio.gather(
            *(endpoint.request(outgoing(f"sip:x@127.0.0.1:{p}")) for p in (port, peer.port) * 10),
            return_exceptions=True,
        )
        assert all(isinstance(outcome, TransportError) for outcome in outcomes[::2])
        assert all(isinstance(outcome, SipResponse) for outcome in outcomes[1::2])


async def test_hundreds_of_icmp_errors_leave_the_listener_at_work() -> None:
    """libuv stops watching a socket whose error flag it sees; the listener must not depend on that."""
    async with running() as endpoint, udp_peer() as peer:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            port = gone.getsockname()[1]
        for _ in range(5):
            requests = (endpoint.request(outgoing(f"sip:x@127.0.0.1:{port}")) for _ in range(100))
            outcomes = await asyncio.gather(*requests, return_exceptions=True)
            assert all(isinstance(outcome, TransportError) for outcome in outcomes)
            peer.send(request_text(), endpoint.bound["udp"])
            assert (await peer.next()).startswith(b"SIP/2.0 200")


class FullSocket:
    """A UDP socket whose send buffer in the kernel is full for the first few datagrams."""

    def __init__(self, real: socket.socket, refusals: int) -> None:
        self._real = real
        self.refusals = refusals

    def sendto(self, data: bytes, address: tuple[str, int]) -> int:
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError
        return self._real.sendto(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_datagrams_that_the_kernel_does_not_take_at_once_are_sent_later_in_order() -> None:
    async with running() as endpoint, udp_peer() as peer:
        opened = endpoint._transports._udp[0]
        assert opened._socket is not None
        full = FullSocket(opened._socket, refusals=2)
        opened._socket = cast(socket.socket, full)
        words = [f"word {number}".encode() for number in range(200)]  # more than one write takes
        for word in words:
            assert opened.send(word, "127.0.0.1", peer.port)
        assert [await peer.next() for _ in words] == words
        assert not full.refusals
        assert opened.send(b"last", "127.0.0.1", peer.port)
        assert await peer.next() == b"last"


async def test_what_was_sent_before_the_listener_closed_still_leaves() -> None:
    async with udp_peer() as peer:
        async with running() as endpoint:
            assert endpoint._transports._udp[0].send(b"goodbye", "127.0.0.1", peer.port)
        assert await peer.next() == b"goodbye"


async def test_an_address_without_a_route_fails_the_request_at_once() -> None:
    async with running(timers=None) as endpoint:
        with pytest.raises(TransportError, match="cannot be reached"):
            await soon(endpoint.request(outgoing("sip:ben@255.255.255.255")))  # broadcast, which nobody allowed us


async def test_a_message_too_large_for_udp_is_an_error_of_its_own() -> None:
    async with running() as endpoint, udp_peer(answer_200) as peer:
        good = asyncio.ensure_future(endpoint.request(outgoing(f"sip:x@127.0.0.1:{peer.port}")))
        with pytest.raises(TransportError, match="does not fit"):
            await endpoint.request(outgoing(f"sip:x@127.0.0.1:{peer.port}", body=b"x" * 70_000))
        assert (await soon(good)).status == 200


async def test_the_lean_way_calls_back_with_answers_and_errors() -> None:
    async with running() as endpoint, udp_peer(answer_200) as peer:
        outcomes: asyncio.Queue[SipResponse | TransportError] = asyncio.Queue()
        endpoint.request_nowait(outgoing(f"sip:ben@127.0.0.1:{peer.port}"), None, outcomes.put_nowait)
        endpoint.request_nowait(outgoing("sip:ben@absent.invalid"), None, outcomes.put_nowait)
        kinds = {type(await soon(outcomes.get())) for _ in range(2)}
        assert kinds == {SipResponse, TransportError}


async def test_a_cancelled_invite_is_reported_and_answered_487() -> None:
    recorder = Recorder(status=0)
    async with (
        running(recorder, on_cancel=lambda invite, _: recorder.cancelled.put_nowait(invite)) as endpoint,
        udp_peer() as peer,
    ):
        peer.send(request_text("INVITE", number=70_001), endpoint.bound["udp"])
        invite = await recorder.next()
        peer.send(request_text("CANCEL", number=70_001, body=""), endpoint.bound["udp"])
        assert await soon(recorder.cancelled.get()) is invite
        answers = [await peer.next_message()]
        invite.respond(487)
        while not any(r.status == 487 for r in answers if isinstance(r, SipResponse)):
            answers.append(await peer.next_message())
        assert any(isinstance(r, SipResponse) and r.status == 200 and r.cseq.method == "CANCEL" for r in answers)


async def test_without_a_cancel_sink_the_endpoint_answers_487_and_a_stray_cancel_481() -> None:
    recorder = Recorder(status=0)
    async with running(recorder) as endpoint, udp_peer() as peer:
        peer.send(request_text("CANCEL", body=""), endpoint.bound["udp"])
        assert (await peer.next()).startswith(b"SIP/2.0 481")
        peer.send(request_text("INVITE", number=70_002), endpoint.bound["udp"])
        await recorder.next()
        peer.send(request_text("CANCEL", number=70_002, body=""), endpoint.bound["udp"])
        seen = b""
        while b"SIP/2.0 487" not in seen:
            seen = await peer.next()


async def test_the_ack_of_a_2xx_reaches_the_services_and_cannot_be_answered() -> None:
    recorder = Recorder(status=0)
    async with running(recorder) as endpoint, udp_peer() as peer:
        peer.send(request_text("ACK", body=""), endpoint.bound["udp"])
        ack = await recorder.next()
        assert ack.request.method == "ACK"
        ack.respond(200)
        assert peer.received.empty()


async def test_our_ack_goes_out_without_a_transaction() -> None:
    async with running() as endpoint, udp_peer() as peer:
        endpoint.send_ack(outgoing(f"sip:ben@127.0.0.1:{peer.port}", "ACK", b""))
        assert (await peer.next()).startswith(b"ACK ")
        assert endpoint.pending == 0


async def test_stopping_fails_what_waits() -> None:
    async with udp_peer() as peer:
        async with running(timers=None) as endpoint:
            waiting = asyncio.ensure_future(endpoint.request(outgoing(f"sip:ben@127.0.0.1:{peer.port}")))
            await peer.next()
        with pytest.raises(TransportError, match="stopping"):
            await soon(waiting)


async def test_a_port_in_use_is_named_with_the_remedy_and_nothing_stays_open() -> None:
    async with running() as endpoint:
        port = endpoint.bound["udp"][1]
        other = NetworkSipEndpoint(
            SipSettings(
                listeners=(Listener(transport=Transport.TCP, port=0), Listener(transport=Transport.UDP, port=port))
            ),
            trace=Trace(lambda: 0.0),
            on_request=lambda incoming: None,
        )
        with pytest.raises(ConfigurationError, match=rf"port {port} \(udp\) is already in use.*sip\.listeners"):
            await other.start()
        await other.stop()


@pytest.mark.parametrize(
    ("number", "text"), [(errno.EACCES, "above 1023"), (errno.EADDRNOTAVAIL, "no such address"), (errno.EIO, "opened")]
)
def test_every_refusal_of_a_socket_has_a_remedy(number: int, text: str) -> None:
    error = binding_error(OSError(number, "x"), "192.0.2.1", 5060, "tcp")
    assert text in str(error)
    assert "sip.listeners" in str(error)


async def test_the_trace_shows_messages_without_bodies_and_credentials() -> None:
    trace = Trace(lambda: 0.0)
    lines: list[TraceLine] = []
    async with running(trace=trace) as endpoint, udp_peer() as peer:
        stop = trace.listen(lines.append)
        secret = 'Authorization: Digest username="ana", response="abc"'
        peer.send(request_text(body="private words", extra=[secret]), endpoint.bound["udp"])
        await peer.next()
        stop()
        peer.send(request_text(), endpoint.bound["udp"])
        await peer.next()
    assert [line.mark for line in lines] == ["<", ">"]
    assert lines[0].link == f"sip udp 127.0.0.1:{peer.port}"
    assert lines[0].people == ("ana@corp.test", "ben@people.test")
    assert lines[0].call_id.startswith("call-")
    assert "private words" not in lines[0].text
    assert "abc" not in lines[0].text
    assert "Authorization: (left out)" in lines[0].text


async def test_bodies_are_traced_when_the_operator_wants_them() -> None:
    trace = Trace(lambda: 0.0)
    lines: list[TraceLine] = []
    async with running(trace=trace, has_trace_bodies=True) as endpoint, udp_peer() as peer:
        trace.listen(lines.append)
        peer.send(request_text(body="private words"), endpoint.bound["udp"])
        await peer.next()
    assert "private words" in lines[0].text


async def test_contact_uris_name_the_listener_or_the_advertised_host() -> None:
    async with running() as endpoint:
        udp, tcp = endpoint.bound["udp"][1], endpoint.bound["tcp"][1]
        assert str(endpoint.contact_uri("ana", "udp")) == f"sip:ana@127.0.0.1:{udp}"
        assert str(endpoint.contact_uri("ana", "tcp")) == f"sip:ana@127.0.0.1:{tcp};transport=tcp"
        assert str(endpoint.contact_uri("", "wss", host="h.test")) == f"sip:h.test:{udp}"
    async with running(config=settings("udp", advertised_host="sip.corp.test")) as endpoint, udp_peer() as peer:
        assert endpoint.contact_uri("ana", "udp").host == "sip.corp.test"
        endpoint.request_nowait(outgoing(f"sip:ben@127.0.0.1:{peer.port}"), None, lambda outcome: None)
        assert (await peer.next_message()).top_via.host == "sip.corp.test"


async def test_a_wildcard_listener_names_an_address_that_can_be_reached() -> None:
    config = SipSettings(listeners=(Listener(transport=Transport.UDP, host="0.0.0.0", port=0),))
    async with running(config=config) as endpoint, udp_peer() as peer:
        assert endpoint.contact_uri("ana", "udp").host != "0.0.0.0"
        endpoint.request_nowait(outgoing(f"sip:ben@127.0.0.1:{peer.port}"), None, lambda outcome: None)
        assert (await peer.next_message()).top_via.host == "127.0.0.1"


async def test_ipv6_is_served_like_ipv4() -> None:
    config = SipSettings(listeners=(Listener(transport=Transport.UDP, host="::1", port=0),))
    recorder = Recorder()
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with running(recorder, config) as endpoint:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
            peer.setblocking(False)
            peer.bind(("::1", 0))
            loop = asyncio.get_running_loop()
            port = peer.getsockname()[1]
            via = f"SIP/2.0/UDP [::1]:{port};branch=z9hG4bK{{n}}"
            peer.sendto(request_text(via=via), endpoint.bound["udp"])
            response = parse_message(await soon(loop.sock_recv(peer, 4096)))
            assert isinstance(response, SipResponse)
            assert response.status == 200
            assert str(endpoint.contact_uri("ana", "udp")).startswith("sip:ana@[::1]:")


async def test_a_burst_larger_than_one_read_is_served_whole() -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint, udp_peer() as peer:
        for _ in range(130):
            peer.send(request_text(), endpoint.bound["udp"])
        for _ in range(130):
            assert (await peer.next()).startswith(b"SIP/2.0 200")
