"""Two gateways call each other over XMPP: each is the other's consumer, and what one says the other must understand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.model import Address, EndCause, Ending
from isthmus.sdp.offer_answer import mirrored, narrowed
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.jingle_callee_leg import JingleCalleeLeg
from isthmus.services.calls.jingle_leg import JingleLeg
from isthmus.services.calls.jingle_proposal_leg import JingleProposalLeg
from isthmus.services.calls.leg import (
    Leg,
    LegAccepted,
    LegAnswered,
    LegCandidates,
    LegConfirmed,
    LegDigit,
    LegEnded,
    LegEvent,
    LegOffered,
    LegOfferRefused,
    LegRinging,
    LegSignal,
    LegSignalled,
)
from tests.support.jingle_house import ANA, ANA_JID, House, MemoryServer, PromptClock, sdp, settle, trickled

BOB = Address("bob", "other.test")
BOB_JID = "bob@other.test/isthmus"


class Call:
    """Ana at corp.test calls bob at other.test."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.clock = PromptClock()
        self.house = House(self.server, self.clock)
        self.other = House(self.server, self.clock, "other.test")
        self.ana: JingleLeg
        self.bob: JingleLeg

    async def ring(self, kind: type[JingleCalleeLeg], *media: str) -> SessionDescription:
        """Ring; return the offer as it arrived."""
        if kind is JingleProposalLeg:
            self.ana = JingleProposalLeg(self.house.around, ours=ANA, our_jid=ANA_JID, party=BOB)
        else:
            self.ana = JingleCalleeLeg(
                self.house.around, ours=ANA, our_jid=ANA_JID, party=BOB, peer_jid=BOB_JID, device="isthmus"
            )
        self.ana.attach(self.house.ear)
        self.ana.invite(sdp(*media))
        await settle()
        incoming = self.other.call
        assert isinstance(incoming.leg, JingleLeg)
        assert incoming.offer is not None
        self.bob = incoming.leg
        return incoming.offer

    async def talk(self, kind: type[JingleCalleeLeg] = JingleCalleeLeg, *media: str) -> None:
        await self.ring(kind, *media)
        self.bob.accept(sdp(*media, setup="active", ufrag="B0bs"))
        await settle()
        self.heard()

    def heard(self) -> tuple[list[LegEvent], list[LegEvent]]:
        """What was told at ana's and at bob's side."""
        return self.house.ear.take(), self.other.ear.take()


def shape(description: SessionDescription) -> list[tuple[str, str, bool, str]]:
    """What must be the same on both sides."""
    return [(section.media, section.mid, section.is_rejected, section.ice_ufrag) for section in description.media]


def live(description: SessionDescription) -> list[tuple[str, str, bool, str]]:
    """The same of what is not rejected: Jingle does not tell of places for media that never were."""
    return [section for section in shape(description) if not section[2]]


def flows(local: SessionDescription, remote: SessionDescription) -> list[str]:
    """What really flows, seen from this side: what both allow."""
    pairs = zip(local.media, remote.media, strict=False)
    return [
        narrowed(local.direction(ours), mirrored(remote.direction(theirs)))
        for ours, theirs in pairs
        if not ours.is_rejected
    ]


@pytest.mark.parametrize("kind", [JingleCalleeLeg, JingleProposalLeg])
class TestACall:
    async def test_from_the_offer_to_the_end(self, kind: type[JingleCalleeLeg]) -> None:
        call = Call()
        offer = await call.ring(kind, "audio", "video")
        assert shape(offer) == shape(sdp("audio", "video"))
        assert [codec.identity for codec in offer.media[0].codecs] == [
            codec.identity for codec in sdp().media[0].codecs
        ]
        call.bob.ring()
        await settle()
        call.bob.accept(sdp("audio", "video", setup="active", ufrag="B0bs", rejected=("video",)))
        await settle()
        (ringing, accepted), (confirmed,) = call.heard()
        assert isinstance(ringing, LegRinging)
        assert isinstance(accepted, LegAccepted)
        assert [(media, is_rejected) for media, _, is_rejected, _ in shape(accepted.answer)] == [
            ("audio", False),
            ("video", True),
        ]
        assert accepted.answer.media[0].ice_ufrag == "B0bs"
        assert confirmed == LegConfirmed()
        call.ana.hang_up(Ending(EndCause.HUNG_UP))
        await settle()
        assert call.heard() == ([LegEnded(Ending(EndCause.HUNG_UP))], [LegEnded(Ending(EndCause.HUNG_UP))])
        assert (len(call.house.registry), len(call.other.registry)) == (0, 0)

    @pytest.mark.parametrize("cause", [EndCause.BUSY, EndCause.DECLINED, EndCause.NO_ANSWER, EndCause.MEDIA_MISMATCH])
    async def test_a_refusal_keeps_its_meaning(self, kind: type[JingleCalleeLeg], cause: EndCause) -> None:
        call = Call()
        await call.ring(kind)
        call.bob.refuse(Ending(cause))
        await settle()
        (ended,), _ = call.heard()
        assert isinstance(ended, LegEnded)
        assert ended.ending.cause is cause

    async def test_whoever_gives_up_is_understood(self, kind: type[JingleCalleeLeg]) -> None:
        call = Call()
        await call.ring(kind)
        call.ana.cancel(Ending(EndCause.CANCELLED))
        await settle()
        _, (ended,) = call.heard()
        assert isinstance(ended, LegEnded)
        assert ended.ending.cause is EndCause.CANCELLED

    async def test_answer_and_end_that_cross_leave_nothing_behind(self, kind: type[JingleCalleeLeg]) -> None:
        """Edge case 35."""
        call = Call()
        await call.ring(kind)
        call.bob.accept(sdp(setup="active"))
        call.ana.cancel(Ending(EndCause.CANCELLED))
        await settle()
        assert isinstance(call.house.ear.take()[-1], LegEnded)
        assert isinstance(call.other.ear.take()[-1], LegEnded)
        assert (len(call.house.registry), len(call.other.registry)) == (0, 0)


