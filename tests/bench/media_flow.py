"""Streams of RTP packets between pairs of sockets, with the time each was sent inside: delay and loss of the way."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass, field

PACKET_SECONDS = 0.02
_HEADER = struct.Struct("!BBHIIQ")  # RTP header, and the time of sending as the first eight octets of sound
_SOUND = b"\xff" * 152


@dataclass
class Flow:
    """What came through; delays in seconds."""

    sent: int = 0
    delays: list[float] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Share of packets that did not arrive, in percent."""
        return 100 * (1 - len(self.delays) / self.sent) if self.sent else float("nan")

    def percentile(self, share: float) -> float:
        ordered = sorted(self.delays)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def media_socket() -> socket.socket:
    """A socket on an even port of loopback that does not block."""
    while True:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        if made.getsockname()[1] % 2 == 0:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            return made
        made.close()


async def stream(pairs: list[tuple[socket.socket, tuple[str, int], socket.socket]], seconds: float) -> Flow:
    """Send 50 packets a second on each pair (from, to which address, received where), spread evenly over time."""
    loop = asyncio.get_running_loop()
    flow = Flow()

    def receive(ear: socket.socket) -> None:
        now = time.perf_counter_ns()
        while True:
            try:
                data = ear.recv(2_048)
            except BlockingIOError:
                return
            if len(data) >= _HEADER.size:
                flow.delays.append((now - _HEADER.unpack_from(data)[5]) / 1e9)

    for _, _, ear in pairs:
        loop.add_reader(ear, receive, ear)
    try:
        began = time.perf_counter()
        rounds = int(seconds / PACKET_SECONDS)
        for number in range(rounds):
            for index, (mouth, target, _) in enumerate(pairs):
                due = began + (number + index / len(pairs)) * PACKET_SECONDS
                wait = due - time.perf_counter()
                if wait > 0.0005:
                    await asyncio.sleep(wait)
                header = _HEADER.pack(0x80, 0, number & 0xFFFF, number * 160, index + 1, time.perf_counter_ns())
                mouth.sendto(header + _SOUND, target)
                flow.sent += 1
        await asyncio.sleep(0.3)
    finally:
        for _, _, ear in pairs:
            loop.remove_reader(ear)
    return flow
