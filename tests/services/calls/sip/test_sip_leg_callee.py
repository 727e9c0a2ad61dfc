"""The leg towards a SIP device: RFC 3261 section 13.2, forks, redirects, failover, PRACK, a 2xx that is too late."""

from __future__ import annotations

import pytest

from isthmus.interworking.session_bodies import session_in
from isthmus.model import EndCause, Ending, MediaForm, Origin
from isthmus.services.calls.leg import LegAccepted, LegProgressed, LegRinging
from isthmus.services.calls.sip.leg_callee import SipCalleeLeg
from isthmus.sip.server_transaction import ServerTransaction
from tests.support.call_lab import CallLab, Heard, Phone, audio
from tests.support.xmpp import settle

OFFER, ANSWER = audio(port=4000), audio(port=5000)


async def inviting(transport: str = "udp") -> tuple[CallLab, Phone, SipCalleeLeg, Heard, ServerTransaction]:
    """ben calls ana's phone, which has the INVITE."""
    lab = await CallLab.open()
    phone = await lab.phone(transport=transport)
    leg, heard = lab.leg_to("ana@corp.test")
    leg.invite(OFFER)
    lab.pass_time()
    return lab, phone, leg, heard, phone.asked("INVITE")[0]


async def test_a_device_rings_and_answers() -> None:
    lab, phone, leg, heard, invite = await inviting()
    request = invite.request
    assert session_in(request) == OFFER
    assert str(request.from_address.uri) == "sip:ben@people.test"
    assert str(request.uri) == "sip:ana@192.0.2.20:5060"
    assert request.headers.get("max-breadth") == "60"
    assert "timer" in (request.headers.get("supported") or "")
    phone.answer(invite, 180)
    phone.answer(invite, 200, ANSWER)
    assert heard.events == [LegRinging(), LegAccepted(ANSWER, leg.device)]
    assert [ack.cseq.number for ack in phone.acks] == [request.cseq.number]
    lab.pass_time(40)
    assert not heard.is_over
    leg.hang_up(Ending(EndCause.HUNG_UP))
    lab.pass_time()
    (bye,) = phone.asked("BYE")
    assert "cause=16" in (bye.request.headers.get("reason") or "")
    phone.answer(bye, 200)
    assert heard.ending.cause is EndCause.HUNG_UP
    assert len(lab.calls.dialogs) == 0


async def test_each_repeated_200_gets_the_ack_again() -> None:
    lab, phone, _, heard, invite = await inviting()
    success = phone.answer(invite, 200, ANSWER)
    for _ in range(2):
        phone.end.layer.send_response(invite, success, lab.clock.monotonic())
        phone.end.drain()
        lab.pass_time()
    assert len(phone.acks) == 3
    assert heard.kinds == ["LegAccepted"]


async def test_the_peer_hangs_up() -> None:
    lab, phone, _, heard, invite = await inviting()
    phone.answer(invite, 200, ANSWER)
    bye = phone.send(phone.dialog(invite).make_request("BYE", [("Reason", "Q.850;cause=16")]))
    assert phone.statuses_of(bye) == [200]
    assert heard.ending.cause is EndCause.HUNG_UP
    assert len(lab.calls.dialogs) == 0


@pytest.mark.parametrize(
    ("status", "headers", "cause", "text"),
    [
        (486, (), EndCause.BUSY, "Busy Here"),
        (603, (), EndCause.DECLINED, "Decline"),
        (488, (("Warning", '305 phone "No common codec"'),), EndCause.MEDIA_MISMATCH, "No common codec"),
        (407, (), EndCause.FORBIDDEN, "Proxy Authentication Required"),
        (401, (), EndCause.FORBIDDEN, "Unauthorized"),
        (480, (), EndCause.UNREACHABLE, "Temporarily Unavailable"),
    ],
)
async def test_a_refusal_is_told_with_its_reason(
    status: int, headers: tuple[tuple[str, str], ...], cause: EndCause, text: str
) -> None:
    lab, phone, _, heard, invite = await inviting()
    phone.answer(invite, status, headers=headers)
    assert (heard.ending.cause, heard.ending.text, heard.ending.status) == (cause, text, status)
    assert len(lab.calls.dialogs) == 0


async def test_a_device_that_is_silent_is_unreachable() -> None:
    lab, phone, _, heard, _ = await inviting()
    phone.network.is_up = False
    lab.pass_time(40)
    assert heard.ending.cause is EndCause.UNREACHABLE
    assert heard.ending.origin is Origin.TIMEOUT


