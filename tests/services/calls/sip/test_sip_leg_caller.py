"""The leg of a caller who speaks SIP: RFC 3261 section 13.3, RFC 3262, and every race around CANCEL, BYE and ACK."""

from __future__ import annotations

import pytest

from isthmus.interworking.session_bodies import session_in
from isthmus.model import EndCause, Ending, MediaForm
from isthmus.services.calls.leg import LegConfirmed
from isthmus.sip.client_transaction import ClientTransaction
from isthmus.sip.dialog import Dialog
from isthmus.sip.message import SipResponse
from tests.support.call_lab import CallLab, Heard, Phone, audio

OFFER, ANSWER = audio(port=4000), audio(port=5000)


async def called(*headers: tuple[str, str], offer: bool = True) -> tuple[CallLab, Phone, ClientTransaction, Heard]:
    """pat calls ben; nothing is answered yet."""
    lab = await CallLab.open()
    phone = lab.pbx()
    invite = phone.invite("ben@people.test", OFFER if offer else None, headers=headers)
    _, heard = lab.take_call()
    return lab, phone, invite, heard


def prack(phone: Phone, invite: ClientTransaction, response: SipResponse, number: int = 2) -> ClientTransaction:
    """Acknowledge a reliable response."""
    dialog = Dialog.as_client(invite.request, response)
    dialog.local_cseq = number - 1
    rack = f"{response.headers.get('rseq')} {invite.request.cseq}"
    return phone.send(dialog.make_request("PRACK", [("RAck", rack)]))


async def test_a_call_rings_is_answered_and_confirmed() -> None:
    lab, phone, invite, heard = await called()
    call = lab.incoming[0]
    assert (str(call.caller), str(call.callee), call.offer) == ("pat@pbx.test", "ben@people.test", OFFER)
    assert call.leg.form is MediaForm.RTP
    call.leg.ring()
    call.leg.ring()
    call.leg.accept(ANSWER)
    lab.pass_time()
    assert phone.statuses_of(invite) == [180, 200], "a second ring says nothing new"
    success = phone.responses_to(invite)[-1]
    assert session_in(success) == ANSWER
    assert "REFER" in (success.headers.get("Allow") or "")
    phone.confirm(invite)
    assert heard.events == [LegConfirmed()]


async def test_ringing_is_said_again_each_minute_so_that_proxies_do_not_give_up() -> None:
    lab, phone, invite, _ = await called()
    lab.incoming[0].leg.ring()
    lab.pass_time(125)
    assert phone.statuses_of(invite) == [180, 180, 180]
    lab.incoming[0].leg.accept(ANSWER)
    lab.pass_time(0.1)
    phone.confirm(invite)
    lab.pass_time(70)
    assert phone.statuses_of(invite) == [180, 180, 180, 200]


async def test_early_media_are_183_and_the_answer_is_repeated_in_the_200() -> None:
    lab, phone, invite, _ = await called()
    lab.incoming[0].leg.progress(ANSWER)
    lab.incoming[0].leg.accept(ANSWER)
    lab.pass_time()
    assert phone.statuses_of(invite) == [183, 200]
    assert [session_in(response) for response in phone.responses_to(invite)[-2:]] == [ANSWER, ANSWER]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (Ending(EndCause.BUSY), 486),
        (Ending(EndCause.DECLINED), 603),
        (Ending(EndCause.MEDIA_MISMATCH, "No codec in common"), 488),
        (Ending(EndCause.FORBIDDEN, "Not in working hours"), 403),
        (Ending(EndCause.NOT_FOUND, "There is no such call.", status=481), 481),
    ],
)
async def test_a_refusal_says_why(ending: Ending, status: int) -> None:
    lab, phone, invite, heard = await called()
    lab.incoming[0].leg.refuse(ending)
    assert not heard.events, "the call is not entered again from below"
    lab.pass_time()
    assert phone.statuses_of(invite) == [status]
    response = phone.responses_to(invite)[-1]
    assert ending.text in (response.headers.get("Warning") or "")
    assert heard.ending == ending
    assert len(lab.calls.dialogs) == 0


