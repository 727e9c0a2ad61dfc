"""Every pair of state and action: as a table, and thrown at living legs in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.interworking.jingle_message import Accept, Finish, Proceed, Propose, Reject, Retract, Ringing
from isthmus.model import EndCause, Ending
from isthmus.services.calls.jingle.callee_leg import JingleCalleeLeg
from isthmus.services.calls.jingle.leg import JingleLeg
from isthmus.services.calls.jingle.proposal_leg import JingleProposalLeg
from isthmus.services.calls.jingle.states import (
    OURS,
    THEIRS,
    ProposalState,
    ProposalStep,
    SessionState,
    Verdict,
    step_for,
    verdict_on,
)
from isthmus.services.calls.leg import LegEnded, LegSignal
from isthmus.xmpp.jingle import ACTIONS
from tests.support.jingle_house import (
    ANA,
    ANA_JID,
    BEN,
    BEN_LAPTOP,
    BEN_PHONE,
    Device,
    House,
    MemoryServer,
    PromptClock,
    candidate,
    content,
    sdp,
    settle,
    transport,
    trickled,
    video,
)

WAITING = [SessionState.INITIATED, SessionState.PENDING, SessionState.RINGING]


class TestTheTableOfSessions:
    @pytest.mark.parametrize("action", sorted(ACTIONS))
    @pytest.mark.parametrize("is_initiator", [True, False])
    def test_a_session_that_ended_is_unknown_whatever_comes(self, action: str, is_initiator: bool) -> None:
        assert verdict_on(SessionState.ENDED, action, is_initiator=is_initiator) is Verdict.UNKNOWN_SESSION

    @pytest.mark.parametrize("state", [*WAITING, SessionState.ACTIVE])
    @pytest.mark.parametrize("is_initiator", [True, False])
    def test_a_living_session_can_always_be_ended_and_never_begun(
        self, state: SessionState, is_initiator: bool
    ) -> None:
        if state is SessionState.INITIATED and not is_initiator:
            return  # only an initiator waits for the acknowledgement
        assert verdict_on(state, "session-terminate", is_initiator=is_initiator) is Verdict.TAKE
        assert verdict_on(state, "session-initiate", is_initiator=is_initiator) is Verdict.OUT_OF_ORDER

    @pytest.mark.parametrize("state", WAITING)
    def test_only_the_responder_accepts_and_only_once(self, state: SessionState) -> None:
        assert verdict_on(state, "session-accept", is_initiator=True) is Verdict.TAKE
        assert verdict_on(state, "session-accept", is_initiator=False) is Verdict.OUT_OF_ORDER
        assert verdict_on(SessionState.ACTIVE, "session-accept", is_initiator=True) is Verdict.OUT_OF_ORDER

    @pytest.mark.parametrize("action", ["content-add", "content-modify", "transport-replace"])
    def test_media_change_only_after_the_answer(self, action: str) -> None:
        for is_initiator in (True, False):
            assert verdict_on(SessionState.RINGING, action, is_initiator=is_initiator) is Verdict.OUT_OF_ORDER
            assert verdict_on(SessionState.ACTIVE, action, is_initiator=is_initiator) is Verdict.TAKE


class TestTheTablesOfProposals:
    MESSAGES = (Propose("s", ()), Ringing("s"), Proceed("s"), Accept("s"), Reject("s"), Retract("s"), Finish("s"))

    @pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
    @pytest.mark.parametrize("is_ours", [True, False])
    def test_one_that_ended_hears_nothing(self, message: Any, is_ours: bool) -> None:
        assert step_for(ProposalState.ENDED, message, is_ours=is_ours) is ProposalStep.IGNORE

    def test_a_device_proceeds_once(self) -> None:
        assert step_for(ProposalState.PROPOSED, Proceed("s"), is_ours=True) is ProposalStep.INITIATE
        assert step_for(ProposalState.RINGING, Proceed("s"), is_ours=True) is ProposalStep.INITIATE
        assert step_for(ProposalState.PROCEEDED, Proceed("s"), is_ours=True) is ProposalStep.IGNORE

    def test_nobody_withdraws_what_we_proposed_nor_rejects_what_they_did(self) -> None:
        assert not [state for state, kind in OURS if kind is Retract]
        assert not [state for state, kind in THEIRS if kind is Reject]

    def test_a_proposal_that_comes_back_ends_unless_somebody_rings(self) -> None:
        propose = Propose("s", ("audio",))
        assert step_for(ProposalState.PROPOSED, propose, is_ours=True, is_returned=True) is ProposalStep.BOUNCE
        assert step_for(ProposalState.RINGING, propose, is_ours=True, is_returned=True) is ProposalStep.IGNORE


# --- living legs ----------------------------------------------------------------------------------------------

INFO = "urn:xmpp:jingle:apps:rtp:info:1"
INNER = {
    "nothing": "",
    "audio": content(),
    "answer": content(transported=transport("an5w", setup="active")),
    "video": video(),
    "their video": video(creator="responder"),
    "clear": content(transported=transport(fingerprint="")),
    "candidates": content(description="", transported=transport(fingerprint="", candidates=candidate())),
    "restart": content(description="", transported=transport("n3w1", fingerprint="", candidates=candidate())),
    "held": "<content creator='initiator' name='audio' senders='initiator'/>",
    "unknown": "<content creator='initiator' name='x' senders='none'/>",
    "busy": "<reason><busy/></reason>",
    "hold": f"<hold xmlns='{INFO}'/>",
    "unhold": f"<unhold xmlns='{INFO}'/>",
    "ringing": f"<ringing xmlns='{INFO}'/>",
    "nonsense": "<x xmlns='y'/>",
    "garbage": "<content/><content name='audio'><description xmlns='urn:xmpp:jingle:apps:rtp:1'/></content>",
}
MESSAGES = ("ringing", "proceed", "reject", "retract", "finish", "accept", "propose")
OFFERS = {
    "audio": sdp(),
    "video": sdp("audio", "video"),
    "held": sdp(direction="sendonly"),
    "no video": sdp("audio", "video", rejected=("video",)),
    "moved": sdp(ufrag="Nw88"),
    "nothing": sdp(rejected=("audio",)),
}
ENDING = Ending(EndCause.HUNG_UP)
COMMANDS: dict[str, Callable[[JingleLeg, str], None]] = {
    "invite": lambda leg, name: None,
    "ring": lambda leg, name: leg.ring(),
    "accept": lambda leg, name: leg.accept(OFFERS[name]),
    "progress": lambda leg, name: leg.progress(OFFERS[name]),
    "refuse": lambda leg, name: leg.refuse(ENDING),
    "cancel": lambda leg, name: leg.cancel(ENDING),
    "hang up": lambda leg, name: leg.hang_up(ENDING),
    "offer": lambda leg, name: leg.offer(OFFERS[name]),
    "answer": lambda leg, name: leg.answer(OFFERS[name]),
    "refuse offer": lambda leg, name: leg.refuse_offer(ENDING),
    "candidates": lambda leg, name: leg.add_candidates(trickled()),
    "signal": lambda leg, name: leg.signal(LegSignal.MUTE),
    "digit": lambda leg, name: leg.send_digit("1", 100),
    "verify": lambda leg, name: leg.verify(),
}
PEER_STEPS = st.tuples(st.sampled_from(sorted(ACTIONS)), st.sampled_from(sorted(INNER)))
MESSAGE_STEPS = st.tuples(st.just("say"), st.sampled_from(MESSAGES))
COMMAND_STEPS = st.tuples(st.sampled_from(sorted(COMMANDS)), st.sampled_from(sorted(OFFERS)))
SURROUNDINGS = (
    *(("lose", ""), ("restore", ""), ("wait", "40"), ("wait", "70"), ("refuse", "conflict")),
    *(("refuse", "item-not-found"), ("agree", ""), ("offline", ""), ("other device", "")),
)
SURROUNDING_STEPS = st.sampled_from(SURROUNDINGS)
STEPS = st.lists(st.one_of(PEER_STEPS, COMMAND_STEPS, PEER_STEPS, MESSAGE_STEPS, SURROUNDING_STEPS), max_size=14)


class World:
    """One leg, its peer, and whatever may happen to them."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.clock = PromptClock()
        self.house = House(self.server, self.clock)
        self.ben = Device(self.server)
        self.other = Device(self.server, BEN_LAPTOP)
        self.leg: JingleLeg
        self.sid = "s-77"

    async def caller(self, *, is_answered: bool) -> None:
        await self.ben.accepted("session-initiate", inner=content())
        leg = self.house.call.leg
        assert isinstance(leg, JingleLeg)
        self.leg = leg
        if is_answered:
            leg.accept(sdp(setup="active"))
            await settle()

    async def callee(self, *, is_answered: bool) -> None:
        leg = JingleCalleeLeg(
            self.house.around, ours=ANA, our_jid=ANA_JID, party=BEN, peer_jid=BEN_PHONE, device="phone",
        )  # fmt: skip
        self.leg, self.sid = leg, leg.sid
        leg.attach(self.house.ear)
        leg.invite(sdp())
        await settle()
        if is_answered:
            await self.ben.accepted("session-accept", self.sid, INNER["answer"])

    async def proposal(self, *, is_answered: bool) -> None:
        leg = JingleProposalLeg(self.house.around, ours=ANA, our_jid=ANA_JID, party=BEN)
        self.leg, self.sid = leg, leg.sid
        leg.attach(self.house.ear)
        leg.invite(sdp())
        await settle()
        if is_answered:
            await self.ben.say("proceed", self.sid)
            await self.ben.accepted("session-accept", self.sid, INNER["answer"])

    async def step(self, what: str, how: str) -> None:
        """Let one thing happen."""
        if what in ACTIONS and what != "session-initiate":
            answer = await self.ben.jingle(what, self.sid, INNER[how])
            assert answer.get("type") in ("result", "error")
        elif what == "say":
            await self.ben.say(how, self.sid if how != "propose" else "zz", to="ana@corp.test")
        elif what in COMMANDS:
            COMMANDS[what](self.leg, how)
        elif what == "lose":
            self.house.link.lose()
        elif what == "restore":
            self.house.restore()
        elif what == "wait":
            self.clock.advance(float(how))
        elif what == "refuse":
            own = {"conflict": "tie-break", "item-not-found": "unknown-session"}[how]
            self.ben.refuses.update(dict.fromkeys(ACTIONS, (how, own)))
        elif what == "agree":
            self.ben.refuses.clear()
        elif what == "offline":
            self.server.deliver(f"<presence type='unavailable' from='{BEN_PHONE}' to='ana@corp.test'/>")
        elif what == "other device":
            answer = await self.other.jingle("session-terminate", self.sid)
            assert answer.get("type") == "error"
        await settle()

    def check_the_end(self) -> None:
        events = self.house.ear.by_leg.get(self.leg.key, [])
        assert sum(isinstance(event, LegEnded) for event in events) == 1
        assert len(self.house.registry) == 0
        assert self.leg.state is SessionState.ENDED


