"""SIP over WebSocket (RFC 7118) with a real client library."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from isthmus.config import Listener, SipSettings, Transport
from isthmus.errors import ConfigurationError
from isthmus.net.sip_connection import ConnectionLimits
from isthmus.net.sip_endpoint import NetworkSipEndpoint
from isthmus.ports import NextHop
from isthmus.sip.message import SipRequest, SipResponse, build_response
from isthmus.sip.parser import parse_message
from tests.support.sip_network import Recorder, outgoing, request_text, running, settings, soon

SIP = Subprotocol("sip")
WS_VIA = "SIP/2.0/WS df7jal23ls0d.invalid;branch=z9hG4bK{n};rport"


def url(endpoint: NetworkSipEndpoint) -> str:
    host, port = endpoint.bound["ws"]
    return f"ws://{host}:{port}/"


def browser(endpoint: NetworkSipEndpoint, origin: str = "") -> connect:
    return connect(url(endpoint), subprotocols=[SIP], origin=Origin(origin) if origin else None)


def ws_request(method: str = "MESSAGE", body: str = "hello") -> bytes:
    return request_text(method, via=WS_VIA, body=body)


async def next_response(client: ClientConnection) -> SipResponse:
    data = await soon(client.recv())
    message = parse_message(data.encode() if isinstance(data, str) else data)
    assert isinstance(message, SipResponse)
    return message


@pytest.mark.parametrize("is_text", [True, False])
async def test_text_and_binary_frames_are_both_requests(is_text: bool) -> None:
    recorder = Recorder()
    async with running(recorder, settings("ws")) as endpoint, browser(endpoint) as client:
        assert client.subprotocol == "sip"
        data = ws_request(body="grüße")
        await client.send(data.decode() if is_text else data)
        response = await next_response(client)
        assert response.status == 200
        assert response.top_via.host == "df7jal23ls0d.invalid"
        assert response.top_via.received == "127.0.0.1"
        flow = (await recorder.next()).flow
        assert flow.transport == "ws"
        assert flow.is_stream


async def test_content_length_is_not_needed_in_a_frame() -> None:
    async with running(config=settings("ws")) as endpoint, browser(endpoint) as client:
        await client.send(ws_request().replace(b"Content-Length: 5\r\n", b""))
        assert (await next_response(client)).status == 200


async def test_a_message_in_fragments_is_joined() -> None:
    recorder = Recorder()
    async with running(recorder, settings("ws")) as endpoint, browser(endpoint) as client:
        data = ws_request().decode()
        await client.send([data[:50], data[50:120], data[120:]])
        assert (await next_response(client)).status == 200
        assert (await recorder.next()).request.body == b"hello"


async def test_our_requests_go_over_the_browsers_own_connection() -> None:
    recorder = Recorder()
    async with running(recorder, settings("ws")) as endpoint, browser(endpoint) as client:
        await client.send(ws_request("OPTIONS").decode())
        await next_response(client)
        flow = (await recorder.next()).flow
        waiting = asyncio.ensure_future(endpoint.request(outgoing("sip:x@df7jal23ls0d.invalid"), NextHop(flow=flow)))
        frame = await soon(client.recv())
        assert isinstance(frame, str)
        request = parse_message(frame.encode())
        assert isinstance(request, SipRequest)
        assert request.top_via.transport == "WS"
        assert request.top_via.port == endpoint.bound["ws"][1]
        await client.send(build_response(request, 200, to_tag="x").to_bytes().decode())
        assert (await soon(waiting)).status == 200
        binary = asyncio.ensure_future(endpoint.request(outgoing("sip:x@y.invalid", body=b"\xff"), NextHop(flow=flow)))
        frame = await soon(client.recv())
        assert isinstance(frame, bytes)
        await client.close()
        with pytest.raises(Exception, match="cannot be reached"):
            await soon(binary)
        assert await soon(recorder.closed.get()) == flow


@pytest.mark.parametrize("subprotocols", [None, [Subprotocol("xmpp")]])
async def test_a_client_that_does_not_speak_sip_is_refused(subprotocols: list[Subprotocol] | None) -> None:
    async with running(config=settings("ws")) as endpoint:
        with pytest.raises(InvalidStatus) as refusal:
            async with connect(url(endpoint), subprotocols=subprotocols):
                pass
        assert refusal.value.response.status_code == 400


async def test_pages_of_the_same_host_may_connect_and_foreign_ones_may_not() -> None:
    async with running(config=settings("ws")) as endpoint:
        async with browser(endpoint, "http://127.0.0.1:8080") as client:
            await client.send(ws_request())
            await next_response(client)
        with pytest.raises(InvalidStatus) as refusal:
            async with browser(endpoint, "https://evil.test"):
                pass
        assert refusal.value.response.status_code == 403


async def test_configured_origins_replace_the_same_host_rule() -> None:
    config = settings("ws", websocket_origins=("https://phone.corp.test",))
    async with running(config=config) as endpoint:
        async with browser(endpoint, "https://phone.corp.test"):
            pass
        for origin in ("http://127.0.0.1", "https://phone.corp.test.evil.test", "null"):
            with pytest.raises(InvalidStatus):
                async with browser(endpoint, origin):
                    pass


async def test_a_malformed_message_is_answered_and_the_connection_lives_on() -> None:
    async with running(config=settings("ws")) as endpoint, browser(endpoint) as client:
        await client.send(ws_request().replace(b"CSeq: 1 MESSAGE", b"CSeq: 1 INVITE"))
        assert (await next_response(client)).status == 400
        await client.send("not SIP at all")
        await client.send("\r\n\r\n")
        assert await soon(client.recv()) == "\r\n"
        await client.send(ws_request())
        assert (await next_response(client)).status == 200


async def test_a_message_that_is_too_large_ends_the_connection() -> None:
    async with running(config=settings("ws")) as endpoint, browser(endpoint) as client:
        await client.send(b"x" * (300 << 10))
        with pytest.raises(ConnectionClosed):
            await soon(client.recv())


async def test_plain_http_gets_an_answer_and_no_connection() -> None:
    async with running(config=settings("ws")) as endpoint:
        reader, writer = await asyncio.open_connection(*endpoint.bound["ws"])
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"426" in await soon(reader.readline())
        await soon(reader.read())
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("subprotocol", ["sip", "xmpp"])
async def test_noise_behind_the_handshake_ends_the_connection_without_a_mistake_of_ours(
    subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    handshake = (
        "GET / HTTP/1.1\r\nHost: {0}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {1}\r\n\r\n"
    )
    async with running(config=settings("ws")) as endpoint:
        host, port = endpoint.bound["ws"]
        reader, writer = await soon(asyncio.open_connection(host, port))
        writer.write(handshake.format(host, subprotocol).encode() + b"\xff\xff noise")
        await soon(reader.read())
        writer.close()
        async with browser(endpoint) as client:
            await client.send(ws_request().decode())
            assert (await next_response(client)).status == 200
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_keep_alive_in_one_read_with_the_goodbye_needs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with running(config=settings("ws")) as endpoint, browser(endpoint) as client:
        client.protocol.send_text(b"\r\n\r\n")
        client.protocol.send_close()
        client.transport.write(b"".join(client.protocol.data_to_send()))
        await soon(client.wait_closed())
    assert not [record for record in caplog.records if record.exc_info]


async def test_silent_browsers_are_pinged_and_dropped_when_they_are_gone() -> None:
    recorder = Recorder()
    limits = ConnectionLimits(sweep_seconds=0.01, keep_alive_seconds=0.02, pong_seconds=0.1)
    async with running(recorder, settings("ws"), limits=limits) as endpoint, browser(endpoint) as client:
        await client.send(ws_request())
        await next_response(client)
        client.transport.pause_reading()  # a laptop that was closed: the connection stays, nobody answers
        assert (await soon(recorder.closed.get())).transport == "ws"
        client.transport.abort()


async def test_stopping_says_goodbye() -> None:
    async with running(config=settings("ws")) as endpoint, browser(endpoint) as client:
        await client.send(ws_request())
        await next_response(client)
        await endpoint.stop()
        with pytest.raises(ConnectionClosed) as closing:
            await soon(client.recv())
        assert closing.value.rcvd is not None
        assert closing.value.rcvd.code == 1001


async def test_clear_text_is_refused_where_others_could_listen() -> None:
    config = SipSettings(listeners=(Listener(transport=Transport.WS, host="0.0.0.0", port=0),))
    with pytest.raises(ConfigurationError, match="wss"):
        async with running(config=config):
            pass


async def test_contact_of_a_browser_path_names_the_transport() -> None:
    async with running(config=settings("ws")) as endpoint:
        assert endpoint.contact_uri("ana", "ws").param("transport") == "ws"
