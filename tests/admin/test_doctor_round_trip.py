"""The doctor's round trips: with a real server and a real Prosody, and what is said when there is nothing to try."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.admin.doctor_phone import DoctorPhone
from isthmus.admin.doctor_round_trip import RoundTrips
from isthmus.app import Isthmus
from isthmus.bus.in_process import InProcessBus
from isthmus.cli.configuration_file import load_configuration, write_configuration
from isthmus.errors import RequestTimeoutError
from isthmus.model import User
from isthmus.sip.uri import SipUri
from tests.support.memory_store import MemoryStore
from tests.support.processes import free_port


@pytest.fixture
async def isthmus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Isthmus]:
    for name in ("C2S", "S2S", "COMPONENT", "WEBSOCKET"):
        monkeypatch.setenv(f"ISTHMUS_XMPP__{name}_PORT", str(free_port()))
    monkeypatch.setenv("ISTHMUS_WEB__PORT", "0")
    listener = {"transport": "udp", "host": "127.0.0.1", "port": 0}
    monkeypatch.setenv("ISTHMUS_SIP__LISTENERS", json.dumps([listener]))
    write_configuration(tmp_path / "data", ["corp.test"], "people.test")
    made = Isthmus(load_configuration(tmp_path / "data"))
    await made.start()
    yield made
    await made.stop()


@pytest.mark.interop
async def test_each_side_begins_and_the_echo_comes_back(isthmus: Isthmus) -> None:
    """Edge case 48."""
    trips = RoundTrips(isthmus.directory, isthmus.store, isthmus.bus, isthmus.links, lambda: isthmus.endpoint.bound)
    found = await asyncio.gather(trips.round_trip("sip"), trips.round_trip("xmpp"))
    assert [result.has_returned for result in found] == [True, True], found
    assert list(isthmus.directory.users()) == []
    assert await isthmus.store.users() == []


class Directory:
    def __init__(self, *hosted: str) -> None:
        self.hosted_domains = hosted
        self.saved: list[User] = []

    async def load(self) -> None:
        self.saved.clear()

    async def save_user(self, user: User) -> None:
        self.saved.append(user)


def round_trips(directory: Directory, bound: dict[str, tuple[str, int]]) -> RoundTrips:
    return RoundTrips(directory, MemoryStore(), InProcessBus(), {}, lambda: bound)


async def test_without_a_hosted_domain_or_udp_there_is_nothing_to_try() -> None:
    routed = await round_trips(Directory(), {"udp": ("127.0.0.1", 5060)}).round_trip("sip")
    encrypted = await round_trips(Directory("corp.test"), {"tls": ("127.0.0.1", 5061)}).round_trip("sip")
    assert not routed.is_tried
    assert not encrypted.is_tried
    assert "UDP" in encrypted.detail


async def test_a_server_that_does_not_answer_is_told_and_the_account_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.admin.doctor_phone.ANSWER_SECONDS", 0.1)
    directory = Directory("corp.test")
    result = await round_trips(directory, {"udp": ("127.0.0.1", free_port())}).round_trip("sip")
    assert not result.has_returned
    assert "REGISTER was not answered" in result.detail
    assert directory.saved == []


async def test_the_phone_retransmits_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.admin.doctor_phone.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("isthmus.admin.doctor_phone.RETRANSMIT_SECONDS", 0.05)
    received: list[bytes] = []

    class Deaf(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            received.append(data)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Deaf, local_addr=("127.0.0.1", 0))
    phone = DoctorPhone(SipUri("sip", "corp.test", user="doctor"), "secret")
    await phone.open(*transport.get_extra_info("sockname"))
    with pytest.raises(RequestTimeoutError):
        await phone.register(60)
    phone.close()
    transport.close()
    assert len(received) >= 3
    assert len(set(received)) == 1
