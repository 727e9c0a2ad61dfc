"""An established call with one SIP device: offers both ways, glare, timers, transfers, and what else comes."""

from __future__ import annotations

import pytest

from isthmus.interworking.session_bodies import session_in
from isthmus.model import Address, EndCause, Ending
from isthmus.ports import Flow, NextHop
from isthmus.sdp.session_description import SessionDescription
from isthmus.sdp.trickle import fragment_to_text
from isthmus.services.calls.leg import (
    LegAnswered,
    LegCandidates,
    LegDigit,
    LegOffered,
    LegOfferRefused,
    LegTransferRequested,
)
from isthmus.services.calls.sip.leg_callee import SipCalleeLeg
from isthmus.services.calls.sip.path import DialogPath
from isthmus.sip.client_transaction import ClientTransaction
from isthmus.sip.dialog import Dialog
from isthmus.trace import TraceLine
from tests.support.call_lab import SDP_TYPE, CallLab, Heard, Phone, audio
from tests.support.memory_network import Weather

FIRST, SECOND, THIRD, FOURTH = audio(port=4000), audio(port=5000), audio(2, port=6000), audio(2, port=7000)
HELD = audio(2, port=4000, extra="a=sendonly\r\n")


class Talk:
    """ben talks to ana's phone."""

    def __init__(self, lab: CallLab, phone: Phone, leg: SipCalleeLeg, heard: Heard) -> None:
        self.lab = lab
        self.phone = phone
        self.leg = leg
        self.heard = heard
        self.dialog = phone.dialog(phone.asked("INVITE")[0])

    @classmethod
    async def begin(cls, *headers: tuple[str, str], transport: str = "udp") -> Talk:
        """Set the call up; `headers` stand in the phone's 200."""
        lab = await CallLab.open()
        phone = await lab.phone(transport=transport)
        leg, heard = lab.leg_to("ana@corp.test")
        leg.invite(FIRST)
        lab.pass_time()
        phone.answer(phone.asked("INVITE")[0], 200, SECOND, headers=headers)
        assert heard.kinds == ["LegAccepted"]
        heard.events.clear()
        return cls(lab, phone, leg, heard)

    def offer(self, offer: SessionDescription | None, method: str = "INVITE") -> ClientTransaction:
        """The phone offers."""
        body = offer.to_bytes() if offer is not None else b""
        headers = [("Contact", self.phone.contact)]
        return self.phone.send(self.dialog.make_request(method, headers, body, SDP_TYPE if body else ""))

    def ack(self, invite: ClientTransaction, answer: SessionDescription | None = None) -> None:
        """The phone acknowledges the 200 to its re-INVITE."""
        body = answer.to_bytes() if answer is not None else b""
        self.phone.send_ack(self.dialog.make_ack(invite.request.cseq.number, body=body))

    def send(self, method: str, *headers: tuple[str, str], body: bytes = b"", content_type: str = "") -> list[int]:
        """The phone sends a request within the call; returns how it was answered."""
        return self.phone.statuses_of(self.phone.send(self.dialog.make_request(method, headers, body, content_type)))


# --- our offers ---


async def test_an_offer_of_ours_is_a_reinvite() -> None:
    talk = await Talk.begin()
    talk.leg.offer(THIRD)
    talk.lab.pass_time()
    invite = talk.phone.asked("INVITE")[1]
    assert session_in(invite.request) == THIRD
    talk.phone.answer(invite, 200, FOURTH)
    assert talk.heard.events == [LegAnswered(FOURTH)]
    assert len(talk.phone.acks) == 2


async def test_offers_are_made_one_after_the_other() -> None:
    talk = await Talk.begin()
    talk.leg.offer(THIRD)
    talk.leg.offer(HELD)
    talk.lab.pass_time()
    assert len(talk.phone.asked("INVITE")) == 2
    talk.phone.answer(talk.phone.asked("INVITE")[1], 200, FOURTH)
    assert session_in(talk.phone.asked("INVITE")[2].request) == HELD


