"""The DNS cache: TTLs, negative answers, one question for many askers, dead servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from isthmus.errors import ConfigurationError
from isthmus.net import dns as dns_module
from isthmus.net.dns import DnsClient
from tests.support.dns_server import DnsServer


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    server = DnsServer({("corp.test", "A"): (300, ["192.0.2.1", "192.0.2.2"])})
    yield server
    server.stop()


async def test_an_answer_is_kept_for_its_ttl_and_no_longer(server: DnsServer) -> None:
    time = Time()
    client = DnsClient([await server.start()], monotonic=time)
    assert {record.address for record in await client.records("corp.test", "A")} == {"192.0.2.1", "192.0.2.2"}
    time.now += 299
    await client.records("Corp.Test.", "A")
    assert server.questions["corp.test", "A"] == 1
    time.now += 2
    await client.records("corp.test", "A")
    assert server.questions["corp.test", "A"] == 2


@pytest.mark.parametrize("name", ["absent.test", "corp.test"])
async def test_that_there_is_none_is_kept_for_the_soa_minimum(server: DnsServer, name: str) -> None:
    time = Time()
    client = DnsClient([await server.start()], monotonic=time)
    assert await client.records(name, "SRV") == ()
    time.now += 29
    assert await client.records(name, "SRV") == ()
    assert server.questions[name, "SRV"] == 1
    time.now += 2
    assert await client.records(name, "SRV") == ()
    assert server.questions[name, "SRV"] == 2


async def test_many_askers_share_one_question_and_one_may_give_up(server: DnsServer) -> None:
    client = DnsClient([await server.start()])
    askers = [asyncio.create_task(client.records("corp.test", "A")) for _ in range(20)]
    await asyncio.sleep(0)
    askers[0].cancel()
    results = await asyncio.gather(*askers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(result, tuple) and len(result) == 2 for result in results[1:])
    assert server.questions["corp.test", "A"] == 1


async def test_a_dead_server_is_no_answer_and_is_asked_again_soon(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_module, "LOOKUP_SECONDS", 0.05)
    time = Time()
    client = DnsClient([await server.start()], monotonic=time)
    server.is_silent = True
    assert await client.records("corp.test", "A") == ()
    server.is_silent = False
    time.now += dns_module.FAILURE_SECONDS + 1
    monkeypatch.setattr(dns_module, "LOOKUP_SECONDS", 5.0)
    assert len(await client.records("corp.test", "A")) == 2


async def test_literals_and_localhost_are_never_asked(server: DnsServer) -> None:
    client = DnsClient([await server.start()])
    assert await client.addresses("192.0.2.7") == ("192.0.2.7",)
    assert await client.addresses("[2001:db8::1]") == ("2001:db8::1",)
    assert await client.addresses("localhost") == ("127.0.0.1",)
    assert not server.questions


async def test_the_cache_is_bounded(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_module, "MAXIMUM_CACHED_NAMES", 4)
    client = DnsClient([await server.start()])
    for number in range(10):
        await client.records(f"host{number}.test", "A")
    assert len(client._answers) <= 4
    client.forget()
    assert not client._answers


@pytest.mark.parametrize("text", ["dns.example", "127.0.0.1:0", "", "[::1", "1.2.3.4:99999"])
def test_a_server_that_is_no_address_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="dns_servers"):
        DnsClient([text])


@pytest.mark.parametrize("text", ["::1", "[::1]:5353", "127.0.0.1", "127.0.0.1:5353"])
def test_servers_may_be_ipv4_or_ipv6_with_or_without_port(text: str) -> None:
    DnsClient([text])