async def test_a_cancel_ends_the_call_with_its_reason() -> None:
    lab, phone, invite, heard = await called()
    lab.incoming[0].leg.ring()
    lab.pass_time()
    phone.cancel(invite, 'SIP;cause=200;text="Call completed elsewhere"')
    lab.pass_time()
    assert phone.statuses_of(invite) == [180, 487]
    assert heard.ending.cause is EndCause.ANSWERED_ELSEWHERE
    lab.incoming[0].leg.accept(ANSWER)
    lab.pass_time()
    assert phone.statuses_of(invite) == [180, 487]


async def test_a_cancel_before_anybody_listens_is_told_to_who_does() -> None:
    lab = await CallLab.open()
    phone = lab.pbx()
    invite = phone.invite("ben@people.test", OFFER)
    lab.pass_time(0.3)
    phone.cancel(invite)
    lab.pass_time()
    _, heard = lab.take_call()
    assert heard.ending.cause is EndCause.CANCELLED


async def test_a_cancel_that_crosses_the_200_has_no_effect() -> None:
    """RFC 3261 section 9.2: the caller's device acknowledges and sends BYE."""
    lab, phone, invite, heard = await called()
    lab.incoming[0].leg.ring()
    lab.pass_time()
    lab.incoming[0].leg.accept(ANSWER)
    phone.cancel(invite)
    lab.pass_time()
    assert phone.statuses_of(invite) == [180, 200]
    dialog = phone.confirm(invite)
    bye = phone.send(dialog.make_request("BYE"))
    assert phone.statuses_of(bye) == [200]
    assert heard.kinds == ["LegConfirmed", "LegEnded"]
    assert heard.ending.cause is EndCause.HUNG_UP


async def test_the_200_is_repeated_until_the_ack_and_then_the_call_ends_with_bye() -> None:
    lab, phone, invite, heard = await called()
    lab.incoming[0].leg.accept(ANSWER)
    lab.pass_time(31.9)
    repeats = phone.statuses_of(invite).count(200)
    assert repeats == 11, "0, 0.5, 1.5, 3.5, 7.5, then every four seconds"
    assert not phone.asked("BYE")
    lab.pass_time(1)
    assert len(phone.asked("BYE")) == 1
    assert heard.ending.cause is EndCause.CONNECTIVITY


async def test_an_ack_stops_the_repeats() -> None:
    lab, phone, invite, heard = await called()
    lab.incoming[0].leg.accept(ANSWER)
    lab.pass_time(1)
    dialog = phone.confirm(invite)
    count = phone.statuses_of(invite).count(200)
    phone.send_ack(dialog.make_ack(1))
    lab.pass_time(40)
    assert phone.statuses_of(invite).count(200) == count
    assert heard.kinds == ["LegConfirmed"]


async def test_a_bye_before_the_ack_ends_the_call_and_the_repeats() -> None:
    lab, phone, invite, heard = await called()
    lab.incoming[0].leg.accept(ANSWER)
    lab.pass_time()
    dialog = Dialog.as_client(invite.request, phone.responses_to(invite)[-1])
    bye = phone.send(dialog.make_request("BYE", [("Reason", 'Q.850;cause=16;text="Normal"')]))
    assert phone.statuses_of(bye) == [200]
    assert heard.ending.cause is EndCause.HUNG_UP
    lab.pass_time(40)
    assert phone.statuses_of(invite) == [200]


async def test_hanging_up_before_the_ack_waits_for_it() -> None:
    """RFC 3261 section 15: the server of an INVITE may not send BYE before the ACK."""
    lab, phone, invite, heard = await called()
    lab.incoming[0].leg.accept(ANSWER)
    lab.pass_time()
    lab.incoming[0].leg.hang_up(Ending(EndCause.HUNG_UP))
    lab.pass_time()
    assert heard.ending.cause is EndCause.HUNG_UP
    assert not phone.asked("BYE")
    phone.confirm(invite)
    (bye,) = phone.asked("BYE")
    phone.answer(bye, 200)
    assert len(lab.calls.dialogs) == 0