async def test_a_refused_offer_leaves_the_call_as_it_is() -> None:
    talk = await Talk.begin()
    talk.leg.offer(THIRD)
    talk.lab.pass_time()
    talk.phone.answer(talk.phone.asked("INVITE")[1], 488, headers=[("Warning", '305 phone "No video here"')])
    (refused,) = talk.heard.events
    assert isinstance(refused, LegOfferRefused)
    assert (refused.ending.cause, refused.ending.text) == (EndCause.MEDIA_MISMATCH, "No video here")
    assert not talk.heard.is_over


@pytest.mark.parametrize(("status", "byes"), [(481, 0), (408, 1)])
async def test_an_offer_that_finds_no_dialog_ends_the_call(status: int, byes: int) -> None:
    talk = await Talk.begin()
    talk.leg.offer(THIRD)
    talk.lab.pass_time()
    talk.phone.answer(talk.phone.asked("INVITE")[1], status)
    assert talk.heard.kinds == ["LegOfferRefused", "LegEnded"]
    assert len(talk.phone.asked("BYE")) == byes


@pytest.mark.parametrize(("chance", "soonest", "latest"), [(0.0, 2.1, 2.2), (0.999, 3.9, 4.1)])
async def test_after_a_glare_the_owner_of_the_call_id_comes_back_in_two_to_four_seconds(
    chance: float, soonest: float, latest: float
) -> None:
    talk = await Talk.begin()
    talk.lab.chance = chance
    talk.leg.offer(THIRD)
    talk.lab.pass_time()
    talk.phone.answer(talk.phone.asked("INVITE")[1], 491)
    talk.lab.pass_time(soonest - 0.1)
    assert len(talk.phone.asked("INVITE")) == 2
    talk.lab.pass_time(latest - soonest + 0.1)
    talk.phone.answer(talk.phone.asked("INVITE")[2], 200, FOURTH)
    assert talk.heard.events == [LegAnswered(FOURTH)]


async def test_after_a_glare_who_does_not_own_the_call_id_comes_back_sooner() -> None:
    lab = await CallLab.open()
    phone = lab.pbx()
    invite = phone.invite("ben@people.test", FIRST)
    call, heard = lab.take_call()
    call.leg.accept(SECOND)
    lab.pass_time()
    phone.confirm(invite)
    lab.chance = 0.5
    call.leg.offer(THIRD)
    lab.pass_time()
    phone.answer(phone.asked("INVITE")[0], 491)
    lab.pass_time(1.1)
    phone.answer(phone.asked("INVITE")[1], 200, FOURTH)
    assert heard.kinds == ["LegConfirmed", "LegAnswered"]


async def test_a_peer_that_is_busy_says_when_to_come_back() -> None:
    talk = await Talk.begin()
    talk.leg.offer(THIRD)
    talk.lab.pass_time()
    talk.phone.answer(talk.phone.asked("INVITE")[1], 500, headers=[("Retry-After", "3")])
    talk.lab.pass_time(4)
    talk.phone.answer(talk.phone.asked("INVITE")[2], 200, FOURTH)
    assert talk.heard.events == [LegAnswered(FOURTH)]


# --- their offers ---


async def test_an_offer_of_the_device_is_answered_by_the_call() -> None:
    talk = await Talk.begin()
    invite = talk.offer(HELD)
    assert talk.heard.events == [LegOffered(HELD)]
    talk.leg.answer(FOURTH)
    talk.lab.pass_time()
    assert session_in(talk.phone.responses_to(invite)[-1]) == FOURTH
    talk.ack(invite)
    talk.lab.pass_time(40)
    assert talk.phone.statuses_of(invite) == [200]


