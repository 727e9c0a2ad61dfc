"""The registrar (STANDARDS 3.3 and 3.4): bindings, order, all or nothing, outbound, Path, GRUU, expiry, restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import AddressError, StoreError
from isthmus.model import Address
from isthmus.ports import Binding, Flow
from isthmus.services.events import BindingsChanged, UserRemoved
from isthmus.services.registrar_contacts import is_dialable
from isthmus.services.registrar_gruu import Gruus
from isthmus.sip.headers import NameAddr
from isthmus.sip.uri import SipUri
from tests.support.messaging_house import ANA, House
from tests.support.sip import TCP_PHONE, UDP_PHONE, MemoryIncomingRequest, fields, register_request
from tests.support.xmpp import settle

WEB = Flow("ws", "203.0.113.7", 51000, "192.0.2.1", 5066, connection=77)
OUTBOUND = [("Supported", "outbound, path, gruu")]


async def register(
    house: House, contact: str, flow: Flow = UDP_PHONE, *, user: str = "ana@corp.test", **options: object
) -> MemoryIncomingRequest:
    incoming = await house.sip(register_request(user, contact, **options), flow)  # type: ignore[arg-type]  # pass on
    await settle()
    return incoming


def contacts(incoming: MemoryIncomingRequest) -> list[NameAddr]:
    return [NameAddr.parse(value) for value in fields(incoming.response, "Contact")]


async def test_a_registration_is_confirmed_with_its_time() -> None:
    house = await House().open()
    incoming = await register(house, "<sip:ana@192.0.2.10:5060>", expires=600)
    assert incoming.status == 200
    (contact,) = contacts(incoming)
    assert (str(contact.uri), contact.param("expires")) == ("sip:ana@192.0.2.10:5060", "600")


async def test_the_answer_lists_all_bindings_with_their_remaining_time() -> None:
    house = await House().open()
    await register(house, "<sip:ana@192.0.2.10:5060>;q=0.5", expires=600)
    house.clock.advance(100)
    incoming = await register(house, "<sip:ana@192.0.2.11:5060>", call_id="other", expires=300)
    assert {(str(c.uri), c.param("expires"), c.param("q")) for c in contacts(incoming)} == {
        ("sip:ana@192.0.2.11:5060", "300", None),
        ("sip:ana@192.0.2.10:5060", "500", "0.5"),
    }


async def test_a_query_changes_nothing() -> None:
    house = await House().open()
    await register(house, "<sip:ana@192.0.2.10>")
    incoming = await register(house, "", cseq=2, expires=None)
    assert len(contacts(incoming)) == 1


async def test_star_with_expires_0_removes_everything() -> None:
    house = await House().open()
    await register(house, "<sip:ana@192.0.2.10>")
    await register(house, "<sip:ana@192.0.2.11>", call_id="other")
    incoming = await register(house, "*", cseq=9, expires=0)
    assert incoming.status == 200
    assert contacts(incoming) == []
    assert house.registrar.bindings(ANA) == ()


@pytest.mark.parametrize(("contact", "expires"), [("*", 60), ("*", None), ("*, <sip:ana@192.0.2.10>", 0)])
async def test_star_is_for_nothing_else(contact: str, expires: int | None) -> None:
    house = await House().open()
    assert (await register(house, contact, expires=expires)).status == 400


async def test_an_older_request_of_the_same_call_does_not_undo_a_newer_one() -> None:
    house = await House().open()
    await register(house, "<sip:ana@192.0.2.10>", cseq=5)
    incoming = await register(house, "<sip:ana@192.0.2.10>", cseq=3, expires=0)
    assert incoming.status == 500
    assert len(house.registrar.bindings(ANA)) == 1


async def test_another_call_id_replaces_without_looking_at_cseq() -> None:
    """A phone that was rebooted begins anew."""
    house = await House().open()
    await register(house, "<sip:ana@192.0.2.10>", cseq=50)
    assert (await register(house, "<sip:ana@192.0.2.10>", call_id="rebooted", cseq=1)).status == 200
    assert len(house.registrar.bindings(ANA)) == 1


async def test_one_stale_contact_spoils_the_whole_request() -> None:
    """All or nothing (RFC 3261 section 10.3 step 7)."""
    house = await House().open()
    await register(house, "<sip:ana@192.0.2.10>", cseq=5)
    incoming = await register(house, "<sip:ana@192.0.2.99>, <sip:ana@192.0.2.10>", cseq=4)
    assert incoming.status == 500
    assert [binding.contact for binding in house.registrar.bindings(ANA)] == ["sip:ana@192.0.2.10"]


async def test_what_the_store_does_not_keep_is_not_confirmed() -> None:
    house = await House().open()
    house.store.fault = StoreError("the disk is full")
    incoming = await register(house, "<sip:ana@192.0.2.10>")
    assert incoming.status == 500
    assert house.registrar.bindings(ANA) == ()


async def test_too_short_is_423_with_the_minimum() -> None:
    house = await House().open()
    incoming = await register(house, "<sip:ana@192.0.2.10>", expires=10)
    assert incoming.status == 423
    assert incoming.response.headers.get("Min-Expires") == "60"


async def test_too_long_is_shortened() -> None:
    house = await House().open()
    (contact,) = contacts(await register(house, "<sip:ana@192.0.2.10>", expires=999_999))
    assert contact.param("expires") == "7200"


async def test_an_unusable_expiry_counts_as_an_hour() -> None:
    house = await House().open()
    (contact,) = contacts(await register(house, "<sip:ana@192.0.2.10>;expires=soon", expires=None))
    assert contact.param("expires") == "3600"


async def test_parameters_are_listed_in_their_own_places() -> None:
    """RFC 4475 cparam01, cparam02 and regescrt."""
    house = await House().open()
    incoming = await register(
        house,
        '<sip:ana@192.0.2.10;unknownuri=x?Route=%3Csip:evil.test%3E>;unknownheader;other="a b"',
    )
    (value,) = fields(incoming.response, "Contact")
    assert value.startswith('<sip:ana@192.0.2.10;unknownuri=x?Route=%3Csip:evil.test%3E>;unknownheader;other="a b"')
    assert "Route" not in incoming.response.headers


async def test_nobody_registers_somebody_else() -> None:
    house = await House().open()
    request = register_request("bea@corp.test", "<sip:x@192.0.2.66>")
    request.headers.set("From", "<sip:ana@corp.test>;tag=a")
    challenged = await house.endpoint.receive(request).answered()
    from isthmus.sip.digest import answer_challenge

    again = answer_challenge(request, challenged, username="ana", password="ana's password", cnonce="c")
    assert again is not None
    again.headers.prepend("Via", "SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK-other")
    incoming = house.endpoint.receive(again)
    assert (await incoming.answered()).status == 403


async def test_the_oldest_binding_makes_room_for_an_eleventh() -> None:
    house = await House().open()
    for number in range(11):
        assert (
            await register(house, f"<sip:ana@192.0.2.{number + 10}>", call_id=f"call {number}".replace(" ", "-"))
        ).status == 200
        house.clock.advance(1)
    bindings = [binding.contact for binding in house.registrar.bindings(ANA)]
    assert len(bindings) == 10
    assert "sip:ana@192.0.2.10" not in bindings


async def test_bindings_end_at_their_time_and_everybody_concerned_is_told() -> None:
    house = await House().open()
    told: list[BindingsChanged] = []
    house.bus.register(BindingsChanged, lambda _, event: told.append(event))
    await register(house, "<sip:ana@192.0.2.10>", expires=60)
    house.clock.advance(59)
    assert house.registrar.has_bindings(ANA)
    house.clock.advance(2)
    await settle()
    assert not house.registrar.has_bindings(ANA)
    assert [(event.has_bindings, event.is_new_device) for event in told] == [(True, True), (False, False)]
    assert await house.store.bindings() == []


async def test_a_jump_of_the_wall_clock_ends_nothing() -> None:
    house = await House().open()
    await register(house, "<sip:ana@192.0.2.10>", expires=600)
    house.clock.jump_wall(86_400)
    house.clock.advance(500)
    assert house.registrar.has_bindings(ANA)
    house.clock.advance(101)
    assert not house.registrar.has_bindings(ANA)


async def test_registrations_survive_a_restart_but_connections_do_not() -> None:
    house = await House().open()
    await register(house, "<sip:ana@192.0.2.10:5060>")
    await register(house, "<sip:ana@df7.invalid;transport=ws>", WEB, call_id="web")
    await register(house, "<sip:ana@192.0.2.10:40010;transport=tcp>", TCP_PHONE, call_id="tcp")
    again = await house.crash().open()
    found = {binding.contact: binding.flow for binding in again.registrar.bindings(ANA)}
    assert set(found) == {"sip:ana@192.0.2.10:5060", "sip:ana@192.0.2.10:40010;transport=tcp"}
    assert found["sip:ana@192.0.2.10:5060"] == UDP_PHONE
    assert found["sip:ana@192.0.2.10:40010;transport=tcp"].connection == -1


async def test_outbound_replaces_by_instance_and_reg_id() -> None:
    """RFC 5626: the same device with the same reg-id is the same binding, wherever it comes from."""
    house = await House().open()
    contact = '<sip:ana@{}.invalid;transport=ws>;+sip.instance="<urn:uuid:1>";reg-id=1'
    incoming = await register(house, contact.format("aaa"), WEB, headers=OUTBOUND)
    assert "outbound" in (incoming.response.headers.get("Require") or "")
    assert incoming.response.headers.get("Flow-Timer") is not None
    new = Flow("ws", "203.0.113.7", 51001, connection=78)
    await register(house, contact.format("bbb"), new, call_id="reconnected", headers=OUTBOUND)
    (binding,) = house.registrar.bindings(ANA)
    assert binding.flow == new


async def test_when_a_connection_ends_its_bindings_end() -> None:
    house = await House().open()
    await register(house, "<sip:ana@x.invalid;transport=ws>", WEB)
    await register(house, "<sip:ana@192.0.2.10;transport=tcp>", TCP_PHONE, call_id="dialable")
    house.endpoint.close_flow(WEB)
    house.endpoint.close_flow(TCP_PHONE)
    assert [binding.flow for binding in house.registrar.bindings(ANA)] == [TCP_PHONE], "that one can be dialled again"


async def test_outbound_through_a_proxy_needs_its_path() -> None:
    house = await House().open()
    contact = '<sip:ana@192.0.2.10>;+sip.instance="<urn:uuid:1>";reg-id=1'

    async def through_proxy(path: str) -> MemoryIncomingRequest:
        request = register_request("ana@corp.test", contact, headers=[*OUTBOUND, *([("Path", path)] if path else [])])
        incoming = house.endpoint.receive(request)
        challenged = await incoming.answered()
        from isthmus.sip.digest import answer_challenge

        again = answer_challenge(request, challenged, username="ana", password="ana's password", cnonce="c")
        assert again is not None
        again.headers.prepend("Via", "SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK-phone")
        again.headers.prepend("Via", "SIP/2.0/UDP 192.0.2.50;branch=z9hG4bK-proxy")
        incoming = house.endpoint.receive(again)
        await incoming.answered()
        return incoming

    assert (await through_proxy("")).status == 439
    incoming = await through_proxy("<sip:edge.test;lr;ob>")
    assert incoming.status == 200
    assert fields(incoming.response, "Path") == ["<sip:edge.test;lr;ob>"]
    (binding,) = house.registrar.bindings(ANA)
    assert binding.path == ("<sip:edge.test;lr;ob>",)


async def test_a_removed_user_has_no_bindings() -> None:
    house = await House().open()
    await register(house, "<sip:ana@192.0.2.10>")
    house.bus.send(ANA, UserRemoved(ANA))
    await settle()
    assert house.registrar.bindings(ANA) == ()


async def test_gruus_are_given_and_name_one_device() -> None:
    house = await House().open()
    incoming = await register(
        house,
        '<sip:ana@192.0.2.10>;+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"',
        headers=[("Supported", "gruu")],
    )
    (contact,) = contacts(incoming)
    public = SipUri.parse(contact.param("pub-gruu") or "")
    temporary = SipUri.parse(contact.param("temp-gruu") or "")
    assert str(public) == "sip:ana@corp.test;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
    assert "ana" not in str(temporary)
    for uri in (public, temporary):
        (binding,) = house.registrar.bindings_of_gruu(uri)
        assert binding.contact == "sip:ana@192.0.2.10"
    assert house.registrar.owner_of(temporary) == ANA


async def test_a_gruu_of_a_device_that_is_gone_names_nothing_and_a_forged_one_is_unknown() -> None:
    house = await House().open()
    incoming = await register(
        house, '<sip:ana@192.0.2.10>;+sip.instance="<urn:uuid:1>"', headers=[("Supported", "gruu")]
    )
    temporary = SipUri.parse(contacts(incoming)[0].param("temp-gruu") or "")
    await register(house, "*", cseq=2, expires=0)
    assert house.registrar.bindings_of_gruu(temporary) == ()
    forged = SipUri.parse("sip:tgruu.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@corp.test;gr")
    with pytest.raises(AddressError):
        house.registrar.bindings_of_gruu(forged)


@given(local=st.from_regex(r"[a-z0-9.]{1,40}", fullmatch=True), instance=st.text(min_size=1, max_size=60))
def test_temporary_gruus_come_back_to_their_owner(local: str, instance: str) -> None:
    gruus = Gruus(b"0123456789abcdef")
    binding = Binding(Address(local, "corp.test"), "sip:x@y", "call", 1, 0.0, UDP_PHONE, instance=instance)
    uri = SipUri.parse(gruus.temporary(binding))
    assert gruus.is_temporary(uri)
    assert gruus.owner(uri) == binding.address
    assert gruus.names(uri, binding)


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567", max_size=120))
def test_no_invented_temporary_gruu_is_accepted(token: str) -> None:
    uri = SipUri("sip", "corp.test", user=f"tgruu.{token}", params=(("gr", None),))
    with pytest.raises(AddressError):
        Gruus(b"0123456789abcdef").owner(uri)


@pytest.mark.parametrize(
    ("contact", "source", "expected"),
    [
        ("sip:ana@192.168.1.5", "203.0.113.7", False),
        ("sip:ana@192.168.1.5", "192.168.1.5", True),
        ("sip:ana@10.0.0.1;transport=tcp", "203.0.113.7", False),
        ("sip:ana@8.8.8.8", "203.0.113.7", True),
        ("sip:ana@phone.corp.test", "203.0.113.7", True),
        ("sip:ana@x.invalid;transport=ws", "203.0.113.7", False),
        ("sip:ana@127.0.0.1", "203.0.113.7", False),
        ("sip:ana@[fe80::1]", "203.0.113.7", False),
        ("sip:ana@printer.local", "203.0.113.7", False),
    ],
)
def test_private_addresses_are_never_dialled(contact: str, source: str, expected: bool) -> None:
    assert is_dialable(SipUri.parse(contact), Flow("tcp", source, 1)) is expected
