"""The embedded rtpengine and coturn: started, adopted, restarted, stopped, and missing; and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aioice.stun
import aioice.turn
import pytest
from pydantic import SecretStr

from isthmus.config import BusinessDomain, Configuration, MediaSettings, TurnSettings, XmppSettings
from isthmus.metrics import Metrics
from isthmus.model import Address
from isthmus.net.companion_process import CompanionProcess
from isthmus.net.coturn_process import CoturnProcess, coturn_configuration
from isthmus.net.media_plane import MediaPlane
from isthmus.net.prosody_accounts import ProsodyAccounts
from isthmus.net.prosody_process import ProsodyProcess
from isthmus.net.rtpengine_process import RtpengineProcess, rtpengine_configuration
from isthmus.services.turn_credentials import turn_credentials
from isthmus.trace import Trace
from tests.support.processes import free_port
from tests.support.prosody import needs_prosody
from tests.support.rtpengine import needs_rtpengine
from tests.support.turn import needs_coturn
from tests.support.xmpp_client import XmppClient

Make = Callable[..., CompanionProcess]
BOTH = [
    pytest.param(RtpengineProcess, marks=[needs_rtpengine, pytest.mark.interop], id="rtpengine"),
    pytest.param(CoturnProcess, marks=[needs_coturn, pytest.mark.interop], id="coturn"),
]


def configuration(directory: Path, **turn: object) -> Configuration:
    settings = {"port": free_port(), "secret": SecretStr("shared"), **turn}
    return Configuration(
        data_directory=directory,
        media=MediaSettings(control_port=free_port()),
        turn=TurnSettings.model_validate(settings),
    )


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes processes and stops all of them in the end, whatever the test did."""
    made: list[CompanionProcess] = []

    def make(
        kind: type[RtpengineProcess] | type[CoturnProcess],
        config: Configuration,
        trace: Trace | None = None,
        **options: str,
    ) -> CompanionProcess:
        trace = trace or Trace(lambda: 0.0)
        made.append(kind(config, trace=trace, random_fraction=lambda: 0.0, **options))
        return made[-1]

    yield make
    for one in made:
        await one.stop()


def is_there(path: Path) -> bool:
    return path.exists()


