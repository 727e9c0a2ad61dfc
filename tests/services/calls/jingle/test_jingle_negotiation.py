"""What changes in a call: hold, video, addresses; both ways, and both at once."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.model import EndCause, Ending
from isthmus.sdp.offer_answer import mirrored, narrowed
from isthmus.sdp.session_description import DIRECTIONS, SessionDescription
from isthmus.services.calls.jingle.callee_leg import JingleCalleeLeg
from isthmus.services.calls.jingle.leg import JingleLeg
from isthmus.services.calls.jingle.wishes import wish_behind
from isthmus.services.calls.leg import LegAnswered, LegEnded, LegOffered, LegOfferRefused
from tests.support.jingle_house import (
    ANA,
    ANA_JID,
    BEN,
    BEN_PHONE,
    JINGLE,
    Device,
    House,
    MemoryServer,
    PromptClock,
    candidate,
    content,
    reason_of,
    sdp,
    settle,
    transport,
    trickled,
    video,
)

INFO = "urn:xmpp:jingle:apps:rtp:info:1"
ANSWER = transport("an5w", setup="active")


class Play:
    """Ana and ben are in a call; whoever `initiates` called."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.clock = PromptClock()
        self.house = House(self.server, self.clock)
        self.ben = Device(self.server)
        self.leg: JingleLeg
        self.sid = "s-77"

    async def ben_calls(self, *media: str) -> None:
        inner = content() + (video() if "video" in media else "")
        await self.ben.accepted("session-initiate", inner=inner)
        leg = self.house.call.leg
        assert isinstance(leg, JingleLeg)
        self.leg = leg
        leg.accept(sdp(*media, setup="active"))
        await settle()
        self.house.ear.take()
        self.ben.received.clear()

    async def ana_calls(self) -> None:
        leg = JingleCalleeLeg(
            self.house.around,
            ours=ANA,
            our_jid=ANA_JID,
            party=BEN,
            peer_jid=BEN_PHONE,
            device="phone",
        )
        self.leg, self.sid = leg, leg.sid
        leg.attach(self.house.ear)
        leg.invite(sdp())
        await settle()
        await self.ben.accepted("session-accept", self.sid, content(transported=ANSWER))
        self.house.ear.take()
        self.ben.received.clear()

    async def offer(self, offer: SessionDescription) -> None:
        self.leg.offer(offer)
        await settle()

    async def answer(self, answer: SessionDescription) -> None:
        self.leg.answer(answer)
        await settle()

    async def modify(self, senders: str) -> None:
        inner = f"<content creator='initiator' name='audio' senders='{senders}'/>"
        await self.ben.accepted("content-modify", self.sid, inner)

    def offered(self) -> SessionDescription:
        """The only thing told is an offer."""
        (event,) = self.house.ear.take()
        assert isinstance(event, LegOffered)
        assert event.offer is not None
        return event.offer

    def answered(self) -> SessionDescription:
        """The only thing told is an answer."""
        (event,) = self.house.ear.take()
        assert isinstance(event, LegAnswered)
        return event.answer

    def refused(self) -> Ending:
        """The only thing told is that our offer is not taken."""
        (event,) = self.house.ear.take()
        assert isinstance(event, LegOfferRefused)
        return event.ending


@pytest.fixture
async def play() -> Play:
    """Ben called."""
    play = Play()
    await play.ben_calls()
    return play


@pytest.fixture
async def outward() -> Play:
    """Ana called: we are the initiator."""
    play = Play()
    await play.ana_calls()
    return play


def directions(description: SessionDescription) -> list[str]:
    return [description.direction(section) for section in description.media]


