"""One call, with scripted legs: every row of its table, the races, and what is left behind (nothing)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from isthmus.model import Address, EndCause, Ending, MediaForm, Origin
from isthmus.sdp.session_description import SessionDescription
from isthmus.services.calls.call import IGNORED, ROWS, Call, CallWatcher
from isthmus.services.calls.call_events import CallState, CallTerms, Role
from isthmus.services.calls.leg import (
    IncomingCall,
    LegAccepted,
    LegAnswered,
    LegCandidates,
    LegConfirmed,
    LegDigit,
    LegEnded,
    LegEvent,
    LegOffered,
    LegOfferRefused,
    LegProgressed,
    LegRinging,
    LegSignal,
    LegSignalled,
)
from isthmus.services.calls.media_path import PathKind, media_in_use
from isthmus.services.calls.ringing import Ring
from isthmus.trace import Trace
from tests.support.clock import FakeClock
from tests.support.scripted_legs import ScriptedLeg, ScriptedRelay, sdp

ANA = Address("ana", "corp.test")
BEN = Address("ben", "people.test")


async def _found(rings: Sequence[Ring]) -> Sequence[Ring]:
    return rings


class House(CallWatcher):
    """One call and everything around it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.relay = ScriptedRelay()
        self.caller = ScriptedLeg(BEN, MediaForm.WEBRTC, is_caller=True)
        self.devices: list[ScriptedLeg] = []
        self.seen: list[str] = []
        self.call: Call

    def ringing(self, call: Call) -> None:
        self.seen.append("ringing")

    def talking(self, call: Call) -> None:
        self.seen.append("talking")

    def ended(self, call: Call) -> None:
        self.seen.append("ended")

    def ring(self, *forms: MediaForm) -> Ring:
        def make(form: MediaForm) -> ScriptedLeg:
            leg = ScriptedLeg(ANA, form, device=f"device-{len(self.devices)}")
            self.devices.append(leg)
            return leg

        return Ring(make, forms or (MediaForm.RTP,))

    async def begin(
        self,
        *rings: Ring,
        offer: SessionDescription | None = None,
        is_late: bool = False,
        terms: CallTerms | None = None,
        has_relay: bool = True,
    ) -> None:
        said = None if is_late else offer or sdp(MediaForm.WEBRTC)
        self.call = Call(
            "c1",
            IncomingCall(self.caller, BEN, ANA, said),
            terms or CallTerms(),
            relay=self.relay if has_relay else None,
            watcher=self,
            clock=self.clock,
            trace=Trace(self.clock.wall),
        )
        self.caller.attach(self.call.leg_event)
        self.call.begin(_found(rings))
        await self.settle()

    async def tell(self, leg: ScriptedLeg, *events: LegEvent) -> None:
        for event in events:
            leg.tell(event)
        await self.settle()

    async def settle(self) -> None:
        """Until nothing is left to do."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def talk(self, *rings: Ring, **terms: object) -> ScriptedLeg:
        """To a call in which people talk; returns the leg that answered."""
        await self.begin(*(rings or (self.ring(),)), **terms)  # type: ignore[arg-type]  # handed through
        leg = self.devices[-1]
        await self.tell(leg, LegAccepted(sdp(leg.form)))
        await self.tell(self.caller, LegConfirmed())
        assert self.call.state is CallState.TALKING
        return leg


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    assert house.call.state is not CallState.ENDED or not house.relay.open_sessions, "relay sessions are left"


# --- ringing ---


async def test_the_first_device_that_answers_gets_the_call_and_the_others_are_told_so(house: House) -> None:
    await house.begin(house.ring(), house.ring(), house.ring())
    one, two, three = house.devices
    await house.tell(one, LegRinging())
    await house.tell(three, LegRinging())
    assert house.caller.words() == ["ring", "ring"]
    await house.tell(two, LegAccepted(sdp()))
    assert one.last("cancel").cause is EndCause.ANSWERED_ELSEWHERE
    assert three.last("cancel").cause is EndCause.ANSWERED_ELSEWHERE
    assert media_in_use(house.caller.last("accept")) == ("audio",)
    await house.tell(house.caller, LegConfirmed())
    assert house.seen == ["ringing", "talking"]
    assert [operation for operation in house.relay.operations if operation.startswith("drop")] == [
        f"drop 1 {leg.key}" for leg in (one, three)
    ]


async def test_an_answer_that_crosses_our_cancel_is_hung_up(house: House) -> None:
    await house.begin(house.ring(), house.ring())
    one, two = house.devices
    one.tell(LegAccepted(sdp()))
    two.is_over = True  # its 200 is on the way: the cancel comes too late
    await house.tell(two, LegAccepted(sdp()))
    assert two.words()[-1] == "hang_up"
    assert "accept" in house.caller.words()
    assert house.call.callee_leg is one


async def test_one_device_that_declines_does_not_stop_the_others(house: House) -> None:
    await house.begin(house.ring(), house.ring())
    one, two = house.devices
    await house.tell(one, LegEnded(Ending(EndCause.BUSY, status=486)))
    assert "refuse" not in house.caller.words()
    await house.tell(two, LegAccepted(sdp()))
    assert "accept" in house.caller.words()


async def test_a_person_who_declines_everywhere_stops_every_device(house: House) -> None:
    await house.begin(house.ring(), house.ring())
    one, two = house.devices
    await house.tell(one, LegEnded(Ending(EndCause.DECLINED, status=603)))
    assert "cancel" in two.words()
    assert house.caller.last("refuse").cause is EndCause.DECLINED


async def test_busy_everywhere_stops_every_device(house: House) -> None:
    await house.begin(house.ring(), house.ring())
    one, two = house.devices
    await house.tell(one, LegEnded(Ending(EndCause.BUSY, status=600)))
    assert "cancel" in two.words()
    assert house.caller.last("refuse").cause is EndCause.BUSY


async def test_required_encryption_holds_for_late_answers_and_for_changes_in_the_call(house: House) -> None:
    strict = CallTerms(needs_encryption=True)
    await house.begin(house.ring(MediaForm.SDES), is_late=True, terms=strict)
    await house.tell(house.devices[0], LegAccepted(sdp(MediaForm.SDES)))
    await house.tell(house.caller, LegConfirmed(sdp(MediaForm.RTP)))
    assert house.caller.last("hang_up").rule == "encryption.required"
    other = House()
    leg = await other.talk(other.ring(MediaForm.SDES), terms=strict)
    await other.tell(leg, LegOffered(sdp(MediaForm.RTP)))
    assert leg.last("refuse_offer").cause is EndCause.SECURITY
    assert other.call.state is CallState.TALKING


async def test_the_caller_hears_the_refusal_that_tells_most(house: House) -> None:
    await house.begin(house.ring(), house.ring(), house.ring())
    for leg, cause in zip(house.devices, (EndCause.UNREACHABLE, EndCause.BUSY, EndCause.NO_ANSWER), strict=True):
        await house.tell(leg, LegEnded(Ending(cause)))
    assert house.caller.last("refuse").cause is EndCause.BUSY
    assert house.seen == ["ended"]


async def test_nobody_answers_in_time(house: House) -> None:
    await house.begin(house.ring())
    await house.tell(house.devices[0], LegRinging())
    house.clock.advance(61)
    await house.settle()
    assert house.devices[0].words() == ["invite", "cancel"]
    assert house.caller.last("refuse").cause is EndCause.NO_ANSWER
    assert house.clock.pending == 0


async def test_a_caller_who_gives_up_stops_the_ringing(house: House) -> None:
    await house.begin(house.ring(), house.ring())
    await house.tell(house.caller, LegEnded(Ending(EndCause.CANCELLED)))
    assert [leg.last("cancel").cause for leg in house.devices] == [EndCause.CANCELLED] * 2
    assert house.call.ending.cause is EndCause.CANCELLED


async def test_without_a_device_the_call_is_refused(house: House) -> None:
    await house.begin()
    assert house.caller.last("refuse").cause is EndCause.UNREACHABLE
    assert house.caller.last("refuse").origin is Origin.NO_DEVICE


async def test_a_device_that_refuses_the_media_is_tried_with_the_next_form(house: House) -> None:
    await house.begin(house.ring(MediaForm.RTP, MediaForm.SDES))
    await house.tell(house.devices[0], LegEnded(Ending(EndCause.MEDIA_MISMATCH, status=488)))
    assert [leg.form for leg in house.devices] == [MediaForm.RTP, MediaForm.SDES]
    assert house.devices[1].last("invite").media[0].protocol == "RTP/SAVP"
    await house.tell(house.devices[1], LegAccepted(sdp(MediaForm.SDES)))
    assert "accept" in house.caller.words()


async def test_a_device_that_refuses_every_form_ends_the_call_with_its_reason(house: House) -> None:
    await house.begin(house.ring(MediaForm.RTP, MediaForm.SDES))
    for number in range(2):
        await house.tell(house.devices[number], LegEnded(Ending(EndCause.MEDIA_MISMATCH, "no codec", status=488)))
    assert house.caller.last("refuse").text == "no codec"


async def test_early_media_of_the_only_device_reach_the_caller(house: House) -> None:
    await house.begin(house.ring())
    await house.tell(house.devices[0], LegProgressed(sdp()))
    assert house.caller.words() == ["progress"]
    await house.tell(house.devices[0], LegAccepted(sdp()))
    assert house.caller.words()[-1] == "accept"


async def test_early_media_of_one_of_several_devices_are_ringing(house: House) -> None:
    await house.begin(house.ring(), house.ring())
    await house.tell(house.devices[0], LegProgressed(sdp()))
    assert house.caller.words() == ["ring"]


async def test_a_cancel_waits_for_the_media_operation_under_way(house: House) -> None:
    house.relay.gate = asyncio.Event()
    await house.begin(house.ring())
    assert house.devices[0].words() == [], "the relay has not answered yet"
    await house.tell(house.caller, LegEnded(Ending(EndCause.CANCELLED)))
    house.relay.gate.set()
    await house.settle()
    assert house.devices[0].words() == ["invite", "cancel"]
    assert house.call.state is CallState.ENDED


# --- media ---


async def test_two_ends_with_ice_and_dtls_talk_directly_and_no_relay_is_asked(house: House) -> None:
    house.relay.is_available = False
    offer = sdp(MediaForm.WEBRTC, "audio", "video")
    await house.begin(house.ring(MediaForm.WEBRTC), offer=offer)
    leg = house.devices[0]
    assert leg.last("invite") == offer, "not a word is changed"
    answer = sdp(MediaForm.WEBRTC, "audio", "video", port=6000)
    await house.tell(leg, LegAccepted(answer))
    assert house.caller.last("accept") == answer
    assert house.call.path_kind is PathKind.DIRECT


async def test_policy_sends_even_those_through_the_relay(house: House) -> None:
    await house.begin(house.ring(MediaForm.WEBRTC), terms=CallTerms(path=PathKind.RELAYED))
    assert house.devices[0].last("invite").connection == "IN IP4 192.0.2.99"


async def test_policy_that_wants_direct_media_refuses_a_device_that_needs_a_relay(house: House) -> None:
    await house.begin(house.ring(MediaForm.RTP), terms=CallTerms(path=PathKind.DIRECT))
    refusal = house.caller.last("refuse")
    assert (refusal.cause, refusal.origin) == (EndCause.OVERLOADED, Origin.POLICY)
    assert "policy wants direct media" in refusal.text


@pytest.mark.parametrize("has_relay", [True, False])
async def test_without_a_relay_a_call_that_needs_one_is_refused_with_the_reason(house: House, has_relay: bool) -> None:
    house.relay.is_available = False
    await house.begin(house.ring(MediaForm.RTP), has_relay=has_relay)
    assert "relay" in house.caller.last("refuse").text


async def test_barred_video_is_switched_off_and_keeps_its_place(house: House) -> None:
    offer = sdp(MediaForm.WEBRTC, "audio", "video")
    await house.begin(house.ring(MediaForm.WEBRTC), offer=offer, terms=CallTerms(barred=frozenset({"video"})))
    told = house.devices[0].last("invite")
    assert [section.media for section in told.media] == ["audio", "video"]
    assert [section.is_rejected for section in told.media] == [False, True]


async def test_an_answer_without_any_media_is_a_mismatch(house: House) -> None:
    await house.begin(house.ring())
    await house.tell(house.devices[0], LegAccepted(sdp(MediaForm.RTP, port=0)))
    assert house.caller.last("hang_up").cause is EndCause.MEDIA_MISMATCH
    assert house.devices[0].last("hang_up").cause is EndCause.MEDIA_MISMATCH


async def test_candidates_of_the_caller_reach_every_device_and_early_ones_of_a_device_wait(house: House) -> None:
    await house.begin(house.ring(MediaForm.WEBRTC), house.ring(MediaForm.WEBRTC))
    one, two = house.devices
    await house.tell(house.caller, LegCandidates(sdp()))
    assert "candidates" in one.words()
    assert "candidates" in two.words()
    await house.tell(two, LegCandidates(sdp(port=7)))
    assert "candidates" not in house.caller.words()
    await house.tell(two, LegAccepted(sdp(MediaForm.WEBRTC)))
    assert house.caller.words() == ["accept", "candidates"]


async def test_candidates_stay_with_the_relay(house: House) -> None:
    leg = await house.talk()
    await house.tell(house.caller, LegCandidates(sdp()))
    assert "candidates" not in leg.words()
    assert any(operation.startswith("candidates") for operation in house.relay.operations)


async def test_a_call_without_an_offer_gets_one_and_the_relay_learns_the_caller_from_its_ack(house: House) -> None:
    house.caller.form = MediaForm.RTP
    await house.begin(house.ring(), is_late=True)
    leg = house.devices[0]
    assert leg.last("invite").media[0].media == "audio"
    await house.tell(leg, LegAccepted(sdp()))
    assert house.caller.words() == ["accept"]
    before = len(house.relay.operations)
    await house.tell(house.caller, LegConfirmed(sdp(port=5000)))
    assert [operation.split()[0] for operation in house.relay.operations[before:]] == ["offer", "answer"]
    assert "offer" not in leg.words(), "the callee hears nothing of it"
    assert house.call.state is CallState.TALKING


# --- in the call ---


async def test_an_offer_is_passed_on_and_its_answer_comes_back(house: House) -> None:
    leg = await house.talk()
    await house.tell(house.caller, LegOffered(sdp(MediaForm.WEBRTC, "audio", "video")))
    assert media_in_use(leg.last("offer")) == ("audio", "video")
    await house.tell(leg, LegAnswered(sdp(MediaForm.RTP, "audio", "video")))
    assert media_in_use(house.caller.last("answer")) == ("audio", "video")
    assert house.call.media == ("audio", "video")


async def test_hold_by_the_callee_reaches_the_caller(house: House) -> None:
    leg = await house.talk()
    await house.tell(leg, LegOffered(sdp(direction="sendonly")))
    told = house.caller.last("offer")
    assert told.direction(told.media[0]) == "sendonly"


async def test_a_refused_offer_keeps_the_call(house: House) -> None:
    leg = await house.talk()
    await house.tell(house.caller, LegOffered(sdp(MediaForm.WEBRTC, "audio", "video")))
    await house.tell(leg, LegOfferRefused(Ending(EndCause.MEDIA_MISMATCH, "no video", status=488)))
    assert house.caller.last("refuse_offer").text == "no video"
    assert house.call.state is CallState.TALKING
    await house.tell(house.caller, LegOffered(sdp(MediaForm.WEBRTC)))
    assert leg.words().count("offer") == 2, "the next one is free again"


async def test_offers_from_both_ends_at_once_are_glare(house: House) -> None:
    leg = await house.talk()
    await house.tell(house.caller, LegOffered(sdp(MediaForm.WEBRTC)))
    await house.tell(leg, LegOffered(sdp()))
    assert leg.last("refuse_offer").status == 491
    await house.tell(house.caller, LegOffered(sdp(MediaForm.WEBRTC)))
    assert house.caller.last("refuse_offer").status == 500


async def test_an_offer_before_the_confirmation_waits_for_it(house: House) -> None:
    await house.begin(house.ring())
    leg = house.devices[0]
    await house.tell(leg, LegAccepted(sdp()), LegOffered(sdp(direction="sendonly")))
    assert "offer" not in house.caller.words()
    await house.tell(house.caller, LegConfirmed())
    assert "offer" in house.caller.words()


async def test_an_offerless_reinvite_is_answered_with_what_the_end_knows_already(house: House) -> None:
    leg = await house.talk()
    await house.tell(leg, LegOffered(None))
    assert leg.last("answer") == leg.last("invite")
    await house.tell(leg, LegAnswered(sdp(port=4100)))
    assert "offer" not in house.caller.words(), "another address is the relay's affair"
    await house.tell(leg, LegOffered(None))
    await house.tell(leg, LegAnswered(sdp(direction="sendonly")))
    assert "offer" in house.caller.words(), "a hold is not"
    await house.tell(house.caller, LegAnswered(sdp(MediaForm.WEBRTC, direction="recvonly")))
    await house.tell(house.caller, LegOffered(sdp(MediaForm.WEBRTC)))
    assert leg.words()[-1] == "offer", "the negotiation is complete"


async def test_signals_and_digits_go_to_the_other_end(house: House) -> None:
    leg = await house.talk()
    await house.tell(house.caller, LegSignalled(LegSignal.MUTE), LegDigit("5", 160))
    assert leg.words()[-2:] == ["signal", "digit"]


async def test_video_that_policy_no_longer_allows_goes_and_the_call_stays(house: House) -> None:
    offer = sdp(MediaForm.WEBRTC, "audio", "video")
    await house.begin(house.ring(MediaForm.WEBRTC), offer=offer)
    leg = house.devices[0]
    await house.tell(leg, LegAccepted(sdp(MediaForm.WEBRTC, "audio", "video", port=6000)))
    await house.tell(house.caller, LegConfirmed())
    house.call.bar(frozenset({"video"}))
    await house.settle()
    for end in (leg, house.caller):
        assert media_in_use(end.last("offer")) == ("audio",)
    assert house.call.state is CallState.TALKING


# --- the end ---


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_whoever_hangs_up_the_other_is_told_and_nothing_is_left(house: House, who: str) -> None:
    leg = await house.talk()
    gone, left = (house.caller, leg) if who == "caller" else (leg, house.caller)
    await house.tell(gone, LegEnded(Ending(EndCause.HUNG_UP)))
    assert left.last("hang_up").cause is EndCause.HUNG_UP
    assert "hang_up" not in gone.words()
    assert house.seen[-1] == "ended"
    assert house.call.counted[0].packets == 100
    assert house.clock.pending == 0


async def test_a_lost_relay_ends_both_sides_with_the_reason(house: House) -> None:
    leg = await house.talk()
    house.relay.on_dead[0]()
    await house.settle()
    assert leg.last("hang_up").cause is EndCause.CONNECTIVITY
    assert house.caller.last("hang_up").cause is EndCause.CONNECTIVITY


async def test_a_relay_that_fails_in_the_middle_ends_the_call_with_its_words(house: House) -> None:
    leg = await house.talk()
    house.relay.fault = "Unknown call-id"
    await house.tell(leg, LegOffered(sdp()))
    assert house.caller.last("hang_up").text == "Unknown call-id"


async def test_the_caller_who_ends_before_the_confirmation_ends_the_callee(house: House) -> None:
    await house.begin(house.ring())
    leg = house.devices[0]
    await house.tell(leg, LegAccepted(sdp()))
    await house.tell(house.caller, LegEnded(Ending(EndCause.CONNECTIVITY)))
    assert leg.words()[-1] == "hang_up"
    assert house.call.answered_at is None


# --- the table ---


def test_every_pair_without_a_row_is_a_decision() -> None:
    """A pair is a row, or the state's reason says why it means nothing; no state may be without either."""
    for state in CallState:
        assert ROWS[state], state
        assert IGNORED[state], state
    roles = {role for rows in ROWS.values() for role, _ in rows}
    assert roles == {None, *Role}