def is_alive(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("kind", BOTH)
class TestTheProcesses:
    async def test_it_starts_and_stops_by_its_id_and_keeps_its_files_private(
        self, kind: type[RtpengineProcess], tmp_path: Path, process: Make
    ) -> None:
        one = process(kind, configuration(tmp_path))
        await one.start()
        pid = one.pid
        assert is_alive(pid)
        assert one.trouble == ""
        files = one._files
        assert stat.S_IMODE(files.configuration.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(files.configuration.stat().st_mode) == 0o600
        await one.stop()
        assert not is_alive(pid)

    async def test_one_left_by_a_crash_is_adopted_unless_it_was_told_something_else(
        self, kind: type[RtpengineProcess], tmp_path: Path, process: Make
    ) -> None:
        config = configuration(tmp_path)
        first = process(kind, config)
        await first.start()
        await first.leave_running()
        second = process(kind, config)
        await second.start()
        assert (second.pid, second.was_adopted) == (first.pid, True)
        await second.leave_running()

        changed = config.model_copy(
            update={
                "media": config.media.model_copy(update={"last_port": 38_000}),
                "turn": config.turn.model_copy(update={"last_port": 60_000}),
            }
        )
        third = process(kind, changed)
        await third.start()
        assert not third.was_adopted
        assert third.pid != first.pid
        assert first._child is not None
        await first._child.wait()

    async def test_one_that_dies_is_started_again_and_that_is_told(
        self, kind: type[RtpengineProcess], tmp_path: Path, process: Make
    ) -> None:
        trace, started = Trace(lambda: 0.0), asyncio.Event()
        one = process(kind, configuration(tmp_path), trace)
        one.on_started = started.set
        await one.start()
        pid = one.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            await started.wait()
        assert one.pid != pid
        assert is_alive(one.pid)
        assert any("has died" in line.text for line in trace.recent)

    async def test_a_taken_port_is_told_with_its_setting_and_tried_again(
        self, kind: type[RtpengineProcess], tmp_path: Path, process: Make
    ) -> None:
        config = configuration(tmp_path)
        port = config.media.control_port if kind is RtpengineProcess else config.turn.port
        one = process(kind, config)
        started = asyncio.Event()
        one.on_started = started.set
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", port))
            await one.start()
            assert one.pid is None
            assert "port)" in one.trouble
        async with asyncio.timeout(10):
            await started.wait()
        assert one.trouble == ""

    async def test_a_missing_program_is_told_with_the_remedy_and_stops_nothing(
        self, kind: type[RtpengineProcess], tmp_path: Path, process: Make
    ) -> None:
        one = process(kind, configuration(tmp_path), executable="no-such-program")
        await one.start()
        assert one.pid is None
        assert "apt-get install" in one.trouble


# --- the whole ---


@needs_rtpengine
@needs_coturn
@pytest.mark.interop
async def test_everything_that_media_need_is_up_within_a_second_and_down_again(tmp_path: Path) -> None:
    metrics = Metrics()
    plane = MediaPlane(configuration(tmp_path), identity="test", trace=Trace(lambda: 0.0), metrics=metrics)
    async with asyncio.timeout(5):
        await plane.start()
    assert plane.relays.is_available
    # The configuration of this test has an embedded rtpengine, so that it is not None.
    assert plane.status() == {"media_relays": [f"127.0.0.1:{plane.rtpengine.address.port} up"], "turn": "up"}  # type: ignore[union-attr]
    shown = {gauge.name: gauge.read() for gauge in metrics.gauges()}
    assert list(shown["isthmus_relay_up"].values()) == [1.0]
    assert list(shown["isthmus_relay_sessions"].values()) == [0.0]
    pids = [process.pid for process in plane._companions]
    await plane.stop()
    assert not any(is_alive(pid) for pid in pids)


async def test_without_anything_calls_that_need_a_relay_are_refused_and_nothing_else_happens(tmp_path: Path) -> None:
    config = Configuration(
        data_directory=tmp_path, media=MediaSettings(embedded=False), turn=TurnSettings(embedded=False)
    )
    plane = MediaPlane(config, identity="test", trace=Trace(lambda: 0.0), metrics=Metrics())
    await plane.start()
    assert not plane.relays.is_available
    assert plane.status() == {"media_relays": []}
    await plane.stop()
    assert not any(is_there(tmp_path / name) for name in ("rtpengine", "coturn"))


# --- TURN ---


@needs_coturn
@pytest.mark.interop
class TestTurn:
    async def test_credentials_that_we_make_are_taken_until_they_expire(self, tmp_path: Path, process: Make) -> None:
        config = configuration(tmp_path)
        await process(CoturnProcess, config).start()
        fresh = turn_credentials(config.turn, "ana@corp.test", time.time())
        assert await allocates(config.turn.port, fresh.username, fresh.password)
        old = turn_credentials(config.turn, "ana@corp.test", time.time() - config.turn.credential_seconds - 10)
        assert not await allocates(config.turn.port, old.username, old.password)
        assert not await allocates(config.turn.port, fresh.username.replace("ana", "eva"), fresh.password)

    async def test_media_reach_people_and_no_private_network(self, tmp_path: Path, process: Make) -> None:
        config = configuration(tmp_path, allowed_peers=["10.1.2.0/24"])
        await process(CoturnProcess, config).start()
        made = turn_credentials(config.turn, "ana@corp.test", time.time())
        reachable = [await permits(config, made.username, made.password, peer) for peer in
                     ("127.0.0.1", "9.9.9.9", "10.1.2.3", "10.1.3.3", "192.168.1.1", "169.254.169.254")]  # fmt: skip
        assert reachable == [True, True, True, False, False, False]


@needs_coturn
@needs_prosody
@pytest.mark.interop
async def test_a_client_asks_its_own_server_and_the_credentials_it_gets_are_taken(
    tmp_path: Path, process: Make
) -> None:
    """XEP-0215: Prosody makes them from the same secret."""
    xmpp = XmppSettings(
        component_port=free_port(), c2s_port=free_port(), s2s_port=free_port(), websocket_port=free_port()
    )
    domain = BusinessDomain(name="corp.test", component_secret=SecretStr("component"))
    config = configuration(tmp_path).model_copy(update={"xmpp": xmpp, "domains": (domain,)})
    await process(CoturnProcess, config).start()
    prosody = ProsodyProcess(config, trace=Trace(lambda: 0.0))
    await prosody.start()
    await ProsodyAccounts(prosody.paths).create(Address("ben", "people.test"), "pw")
    client = XmppClient("ben@people.test/phone", "pw", "127.0.0.1", xmpp.c2s_port)
    await client.start()
    answer = await client.query(
        "<iq type='get' id='turn' to='people.test'><services xmlns='urn:xmpp:extdisco:2'/></iq>"
    )
    services = {
        (one.get("type"), one.get("transport")): dict(one.attrib) for one in answer.iter("{urn:xmpp:extdisco:2}service")
    }
    assert {("stun", "udp"), ("turn", "udp"), ("turn", "tcp")} <= services.keys()
    turn = services["turn", "udp"]
    assert (turn["host"], turn["port"]) == ("127.0.0.1", str(config.turn.port))
    assert await allocates(config.turn.port, turn["username"], turn["password"])
    await client.stop()
    await prosody.stop()


@contextlib.asynccontextmanager
async def client(port: int, username: str, password: str) -> AsyncIterator[aioice.turn.TurnClientUdpProtocol]:
    server = ("127.0.0.1", port)

    def make() -> aioice.turn.TurnClientUdpProtocol:
        return aioice.turn.TurnClientUdpProtocol(
            server, username=username, password=password, lifetime=600, channel_refresh_time=500
        )

    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(make, remote_addr=server)
    yield protocol
    transport.close()


async def allocates(port: int, username: str, password: str) -> bool:
    async with client(port, username, password) as protocol:
        try:
            await protocol.connect()
        except aioice.stun.TransactionFailed:
            return False
        await protocol.delete()
        return True


async def permits(config: Configuration, username: str, password: str, peer: str) -> bool:
    """Whether the server would send to this peer: a channel can be bound to it (RFC 8656 section 12.2)."""
    refusals = []
    async with client(config.turn.port, username, password) as protocol:
        await protocol.connect()
        try:
            await protocol.channel_bind(0x4001, (peer, 40_000))
        except aioice.stun.TransactionFailed as error:
            refusals.append(error.response.attributes["ERROR-CODE"][0])
        await protocol.delete()
    assert refusals in ([], [403])
    return not refusals


# --- what they are told ---


def test_rtpengine_is_told_where_it_is_and_what_people_see() -> None:
    media = MediaSettings(host="10.0.0.5", advertised_host="198.51.100.7", first_port=30_000, last_port=31_000)
    lines = rtpengine_configuration(media, Path("/srv/isthmus/rtpengine")).splitlines()
    assert "interface = 10.0.0.5!198.51.100.7" in lines
    assert "listen-ng = 127.0.0.1:22222" in lines
    assert "pidfile = /srv/isthmus/rtpengine/rtpengine.pid" in lines
    assert {"port-min = 30000", "port-max = 31000", "table = -1"} <= set(lines)
    assert "interface = 127.0.0.1" in rtpengine_configuration(MediaSettings(), Path("/x")).splitlines()


def test_coturn_trusts_our_secret_alone_and_keeps_out_of_private_networks() -> None:
    turn = TurnSettings(host="10.0.0.5", external_address="198.51.100.7", secret=SecretStr("s3cret"))
    lines = coturn_configuration(turn, "people.test", Path("/srv/isthmus/coturn")).splitlines()
    assert {"use-auth-secret", "static-auth-secret=s3cret", "realm=people.test"} <= set(lines)
    assert {"no-cli", "no-tcp-relay", "no-multicast-peers"} <= set(lines)
    assert "external-ip=198.51.100.7/10.0.0.5" in lines
    assert "denied-peer-ip=10.0.0.0-10.255.255.255" in lines
    assert "denied-peer-ip=fc00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" in lines
    assert not any(line.startswith(("allowed-peer-ip", "allow-loopback-peers")) for line in lines)
    trial = coturn_configuration(TurnSettings(secret=SecretStr("s")), "people.test", Path("/x")).splitlines()
    assert {"allow-loopback-peers", "allowed-peer-ip=127.0.0.1"} <= set(trial)


@pytest.mark.parametrize(
    ("path", "generated"),
    [
        (
            "deploy/rtpengine/rtpengine.conf",
            rtpengine_configuration(
                MediaSettings(host="10.0.0.7", advertised_host="198.51.100.7"), Path("/run/rtpengine")
            ).replace("listen-ng = 127.0.0.1:", "listen-ng = 10.0.0.7:"),
        ),
        (
            "deploy/coturn/turnserver.conf",
            coturn_configuration(
                TurnSettings(host="10.0.0.9", external_address="198.51.100.9", secret=SecretStr("change-me")),
                "people.example",
                Path("/var/lib/turn"),
            ),
        ),
    ],
)
def test_the_examples_for_other_machines_say_what_the_embedded_ones_are_told(path: str, generated: str) -> None:
    example = (Path(__file__).parents[2] / path).read_text()
    assert example.splitlines()[1:] == generated.splitlines()[1:]
