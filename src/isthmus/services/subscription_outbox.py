"""Decisions on their way to an XMPP server: kept until a ping has proved that they arrived.

A component stream acknowledges nothing (XEP-0114 has no XEP-0198), and nobody asks for a `subscribed`, `unsubscribed`
or `unsubscribe` again: one that died with the link would leave the two sides with different contact lists for good.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from isthmus.errors import TransportError
from isthmus.model import Address
from isthmus.ports import XmppLink

# Decisions made while a server is away; beyond this the next probe of the contact's server heals the rest.
MAXIMUM_UNPROVED = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What was decided of one pair: the type of the subscription stanza, and the stanza."""

    watcher: Address
    presentity: Address
    kind: str
    stanza: str


class SubscriptionOutbox:
    """The last unproved decision of each pair, by link."""

    def __init__(self) -> None:
        self._decisions: dict[str, dict[tuple[Address, Address], Decision]] = {}
        self._proving: dict[str, asyncio.Task[None]] = {}

    def add(self, link: XmppLink, decision: Decision) -> None:
        """Keep a decision that was written to `link`, or could not be; call it after writing."""
        decisions = self._decisions.setdefault(link.domain, {})
        decisions.pop((decision.watcher, decision.presentity), None)
        if len(decisions) >= MAXIMUM_UNPROVED:
            del decisions[next(iter(decisions))]
        decisions[(decision.watcher, decision.presentity)] = decision
        if link.is_connected and link.domain not in self._proving:
            task = asyncio.ensure_future(self._prove(link, decisions))
            self._proving[link.domain] = task
            task.add_done_callback(lambda _: self._proving.pop(link.domain, None))

    def take(self, link: XmppLink) -> list[Decision]:
        """What must be told again over a new connection, oldest first; `add` what is still true."""
        return list(self._decisions.pop(link.domain, {}).values())

    async def _prove(self, link: XmppLink, decisions: dict[tuple[Address, Address], Decision]) -> None:
        while decisions:
            written = list(decisions.values())
            try:
                await link.barrier()
            except TransportError:
                return  # `take` after the reconnection
            for decision in written:
                if decisions.get((decision.watcher, decision.presentity)) is decision:
                    del decisions[(decision.watcher, decision.presentity)]
