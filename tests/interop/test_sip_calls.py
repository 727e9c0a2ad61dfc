"""Calls between SIP implementations that are not ours, through two SIP legs: SIPp for the details, baresip phones."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.baresip import Baresip
from tests.support.call_gateway import CallGateway, password_of
from tests.support.call_lab import audio
from tests.support.processes import free_port, wait_until
from tests.support.prosody import private_loopback_address
from tests.support.sipp import Sipp, needs_sipp, step

pytestmark = [pytest.mark.interop]

needs_baresip = pytest.mark.skipif(shutil.which("baresip") is None, reason="baresip is not installed")

SDP = """v=0
o=- {session} {version} IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio {port} RTP/AVP 0 101
a=rtpmap:101 telephone-event/8000
{extra}"""


def sdp(session: int, *, version: int = 1, port: int = 4000, extra: str = "") -> str:
    return SDP.format(session=session, version=version, port=port, extra=f"{extra}\n" if extra else "")


@dataclass
class Switchboard:
    """The gateway, pat's PBX and the branch office that ida is at."""

    gateway: CallGateway
    pbx: Sipp
    branch: Sipp


@pytest.fixture
async def switchboard(tmp_path: Path) -> AsyncIterator[Switchboard]:
    hosts = [private_loopback_address() for _ in range(2)]
    ports = [free_port(host=host) for host in hosts]
    peers = dict(zip(("pbx.test", "branch.test"), zip(hosts, ports, strict=True), strict=True))
    async with CallGateway(peers, audio()).running() as gateway:
        host, port = gateway.endpoint.bound["udp"]
        sipps = [Sipp(tmp_path, *where, f"{host}:{port}") for where in peers.values()]
        yield Switchboard(gateway, *sipps)
        for sipp in sipps:
            await sipp.stop()


# --- the steps of a caller (pat) ---


def _out(method: str, cseq: int, *headers: str, body: str = "", uri: str = "[next_url]", to: str = "[$1]") -> str:
    lines = [
        f"{method} {uri} SIP/2.0",
        "Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]",
        "Max-Forwards: 70",
        "From: <sip:pat@pbx.test>;tag=pat[call_number]",
        f"To: {to}",
        "Call-ID: [call_id]",
        f"CSeq: {cseq} {method}",
        "Contact: <sip:pat@[local_ip]:[local_port]>",
        *headers,
        *(["Content-Type: application/sdp"] if body else []),
        "Content-Length: [len]",
    ]
    return step("send", "\n".join(lines) + f"\n\n{body}", "" if method == "ACK" else 'retrans="500"')


def invite(*headers: str, body: str = "") -> str:
    return _out("INVITE", 1, *headers, body=body, uri="sip:ida@branch.test", to="<sip:ida@branch.test>")


_REMEMBER_TO = '<action><ereg regexp=".*" search_in="hdr" header="To:" assign_to="1"/></action>'


def expect(status: int, attributes: str = "") -> str:
    return f'<recv response="{status}" rrs="true" {attributes}>{_REMEMBER_TO}</recv>'


# --- the steps of a callee (ida) ---


def _answer(status: str, *headers: str, body: str = "", attributes: str = "") -> str:
    lines = [
        f"SIP/2.0 {status}",
        *("[last_Via:]", "[last_From:]", "[last_To:];tag=ida[call_number]", "[last_Call-ID:]", "[last_CSeq:]"),
        "Contact: <sip:ida@[local_ip]:[local_port]>",
        *headers,
        *(["Content-Type: application/sdp"] if body else []),
        "Content-Length: [len]",
    ]
    return step("send", "\n".join(lines) + f"\n\n{body}", attributes)


def _again(status: str, *headers: str, body: str = "") -> str:
    """An answer within the dialog: To has its tag already."""
    return _answer(status, *headers, body=body).replace("[last_To:];tag=ida[call_number]", "[last_To:]")


