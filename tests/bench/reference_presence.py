"""The reference for presence: a bare slixmpp component that tells as many watchers as it is asked to.

usage: python -m tests.bench.reference_presence PORT

A message `tell NAME COUNT` makes it send one presence to each of `NAMEw0@people.test`, `NAMEw1@people.test`, ...
"""

from __future__ import annotations

import asyncio
import sys

from slixmpp.componentxmpp import ComponentXMPP
from slixmpp.stanza import Message


class Teller(ComponentXMPP):
    """What a Python developer writes first."""

    def __init__(self, domain: str, secret: str, port: int) -> None:
        super().__init__(domain, secret, "127.0.0.1", port)  # type: ignore[no-untyped-call]  # slixmpp is untyped here
        self.add_event_handler("message", self.tell)

    def tell(self, message: Message) -> None:
        _, name, count = str(message["body"]).split()
        for number in range(int(count)):
            self.send_presence(
                pto=f"{name}w{number}@people.test",
                pfrom=f"{name}@corp.test/isthmus",
                pshow="dnd",
                pstatus="Back at noon",
            )


async def run(port: int) -> None:
    component = Teller("corp.test", "secret", port)
    component.connect("127.0.0.1", port)
    await component.disconnected


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1])))
