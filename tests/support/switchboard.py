"""The PBX of pbx.test, played by SIPp, beside a running Isthmus: pat's desk, and whoever else is behind it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.call_stage import CallStage
from tests.support.isthmus_process import IsthmusProcess
from tests.support.jingle_call import JingleCall
from tests.support.jingle_client import JingleClient
from tests.support.jingle_media import use_addresses
from tests.support.processes import free_port
from tests.support.prosody import private_loopback_address
from tests.support.sipp import Sipp, SippMessage, SippRun
from tests.support.sipp_call_steps import play_call, write_mu_law
from tests.support.sipp_callers import Caller

ANA, BEN, PAT = "ana@corp.test", "ben@people.test", "pat@pbx.test"

DOMAINS = """
[[domains]]
name = "pbx.test"
kind = "routed"
component_secret = "a-secret-of-the-pbx"
peers = [{{ host = "{host}", port = {port}, transport = "udp" }}]
"""


@dataclass
class Switchboard:
    """The PBX: where it is, and what it plays."""

    isthmus: IsthmusProcess
    host: str
    port: int
    sound: Path
    stage: CallStage | None = None

    @property
    def sipp(self) -> Sipp:
        made = Sipp(self.isthmus.folder / "sipp", self.host, self.port, f"127.0.0.1:{self.isthmus.sip_port}")
        assert self.stage is not None
        self.stage.leave_at_the_end(made)
        return made

    def another(self) -> Sipp:
        """Another place of the PBX, for what it does meanwhile."""
        made = replace(self.sipp, port=free_port(host=self.host), runs=[])
        assert self.stage is not None
        self.stage.leave_at_the_end(made)
        return made

    @property
    def caller(self) -> Caller:
        return Caller(f"sip:{PAT}", f"sip:{BEN}")

    async def calls(self, scenario: str, *, seconds: float = 10) -> SippRun:
        """pat calls."""
        return await play_call(self.sipp, scenario, seconds=seconds)

    async def is_called(self, scenario: str, *, calls: int = 1) -> SippRun:
        """pat's phone is ready for calls."""
        return await self.sipp.play(scenario, is_server=True, has_media=True, calls=calls)


@contextlib.asynccontextmanager
async def switchboard_in(folder: Path) -> AsyncIterator[Switchboard]:
    """A running Isthmus with ana and ben, and the PBX beside it."""
    use_addresses("127.0.0.1")
    host = private_loopback_address()
    port = free_port(host=host)
    isthmus = IsthmusProcess(folder, DOMAINS.format(host=host, port=port))
    async with isthmus.running():
        await isthmus.add_people(ANA, consumers=(BEN,))
        yield Switchboard(isthmus, host, port, write_mu_law(folder / "tone.ulaw", 800, 5.0))


async def taken(ben: JingleClient) -> JingleCall:
    """ben's app rings, and he takes the call."""
    call = await ben.incoming()
    await call.ring()
    await call.accept()
    return call


async def is_settled(stage: CallStage) -> None:
    """Nothing is left of the call."""
    assert await stage.isthmus.operation("call.live") == []
    assert await stage.calls_in_relay() == []


def answers_to(run: list[SippMessage], method: str) -> list[SippMessage]:
    """The responses that came to this method."""
    return [message for message in run if message.is_received and message.status and method in message.header("CSeq")]
