"""What must not get out does not: not in the log, not in the trace, not in metrics, not through files and sockets.

The server runs at log level debug with somebody listening to its trace, and does everything that involves a secret.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.faults.gateway import PASSWORD, SECRET, Gateway, hosted, routed
from tests.support.faults.phone import phone
from tests.support.faults.sip_agent import SipAgent, private_address, request_octets, sip_agent
from tests.support.faults.xmpp_neighbour import XmppNeighbour
from tests.support.processes import Process, wait_until

ANA, JOE, BEN = "ana@corp.test", "joe@pbx.test", "ben@people.test"
# Said by people, in every place where people say something; nobody else may read it.
PRIVATE = "the merger is on friday"


@pytest.fixture
async def pbx() -> AsyncIterator[SipAgent]:
    async with sip_agent(private_address()) as made:
        yield made


@pytest.fixture
async def gateway(xmpp: XmppNeighbour, pbx: SipAgent, tmp_path: Path) -> AsyncIterator[Gateway]:
    domains = hosted("corp.test"), routed("pbx.test", pbx.host, pbx.port)
    made = Gateway(tmp_path / "gateway", xmpp.port, *domains, sections='[log]\nlevel = "debug"')
    await made.start()
    await made.add_users(ANA)
    yield made
    await made.stop()


@pytest.fixture
async def tracing(gateway: Gateway) -> AsyncIterator[Process]:
    """`isthmus trace`, which shows everything on the wire."""
    child = Process(
        [sys.executable, "-m", "isthmus.cli", "trace", "--json"],
        gateway.folder / "trace.log",
        environment={**gateway.process.environment, "PYTHONUNBUFFERED": "1"},
    )
    await child.start()

    async def listens() -> bool:
        async with sip_agent() as probe:
            await probe.is_served(gateway.udp)
        return "OPTIONS" in child.output()

    await wait_until(listens, "the trace to begin", 20)
    yield child
    await child.stop()


async def everything_that_involves_a_secret(gateway: Gateway, xmpp: XmppNeighbour, pbx: SipAgent) -> set[str]:
    """Return the digest responses that went over the wire."""
    proofs: set[str] = set()
    text = PRIVATE.encode()
    async with phone(gateway, ANA, PASSWORD) as ana:
        await ana.register()
        assert (await ana.say(BEN, PRIVATE)).status == 202
        for password in (PASSWORD, "a-wrong-guess"):
            (proof,) = ana.proof("MESSAGE", f"sip:{BEN}", password=password)
            proofs |= set(re.findall(r'response="(\w+)"', proof))
            data = request_octets("MESSAGE", f"sip:{BEN}", sender=ANA, via=ana.agent.via, body=text, headers=(proof,))
            await ana.agent.exchange(data, gateway.udp)
            # The same, damaged: folded, with bare line feeds, cut off, and as something that is no SIP at all.
            folded = data.replace(b", response=", b",\r\n response=").replace(
                b"\r\nAuthorization: ", b"\r\naUTHORIZATION :"
            )
            for damaged in (
                folded,
                data.replace(b"\r\n", b"\n"),
                data[:-5],
                b"?" + data,
                data.replace(b"SIP/2.0", b"SIP/7"),
            ):
                ana.agent.send(damaged, gateway.udp)
        await ana.agent.is_served(gateway.udp)
        people = f"from='{BEN}/x' to='{ANA}'"
        for number, inside in enumerate(
            (
                f"<body>{PRIVATE}</body>",
                f"<subject>{PRIVATE}</subject><body>{PRIVATE}</body>",
                f"<body xml:lang='de'>{PRIVATE}</body><html xmlns='http://jabber.org/protocol/xhtml-im'>"
                f"<body xmlns='http://www.w3.org/1999/xhtml'><p>{PRIVATE}</p></body></html>",
                f"<body>&gt; {PRIVATE}\nyes</body><reply xmlns='urn:xmpp:reply:0' id='1' to='{ANA}'/>"
                "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='5'/></fallback>",
                f"<x xmlns='jabber:x:oob'><url>https://x.test/{PRIVATE.replace(' ', '-')}</url>"
                f"<desc>{PRIVATE}</desc></x>",
                f"<body>{PRIVATE}</body><reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>&#128077;</reaction>"
                "</reactions><retract xmlns='urn:xmpp:message-retract:1' id='1'/>",
            )
        ):
            xmpp.send("corp.test", f"<message type='chat' id='secret-{number}' {people}>{inside}</message>")
        xmpp.send("corp.test", f"<message type='chat' {people}><body>{PRIVATE}</body>&broken;</message>")
        await xmpp.connected("corp.test")
        await ana.agent.expect_request(lambda request: text in request.body)
    for headers in ((), (f"Subject: {PRIVATE}",)):
        data = request_octets("MESSAGE", f"sip:{BEN}", sender=JOE, via=pbx.via, body=text, headers=headers)
        assert (await pbx.exchange(data, gateway.udp)).status == 202
        await pbx.exchange(data.replace(b"text/plain", b"image/png").replace(b"fault-", b"again-"), gateway.udp)
    reader, writer = await asyncio.open_connection(*gateway.udp, local_addr=(pbx.host, 0))
    writer.write(data.replace(b"Content-Length: ", b"Content-Length: -"))
    await reader.read(100)
    writer.close()
    return proofs


async def test_secrets_and_words_are_in_no_log_no_trace_and_no_metrics(
    gateway: Gateway, xmpp: XmppNeighbour, pbx: SipAgent, tracing: Process
) -> None:
    proofs = await everything_that_involves_a_secret(gateway, xmpp, pbx)
    async with sip_agent() as probe:
        last = request_octets("OPTIONS", "sip:corp.test", via=probe.via, call_id="the-last-one")
        await probe.exchange(last, gateway.udp)
    await tracing.wait_for_output("the-last-one")
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(f"http://127.0.0.1:{gateway.web_port}/metrics")).text
    said = {
        "log": gateway.log,
        "trace": tracing.output(),
        "metrics": metrics,
        "explain": await gateway.cli("explain", ANA, BEN),
        "status": await gateway.cli("status", "--json"),
        "user list": await gateway.cli("user", "list", "--json"),
    }
    with sqlite3.connect(f"file:{gateway.data}/isthmus.db?mode=ro", uri=True) as database:
        rows = [str(row) for row in database.execute("SELECT * FROM users")]
    digests = set(re.findall(r"\b[0-9a-f]{32}(?:[0-9a-f]{32})?\b", " ".join(rows)))
    assert digests
    assert len(proofs) == 2
    for where, text in said.items():
        assert PASSWORD not in text, where
        assert SECRET not in text, where
        assert not [proof for proof in proofs if proof in text], where
        assert not [digest for digest in digests if digest in text], where
        assert PRIVATE not in text, where
        assert PRIVATE.replace(" ", "-") not in text, where
    assert "MESSAGE" in said["trace"]  # it did listen
    assert BEN in said["trace"]
    assert BEN not in metrics
    assert "Traceback" not in gateway.log


async def test_files_and_sockets_are_for_their_owner_alone(gateway: Gateway) -> None:
    assert stat.S_IMODE(gateway.data.stat().st_mode) == 0o700
    open_to_others = [
        f"{path.relative_to(gateway.data)} {oct(path.stat().st_mode)}"
        for path in gateway.data.rglob("*")
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not path.is_dir()
    ]
    assert open_to_others == []
    control = gateway.data / "control.sock"
    assert stat.S_ISSOCK(control.stat().st_mode)
    assert stat.S_IMODE(control.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try it as somebody else")
async def test_another_user_of_the_machine_cannot_open_the_control_socket(gateway: Gateway) -> None:
    # The way there is opened, so that the mode of the socket itself is what refuses.
    folder = gateway.data
    while folder != folder.parent and folder.stat().st_uid == 0 and folder != Path("/tmp"):
        folder.chmod(folder.stat().st_mode | 0o011)
        folder = folder.parent
    script = (
        "import os, socket, sys\nos.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try:\n    s.connect(sys.argv[1])\nexcept PermissionError:\n    sys.exit(13)\n"
    )
    done = subprocess.run(  # noqa: ASYNC221  # a moment
        [sys.executable, "-c", script, str(gateway.data / "control.sock")], capture_output=True, check=False
    )
    assert done.returncode == 13, done.stderr
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(str(gateway.data / "control.sock"))
