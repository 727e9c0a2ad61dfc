"""The entrance of calls from SIP: who may call, whom, and who may act within a call (RFC 3261 section 8.2, 12.2.2)."""

from __future__ import annotations

import pytest

from isthmus.model import Address, EndCause, Ending
from isthmus.services.calls.leg import IncomingCall, LegConfirmed
from isthmus.services.calls.ringing import Invitation
from isthmus.services.calls.sip.ringer import SipRinger
from isthmus.sip.client_transaction import ClientTransaction
from isthmus.sip.dialog import Dialog
from isthmus.sip.digest import answer_challenge
from isthmus.sip.message import SipRequest
from tests.support.call_lab import CallLab, Heard, Phone, audio
from tests.support.memory_network import Weather

OFFER, ANSWER = audio(port=4000), audio(port=5000)


def authenticated(phone: Phone, transaction: ClientTransaction) -> SipRequest:
    """The request again, with the password."""
    again = answer_challenge(
        transaction.request,
        phone.responses_to(transaction)[-1],
        username=phone.uri.user,
        password=f"{phone.uri.user}'s password",
        cnonce="c0ffee",
    )
    assert again is not None
    again.headers.remove("via")
    return again


async def hosted_call() -> tuple[CallLab, Phone, ClientTransaction]:
    """ana, a hosted user, calls ben, after she has shown her password."""
    lab = await CallLab.open()
    phone = await lab.phone()
    first = phone.invite("ben@people.test", OFFER)
    assert phone.statuses_of(first) == [401]
    return lab, phone, phone.send(authenticated(phone, first))


def established(lab: CallLab, phone: Phone, invite: ClientTransaction) -> tuple[IncomingCall, Heard, Dialog]:
    """The call that came last is answered and acknowledged."""
    call, heard = lab.take_call()
    call.leg.accept(ANSWER)
    lab.pass_time()
    return call, heard, phone.confirm(invite)


async def test_a_hosted_user_shows_a_password_and_then_calls() -> None:
    lab, _, _ = await hosted_call()
    call, _ = lab.take_call()
    assert (call.caller, call.callee) == (Address("ana", "corp.test"), Address("ben", "people.test"))
    assert call.leg.device, "her phone is one that is registered"


async def test_what_an_invite_says_of_loops_breadth_and_replacement_is_told() -> None:
    lab = await CallLab.open()
    headers = [
        ("Max-Breadth", "7"),
        lab.house.loops.header(2),
        ("Replaces", "x@y;to-tag=1;from-tag=2;early-only"),
        ("Require", "replaces"),
    ]
    lab.pbx().invite("ben@people.test", OFFER, headers=headers)
    (call,) = lab.incoming
    assert (call.breadth, call.hops, call.max_forwards) == (7, 2, 70)
    assert Invitation.of(call).max_forwards == 69
    assert (call.replaces, call.is_replacing_early_only) == (("x@y", "1", "2"), True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Replaces", "x@y;to-tag=1")], 400),
        ([("Replaces", "x@y;to-tag=1;from-tag=2"), ("Join", "x@y;to-tag=1;from-tag=2")], 400),
        ([("Session-Expires", "30"), ("Supported", "timer")], 422),
        ([("Content-Disposition", "render")], 415),
        ([("Max-Breadth", "x")], 0),
    ],
)
async def test_an_invite_that_cannot_be_understood_is_refused(headers: list[tuple[str, str]], status: int) -> None:
    lab = await CallLab.open()
    phone = lab.pbx()
    invite = phone.invite("ben@people.test", OFFER, headers=headers)
    assert phone.statuses_of(invite) == ([status] if status else [])
    assert len(lab.incoming) == (not status)


async def test_a_gruu_names_the_device_that_is_to_ring() -> None:
    """RFC 5627 section 5.1: that one or none."""
    lab = await CallLab.open()
    ana = Phone(lab, "ana@corp.test", "192.0.2.20", "udp", Weather())
    await lab.house.register(contact=f'{ana.contact};+sip.instance="<urn:uuid:2>"', flow=ana.flow)
    pbx = lab.pbx()
    pbx.invite("ana@corp.test;gr=urn:uuid:2", OFFER)
    call = lab.incoming[-1]
    assert call.callee_device == "urn:uuid:2"
    ringer = SipRinger(lab.calls, lab.house.directory, lab.house.directory.display_name)
    (ring,) = ringer.devices(Invitation.of(call))
    assert ring.make(ring.forms[0]).device == "urn:uuid:2"
    assert not ringer.devices(Invitation(call.caller, call.callee, OFFER, "urn:uuid:3"))
    away = pbx.invite("ana@corp.test;gr=urn:uuid:3", OFFER)
    assert pbx.statuses_of(away) == [480]


