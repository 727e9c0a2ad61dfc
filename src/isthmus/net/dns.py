"""DNS questions with a cache that honours TTLs, also of "no such name" (RFC 2308), over dnspython's async resolver."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.message
import dns.nameserver
import dns.rdatatype
import dns.resolver

from isthmus.errors import ConfigurationError

_LOG = logging.getLogger(__name__)

# Bounds on what servers may ask of us: a TTL of 0 would cost a question per message, one of years would pin mistakes.
MINIMUM_TTL_SECONDS = 1.0
MAXIMUM_TTL_SECONDS = 86_400.0
# RFC 2308 section 5: negative answers for at most a few hours; without SOA a short guess.
MAXIMUM_NEGATIVE_SECONDS = 10_800.0
NEGATIVE_SECONDS_WITHOUT_SOA = 60.0
# RFC 2308 section 7: a dead server may be remembered for 5 minutes; we ask again sooner.
FAILURE_SECONDS = 5.0
# All servers and retries together; a SIP transaction lasts 32 s and must still have time to try other targets.
LOOKUP_SECONDS = 6.0
# Names are chosen by peers: the cache must not grow with them.
MAXIMUM_CACHED_NAMES = 10_000


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """Records of one name and type, in dnspython's form; none for "no such name or type".

    Attributes:
        records: the records.
        expires_at: monotonic time at which to ask again.
        is_failure: no server answered; `records` is empty but nothing is known.
    """

    records: tuple[Any, ...]
    expires_at: float
    is_failure: bool = False


class DnsClient:
    """Asks the configured servers, or the system's; equal questions under way are asked once."""

    def __init__(self, servers: Sequence[str] = (), *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Prepare to ask.

        Args:
            servers: `address`, `address:port` or `[v6]:port`; empty takes the system's resolver and hosts file.
            monotonic: source of time, for tests.

        Raises:
            ConfigurationError: a server is not an address.
        """
        self._monotonic = monotonic
        self._uses_system = not servers
        self._answers: dict[tuple[str, str], DnsAnswer] = {}
        self._under_way: dict[tuple[str, str], asyncio.Task[DnsAnswer]] = {}
        self._resolver: dns.asyncresolver.Resolver | None
        if servers:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
            self._resolver.nameservers = [_nameserver(server) for server in servers]
        else:
            try:
                self._resolver = dns.asyncresolver.Resolver()
            except dns.resolver.NoResolverConfiguration:
                self._resolver = None  # an isolated machine: its hosts file still answers

    async def records(self, name: str, kind: str) -> tuple[Any, ...]:
        """Return the records of a type such as "NAPTR", "SRV", "A"; empty when there are none or no answer."""
        key = (name.lower().rstrip("."), kind)
        answer = self._answers.get(key)
        if answer is not None and answer.expires_at > self._monotonic():
            return answer.records
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(key))
            self._under_way[key] = task
        return (await asyncio.shield(task)).records

    async def addresses(self, host: str) -> tuple[str, ...]:
        """Return the numeric addresses of `host`, IPv6 after IPv4; from the hosts file when DNS has none."""
        literal = _literal(host)
        if literal:
            return (literal,)
        if host == "localhost" or host.endswith(".localhost"):
            return ("127.0.0.1",)  # RFC 6761 section 6.3: never asked
        version_4, version_6 = await asyncio.gather(self.records(host, "A"), self.records(host, "AAAA"))
        found = tuple(str(record.address) for record in (*version_4, *version_6))
        if not found and self._uses_system:
            return await self._from_hosts_file(host)
        return found

    def forget(self) -> None:
        """Empty the cache (the operator changed DNS and does not want to wait)."""
        self._answers.clear()

    async def _ask(self, key: tuple[str, str]) -> DnsAnswer:
        try:
            answer = await self._ask_servers(*key)
        finally:
            del self._under_way[key]
        if len(self._answers) >= MAXIMUM_CACHED_NAMES:
            self._make_room()
        self._answers[key] = answer
        return answer

    async def _ask_servers(self, name: str, kind: str) -> DnsAnswer:
        now = self._monotonic()
        if self._resolver is None:
            return DnsAnswer((), now + FAILURE_SECONDS, is_failure=True)
        try:
            answer = await self._resolver.resolve(
                f"{name}.", kind, raise_on_no_answer=False, lifetime=LOOKUP_SECONDS, search=False
            )
        except dns.resolver.NXDOMAIN as error:
            responses = list(error.responses().values())  # type: ignore[no-untyped-call]  # dnspython left it bare
            return DnsAnswer((), now + _negative_seconds(responses[-1] if responses else None))
        except (dns.exception.DNSException, OSError, ValueError) as error:
            _LOG.warning("DNS: no answer for %s %s: %s", name, kind, error)
            return DnsAnswer((), now + FAILURE_SECONDS, is_failure=True)
        if answer.rrset is None:
            return DnsAnswer((), now + _negative_seconds(answer.response))
        seconds = min(max(float(answer.rrset.ttl), MINIMUM_TTL_SECONDS), MAXIMUM_TTL_SECONDS)
        return DnsAnswer(tuple(answer.rrset), now + seconds)

    async def _from_hosts_file(self, host: str) -> tuple[str, ...]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return ()
        return tuple(dict.fromkeys(str(address[0]) for *_, address in found))

    def _make_room(self) -> None:
        now = self._monotonic()
        self._answers = {key: answer for key, answer in self._answers.items() if answer.expires_at > now}
        while len(self._answers) >= MAXIMUM_CACHED_NAMES:
            del self._answers[next(iter(self._answers))]


def _literal(host: str) -> str:
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        return ""


def _negative_seconds(response: dns.message.Message | None) -> float:
    """How long "there is none" holds: the smaller of SOA TTL and SOA minimum (RFC 2308 section 5)."""
    for rrset in response.authority if response is not None else ():
        if rrset.rdtype == dns.rdatatype.SOA:
            seconds = float(min(rrset.ttl, rrset[0].minimum))
            return min(max(seconds, MINIMUM_TTL_SECONDS), MAXIMUM_NEGATIVE_SECONDS)
    return NEGATIVE_SECONDS_WITHOUT_SOA


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    match = re.fullmatch(r"\[([^]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?|([0-9a-fA-F:.]+)", text.strip())
    address = "" if match is None else match[1] or match[3] or match[5]
    port = 53 if match is None else int(match[2] or match[4] or 53)
    if not _literal(address) or not 0 < port < 65_536:
        raise ConfigurationError(
            f"{text!r} in sip.dns_servers is not a name server: write an address such as 192.0.2.53 or 127.0.0.1:5353"
        )
    return dns.nameserver.Do53Nameserver(_literal(address), port)