async def test_an_offer_that_the_call_refuses_is_488_with_the_reason() -> None:
    talk = await Talk.begin()
    invite = talk.offer(HELD)
    talk.leg.refuse_offer(Ending(EndCause.FORBIDDEN, "Video is not permitted"))
    talk.lab.pass_time()
    response = talk.phone.responses_to(invite)[-1]
    assert response.status == 403
    assert "Video is not permitted" in (response.headers.get("Warning") or "")


async def test_an_offer_that_meets_one_of_the_other_end_is_491() -> None:
    talk = await Talk.begin()
    invite = talk.offer(HELD)
    talk.leg.refuse_offer(Ending(EndCause.FAILED, "The other side has just made an offer.", status=491))
    talk.lab.pass_time()
    assert talk.phone.statuses_of(invite) == [491]


async def test_what_is_offered_while_our_offer_is_open_is_491() -> None:
    talk = await Talk.begin()
    talk.leg.offer(THIRD)
    talk.lab.pass_time()
    assert talk.phone.statuses_of(talk.offer(HELD)) == [491]
    assert not talk.heard.events


async def test_a_second_offer_before_the_first_is_answered_is_500_with_a_time() -> None:
    talk = await Talk.begin()
    talk.offer(HELD)
    second = talk.offer(THIRD)
    assert talk.phone.statuses_of(second) == [500]
    assert talk.phone.responses_to(second)[-1].headers.get("retry-after") == "5"


async def test_a_call_that_waits_for_the_acknowledgement_takes_no_other_offer() -> None:
    talk = await Talk.begin()
    invite = talk.offer(HELD)
    talk.leg.answer(FOURTH)
    talk.lab.pass_time()
    assert talk.phone.statuses_of(talk.offer(THIRD)) == [491]
    talk.leg.offer(SECOND)
    talk.lab.pass_time()
    assert len(talk.phone.asked("INVITE")) == 1, "ours waits as well"
    talk.ack(invite)
    talk.lab.pass_time()
    assert session_in(talk.phone.asked("INVITE")[1].request) == SECOND


async def test_the_ack_of_an_earlier_invite_is_not_the_one_that_is_waited_for() -> None:
    talk = await Talk.begin()
    first = talk.offer(HELD)
    talk.leg.answer(FOURTH)
    talk.lab.pass_time()
    talk.ack(first)
    second = talk.offer(THIRD)
    talk.leg.answer(SECOND)
    talk.lab.pass_time()
    talk.ack(first)
    talk.lab.pass_time(2)
    assert talk.phone.statuses_of(second) == [200, 200, 200]


async def test_the_same_media_again_are_a_refresh_that_nobody_needs_to_hear_of() -> None:
    talk = await Talk.begin()
    invite = talk.offer(SECOND)
    assert talk.phone.statuses_of(invite) == [200]
    assert session_in(talk.phone.responses_to(invite)[-1]) == FIRST
    assert not talk.heard.events


async def test_a_reinvite_without_offer_gets_ours_and_answers_in_its_ack() -> None:
    """What PBXs send to take somebody off hold."""
    talk = await Talk.begin()
    invite = talk.offer(None)
    assert talk.heard.events == [LegOffered(None)]
    talk.leg.answer(THIRD)
    talk.lab.pass_time()
    assert session_in(talk.phone.responses_to(invite)[-1]) == THIRD
    talk.ack(invite, FOURTH)
    assert talk.heard.events[-1] == LegAnswered(FOURTH)


async def test_a_cancelled_reinvite_is_487_and_the_call_goes_on() -> None:
    talk = await Talk.begin()
    invite = talk.offer(HELD)
    talk.lab.pass_time(0.3)
    talk.phone.cancel(invite)
    talk.lab.pass_time()
    assert talk.phone.statuses_of(invite) == [487]
    talk.leg.answer(FOURTH)
    talk.leg.offer(THIRD)
    talk.lab.pass_time()
    assert len(talk.phone.asked("INVITE")) == 2