def run(begin: Callable[[World], Awaitable[None]], steps: list[tuple[str, str]]) -> None:
    async def play() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        world = World()
        await begin(world)
        for what, how in steps:
            await world.step(what, how)
        if not world.house.link.is_connected:
            world.house.restore()
        world.leg.cancel(ENDING)
        await settle()
        world.check_the_end()
        assert await world.ben.refused("session-terminate", world.sid) == "item-not-found/unknown-session"
        assert not failures, failures

    asyncio.run(play())


@pytest.mark.parametrize("is_answered", [False, True])
class TestAnythingInAnyOrder:
    """Every IQ is answered, nothing raises, a leg ends exactly once, and nothing of it is left behind."""

    @settings(max_examples=150, deadline=None)
    @example(steps=[("lose", ""), ("hang up", "audio"), ("restore", "")])
    @given(steps=STEPS)
    def test_happens_to_a_callers_leg(self, is_answered: bool, steps: list[tuple[str, str]]) -> None:
        run(lambda world: world.caller(is_answered=is_answered), steps)

    @settings(max_examples=150, deadline=None)
    @given(steps=STEPS)
    def test_happens_to_a_leg_towards_a_device(self, is_answered: bool, steps: list[tuple[str, str]]) -> None:
        run(lambda world: world.callee(is_answered=is_answered), steps)

    @settings(max_examples=150, deadline=None)
    @given(steps=STEPS)
    def test_happens_to_a_proposal(self, is_answered: bool, steps: list[tuple[str, str]]) -> None:
        run(lambda world: world.proposal(is_answered=is_answered), steps)


@pytest.mark.parametrize("is_answered", [False, True])
@pytest.mark.parametrize("how", sorted(INNER))
@pytest.mark.parametrize("what", sorted(ACTIONS - {"session-initiate"}))
def test_every_action_with_any_content_is_answered(what: str, how: str, is_answered: bool) -> None:
    run(lambda world: world.callee(is_answered=is_answered), [(what, how)])
    run(lambda world: world.caller(is_answered=is_answered), [(what, how)])
