"""INVITEs over real sockets: every response is told, CANCEL, failover between targets, and the 2xx of late forks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from isthmus.errors import RequestTimeoutError, TransportError
from isthmus.ports import Flow, NextHop
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.routing import Target
from isthmus.sip.uri import SipUri
from tests.support.sip_network import Recorder, UdpPeer, outgoing, request_text, running, soon, stream_peer, udp_peer

Told = tuple[str, SipResponse | TransportError]


class Sink:
    """Keeps what becomes of an INVITE (`ports.InviteSink`)."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[Told] = asyncio.Queue()

    def provisional(self, response: SipResponse) -> None:
        self.told.put_nowait(("provisional", response))

    def accepted(self, response: SipResponse) -> None:
        self.told.put_nowait(("accepted", response))

    def failed(self, outcome: SipResponse | TransportError) -> None:
        self.told.put_nowait(("failed", outcome))

    async def next(self) -> tuple[str, int]:
        """What was told, and its status (0 for an error)."""
        kind, outcome = await soon(self.told.get())
        return kind, outcome.status if isinstance(outcome, SipResponse) else 0


class Listed:
    """A resolver that knows the answer."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.list = list(targets)

    async def targets(self, uri: SipUri) -> list[Target]:
        return self.list


def at(peer: UdpPeer) -> Target:
    return Target("udp", "127.0.0.1", peer.port)


def invite(uri: str = "sip:ben@people.test") -> SipRequest:
    return outgoing(uri, "INVITE", b"")


async def received(peer: UdpPeer, method: str) -> SipRequest:
    """The next request of this method; repeats of others are passed over."""
    while True:
        message = await peer.next_message()
        if isinstance(message, SipRequest) and message.method == method:
            return message


def answer(peer: UdpPeer, request: SipRequest, status: int, tag: str = "x") -> None:
    via = request.top_via
    response = build_response(request, status, to_tag=tag, headers=[("Contact", f"<sip:ben@127.0.0.1:{peer.port}>")])
    peer.send(response.to_bytes(), ("127.0.0.1", via.port))


async def test_every_response_is_told_and_each_2xx() -> None:
    async with running() as endpoint, udp_peer() as peer:
        sink = Sink()
        endpoint.invite(invite(f"sip:ben@127.0.0.1:{peer.port}"), None, sink)
        request = await received(peer, "INVITE")
        for status, tag in ((100, ""), (180, "a"), (183, "b"), (200, "a"), (200, "b"), (200, "a")):
            answer(peer, request, status, tag)
        told = [await sink.next() for _ in range(5)]
        assert told == [("provisional", 180), ("provisional", 183)] + [("accepted", 200)] * 3


async def test_a_failure_is_acknowledged_and_told_once_and_a_late_2xx_follows() -> None:
    async with running() as endpoint, udp_peer() as peer:
        sink = Sink()
        endpoint.invite(invite(f"sip:ben@127.0.0.1:{peer.port}"), None, sink)
        request = await received(peer, "INVITE")
        answer(peer, request, 486)
        await received(peer, "ACK")
        answer(peer, request, 486)
        await received(peer, "ACK")
        answer(peer, request, 200, "fork")
        assert [await sink.next() for _ in range(2)] == [("failed", 486), ("accepted", 200)]
        assert sink.told.empty()


async def test_cancel_carries_its_reason_once_somebody_has_answered_at_all() -> None:
    async with running() as endpoint, udp_peer() as peer:
        sink = Sink()
        sent = endpoint.invite(invite(f"sip:ben@127.0.0.1:{peer.port}"), None, sink)
        request = await received(peer, "INVITE")
        sent.cancel("SIP;cause=200")
        sent.cancel("twice")
        answer(peer, request, 180)
        cancel = await received(peer, "CANCEL")
        assert cancel.headers.get("reason") == "SIP;cause=200"
        assert cancel.branch == request.branch
        answer(peer, cancel, 200)
        answer(peer, request, 487)
        assert [await sink.next() for _ in range(2)] == [("provisional", 180), ("failed", 487)]
        sent.cancel()


async def test_nobody_answers() -> None:
    async with running() as endpoint, udp_peer() as peer:
        sink = Sink()
        endpoint.invite(invite(f"sip:ben@127.0.0.1:{peer.port}"), None, sink)
        kind, outcome = await soon(sink.told.get())
        assert kind == "failed"
        assert isinstance(outcome, RequestTimeoutError)


async def test_the_next_target_is_tried_after_503_silence_or_a_dead_connection() -> None:
    """RFC 3263 section 4.3: each with a new branch."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = Target("tcp", "127.0.0.1", gone.getsockname()[1])
    async with udp_peer() as busy, udp_peer() as silent, udp_peer() as good:
        resolver = Listed([dead, at(busy), at(silent), at(good)])
        async with running(resolver=resolver) as endpoint:
            sink = Sink()
            endpoint.invite(invite(), None, sink)
            first = await received(busy, "INVITE")
            answer(busy, first, 503)
            second, third = await received(silent, "INVITE"), await received(good, "INVITE")
            assert len({request.branch for request in (first, second, third)}) == 3
            answer(good, third, 200)
            assert await sink.next() == ("accepted", 200)
            assert sink.told.empty()