class TestHold:
    @pytest.mark.parametrize("senders", ["responder", "initiator"])
    async def test_our_hold_says_that_only_we_send(self, play: Play, outward: Play, senders: str) -> None:
        """`senders` is absolute: our role decides the word."""
        play = play if senders == "responder" else outward
        await play.offer(sdp(direction="sendonly"))
        modified = play.ben.take("content-modify").find(f"{JINGLE}content")
        assert modified is not None
        assert modified.get("senders") == senders
        assert directions(play.answered()) == ["recvonly"]
        await play.offer(sdp(direction="sendrecv"))
        assert play.ben.take("content-modify")[0].get("senders") == "both"
        assert directions(play.answered()) == ["sendrecv"]

    @pytest.mark.parametrize("condition", ["bad-request", "feature-not-implemented"])
    async def test_a_client_without_content_modify_is_told_of_our_hold(self, play: Play, condition: str) -> None:
        play.ben.refuses["content-modify"] = (condition, "")
        for direction, heard, kind in (("sendonly", "recvonly", "hold"), ("sendrecv", "sendrecv", "unhold")):
            await play.offer(sdp(direction=direction))
            play.ben.take("content-modify")
            assert play.ben.take("session-info").find(f"{{{INFO}}}{kind}") is not None
            assert directions(play.answered()) == [heard]

    async def test_the_peer_holds_by_senders(self, play: Play) -> None:
        await play.modify("initiator")
        assert directions(play.offered()) == ["sendonly"]
        await play.answer(sdp(direction="recvonly", setup="active"))
        assert play.ben.received == []
        await play.modify("both")
        assert directions(play.offered()) == ["sendrecv"]
        await play.answer(sdp(direction="sendrecv", setup="active"))
        assert play.ben.received == []

    async def test_the_peer_holds_by_information_which_becomes_an_offer(self, play: Play) -> None:
        """STANDARDS 1.7.6: a hold from Jingle must make an offer."""
        for _ in range(2):
            await play.ben.accepted("session-info", play.sid, f"<hold xmlns='{INFO}'/>")
        assert directions(play.offered()) == ["sendonly"]
        await play.answer(sdp(direction="recvonly", setup="active"))
        await play.ben.accepted("session-info", play.sid, f"<unhold xmlns='{INFO}'/>")
        assert directions(play.offered()) == ["sendrecv"]
        await play.answer(sdp(setup="active"))
        assert play.ben.received == []

    async def test_the_peer_holds_by_both_and_says_the_ends_in_the_same_order(self, play: Play) -> None:
        """What is said first is ended first: then the information must not bring the old `senders` back."""
        await play.modify("initiator")
        await play.ben.accepted("session-info", play.sid, f"<hold xmlns='{INFO}'/>")
        for _ in range(2):
            assert directions(play.offered()) == ["sendonly"]
            await play.answer(sdp(direction="recvonly", setup="active"))
        await play.modify("both")
        assert directions(play.offered()) == ["sendonly"]
        await play.answer(sdp(direction="recvonly", setup="active"))
        await play.ben.accepted("session-info", play.sid, f"<unhold xmlns='{INFO}'/>")
        assert directions(play.offered()) == ["sendrecv"]
        await play.answer(sdp(direction="sendrecv", setup="active"))

    async def test_the_hold_of_one_does_not_end_that_of_the_other(self, play: Play) -> None:
        await play.modify("initiator")  # ben holds
        assert directions(play.offered()) == ["sendonly"]
        await play.answer(sdp(direction="recvonly", setup="active"))
        await play.offer(sdp(direction="sendonly"))  # ana as well
        assert play.ben.take("content-modify")[0].get("senders") == "none"
        assert directions(play.answered()) == ["inactive"]
        await play.offer(sdp(direction="sendrecv"))  # ana is back, ben is not
        assert play.ben.take("content-modify")[0].get("senders") == "initiator"
        assert directions(play.answered()) == ["sendonly"]

    async def test_a_peer_that_ends_its_hold_while_we_hold_is_told_that_we_do(self, play: Play) -> None:
        await play.offer(sdp(direction="sendonly"))
        play.answered()
        play.ben.received.clear()
        await play.modify("none")  # ben holds as well
        assert directions(play.offered()) == ["sendonly"]
        await play.answer(sdp(direction="inactive", setup="active"))
        assert play.ben.received == []
        await play.modify("both")  # a client that does not know that we hold
        assert directions(play.offered()) == ["sendrecv"]
        await play.answer(sdp(direction="sendonly", setup="active"))
        assert play.ben.take("content-modify")[0].get("senders") == "responder"