class TestInTheCall:
    async def test_everything_that_one_can_tell_the_other_hears(self) -> None:
        call = Call()
        await call.talk()
        call.ana.add_candidates(trickled(51_111))
        call.ana.signal(LegSignal.MUTE)
        call.ana.send_digit("7", 120)
        await settle()
        _, (candidates, muted, digit) = call.heard()
        assert isinstance(candidates, LegCandidates)
        assert "51111" in candidates.fragment.media[0].candidates[0]
        assert (muted, digit) == (LegSignalled(LegSignal.MUTE), LegDigit("7", 120))

    async def test_video_is_added_by_the_one_and_taken_away_by_the_other(self) -> None:
        call = Call()
        await call.talk()
        call.bob.offer(sdp("audio", "video", ufrag="B0bs", setup="active"))
        await settle()
        (offered,), _ = call.heard()
        assert isinstance(offered, LegOffered)
        assert offered.offer is not None
        assert [section.media for section in offered.offer.media] == ["audio", "video"]
        call.ana.answer(sdp("audio", "video"))
        await settle()
        _, (answered,) = call.heard()
        assert isinstance(answered, LegAnswered)
        assert [section.is_rejected for section in answered.answer.media] == [False, False]
        call.ana.offer(sdp("audio", "video", rejected=("video",)))
        await settle()
        (answered,), (offered,) = call.heard()
        assert isinstance(answered, LegAnswered)
        assert isinstance(offered, LegOffered)
        assert offered.offer is not None
        assert [section.is_rejected for section in offered.offer.media] == [False, True]


OFFERS: dict[str, Callable[[str], SessionDescription]] = {
    "hold": lambda ufrag: sdp(direction="sendonly", ufrag=ufrag, setup="active"),
    "resume": lambda ufrag: sdp(ufrag=ufrag, setup="active"),
    "video": lambda ufrag: sdp("audio", "video", ufrag=ufrag, setup="active"),
    "no video": lambda ufrag: sdp("audio", "video", rejected=("video",), ufrag=ufrag, setup="active"),
    "move": lambda ufrag: sdp(ufrag=f"{ufrag}2", setup="active"),
}
STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(OFFERS)), st.booleans()), max_size=10)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_whatever_both_change_every_offer_is_settled_and_both_agree(
    steps: list[tuple[bool, str, bool]],
) -> None:
    """Each step: who offers, what, and whether the other side hears of it before the next step (glare otherwise)."""

    async def play() -> None:
        call = Call()
        await call.talk()
        waiting = {call.ana.key: 0, call.bob.key: 0}

        def react(leg: Leg, event: LegEvent) -> None:
            """What a call does: it answers offers with the same media."""
            if isinstance(event, LegOffered):
                assert event.offer is not None
                # Who is asked for a restart of ICE restarts (RFC 8839 section 4.4.1.1.1).
                has_moved = "2" if event.offer.media[0].ice_ufrag.endswith("2") else ""
                ufrag = ("G4te" if leg is call.ana else "B0bs") + has_moved
                media = [section.media for section in event.offer.media]
                rejected = tuple(section.media for section in event.offer.media if section.is_rejected)
                mirror = {"sendonly": "recvonly", "recvonly": "sendonly"}
                said = event.offer.direction(event.offer.media[0])
                direction = mirror.get(said, said)
                leg.answer(sdp(*media, rejected=rejected, direction=direction, ufrag=ufrag, setup="active"))
            elif isinstance(event, LegAnswered | LegOfferRefused):
                waiting[leg.key] -= 1
                assert waiting[leg.key] >= 0, "an offer was settled twice"

        call.ana.attach(react)
        call.bob.attach(react)
        for is_ana, what, is_heard in steps:
            leg = call.ana if is_ana else call.bob
            if waiting[leg.key]:
                await settle()
            offer = OFFERS[what]("G4te" if is_ana else "B0bs")
            # An offer never has fewer sections than there are (RFC 3264 section 8).
            there = max(len(side.media.both[0].media) for side in (call.ana, call.bob))
            if len(offer.media) < there:
                offer = sdp("audio", "video", rejected=("video",), ufrag=offer.media[0].ice_ufrag, setup="active")
            waiting[leg.key] += 1
            leg.offer(offer)
            await (settle() if is_heard else asyncio.sleep(0))
        await settle()
        assert waiting == {call.ana.key: 0, call.bob.key: 0}, "an offer was never settled"
        ours, theirs = call.ana.media.both
        assert live(ours) == live(call.bob.media.both[1])
        assert live(theirs) == live(call.bob.media.both[0])
        assert flows(ours, theirs) == [mirrored(flow) for flow in flows(*call.bob.media.both)]

    asyncio.run(play())