def asked(method: str) -> str:
    return f'<recv request="{method}"/>'


@needs_sipp
async def test_a_call_with_hold_and_the_end_by_the_callee(switchboard: Switchboard) -> None:
    bye = step(
        "send",
        "\n".join(
            [
                "BYE [next_url] SIP/2.0",
                "Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]",
                "Max-Forwards: 70",
                "From: [$2]",
                "To: [$3]",
                "[last_Call-ID:]",
                "CSeq: 7 BYE",
                "Content-Length: 0",
            ]
        )
        + "\n\n",
        'retrans="500"',
    )
    who = (
        '<action><ereg regexp=".*" search_in="hdr" header="To:" assign_to="2"/>'
        '<ereg regexp=".*" search_in="hdr" header="From:" assign_to="3"/></action>'
    )
    callee = await switchboard.branch.play(
        "\n".join(
            [
                '<recv request="INVITE" rrs="true"/>',
                _answer("180 Ringing"),
                _answer("200 OK", body=sdp(2, port=5000), attributes='retrans="500"'),
                asked("ACK"),
                '<recv request="INVITE"/>',
                _again("200 OK", body=sdp(2, version=2, port=5000, extra="a=recvonly")),
                f'<recv request="ACK" rrs="true">{who}</recv>',
                bye,
                '<recv response="200"/>',
            ]
        ),
        is_server=True,
    )
    caller = await switchboard.pbx.play(
        "\n".join(
            [
                invite(body=sdp(1)),
                '<recv response="100" optional="true"/>',
                expect(180),
                expect(200),
                _out("ACK", 1),
                _out("INVITE", 2, body=sdp(1, version=2, extra="a=sendonly")),
                '<recv response="100" optional="true"/>',
                expect(200),
                _out("ACK", 2),
                asked("BYE"),
                _again("200 OK"),
            ]
        )
    )
    said = await caller.finished()
    heard = await callee.finished()
    offers = [message.body for message in heard if message.is_received and message.first_line.startswith("INVITE")]
    assert "m=audio 4000" in offers[0]
    assert "a=sendonly" in offers[1]
    answers = [message.body for message in said if message.is_received and message.status == 200 and message.body]
    assert "m=audio 5000" in answers[0]
    assert "a=recvonly" in answers[1]
    assert len(switchboard.gateway.calls.dialogs) == 0


@needs_sipp
async def test_reliable_early_media_on_both_sides(switchboard: Switchboard) -> None:
    callee = await switchboard.branch.play(
        "\n".join(
            [
                '<recv request="INVITE"/>',
                _answer("183 Session Progress", "Require: 100rel", "RSeq: 4711", body=sdp(2, port=5000)),
                asked("PRACK"),
                _again("200 OK"),
                # The answer to the INVITE again, with the header fields that belong to it.
                step(
                    "send",
                    "SIP/2.0 200 OK\n[last_Via:]\n[last_From:]\n[last_To:]\n[last_Call-ID:]\n"
                    "CSeq: 1 INVITE\nContact: <sip:ida@[local_ip]:[local_port]>\nContent-Length: 0\n\n",
                ).replace("[last_Via:]", "Via: [$1]"),
                asked("ACK"),
                asked("BYE"),
                _again("200 OK"),
            ]
        ).replace(
            '<recv request="INVITE"/>',
            '<recv request="INVITE"><action>'
            '<ereg regexp=".*" search_in="hdr" header="Via:" assign_to="1"/></action></recv>',
            1,
        ),
        is_server=True,
    )
    caller = await switchboard.pbx.play(
        "\n".join(
            [
                invite("Require: 100rel", body=sdp(1)),
                '<recv response="100" optional="true"/>',
                '<recv response="183" rrs="true"><action>'
                '<ereg regexp=".*" search_in="hdr" header="To:" assign_to="1"/>'
                '<ereg regexp="[0-9]+" search_in="hdr" header="RSeq:" assign_to="2"/></action></recv>',
                _out("PRACK", 2, "RAck: [$2] 1 INVITE"),
                # The 200 to the PRACK and the 200 to the INVITE may come in either order.
                '<recv response="200"/>',
                '<recv response="200" rrs="true"/>',
                _out("ACK", 1),
                _out("BYE", 3),
                '<recv response="200"/>',
            ]
        )
    )
    said = await caller.finished()
    await callee.finished()
    (early,) = {message.body for message in said if message.is_received and message.status == 183}
    assert "m=audio 5000" in early


