"""Calls of consumers to our people: what the caller sends, what the call is told, what the caller gets."""

from __future__ import annotations

import pytest

from isthmus.model import EndCause, Ending
from isthmus.services.calls.leg import (
    LegCandidates,
    LegConfirmed,
    LegDigit,
    LegEnded,
    LegSignal,
    LegSignalled,
    LegTransferRequested,
)
from tests.support.jingle_house import (
    ANA,
    ANA_JID,
    BEN,
    BEN_LAPTOP,
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


class Play:
    """Ben's phone calls ana."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.clock = PromptClock()
        self.house = House(self.server, self.clock)
        self.ben = Device(self.server)

    async def ring(self, inner: str = "", *, to: str = ANA_JID) -> None:
        await self.ben.accepted("session-initiate", inner=inner or content(), to=to)

    async def talk(self, inner: str = "", *media: str) -> None:
        """Ring, and be answered."""
        await self.ring(inner)
        self.house.call.leg.accept(sdp(*media, setup="active"))
        await settle()
        assert self.house.ear.kinds() == ["LegConfirmed"]
        self.ben.take("session-accept")

    def ended(self) -> EndCause | None:
        """Why the leg ended, None while it lives."""
        return next((event.ending.cause for event in self.house.ear.take() if isinstance(event, LegEnded)), None)


@pytest.fixture
def play() -> Play:
    return Play()


class TestTheBeginning:
    @pytest.mark.parametrize("to", [ANA_JID, "ana@corp.test"])
    async def test_the_call_is_told_who_calls_whom_with_what(self, play: Play, to: str) -> None:
        await play.ring(to=to)
        call = play.house.call
        assert (call.caller, call.callee, call.leg.device, call.leg.is_caller) == (BEN, ANA, "phone", True)
        assert call.offer is not None
        assert [codec.name for codec in call.offer.media[0].codecs] == ["opus", "PCMU"]
        assert play.ben.received == []

    async def test_ringing_is_told_once(self, play: Play) -> None:
        await play.ring()
        leg = play.house.call.leg
        leg.ring()
        leg.progress(sdp())
        leg.ring()
        await settle()
        assert play.ben.kinds == ["session-info"]
        assert play.ben.take("session-info").find("{urn:xmpp:jingle:apps:rtp:info:1}ringing") is not None

    async def test_the_answer_has_a_dtls_role_and_is_confirmed_when_it_arrived(self, play: Play) -> None:
        """Edge case 30: an answer is never actpass."""
        await play.ring()
        leg = play.house.call.leg
        leg.ring()
        leg.accept(sdp(setup="actpass"))
        await settle()
        play.ben.take("session-info")
        accept = play.ben.take("session-accept")
        setups = [f.get("setup") for f in accept.iter("{urn:xmpp:jingle:apps:dtls:0}fingerprint")]
        assert setups == ["active"]
        assert accept.find(f"{JINGLE}content") is not None
        assert play.house.ear.take() == [LegConfirmed()]

    async def test_a_refused_medium_is_left_out_of_the_acceptance(self, play: Play) -> None:
        """Edge case 37: video is refused, the call is kept."""
        await play.ring(content() + video())
        play.house.call.leg.accept(sdp("audio", "video", rejected=("video",)))
        await settle()
        names = [c.get("name") for c in play.ben.take("session-accept").findall(f"{JINGLE}content")]
        assert names == ["audio"]

    async def test_it_goes_on_while_the_peer_moves_files_as_well(self, play: Play) -> None:
        files = "<content creator='initiator' name='file'><description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/>"
        await play.ring(content() + files + "<transport xmlns='urn:xmpp:jingle:transports:ibb:1'/></content>")
        offer = play.house.call.offer
        assert offer is not None
        assert [section.media for section in offer.media] == ["audio"]

    async def test_what_happens_before_somebody_listens_is_told_then(self, play: Play) -> None:
        await play.ring()
        await play.ben.accepted("transport-info", inner=content(description="", transported=transport(
            fingerprint="", candidates=candidate())))  # fmt: skip
        await play.ben.accepted("session-terminate", inner="<reason><cancel/></reason>")
        assert play.house.call.leg is not None
        await settle()
        assert play.house.ear.kinds() == ["LegCandidates", "LegEnded"]


class TestWhatIsNotTaken:
    @pytest.mark.parametrize(
        ("inner", "reason"),
        [
            (content(transported=transport(fingerprint="")), "security-error"),
            (content(description="<description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/>"),
             "unsupported-applications"),
            (content(transported="<transport xmlns='urn:xmpp:jingle:transports:ibb:1' sid='x'/>"),
             "unsupported-transports"),
            (content() + content(), "failed-application"),
            ("", "failed-application"),
        ],
    )  # fmt: skip
    async def test_it_is_acknowledged_and_ended_with_a_reason(self, play: Play, inner: str, reason: str) -> None:
        """Edge case 29, 38: never silence."""
        await play.ben.accepted("session-initiate", inner=inner)
        assert reason_of(play.ben.take("session-terminate")) == reason
        assert play.house.calls == []
        assert await play.ben.refused("session-info") == "item-not-found/unknown-session"

    async def test_actions_for_no_session_are_told_so(self, play: Play) -> None:
        assert await play.ben.refused("session-terminate") == "item-not-found/unknown-session"

    @pytest.mark.parametrize("action", ["session-hijack", ""])
    async def test_an_unheard_of_action_is_a_bad_request(self, play: Play, action: str) -> None:
        assert await play.ben.refused(action) == "bad-request"

    @pytest.mark.parametrize("to", ["ana@corp.test/other", "corp.test"])
    async def test_nobody_is_reached_at_another_resource(self, play: Play, to: str) -> None:
        assert await play.ben.refused("session-initiate", inner=content(), to=to) == "service-unavailable"

    async def test_our_own_people_do_not_call_over_xmpp(self, play: Play) -> None:
        dan = Device(play.server, "dan@corp.test/isthmus")
        assert await dan.refused("session-initiate", inner=content()) == "service-unavailable"

    async def test_the_same_session_again_is_out_of_order(self, play: Play) -> None:
        await play.ring()
        again = await play.ben.refused("session-initiate", inner=content())
        assert again == "unexpected-request/out-of-order"
        assert len(play.house.calls) == 1

    async def test_another_device_cannot_end_it(self, play: Play) -> None:
        await play.ring()
        laptop = Device(play.server, BEN_LAPTOP)
        assert await laptop.refused("session-terminate") == "item-not-found/unknown-session"
        assert play.house.call.leg is not None
        await settle()
        assert play.house.ear.kinds() == []

    async def test_an_acceptance_by_the_initiator_is_out_of_order(self, play: Play) -> None:
        await play.ring()
        assert await play.ben.refused("session-accept", inner=content()) == "unexpected-request/out-of-order"

    async def test_one_person_cannot_open_sessions_without_end(self, play: Play) -> None:
        for number in range(32):
            await play.ben.accepted("session-initiate", f"s{number}", content())
        assert await play.ben.refused("session-initiate", "one-more", content()) == "resource-constraint"
        await play.ben.accepted("session-terminate", "s0")
        await play.ben.accepted("session-initiate", "one-more", content())

    async def test_information_that_we_do_not_know_is_unsupported(self, play: Play) -> None:
        await play.ring()
        answer = await play.ben.refused("session-info", inner="<dance xmlns='urn:x'/>")
        assert answer == "feature-not-implemented/unsupported-info"
        await play.ben.accepted("session-info")  # a keep-alive


class TestTheEnd:
    @pytest.mark.parametrize(
        ("cause", "reason"),
        [
            (EndCause.BUSY, "busy"),
            (EndCause.DECLINED, "decline"),
            (EndCause.NO_ANSWER, "timeout"),
            (EndCause.FORBIDDEN, "decline"),
        ],
    )
    async def test_a_refusal_says_why(self, play: Play, cause: EndCause, reason: str) -> None:
        await play.ring()
        play.house.call.leg.refuse(Ending(cause, "because"))
        await settle()
        terminate = play.ben.take("session-terminate")
        assert reason_of(terminate) == reason
        assert terminate.findtext(f"{JINGLE}reason/{JINGLE}text") == "because"
        assert play.ended() is cause

    @pytest.mark.parametrize("reason", ["cancel", "success", ""])
    async def test_a_caller_who_gives_up_has_cancelled(self, play: Play, reason: str) -> None:
        await play.ring()
        assert play.house.call.leg is not None
        await play.ben.accepted("session-terminate", inner=f"<reason><{reason}/></reason>" if reason else "")
        assert play.ended() is EndCause.CANCELLED

    async def test_whoever_gives_up_while_we_answer_is_gone(self, play: Play) -> None:
        """Edge case 35: the end wins."""
        await play.ring()
        leg = play.house.call.leg
        await play.ben.accepted("session-terminate", inner="<reason><cancel/></reason>")
        leg.accept(sdp(setup="active"))
        await settle()
        assert not play.ben.has("session-accept")
        assert play.ended() is EndCause.CANCELLED

    async def test_either_side_hangs_up(self, play: Play) -> None:
        await play.talk()
        await play.ben.accepted("session-terminate", inner="<reason><success/></reason>")
        assert play.ended() is EndCause.HUNG_UP
        assert not play.ben.has("session-terminate")

    async def test_we_hang_up_with_success(self, play: Play) -> None:
        await play.talk()
        play.house.call.leg.hang_up(Ending(EndCause.HUNG_UP))
        await settle()
        assert reason_of(play.ben.take("session-terminate")) == "success"
        assert play.ended() is EndCause.HUNG_UP

    async def test_what_comes_late_finds_the_session_unknown_and_cannot_revive_it(self, play: Play) -> None:
        await play.talk()
        play.house.call.leg.hang_up(Ending(EndCause.HUNG_UP))
        await settle()
        for action in ("transport-info", "session-initiate", "session-terminate"):
            assert await play.ben.refused(action, inner=content()) == "item-not-found/unknown-session"
        play.clock.advance(400)
        await play.ben.accepted("session-initiate", inner=content())  # the name is free again

    async def test_an_answer_that_the_caller_does_not_take_ends_the_call(self, play: Play) -> None:
        await play.ring()
        play.ben.refuses["session-accept"] = ("item-not-found", "unknown-session")
        play.house.call.leg.accept(sdp(setup="active"))
        await settle()
        assert play.ended() is EndCause.CONNECTIVITY


class TestInTheCall:
    async def test_candidates_trickle_both_ways(self, play: Play) -> None:
        """Edge case 31."""
        await play.talk()
        inner = content(description="", transported=transport(fingerprint="", candidates=candidate(41_000)))
        await play.ben.accepted("transport-info", inner=inner)
        (event,) = play.house.ear.take()
        assert isinstance(event, LegCandidates)
        assert "41000" in event.fragment.media[0].candidates[0]
        play.house.call.leg.add_candidates(trickled(51_000))
        play.house.call.leg.add_candidates(trickled(51_000))  # nothing new
        await settle()
        sent = play.ben.take("transport-info").find(".//{urn:xmpp:jingle:transports:ice-udp:1}candidate")
        assert sent is not None
        assert sent.get("port") == "51000"
        assert not play.ben.has("transport-info")

    @pytest.mark.parametrize("word", ["mute", "unmute", "active"])
    async def test_what_needs_no_negotiation_is_told_on(self, play: Play, word: str) -> None:
        await play.talk()
        inner = f"<{word} xmlns='urn:xmpp:jingle:apps:rtp:info:1' creator='initiator' name='audio'/>"
        await play.ben.accepted("session-info", inner=inner)
        assert play.house.ear.take() == [LegSignalled(LegSignal(word))]

    async def test_mute_names_the_content(self, play: Play) -> None:
        await play.talk()
        play.house.call.leg.signal(LegSignal.MUTE)
        await settle()
        mute = play.ben.take("session-info")[0]
        assert (mute.get("name"), mute.get("creator")) == ("audio", "initiator")

    async def test_digits_cross_in_signalling(self, play: Play) -> None:
        """Edge case 42."""
        await play.talk()
        await play.ben.accepted("session-info", inner="<dtmf xmlns='urn:xmpp:jingle:dtmf:0' code='5' duration='120'/>")
        assert play.house.ear.take() == [LegDigit("5", 120)]
        play.ben.refuses["session-info"] = ("feature-not-implemented", "unsupported-info")
        play.house.call.leg.send_digit("#", 100)
        await settle()
        assert play.ben.take("session-info")[0].get("code") == "#"
        assert play.house.ear.take() == []

    async def test_a_transfer_is_asked_for(self, play: Play) -> None:
        await play.talk()
        inner = "<transfer xmlns='urn:xmpp:jingle:transfer:0' to='dan@corp.test'/>"
        await play.ben.accepted("session-info", inner=inner)
        (event,) = play.house.ear.take()
        assert isinstance(event, LegTransferRequested)
        assert str(event.target) == "dan@corp.test"


class TestWhetherThePeerIsStillThere:
    async def test_a_device_that_goes_offline_ends_the_call(self, play: Play) -> None:
        await play.talk()
        play.server.deliver(f"<presence type='unavailable' from='{play.ben.jid}' to='ana@corp.test'/>")
        await settle()
        assert play.ended() is EndCause.CONNECTIVITY

    @pytest.mark.parametrize(
        ("sender", "to", "kind"),
        [(BEN_LAPTOP, "ana@corp.test", "unavailable"), ("ben@people.test/phone", "dan@corp.test", "unavailable"),
         ("ben@people.test/phone", "ana@corp.test", "away")],
    )  # fmt: skip
    async def test_other_presence_does_not(self, play: Play, sender: str, to: str, kind: str) -> None:
        await play.talk()
        play.server.deliver(f"<presence type='{kind}' from='{sender}' to='{to}'/>")
        await settle()
        assert play.ended() is None

    async def test_a_device_that_is_gone_without_a_word_is_noticed(self, play: Play) -> None:
        await play.talk()
        play.clock.advance(61)
        await settle()
        assert "ping" in play.ben.asks
        del play.server.devices[play.ben.jid]
        play.clock.advance(61)
        await settle()
        assert play.ended() is EndCause.CONNECTIVITY

    async def test_a_device_that_knows_no_pings_is_left_alone(self, play: Play) -> None:
        await play.talk()
        play.ben.refuses["ping"] = ("service-unavailable", "")
        play.clock.advance(200)
        await settle()
        assert play.ended() is None

    async def test_a_device_without_network_for_a_while_keeps_its_call(self, play: Play) -> None:
        await play.talk()
        play.ben.silent.add("ping")
        play.clock.advance(200)
        await settle()
        assert play.ended() is None

    async def test_a_call_outlives_the_link_and_is_looked_after_when_it_is_back(self, play: Play) -> None:
        """Edge case 49: media may go directly."""
        await play.talk()
        play.house.link.lose()
        await settle()
        assert play.ended() is None
        play.house.restore()
        await settle()
        assert play.ben.asks[-1] == "ping"
        assert play.ended() is None
        play.house.link.lose()
        play.ben.refuses["ping"] = ("recipient-unavailable", "")
        play.house.restore()
        await settle()
        assert play.ended() is EndCause.CONNECTIVITY

    async def test_the_end_is_told_when_the_link_is_back(self, play: Play) -> None:
        await play.talk()
        play.house.link.lose()
        play.house.call.leg.hang_up(Ending(EndCause.HUNG_UP))
        await settle()
        assert play.ended() is EndCause.HUNG_UP
        play.house.restore()
        await settle()
        assert reason_of(play.ben.take("session-terminate")) == "success"