async def test_a_bye_in_place_of_a_cancel_refuses_the_invite() -> None:
    lab, phone, invite, heard = await called()
    lab.incoming[0].leg.ring()
    lab.pass_time()
    dialog = Dialog.as_client(invite.request, phone.responses_to(invite)[-1])
    bye = phone.send(dialog.make_request("BYE"))
    assert phone.statuses_of(bye) == [200]
    assert phone.statuses_of(invite) == [180, 487]
    assert heard.ending.cause is EndCause.CANCELLED


async def test_a_call_without_offer_gets_ours_in_the_200_and_answers_in_the_ack() -> None:
    lab, phone, invite, heard = await called(offer=False)
    call = lab.incoming[0]
    assert call.offer is None
    call.leg.ring()
    call.leg.accept(OFFER)
    lab.pass_time()
    assert session_in(phone.responses_to(invite)[-1]) == OFFER
    phone.confirm(invite, ANSWER)
    assert heard.events == [LegConfirmed(ANSWER)]


async def test_a_late_answer_that_never_comes_ends_the_call() -> None:
    lab, phone, invite, heard = await called(offer=False)
    lab.incoming[0].leg.accept(OFFER)
    lab.pass_time()
    phone.confirm(invite)
    assert len(phone.asked("BYE")) == 1
    assert heard.ending.cause is EndCause.MEDIA_MISMATCH


async def test_a_second_invite_before_the_first_is_answered_is_500_with_a_time() -> None:
    """RFC 3261 section 14.2."""
    lab, phone, invite, _ = await called()
    lab.incoming[0].leg.ring()
    lab.pass_time()
    dialog = Dialog.as_client(invite.request, phone.responses_to(invite)[-1])
    for method in ("INVITE", "UPDATE"):
        again = phone.send(dialog.make_request(method, [], OFFER.to_bytes(), "application/sdp"))
        assert phone.statuses_of(again) == [500]
        assert phone.responses_to(again)[-1].headers.get("retry-after") == "5"


async def test_an_invite_that_expires_is_not_answered_any_more() -> None:
    """RFC 3261 section 13.3.1."""
    lab, phone, invite, heard = await called(("Expires", "20"))
    lab.incoming[0].leg.ring()
    lab.pass_time(21)
    assert phone.statuses_of(invite) == [180, 487]
    assert heard.ending.cause is EndCause.NO_ANSWER


# --- reliable provisional responses (RFC 3262) ---


async def test_who_requires_100rel_gets_ringing_repeated_until_its_prack() -> None:
    lab, phone, invite, _ = await called(("Require", "100rel"))
    lab.incoming[0].leg.ring()
    lab.pass_time(4)
    ringing = [response for response in phone.responses_to(invite) if response.status == 180]
    assert len(ringing) == 4, "0, 0.5, 1.5, 3.5"
    assert len({response.headers.get("rseq") for response in ringing}) == 1
    assert ringing[0].headers.get("require") == "100rel"
    assert phone.statuses_of(prack(phone, invite, ringing[0])) == [200]
    lab.pass_time(20)
    assert phone.statuses_of(invite).count(180) == 4
    assert phone.statuses_of(prack(phone, invite, ringing[0], 3)) == [481], "nothing waits for it any more"


async def test_reliable_ringing_is_said_again_each_minute_too() -> None:
    lab, phone, invite, _ = await called(("Require", "100rel"))
    lab.incoming[0].leg.progress(ANSWER)
    lab.pass_time()
    prack(phone, invite, phone.responses_to(invite)[-1])
    lab.pass_time(60)
    assert phone.statuses_of(invite) == [183, 183]
    first, second = phone.responses_to(invite)[-2:]
    assert [session_in(first), session_in(second)] == [ANSWER, None]
    assert phone.statuses_of(prack(phone, invite, second, 3)) == [200]