async def test_an_update_with_an_offer_is_answered_like_a_reinvite_but_at_once() -> None:
    talk = await Talk.begin()
    update = talk.offer(HELD, "UPDATE")
    talk.leg.answer(FOURTH)
    talk.lab.pass_time()
    assert session_in(talk.phone.responses_to(update)[-1]) == FOURTH
    slow = talk.offer(THIRD, "UPDATE")
    talk.lab.pass_time(21)
    assert talk.phone.statuses_of(slow) == [504], "RFC 3311 section 5.2"


async def test_a_body_that_is_no_offer_is_refused_by_what_is_wrong_with_it() -> None:
    talk = await Talk.begin()
    assert talk.send("INVITE", body=b"hello", content_type="text/plain") == [415]
    assert talk.send("INVITE", body=b"v=1", content_type=SDP_TYPE) == [488]
    assert talk.send("INVITE", ("Accept", "text/plain")) == [406]


async def test_a_bye_answers_the_reinvite_that_is_open_too() -> None:
    talk = await Talk.begin()
    invite = talk.offer(HELD)
    assert talk.send("BYE") == [200]
    assert talk.phone.statuses_of(invite) == [487]
    assert talk.heard.kinds == ["LegOffered", "LegEnded"]
    assert talk.send("INFO") == [481]


# --- session timers (RFC 4028) ---


async def test_the_refresher_refreshes_at_half_time_with_an_update_where_the_device_takes_one() -> None:
    timer = ("Session-Expires", "200;refresher=uac"), ("Require", "timer"), ("Allow", "INVITE, UPDATE, BYE")
    talk = await Talk.begin(*timer)
    talk.lab.pass_time(100)
    (update,) = talk.phone.asked("UPDATE")
    assert update.request.headers.get("session-expires") == "200;refresher=uac"
    assert not update.request.body
    talk.phone.answer(update, 200, headers=timer)
    talk.lab.pass_time(100)
    assert len(talk.phone.asked("UPDATE")) == 2


async def test_a_device_without_update_is_refreshed_with_unchanged_media() -> None:
    talk = await Talk.begin(("Session-Expires", "200;refresher=uac"))
    talk.lab.pass_time(100)
    refresh = talk.phone.asked("INVITE")[1]
    assert session_in(refresh.request) == FIRST
    talk.phone.answer(refresh, 200, SECOND, headers=[("Session-Expires", "200;refresher=uac")])
    assert not talk.heard.events
    assert len(talk.phone.acks) == 2


async def test_a_device_that_does_not_refresh_is_given_up_before_the_end() -> None:
    talk = await Talk.begin(("Session-Expires", "300;refresher=uas"))
    traced: list[TraceLine] = []
    talk.lab.house.trace.listen(traced.append)
    talk.lab.pass_time(267)
    assert not talk.heard.events
    talk.lab.pass_time(2)
    assert talk.heard.ending.cause is EndCause.EXPIRED
    assert "ana@corp.test: nothing was heard of the device within the session interval" in [
        line.text for line in traced
    ]
    assert len(talk.phone.asked("BYE")) == 1


async def test_a_refresh_of_the_device_moves_the_end() -> None:
    talk = await Talk.begin(("Session-Expires", "300;refresher=uas"))
    talk.lab.pass_time(150)
    headers = ("Session-Expires", "300;refresher=uac"), ("Supported", "timer")
    assert talk.send("UPDATE", *headers) == [200]
    talk.lab.pass_time(200)
    assert not talk.heard.events


async def test_too_short_an_interval_is_422() -> None:
    talk = await Talk.begin()
    assert talk.send("UPDATE", ("Session-Expires", "60"), ("Supported", "timer")) == [422]


async def test_a_device_without_session_timers_is_looked_after_all_the_same() -> None:
    talk = await Talk.begin()
    talk.lab.pass_time(900.5)
    refresh = talk.phone.asked("INVITE")[1]
    talk.phone.answer(refresh, 481)
    assert talk.heard.ending.cause is EndCause.CONNECTIVITY