async def test_breadth_is_shared_among_the_devices_that_ring() -> None:
    lab = await CallLab.open()
    phones = [await lab.phone(host=f"192.0.2.{number}") for number in (20, 21, 22)]
    ringer = SipRinger(lab.calls, lab.house.directory, lambda address: "Ben Beispiel")
    ana, ben = Address("ana", "corp.test"), Address("ben", "people.test")
    assert len(ringer.devices(Invitation(ben, ana, OFFER, breadth=2))) == 2
    for ring in ringer.devices(Invitation(ben, ana, OFFER, hops=1, breadth=7)):
        ring.make(ring.forms[0]).invite(OFFER)
    lab.pass_time()
    invites = [phone.asked("INVITE")[0].request for phone in phones]
    assert sorted(invite.headers.get("max-breadth") or "" for invite in invites) == ["2", "2", "3"]
    assert {invite.from_address.display_name for invite in invites} == {"Ben Beispiel"}
    assert {lab.house.loops.hops(invite) for invite in invites} == {2}


async def test_within_a_call_nobody_is_asked_for_a_password_again_where_it_came_from() -> None:
    lab, phone, invite = await hosted_call()
    _, heard, dialog = established(lab, phone, invite)
    assert heard.events == [LegConfirmed()]
    assert phone.statuses_of(phone.send(dialog.make_request("OPTIONS"))) == [200]


async def test_from_somewhere_else_a_request_within_a_call_must_be_proven() -> None:
    lab, phone, invite = await hosted_call()
    _, heard, dialog = established(lab, phone, invite)
    elsewhere = Phone(lab, "ana@corp.test", "203.0.113.9", "udp", Weather())
    bye = elsewhere.send(dialog.make_request("BYE"))
    assert elsewhere.statuses_of(bye) == [401]
    assert not heard.is_over
    elsewhere.send(authenticated(elsewhere, bye))
    assert heard.ending.cause is EndCause.HUNG_UP


async def test_another_user_cannot_end_a_call_whose_tags_he_knows() -> None:
    lab, phone, invite = await hosted_call()
    _, heard, dialog = established(lab, phone, invite)
    bea = Phone(lab, "bea@corp.test", "203.0.113.9", "udp", Weather())
    record = dialog.to_record()
    forged = Dialog.from_record({**record, "local": record["local"].replace("ana@", "bea@")})
    bye = bea.send(forged.make_request("BYE"))
    again = bea.send(authenticated(bea, bye))
    assert bea.statuses_of(again) == [403]
    assert not heard.is_over


async def test_a_neighbour_may_act_from_any_of_its_addresses() -> None:
    lab = await CallLab.open()
    phone = lab.pbx()
    invite = phone.invite("ben@people.test", OFFER)
    _, heard, dialog = established(lab, phone, invite)
    other = Phone(lab, "pat@pbx.test", "198.51.100.6", "udp", Weather())
    assert other.statuses_of(other.send(dialog.make_request("BYE"))) == [200]
    assert heard.is_over


async def test_the_leg_that_a_replaces_names_is_found_in_the_words_of_who_names_it() -> None:
    """The classic mistake of B2BUAs is to look for the other leg's dialog (STANDARDS 1.7.6)."""
    lab = await CallLab.open()
    phone = lab.pbx()
    invite = phone.invite("ben@people.test", OFFER)
    call, _, dialog = established(lab, phone, invite)
    assert lab.door.leg_named((dialog.call_id, dialog.remote_tag, dialog.local_tag)) is call.leg
    assert lab.door.leg_named((dialog.call_id, dialog.local_tag, dialog.remote_tag)) is None
    call.leg.hang_up(Ending(EndCause.HUNG_UP))
    lab.pass_time()
    phone.answer(phone.asked("BYE")[0], 200)
    assert lab.door.leg_named((dialog.call_id, dialog.remote_tag, dialog.local_tag)) is None


async def test_strangers_cannot_call() -> None:
    lab = await CallLab.open()
    stranger = Phone(lab, "eve@elsewhere.test", "203.0.113.66", "udp", Weather())
    assert stranger.statuses_of(stranger.invite("ana@corp.test", OFFER)) == [403]
    assert not lab.incoming


async def test_a_message_within_a_call_is_for_the_person_at_its_other_end() -> None:
    lab = await CallLab.open()
    phone = lab.pbx()
    invite = phone.invite("ben@people.test", OFFER)
    _, _, dialog = established(lab, phone, invite)
    said: list[tuple[str, str]] = []
    lab.door.messages_to(lambda incoming, identity, recipient: said.append((str(identity.address), str(recipient))))
    phone.send(dialog.make_request("MESSAGE", [], b"hello", "text/plain"))
    assert said == [("pat@pbx.test", "ben@people.test")]
