"""What a link waits for: pings that come back to it (barriers) and answers to its own IQs (queries)."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import Any
from xml.etree.ElementTree import Element

from isthmus.errors import RequestTimeoutError


class AwaitedAnswers:
    """Outstanding barriers and queries of one component stream.

    Args:
        domain: the component's name, which its barriers are sent from and to.
    """

    def __init__(self, domain: str) -> None:
        self._domain = domain
        # Unpredictable, so that nobody on the XMPP side can answer in the place of the one we asked.
        prefix = f"isthmus-{secrets.token_hex(6)}"
        self._ids = (f"{prefix}-{number}" for number in itertools.count(1))
        self._next_barrier: asyncio.Future[None] | None = None
        self._barriers: dict[str, asyncio.Future[None]] = {}
        self._queries: dict[str, tuple[str, asyncio.Future[Element]]] = {}

    @property
    def outstanding_barriers(self) -> int:
        """How many pings have not come back."""
        return len(self._barriers)

    def barrier(self) -> asyncio.Future[None]:
        """Return the future of the ping that leaves next; all callers until then share it: shield it."""
        if self._next_barrier is None:
            self._next_barrier = asyncio.get_running_loop().create_future()
            # A caller may be cancelled: nobody is left to take the exception then.
            self._next_barrier.add_done_callback(_take_exception)
        return self._next_barrier

    def ping_to_write(self) -> str:
        """Return the ping that answers `barrier` when it comes back, "" when nobody waits for one."""
        if self._next_barrier is None:
            return ""
        stanza_id = next(self._ids)
        self._barriers[stanza_id], self._next_barrier = self._next_barrier, None
        addresses = f"from='{self._domain}' to='{self._domain}'"
        return f"<iq type='get' id='{stanza_id}' {addresses}><ping xmlns='urn:xmpp:ping'/></iq>"

    async def query(self, send: Callable[[], None], stanza_id: str, recipient: str, timeout_seconds: float) -> Element:
        """Wait for the answer to the IQ that `send` writes.

        Raises:
            RequestTimeoutError: none came in time.
            LinkDownError: from `send`, or the link was lost.
        """
        if stanza_id in self._queries:
            raise ValueError(f"the IQ id {stanza_id} is in use")
        future: asyncio.Future[Element] = asyncio.get_running_loop().create_future()
        self._queries[stanza_id] = (recipient, future)
        try:
            send()
            async with asyncio.timeout(timeout_seconds):
                return await future
        except TimeoutError as error:
            raise RequestTimeoutError(f"no answer to an IQ within {timeout_seconds:g} s") from error
        finally:
            self._queries.pop(stanza_id, None)

    def take(self, iq: Element) -> bool:
        """Return True when an IQ was meant for somebody who waits, or is an answer that nobody waits for."""
        stanza_id = iq.get("id", "")
        barrier = self._barriers.get(stanza_id)
        if barrier is not None and iq.get("from", self._domain) == self._domain:
            # Our own ping, routed back; a server that bounces it instead has read it all the same.
            del self._barriers[stanza_id]
            if not barrier.done():
                barrier.set_result(None)
            return True
        if iq.get("type") not in ("result", "error"):
            return False
        recipient, future = self._queries.get(stanza_id, ("", None))
        # RFC 6120 section 8.1.2.1: an answer comes from whom we asked; anybody else is guessing ids.
        if future is not None and not future.done() and iq.get("from", "").casefold() == recipient.casefold():
            future.set_result(iq)
        return True

    def fail(self, make_error: Callable[[], Exception]) -> None:
        """End all waiting with an error each: the link is lost."""
        waiting: list[asyncio.Future[Any]] = [*self._barriers.values()]
        waiting += [future for _, future in self._queries.values()]
        if self._next_barrier is not None:
            waiting.append(self._next_barrier)
        self._barriers.clear()
        self._next_barrier = None
        for future in waiting:
            if not future.done():
                future.set_exception(make_error())


def _take_exception(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