# --- INFO, OPTIONS, MESSAGE and others ---


async def test_digits_go_both_ways_as_info() -> None:
    talk = await Talk.begin()
    body = b"Signal=5\r\nDuration=250\r\n"
    assert talk.send("INFO", body=body, content_type="application/dtmf-relay") == [200]
    assert talk.send("INFO", body=b"#", content_type="application/dtmf") == [200]
    assert talk.heard.events == [LegDigit("5", 250), LegDigit("#", 160)]
    talk.leg.send_digit("9", 100)
    talk.lab.pass_time()
    (info,) = talk.phone.asked("INFO")
    assert info.request.body == b"Signal=9\r\nDuration=100\r\n"


async def test_candidates_go_both_ways_as_info() -> None:
    talk = await Talk.begin(("Supported", "trickle-ice"))
    fragment = SessionDescription.parse(
        "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
        "a=ice-ufrag:x\r\na=ice-pwd:y\r\na=candidate:1 1 UDP 1 192.0.2.9 4444 typ host\r\n"
    )
    headers = (("Info-Package", "trickle-ice"), ("Content-Disposition", "Info-Package"))
    kind = "application/trickle-ice-sdpfrag"
    assert talk.send("INFO", *headers, body=fragment_to_text(fragment).encode(), content_type=kind) == [200]
    (heard,) = talk.heard.events
    assert isinstance(heard, LegCandidates)
    assert heard.fragment.media == fragment.media
    talk.leg.add_candidates(fragment)
    talk.lab.pass_time()
    (info,) = talk.phone.asked("INFO")
    assert info.request.headers.get("info-package") == "trickle-ice"
    assert info.request.body == fragment_to_text(fragment).encode()


@pytest.mark.parametrize(
    ("headers", "body", "content_type", "status"),
    [
        ((), b"", "", 200),
        ((), b"<KeyboardActivity/>", "application/vnd.microsoft.ocskeyboard+xml", 200),
        ((), b"x", "application/media_control+xml", 415),
        ((("Info-Package", "weather"),), b"", "", 469),
        ((), b"Signal=?", "application/dtmf-relay", 400),
    ],
)
async def test_other_infos_get_the_answer_that_is_due(
    headers: tuple[tuple[str, str], ...], body: bytes, content_type: str, status: int
) -> None:
    talk = await Talk.begin()
    assert talk.send("INFO", *headers, body=body, content_type=content_type) == [status]
    assert not talk.heard.events


async def test_what_else_comes_within_a_call() -> None:
    talk = await Talk.begin()
    assert talk.send("OPTIONS") == [200]
    assert talk.send("NOTIFY", ("Event", "refer"), ("Subscription-State", "active")) == [481]
    assert talk.send("PRACK", ("RAck", "1 1 INVITE")) == [481]
    assert talk.send("FROBNICATE") == [405]
    assert talk.send("INFO", ("Require", "unknown")) == [420]
    stale = Dialog.from_record({**talk.dialog.to_record(), "local_cseq": 0})
    assert talk.phone.statuses_of(talk.phone.send(stale.make_request("INFO"))) == [500], "out of order"


