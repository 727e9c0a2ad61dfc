"""The host of its own for plays with programs that insist on real names and ports."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.support.certificates import TestAuthority
from tests.support.private_host import needs_private_host, private_host

pytestmark = [pytest.mark.interop, needs_private_host]


PROGRAM = """
import socket, ssl, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
ssl.create_default_context().wrap_socket(connection, server_hostname=sys.argv[1])
"""


def surroundings() -> tuple[list[str], str, Path]:
    interfaces = sorted(name for _, name in socket.if_nameindex())
    return interfaces, Path("/etc/hosts").read_text(), Path.cwd()


def connect(name: str, port: int) -> subprocess.CompletedProcess[str]:
    """As any program would, with the machine's names and trusted authorities."""
    command = ["/usr/bin/python3", "-c", PROGRAM, name, str(port)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


async def test_names_ports_and_trust_of_its_own_and_the_machine_as_before(tmp_path: Path) -> None:
    before = surroundings()
    authority = TestAuthority(tmp_path)
    issued = authority.issue("people.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.private_key)
    with private_host(tmp_path / "host", ["people.test"], authority.authority) as address:
        assert surroundings()[0] == ["lo", "v0", "v1"]
        assert socket.gethostbyname("people.test") == address
        async with await asyncio.start_server(lambda _, writer: writer.close(), address, 5222, ssl=context):
            found = await asyncio.to_thread(connect, "people.test", 5222)
            assert found.returncode == 0, found.stderr
    assert surroundings() == before
    with pytest.raises(socket.gaierror):
        socket.gethostbyname("people.test")