async def test_cancel_waits_for_a_provisional_response_and_says_why() -> None:
    lab, phone, leg, heard, invite = await inviting()
    leg.cancel(Ending(EndCause.ANSWERED_ELSEWHERE))
    lab.pass_time(0.05)
    assert heard.ending.cause is EndCause.ANSWERED_ELSEWHERE
    cancels = [line for line in phone.network.ben.first_lines() if line.startswith("CANCEL")]
    assert not cancels, "it could overtake the INVITE (RFC 3261 section 9.1)"
    phone.answer(invite, 180)
    (cancel,) = [data for data in phone.network.ben.sent if data.startswith(b"CANCEL")]
    assert b'Reason: SIP;cause=200;text="Call completed elsewhere"' in cancel
    phone.answer(invite, 487)
    lab.pass_time(40)
    assert heard.kinds == ["LegEnded"]


async def test_a_200_that_crosses_the_cancel_is_acknowledged_and_hung_up() -> None:
    lab, phone, leg, heard, invite = await inviting()
    phone.answer(invite, 180)
    leg.cancel(Ending(EndCause.CANCELLED))
    phone.answer(invite, 200, ANSWER)
    assert len(phone.acks) == 1
    (bye,) = phone.asked("BYE")
    phone.answer(bye, 200)
    assert heard.kinds == ["LegRinging", "LegEnded"]
    assert len(lab.calls.dialogs) == 0


async def test_of_several_forks_the_first_to_answer_wins_and_the_others_are_hung_up() -> None:
    lab, phone, leg, heard, invite = await inviting()
    phone.answer(invite, 180, tag="one")
    phone.answer(invite, 180, tag="two")
    phone.answer(invite, 200, ANSWER, tag="two")
    phone.answer(invite, 200, audio(port=7000), tag="one")
    assert heard.kinds == ["LegRinging", "LegAccepted"], "only the first fork rings"
    assert len(phone.acks) == 2
    (bye,) = phone.asked("BYE")
    assert bye.request.to_address.tag == "one"
    phone.answer(bye, 200)
    assert leg.session is not None
    assert leg.session.dialog.remote_tag == "two"
    assert len(lab.calls.dialogs) == 1


async def test_a_200_of_a_late_fork_after_a_failure_is_acknowledged_and_hung_up() -> None:
    """RFC 3261 section 16.7 step 5: a forking proxy forwards it all the same."""
    lab, phone, _, heard, invite = await inviting("tcp")
    phone.answer(invite, 486, tag="one")
    assert heard.ending.cause is EndCause.BUSY
    late = phone.answer(invite, 200, ANSWER, tag="two")  # this transaction is over: nothing goes out
    phone.end.layer.send_statelessly(late, phone.end.flow)
    phone.end.drain()
    lab.pass_time()
    assert len(phone.acks) == 1
    assert len(phone.asked("BYE")) == 1


async def test_early_media_are_told_once_and_a_183_is_no_ringing() -> None:
    _, phone, _, heard, invite = await inviting()
    phone.answer(invite, 183, ANSWER, tag="one")
    phone.answer(invite, 183, audio(port=7000), tag="two")
    phone.answer(invite, 180, tag="two")
    assert heard.events == [LegProgressed(ANSWER), LegRinging()]


async def test_a_180_with_media_is_both() -> None:
    _, phone, _, heard, invite = await inviting()
    phone.answer(invite, 180, ANSWER)
    assert heard.events == [LegRinging(), LegProgressed(ANSWER)]


async def test_reliable_responses_get_their_prack_and_their_answer_counts() -> None:
    """The 200 may come without SDP (RFC 3262 section 5, STANDARDS 1.7.5)."""
    _, phone, leg, heard, invite = await inviting()
    reliable = (("Require", "100rel"), ("RSeq", "17"))
    ringing = phone.answer(invite, 183, ANSWER, headers=reliable)
    (prack,) = phone.asked("PRACK")
    assert prack.request.headers.get("rack") == f"17 {invite.request.cseq.number} INVITE"
    phone.answer(prack, 200)
    phone.end.layer.send_response(invite, ringing, 0.0)
    phone.end.drain()
    phone.answer(invite, 183, audio(port=9000), headers=(("Require", "100rel"), ("RSeq", "19")))
    assert len(phone.asked("PRACK")) == 1, "repeated, and out of order"
    phone.answer(invite, 200)
    assert heard.events == [LegProgressed(ANSWER), LegAccepted(ANSWER, leg.device)]


async def test_a_200_without_any_media_is_hung_up() -> None:
    _, phone, _, heard, invite = await inviting()
    phone.answer(invite, 200)
    assert len(phone.acks) == 1
    assert len(phone.asked("BYE")) == 1
    assert heard.ending.cause is EndCause.MEDIA_MISMATCH


