"""What surrounds a running server fails: each time one sentence with the remedy, the right exit status or a retry, and
nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import resource
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from isthmus.sip.message import SipResponse
from tests.support.certificates import TestAuthority
from tests.support.faults.gateway import Gateway, hosted, routed
from tests.support.faults.sip_agent import SipAgent, private_address, request_octets, sip_agent
from tests.support.faults.traffic import Ledger, watch_requests, watch_stanzas
from tests.support.faults.xmpp_neighbour import XmppNeighbour, xmpp_neighbour
from tests.support.isthmus_process import IsthmusProcess
from tests.support.processes import Process, free_port, wait_until
from tests.support.prosody import needs_prosody

CONFIGURATION_ERROR, STORE_ERROR, STORE_LOCKED, UNAVAILABLE = 78, 74, 75, 69


@pytest.fixture
async def agent() -> AsyncIterator[SipAgent]:
    async with sip_agent(private_address()) as made:
        yield made


@pytest.fixture
async def gateway(xmpp: XmppNeighbour, agent: SipAgent, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(tmp_path / "gateway", xmpp.port, routed("corp.test", agent.host, agent.port), hosted("hosted.test"))
    yield made
    await made.stop()


async def say(agent: SipAgent, gateway: Gateway, number: int) -> SipResponse:
    """One message from ana to ben."""
    data = request_octets(
        "MESSAGE", "sip:ben@people.test", sender="ana@corp.test", via=agent.via, body=f"[sip {number}] hello".encode()
    )
    return await agent.exchange(data, gateway.udp, 30)


async def say_all(agent: SipAgent, gateway: Gateway, ledger: Ledger, numbers: range) -> list[SipResponse]:
    """Several, one after the other; enters what was acknowledged."""
    responses = []
    for number in numbers:
        responses.append(await say(agent, gateway, number))
        if responses[-1].status < 300:
            ledger.acknowledge({f"sip {number}"})
    return responses


def sentence(log: str) -> str:
    """The one line that says why it does not start."""
    assert "Traceback" not in log
    lines = [line for line in log.splitlines() if "cannot start" in line or line.startswith("isthmus: ")]
    assert len(lines) == 1, log
    return lines[0]


# --- the disk ---


async def test_a_disk_that_fills_up_refuses_new_messages_and_loses_none(
    gateway: Gateway, xmpp: XmppNeighbour, agent: SipAgent
) -> None:
    """The kernel refuses to let any file grow beyond 64 KiB, as on a full disk; then it allows it again."""
    ledger, back = Ledger(), Ledger()
    watch_stanzas(xmpp, ledger)
    watch_requests(agent, back)
    await gateway.start()
    await say_all(agent, gateway, ledger, range(40))
    assert (gateway.data / "isthmus.db-wal").stat().st_size > 65_536
    assert len(ledger.acknowledged) == 40
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
    refused = await say_all(agent, gateway, ledger, range(40, 45))
    assert [response.status for response in refused] == [500] * 5
    assert all(response.headers.get("Retry-After") for response in refused)
    errors: list[str] = []
    xmpp.on_stanza = lambda stanza: errors.append(stanza.get("type", "")) if stanza.get("id") == "m1" else None
    xmpp.send(
        "corp.test",
        "<message type='chat' id='m1' from='ben@people.test/x' to='ana@corp.test'><body>[xmpp 1]</body></message>",
    )
    await xmpp.ping("corp.test")
    assert errors == ["error"]
    assert "disk" in gateway.log
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    watch_stanzas(xmpp, ledger)
    assert [response.status for response in await say_all(agent, gateway, ledger, range(45, 50))] == [202] * 5
    await ledger.settled(20)
    assert len(ledger.acknowledged) == 45
    assert gateway.process.is_running
    assert "Traceback" not in gateway.log


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another program (this one) holds the write lock."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def test_a_database_that_another_program_locks_refuses_until_it_is_free(
    gateway: Gateway, xmpp: XmppNeighbour, agent: SipAgent
) -> None:
    ledger = Ledger()
    watch_stanzas(xmpp, ledger)
    await gateway.start()
    await say_all(agent, gateway, ledger, range(3))
    with locked(gateway.data / "isthmus.db"):
        refused = await say(agent, gateway, 3)
    assert refused.status == 500
    assert refused.headers.get("Retry-After")
    assert "is locked by process" in gateway.log
    await say_all(agent, gateway, ledger, range(4, 7))
    await ledger.settled(20)
    assert len(ledger.acknowledged) == 6
    # At the start it is a reason not to start, which passes by itself: EX_TEMPFAIL.
    await gateway.stop()
    with locked(gateway.data / "isthmus.db"):
        status, log = await gateway.refuses_to_start()
    assert status == STORE_LOCKED
    assert "locked by process" in sentence(log)
    assert "end that program" in sentence(log)
    await gateway.start()
    assert "Traceback" not in gateway.log


async def test_a_second_start_on_the_same_data_directory_is_refused_and_harms_nothing(
    gateway: Gateway, xmpp: XmppNeighbour, agent: SipAgent
) -> None:
    await gateway.start()
    second = Gateway(gateway.folder / "second", xmpp.port, hosted("other.test"))
    second.process.environment["ISTHMUS_DATA"] = str(gateway.data)
    status, log = await second.refuses_to_start()
    assert status == STORE_ERROR
    assert f"in use by process {gateway.process.pid}" in sentence(log)
    assert "stop it first" in sentence(log)
    assert (await say(agent, gateway, 1)).status == 202
    assert "isthmus" in await gateway.cli("status")
    gateway.assert_unharmed()


# --- the XMPP server ---


async def test_an_xmpp_server_that_is_absent_at_the_start_is_awaited_and_gets_everything(
    agent: SipAgent, tmp_path: Path
) -> None:
    port = free_port()
    gateway = Gateway(tmp_path / "gateway", port, routed("corp.test", agent.host, agent.port))
    ledger = Ledger()
    try:
        await gateway.begin()

        async def refuses_no_more() -> bool:
            try:
                await agent.is_served(gateway.udp, 0.3)
            except AssertionError:
                return False
            return True

        await wait_until(refuses_no_more, "SIP to be served", 30)
        await say_all(agent, gateway, ledger, range(20))
        assert len(ledger.acknowledged) == 20
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{gateway.web_port}/readyz")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["the component corp.test is not connected"]
        await gateway.process.wait_for_output("cannot be reached")
        async with xmpp_neighbour(port) as xmpp:
            watch_stanzas(xmpp, ledger)
            await xmpp.connected("corp.test")
            await ledger.settled(20)
            assert ledger.repeated == 0
            assert ledger.out_of_order == []
    finally:
        await gateway.stop()
    assert "Traceback" not in gateway.log


# --- ports ---


@contextmanager
def taken(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[None]:
    """Somebody else has this port."""
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", port))
        if kind is socket.SOCK_STREAM:
            other.listen()
        yield


async def test_a_port_that_is_taken_is_named_with_the_setting_that_chose_it(
    xmpp: XmppNeighbour, tmp_path: Path
) -> None:
    made = {name: Gateway(tmp_path / name, xmpp.port, hosted("corp.test")) for name in ("udp", "tcp", "ws", "web")}
    with (
        taken(made["udp"].sip_port, socket.SOCK_DGRAM),
        taken(made["tcp"].sip_port),
        taken(made["ws"].ports["ws"]),
        taken(made["web"].web_port),
    ):
        outcomes = await asyncio.gather(*(gateway.refuses_to_start() for gateway in made.values()))
    for (name, gateway), (status, log) in zip(made.items(), outcomes, strict=True):
        said = sentence(log)
        port = gateway.web_port if name == "web" else gateway.ports[name]
        assert status == (UNAVAILABLE if name == "web" else CONFIGURATION_ERROR), said
        assert f"port {port}" in said
        assert ("web.port" if name == "web" else "sip.listeners") in said


def _has_ended(process: Process) -> bool:
    return not process.is_running


@needs_prosody
async def test_a_port_of_the_embedded_prosody_that_is_taken_is_named_with_its_setting(tmp_path: Path) -> None:
    made = {name: IsthmusProcess(tmp_path / name) for name in ("component_port", "c2s_port")}
    for one in made.values():
        one.folder.mkdir()
        await one.cli("init", "--domain", "corp.test")
    with taken(made["component_port"].component_port), taken(made["c2s_port"].c2s_port):
        for one in made.values():
            await one.process.start()
        for name, one in made.items():
            process = one.process
            await wait_until(partial(_has_ended, process), "isthmus to give up", 30, detail=process.output)
            said = sentence(process.output())
            assert await process.stop() == CONFIGURATION_ERROR
            assert f"xmpp.{name}" in said
            assert "choose another port" in said


# --- certificates ---


async def test_a_certificate_that_cannot_be_used_is_told_at_the_start(xmpp: XmppNeighbour, tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    good, other = authority.issue("corp.test"), authority.issue("other.test")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("this is no certificate\n")
    cases = {
        "none": ("", "sip.tls.certificate"),
        "missing": (f'certificate = "nowhere.pem"\nprivate_key = "{good.private_key}"', "nowhere.pem does not exist"),
        "wrong-key": (f'certificate = "{good.certificate}"\nprivate_key = "{other.private_key}"', "belong together"),
        "garbage": (f'certificate = "{garbage}"\nprivate_key = "{good.private_key}"', "must be PEM"),
    }
    made = {
        name: Gateway(
            tmp_path / name, xmpp.port, hosted("corp.test"), sections=f"[sip.tls]\n{text}", transports=("tls",)
        )
        for name, (text, _) in cases.items()
    }
    outcomes = await asyncio.gather(*(gateway.refuses_to_start() for gateway in made.values()))
    for (name, (_, wanted)), (status, log) in zip(cases.items(), outcomes, strict=True):
        assert status == CONFIGURATION_ERROR, name
        assert wanted in sentence(log)


async def test_an_expired_certificate_is_told_and_the_other_listeners_are_served(
    xmpp: XmppNeighbour, agent: SipAgent, tmp_path: Path
) -> None:
    """Edge case 44: the administrator sees which of the things about a certificate is wrong."""
    expired = TestAuthority(tmp_path).issue("corp.test", is_expired=True)
    tls = f'[sip.tls]\ncertificate = "{expired.certificate}"\nprivate_key = "{expired.private_key}"'
    gateway = Gateway(tmp_path / "gateway", xmpp.port, hosted("corp.test"), sections=tls, transports=("tls",))
    await gateway.start()
    try:
        await agent.is_served(gateway.udp)
        assert "expired" in gateway.log
        assert "renew" in gateway.log
    finally:
        await gateway.stop()


# --- configuration ---


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, "isthmus init"),
        ("this is not TOML", "is not TOML"),
        ("[sip]\nlistners = []\n", "sip.listners"),
        ('[[domains]]\nname = "corp.test"\nkind = "routed"\ncomponent_secret = "s3cr3t"\n', "name at least one peer"),
    ],
)
async def test_a_configuration_that_cannot_be_is_told_in_one_sentence(
    gateway: Gateway, text: str | None, wanted: str
) -> None:
    if text is None:
        gateway.configuration.unlink()
    else:
        gateway.configuration.write_text(text)
    status, log = await gateway.refuses_to_start()
    assert status == CONFIGURATION_ERROR
    assert wanted in log
    assert len(log.strip().splitlines()) == 1
    assert "s3cr3t" not in log


async def test_a_data_directory_that_cannot_be_written_is_told(gateway: Gateway) -> None:
    gateway.process.environment["ISTHMUS_DATA"] = "/proc/isthmus"
    status, log = await gateway.refuses_to_start()
    assert status in (STORE_ERROR, CONFIGURATION_ERROR)
    assert "Traceback" not in log
