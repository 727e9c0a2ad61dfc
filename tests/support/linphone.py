"""Linphone on the command line (linphonec): a SIP client that knows SHA-256 digests, CPIM and IMDN."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import free_port, wait_until

needs_linphone = pytest.mark.skipif(shutil.which("linphonec") is None, reason="linphonec is not installed")

# Everything that would leave the machine is off: no presence or conference server, no encryption key server.
_CONFIGURATION = """\
[sip]
default_proxy=0
sip_port={udp_port}
sip_tcp_port={tcp_port}
sip_tls_port={tls_port}
root_ca={authority}
verify_server_certs=1
verify_server_cn=0
bind_address=127.0.0.1
guess_hostname=0
contact=sip:{user}@127.0.0.1
use_ipv6=0
register_only_when_network_is_up=0
auto_net_state_mon=0
publish_presence=1
im_notif_policy=all
{list}[storage]
backend=sqlite3
uri={folder}/linphone.db
call_logs_db_uri={folder}/logs.db
zrtp_secrets_db_uri={folder}/zrtp.db
[lime]
enabled=0
[proxy_default_values]
cpim_in_basic_chat_rooms_enabled={cpim}
[proxy_0]
reg_proxy=<sip:{proxy};transport={transport}>
reg_route=<sip:{proxy};transport={transport}>
reg_identity=sip:{address}
reg_expires=120
reg_sendregister=1
publish=1
publish_expires=120
cpim_in_basic_chat_rooms_enabled={cpim}
[auth_info_0]
username={user}
passwd={password}
realm={domain}
domain={domain}
"""


@dataclass
class Linphone:
    """One running user agent.

    Args:
        folder: empty directory for its profile.
        proxy: where to register, `127.0.0.1:5060`.
        contacts: addresses whose presence it watches.
        speaks_cpim: it wraps its messages in CPIM and asks for notifications.
        list_uri: watches all its contacts with one subscription to this address (RFC 4662).
        authority: PEM file of whom it believes on TLS; names are not compared, since it is told an address.
    """

    folder: Path
    address: str
    password: str
    proxy: str
    transport: str = "udp"
    contacts: tuple[str, ...] = ()
    speaks_cpim: bool = False
    authority: Path = Path(os.devnull)
    list_uri: str = ""
    _child: asyncio.subprocess.Process | None = field(default=None, init=False)

    async def start(self) -> None:
        """Start and wait for the registration."""
        user, _, domain = self.address.partition("@")
        (self.folder / ".local" / "share" / "linphone").mkdir(parents=True)
        friends = "".join(
            f"[friend_{number}]\nurl=<sip:{contact}>\npol=accept\nsubscribe=1\n"
            for number, contact in enumerate(self.contacts)
        )
        (self.folder / "linphonerc").write_text(
            _CONFIGURATION.format(
                folder=self.folder,
                user=user,
                domain=domain,
                address=self.address,
                password=self.password,
                proxy=self.proxy,
                transport=self.transport,
                udp_port=free_port(),
                tcp_port=free_port(),
                tls_port=free_port(),
                authority=self.authority,
                cpim=int(self.speaks_cpim),
                list=f"rls_uri={self.list_uri}\n" if self.list_uri else "",
            )
            + friends
        )
        with (self.folder / "output").open("ab") as output:
            self._child = await asyncio.create_subprocess_exec(
                *("linphonec", "-c", str(self.folder / "linphonerc"), "-d", "6", "-l", str(self.folder / "log")),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    "HOME": str(self.folder),
                    "XDG_DATA_HOME": str(self.folder / ".local" / "share"),
                    "XDG_CONFIG_HOME": str(self.folder / ".config"),
                },
                start_new_session=True,
            )
        if self.transport == "tls":
            # Asked for a client certificate, which it may do without, the command line version prompts for a password.
            await self.wait_for("Password for (null)")
            await self.type("none")
        await self.wait_for_log(r"\[LinphoneRegistrationOk\]|Registration on .* successful")

    async def stop(self) -> None:
        """End it by its id; it is not asked to say goodbye, like a phone that falls into the water."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()
            with contextlib.suppress(OSError):
                await self._child.stdin.wait_closed()

    async def send_message(self, to: str, text: str) -> None:
        """Send a text of one line."""
        await self.type(f"chat sip:{to} {text}")

    async def type(self, line: str) -> None:
        """Type a line at its prompt."""
        assert self._child is not None, "start it first"
        assert self._child.stdin is not None, "it was made with a pipe"
        self._child.stdin.write(line.encode() + b"\n")
        await self._child.stdin.drain()

    async def wait_for(self, text: str) -> None:
        """Return when it has printed `text`."""
        path = self.folder / "output"
        await wait_until(
            lambda: text in path.read_text(errors="replace"),
            f"Linphone to print {text!r}",
            detail=lambda: path.read_text(errors="replace")[-2000:],
        )

    async def wait_for_log(self, pattern: str) -> str:
        """Return the part of its log that matches a regular expression, once there is one."""
        found: str = await wait_until(
            lambda: (match := re.search(pattern, self.log)) and match[0],
            f"Linphone to log {pattern!r}",
            detail=lambda: self.log[-3000:],
        )
        return found

    @property
    def log(self) -> str:
        """Its log, with all SIP."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""
