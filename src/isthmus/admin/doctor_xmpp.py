"""Doctor: the XMPP server, and whether it takes us as the component of each business domain (XEP-0114)."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from xml.sax.saxutils import quoteattr

from isthmus.config import BusinessDomain, Configuration
from isthmus.services.administration import Finding

HANDSHAKE_SECONDS = 10.0
# An answer to the handshake is a few hundred octets; a server of another kind may talk without end.
MAXIMUM_OCTETS = 16_384

_STREAM_ID = re.compile(rb"<stream:stream[^>]*\sid=[\"']([^\"']+)[\"']")
_CONDITION = re.compile(rb"<([a-z-]+)\s+xmlns=[\"']urn:ietf:params:xml:ns:xmpp-streams[\"']")

_REFUSALS = {
    "not-authorized": "its component_secret is another one: compare both sides (`isthmus prosody-config`)",
    "host-unknown": "it has no such component: add what `isthmus prosody-config` prints, and restart it",
    "conflict": "another Isthmus is connected as this component: stop one of them",
}


async def check_xmpp(configuration: Configuration, links: Callable[[], Mapping[str, bool]] | None) -> list[Finding]:
    """With a running server: its links. Without: the program, or a handshake with an existing server."""
    if links is not None:
        return [_link(domain, is_up) for domain, is_up in sorted(links().items())]
    if configuration.xmpp.embedded:
        if shutil.which("prosody") is None:
            return [Finding("xmpp", "fail", "Prosody is not installed", "run `apt-get install prosody`")]
        return [Finding("xmpp", "ok", "Prosody is installed; it starts together with the server")]
    xmpp = configuration.xmpp
    return [await _handshake(xmpp.host, xmpp.component_port, domain) for domain in configuration.domains]


def _link(domain: str, is_up: bool) -> Finding:
    if is_up:
        return Finding(f"xmpp {domain}", "ok", "the component is connected")
    return Finding(
        f"xmpp {domain}",
        "fail",
        "the component is not connected",
        "the server's log says what the XMPP server answered",
    )


async def _handshake(host: str, port: int, domain: BusinessDomain) -> Finding:
    name, place = f"xmpp {domain.name}", f"{host} port {port}"
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            answer = await _answer(host, port, domain)
    except TimeoutError:
        return Finding(name, "fail", f"{place} does not answer like an XMPP server", "see which program listens there")
    except OSError as error:
        remedy = "start the XMPP server, or correct xmpp.host and xmpp.component_port"
        return Finding(name, "fail", f"{place} cannot be reached ({error.strerror or error})", remedy)
    if b"<handshake" in answer:
        return Finding(name, "ok", f"{place} takes us as the component {domain.name}")
    condition = _CONDITION.search(answer)
    word = condition.group(1).decode() if condition else "no reason"
    remedy = _REFUSALS.get(word, "its log may say why")
    return Finding(name, "fail", f"{place} refuses the component {domain.name}: {word}", remedy)


async def _answer(host: str, port: int, domain: BusinessDomain) -> bytes:
    """Open a component stream, prove the secret, and return what came back (XEP-0114 section 3)."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        namespaces = "xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'"
        writer.write(f"<?xml version='1.0'?><stream:stream {namespaces} to={quoteattr(domain.name)}>".encode())
        received = await _until(reader, b"", lambda data: _STREAM_ID.search(data) or b"<stream:error" in data)
        stream_id = _STREAM_ID.search(received)
        if stream_id is None or b"<stream:error" in received:
            return await _until(reader, received, lambda data: b"</stream:error>" in data)
        secret = domain.component_secret.get_secret_value().encode()
        proof = hashlib.sha1(stream_id.group(1) + secret, usedforsecurity=False).hexdigest()  # XEP-0114 wants SHA-1
        writer.write(f"<handshake>{proof}</handshake>".encode())
        return await _until(reader, b"", lambda data: b"<handshake" in data or b"</stream:error>" in data)
    finally:
        writer.close()


async def _until(reader: asyncio.StreamReader, received: bytes, is_enough: Callable[[bytes], object]) -> bytes:
    while not is_enough(received) and len(received) < MAXIMUM_OCTETS:
        data = await reader.read(4096)
        if not data:
            break
        received += data
    return received
