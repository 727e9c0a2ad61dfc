"""How fast a component echoes messages: slixmpp's own objects and handlers against `ComponentLink`.

    python -m tests.bench.xmpp_link_echo [--messages 20000] [--window 200] [--uvloop]

The server is a separate process that speaks just enough of XEP-0114, so that the component alone is measured. Printed
are messages per second (each read and written once) and CPU time of the component per message.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Callable, Coroutine
from typing import Any
from xml.etree.ElementTree import Element

from slixmpp import ComponentXMPP

from isthmus.config import XmppSettings
from isthmus.net.system_clock import SystemClock
from isthmus.net.xmpp_component import ComponentLink
from isthmus.net.xmpp_queries import QueryResponder
from isthmus.ports import XmppLink
from isthmus.trace import Trace
from isthmus.xmpp.stanza import child_text, element, escape_text
from tests.support.processes import free_port

MESSAGE = (
    "<message from='ben@people.test/phone' to='ana@corp.test' type='chat' id='{}' xml:lang='en'>"
    "<body>Hello Ana, how are you today?</body><active xmlns='http://jabber.org/protocol/chatstates'/>"
    "<request xmlns='urn:xmpp:receipts'/><origin-id xmlns='urn:xmpp:sid:0' id='a1b2c3'/></message>"
)
HEADER = b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='s'>"


async def serve(port: int, messages: int, window: int, ready: Any) -> None:
    """Send `messages`, at most `window` of them unanswered, and count the echoes."""
    done = asyncio.Event()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b">")
        writer.write(HEADER)
        await reader.readuntil(b"</handshake>")
        writer.write(b"<handshake/>")
        sent = echoed = 0
        tail = b""
        while echoed < messages:
            fresh = min(window - (sent - echoed), messages - sent)
            writer.write("".join(MESSAGE.format(sent + number) for number in range(fresh)).encode())
            sent += fresh
            data = tail + await reader.read(1 << 18)
            echoed += data.count(b"</message>")
            tail = data[-9:] if not data.endswith(b"</message>") else b""
        writer.close()
        done.set()

    server = await asyncio.start_server(session, "127.0.0.1", port)
    ready.set()
    await done.wait()
    server.close()


def serve_in_process(port: int, messages: int, window: int, ready: Any) -> None:
    asyncio.run(serve(port, messages, window, ready))


class Echo:
    """A StanzaSink that sends every message back."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def message_received(self, link: XmppLink, stanza: Element) -> None:
        body = element("body", None, escape_text(child_text(stanza, "body")))
        addresses = {"from": stanza.get("to"), "to": stanza.get("from"), "type": "chat", "id": stanza.get("id")}
        link.send(element("message", addresses, body))

    def presence_received(self, link: XmppLink, stanza: Element) -> None: ...

    def link_up(self, link: XmppLink) -> None: ...

    def link_down(self, _link: XmppLink) -> None:
        self.ended.set()


async def echo_with_link(port: int) -> None:
    clock = SystemClock()
    sink = Echo()
    responder = QueryResponder("corp.test", None, clock=clock, version="0")  # type: ignore[arg-type]  # nobody asks
    settings = XmppSettings(component_port=port)
    link = ComponentLink("corp.test", "s", settings, sink=sink, responder=responder, trace=Trace(clock.wall))
    link.start()
    await sink.ended.wait()
    await link.stop()


async def echo_with_slixmpp(port: int) -> None:
    component: Any = ComponentXMPP("corp.test", "s")  # type: ignore[no-untyped-call]  # slixmpp types it in part
    ended = asyncio.Event()

    def echo(message: Any) -> None:
        reply = component.make_message(mto=message["from"], mfrom=message["to"], mbody=message["body"], mtype="chat")
        reply["id"] = message["id"]
        reply.send()

    component.add_event_handler("message", echo)
    component.add_event_handler("disconnected", lambda _: ended.set())
    component.connect("127.0.0.1", port)
    await ended.wait()


def measure(name: str, echo: Callable[[int], Coroutine[Any, Any, None]], arguments: argparse.Namespace) -> float:
    context = multiprocessing.get_context("spawn")
    port, ready = free_port(), context.Event()
    server = context.Process(target=serve_in_process, args=(port, arguments.messages, arguments.window, ready))
    server.start()
    ready.wait(30)
    wall, cpu = time.perf_counter(), time.process_time()
    if arguments.uvloop:
        import uvloop

        uvloop.run(echo(port))
    else:
        asyncio.run(echo(port))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    server.join(30)
    per_message: float = cpu / arguments.messages
    print(f"{name:10} {arguments.messages / wall:8.0f} messages/s   {per_message * 1e6:6.1f} µs CPU per message")
    return per_message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=200)
    parser.add_argument("--uvloop", action="store_true")
    arguments = parser.parse_args()
    slow = measure("slixmpp", echo_with_slixmpp, arguments)
    fast = measure("link", echo_with_link, arguments)
    print(f"the link takes 1/{slow / fast:.1f} of the CPU time")


if __name__ == "__main__":
    main()
