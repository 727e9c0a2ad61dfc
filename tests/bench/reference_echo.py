"""The reference: a bare slixmpp component that sends every message back.

usage: python -m tests.bench.reference_echo PORT
"""

from __future__ import annotations

import asyncio
import sys

from slixmpp.componentxmpp import ComponentXMPP
from slixmpp.stanza import Message


class Echo(ComponentXMPP):
    """What a Python developer writes first."""

    def __init__(self, domain: str, secret: str, port: int) -> None:
        super().__init__(domain, secret, "127.0.0.1", port)  # type: ignore[no-untyped-call]  # slixmpp is untyped here
        self.add_event_handler("message", self.echo)

    def echo(self, message: Message) -> None:
        message.reply(message["body"]).send()  # type: ignore[no-untyped-call]  # slixmpp is untyped here


async def run(port: int) -> None:
    component = Echo("corp.test", "secret", port)
    component.connect("127.0.0.1", port)
    await component.disconnected


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1])))
