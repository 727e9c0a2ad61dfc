"""The scenarios of SIPp for calls, against each other and against baresip, without Isthmus between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.support import sipp_callees
from tests.support.baresip_calls import CallPhone, needs_baresip
from tests.support.processes import free_port
from tests.support.sipp import Sipp, needs_sipp
from tests.support.sipp_call_steps import play_call, write_mu_law
from tests.support.sipp_callers import Caller

pytestmark = [pytest.mark.interop, needs_sipp]

Place = Callable[[int], Sipp]
Phone = Callable[..., Awaitable[CallPhone]]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """`place(port)` is a SIPp that calls there; 0 for one that is called."""
    made: list[Sipp] = []

    def place(target: int) -> Sipp:
        made.append(Sipp(tmp_path / "sipp", "127.0.0.1", free_port(), f"127.0.0.1:{target or 9}"))
        return made[-1]

    yield place
    for sipp in made:
        await sipp.stop()


@pytest.fixture
async def phone(tmp_path: Path) -> AsyncIterator[Phone]:
    """`await phone()` starts a baresip that says 1000 Hz."""
    made: list[CallPhone] = []

    async def phone(*, is_answering: bool = False) -> CallPhone:
        name = f"tom{len(made)}"
        made.append(CallPhone(tmp_path / name, f"{name}@127.0.0.1", "", "", hertz=1_000, is_answering=is_answering))
        await made[-1].start()
        return made[-1]

    yield phone
    for one in made:
        await one.stop()


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_mu_law(tmp_path / "tone.ulaw", 800, 5.0)


def caller(sipp: Sipp, target: str) -> Caller:
    return Caller(f"sip:pat@127.0.0.1:{sipp.port}", target)


async def pair(place: Place, calls: Callable[[Caller], str], callee: str) -> None:
    """One scenario calls, the other one is called, and both go as written."""
    called = place(0)
    calling = place(called.port)
    answering = await play_call(called, callee, is_server=True)
    asking = await play_call(calling, calls(caller(calling, f"sip:tom@127.0.0.1:{called.port}")))
    await asking.finished()
    await answering.finished()


@needs_baresip
async def test_a_phone_hears_the_tone_of_a_caller(place: Place, phone: Phone, sound: Path) -> None:
    tom = await phone(is_answering=True)
    sipp = place(tom.sip_port)
    run = await play_call(sipp, caller(sipp, tom.uri).talks(sound, 2_000))
    await tom.hears(800)
    await run.finished()
    await tom.is_over()


@needs_baresip
async def test_a_phone_hears_its_echo_and_then_a_voice(place: Place, phone: Phone, sound: Path) -> None:
    tom, called = await phone(), place(0)
    run = await play_call(called, sipp_callees.echoes(), is_server=True, echo=True)
    await tom.dial(f"sip:pat@127.0.0.1:{called.port}")
    await tom.hears_ringing()
    await tom.hears(1_000)
    await tom.hang_up()
    await run.finished()
    speaking = place(0)
    run = await play_call(speaking, sipp_callees.speaks(sound), is_server=True)
    await tom.dial(f"sip:pat@127.0.0.1:{speaking.port}")
    await tom.hears(800)
    await tom.hang_up()
    await run.finished()


@needs_baresip
async def test_an_answer_in_the_ack_to_an_offer_in_the_200(place: Place, phone: Phone, sound: Path) -> None:
    tom = await phone(is_answering=True)
    sipp = place(tom.sip_port)
    run = await play_call(sipp, caller(sipp, tom.uri).offers_late(sound, 2_000))
    await tom.hears(800)
    offer = next(m for m in await run.finished() if m.status == 200)
    assert "m=audio" in offer.body


@needs_baresip
async def test_a_caller_holds_and_resumes(place: Place, phone: Phone, sound: Path) -> None:
    tom = await phone(is_answering=True)
    sipp = place(tom.sip_port)
    run = await play_call(sipp, caller(sipp, tom.uri).holds(sound, 300))
    answers = [m for m in await run.finished() if m.status == 200 and "INVITE" in m.header("CSeq")]
    assert [("recvonly" in m.body, "sendrecv" in m.body) for m in answers] == [
        (False, True),
        (True, False),
        (False, True),
    ]


@needs_baresip
async def test_a_phone_is_held_by_whom_it_called(place: Place, phone: Phone) -> None:
    tom, called = await phone(), place(0)
    run = await play_call(called, sipp_callees.holds(300), is_server=True)
    await tom.dial(f"sip:pat@127.0.0.1:{called.port}")
    for _ in range(3):
        await tom.expect("CALL_REMOTE_SDP")
    await tom.hang_up()
    await run.finished()


@needs_baresip
async def test_a_phone_is_transferred(place: Place, phone: Phone) -> None:
    tom, eva = await phone(is_answering=True), await phone(is_answering=True)
    sipp = place(tom.sip_port)
    run = await play_call(sipp, caller(sipp, tom.uri).transfers(eva.uri))
    await eva.is_in_call()
    await run.finished()


@needs_baresip
async def test_a_phone_is_tried_again_after_a_redirection(place: Place, phone: Phone) -> None:
    ana, tom, called = await phone(), await phone(is_answering=True), place(0)
    moved = sipp_callees.refuses(302, "Moved Temporarily", contact=tom.uri)
    run = await play_call(called, moved, is_server=True)
    await ana.dial(f"sip:pat@127.0.0.1:{called.port}")
    await run.finished()
    await tom.is_in_call()


@needs_baresip
async def test_a_phone_is_hung_up_on_as_soon_as_it_is_answered(place: Place, phone: Phone) -> None:
    tom, called = await phone(), place(0)
    run = await play_call(called, sipp_callees.hangs_up_before_the_ack(), is_server=True)
    await tom.dial(f"sip:pat@127.0.0.1:{called.port}")
    await tom.is_over()
    await run.finished()


@pytest.mark.parametrize(("status", "reason"), [(486, "Busy Here"), (603, "Decline"), (404, "Not Found")])
async def test_a_call_is_refused(place: Place, status: int, reason: str) -> None:
    await pair(place, lambda who: who.gets(status), sipp_callees.refuses(status, reason))


async def test_a_call_is_cancelled(place: Place) -> None:
    await pair(place, Caller.gives_up, sipp_callees.rings_until_cancelled())


async def test_ringing_is_acknowledged(place: Place, sound: Path) -> None:
    await pair(
        place,
        lambda who: who.needs_acknowledged_ringing(sound, 200, status=183),
        sipp_callees.rings_reliably(sound),
    )
