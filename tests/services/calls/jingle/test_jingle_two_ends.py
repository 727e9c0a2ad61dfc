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
from isthmus.services.calls.jingle.callee_leg import JingleCalleeLeg
from isthmus.services.calls.jingle.leg import JingleLeg
from isthmus.services.calls.jingle.own_change import restarted_contents
from isthmus.services.calls.jingle.proposal_leg import JingleProposalLeg
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


CHANGES: dict[str, Callable[[str], SessionDescription]] = {
    "hold": lambda ufrag: sdp(direction="sendonly", ufrag=ufrag, setup="active"),
    "resume": lambda ufrag: sdp(ufrag=ufrag, setup="active"),
    "video": lambda ufrag: sdp("audio", "video", ufrag=ufrag, setup="active"),
    "no video": lambda ufrag: sdp("audio", "video", rejected=("video",), ufrag=ufrag, setup="active"),
}
STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(CHANGES)), st.booleans(), st.booleans()), max_size=10)


class Side:
    """What a call does with one of its legs: it answers offers with the same media, and restarts ICE when asked to."""

    def __init__(self, leg: JingleLeg, name: str) -> None:
        self.leg = leg
        self.waiting = 0
        self._name = name
        self._generations = {"audio": 0, "video": 0}
        self._wish = "sendrecv"
        leg.attach(self.react)

    def addressed(self, description: SessionDescription) -> SessionDescription:
        """The description with our addresses of now."""
        sections = [
            section
            if section.is_rejected
            else section.with_attributes(
                {
                    "ice-ufrag": f"{self._name}{self._generations[section.mid]}",
                    "ice-pwd": f"{self._name}{self._generations[section.mid]}2mD0sWv4pLr8nTb6cHgYk",
                }
            )
            for section in description.media
        ]
        return description.with_media(sections)

    def offer(self, what: str, *, moves: bool, sections: int) -> None:
        """Offer a change, with new addresses or without, of as many sections as there are (RFC 3264 section 8)."""
        for media in self._generations if moves else ():
            self._generations[media] += 1
        self._wish = "sendonly" if what == "hold" else "sendrecv"
        offer = CHANGES[what](self._name)
        if len(offer.media) < sections:
            offer = sdp("audio", "video", rejected=("video",), setup="active")
        self.waiting += 1
        self.leg.offer(self.addressed(offer))

    def react(self, _leg: Leg, event: LegEvent) -> None:
        if isinstance(event, LegOffered):
            assert event.offer is not None
            for name in restarted_contents(event.offer, self.leg.media.both[1]):
                self._generations[name] += 1
            media = [section.media for section in event.offer.media]
            rejected = tuple(section.media for section in event.offer.media if section.is_rejected)
            said = narrowed(mirrored(event.offer.direction(event.offer.media[0])), self._wish)
            self.leg.answer(self.addressed(sdp(*media, rejected=rejected, direction=said, setup="active")))
        elif isinstance(event, LegAnswered | LegOfferRefused):
            self.waiting -= 1
            assert self.waiting >= 0, "an offer was settled twice"


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_whatever_both_change_every_offer_is_settled_and_both_agree(
    steps: list[tuple[bool, str, bool, bool]],
) -> None:
    """Each step: who offers, what, with new addresses, and whether the other side hears of it before the next step."""

    async def play() -> None:
        call = Call()
        await call.talk()
        sides = Side(call.bob, "B0bs"), Side(call.ana, "G4te")
        for is_ana, what, moves, is_heard in steps:
            side = sides[is_ana]
            if side.waiting:
                await settle()
            side.offer(what, moves=moves, sections=max(len(s.leg.media.both[0].media) for s in sides))
            await (settle() if is_heard else asyncio.sleep(0))
        for _ in range(5):
            await settle()
        assert [side.waiting for side in sides] == [0, 0], "an offer was never settled"
        ours, theirs = call.ana.media.both
        assert live(ours) == live(call.bob.media.both[1])
        assert live(theirs) == live(call.bob.media.both[0])
        if all(is_heard for *_, is_heard in steps):
            # Words that crossed leave each side with the one it heard last, until the next change of either.
            assert flows(ours, theirs) == [mirrored(flow) for flow in flows(*call.bob.media.both)]

    asyncio.run(play())
