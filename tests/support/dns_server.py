"""A DNS server of our own on a free loopback port, with the zone of our choice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

_SOA = "ns.test. admin.test. 1 3600 600 86400 30"


class DnsServer(asyncio.DatagramProtocol):
    """Answers from `records`: (name without final dot, type) -> (ttl, texts). Counts the questions."""

    def __init__(self, records: dict[tuple[str, str], tuple[int, list[str]]] | None = None) -> None:
        self.records = records or {}
        self.questions: Counter[tuple[str, str]] = Counter()
        self.is_silent = False
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> str:
        """Listen; returns `127.0.0.1:port`."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        assert self._transport is not None
        return f"127.0.0.1:{self._transport.get_extra_info('sockname')[1]}"

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        assert self._transport is not None
        question = dns.message.from_wire(data)
        name = question.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.question[0].rdtype)
        self.questions[name, kind] += 1
        if self.is_silent:
            return
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.AA
        if (name, kind) in self.records:
            ttl, texts = self.records[name, kind]
            answer.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *texts))
        else:
            if not any(known == name for known, _ in self.records):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            answer.authority.append(dns.rrset.from_text("test.", 60, "IN", "SOA", _SOA))
        self._transport.sendto(answer.to_wire(), address)