async def test_too_short_a_session_is_asked_for_again_with_what_the_device_wants() -> None:
    lab, phone, leg, heard, invite = await inviting()
    phone.answer(invite, 422, headers=[("Min-SE", "3600")])
    again = phone.asked("INVITE")[1]
    assert again.request.headers.get("session-expires") == "3600"
    assert again.request.headers.get("min-se") == "3600"
    assert again.request.cseq.number == invite.request.cseq.number + 1
    phone.answer(again, 200, ANSWER)
    assert heard.kinds == ["LegAccepted"]
    lab.pass_time()
    leg.hang_up(Ending(EndCause.HUNG_UP))


async def test_a_redirect_within_the_same_device_is_followed_a_few_times() -> None:
    lab, phone, _, heard, _ = await inviting()
    for number in range(6):
        invite = phone.asked("INVITE")[-1]
        phone.answer(invite, 302, headers=[("Contact", f"<sip:line{number}@192.0.2.20:5060>")])
    lab.pass_time()
    uris = [str(invite.request.uri) for invite in phone.asked("INVITE")]
    assert uris[1:] == [f"sip:line{number}@192.0.2.20:5060" for number in range(5)]
    assert heard.ending.cause is EndCause.UNREACHABLE


async def test_a_redirect_to_somebody_else_is_for_the_call_to_decide() -> None:
    """STANDARDS 3.11: forwarding targets are authorised anew, as a call of their own."""
    lab = await CallLab.open()
    phone = await lab.phone()
    phone.contact = "<sip:+19005550100@toll.test>"
    leg, heard = lab.leg_to("ana@corp.test")
    leg.invite(OFFER)
    lab.pass_time()
    phone.answer(phone.asked("INVITE")[0], 302)
    assert len(phone.asked("INVITE")) == 1
    assert heard.ending.alternative == "sip:+19005550100@toll.test"


async def test_the_next_neighbour_is_tried_when_the_first_is_overloaded() -> None:
    lab = await CallLab.open()
    first = lab.pbx()
    second = Phone(lab, "pat@pbx.test", "198.51.100.6", "udp", first.network.weather)
    leg, heard = lab.leg_to("pat@pbx.test")
    leg.invite(OFFER)
    lab.pass_time()
    first.answer(first.asked("INVITE")[0], 503)
    (invite,) = second.asked("INVITE")
    second.answer(invite, 200, ANSWER)
    assert heard.kinds == ["LegAccepted"]
    assert lab.calls.delivery.targets(leg.party)[0].ways[0].key.endswith("198.51.100.6:5060"), "the other one rests"


async def test_a_browser_is_asked_for_webrtc_and_a_device_on_tls_for_encryption_first() -> None:
    lab = await CallLab.open()
    await lab.phone(transport="ws")
    await lab.phone("bea@corp.test", "192.0.2.30", "tls")
    assert lab.leg_to("ana@corp.test")[0].form is MediaForm.WEBRTC
    assert lab.leg_to("bea@corp.test")[0].form is MediaForm.SDES


async def test_a_device_whose_connection_is_gone_is_unreachable_without_waiting() -> None:
    lab = await CallLab.open()
    phone = await lab.phone(transport="tcp")
    lab.endpoint.close(phone.flow)
    leg, heard = lab.leg_to("ana@corp.test")
    leg.invite(OFFER)
    lab.pass_time()
    await settle()
    assert heard.ending.cause is EndCause.UNREACHABLE


async def test_an_answer_without_contact_comes_from_where_the_invite_went() -> None:
    """Peers of RFC 2543, and those whose Contact nobody can read."""
    _, phone, leg, heard, invite = await inviting()
    phone.answer(invite, 200, ANSWER, headers=[("Contact", "<sip:")])
    assert [str(ack.uri) for ack in phone.acks] == ["sip:ana@192.0.2.20:5060"]
    assert heard.events == [LegAccepted(ANSWER, leg.device)]


async def test_an_answer_whose_way_cannot_be_read_leaves_nobody_waiting() -> None:
    _, phone, _, heard, invite = await inviting()
    phone.answer(invite, 200, ANSWER, headers=[("Record-Route", "<sip:")])
    assert heard.ending.cause is EndCause.UNREACHABLE


async def test_cancel_before_the_invite_sends_nothing() -> None:
    lab = await CallLab.open()
    phone = await lab.phone()
    leg, heard = lab.leg_to("ana@corp.test")
    leg.cancel(Ending(EndCause.CANCELLED))
    leg.invite(OFFER)
    lab.pass_time(1)
    assert not phone.asked("INVITE")
    assert heard.kinds == ["LegEnded"]
