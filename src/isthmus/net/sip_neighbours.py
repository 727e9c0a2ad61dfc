"""Looks up, again and again, which addresses the host names of SIP neighbours mean: those are believed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import structlog

from isthmus.errors import IsthmusError
from isthmus.net.sip_resolver import SipResolver
from isthmus.sip.uri import SipUri

# A neighbour that moves is believed at its new address after this at the latest.
INTERVAL_SECONDS = 300.0
# Until the first answer nothing from there is believed: a name server that is late is asked sooner.
RETRY_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class NeighbourAddresses:
    """Resolves each host by RFC 3263 (all its targets) and reports the addresses.

    Args:
        hosts: names from the configuration.
        note: takes a host and its addresses.
    """

    def __init__(
        self, resolver: SipResolver, hosts: Iterable[str], note: Callable[[str, frozenset[str]], None]
    ) -> None:
        self._resolver = resolver
        self._hosts = tuple(hosts)
        self._note = note
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask once for all, and from then on in the background."""
        if self._hosts:
            wait = await self._ask()
            self._task = asyncio.create_task(self._keep_asking(wait))

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _keep_asking(self, wait: float) -> None:
        while True:
            await asyncio.sleep(wait)
            wait = await self._ask()

    async def _ask(self) -> float:
        wait = INTERVAL_SECONDS
        for host in self._hosts:
            try:
                targets = await self._resolver.targets(SipUri("sip", host))
            except IsthmusError as error:
                _log.warning("a SIP neighbour cannot be looked up", host=host, reason=str(error))
                targets = []
            if targets:
                self._note(host, frozenset(target.host for target in targets))
            else:
                wait = RETRY_SECONDS  # what was known of it stays in force
        return wait
