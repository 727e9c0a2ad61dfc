"""The control socket: operations and the live trace, for who may open the file."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.admin.client import ControlClient, RemoteError
from isthmus.admin.control import MAXIMUM_BODY_OCTETS, Control
from isthmus.errors import ServerNotRunningError, TransportError
from isthmus.services.administration import Administration
from tests.support.administration import AdministrationWorld


class Running:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.world = AdministrationWorld()
        self.control = Control(self.world.administration, self.world.trace, directory)
        self.client = ControlClient(directory)

    async def call(self, name: str, **arguments: Any) -> Any:
        return await asyncio.to_thread(self.client.call, name, arguments)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    await made.world.start()
    await made.control.start()
    yield made
    await made.control.stop()
    await made.world.bus.drained()


async def test_an_operation_runs_in_the_server_and_the_actor_is_on_record(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isthmus.admin.client.actor", lambda: "carol")
    told = await running.call("user.add", address="ana@corp.test")
    assert told["address"] == "ana@corp.test"
    assert (await running.world.store.audit())[0].actor == "carol"


async def test_a_refusal_keeps_its_text_and_exit_code(running: Running) -> None:
    with pytest.raises(RemoteError, match="user list") as caught:
        await running.call("user.disable", address="ana@corp.test")
    assert caught.value.exit_code == 67


async def test_our_own_mistake_is_logged_and_told_without_details(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Administration, "call", broken)
    with pytest.raises(RemoteError, match="log has the details") as caught:
        await running.call("status")
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 70


async def test_only_the_owner_may_open_the_socket(running: Running) -> None:
    mode = (running.directory / "control.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_too_long_arguments_are_refused(running: Running) -> None:
    with pytest.raises(RemoteError, match=str(MAXIMUM_BODY_OCTETS)):
        await running.call("user.add", address="x" * MAXIMUM_BODY_OCTETS)


async def test_a_second_server_is_refused_and_a_dead_ones_socket_is_replaced(running: Running) -> None:
    second = Control(running.world.administration, running.world.trace, running.directory)
    with pytest.raises(TransportError, match="another server answers"):
        await second.start()
    await second.stop()
    assert await asyncio.to_thread(running.client.is_running)
    await running.control.stop()
    assert not running.client.is_running()
    with pytest.raises(ServerNotRunningError, match="isthmus serve"):
        await running.call("status")
    await second.start()
    assert await asyncio.to_thread(running.client.is_running)
    await second.stop()


async def test_a_deep_data_directory_is_reached_as_well(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    made = Running(deep)
    await made.control.start()
    assert (await made.call("status"))["is_running"]
    await made.control.stop()


def _collect(lines: Iterator[dict[str, Any]], heard: Callable[[dict[str, Any]], object]) -> None:
    for line in lines:
        heard(line)


async def test_the_trace_is_followed_live_and_filtered_by_person_and_call(running: Running) -> None:
    loop, heard = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

    def follow(person: str, call_id: str, recent: int = 0) -> asyncio.Task[None]:
        lines = running.client.trace(person, call_id, recent)
        return asyncio.ensure_future(
            asyncio.to_thread(_collect, lines, lambda line: loop.call_soon_threadsafe(heard.put_nowait, line))
        )

    trace = running.world.trace
    trace.decision("earlier", people=("ana@corp.test",), call_id="call-1")
    by_person, by_call = follow("Ana@corp.test", "", recent=5), follow("", "call-1", recent=5)
    assert [(await heard.get())["text"] for _ in range(2)] == ["earlier", "earlier"]  # both follow now
    trace.wire(">", "sip udp", "MESSAGE sip:ana@corp.test", people=("ana@corp.test",))
    trace.wire("<", "xmpp corp.test", "<message/>", call_id="call-1")
    trace.wire("<", "xmpp corp.test", "<message/>", call_id="call-2")
    assert {(await heard.get())["mark"], (await heard.get())["mark"]} == {">", "<"}
    assert heard.empty()
    await running.control.stop()
    await asyncio.gather(by_person, by_call)
    assert not trace.is_listened_to
