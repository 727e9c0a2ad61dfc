"""The reference for SIP: what a Python developer writes first, a datagram endpoint with a dictionary.

usage: python -m tests.bench.reference_sip PORT [--database FILE] [--watchers N]

It checks the digest of a REGISTER, keeps the Contact in memory (or commits it to a SQLite file first) and answers 200.
It answers a PUBLISH 200 and sends N prepared NOTIFYs to where it came from. No transactions, no retransmission, no
rules: what a machine can do at this moment with Python, not what a server may do that keeps to the standard.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import secrets
import socket
import sqlite3
from typing import cast

import uvloop

from tests.bench.phones import PASSWORD

_COPIED = ("via:", "from:", "to:", "call-id:", "cseq:")
_PARAMETER = re.compile(r'(\w+)="?([^",]*)"?')
_NOTIFY = (
    "NOTIFY sip:{watcher} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{id};rport\r\nMax-Forwards: 70\r\n"
    "From: <sip:{user}@corp.test>;tag=r\r\nTo: <sip:{watcher}>;tag=w\r\nCall-ID: {id}@reference\r\nCSeq: 1 NOTIFY\r\n"
    "Event: presence\r\nSubscription-State: active;expires=3600\r\nContact: <sip:127.0.0.1:{port}>\r\n"
    "Content-Type: application/pidf+xml\r\nContent-Length: {length}\r\n\r\n{body}"
)


class BareServer(asyncio.DatagramProtocol):
    """Registers and notifies."""

    def __init__(self, port: int, watchers: int, database: str) -> None:
        self._port, self._watchers = port, watchers
        self._database = sqlite3.connect(database) if database else None
        if self._database is not None:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("CREATE TABLE bindings (user TEXT PRIMARY KEY, contact TEXT)")
        self._nonces: dict[str, int] = {}
        self._contacts: dict[str, str] = {}
        self._prepared: dict[str, list[bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's transports have no common base
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if data.startswith(b"SIP/2.0"):
            return
        head, _, body = data.decode().partition("\r\n\r\n")
        lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if lines[0].startswith("REGISTER"):
            self._register(lines, headers, address)
        elif lines[0].startswith("PUBLISH"):
            self._answer(200, "OK", lines, address, "SIP-ETag: one\r\nExpires: 3600\r\n")
            user = lines[0].split(":")[1].split("@")[0]
            for notify in self._notifications(user, body):
                self._transport.sendto(notify, address)

    def _register(self, lines: list[str], headers: dict[str, str], address: tuple[str, int]) -> None:
        told = dict(_PARAMETER.findall(headers.get("authorization", "")))
        nonce = told.get("nonce", "")
        if nonce not in self._nonces or int(told["nc"], 16) <= self._nonces[nonce]:
            nonce = secrets.token_urlsafe(18)
            self._nonces[nonce] = 0
            challenge = f'WWW-Authenticate: Digest realm="corp.test",qop="auth",algorithm=SHA-256,nonce="{nonce}"\r\n'
            self._answer(401, "Unauthorized", lines, address, challenge)
            return
        self._nonces[nonce] = int(told["nc"], 16)
        first = _digest(f"{told['username']}:corp.test:{PASSWORD}")
        second = _digest(f"REGISTER:{told['uri']}")
        if _digest(f"{first}:{nonce}:{told['nc']}:{told['cnonce']}:auth:{second}") != told["response"]:
            self._answer(403, "Forbidden", lines, address)
            return
        self._contacts[told["username"]] = headers["contact"]
        if self._database is not None:
            self._database.execute(
                "INSERT OR REPLACE INTO bindings VALUES (?, ?)", (told["username"], headers["contact"])
            )
            self._database.commit()
        self._answer(200, "OK", lines, address, f"Contact: {headers['contact']};expires=3600\r\n")

    def _answer(self, status: int, reason: str, lines: list[str], address: tuple[str, int], more: str = "") -> None:
        copied = "\r\n".join(line for line in lines if line.lower().startswith(_COPIED))
        response = f"SIP/2.0 {status} {reason}\r\n{copied}\r\n{more}Content-Length: 0\r\n\r\n"
        self._transport.sendto(response.encode(), address)

    def _notifications(self, user: str, body: str) -> list[bytes]:
        if user not in self._prepared:
            self._prepared[user] = [
                _NOTIFY.format(
                    watcher=f"w{number}@corp.test",
                    user=user,
                    port=self._port,
                    id=f"{user}w{number}",
                    body=body,
                    length=len(body),
                ).encode()
                for number in range(self._watchers)
            ]
        return self._prepared[user]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def run(port: int, watchers: int, database: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: BareServer(port, watchers, database), local_addr=("127.0.0.1", port))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--database", default="")
    parser.add_argument("--watchers", type=int, default=0)
    arguments = parser.parse_args()
    uvloop.run(run(arguments.port, arguments.watchers, arguments.database))
