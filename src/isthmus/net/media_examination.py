"""What `isthmus doctor` looks at for calls: relays that answer and carry sound, TURN that takes our credentials.

Nothing of a running server is used or changed: the doctor is a client of the relays like any other.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import aioice.stun
import aioice.turn

from isthmus.config import Configuration, Transport, is_loopback, parse_relay
from isthmus.errors import PeerError, RelayError
from isthmus.net.media_loopback import LoopbackCall
from isthmus.net.rtpengine_ng import NgAddress, NgClient
from isthmus.net.rtpengine_process import RtpengineProcess
from isthmus.services.administration import Finding
from isthmus.services.turn_credentials import turn_credentials

# A call with sound takes four ports of a relay, one with pictures eight; a department should be able to talk.
ENOUGH_PORTS = 400
VERSION_SECONDS = 5.0
TURN_SECONDS = 5.0
ALLOCATION_SECONDS = 60  # given back at once; this is for when that gets lost
_NAME = "media"


@dataclass(frozen=True, slots=True)
class _Relay:
    """A relay of the configuration.

    Attributes:
        target: where packets are sent in a test call; "": where its descriptions say.
    """

    address: NgAddress
    target: str = ""
    is_embedded: bool = False


class MediaExamination:
    """The doctor's checks of media.

    Args:
        configuration: the whole configuration.
        is_live: the server runs, and with it what is embedded.
    """

    def __init__(self, configuration: Configuration, *, is_live: bool) -> None:
        self._configuration = configuration
        self._is_live = is_live

    async def examine(self) -> list[Finding]:
        """Return what was found."""
        relays, turn = await asyncio.gather(self._relays(), self._turn())
        return [*self._addresses(), *self._ports(), *relays, *turn]

    # --- settings ---

    def _addresses(self) -> Iterator[Finding]:
        media, turn, sip = self._configuration.media, self._configuration.turn, self._configuration.sip
        is_public = not all(is_loopback(listener.host) for listener in sip.listeners)
        for name, is_embedded, host, told in (
            ("media", media.embedded, media.host, media.advertised_host),
            ("turn", turn.embedded and turn.is_offered, turn.host, turn.external_address),
        ):
            if not is_embedded:
                continue
            setting = "advertised_host" if name == "media" else "external_address"
            if is_public and is_loopback(host):
                detail = f"SIP is served to others, but {name}.host is {host}: calls reach this machine alone"
                yield Finding(name, "fail", detail, f"set {name}.host to this machine's address")
            elif not told and not is_loopback(host) and ip_address(host.strip("[]")).is_private:
                detail = f"{name}.host {host} is a private address: people outside cannot send to it"
                yield Finding(name, "warn", detail, f"if some are outside, set {name}.{setting} to the public address")

    def _ports(self) -> Iterator[Finding]:
        media, turn = self._configuration.media, self._configuration.turn
        ranges = []
        if media.embedded:
            ranges.append(("media", media.first_port, media.last_port))
        if turn.embedded and turn.is_offered:
            ranges.append(("turn", turn.first_port, turn.last_port))
        single = [("media.control_port", media.control_port), ("turn.port", turn.port)]
        single += [
            (f"sip.listeners {listener.transport.value}", listener.port)
            for listener in self._configuration.sip.listeners
            if listener.transport is Transport.UDP
        ]
        for name, first, last in ranges:
            inside = [setting for setting, port in single if first <= port <= last]
            if inside:
                detail = f"{', '.join(inside)} lies within {name}.first_port to {name}.last_port"
                yield Finding(f"{name} ports", "fail", detail, "choose ranges that do not overlap")
            elif last - first < ENOUGH_PORTS:
                detail = f"{last - first + 1} ports carry no more than {(last - first + 1) // 8} calls with pictures"
                yield Finding(f"{name} ports", "warn", detail, f"widen {name}.first_port to {name}.last_port")
            else:
                yield Finding(f"{name} ports", "ok", f"{first} to {last} (UDP)")
        if len(ranges) == 2 and ranges[0][1] <= ranges[1][2] and ranges[1][1] <= ranges[0][2]:
            yield Finding("media ports", "fail", "the ranges of media and turn overlap", "move one of them")

    # --- relays ---

    async def _relays(self) -> list[Finding]:
        media = self._configuration.media
        relays = [_Relay(NgAddress(*parse_relay(text))) for text in media.ng]
        found = []
        program = shutil.which("rtpengine")
        if media.embedded and program is None:
            told = "rtpengine is not installed" + ("" if relays else ": calls between phones and XMPP are refused")
            found.append(
                Finding(_NAME, "warn", told, "run `apt-get install rtpengine-daemon`, or set media.embedded = false")
            )
        elif media.embedded and not self._is_live:
            found.append(Finding(_NAME, "ok", "rtpengine is installed; it starts together with the server"))
        elif media.embedded:
            address = RtpengineProcess.address_of(self._configuration)
            relays.insert(0, _Relay(address, media.host, is_embedded=True))
        elif not relays:
            detail = "there is no media relay: calls between phones and XMPP are refused"
            found.append(Finding(_NAME, "warn", detail, "set media.embedded, or name a relay in media.ng"))
        return [*found, *await asyncio.gather(*(self._relay(relay, program) for relay in relays))]

    async def _relay(self, relay: _Relay, program: str | None) -> Finding:
        name = f"media relay {relay.address}"
        client = NgClient(relay.address)
        try:
            await client.ask({"command": "ping"})
            call = LoopbackCall(client, relay.address, target=relay.target)
            carried = await call.run()
        except (RelayError, PeerError, OSError) as error:
            log = " (rtpengine/output.log in the data directory)" if relay.is_embedded else ""
            return Finding(name, "fail", str(error), f"see whether it runs, and its log{log}")
        finally:
            client.close()
        version = f"rtpengine {await _version(program)}: " if relay.is_embedded and program else ""
        detail = f"{version}{carried}"
        if carried.is_whole:
            return Finding(name, "ok", detail)
        remedy = f"let UDP through to {carried.target or 'the relay'}, its whole range of ports"
        return Finding(name, "fail" if carried.is_nothing else "warn", detail, remedy)

    # --- TURN ---

    async def _turn(self) -> list[Finding]:
        turn = self._configuration.turn
        if not turn.is_offered:
            detail = "no TURN server: people behind strict firewalls may not hear each other"
            return [Finding("turn", "warn", detail, "set turn.secret (`openssl rand -base64 24`)")]
        if turn.embedded and shutil.which("turnserver") is None:
            return [Finding("turn", "warn", "coturn is not installed", "run `apt-get install coturn`")]
        if turn.embedded and not self._is_live:
            return [Finding("turn", "ok", "coturn is installed; it starts together with the server")]
        host = turn.host.strip("[]") if turn.embedded else turn.told_host
        place = f"{host} port {turn.port}"
        try:
            address = (await asyncio.get_running_loop().getaddrinfo(host, turn.port, type=socket.SOCK_DGRAM))[0][4]
            async with asyncio.timeout(TURN_SECONDS):
                relayed = await self._allocate((str(address[0]), turn.port))
        except (OSError, TimeoutError, aioice.stun.TransactionError) as error:
            refusal = getattr(error, "response", None)
            code = refusal.attributes.get("ERROR-CODE") if refusal is not None else None
            if code is not None:
                detail = f"{place} refuses our credentials: {code[0]} {code[1]}"
                return [Finding("turn", "fail", detail, "turn.secret must be the static-auth-secret of the server")]
            return [Finding("turn", "fail", f"{place} does not answer", "see whether coturn runs, and its log")]
        return [Finding("turn", "ok", f"{place} takes our credentials and relays at {relayed[0]}")]

    async def _allocate(self, server: tuple[str, int]) -> tuple[str, int]:
        """Take an allocation with fresh credentials and give it back; return its address. Binding is part of it."""
        made = turn_credentials(self._configuration.turn, "doctor", time.time())

        def client() -> aioice.turn.TurnClientUdpProtocol:
            return aioice.turn.TurnClientUdpProtocol(
                server,
                username=made.username,
                password=made.password,
                lifetime=ALLOCATION_SECONDS,
                channel_refresh_time=ALLOCATION_SECONDS,
            )

        transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(client, remote_addr=server)
        try:
            relayed = await protocol.connect()
            await protocol.delete()
        finally:
            transport.close()
        return relayed


async def _version(program: str) -> str:
    """Return what the program says of itself, "?" when it says nothing."""
    try:
        child = await asyncio.create_subprocess_exec(
            program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(VERSION_SECONDS):
            output, _ = await child.communicate()
    except (OSError, TimeoutError):
        return "?"
    return output.decode(errors="replace").strip().removeprefix("Version: ")[:60] or "?"
