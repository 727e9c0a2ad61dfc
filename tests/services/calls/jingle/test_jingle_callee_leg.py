"""Calls of our people to consumers: a session for one device, and a proposal for all of them (XEP-0353)."""

from __future__ import annotations

import pytest

from isthmus.model import EndCause, Ending, Origin
from isthmus.net.xmpp_queries import QueryResponder
from isthmus.services.calls.jingle.callee_leg import JingleCalleeLeg
from isthmus.services.calls.jingle.door import JingleDoor
from isthmus.services.calls.jingle.proposal_leg import JingleProposalLeg
from isthmus.services.calls.leg import LegAccepted, LegEnded
from tests.support.jingle_house import (
    ANA,
    ANA_JID,
    BEN,
    BEN_LAPTOP,
    BEN_PHONE,
    JINGLE,
    JMI,
    Device,
    Everybody,
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
from tests.support.xmpp import stanza

ANSWER = content(transported=transport("an5w", setup="active"))
CAPS = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x' ver='y'/>"


class Play:
    """Ana calls ben, who has a phone and a laptop."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.clock = PromptClock()
        self.house = House(self.server, self.clock)
        self.phone = Device(self.server)
        self.laptop = Device(self.server, BEN_LAPTOP)

    def direct(self) -> JingleCalleeLeg:
        """A leg to the phone alone."""
        leg = JingleCalleeLeg(
            self.house.around, ours=ANA, our_jid=ANA_JID, party=BEN, peer_jid=BEN_PHONE, device="phone"
        )
        leg.attach(self.house.ear)
        return leg

    def proposal(self, capabilities: str = "") -> JingleProposalLeg:
        """A leg to all devices."""
        leg = JingleProposalLeg(self.house.around, ours=ANA, our_jid=ANA_JID, party=BEN, capabilities=capabilities)
        leg.attach(self.house.ear)
        return leg

    async def invite(self, leg: JingleCalleeLeg, *media: str) -> None:
        leg.invite(sdp(*media))
        await settle()

    def ending(self) -> Ending:
        """How the leg ended."""
        endings = [event.ending for event in self.house.ear.take() if isinstance(event, LegEnded)]
        assert len(endings) == 1, f"{len(endings)} endings"
        return endings[0]


@pytest.fixture
def play() -> Play:
    return Play()


class TestOneDevice:
    async def test_it_gets_the_offer_rings_and_answers(self, play: Play) -> None:
        leg = play.direct()
        await play.invite(leg, "audio", "video")
        initiate = play.phone.take("session-initiate")
        assert initiate.get("initiator") == ANA_JID
        assert [c.get("name") for c in initiate.findall(f"{JINGLE}content")] == ["audio", "video"]
        setups = {f.get("setup") for f in initiate.iter("{urn:xmpp:jingle:apps:dtls:0}fingerprint")}
        assert setups == {"actpass"}
        ringing = "<ringing xmlns='urn:xmpp:jingle:apps:rtp:info:1'/>"
        await play.phone.accepted("session-info", leg.sid, ringing)
        await play.phone.accepted("session-info", leg.sid, ringing)
        assert play.house.ear.kinds() == ["LegRinging"]
        await play.phone.accepted("session-accept", leg.sid, ANSWER)
        (event,) = play.house.ear.take()
        assert isinstance(event, LegAccepted)
        assert event.device == "phone"
        audio, picture = event.answer.media
        assert (audio.setup, audio.is_rejected, picture.is_rejected) == ("active", False, True)

    async def test_it_may_answer_without_the_video_by_saying_so_first(self, play: Play) -> None:
        leg = play.direct()
        await play.invite(leg, "audio", "video")
        await play.phone.accepted("content-remove", leg.sid, "<content creator='initiator' name='video'/>")
        await play.phone.accepted("session-accept", leg.sid, ANSWER)
        (event,) = play.house.ear.take()
        assert isinstance(event, LegAccepted)
        assert [section.is_rejected for section in event.answer.media] == [False, True]

    async def test_taking_all_media_away_is_declining(self, play: Play) -> None:
        leg = play.direct()
        await play.invite(leg)
        await play.phone.accepted("content-remove", leg.sid, "<content creator='initiator' name='audio'/>")
        assert play.ending().cause is EndCause.DECLINED

    async def test_candidates_and_fingerprint_that_come_early_are_in_the_answer(self, play: Play) -> None:
        """Edge cases 30 and 31."""
        leg = play.direct()
        await play.invite(leg)
        early = content(description="", transported=transport("an5w", setup="active", candidates=candidate(42_000)))
        await play.phone.accepted("transport-info", leg.sid, early)
        bare = content(transported=transport("an5w", fingerprint=""))
        await play.phone.accepted("session-accept", leg.sid, bare)
        (event,) = play.house.ear.take()
        assert isinstance(event, LegAccepted)
        assert "42000" in event.answer.media[0].candidates[0]
        assert event.answer.media[0].fingerprints

    async def test_an_answer_without_encryption_is_not_taken(self, play: Play) -> None:
        leg = play.direct()
        await play.invite(leg)
        await play.phone.accepted("session-accept", leg.sid, content(transported=transport(fingerprint="")))
        assert play.ending().cause is EndCause.SECURITY
        assert reason_of(play.phone.take("session-terminate")) == "security-error"

    async def test_an_answer_that_makes_no_sense_is_refused_and_may_be_mended(self, play: Play) -> None:
        leg = play.direct()
        await play.invite(leg)
        assert await play.phone.refused("session-accept", leg.sid, ANSWER + ANSWER) == "bad-request"
        await play.phone.accepted("session-accept", leg.sid, ANSWER)
        assert play.house.ear.kinds() == ["LegAccepted"]

    @pytest.mark.parametrize(
        ("refusal", "cause"),
        [
            (("service-unavailable", ""), EndCause.UNREACHABLE),
            (("recipient-unavailable", ""), EndCause.UNREACHABLE),
            (("item-not-found", ""), EndCause.NOT_FOUND),
            (("forbidden", ""), EndCause.FORBIDDEN),
        ],
    )
    async def test_a_device_that_does_not_take_the_session(
        self, play: Play, refusal: tuple[str, str], cause: EndCause
    ) -> None:
        play.phone.refuses["session-initiate"] = refusal
        await play.invite(play.direct())
        assert play.ending().cause is cause
        assert not play.phone.has("session-terminate")

    async def test_a_device_that_does_not_answer_at_all_is_not_left_ringing(self, play: Play) -> None:
        play.phone.silent.add("session-initiate")
        await play.invite(play.direct())
        ending = play.ending()
        assert (ending.cause, ending.origin) == (EndCause.UNREACHABLE, Origin.TIMEOUT)
        assert play.phone.has("session-terminate")

    @pytest.mark.parametrize(
        ("reason", "cause"),
        [("busy", EndCause.BUSY), ("decline", EndCause.DECLINED), ("success", EndCause.DECLINED),
         ("timeout", EndCause.NO_ANSWER), ("unsupported-applications", EndCause.MEDIA_MISMATCH)],
    )  # fmt: skip
    async def test_a_device_that_refuses_says_why(self, play: Play, reason: str, cause: EndCause) -> None:
        leg = play.direct()
        await play.invite(leg)
        await play.phone.accepted("session-terminate", leg.sid, f"<reason><{reason}/></reason>")
        assert play.ending().cause is cause

    async def test_answered_elsewhere_is_a_cancel(self, play: Play) -> None:
        """Edge case 33."""
        leg = play.direct()
        await play.invite(leg)
        leg.cancel(Ending(EndCause.ANSWERED_ELSEWHERE))
        await settle()
        assert reason_of(play.phone.take("session-terminate")) == "cancel"
        assert play.ending().cause is EndCause.ANSWERED_ELSEWHERE
        assert await play.phone.refused("session-accept", leg.sid, ANSWER) == "item-not-found/unknown-session"

    async def test_only_the_device_that_was_asked_may_answer(self, play: Play) -> None:
        leg = play.direct()
        await play.invite(leg)
        assert await play.laptop.refused("session-accept", leg.sid, ANSWER) == "item-not-found/unknown-session"

    async def test_media_are_not_renegotiated_before_the_answer(self, play: Play) -> None:
        leg = play.direct()
        await play.invite(leg)
        refused = await play.phone.refused("content-add", leg.sid, video(creator="responder"))
        assert refused == "unexpected-request/out-of-order"

    async def test_a_session_that_the_device_begins_at_the_same_time_loses_or_wins_by_its_sid(self, play: Play) -> None:
        """XEP-0166 section 7.2.16."""
        await play.invite(play.direct())
        assert await play.phone.refused("session-initiate", "zzz", content()) == "conflict/tie-break"
        assert play.house.calls == []
        await play.phone.accepted("session-initiate", "a", content())
        assert play.ending().cause is EndCause.BUSY
        assert len(play.house.calls) == 1

    async def test_without_a_link_nobody_is_reached(self, play: Play) -> None:
        play.house.link.lose()
        await play.invite(play.direct())
        assert play.ending().cause is EndCause.CONNECTIVITY


class TestAllDevices:
    async def test_both_ring_one_proceeds_and_gets_the_session(self, play: Play) -> None:
        leg = play.proposal()
        await play.invite(leg, "audio", "video")
        for device in (play.phone, play.laptop):
            propose = device.take("propose")
            assert propose.get("id") == leg.sid
            assert [d.get("media") for d in propose] == ["audio", "video"]
        await play.laptop.say("ringing", leg.sid)
        await play.phone.say("ringing", leg.sid)
        assert play.house.ear.kinds() == ["LegRinging"]
        await play.phone.say("proceed", leg.sid)
        await play.laptop.say("proceed", leg.sid)
        assert play.phone.take("session-initiate").get("sid") == leg.sid
        assert not play.laptop.has("session-initiate")
        await play.phone.accepted("session-accept", leg.sid, ANSWER)
        (event,) = play.house.ear.take()
        assert isinstance(event, LegAccepted)
        assert event.device == "phone"

    async def test_messages_are_of_type_chat_and_stored_and_go_to_the_right_address(self, play: Play) -> None:
        leg = play.proposal()
        await play.invite(leg)
        leg.cancel(Ending(EndCause.CANCELLED))
        await settle()
        for sent in play.house.link.sent:
            assert (sent.get("type"), sent.get("from"), sent.get("to")) == ("chat", ANA_JID, "ben@people.test")
            assert sent.find("{urn:xmpp:hints}store") is not None
        assert [sent[0].tag for sent in play.house.link.sent] == [f"{JMI}propose", f"{JMI}retract"]

    async def test_dino_proceeds_without_ringing(self, play: Play) -> None:
        leg = play.proposal()
        await play.invite(leg)
        await play.phone.say("accept", leg.sid, to="ana@corp.test")  # COMPAT: told to its own account, never to us
        await play.phone.say("proceed", leg.sid)
        assert play.phone.has("session-initiate")

    async def test_candidates_that_come_before_a_device_is_found_follow_the_session(self, play: Play) -> None:
        leg = play.proposal()
        await play.invite(leg)
        leg.add_candidates(trickled(53_000))
        await settle()
        assert not play.phone.has("transport-info")
        await play.phone.say("proceed", leg.sid)
        assert play.phone.kinds == ["propose", "session-initiate", "transport-info"]

    async def test_a_person_who_is_not_a_contact_sees_who_calls_while_the_call_lasts(self, play: Play) -> None:
        """Edge case 32."""
        leg = play.proposal(CAPS)
        await play.invite(leg)
        assert play.phone.received[0].tag.endswith("presence")
        assert play.phone.received[0].find("{http://jabber.org/protocol/caps}c") is not None
        leg.cancel(Ending(EndCause.NO_ANSWER))
        await settle()
        assert play.phone.received[-1].get("type") == "unavailable"

    @pytest.mark.parametrize(
        ("inner", "cause"),
        [
            ("", EndCause.DECLINED),
            ("<reason xmlns='urn:xmpp:jingle:1'><busy/></reason>", EndCause.BUSY),
            ("<reason xmlns='urn:xmpp:jingle:1'><cancel/></reason>", EndCause.DECLINED),
        ],
    )
    async def test_a_person_says_no(self, play: Play, inner: str, cause: EndCause) -> None:
        leg = play.proposal()
        await play.invite(leg)
        await play.phone.say("reject", leg.sid, inner)
        assert play.ending().cause is cause
        await play.laptop.say("proceed", leg.sid)
        assert not play.laptop.has("session-initiate")

    async def test_a_no_from_another_device_does_not_end_what_one_has_taken(self, play: Play) -> None:
        """Edge case 33: the first decline must not kill the rest."""
        leg = play.proposal()
        await play.invite(leg)
        await play.phone.say("proceed", leg.sid)
        await play.laptop.say("reject", leg.sid)
        assert play.house.ear.kinds() == []
        await play.phone.say("reject", leg.sid)
        assert play.ending().cause is EndCause.DECLINED

    @pytest.mark.parametrize(("cause", "reason"), [(EndCause.CANCELLED, "cancel"), (EndCause.NO_ANSWER, "timeout")])
    async def test_whoever_gives_up_before_somebody_takes_it_retracts(
        self, play: Play, cause: EndCause, reason: str
    ) -> None:
        leg = play.proposal()
        await play.invite(leg)
        leg.cancel(Ending(cause))
        await settle()
        for device in (play.phone, play.laptop):
            assert reason_of(device.take("retract")) == reason
        assert play.ending().cause is cause
        await play.phone.say("proceed", leg.sid)
        assert not play.phone.has("session-initiate")

    async def test_a_taken_call_that_is_cancelled_ends_the_session_and_is_finished(self, play: Play) -> None:
        leg = play.proposal()
        await play.invite(leg)
        await play.phone.say("proceed", leg.sid)
        leg.cancel(Ending(EndCause.CANCELLED))
        await settle()
        assert reason_of(play.phone.take("session-terminate")) == "cancel"
        assert reason_of(play.phone.take("finish")) == "cancel"
        assert not play.phone.has("retract")

    async def test_the_end_of_the_call_is_finished(self, play: Play) -> None:
        leg = play.proposal()
        await play.invite(leg)
        await play.phone.say("proceed", leg.sid)
        await play.phone.accepted("session-accept", leg.sid, ANSWER)
        await play.phone.accepted("session-terminate", leg.sid, "<reason><success/></reason>")
        assert reason_of(play.phone.take("finish")) == "success"
        assert play.ending().cause is EndCause.HUNG_UP
        assert not play.house.registry.proposals_between(ANA, BEN)

    async def test_a_finish_that_comes_alone_ends_the_call(self, play: Play) -> None:
        leg = play.proposal()
        await play.invite(leg)
        await play.phone.say("proceed", leg.sid)
        await play.phone.accepted("session-accept", leg.sid, ANSWER)
        play.house.ear.take()
        await play.laptop.say("finish", leg.sid)
        assert play.house.ear.kinds() == []
        await play.phone.say("finish", leg.sid, "<migrated to='other'/>")
        assert play.ending().cause is EndCause.TRANSFERRED

    @pytest.mark.parametrize(
        ("condition", "cause"),
        [
            ("service-unavailable", EndCause.UNREACHABLE),
            ("recipient-unavailable", EndCause.UNREACHABLE),
            ("item-not-found", EndCause.NOT_FOUND),
            ("remote-server-not-found", EndCause.NOT_FOUND),
            ("remote-server-timeout", EndCause.NO_ANSWER),
            ("forbidden", EndCause.FORBIDDEN),
        ],
    )
    async def test_a_proposal_that_comes_back_says_why(self, play: Play, condition: str, cause: EndCause) -> None:
        leg = play.proposal()
        await play.invite(leg)
        play.server.deliver(
            f"<message type='error' from='ben@people.test' to='{ANA_JID}'>"
            f"<propose xmlns='urn:xmpp:jingle-message:0' id='{leg.sid}'/><error type='cancel'>"
            f"<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        )
        await settle()
        assert play.ending().cause is cause

    async def test_the_proposal_of_the_other_person_that_crosses_ours_wins_with_the_lower_id(self, play: Play) -> None:
        leg = play.proposal()
        await play.invite(leg)
        media = "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>"
        await play.phone.say("propose", "zzz", media, to="ana@corp.test")
        reject = play.phone.take("reject")
        assert (reject.get("id"), reason_of(reject)) == ("zzz", "expired")
        assert reject.find(f"{JMI}tie-break") is not None
        assert play.house.ear.kinds() == []
        await play.phone.say("propose", "a", media, to="ana@corp.test")
        retract = play.phone.take("retract")
        assert (retract.get("id"), reason_of(retract)) == (leg.sid, "expired")
        assert retract.find(f"{JMI}tie-break") is not None
        assert play.phone.take("proceed").get("id") == "a"
        assert play.ending().cause is EndCause.BUSY

    async def test_without_a_link_nobody_is_asked(self, play: Play) -> None:
        play.house.link.lose()
        await play.invite(play.proposal())
        assert play.ending().cause is EndCause.CONNECTIVITY

    async def test_a_retraction_is_made_up_for_when_the_link_is_back(self, play: Play) -> None:
        leg = play.proposal()
        await play.invite(leg)
        play.house.link.lose()
        leg.cancel(Ending(EndCause.CANCELLED))
        await settle()
        play.house.restore()
        await settle()
        assert play.phone.has("retract")


class TestTheirProposals:
    """They come although we do not advertise XEP-0353: a client's cache may be old."""

    MEDIA = "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>"

    async def propose(self, play: Play, sid: str = "s-77", device: Device | None = None) -> None:
        await (device or play.phone).say("propose", sid, self.MEDIA, to="ana@corp.test")

    async def test_it_proceeds_at_once_and_the_session_tells_the_rest(self, play: Play) -> None:
        await self.propose(play)
        await self.propose(play)  # its server may deliver it twice
        assert play.phone.kinds == ["proceed"]
        await play.phone.accepted("session-initiate", "s-77", content())
        leg = play.house.call.leg
        leg.ring()
        await settle()
        assert play.phone.has("session-info")
        leg.refuse(Ending(EndCause.DECLINED))
        await settle()
        assert reason_of(play.phone.take("session-terminate")) == "decline"
        assert reason_of(play.phone.take("finish")) == "decline"
        assert not play.phone.has("reject")
        assert not play.house.registry.proposals_between(ANA, BEN)

    async def test_one_that_is_retracted_leads_to_no_session(self, play: Play) -> None:
        await self.propose(play)
        await play.phone.say("retract", "s-77", to="ana@corp.test")
        refused = await play.phone.refused("session-initiate", "s-77", content())
        assert refused == "item-not-found/unknown-session"

    async def test_one_that_is_retracted_after_the_session_began_cancels_it(self, play: Play) -> None:
        await self.propose(play)
        await play.phone.accepted("session-initiate", "s-77", content())
        assert play.house.call.leg is not None
        await play.phone.say("retract", "s-77", to="ana@corp.test")
        assert play.ending().cause is EndCause.CANCELLED

    async def test_one_that_leads_to_nothing_is_forgotten(self, play: Play) -> None:
        await self.propose(play)
        play.clock.advance(31)
        assert not play.house.registry.proposals_between(ANA, BEN)
        assert await play.phone.refused("session-initiate", "s-77", content()) == "item-not-found/unknown-session"

    async def test_another_device_cannot_take_its_place(self, play: Play) -> None:
        await self.propose(play)
        refused = await play.laptop.refused("session-initiate", "s-77", content())
        assert refused == "unexpected-request/out-of-order"
        await play.laptop.say("retract", "s-77", to="ana@corp.test")
        await play.phone.accepted("session-initiate", "s-77", content())

    async def test_one_for_something_else_is_rejected(self, play: Play) -> None:
        files = "<description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/>"
        await play.phone.say("propose", "f1", files, to="ana@corp.test")
        assert reason_of(play.phone.take("reject")) == "unsupported-applications"

    async def test_a_call_moves_to_another_device(self, play: Play) -> None:
        """XEP-0353 section 4.2: the new session takes the place of the old one."""
        await play.phone.accepted("session-initiate", "old", content())
        old = play.house.call.leg
        old.accept(sdp(setup="active"))
        await settle()
        await self.propose(play, "new", play.laptop)
        await play.laptop.accepted("session-initiate", "new", content())
        moved = play.house.calls[1]
        assert moved.replaces == (old.key, "", "")
        old.hang_up(Ending(EndCause.TRANSFERRED))
        await settle()
        finish = play.phone.take("finish")
        migrated = finish.find(f"{JMI}migrated")
        assert migrated is not None
        assert (finish.get("id"), migrated.get("to")) == ("old", "new")

    async def test_nobody_proposes_without_end(self, play: Play) -> None:
        for number in range(40):
            await self.propose(play, f"p{number}")
        assert play.phone.kinds.count("proceed") == 32


async def test_an_initiate_is_acknowledged_before_anything_else_is_said(play: Play) -> None:
    """STANDARDS 1.7: the result of session-initiate is not ringing."""
    door = JingleDoor(play.house.around, Everybody("corp.test"), lambda call: call.leg.ring())
    responder = QueryResponder("corp.test", Everybody("corp.test"), clock=play.clock, version="0", calls=door)
    initiate = f"<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'>{content()}</jingle>"
    answer = responder.answer(stanza(f"<iq type='set' id='d1' from='{BEN_PHONE}' to='{ANA_JID}'>{initiate}</iq>"))
    assert isinstance(answer, str)
    assert play.house.link.sent == []
    await settle()
    assert play.phone.kinds == ["session-info"]