@needs_sipp
async def test_a_cancel_goes_through_with_its_reason(switchboard: Switchboard) -> None:
    callee = await switchboard.branch.play(
        "\n".join(
            [
                '<recv request="INVITE"><action>'
                '<ereg regexp=".*" search_in="hdr" header="Via:" assign_to="1"/></action></recv>',
                _answer("180 Ringing"),
                asked("CANCEL"),
                _again("200 OK"),
                step(
                    "send",
                    "SIP/2.0 487 Request Terminated\nVia: [$1]\n[last_From:]\n[last_To:];tag=ida[call_number]\n"
                    "[last_Call-ID:]\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
                ),
                asked("ACK"),
            ]
        ),
        is_server=True,
    )
    cancel = step(
        "send",
        "CANCEL sip:ida@branch.test SIP/2.0\n[last_Via:]\nMax-Forwards: 70\n"
        "From: <sip:pat@pbx.test>;tag=pat[call_number]\nTo: <sip:ida@branch.test>\nCall-ID: [call_id]\n"
        'CSeq: 1 CANCEL\nReason: SIP;cause=200;text="Call completed elsewhere"\nContent-Length: 0\n\n',
    )
    acknowledge = step(
        "send",
        "ACK sip:ida@branch.test SIP/2.0\n[last_Via:]\nMax-Forwards: 70\n"
        "From: <sip:pat@pbx.test>;tag=pat[call_number]\n[last_To:]\nCall-ID: [call_id]\n"
        "CSeq: 1 ACK\nContent-Length: 0\n\n",
    )
    caller = await switchboard.pbx.play(
        "\n".join(
            [
                invite(body=sdp(1)),
                '<recv response="100" optional="true"/>',
                '<recv response="180"/>',
                cancel,
                '<recv response="200"/>',
                '<recv response="487"/>',
                acknowledge,
            ]
        )
    )
    await caller.finished()
    heard = await callee.finished()
    (cancelled,) = [message for message in heard if message.first_line.startswith("CANCEL")]
    assert "Call completed elsewhere" in cancelled.header("Reason")


@needs_sipp
async def test_an_offer_in_the_200_and_its_answer_in_the_ack(switchboard: Switchboard) -> None:
    callee = await switchboard.branch.play(
        "\n".join(
            [
                '<recv request="INVITE"/>',
                _answer("200 OK", body=sdp(2, port=5000), attributes='retrans="500"'),
                asked("ACK"),
                asked("BYE"),
                _again("200 OK"),
            ]
        ),
        is_server=True,
    )
    caller = await switchboard.pbx.play(
        "\n".join(
            [
                invite(),
                '<recv response="100" optional="true"/>',
                expect(200),
                _out("ACK", 1, body=sdp(1, port=4400)),
                _out("BYE", 2),
                '<recv response="200"/>',
            ]
        )
    )
    said = await caller.finished()
    await callee.finished()
    (offer,) = {message.body for message in said if message.is_received and message.status == 200 and message.body}
    assert "m=audio 5000" in offer


