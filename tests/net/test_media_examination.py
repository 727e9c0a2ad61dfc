"""The doctor's look at media: each finding names what fails and what to do; and the call through a real relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from isthmus.config import Configuration, Listener, MediaSettings, SipSettings, Transport, TurnSettings
from isthmus.errors import RelayError
from isthmus.metrics import Metrics
from isthmus.net.media_examination import MediaExamination
from isthmus.net.media_loopback import PACKETS, Carried, LoopbackCall
from isthmus.net.media_plane import MediaPlane
from isthmus.net.rtpengine_ng import NgAddress, NgClient
from isthmus.net.rtpengine_process import RtpengineProcess
from isthmus.services.administration import Finding
from isthmus.trace import Trace
from tests.support.processes import free_port
from tests.support.rtpengine import Rtpengine, needs_rtpengine
from tests.support.turn import needs_coturn

OFF: dict[str, Any] = {"media": MediaSettings(embedded=False), "turn": TurnSettings(embedded=False)}


def configuration(**changes: Any) -> Configuration:
    return Configuration(**{**OFF, **changes})


async def examined(config: Configuration, *, is_live: bool = False) -> list[Finding]:
    return await MediaExamination(config, is_live=is_live).examine()


def named(findings: list[Finding], name: str) -> Finding:
    found = [finding for finding in findings if finding.name == name]
    assert len(found) == 1, findings
    return found[0]


async def test_without_relay_and_turn_the_doctor_says_what_will_not_work() -> None:
    found = await examined(configuration())
    assert {finding.outcome for finding in found} == {"warn"}
    assert "calls between phones and XMPP are refused" in named(found, "media").detail
    assert "turn.secret" in named(found, "turn").remedy


async def test_a_relay_that_does_not_answer_is_named(tmp_path: Path) -> None:
    port = free_port()
    found = await examined(configuration(media=MediaSettings(embedded=False, ng=(f"udp:127.0.0.1:{port}",))))
    finding = named(found, f"media relay 127.0.0.1:{port}")
    assert finding.outcome == "fail"
    assert "does not answer" in finding.detail


async def test_addresses_that_reach_this_machine_alone_are_told_when_sip_is_public() -> None:
    sip = SipSettings(listeners=(Listener(transport=Transport.UDP, host="0.0.0.0", port=5060),))
    turn = TurnSettings(secret=SecretStr("s"))
    found = await examined(configuration(sip=sip, media=MediaSettings(), turn=turn))
    failures = {finding.remedy for finding in found if finding.outcome == "fail"}
    assert {"set media.host to this machine's address", "set turn.host to this machine's address"} <= failures
    private = await examined(configuration(sip=sip, media=MediaSettings(host="10.0.0.5")))
    assert any("media.advertised_host" in finding.remedy for finding in private)
    told = await examined(configuration(sip=sip, media=MediaSettings(host="10.0.0.5", advertised_host="198.51.100.7")))
    assert not any("media.advertised_host" in finding.remedy for finding in told)


@pytest.mark.parametrize(
    ("media", "outcome", "text"),
    [
        (MediaSettings(), "ok", "30000 to 39999"),
        (MediaSettings(first_port=30_000, last_port=30_159), "warn", "20 calls"),
        (MediaSettings(first_port=5_000, last_port=6_000), "fail", "sip.listeners udp"),
        (MediaSettings(control_port=30_000), "fail", "media.control_port"),
    ],
)
async def test_ranges_of_ports_are_wide_enough_and_hold_nothing_else(
    media: MediaSettings, outcome: str, text: str
) -> None:
    finding = named(await examined(configuration(media=media)), "media ports")
    assert finding.outcome == outcome
    assert text in finding.detail


async def test_ranges_that_overlap_are_told() -> None:
    turn = TurnSettings(secret=SecretStr("s"), first_port=39_000, last_port=45_000)
    found = await examined(configuration(media=MediaSettings(), turn=turn))
    assert any("overlap" in finding.detail and finding.outcome == "fail" for finding in found)


@needs_coturn
async def test_a_turn_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.net.media_examination.TURN_SECONDS", 0.2)
    turn = TurnSettings(secret=SecretStr("s"), embedded=False, advertised_host="127.0.0.1", port=free_port())
    finding = named(await examined(configuration(turn=turn), is_live=True), "turn")
    assert finding.outcome == "fail"
    assert "does not answer" in finding.detail


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Configuration]:
    """A configuration whose rtpengine and coturn run."""
    config = Configuration(
        data_directory=tmp_path,
        media=MediaSettings(control_port=free_port()),
        turn=TurnSettings(secret=SecretStr("shared"), port=free_port()),
    )
    plane = MediaPlane(config, identity="doctor", trace=Trace(lambda: 0.0), metrics=Metrics())
    try:
        await plane.start()
        yield config
    finally:
        await plane.stop()


@needs_rtpengine
@needs_coturn
@pytest.mark.interop
async def test_everything_that_runs_is_proved_by_a_call_and_an_allocation(running: Configuration) -> None:
    found = await examined(running, is_live=True)
    assert {finding.outcome for finding in found} == {"ok"}, found
    relay = named(found, f"media relay 127.0.0.1:{running.media.control_port}")
    assert f"of {PACKETS} packets came through" in relay.detail
    assert "rtpengine 1" in relay.detail
    assert "takes our credentials" in named(found, "turn").detail
    client = NgClient(RtpengineProcess.address_of(running))
    assert (await client.ask({"command": "list"}))["calls"] == []
    client.close()


@needs_rtpengine
@needs_coturn
@pytest.mark.interop
async def test_a_turn_server_with_another_secret_is_told(running: Configuration) -> None:
    other = running.model_copy(update={"turn": running.turn.model_copy(update={"secret": SecretStr("another")})})
    finding = named(await examined(other, is_live=True), "turn")
    assert (finding.outcome, "401" in finding.detail) == ("fail", True)


# --- the call ---


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Rtpengine]:
    server = Rtpengine(tmp_path)
    await server.start()
    yield server
    await server.stop()


@needs_rtpengine
@pytest.mark.interop
async def test_packets_that_are_sent_past_the_relay_are_missed(relay: Rtpengine) -> None:
    client = NgClient(relay.address)
    lost = await LoopbackCall(client, relay.address, target="127.0.0.9").run()
    assert lost.is_nothing
    assert str(lost) == f"0 and 0 of {PACKETS} packets came through"
    assert await relay.calls() == []
    client.close()


class RefusingRelay:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ask(self, command: dict[str, Any]) -> Any:
        self.asked.append(command["command"])
        raise RelayError("Ran out of ports")


async def test_a_call_that_the_relay_refuses_leaves_nothing_behind() -> None:
    relay = RefusingRelay()
    with pytest.raises(RelayError, match="Ran out of ports"):
        await LoopbackCall(relay, NgAddress("127.0.0.1", 1)).run()
    assert relay.asked == ["offer", "delete"]


def test_a_lost_packet_or_two_are_no_firewall() -> None:
    assert Carried(20, (20, 18), "").is_whole
    assert not Carried(20, (20, 17), "").is_whole
    assert Carried(20, (20, 0), "").is_nothing
    assert not Carried(20, (1, 1), "").is_nothing