class TestVideo:
    async def test_we_add_it_and_the_peer_takes_it(self, play: Play) -> None:
        await play.offer(sdp("audio", "video"))
        added = play.ben.take("content-add").find(f"{JINGLE}content")
        assert added is not None
        assert (added.get("name"), added.get("creator")) == ("video", "responder")
        assert play.house.ear.take() == []
        await play.ben.accepted("content-accept", play.sid, video(creator="responder", transported=ANSWER))
        answer = play.answered()
        assert [(section.media, section.is_rejected) for section in answer.media] == [
            ("audio", False),
            ("video", False),
        ]

    async def test_we_add_it_and_the_peer_does_not_want_it(self, play: Play) -> None:
        await play.offer(sdp("audio", "video"))
        inner = "<content creator='responder' name='video'/><reason><decline/></reason>"
        await play.ben.accepted("content-reject", play.sid, inner)
        assert play.refused().cause is EndCause.DECLINED
        await play.offer(sdp(direction="sendonly"))  # the audio goes on
        assert directions(play.answered()) == ["recvonly"]

    async def test_a_peer_that_never_says_anything_is_asked_to_forget_it(self, play: Play) -> None:
        await play.offer(sdp("audio", "video"))
        play.clock.advance(61)
        await settle()
        assert play.refused().cause is EndCause.NO_ANSWER
        removed = play.ben.take("content-remove").find(f"{JINGLE}content")
        assert removed is not None
        assert (removed.get("name"), removed.get("creator")) == ("video", "responder")

    async def test_the_peer_adds_it_and_we_take_it(self, play: Play) -> None:
        await play.ben.accepted("content-add", play.sid, video())
        offer = play.offered()
        assert [section.media for section in offer.media] == ["audio", "video"]
        await play.answer(sdp("audio", "video", setup="active"))
        accepted = play.ben.take("content-accept")
        assert [c.get("name") for c in accepted.findall(f"{JINGLE}content")] == ["video"]
        fingerprints = [f.get("setup") for f in accepted.iter("{urn:xmpp:jingle:apps:dtls:0}fingerprint")]
        assert fingerprints == ["active"]

    async def test_the_peer_adds_it_and_we_answer_without_it(self, play: Play) -> None:
        await play.ben.accepted("content-add", play.sid, video())
        play.offered()
        await play.answer(sdp("audio", "video", setup="active", rejected=("video",)))
        rejected = play.ben.take("content-reject")
        assert [c.get("name") for c in rejected.findall(f"{JINGLE}content")] == ["video"]
        assert not play.ben.has("content-accept")

    async def test_the_peer_adds_it_and_we_refuse(self, play: Play) -> None:
        await play.ben.accepted("content-add", play.sid, video())
        play.offered()
        play.leg.refuse_offer(Ending(EndCause.FORBIDDEN))
        await settle()
        assert reason_of(play.ben.take("content-reject")) == "decline"
        await play.offer(sdp(direction="sendonly"))
        assert directions(play.answered()) == ["recvonly"]

    async def test_one_without_encryption_is_rejected_unseen(self, play: Play) -> None:
        await play.ben.accepted("content-add", play.sid, video(transported=transport(fingerprint="")))
        assert reason_of(play.ben.take("content-reject")) == "security-error"
        assert play.house.ear.take() == []

    async def test_one_that_cannot_be_read_is_rejected_unseen(self, play: Play) -> None:
        files = content("f", description="<description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/>")
        await play.ben.accepted("content-add", play.sid, files)
        assert play.ben.take("content-reject")[0].get("name") == "f"
        assert play.house.ear.take() == []

    async def test_either_side_takes_it_away(self) -> None:
        play = Play()
        await play.ben_calls("audio", "video")
        await play.offer(sdp("audio", "video", rejected=("video",)))
        assert play.ben.take("content-remove")[0].get("name") == "video"
        assert [section.is_rejected for section in play.answered().media] == [False, True]
        play = Play()
        await play.ben_calls("audio", "video")
        await play.ben.accepted("content-remove", play.sid, "<content creator='initiator' name='video'/>")
        assert [section.is_rejected for section in play.offered().media] == [False, True]
        await play.answer(sdp("audio", "video", rejected=("video",), setup="active"))
        assert play.ben.received == []

    async def test_without_any_media_the_call_is_over(self, play: Play) -> None:
        await play.ben.accepted("content-remove", play.sid, "<content creator='initiator' name='audio'/>")
        (event,) = play.house.ear.take()
        assert isinstance(event, LegEnded)
        assert reason_of(play.ben.take("session-terminate")) == "success"