@pytest.mark.parametrize("state", list(CallState))
@pytest.mark.parametrize("role", ["caller", "callee"])
@pytest.mark.parametrize(
    "event",
    [
        LegRinging(),
        LegProgressed(sdp()),
        LegAccepted(sdp()),
        LegConfirmed(),
        LegOffered(sdp()),
        LegOffered(None),
        LegAnswered(sdp()),
        LegOfferRefused(Ending(EndCause.FAILED)),
        LegCandidates(sdp()),
        LegSignalled(LegSignal.HOLD),
        LegDigit("1", 100),
        LegEnded(Ending(EndCause.HUNG_UP)),
    ],
    ids=lambda event: type(event).__name__,
)
async def test_no_event_in_any_state_breaks_a_call(house: House, state: CallState, role: str, event: LegEvent) -> None:
    if state is CallState.RINGING:
        await house.begin(house.ring())
    elif state is CallState.ANSWERED:
        await house.begin(house.ring())
        await house.tell(house.devices[0], LegAccepted(sdp()))
    else:
        await house.talk()
    if state is CallState.ENDED:
        house.call.end(Ending(EndCause.HUNG_UP))
        await house.settle()
    assert house.call.state is state
    leg = house.caller if role == "caller" else house.devices[0]
    await house.tell(leg, event, event)
    assert house.call.ending.cause is not EndCause.FAILED or house.call.state is not CallState.ENDED
    house.call.end(Ending(EndCause.HUNG_UP))
    await asyncio.wait_for(house.call.over(), 1)
