"""Doctor: our own settings, files and ports."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat

from isthmus.config import Configuration, DomainKind, Listener, Transport, is_loopback
from isthmus.services.administration import Finding

CONNECT_SECONDS = 5.0
_ENCRYPTED = (Transport.TLS, Transport.WSS)


async def check_configuration(configuration: Configuration) -> list[Finding]:
    """Look for settings that contradict each other, and for files that others can read."""
    found: list[Finding] = []
    names = [domain.name for domain in configuration.domains]
    if not names:
        found.append(_bad("no business domain is configured", "add a [[domains]] section to isthmus.toml"))
    if configuration.xmpp.consumer_domain in names:
        found.append(_bad("a business domain is also the consumer domain", "give the consumer realm another name"))
    for domain in configuration.domains:
        if domain.kind is DomainKind.HOSTED and domain.peers:
            remedy = "make it routed, or remove its peers"
            found.append(
                Finding("configuration", "warn", f"{domain.name} is hosted, so its peers are not used", remedy)
            )
    for listener in configuration.sip.listeners:
        if listener.transport is Transport.WS and not is_loopback(listener.host):
            remedy = "use wss, or ws on 127.0.0.1 behind a proxy"
            found.append(_bad(f"clear-text WebSocket on {listener.host} is refused", remedy))
    found += await asyncio.to_thread(_open_files, configuration)
    return found or [Finding("configuration", "ok", f"business domains: {', '.join(names)}")]


def _bad(detail: str, remedy: str) -> Finding:
    return Finding("configuration", "fail", detail, remedy)


def _open_files(configuration: Configuration) -> list[Finding]:
    """Files that hold secrets are 0600 (DESIGN: security ground rules)."""
    found = []
    tls = configuration.sip.tls
    keys = [configuration.data_directory / tls.private_key] if tls.private_key else []
    for path in (configuration.data_directory / "isthmus.toml", *keys):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue  # a missing file is another check's finding
        if mode & 0o077:
            found.append(
                Finding("files", "warn", f"{path.name} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
            )
    return found


async def check_ports(configuration: Configuration, *, is_live: bool) -> list[Finding]:
    """With a running server: whether its stream ports answer. Without: whether they are free."""
    listeners = [listener for listener in configuration.sip.listeners if listener.port]
    web = Listener(transport=Transport.TCP, host=configuration.web.host, port=configuration.web.port)
    found = []
    for name, listener in [*((f"port sip {one.transport.value}", one) for one in listeners), ("port web", web)]:
        if not listener.port:
            continue
        place = f"{listener.host} port {listener.port}"
        problem = await _answers(listener) if is_live else _free(listener)
        if problem:
            found.append(
                Finding(name, "fail", f"{place}: {problem}", f"`ss -lnptu sport = :{listener.port}` tells who")
            )
        else:
            found.append(Finding(name, "ok", f"{place} {'is served' if is_live else 'is free'}"))
    return found


async def _answers(listener: Listener) -> str:
    if listener.transport is Transport.UDP:
        return ""  # nothing answers a connection there; the round trip uses it
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.host, listener.host)  # noqa: S104 - compared, not bound
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, listener.port)
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return f"no answer ({error.strerror or error})"
    writer.close()
    return ""


def _free(listener: Listener) -> str:
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    kind = socket.SOCK_DGRAM if listener.transport is Transport.UDP else socket.SOCK_STREAM
    with socket.socket(family, kind) as trial:
        if kind == socket.SOCK_STREAM:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((listener.host.strip("[]"), listener.port))
        except OSError as error:
            return _explained(error)
    return ""


def _explained(error: OSError) -> str:
    texts = {
        errno.EADDRINUSE: "taken by another program",
        errno.EACCES: "needs more rights (ports below 1024)",
        errno.EADDRNOTAVAIL: "is no address of this machine",
    }
    return texts.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