class TestAddresses:
    async def test_we_restart_ice_and_the_peer_follows(self, play: Play) -> None:
        await play.offer(sdp(ufrag="Nw88"))
        restart = play.ben.take("transport-info").find(".//{urn:xmpp:jingle:transports:ice-udp:1}transport")
        assert restart is not None
        assert restart.get("ufrag") == "Nw88"
        assert play.house.ear.take() == []
        inner = content(description="", transported=transport("n3w1", fingerprint="", candidates=candidate()))
        await play.ben.accepted("transport-info", play.sid, inner)
        assert play.answered().media[0].ice_ufrag == "n3w1"

    async def test_the_peer_restarts_ice_and_we_follow(self, play: Play) -> None:
        inner = content(description="", transported=transport("n3w1", fingerprint=""))
        await play.ben.accepted("transport-info", play.sid, inner)
        assert play.offered().media[0].ice_ufrag == "n3w1"
        await play.answer(sdp(ufrag="Nw88", setup="active"))
        follow = play.ben.take("transport-info").find(".//{urn:xmpp:jingle:transports:ice-udp:1}transport")
        assert follow is not None
        assert follow.get("ufrag") == "Nw88"
        play.leg.add_candidates(trickled(ufrag="Nw88"))
        await settle()
        assert play.ben.has("transport-info")

    async def test_a_bundle_restarts_once_however_many_contents_say_so(self) -> None:
        """Clients tell one content in each action, and a bundle has one transport."""
        play = Play()
        group = "<group xmlns='urn:xmpp:jingle:apps:grouping:0' semantics='BUNDLE'>"
        bundle = f"{group}<content name='audio'/><content name='video'/></group>"
        await play.ben.accepted("session-initiate", inner=content() + video() + bundle)
        leg = play.house.call.leg
        assert isinstance(leg, JingleLeg)
        play.leg = leg
        leg.accept(sdp("audio", "video", setup="active"))
        await settle()
        play.house.ear.take()
        play.ben.received.clear()
        moved = transport("n3w1", fingerprint="")
        for name in ("audio", "video"):
            await play.ben.accepted("transport-info", play.sid, content(name, description="", transported=moved))
        assert {section.ice_ufrag for section in play.offered().media} == {"n3w1"}
        await play.answer(sdp("audio", "video", ufrag="Nw88", setup="active"))
        assert play.house.ear.take() == []
        assert play.ben.kinds == ["transport-info", "transport-info"]

    async def test_an_answer_to_something_else_does_not_move_us_unsaid(self, play: Play) -> None:
        await play.modify("initiator")
        play.offered()
        await play.answer(sdp(direction="recvonly", ufrag="Nw88", setup="active"))
        assert play.ben.received == []
        await play.offer(sdp(ufrag="Nw88", setup="active"))
        assert play.ben.take("transport-info").find(".//*[@ufrag='Nw88']") is not None

    async def test_the_peer_replaces_its_transport(self, play: Play) -> None:
        inner = content(description="", transported=transport("n3w1", candidates=candidate()))
        await play.ben.accepted("transport-replace", play.sid, inner)
        assert play.offered().media[0].ice_ufrag == "n3w1"
        await play.answer(sdp(ufrag="Nw88", setup="active"))
        assert play.ben.has("transport-accept")
        await play.ben.accepted("transport-replace", play.sid, content(description="", transported=transport("n4w1")))
        play.offered()
        play.leg.refuse_offer(Ending(EndCause.MEDIA_MISMATCH))
        await settle()
        assert play.ben.has("transport-reject")

    async def test_another_certificate_replaces_our_transport(self, play: Play) -> None:
        other = sdp(ufrag="Nw88", fingerprint="11:" + sdp().media[0].fingerprints[0].split(" ")[1][3:])
        await play.offer(other)
        assert play.ben.has("transport-replace")
        assert play.house.ear.take() == []
        inner = content(description="", transported=transport("n3w1", setup="active"))
        await play.ben.accepted("transport-accept", play.sid, inner)
        assert play.answered().media[0].ice_ufrag == "n3w1"

    async def test_a_transport_that_is_not_taken_keeps_the_old_one(self, play: Play) -> None:
        other = sdp(ufrag="Nw88", fingerprint="11:" + sdp().media[0].fingerprints[0].split(" ")[1][3:])
        await play.offer(other)
        inner = content(description="", transported="<transport xmlns='urn:xmpp:jingle:transports:ice-udp:1'/>")
        await play.ben.accepted("transport-reject", play.sid, inner)
        assert play.refused()


