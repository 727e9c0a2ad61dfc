"""Calls to the echo address, with scripted callers and media that are a table."""

from __future__ import annotations

import asyncio

import pytest

from isthmus.errors import RelayError
from isthmus.model import Address, EndCause, Ending, MediaForm
from isthmus.sdp.session_description import SdpError, SessionDescription
from isthmus.services.calls.echo_leg import EchoRinger
from isthmus.services.calls.leg import LegConfirmed, LegOffered
from tests.support.call_world import ANA, BEN, CallWorld
from tests.support.scripted_legs import sdp

ECHO = Address("echo", "corp.test")


class Mirrors:
    """Implements `EchoMedia`: every offer is its own answer."""

    def __init__(self) -> None:
        self.open_calls: set[Mirror] = set()
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def open(self, offer: SessionDescription) -> Mirror:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        mirror = Mirror(self)
        self.open_calls.add(mirror)
        return mirror


class Mirror:
    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors

    def answer(self, offer: SessionDescription) -> SessionDescription:
        if all(section.media == "video" for section in offer.media):
            raise SdpError("there is no sound in the offer")
        return offer

    def close(self) -> None:
        self._mirrors.open_calls.discard(self)


@pytest.fixture
async def world() -> CallWorld:
    made = CallWorld()
    await made.start()
    return made


@pytest.fixture
async def mirrors(world: CallWorld) -> Mirrors:
    made = Mirrors()
    world.calls.echo_with(EchoRinger(made, world.clock))
    return made


async def passed(world: CallWorld) -> None:
    """What a leg tells once its method has returned has been told."""
    world.clock.advance(0.0)
    await world.settle()


@pytest.mark.parametrize("caller", [ANA, BEN], ids=["from SIP", "from XMPP"])
async def test_the_echo_answers_at_once_and_ends_with_the_caller(
    world: CallWorld, mirrors: Mirrors, caller: Address
) -> None:
    leg = await world.arrive(caller, ECHO)
    assert leg.words()[-1] == "accept"
    await world.tell(leg, LegConfirmed())
    assert len(mirrors.open_calls) == 1
    assert len(world.relay.open_sessions) == 1

    leg.hang_up(Ending(EndCause.HUNG_UP))
    await world.settle()
    assert not mirrors.open_calls
    assert not world.relay.open_sessions


async def test_a_hold_is_answered(world: CallWorld, mirrors: Mirrors) -> None:
    leg = await world.arrive(ANA, ECHO)
    await world.tell(leg, LegConfirmed(), LegOffered(sdp(MediaForm.RTP, direction="sendonly")))
    await passed(world)
    assert leg.words()[-1] == "answer"
    await world.tell(leg, LegOffered(sdp(MediaForm.RTP, "video")))
    await passed(world)
    assert leg.words()[-1] == "refuse_offer"
    assert len(mirrors.open_calls) == 1


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (SdpError("there is no sound in the offer"), EndCause.MEDIA_MISMATCH),
        (RelayError("too many people listen to their echo"), EndCause.OVERLOADED),
    ],
)
async def test_a_call_that_cannot_be_played_back_is_refused_with_the_reason(
    world: CallWorld, mirrors: Mirrors, fault: Exception, cause: EndCause
) -> None:
    mirrors.fault = fault
    leg = await world.arrive(ANA, ECHO)
    assert leg.last("refuse").cause is cause
    assert leg.last("refuse").text == str(fault)
    assert not world.relay.open_sessions


async def test_a_caller_who_gives_up_before_the_echo_is_there_leaves_nothing_behind(
    world: CallWorld, mirrors: Mirrors
) -> None:
    mirrors.gate.clear()
    leg = await world.arrive(ANA, ECHO)
    leg.hang_up(Ending(EndCause.CANCELLED))
    await world.settle()
    mirrors.gate.set()
    await world.settle()
    assert "accept" not in leg.words()
    assert not mirrors.open_calls
    assert not world.relay.open_sessions
