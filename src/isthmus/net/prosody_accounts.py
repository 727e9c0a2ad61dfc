"""Consumer accounts on the embedded Prosody: made, listed and removed without a password in argv, files or logs.

A running server is asked over its admin socket, so that a removed account is also signed out; a stopped one is
changed with prosodyctl, which reads the password from its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import unicodedata
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import unquote
from xml.etree.ElementTree import Element, XMLPullParser

from isthmus.errors import ConfigurationError, LocalError, TransportError
from isthmus.interworking.addresses import escape_localpart
from isthmus.model import Address
from isthmus.net.prosody_configuration import ProsodyPaths, lua_string
from isthmus.xmpp.stanza import escape_text

COMMAND_SECONDS = 20.0
# Enough for a passphrase; SCRAM hashes it, so length costs nothing later.
MAXIMUM_PASSWORD_CHARACTERS = 1_000

_ADMIN = "xmpp:prosody.im/admin"
_STREAMS = "http://etherx.jabber.org/streams"


class AccountError(LocalError):
    """The account cannot be made, changed or removed; the text says why."""

    exit_code = 65


class ProsodyAccounts:
    """The accounts of one consumer domain.

    Args:
        paths: of the embedded server.
        prosodyctl: name or path of the program for a server that does not run.
    """

    def __init__(self, paths: ProsodyPaths, *, prosodyctl: str = "prosodyctl") -> None:
        self._paths = paths
        self._prosodyctl = prosodyctl

    async def create(self, address: Address, password: str) -> None:
        """Make an account. Raises AccountError when it exists, ConfigurationError, TransportError."""
        _check_password(password)
        jid = _jid(address)
        answer = await self._ask(f"user:create({lua_string(jid)}, {lua_string(password)})")
        if answer is None:
            await self._control("adduser", jid, password)

    async def set_password(self, address: Address, password: str) -> None:
        """Change a password. Raises AccountError when there is no such account, ConfigurationError, TransportError."""
        _check_password(password)
        jid = _jid(address)
        answer = await self._ask(f"user:password({lua_string(jid)}, {lua_string(password)})")
        if answer is None:
            await self._control("passwd", jid, password)

    async def delete(self, address: Address) -> None:
        """Remove an account with its roster and archive; raises as `set_password`."""
        jid = _jid(address)
        answer = await self._ask(f"user:delete({lua_string(jid)})")
        if answer is None:
            await self._control("deluser", jid, None)

    async def names(self, domain: str) -> list[str]:
        """Return the localparts of all accounts of a domain, sorted. Raises AccountError, ConfigurationError."""
        answer = await self._ask(f"user:list({lua_string(domain)})")
        if answer is not None:
            return sorted(line.rpartition("@")[0] for line in answer if line.endswith(f"@{domain}"))
        return self._names_on_disk(domain)

    # --- a running server ---

    async def _ask(self, command: str) -> list[str] | None:
        """Run one shell command; return the lines it printed, or None when no server listens."""
        if not self._paths.has_admin_socket:
            return None
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._paths.admin_socket))
        except OSError:
            return None
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                writer.write(f"<stream:stream xmlns='{_ADMIN}' xmlns:stream='{_STREAMS}'>".encode())
                writer.write(f"<repl-input>{escape_text(command)}</repl-input>".encode())
                return await _read_result(reader)
        except (TimeoutError, OSError) as error:
            raise TransportError("Prosody does not answer on its admin socket") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    # --- a stopped server ---

    async def _control(self, command: str, jid: str, password: str | None) -> None:
        program = shutil.which(self._prosodyctl)
        if program is None:
            raise ConfigurationError("Prosody is not installed: run `apt-get install prosody`")
        if not self._paths.configuration.exists():
            raise ConfigurationError("the embedded Prosody has not been set up yet: start `isthmus serve` once")
        root = ["--root"] if self._paths.is_root else []
        process = await asyncio.create_subprocess_exec(
            program,
            *root,
            "--config",
            str(self._paths.configuration),
            command,
            jid,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # no terminal: it would turn off the echo of the one we have
        )
        typed = f"{password}\n{password}\n".encode() if password is not None else b""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                output, _ = await process.communicate(typed)
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise TransportError("prosodyctl does not end") from error
        if process.returncode != 0:
            lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
            raise AccountError(lines[-1] if lines else f"prosodyctl {command} failed")

    def _names_on_disk(self, domain: str) -> list[str]:
        """Read the account files of `storage = "internal"`, whose names are percent-encoded octets."""
        folder = self._paths.data / _encoded(domain) / "accounts"
        return sorted(unquote(path.stem) for path in folder.glob("*.dat")) if folder.is_dir() else []


async def _read_result(reader: asyncio.StreamReader) -> list[str]:
    parser: XMLPullParser[Any] = XMLPullParser(("end",))
    lines: list[str] = []
    while data := await reader.read(65536):
        parser.feed(data)
        for _, element in cast(Iterable[tuple[str, Element]], parser.read_events()):
            text = element.text or ""
            if element.tag == f"{{{_ADMIN}}}repl-output":
                lines.append(text)
            elif element.tag == f"{{{_ADMIN}}}repl-result":
                if element.get("type") == "error":
                    raise AccountError(text.removeprefix("Error: "))
                return lines
    raise TransportError("Prosody closed its admin socket")


def _check_password(password: str) -> None:
    if not password or len(password) > MAXIMUM_PASSWORD_CHARACTERS:
        raise AccountError(f"a password has 1 to {MAXIMUM_PASSWORD_CHARACTERS} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in password):
        raise AccountError("a password has no control characters")


def _jid(address: Address) -> str:
    return f"{escape_localpart(address.local)}@{address.domain}"


def _encoded(name: str) -> str:
    """Encode like Prosody's util.datamanager: every octet but letters and digits as %xx."""
    return "".join(chr(o) if chr(o).isascii() and chr(o).isalnum() else f"%{o:02x}" for o in name.encode())