async def test_a_200_waits_for_the_prack_of_early_media_and_does_not_repeat_them() -> None:
    lab, phone, invite, heard = await called(("Require", "100rel"))
    lab.incoming[0].leg.progress(ANSWER)
    lab.pass_time()
    lab.incoming[0].leg.accept(ANSWER)
    lab.pass_time()
    assert phone.statuses_of(invite) == [183]
    prack(phone, invite, phone.responses_to(invite)[-1])
    assert phone.statuses_of(invite)[-1] == 200
    assert session_in(phone.responses_to(invite)[-1]) is None
    phone.confirm(invite)
    assert heard.events == [LegConfirmed()]


async def test_when_another_device_answers_than_the_one_with_the_early_media_the_caller_is_told_its_media() -> None:
    lab, phone, invite, heard = await called(("Require", "100rel"))
    other = audio(port=7000)
    lab.incoming[0].leg.progress(ANSWER)
    lab.pass_time()
    prack(phone, invite, phone.responses_to(invite)[-1])
    lab.incoming[0].leg.accept(other)
    lab.pass_time()
    phone.confirm(invite)
    (reinvite,) = phone.asked("INVITE")
    assert session_in(reinvite.request) == other
    phone.answer(reinvite, 200, OFFER)
    assert heard.events == [LegConfirmed()], "the call need not know"


async def test_a_second_reliable_response_waits_for_the_first() -> None:
    lab, phone, invite, _ = await called(("Require", "100rel"))
    leg = lab.incoming[0].leg
    leg.ring()
    leg.progress(ANSWER)
    lab.pass_time()
    assert phone.statuses_of(invite) == [180]
    prack(phone, invite, phone.responses_to(invite)[-1])
    assert phone.statuses_of(invite) == [180, 183]
    first, second = (int(r.headers.get("rseq") or 0) for r in phone.responses_to(invite)[-2:])
    assert second == first + 1


async def test_without_any_prack_the_call_is_refused_with_504() -> None:
    lab, phone, invite, heard = await called(("Require", "100rel"))
    lab.incoming[0].leg.ring()
    lab.pass_time(33)
    assert phone.statuses_of(invite)[-1] == 504
    assert heard.ending.cause is EndCause.CONNECTIVITY


async def test_a_cancel_hits_a_call_whose_prack_is_outstanding() -> None:
    lab, phone, invite, heard = await called(("Require", "100rel"))
    lab.incoming[0].leg.progress(ANSWER)
    lab.pass_time()
    phone.cancel(invite)
    lab.pass_time(40)
    assert phone.statuses_of(invite)[-1] == 487
    assert heard.ending.cause is EndCause.CANCELLED


async def test_a_prack_with_an_offer_is_refused_and_still_counts() -> None:
    lab, phone, invite, _ = await called(("Require", "100rel"))
    lab.incoming[0].leg.progress(ANSWER)
    lab.pass_time()
    response = phone.responses_to(invite)[-1]
    dialog = Dialog.as_client(invite.request, response)
    rack = f"{response.headers.get('rseq')} 1 INVITE"
    again = phone.send(dialog.make_request("PRACK", [("RAck", rack)], audio(2).to_bytes(), "application/sdp"))
    assert phone.statuses_of(again) == [488]
    lab.incoming[0].leg.accept(ANSWER)
    lab.pass_time()
    assert phone.statuses_of(invite)[-1] == 200


async def test_a_call_without_offer_that_requires_100rel_is_answered_in_its_prack() -> None:
    lab, phone, invite, heard = await called(("Require", "100rel"), offer=False)
    leg = lab.incoming[0].leg
    leg.ring()
    lab.pass_time()
    assert phone.statuses_of(invite) == [], "the first reliable response must carry the offer (RFC 3262 section 5)"
    leg.progress(OFFER)
    lab.pass_time()
    response = phone.responses_to(invite)[-1]
    dialog = Dialog.as_client(invite.request, response)
    rack = f"{response.headers.get('rseq')} 1 INVITE"
    phone.send(dialog.make_request("PRACK", [("RAck", rack)], ANSWER.to_bytes(), "application/sdp"))
    leg.accept(OFFER)
    lab.pass_time()
    phone.confirm(invite)
    assert heard.events == [LegConfirmed(ANSWER)]
