"""Real Prosody servers for tests: own directory, free loopback ports, accounts and components, ended by process id."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.certificates import TestAuthority
from tests.support.processes import Process, free_port, wait_for_port

S2S_PORT = 5269  # without SRV records a server is found here and nowhere else (RFC 6120 section 3.2.2)

needs_prosody = pytest.mark.skipif(shutil.which("prosody") is None, reason="Prosody is not installed")


def private_loopback_address() -> str:
    """An address of 127.0.0.0/8 whose s2s port is free, so that federating servers of parallel tests do not meet."""
    for _ in range(50):
        octets = (random.randint(1, 254), random.randint(0, 255), random.randint(2, 254))
        address = "127." + ".".join(map(str, octets))
        with socket.socket() as probe:
            try:
                probe.bind((address, S2S_PORT))
            except OSError:
                continue
        return address
    raise RuntimeError("no loopback address has a free s2s port")


@dataclass
class ProsodyServer:
    """One server; `start` it after filling in what it should know.

    Attributes:
        directory: everything of it.
        domain: its users' domain.
        components: name -> secret.
        accounts: localpart -> password.
        interface: loopback address of all its ports.
        hosts: other servers' addresses for s2s; None: it does not federate at all.
        options: further lines of configuration, before the hosts.
    """

    directory: Path
    domain: str = "people.test"
    components: Mapping[str, str] = field(default_factory=lambda: {"corp.test": "component-secret"})
    accounts: Mapping[str, str] = field(default_factory=lambda: {"ben": "pw"})
    interface: str = "127.0.0.1"
    hosts: Mapping[str, str] | None = None
    options: str = ""

    def __post_init__(self) -> None:
        self.c2s_port = free_port(host=self.interface)
        self.component_port = free_port(host=self.interface)
        self.websocket_port = free_port(host=self.interface)
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote so far, at level debug."""
        path = self.directory / "prosody.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def start(self) -> None:
        """Write its files, start it and wait for its ports."""
        self._write_files()
        self._process = Process(
            ["prosody", "-F", "--config", str(self.directory / "prosody.cfg.lua")], self.directory / "output.log"
        )
        await self._process.start()
        try:
            # Without a component there is no component port either.
            for port in (self.c2s_port, *((self.component_port,) if self.components else ())):
                await wait_for_port(port, host=self.interface)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        """End it without a chance to say goodbye."""
        if self._process is not None:
            await self._process.kill()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def _write_files(self) -> None:
        accounts = self.directory / "data" / self.domain.replace(".", "%2e") / "accounts"
        accounts.mkdir(parents=True, exist_ok=True)
        for name, password in self.accounts.items():
            (accounts / f"{name}.dat").write_text(f'return {{\n\t["password"] = "{password}";\n}};\n')
        if not (self.directory / "certificate-1.pem").exists():
            TestAuthority(self.directory).issue(self.domain, *self.components)
        if self.hosts is not None:
            lines = (f"{address} {name}" for name, address in self.hosts.items())
            (self.directory / "hosts").write_text("\n".join(lines) + "\n")
        (self.directory / "prosody.cfg.lua").write_text(self.configuration())

    def configuration(self) -> str:
        """The Lua text."""
        here = self.directory
        federates = self.hosts is not None
        modules = "roster saslauth tls disco posix carbons mam smacks blocklist pep vcard4 vcard_legacy ping version"
        names = [*modules.split(), "websocket", *(["dialback"] if federates else [])]
        listed = ", ".join(f'"{name}"' for name in names)
        root = 'run_as_root = true\nprosody_user = "root"\nprosody_group = "root"\n' if os.geteuid() == 0 else ""
        unbound = f'unbound = {{ hoststxt = "{here}/hosts", resolvconf = false }}\n' if federates else ""
        components = "".join(
            f'Component "{name}"\n  component_secret = "{secret}"\n' for name, secret in self.components.items()
        )
        lines = (
            f'pidfile = "{here}/prosody.pid"\ndata_path = "{here}/data"\nlog = {{ debug = "{here}/prosody.log" }}\n'
            f"{root}{unbound}"
            f'interfaces = {{ "{self.interface}" }}\ncomponent_interfaces = {{ "{self.interface}" }}\n'
            f'http_interfaces = {{ "{self.interface}" }}\nc2s_ports = {{ {self.c2s_port} }}\n'
            f"c2s_direct_tls_ports = {{ }}\ns2s_ports = {{ {S2S_PORT if federates else ''} }}\n"
            f"component_ports = {{ {self.component_port} }}\nhttp_ports = {{ {self.websocket_port} }}\n"
            f"https_ports = {{ }}\nmodules_enabled = {{ {listed} }}\n"
            f"modules_disabled = {{ {'' if federates else chr(34) + 's2s' + chr(34)} }}\n"
            f'ssl = {{ certificate = "{here}/certificate-1.pem", key = "{here}/key-1.pem" }}\n'
            'authentication = "internal_plain"\nstorage = "internal"\nallow_unencrypted_plain_auth = true\n'
            "c2s_require_encryption = false\ns2s_require_encryption = true\ns2s_secure_auth = false\n"
            'consider_websocket_secure = true\ncross_domain_websocket = true\nadmin_socket = "admin.sock"\n'
        ).splitlines()
        # Given twice, an option makes Prosody 0.12 warn, and its warning fails where the path has a hyphen.
        given = {line.partition("=")[0].strip() for line in self.options.splitlines()}
        kept = [line for line in lines if line.partition("=")[0].strip() not in given]
        return "\n".join([*kept, self.options, f'VirtualHost "{self.domain}"', components])


async def start_federation(
    directory: Path, domains: Mapping[str, Mapping[str, str]], components: Mapping[str, str]
) -> list[ProsodyServer]:
    """Start one server per domain on its own loopback address; they and the components find each other by s2s.

    Args:
        directory: one folder per server is made in it.
        domains: domain -> accounts.
        components: name -> secret, on the first server.
    """
    addresses = {domain: private_loopback_address() for domain in domains}
    first = next(iter(domains))
    hosts = {**addresses, **dict.fromkeys(components, addresses[first])}
    servers = [
        ProsodyServer(
            directory / domain,
            domain,
            components if domain == first else {},
            accounts,
            interface=addresses[domain],
            hosts=hosts,
        )
        for domain, accounts in domains.items()
    ]
    try:
        for server in servers:
            server.directory.mkdir(parents=True, exist_ok=True)
            await server.start()
    except BaseException:
        for server in servers:
            await server.stop()
        raise
    return servers
