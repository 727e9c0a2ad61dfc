"""Doctor: what the world finds in DNS for our domains (RFC 3263 for SIP, RFC 6120 section 3.2 for XMPP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from isthmus.config import Configuration
from isthmus.services.administration import Finding

# RFC 6761 and RFC 8375: names that are never in the public DNS.
RESERVED = frozenset({"test", "example", "invalid", "localhost", "local", "internal"})


class Lookup(Protocol):
    """Asks DNS (`net.dns.DnsClient`)."""

    async def records(self, name: str, kind: str) -> tuple[Any, ...]:
        """Records in dnspython's form; none for "no such name" and for "no answer"."""

    async def addresses(self, host: str) -> tuple[str, ...]:
        """Numeric addresses of a host."""


async def check_names(configuration: Configuration, lookup: Lookup) -> list[Finding]:
    """Look up every domain of ours as a phone, a client and a partner's server would."""
    found: list[Finding] = []
    for domain in configuration.domains:
        if _is_reserved(domain.name):
            found.append(_reserved(domain.name))
            continue
        found.append(await _sip(domain.name, lookup))
        found.append(await _service(domain.name, "_xmpp-server._tcp", configuration.xmpp.s2s_port, lookup))
    consumers = configuration.xmpp.consumer_domain
    if _is_reserved(consumers):
        found.append(_reserved(consumers))
    else:
        found.append(await _service(consumers, "_xmpp-client._tcp", configuration.xmpp.c2s_port, lookup))
        found.append(await _service(consumers, "_xmpp-server._tcp", configuration.xmpp.s2s_port, lookup))
    return found


def _is_reserved(domain: str) -> bool:
    return domain.rpartition(".")[2] in RESERVED


def _reserved(domain: str) -> Finding:
    text = "a reserved name: for trials on this machine or network, nobody outside can reach it"
    return Finding(f"dns {domain}", "ok", text)


async def _sip(domain: str, lookup: Lookup) -> Finding:
    name = f"dns {domain} sip"
    found: list[str] = []
    for service in ("_sips._tcp", "_sip._tcp", "_sip._udp"):
        targets = await lookup.records(f"{service}.{domain}", "SRV")
        dead = await _unresolved(targets, lookup)
        if dead:
            return Finding(name, "fail", f"{service} points to {dead}, which has no address", "correct the SRV record")
        found += [f"{service} -> {_target(target)}:{target.port}" for target in targets]
    if found:
        naptr = await lookup.records(domain, "NAPTR")
        found.insert(0, "NAPTR" if naptr else "no NAPTR (phones then try SRV)")
        return Finding(name, "ok", "; ".join(found))
    if await lookup.addresses(domain):
        text = f"no SRV records; phones will try {domain} itself on the standard ports"
        return Finding(name, "warn", text, f"publish _sips._tcp.{domain} and _sip._udp.{domain} (RFC 3263)")
    remedy = f"publish SRV records _sips._tcp.{domain}, _sip._tcp.{domain}, _sip._udp.{domain}; see the how-to on DNS"
    return Finding(name, "fail", "neither SRV records nor an address: no phone finds us by the domain alone", remedy)


async def _service(domain: str, service: str, port: int, lookup: Lookup) -> Finding:
    name, wanted = f"dns {domain} {service}", f"publish `{service}.{domain}. SRV 0 5 {port} <this server's name>.`"
    targets = await lookup.records(f"{service}.{domain}", "SRV")
    if not targets:
        if await lookup.addresses(domain):
            return Finding(name, "warn", f"no SRV record; others will try {domain} itself", wanted)
        return Finding(name, "fail", "no SRV record and no address: other servers and clients cannot find it", wanted)
    dead = await _unresolved(targets, lookup)
    if dead:
        return Finding(name, "fail", f"points to {dead}, which has no address", "correct the SRV record")
    ports = {target.port for target in targets}
    text = ", ".join(f"{_target(target)}:{target.port}" for target in targets)
    if ports != {port}:
        return Finding(
            name, "warn", f"{text}, but we listen on {port}", "fine behind a port forwarding, else correct it"
        )
    return Finding(name, "ok", text)


async def _unresolved(targets: Sequence[Any], lookup: Lookup) -> str:
    for target in targets:
        if not await lookup.addresses(_target(target)):
            return _target(target)
    return ""


def _target(record: Any) -> str:
    return str(record.target).rstrip(".")
