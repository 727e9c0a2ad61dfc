"""The embedded Prosody: started, adopted, restarted, stopped; and its accounts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from isthmus.config import BusinessDomain, Configuration, XmppSettings
from isthmus.errors import ConfigurationError
from isthmus.model import Address
from isthmus.net.prosody_accounts import AccountError, ProsodyAccounts
from isthmus.net.prosody_process import ProsodyProcess
from isthmus.trace import Trace, TraceLine
from tests.support.processes import free_port, wait_until
from tests.support.prosody import needs_prosody
from tests.support.xmpp_client import XmppClient


def configuration(directory: Path) -> Configuration:
    return Configuration(
        data_directory=directory,
        xmpp=XmppSettings(
            component_port=free_port(), c2s_port=free_port(), s2s_port=free_port(), websocket_port=free_port()
        ),
        domains=(BusinessDomain(name="corp.test", component_secret=SecretStr("s3cret")),),
    )


Make = Callable[..., ProsodyProcess]


@pytest.fixture
async def process() -> AsyncIterator[Make]:
    """Makes embedded servers and stops all of them in the end, whatever the test did."""
    made: list[ProsodyProcess] = []

    def make(config: Configuration, trace: Trace | None = None, executable: str = "prosody") -> ProsodyProcess:
        trace = trace or Trace(lambda: 0.0)
        made.append(ProsodyProcess(config, trace=trace, executable=executable, random_fraction=lambda: 0.0))
        return made[-1]

    yield make
    for prosody in made:
        await prosody.stop()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
async def config(tmp_path: Path) -> Configuration:
    return configuration(tmp_path)


@pytest.fixture
async def running(config: Configuration, process: Make) -> ProsodyProcess:
    prosody = process(config)
    await prosody.start()
    return prosody


async def sign_in(config: Configuration, name: str, password: str) -> XmppClient:
    client = XmppClient(f"{name}@people.test/phone", password, "127.0.0.1", config.xmpp.c2s_port)
    await client.start()
    return client


class TestWithoutProsody:
    async def test_a_missing_program_is_a_configuration_error_with_the_remedy(
        self, config: Configuration, process: Make
    ) -> None:
        with pytest.raises(ConfigurationError, match="apt-get install prosody"):
            await process(config, executable="no-such-prosody").start()

    async def test_a_missing_program_stops_accounts_as_well(self, config: Configuration, process: Make) -> None:
        accounts = ProsodyAccounts(process(config).paths, prosodyctl="no-such-prosodyctl")
        with pytest.raises(ConfigurationError, match="apt-get install prosody"):
            await accounts.create(Address("ben", "people.test"), "pw")

    @pytest.mark.parametrize("password", ["", "a\nb", "x" * 1001])
    async def test_an_impossible_password_is_refused(self, config: Configuration, process: Make, password: str) -> None:
        with pytest.raises(AccountError, match="a password has"):
            await ProsodyAccounts(process(config).paths).create(Address("ben", "people.test"), password)


@needs_prosody
@pytest.mark.interop
class TestTheProcess:
    async def test_it_starts_and_stops_by_its_id_and_keeps_its_files_private(
        self, config: Configuration, process: Make
    ) -> None:
        prosody = process(config)
        await prosody.start()
        pid = prosody.pid
        assert pid is not None
        assert not prosody.was_adopted
        assert stat.S_IMODE(prosody.paths.directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(prosody.paths.configuration.stat().st_mode) == 0o600
        await prosody.stop()
        assert not is_alive(pid)
        assert prosody.pid is None

    async def test_a_taken_port_is_named_with_its_setting(self, config: Configuration, process: Make) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", config.xmpp.c2s_port))
            other.listen()
            with pytest.raises(ConfigurationError, match=r"xmpp\.c2s_port"):
                await process(config).start()

    async def test_a_server_left_by_a_crash_is_adopted_and_can_be_stopped(
        self, config: Configuration, process: Make
    ) -> None:
        first = process(config)
        await first.start()
        await first.leave_running()
        second = process(config)
        await second.start()
        assert (second.pid, second.was_adopted) == (first.pid, True)
        assert second.pid is not None
        await second.stop()
        # It is our child here, and a child that ended is a zombie until its first owner has taken it.
        assert first._child is not None
        await first._child.wait()

    async def test_a_server_with_an_old_configuration_is_restarted_instead(
        self, config: Configuration, process: Make
    ) -> None:
        first = process(config)
        await first.start()
        await first.leave_running()
        changed = config.model_copy(
            update={"domains": (BusinessDomain(name="corp.test", component_secret=SecretStr("other")),)}
        )
        second = process(changed)
        await second.start()
        assert not second.was_adopted
        assert second.pid != first.pid
        await second.stop()

    async def test_a_pidfile_of_somebody_else_is_not_believed(self, config: Configuration, process: Make) -> None:
        prosody = process(config)
        prosody.paths.directory.mkdir(parents=True)
        prosody.paths.pidfile.write_text(str(os.getpid()))
        await prosody.start()
        assert prosody.pid != os.getpid()
        await prosody.stop()

    @pytest.mark.parametrize("is_adopted", [False, True])
    async def test_a_server_that_dies_is_started_again(
        self, config: Configuration, process: Make, is_adopted: bool
    ) -> None:
        first = process(config)
        await first.start()
        trace = Trace(lambda: 0.0)
        died = asyncio.Event()

        def look(line: TraceLine) -> None:
            if "has died" in line.text:
                died.set()

        trace.listen(look)
        await first.leave_running()
        prosody = process(config, trace)
        if not is_adopted:
            await first.stop()
        await prosody.start()
        assert prosody.was_adopted is is_adopted
        old = prosody.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        async with asyncio.timeout(20):
            await died.wait()
        await wait_until(lambda: prosody.pid is not None and prosody.pid != old, "a new Prosody")
        await prosody.stop()


BEN = Address("ben", "people.test")


@needs_prosody
@pytest.mark.interop
class TestAccounts:
    async def test_accounts_on_a_running_server(self, config: Configuration, running: ProsodyProcess) -> None:
        accounts = ProsodyAccounts(running.paths, prosodyctl="no-such-prosodyctl")
        assert running.paths.has_admin_socket
        await accounts.create(BEN, 'pä "ss\\ <word>')
        await accounts.create(Address("o'hara", "people.test"), "pw")
        assert await accounts.names("people.test") == ["ben", "o\\27hara"]
        with pytest.raises(AccountError, match="exists"):
            await accounts.create(BEN, "other")
        await (await sign_in(config, "ben", 'pä "ss\\ <word>')).stop()
        await accounts.set_password(BEN, "new")
        await (await sign_in(config, "ben", "new")).stop()
        with pytest.raises(AssertionError, match="cannot sign in"):
            await sign_in(config, "ben", 'pä "ss\\ <word>')
        await accounts.delete(BEN)
        with pytest.raises(AccountError, match="No such user"):
            await accounts.set_password(BEN, "x")
        assert await accounts.names("people.test") == ["o\\27hara"]

    async def test_accounts_on_a_stopped_server(self, config: Configuration, process: Make) -> None:
        prosody = process(config)
        await prosody.start()
        await prosody.stop()
        accounts = ProsodyAccounts(prosody.paths)
        await accounts.create(BEN, "first")
        with pytest.raises(AccountError, match="exists"):
            await accounts.create(BEN, "other")
        await accounts.set_password(BEN, "second")
        await accounts.create(Address("o'hara", "people.test"), "pw")
        await accounts.delete(Address("o'hara", "people.test"))
        assert await accounts.names("people.test") == ["ben"]
        await prosody.start()
        try:
            await (await sign_in(config, "ben", "second")).stop()
        finally:
            await prosody.stop()

    async def test_no_password_is_left_in_logs_and_files(self, running: ProsodyProcess) -> None:
        accounts = ProsodyAccounts(running.paths)
        await accounts.create(BEN, "hunter-number-two")
        for path in running.paths.directory.rglob("*"):
            if path.is_file():
                assert b"hunter-number-two" not in path.read_bytes(), path