async def test_candidates_that_come_before_the_answer_wait_for_it() -> None:
    """RFC 8840 section 4.3: an INFO needs a dialog that both ends know."""
    fragment = SessionDescription.parse(
        "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    )
    lab = await CallLab.open()
    pbx, phone = lab.pbx(), await lab.phone()
    invite = pbx.invite("ben@people.test", FIRST, headers=[("Supported", "trickle-ice")])
    call, _ = lab.take_call()
    leg, _ = lab.leg_to("ana@corp.test")
    leg.invite(FIRST)
    for each in (call.leg, leg):
        each.add_candidates(fragment)
    call.leg.accept(SECOND)
    lab.pass_time()
    assert not pbx.asked("INFO")
    pbx.confirm(invite)
    phone.answer(phone.asked("INVITE")[0], 200, SECOND, headers=[("Supported", "trickle-ice")])
    assert [len(each.asked("INFO")) for each in (pbx, phone)] == [1, 1]


async def test_candidates_of_a_device_that_still_rings_are_told_when_it_answers() -> None:
    lab = await CallLab.open()
    phone = await lab.phone()
    leg, heard = lab.leg_to("ana@corp.test")
    leg.invite(FIRST)
    lab.pass_time()
    invite = phone.asked("INVITE")[0]
    phone.answer(invite, 180)
    info = phone.dialog(invite).make_request(
        "INFO",
        [("Info-Package", "trickle-ice")],
        b"m=audio 9 RTP/AVP 0\r\na=mid:0\r\n",
        "application/trickle-ice-sdpfrag",
    )
    phone.send(info)
    assert heard.kinds == ["LegRinging"]
    phone.answer(invite, 200, SECOND)
    assert heard.kinds == ["LegRinging", "LegAccepted", "LegCandidates"]


async def test_a_device_that_refuses_its_own_method_is_refreshed_with_the_other_one() -> None:
    talk = await Talk.begin(("Session-Expires", "200;refresher=uac"), ("Allow", "INVITE, UPDATE"))
    talk.lab.pass_time(100)
    talk.phone.answer(talk.phone.asked("UPDATE")[0], 501)
    assert len(talk.phone.asked("INVITE")) == 2
    assert not talk.heard.is_over


# --- transfers ---


async def test_a_transfer_is_taken_and_what_becomes_of_it_is_told() -> None:
    talk = await Talk.begin()
    assert talk.send("REFER", ("Refer-To", "<sip:bea@corp.test>")) == [202]
    (event,) = talk.heard.events
    assert isinstance(event, LegTransferRequested)
    assert (event.target, event.replaces) == (Address("bea", "corp.test"), None)
    event.progress(180, None)
    event.progress(180, None)
    event.progress(0, Ending(EndCause.BUSY))
    event.progress(200, None)
    talk.lab.pass_time()
    notifies = [notify.request for notify in talk.phone.asked("NOTIFY")]
    assert [notify.body for notify in notifies] == [
        b"SIP/2.0 100 Trying\r\n",
        b"SIP/2.0 180 Ringing\r\n",
        b"SIP/2.0 486 Busy Here\r\n",
    ]
    assert [(notify.headers.get("subscription-state") or "").partition(";")[0] for notify in notifies] == [
        "active",
        "active",
        "terminated",
    ]


async def test_a_second_transfer_is_told_apart_by_its_id() -> None:
    talk = await Talk.begin()
    talk.send("REFER", ("Refer-To", "<sip:bea@corp.test>"))
    talk.send("REFER", ("Refer-To", "<sip:bea@corp.test>"))
    events = [notify.request.headers.get("event") for notify in talk.phone.asked("NOTIFY")]
    assert events == ["refer", f"refer;id={talk.dialog.local_cseq}"]


async def test_an_attended_transfer_names_the_dialog_it_replaces_and_may_do_without_notify() -> None:
    talk = await Talk.begin()
    target = "<sip:ben@people.test?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>"
    assert talk.send("REFER", ("Refer-To", target), ("Refer-Sub", "false")) == [200]
    (event,) = talk.heard.events
    assert isinstance(event, LegTransferRequested)
    assert event.replaces == ("a@b", "1", "2")
    event.progress(200, None)
    talk.lab.pass_time()
    assert not talk.phone.asked("NOTIFY")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 400),
        ((("Refer-To", "<sip:bea@corp.test;method=BYE>"),), 501),
        ((("Refer-To", "<http://corp.test/>"),), 404),
    ],
)
async def test_a_refer_that_means_nothing_to_us_is_refused(headers: tuple[tuple[str, str], ...], status: int) -> None:
    talk = await Talk.begin()
    assert talk.send("REFER", *headers) == [status]


