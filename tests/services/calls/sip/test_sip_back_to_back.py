"""Whole calls through two SIP legs, and every order of events that two phones and a bad network can think of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.interworking.session_bodies import session_in
from isthmus.services.calls.sip.ringer import SipRinger
from isthmus.sip.client_transaction import ClientTransaction
from isthmus.sip.dialog import Dialog
from tests.support.call_glue import Glue
from tests.support.call_lab import CallLab, Phone, audio
from tests.support.memory_network import Weather

OFFER, ANSWER, LATE = audio(port=4000), audio(port=5000), audio(port=6000)


class Line:
    """pat (behind the PBX) calls ana (who is registered)."""

    def __init__(self, lab: CallLab, caller: Phone, callee: Phone) -> None:
        self.lab = lab
        self.caller = caller
        self.callee = callee
        self.calls: list[Glue] = []
        self.invite: ClientTransaction | None = None

    @classmethod
    async def open(cls, weather: Weather | None = None, transport: str = "udp") -> Line:
        """Two phones that behave."""
        lab = await CallLab.open()
        caller, callee = lab.pbx(weather), await lab.phone(transport=transport, weather=weather)
        caller.behave(audio(3, port=4100))
        callee.behave(audio(3, port=5100))
        return cls(lab, caller, callee)

    def call(self, *headers: tuple[str, str], has_offer: bool = True) -> ClientTransaction:
        """pat calls."""
        self.invite = self.caller.invite("ana@corp.test", OFFER if has_offer else None, headers=headers)
        self.join()
        return self.invite

    def join(self) -> None:
        """Tie calls that have come meanwhile to ana's phone."""
        ringer = SipRinger(self.lab.calls, self.lab.house.directory, lambda address: "")
        while self.lab.incoming:
            self.calls.append(Glue(self.lab.incoming.pop(0), ringer, LATE))
        self.lab.pass_time()

    def dialog_of_caller(self) -> Dialog | None:
        """pat's end, once he has a tag of ours."""
        if self.invite is None:
            return None
        for response in reversed(self.caller.responses_to(self.invite)):
            if response.to_address.tag and response.status < 300 and response.contacts:
                dialog = Dialog.as_client(self.invite.request, response)
                dialog.local_cseq = 50 + len(self.caller.end.sent)
                return dialog
        return None

    def dialog_of_callee(self) -> Dialog | None:
        """ana's end."""
        invites = self.callee.asked("INVITE")
        if not invites:
            return None
        dialog = self.callee.dialog(invites[0])
        dialog.local_cseq = 50 + len(self.callee.end.sent)
        return dialog


async def test_a_call_with_its_media_goes_through_unchanged() -> None:
    line = await Line.open()
    invite = line.call()
    theirs = line.callee.asked("INVITE")[0]
    assert session_in(theirs.request) == OFFER
    line.callee.answer(theirs, 180)
    line.callee.answer(theirs, 200, ANSWER)
    assert line.caller.statuses_of(invite) == [180, 200]
    assert session_in(line.caller.responses_to(invite)[-1]) == ANSWER
    dialog = line.dialog_of_caller()
    assert dialog is not None
    hold = audio(2, port=4000, extra="a=sendonly\r\n")
    again = line.caller.send(
        dialog.make_request("INVITE", [("Contact", line.caller.contact)], hold.to_bytes(), "application/sdp")
    )
    line.lab.pass_time()
    assert session_in(line.callee.asked("INVITE")[1].request) == hold
    assert session_in(line.caller.responses_to(again)[-1]) == audio(3, port=5100)
    line.caller.send(dialog.make_request("INFO", [], b"Signal=7\r\nDuration=90\r\n", "application/dtmf-relay"))
    line.lab.pass_time()
    assert line.callee.asked("INFO")[0].request.body == b"Signal=7\r\nDuration=90\r\n"
    line.caller.send(dialog.make_request("BYE"))
    line.lab.pass_time()
    assert len(line.callee.asked("BYE")) == 1
    assert line.calls[0].is_over
    assert len(line.lab.calls.dialogs) == 0


async def test_early_media_in_a_reliable_response_go_through_on_both_sides() -> None:
    line = await Line.open()
    invite = line.call(("Require", "100rel"))
    theirs = line.callee.asked("INVITE")[0]
    line.callee.answer(theirs, 183, ANSWER, headers=[("Require", "100rel"), ("RSeq", "5")])
    assert len(line.callee.asked("PRACK")) == 1
    response = line.caller.responses_to(invite)[-1]
    assert (response.status, session_in(response)) == (183, ANSWER)
    line.callee.answer(theirs, 200)
    assert line.caller.statuses_of(invite) == [183], "the 200 waits for the caller's PRACK"
    dialog = Dialog.as_client(invite.request, response)
    line.caller.send(dialog.make_request("PRACK", [("RAck", f"{response.headers.get('rseq')} 1 INVITE")]))
    line.lab.pass_time()
    assert line.caller.statuses_of(invite) == [183, 200]


async def test_a_call_without_offer_gets_one_from_the_middle() -> None:
    line = await Line.open()
    line.call(has_offer=False)
    assert session_in(line.callee.asked("INVITE")[0].request) == LATE


