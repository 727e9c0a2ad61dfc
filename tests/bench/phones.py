"""Plays the phones of a hosted domain: any number of people behind one UDP socket, with digest and subscriptions.

Requests go out in a closed loop, `window` at a time. As in `neighbours`, parsing is as cheap as it can be, so that the
generator is not what is measured. What is not answered is sent again after half a second (RFC 3261 section 17.1.2).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

from tests.bench.neighbours import Run

_BRANCH = re.compile(rb"branch=z9hG4bK(\w+)")
_NONCE = re.compile(rb'nonce="([^"]+)"')
_ETAG = re.compile(rb"SIP-ETag: *(\S+)", re.IGNORECASE)
_CALL_ID = re.compile(rb"\r\nCall-ID: *(\S+)", re.IGNORECASE)
_COPIED = (b"via:", b"from:", b"to:", b"call-id:", b"cseq:")
_REPEAT_SECONDS = 0.5
_MAXIMUM_REPEATS = 20
PASSWORD = "one password for all phones of the bench"
ALGORITHM = "SHA-256"
PIDF = (
    "<?xml version='1.0' encoding='UTF-8'?><presence xmlns='urn:ietf:params:xml:ns:pidf' "
    "xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' xmlns:rpid='urn:ietf:params:xml:ns:pidf:rpid' "
    "entity='sip:{user}@{domain}'><tuple id='phone'><status><basic>open</basic></status></tuple>"
    "<dm:person id='p'><rpid:activities><rpid:{activity}/></rpid:activities><dm:note>{note}</dm:note></dm:person>"
    "</presence>"
)


def ha1(user: str, domain: str) -> str:
    """What the server keeps of the password (RFC 7616 section 3.4.2)."""
    return _digest(f"{user}:{domain}:{PASSWORD}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Phone:
    """One user agent.

    Attributes:
        nonce, nonce_count: what it proves its password with, request after request.
        etag: of its publication, "" before the first.
        cseq: of its last REGISTER.
    """

    user: str
    ha1: str
    nonce: str = ""
    nonce_count: int = 0
    etag: str = ""
    cseq: int = 0


@dataclass(slots=True)
class _Sent:
    phone: Phone
    data: bytes
    at: float
    repeats: int = 0


@dataclass(slots=True)
class Notifications:
    """NOTIFY requests since `clear`."""

    dialogs: set[bytes] = field(default_factory=set)
    count: int = 0
    last_at: float = 0.0
    wanted: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Phones(asyncio.DatagramProtocol):
    """All phones of one domain.

    Args:
        count: how many; their users are `phone0`, `phone1`, ...
    """

    def __init__(self, count: int, domain: str = "corp.test", *, window: int = 32) -> None:
        self.domain, self.window = domain, window
        self.target = ("127.0.0.1", 0)
        self.phones = [Phone(f"phone{number}", ha1(f"phone{number}", domain)) for number in range(count)]
        self.port = 0
        self.notifications = Notifications()
        self._number = 0
        self._in_flight: dict[bytes, _Sent] = {}
        self._waiting: Iterator[tuple[Phone, str]] = iter(())
        self._run = Run()
        self._is_done = asyncio.Event()

    async def open(self) -> None:
        """Bind a free loopback port."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's transports have no common base
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.port = transport.get_extra_info("sockname")[1]

    def close(self) -> None:
        self._transport.close()

    # --- requests ---

    async def run(self, requests: Iterable[tuple[Phone, str]]) -> Run:
        """Send each request, made of a phone and its text without Via and Content-Length; return what came of them.

        401 and other refusals count as errors, except to requests without credentials, which ask for a nonce.
        """
        self._run, self._waiting = Run(), iter(requests)
        self._is_done.clear()
        began = time.perf_counter()
        self._pump()
        while not self._is_done.is_set():
            try:
                await asyncio.wait_for(self._is_done.wait(), _REPEAT_SECONDS)
            except TimeoutError:
                self._repeat()
        self._run.seconds = time.perf_counter() - began
        return self._run

    def _pump(self) -> None:
        for phone, text in islice(self._waiting, self.window - len(self._in_flight)):
            self._number += 1
            branch = b"p%dx%d" % (self.port, self._number)
            line, _, rest = text.partition("\r\n")
            via = f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{branch.decode()};rport"
            data = f"{line}\r\n{via}\r\nMax-Forwards: 70\r\n{rest}".encode()
            self._in_flight[branch] = _Sent(phone, data, time.perf_counter())
            self._transport.sendto(data, self.target)
        if not self._in_flight:
            self._is_done.set()

    def _repeat(self) -> None:
        now = time.perf_counter()
        for branch, sent in list(self._in_flight.items()):
            if now - sent.at < _REPEAT_SECONDS * (sent.repeats + 1):
                continue
            sent.repeats += 1
            if sent.repeats > _MAXIMUM_REPEATS:
                del self._in_flight[branch]
                self._run.lost += 1
            else:
                self._transport.sendto(sent.data, self.target)
        self._pump()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if data.startswith(b"SIP/2.0"):
            self._answered(data)
        else:
            self._notified(data, address)

    def _answered(self, data: bytes) -> None:
        found = _BRANCH.search(data)
        sent = self._in_flight.pop(found[1], None) if found else None
        if sent is None:
            return
        status = int(data[8:11])
        if status < 300:
            self._run.latencies.append(time.perf_counter() - sent.at)
            etag = _ETAG.search(data)
            if etag:
                sent.phone.etag = etag[1].decode()
        elif status == 401:
            nonce = _NONCE.search(data)
            sent.phone.nonce, sent.phone.nonce_count = (nonce[1].decode() if nonce else ""), 0
            self._run.errors["401"] = self._run.errors.get("401", 0) + (b"\r\nAuthorization" in sent.data)
        else:
            self._run.errors[str(status)] = self._run.errors.get(str(status), 0) + 1
        self._pump()

    # --- notifications ---

    def expect_notifications(self, wanted: int) -> Notifications:
        """Begin to count NOTIFYs anew; `done` is set when `wanted` dialogs had one."""
        self.notifications = Notifications(wanted=wanted)
        return self.notifications

    def _notified(self, data: bytes, address: tuple[str, int]) -> None:
        head = data.partition(b"\r\n\r\n")[0]
        lines = [line for line in head.split(b"\r\n")[1:] if line.lower().startswith(_COPIED)]
        self._transport.sendto(b"SIP/2.0 200 OK\r\n" + b"\r\n".join(lines) + b"\r\nContent-Length: 0\r\n\r\n", address)
        seen = self.notifications
        seen.count += 1
        call_id = _CALL_ID.search(head)
        if call_id is None or call_id[1] in seen.dialogs:
            return
        seen.dialogs.add(call_id[1])
        seen.last_at = time.perf_counter()
        if len(seen.dialogs) >= seen.wanted:
            seen.done.set()

    # --- what phones say ---

    def _authorization(self, phone: Phone, method: str) -> str:
        if not phone.nonce:
            return ""
        phone.nonce_count += 1
        uri, count = f"sip:{self.domain}", f"{phone.nonce_count:08x}"
        response = _digest(f"{phone.ha1}:{phone.nonce}:{count}:c0ffee:auth:{_digest(f'{method}:{uri}')}")
        return (
            f'Authorization: Digest username="{phone.user}",realm="{self.domain}",nonce="{phone.nonce}",uri="{uri}",'
            f'response="{response}",algorithm={ALGORITHM},qop=auth,nc={count},cnonce="c0ffee"\r\n'
        )

    def register(self, phone: Phone) -> tuple[Phone, str]:
        """A first registration, or the refresh of it; without a nonce it asks for one."""
        phone.cseq += 1
        who = f"sip:{phone.user}@{self.domain}"
        return phone, (
            f"REGISTER sip:{self.domain} SIP/2.0\r\nFrom: <{who}>;tag=r{phone.user}\r\nTo: <{who}>\r\n"
            f"Call-ID: register-{phone.user}@bench\r\nCSeq: {phone.cseq} REGISTER\r\n"
            f"Contact: <sip:{phone.user}@127.0.0.1:{self.port}>\r\nExpires: 3600\r\nUser-Agent: bench phone 1.0\r\n"
            f"{self._authorization(phone, 'REGISTER')}Content-Length: 0\r\n\r\n"
        )

    def publish(self, phone: Phone, activity: str, note: str) -> tuple[Phone, str]:
        """A new publication, or a change of the last one."""
        phone.cseq += 1
        who = f"sip:{phone.user}@{self.domain}"
        body = PIDF.format(user=phone.user, domain=self.domain, activity=activity, note=note)
        match = f"SIP-If-Match: {phone.etag}\r\n" if phone.etag else ""
        return phone, (
            f"PUBLISH {who} SIP/2.0\r\nFrom: <{who}>;tag=p{phone.cseq}\r\nTo: <{who}>\r\n"
            f"Call-ID: publish-{phone.user}-{phone.cseq}@bench\r\nCSeq: 1 PUBLISH\r\nEvent: presence\r\n"
            f"Expires: 3600\r\n{match}{self._authorization(phone, 'PUBLISH')}Content-Type: application/pidf+xml\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )

    async def ask_for_nonces(self, phones: Iterable[Phone]) -> None:
        """Let each phone be challenged once."""
        await self.run(self.register(phone) for phone in phones)

    def every(self, say: Callable[[Phone], tuple[Phone, str]]) -> Iterator[tuple[Phone, str]]:
        """One request of each phone, made when it is sent."""
        return (say(phone) for phone in self.phones)
