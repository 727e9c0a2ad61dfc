"""The references for calls: a bare SIP end that answers every INVITE at once, and a relay that is asked directly.

usage: python -m tests.bench.reference_calls PORT     (the SIP end)
"""

from __future__ import annotations

import asyncio
import sys
import time

from isthmus.interworking.relay_commands import deletion, negotiation
from isthmus.model import MediaForm
from isthmus.net.rtpengine_ng import NgAddress, NgClient
from tests.bench.call_neighbours import CallNeighbours

_PLAIN = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\n"


class BareCallee(CallNeighbours):
    """Answers INVITEs and BYEs like the SIP callee of the bench: no transactions, no other side."""

    def __init__(self) -> None:
        super().__init__(is_relayed=True)


async def answer(port: int) -> None:
    """Serve until the process is ended."""
    await asyncio.get_running_loop().create_datagram_endpoint(BareCallee, local_addr=("127.0.0.1", port))
    await asyncio.Event().wait()


async def relay_operations(address: NgAddress, calls: int, window: int = 16) -> float:
    """Offer, answer and delete `calls` calls, `window` at a time; return calls a second."""
    client = NgClient(address)
    room = asyncio.Semaphore(window)

    async def one(number: int) -> None:
        async with room:
            ends = {"call_id": f"bench-{number}", "offerer": "a", "answerer": "b"}
            for step, port in (("offer", 40_000), ("answer", 40_002)):
                sdp = _PLAIN.format(port)
                form = MediaForm.RTP
                command = negotiation(step, **ends, sdp=sdp, source=form, target=form)  # type: ignore[arg-type]  # a literal
                await client.ask(command)
            await client.ask(deletion(ends["call_id"]))

    began = time.perf_counter()
    try:
        await asyncio.gather(*(one(number) for number in range(calls)))
    finally:
        client.close()
    return calls / (time.perf_counter() - began)


if __name__ == "__main__":
    asyncio.run(answer(int(sys.argv[1])))