@pytest.mark.parametrize("status", [486, 603, 480, 488, 404])
async def test_a_refusal_goes_through(status: int) -> None:
    line = await Line.open()
    invite = line.call()
    line.callee.answer(line.callee.asked("INVITE")[0], status)
    line.lab.pass_time()
    assert line.caller.statuses_of(invite) == [status]
    assert line.calls[0].is_over


# --- every order of events ---

Action = Callable[[Line], None]


def _answer(status: int, *, has_media: bool = False, tag: str = "phone", rseq: int = 0) -> Action:
    def act(line: Line) -> None:
        invites = line.callee.asked("INVITE")
        if invites:
            headers = [("Require", "100rel"), ("RSeq", str(rseq))] if rseq else []
            line.callee.answer(invites[0], status, ANSWER if has_media else None, tag=tag, headers=headers)

    return act


def _prack(line: Line) -> None:
    if line.invite is None:
        return
    for response in line.caller.responses_to(line.invite):
        if "rseq" in response.headers:
            dialog = Dialog.as_client(line.invite.request, response)
            dialog.local_cseq = 50 + len(line.caller.end.sent)
            line.caller.send(dialog.make_request("PRACK", [("RAck", f"{response.headers.get('rseq')} 1 INVITE")]))


def _refer(line: Line) -> None:
    dialog = line.dialog_of_caller()
    if dialog is not None:
        line.caller.send(dialog.make_request("REFER", [("Refer-To", "<sip:bea@corp.test>")]))


def _break(line: Line) -> None:
    line.lab.endpoint.close(line.caller.flow)
    line.lab.door.flow_closed(line.caller.flow)


def _cancel(line: Line) -> None:
    if line.invite is not None:
        line.caller.cancel(line.invite)


def _within(method: str, *, is_caller: bool, has_media: bool = False) -> Action:
    def act(line: Line) -> None:
        phone = line.caller if is_caller else line.callee
        dialog = line.dialog_of_caller() if is_caller else line.dialog_of_callee()
        if dialog is not None:
            body = audio(dialog.local_cseq, port=4000 + 2 * dialog.local_cseq).to_bytes() if has_media else b""
            headers = [("Contact", phone.contact), ("Supported", "timer")]
            phone.send(dialog.make_request(method, headers, body, "application/sdp" if body else ""))

    return act


def _from_the_middle(line: Line) -> None:
    for call in line.calls:
        call.hang_up()


ACTIONS: dict[str, Action] = {
    "callee rings": _answer(180),
    "callee sends early media": _answer(183, has_media=True),
    "callee sends early media reliably": _answer(183, has_media=True, rseq=1),
    "callee rings reliably": _answer(180, rseq=2),
    "caller acknowledges early media": _prack,
    "caller transfers": _refer,
    "caller's connection breaks": _break,
    "another fork rings": _answer(180, tag="fork"),
    "callee answers": _answer(200, has_media=True),
    "another fork answers": _answer(200, has_media=True, tag="fork"),
    "callee answers without media": _answer(200),
    "callee is busy": _answer(486),
    "callee is broken": _answer(503),
    "caller cancels": _cancel,
    "caller hangs up": _within("BYE", is_caller=True),
    "callee hangs up": _within("BYE", is_caller=False),
    "caller offers": _within("INVITE", is_caller=True, has_media=True),
    "callee offers": _within("INVITE", is_caller=False, has_media=True),
    "caller wants an offer": _within("INVITE", is_caller=True),
    "callee updates": _within("UPDATE", is_caller=False),
    "caller updates media": _within("UPDATE", is_caller=True, has_media=True),
    "a little later": lambda line: line.lab.pass_time(1),
    "later": lambda line: line.lab.pass_time(35),
    "the middle hangs up": _from_the_middle,
}


@given(
    actions=st.lists(st.sampled_from(sorted(ACTIONS)), max_size=12),
    loss=st.sampled_from((0.0, 0.0, 0.2)),
    has_offer=st.booleans(),
    is_reliable=st.booleans(),
    transport=st.sampled_from(("udp", "tcp")),
)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_every_call_ends_and_leaves_nothing_behind(
    actions: list[str], loss: float, has_offer: bool, is_reliable: bool, transport: str
) -> None:
    asyncio.run(_play(actions, loss, transport, has_offer=has_offer, is_reliable=is_reliable))


async def _play(actions: list[str], loss: float, transport: str, *, has_offer: bool, is_reliable: bool) -> None:
    line = await Line.open(Weather(loss=loss, duplication=loss, jitter=0.02), transport)
    timers = line.lab.clock.pending
    line.call(*([("Require", "100rel")] if is_reliable else []), has_offer=has_offer)
    for action in actions:
        line.join()
        ACTIONS[action](line)
        await asyncio.sleep(0)
    line.join()
    _from_the_middle(line)
    line.lab.pass_time(400)
    line.join()
    _from_the_middle(line)
    line.lab.pass_time(100)
    assert all(call.is_over for call in line.calls)
    assert len(line.lab.calls.dialogs) == 0
    assert line.lab.clock.pending <= timers, "nothing is waited for any more"
    for phone in (line.caller, line.callee):
        assert phone.network.ben.layer.pending == 0
