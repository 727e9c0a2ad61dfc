"""A real ejabberd for tests, as a foreign XMPP server: one Erlang process without distribution, ended by its id."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.certificates import IssuedCertificate
from tests.support.dns_server import DnsServer
from tests.support.processes import Process, free_port, wait_for_port
from tests.support.prosody import S2S_PORT

# Debian's ejabberdctl starts epmd, a daemon that outlives us, and changes the user: the emulator is run directly.
_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")

needs_ejabberd = pytest.mark.skipif(
    shutil.which("erl") is None or not any(_LIBRARIES.glob("ejabberd-*")), reason="ejabberd is not installed"
)

_CONFIGURATION = """\
hosts: ["{domain}"]
loglevel: debug
certfiles: ["{folder}/server.pem"]
ca_file: "{authority}"
s2s_use_starttls: required
auth_method: internal
disable_sasl_mechanisms: ["digest-md5", "X-OAUTH2"]
listen:
  - {{port: {c2s_port}, ip: "{interface}", module: ejabberd_c2s}}
  - {{port: {s2s_port}, ip: "{interface}", module: ejabberd_s2s_in}}
modules:
  mod_roster: {{}}
  mod_offline: {{}}
  mod_disco: {{}}
  mod_caps: {{}}
  mod_ping: {{}}
  mod_carboncopy: {{}}
"""


@dataclass
class EjabberdServer:
    """One server with one domain.

    Args:
        directory: everything of it.
        certificate: of the domain.
        authority: PEM file of the authority that it believes.
        accounts: localpart -> password.
        interface: loopback address of all its ports; port 5269 of it must be free.
        hosts: other servers' addresses for s2s; it asks a DNS of ours and nobody else.
    """

    directory: Path
    domain: str
    certificate: IssuedCertificate
    authority: Path
    accounts: Mapping[str, str]
    interface: str
    hosts: Mapping[str, str]
    c2s_port: int = field(init=False)
    _process: Process = field(init=False)
    _names: DnsServer = field(init=False)

    async def start(self) -> None:
        """Write its files, start it, make the accounts, and wait for its ports."""
        self.c2s_port = free_port(host=self.interface)
        # Debian's build asks getaddrinfo for addresses, which no Erlang setting leads astray; SRV records it asks
        # Erlang for, and a target that is an address already satisfies getaddrinfo.
        self._names = DnsServer(
            {
                (f"_xmpp-server._tcp.{name}", "SRV"): (60, [f"0 0 {S2S_PORT} {address}."])
                for name, address in self.hosts.items()
            }
        )
        await self._write_files()
        register = "".join(
            f'{{ok, _}} = {{ejabberd_auth:try_register(<<"{name}">>, <<"{self.domain}">>, <<"{password}">>), ok}}, '
            for name, password in self.accounts.items()
        )
        self._process = Process(
            [
                *("erl", "-noinput", "-mnesia", "dir", f'"{self.directory}/spool"', "-s", "ejabberd"),
                *("-eval", register + f'file:write_file("{self.directory}/ready", <<>>).'),
            ],
            self.directory / "output.log",
            environment={
                "HOME": str(self.directory),
                "ERL_LIBS": str(_LIBRARIES),
                "ERL_INETRC": str(self.directory / "inetrc"),
                "ERL_CRASH_DUMP": os.devnull,
                "EJABBERD_CONFIG_PATH": str(self.directory / "ejabberd.yml"),
                "EJABBERD_LOG_PATH": str(self.directory / "ejabberd.log"),
                "EJABBERD_PID_PATH": str(self.directory / "ejabberd.pid"),
            },
        )
        await self._process.start()
        try:
            for port in (self.c2s_port, S2S_PORT):
                await wait_for_port(port, host=self.interface)
            await self._process.wait_for_file(self.directory / "ready")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End it; it stops its applications one by one, which would take seconds, and there is nothing to save."""
        if hasattr(self, "_process"):
            await self._process.kill()
            self._names.stop()

    @property
    def log(self) -> str:
        """What it wrote so far, at level debug."""
        path = self.directory / "ejabberd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def _write_files(self) -> None:
        for folder in (self.directory, self.directory / "spool"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.directory / "server.pem").write_bytes(
            self.certificate.certificate.read_bytes() + self.certificate.private_key.read_bytes()
        )
        (self.directory / "ejabberd.yml").write_text(
            _CONFIGURATION.format(
                folder=self.directory,
                domain=self.domain,
                authority=self.authority,
                interface=self.interface,
                c2s_port=self.c2s_port,
                s2s_port=S2S_PORT,
            )
        )
        port = (await self._names.start()).rpartition(":")[2]
        (self.directory / "inetrc").write_text(
            f'{{resolv_conf, ""}}.\n{{hosts_file, ""}}.\n{{nameserver, {{127,0,0,1}}, {port}}}.\n{{lookup, [file]}}.\n'
        )