async def test_a_target_that_rings_is_the_one() -> None:
    targets = Listed([])
    async with udp_peer() as first, udp_peer() as second, running(resolver=targets) as endpoint:
        targets.list = [at(first), at(second)]
        sink = Sink()
        endpoint.invite(invite(), None, sink)
        request = await received(first, "INVITE")
        answer(first, request, 180)
        answer(first, request, 503)
        assert [await sink.next() for _ in range(2)] == [("provisional", 180), ("failed", 503)]
        assert second.received.empty()


async def test_a_decision_of_a_target_is_not_asked_for_again() -> None:
    targets = Listed([])
    async with udp_peer() as first, udp_peer() as second, running(resolver=targets) as endpoint:
        targets.list = [at(first), at(second)]
        sink = Sink()
        endpoint.invite(invite(), None, sink)
        answer(first, await received(first, "INVITE"), 486)
        assert await sink.next() == ("failed", 486)
        assert second.received.empty()


async def test_a_cancelled_invite_moves_to_no_other_target() -> None:
    targets = Listed([])
    async with udp_peer() as first, udp_peer() as second, running(resolver=targets) as endpoint:
        targets.list = [at(first), at(second)]
        sink = Sink()
        sent = endpoint.invite(invite(), None, sink)
        request = await received(first, "INVITE")
        sent.cancel()
        answer(first, request, 503)
        assert await sink.next() == ("failed", 503)
        assert second.received.empty()


async def test_what_is_cancelled_before_a_way_is_found_was_never_sent() -> None:
    class Stuck:
        async def targets(self, uri: SipUri) -> list[Target]:
            never: asyncio.Future[list[Target]] = asyncio.get_running_loop().create_future()
            return await never

    async with running(resolver=Stuck()) as endpoint:
        sink = Sink()
        sent = endpoint.invite(invite(), None, sink)
        await asyncio.sleep(0)
        sent.cancel()
        assert await sink.next() == ("failed", 487)
        assert endpoint.pending == 0


async def test_nowhere_to_send_it_is_told_after_the_call_returned() -> None:
    async with running(resolver=Listed([])) as endpoint:
        for hop in (None, NextHop(flow=Flow("tcp", "127.0.0.1", 9, connection=7))):
            sink = Sink()
            endpoint.invite(invite(), hop, sink)
            assert sink.told.empty()
            kind, outcome = await soon(sink.told.get())
            assert kind == "failed"
            assert isinstance(outcome, TransportError)


async def test_stopping_fails_what_rings() -> None:
    async with udp_peer() as peer:
        sink, other = Sink(), Sink()
        async with running(timers=None, resolver=Listed([at(peer)])) as endpoint:
            endpoint.invite(invite(f"sip:ben@127.0.0.1:{peer.port}"), None, sink)
            endpoint.invite(invite(), None, other)
            await received(peer, "INVITE")
            await received(peer, "INVITE")
        assert (await sink.next())[0] == "failed"
        assert (await other.next())[0] == "failed"


async def test_a_connection_that_breaks_while_it_rings_is_told() -> None:
    recorder = Recorder()
    async with running(recorder) as endpoint, stream_peer(endpoint.bound["tcp"]) as peer:
        peer.send(request_text("OPTIONS", via="SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK{n}", body=""))
        flow = (await recorder.next()).flow
        await peer.next_message()
        sink = Sink()
        endpoint.invite(invite(), NextHop(flow=flow), sink)
        request = await peer.next_message()
        assert isinstance(request, SipRequest)
        peer.send(build_response(request, 180, to_tag="x").to_bytes())
        assert await sink.next() == ("provisional", 180)
        await peer.close()
        assert (await sink.next())[0] == "failed"


async def test_the_ack_of_a_2xx_goes_by_name_too() -> None:
    async with udp_peer() as peer, running(resolver=Listed([at(peer)])) as endpoint:
        endpoint.send_ack(outgoing("sip:ben@people.test", "ACK", b""))
        assert (await received(peer, "ACK")).method == "ACK"
        endpoint.send_ack(
            outgoing("sip:ben@people.test", "ACK", b""), NextHop(flow=Flow("tcp", "::1", 1, connection=9))
        )
        assert peer.received.empty(), "a connection that is gone takes nothing"