# --- the way to the device ---


async def test_a_device_that_registers_anew_keeps_its_call() -> None:
    """Edge cases of STANDARDS 3.4: in-dialog requests go to the flow that works."""
    talk = await Talk.begin(transport="tcp")
    other = Phone(talk.lab, "ana@corp.test", "192.0.2.21", "tcp", talk.phone.network.weather)
    await talk.lab.house.register(user="ana@corp.test", contact=talk.phone.contact, flow=other.flow, call_id="again")
    talk.lab.endpoint.close(talk.phone.flow)
    talk.lab.door.flow_closed(talk.phone.flow)
    assert not talk.heard.events
    talk.leg.offer(THIRD)
    talk.lab.pass_time()
    other.answer(other.asked("INVITE")[0], 200, FOURTH)
    assert talk.heard.events == [LegAnswered(FOURTH)]


async def test_a_neighbour_behind_tls_may_prove_its_own_name_wherever_its_contact_leads() -> None:
    lab = await CallLab.open()
    path = DialogPath(lab.calls, Address("pat", "pbx.test"), flow=None, is_hosted=False, tls_names=("pbx.test",))
    talk = await Talk.begin()
    assert path.next_hop(talk.dialog) == NextHop(tls_names=("pbx.test",))
    proven = Flow("tls", "198.51.100.5", 5061, connection=3, peer_names=("edge.pbx.test",))
    lab.endpoint.close(proven)
    path = DialogPath(lab.calls, Address("pat", "pbx.test"), flow=proven, is_hosted=False)
    routed = Dialog.from_record({**talk.dialog.to_record(), "route_set": ["<sip:198.51.100.9;lr>"]})
    assert path.next_hop(routed) == NextHop(tls_names=("edge.pbx.test",))


async def test_a_device_that_moves_to_another_address_is_found_there() -> None:
    """Over UDP no connection breaks: only its new registration tells where it is."""
    lab = await CallLab.open()
    before = Phone(lab, "ana@corp.test", "192.0.2.20", "udp", Weather())
    contact = f'{before.contact};+sip.instance="<urn:uuid:7>"'
    await lab.house.register(contact=contact, flow=before.flow)
    leg, heard = lab.leg_to("ana@corp.test")
    leg.invite(FIRST)
    lab.pass_time()
    before.answer(before.asked("INVITE")[0], 200, SECOND)
    after = Phone(lab, "ana@corp.test", "192.0.2.21", "udp", Weather())
    moved = f'{after.contact};+sip.instance="<urn:uuid:7>"'
    await lab.house.register(contact=moved, flow=after.flow)
    await lab.house.register(contact=f"{contact};expires=0", flow=before.flow)
    leg.offer(THIRD)
    lab.pass_time()
    assert len(after.asked("INVITE")) == 1
    assert heard.kinds == ["LegAccepted"]


async def test_a_caller_whose_connection_breaks_before_the_answer_has_given_up() -> None:
    lab = await CallLab.open()
    phone = lab.pbx()
    phone.invite("ben@people.test", FIRST)
    _, heard = lab.take_call()
    lab.door.flow_closed(phone.flow)
    assert heard.ending.cause is EndCause.CANCELLED


async def test_what_a_crash_leaves_behind_is_a_dialog_whose_next_number_was_not_used_yet() -> None:
    talk = await Talk.begin()
    record = talk.leg.to_record()
    assert record is not None
    talk.leg.offer(THIRD)
    talk.lab.pass_time()
    used = talk.phone.asked("INVITE")[-1].request.cseq.number
    bye = Dialog.from_record(record["dialog"]).make_request("BYE")
    assert bye.cseq.number > used
    assert (record["party"], bye.to_address.tag) == ("ana@corp.test", "phone")
