"""profanity, a terminal XMPP client (libstrophe), in a tmux server of its own: typed into and read as on screen."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import Process, wait_until

needs_profanity = pytest.mark.skipif(
    shutil.which("profanity") is None or shutil.which("tmux") is None, reason="profanity or tmux is not installed"
)

_ACCOUNT = """\
[person]
enabled=true
jid={jid}
password={password}
server={host}
port={port}
tls.policy=trust
resource=profanity
"""

_SETTINGS = """\
[ui]
splash=false
enc.warn=false
wrap=false
[notifications]
message=off
[connection]
carbons=false
"""


@dataclass
class Profanity:
    """One person at a terminal.

    Args:
        folder: empty directory for its profile.
        jid: bare.
        host, port: the server's c2s port; TLS is used whatever the certificate.
    """

    folder: Path
    jid: str
    password: str
    host: str
    port: int
    process: Process = field(init=False)
    _socket_folder: Path = field(init=False)

    async def start(self) -> None:
        """Sign in and wait until the server has let us."""
        profile = self.folder / "profanity"
        profile.mkdir(parents=True)
        (profile / "accounts").write_text(
            _ACCOUNT.format(jid=self.jid, password=self.password, host=self.host, port=self.port)
        )
        (profile / "profrc").write_text(_SETTINGS)
        # A socket's path is short (unix(7)); test directories are not.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="tmux-"))
        self.process = Process(
            ["tmux", "-S", str(self._socket), "-f", "/dev/null", "-D"],
            self.folder / "tmux.log",
            environment={
                "TERM": "screen",
                "LC_ALL": "C.UTF-8",
                "XDG_DATA_HOME": str(self.folder),
                "XDG_CONFIG_HOME": str(self.folder),
                "HOME": str(self.folder),
            },
        )
        await self.process.start()
        await wait_until(self._socket.exists, "tmux to listen")
        await self._tmux("new-session", "-d", "-x", "160", "-y", "50", f"exec profanity -a person 2>{self.folder}/err")
        await self.wait_for("logged in successfully")

    async def stop(self) -> None:
        """End tmux, and with it profanity."""
        if hasattr(self, "process"):
            await self.process.stop()
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    async def type(self, line: str) -> None:
        """Type one line and press Enter."""
        await self._tmux("send-keys", "-l", line)
        await self._tmux("send-keys", "Enter")

    async def screen(self) -> str:
        """What is on the screen now."""
        return await self._tmux("capture-pane", "-p", "-J")

    async def wait_for(self, text: str, timeout_seconds: float = 10.0) -> str:
        """Return the screen once it shows `text`."""
        seen = ""

        async def look() -> str | None:
            nonlocal seen
            seen = await self.screen()
            return seen if text in seen else None

        found: str = await wait_until(look, f"profanity to show {text!r}", timeout_seconds, detail=lambda: seen)
        return found

    @property
    def _socket(self) -> Path:
        return self._socket_folder / "s"

    async def _tmux(self, *arguments: str) -> str:
        child = await asyncio.create_subprocess_exec(
            *("tmux", "-S", str(self._socket), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await child.communicate()
        text = output.decode(errors="replace")
        assert child.returncode == 0, f"tmux {' '.join(arguments)}: {text}"
        return text