@pytest.fixture
def short_sessions(switchboard: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 4028 section 5 allows no interval under 90 seconds; nobody waits that long for a test."""
    monkeypatch.setattr("isthmus.sip.session_timer.SMALLEST_INTERVAL_SECONDS", 2)
    switchboard.gateway.calls.minimum_session_seconds = 2


_TALKS = (
    '<recv request="INVITE"/>',
    _answer("200 OK", body=sdp(2, port=5000), attributes='retrans="500"'),
    asked("ACK"),
    asked("BYE"),
    _again("200 OK"),
)


@needs_sipp
@pytest.mark.usefixtures("short_sessions")
async def test_a_session_that_its_caller_does_not_refresh_is_ended(switchboard: Switchboard) -> None:
    callee = await switchboard.branch.play("\n".join(_TALKS), is_server=True)
    timer = ("Supported: timer", "Session-Expires: 3;refresher=uac")
    steps = [invite(*timer, body=sdp(1)), '<recv response="100" optional="true"/>', expect(200), _out("ACK", 1)]
    caller = await switchboard.pbx.play("\n".join([*steps, asked("BYE"), _again("200 OK")]))
    said = await caller.finished()
    await callee.finished()
    (answer,) = {m.header("Session-Expires") for m in said if m.is_received and m.status == 200}
    assert answer == "3;refresher=uac"
    (bye,) = (m for m in said if m.first_line.startswith("BYE"))
    assert "Q.850;cause=102" in bye.header("Reason")


@needs_sipp
@pytest.mark.usefixtures("short_sessions")
@pytest.mark.parametrize("method", ["UPDATE", "INVITE"])
async def test_a_session_is_refreshed_for_a_caller_who_leaves_it_to_us(switchboard: Switchboard, method: str) -> None:
    callee = await switchboard.branch.play("\n".join(_TALKS), is_server=True)
    allowed = "Allow: INVITE, ACK, BYE, CANCEL" + (", UPDATE" if method == "UPDATE" else "")
    timer = ("Supported: timer", "Session-Expires: 3;refresher=uas", allowed)
    steps = [invite(*timer, body=sdp(1)), '<recv response="100" optional="true"/>', expect(200), _out("ACK", 1)]
    for _ in range(2):
        body = sdp(1) if method == "INVITE" else ""
        steps += [asked(method), _again("200 OK", "Require: timer", "Session-Expires: 3;refresher=uac", body=body)]
        steps += [asked("ACK")] if method == "INVITE" else []
    caller = await switchboard.pbx.play("\n".join([*steps, _out("BYE", 2), '<recv response="200"/>']))
    said = await caller.finished()
    await callee.finished()
    refreshes = [m for m in said if m.is_received and m.first_line.startswith(f"{method} ")]
    assert {m.header("Session-Expires") for m in refreshes} == {"3;refresher=uac"}
    assert len({m.body.split("s=-")[0] for m in refreshes}) == 1, "the media are the same, and so is their version"


@needs_baresip
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_two_phones_talk_and_one_hangs_up(tmp_path: Path, transport: str) -> None:
    async with CallGateway({}, audio()).running() as gateway:
        host, port = gateway.endpoint.bound[transport]
        ana, bea = (
            Baresip(tmp_path / name, f"{name}@corp.test", password_of(name), f"{host}:{port}", transport)
            for name in ("ana", "bea")
        )
        try:
            await ana.start()
            await bea.start()
            await ana.command("dial", "sip:bea@corp.test")
            await bea.process.wait_for_output("Incoming call from: Ana")
            await ana.process.wait_for_output("180 Ringing")
            await bea.command("accept")
            for phone in (ana, bea):
                await phone.process.wait_for_output("Call established")
            assert len(gateway.calls.dialogs) == 2
            await ana.command("hold")
            await wait_until(lambda: len(gateway.glued[0].kinds(is_caller=False)) > 2, "the hold to be answered")
            await bea.command("hangup")
            for phone in (ana, bea):
                await phone.process.wait_for_output("CALL_CLOSED")
            await wait_until(lambda: len(gateway.calls.dialogs) == 0, "both dialogs to end")
            assert gateway.glued[0].is_over
        finally:
            await ana.stop()
            await bea.stop()
