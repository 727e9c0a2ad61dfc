"""RFC 3263 with real DNS: asks the questions that the plan of `sip.routing` yields."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from isthmus.net.dns import DnsClient
from isthmus.sip.routing import NaptrRecord, Question, Record, SrvRecord, Target, resolution_plan
from isthmus.sip.uri import SipUri


class SipResolver:
    """Finds the targets of SIP URIs. Answers are cached by their TTL, the lottery among SRV records is drawn anew."""

    def __init__(self, servers: Sequence[str] = (), *, draw: Callable[[], float] = random.random) -> None:
        """Prepare.

        Args:
            servers: name servers (`address`, `address:port`); empty takes the system's.
            draw: numbers from 0 to below 1, for SRV weights.

        Raises:
            ConfigurationError: a server is not an address.
        """
        self.dns = DnsClient(servers)
        self._draw = draw

    async def targets(self, uri: SipUri) -> list[Target]:
        """Return where requests for `uri` go, best first; empty when nowhere."""
        plan = resolution_plan(uri, random=self._draw)
        try:
            questions = next(plan)
            while True:
                questions = plan.send(await self._answers(questions))
        except StopIteration as end:
            targets: list[Target] = end.value
            return targets

    async def _answers(self, questions: Sequence[Question]) -> list[Sequence[Record]]:
        if len(questions) == 1:
            return [await self._answer(questions[0])]
        return list(await asyncio.gather(*map(self._answer, questions)))

    async def _answer(self, question: Question) -> Sequence[Record]:
        kind, name = question
        if kind in ("A", "AAAA"):
            return [address for address in await self.dns.addresses(name) if (":" in address) == (kind == "AAAA")]
        records = await self.dns.records(name, kind)
        if kind == "SRV":
            return [
                SrvRecord(record.priority, record.weight, record.port, record.target.to_text(omit_final_dot=True))
                for record in records
            ]
        return [
            NaptrRecord(
                record.order,
                record.preference,
                record.flags.decode("ascii", "replace"),
                record.service.decode("ascii", "replace"),
                record.replacement.to_text(omit_final_dot=True),
            )
            for record in records
        ]