class TestBothAtOnce:
    async def test_nothing_new_is_answered_at_once(self, play: Play) -> None:
        await play.offer(sdp(setup="active"))
        assert directions(play.answered()) == ["sendrecv"]
        assert play.ben.received == []

    async def test_as_initiator_we_win(self, outward: Play) -> None:
        """XEP-0166 section 7.2.16."""
        play = outward
        play.ben.held["content-modify"] = asyncio.get_running_loop().create_future()
        await play.offer(sdp(direction="sendonly"))
        inner = "<content creator='initiator' name='audio' senders='responder'/>"
        assert await play.ben.refused("content-modify", play.sid, inner) == "conflict/tie-break"
        play.ben.held["content-modify"].set_result(None)
        await settle()
        assert directions(play.answered()) == ["recvonly"]

    async def test_as_responder_we_let_the_peer_go_first_and_try_again_unseen(self, play: Play) -> None:
        play.ben.held["content-modify"] = asyncio.get_running_loop().create_future()
        play.ben.refuses["content-modify"] = ("conflict", "tie-break")
        await play.offer(sdp(direction="sendonly"))
        await play.modify("initiator")
        assert play.house.ear.take() == []
        play.ben.held.pop("content-modify").set_result(None)
        await settle()
        assert directions(play.offered()) == ["sendonly"]
        play.ben.refuses.clear()
        play.ben.received.clear()
        await play.answer(sdp(direction="recvonly", setup="active"))
        assert play.ben.take("content-modify")[0].get("senders") == "none"
        assert directions(play.answered()) == ["inactive"]

    async def test_two_videos_at_once_become_the_initiators(self, play: Play) -> None:
        play.ben.held["content-add"] = asyncio.get_running_loop().create_future()
        play.ben.refuses["content-add"] = ("conflict", "tie-break")
        await play.offer(sdp("audio", "video"))
        await play.ben.accepted("content-add", play.sid, video())
        play.ben.held.pop("content-add").set_result(None)
        await settle()
        refused, offered = play.house.ear.take()
        assert isinstance(refused, LegOfferRefused)
        assert refused.ending.status == 491
        assert isinstance(offered, LegOffered)
        await play.answer(sdp("audio", "video", setup="active"))
        assert play.ben.has("content-accept")

    async def test_another_change_of_the_peer_waits_its_turn(self, outward: Play) -> None:
        play = outward
        await play.offer(sdp("audio", "video"))
        await play.modify("responder")
        assert play.house.ear.take() == []
        inner = video(transported=ANSWER)
        await play.ben.accepted("content-accept", play.sid, inner)
        answered, offered = play.house.ear.take()
        assert isinstance(answered, LegAnswered)
        assert isinstance(offered, LegOffered)
        assert offered.offer is not None
        assert directions(offered.offer)[0] == "sendonly"

    async def test_changes_of_the_peer_are_offered_one_by_one(self, play: Play) -> None:
        await play.modify("initiator")
        await play.modify("both")
        assert directions(play.offered()) == ["sendonly"]
        await play.offer(sdp(direction="inactive", setup="active"))  # waits as well
        await play.answer(sdp(direction="recvonly", setup="active"))
        assert directions(play.offered()) == ["sendrecv"]
        await play.answer(sdp(setup="active"))
        assert directions(play.answered()) == ["inactive"]

    async def test_they_cannot_pile_up(self, play: Play) -> None:
        await play.modify("initiator")
        for senders in itertools.islice(itertools.cycle(["both", "initiator"]), 16):
            await play.modify(senders)
        inner = "<content creator='initiator' name='audio' senders='both'/>"
        assert await play.ben.refused("content-modify", play.sid, inner) == "unexpected-request/out-of-order"

    @pytest.mark.parametrize("action", ["content-accept", "content-reject", "transport-accept", "transport-reject"])
    async def test_answers_to_nothing_are_out_of_order(self, play: Play, action: str) -> None:
        refused = await play.ben.refused(action, play.sid, video(creator="responder"))
        assert refused == "unexpected-request/out-of-order"

    async def test_a_peer_that_has_forgotten_the_session_ends_it(self, play: Play) -> None:
        play.ben.refuses["content-modify"] = ("item-not-found", "unknown-session")
        await play.offer(sdp(direction="sendonly"))
        (event,) = play.house.ear.take()
        assert isinstance(event, LegEnded)
        assert event.ending.cause is EndCause.CONNECTIVITY

    async def test_a_change_that_the_link_does_not_carry_is_refused_and_the_call_goes_on(self, play: Play) -> None:
        play.house.link.lose()
        await play.offer(sdp(direction="sendonly"))
        assert play.refused().cause is EndCause.CONNECTIVITY
        play.house.restore()
        await play.offer(sdp(direction="sendonly"))
        assert directions(play.answered()) == ["recvonly"]


@given(ours=st.sampled_from(DIRECTIONS), theirs=st.sampled_from(DIRECTIONS))
def test_the_wish_behind_what_a_side_announces_yields_what_it_announced(ours: str, theirs: str) -> None:
    flow = narrowed(theirs, mirrored(ours))
    wish = wish_behind(flow, ours)
    assert narrowed(wish, mirrored(ours)) == flow
    # It never wishes less than it truly does.
    assert narrowed(theirs, wish) == theirs


async def test_a_client_may_reject_in_so_many_words_what_its_answer_left_out() -> None:
    play = Play()
    leg = JingleCalleeLeg(play.house.around, ours=ANA, our_jid=ANA_JID, party=BEN, peer_jid=BEN_PHONE, device="phone")
    leg.attach(play.house.ear)
    leg.invite(sdp("audio", "video"))
    await settle()
    await play.ben.accepted("session-accept", leg.sid, content(transported=ANSWER))
    play.house.ear.take()
    await play.ben.accepted("content-reject", leg.sid, "<content creator='initiator' name='video'/>")
    assert not play.house.ear.take()
    other = "<content creator='initiator' name='audio'/>"
    assert await play.ben.refused("content-reject", leg.sid, other) == "unexpected-request/out-of-order"
