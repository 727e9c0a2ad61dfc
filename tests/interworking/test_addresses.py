"""Addresses cross both realms without loss (RFC 7247 section 6, XEP-0106)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import AddressError
from isthmus.interworking.addresses import (
    address_from_jid,
    address_from_legacy,
    address_from_sip_uri,
    address_from_uri,
    address_from_uri_text,
    address_to_jid,
    address_to_sip_uri,
    gr_from_device,
    resolve_device,
)
from isthmus.model import Address
from isthmus.sip.uri import OtherUri, SipUri

TABLE = [
    ("sip:o'hara@corp.test", "o\\27hara@corp.test"),
    ("sip:f%C3%BC@corp.test", "fü@corp.test"),
    ("sip:a%40b@corp.test", "a\\40b@corp.test"),
    ("sip:x%5C27@corp.test", "x\\5c27@corp.test"),
    ("sip:+15550100;ext=2@corp.test;user=phone", "+15550100;ext=2@corp.test"),
    ("sip:ben@people.test;gr=urn:uuid:f81d4fae", "ben@people.test/urn:uuid:f81d4fae"),
    ("sip:ben@people.test;gr", "ben@people.test"),
    ("sip:%2541@corp.test", "%41@corp.test"),
    ("sip:ana:secret@corp.test:5061;transport=tls?Subject=x", "ana@corp.test"),
    ("sips:ANA@Corp.Test.", "ana@corp.test"),
    ("sip:ana@xn--mnchen-3ya.test", "ana@münchen.test"),
    ("sip:ana@[2001:db8::1]", "ana@[2001:db8::1]"),
]


def jid_of(uri_text: str) -> str:
    address, device = address_from_sip_uri(SipUri.parse(uri_text))
    return address_to_jid(address, device)


@pytest.mark.parametrize(("uri", "jid"), TABLE)
def test_a_sip_uri_becomes_the_jid_of_the_standard(uri: str, jid: str) -> None:
    assert jid_of(uri) == jid


@pytest.mark.parametrize(("uri", "jid"), TABLE)
def test_the_jid_leads_back_to_the_same_person(uri: str, jid: str) -> None:
    address, resource = address_from_jid(jid)
    assert (address, resource) == address_from_sip_uri(SipUri.parse(uri))
    assert address_from_sip_uri(address_to_sip_uri(address, resource)) == (address, resource)


@pytest.mark.parametrize(
    "uri",
    ["sip:%20ann@corp.test", "sip:ann%20@corp.test", "sip:a%00b@corp.test", "sip:a%0Ab@corp.test", "sip:corp.test",
     "sip:%FF@corp.test", "sip:" + "a" * 1024 + "@corp.test", "sip:" + "%2F" * 400 + "@corp.test"],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_as_not_found(uri: str) -> None:
    with pytest.raises(AddressError) as caught:
        address_from_sip_uri(SipUri.parse(uri))
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "jid",
    ["people.test", "@people.test", "\\20ann@people.test", "a\\5cb@people.test", "a b@people.test", "a@b@people.test",
     "ann@people.test/" + "x" * 1024, "ann@people.test/\x01", "", "ann@", "a:b@people.test"],
)  # fmt: skip
def test_a_jid_that_names_nobody_or_is_ambiguous_is_refused(jid: str) -> None:
    with pytest.raises(AddressError):
        address_from_jid(jid)


@pytest.mark.parametrize(
    "local", ["a@b", "50%", "star*", "(paren)", "a&b", "o'neil", "a/b", "ünïcode", "日本", "c:\\d"]
)
def test_special_characters_cross_both_ways(local: str) -> None:
    """Edge case 1: `@ % * ( ) ' & /` and non-ASCII, from a JID through a SIP URI and back."""
    address = Address.of(local, "corp.test")
    uri = SipUri.parse(str(address_to_sip_uri(address, "a b/ü")))
    assert address_from_sip_uri(uri) == (address, "a b/ü")
    assert address_from_jid(address_to_jid(address, "a b/ü")) == (address, "a b/ü")


def test_upper_and_lower_case_are_one_person() -> None:
    assert address_from_jid("Ana@Corp.TEST")[0] == address_from_sip_uri(SipUri.parse("sip:aNA@corp.test"))[0]


def test_a_combining_mark_cannot_melt_into_an_escape() -> None:
    with pytest.raises(AddressError):
        address_from_sip_uri(SipUri.parse("sip:a%2F%CC%87@corp.test"))


def test_the_digits_of_an_escape_cannot_upset_a_right_to_left_name() -> None:
    with pytest.raises(AddressError):
        address_from_sip_uri(SipUri("sip", "corp.test", "%22%D8%A0"))
    assert jid_of("sip:%D8%A0@corp.test") == "\u0620@corp.test"


def test_a_long_resource_becomes_an_opaque_token_that_presence_resolves() -> None:
    resource = "ü" * 200
    token = gr_from_device(resource)
    assert len(token) < 64
    uri = address_to_sip_uri(Address("ben", "people.test"), resource)
    _, device = address_from_sip_uri(SipUri.parse(str(uri)))
    assert resolve_device(device, ["phone", resource]) == resource
    assert resolve_device("phone", [resource]) == "phone"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (OtherUri("tel", "+1-555-0100;ext=2"), Address("+15550100", "corp.test")),
        (OtherUri("im", "ben@people.test"), Address("ben", "people.test")),
        (OtherUri("pres", "f%C3%BC@people.test"), Address("fü", "people.test")),
        (OtherUri("xmpp", "o%5C27hara@people.test?message"), Address("o'hara", "people.test")),
    ],
)
def test_other_schemes_name_people_too(uri: OtherUri, expected: Address) -> None:
    assert address_from_uri(uri, "corp.test")[0] == expected


@pytest.mark.parametrize(
    "text", ["tel:0100", "http://corp.test/ana", "mailto:ana@corp.test", "nonsense", "im:corp.test"]
)
def test_a_uri_that_names_nobody_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        address_from_uri_text(text, "corp.test")


def test_a_telephone_number_is_marked_as_one() -> None:
    assert str(address_to_sip_uri(Address("+15550100", "corp.test"))) == "sip:+15550100@corp.test;user=phone"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ana(corp.test)@msn.com", "ana@corp.test"),
        ("ben%people.test@gw.corp.test", "ben@people.test"),
        ("sip:ben(people.test)@gw.corp.test", "ben@people.test"),
        ("ben@people.test", "ben@people.test"),
        ("ben@hotmail.com", "ben@hotmail.com"),
        ("50%off@shop.test", "50%off@shop.test"),
        ("ana(corp.test)@other.test", "ana(corp.test)@other.test"),
    ],
)
def test_old_forms_are_undone_on_import_and_plain_addresses_pass(text: str, expected: str) -> None:
    """Edge case 2: old decorations are read, plain ones shown, and excluded domains never decorated."""
    assert str(address_from_legacy(text, ["gw.corp.test"])) == expected
    assert str(address_from_legacy(expected, ["gw.corp.test"])) == expected


@pytest.mark.parametrize("text", ["a(b(c))@msn.com", "ana", "a%b%people.test@gw.test", "a%gw.test@gw.test"])
def test_a_doubly_decorated_address_is_refused_or_kept_but_never_guessed(text: str) -> None:
    """Edge case 2: never double-decorate."""
    try:
        address = address_from_legacy(text, ["gw.test"])
    except AddressError:
        return
    assert str(address) == text.lower()


def test_old_forms_are_accepted_nowhere_else() -> None:
    """Edge case 2: outside import `%` and parentheses are ordinary characters."""
    assert jid_of("sip:ben%25people.test@gw.corp.test") == "ben%people.test@gw.corp.test"
    assert address_from_jid("ana(corp.test)@msn.com")[0] == Address("ana(corp.test)", "msn.com")


locals_any = st.text(min_size=1, max_size=30)
locals_hard = st.text(alphabet=" \"&'/:<>@\\2567acef0%*()é\u0307", min_size=1, max_size=12)
domains = st.sampled_from(["corp.test", "münchen.test", "[::1]", "10.0.0.9"])
resources = st.text(max_size=40).filter(lambda text: not any(c < " " or c == "\x7f" for c in text))


@given(st.one_of(locals_any, locals_hard), domains, resources)
def test_mapping_is_total_and_reversible_from_sip(local: str, domain: str, resource: str) -> None:
    """The invariant: either refused, or every way round leads back."""
    escaped = "".join(f"%{octet:02X}" for octet in local.encode("utf-8", "surrogatepass"))
    uri = SipUri("sip", "xn--mnchen-3ya.test" if domain == "münchen.test" else domain.strip("[]"), escaped)
    try:
        address, _ = address_from_sip_uri(uri)
    except AddressError:
        return
    jid = address_to_jid(address, resource)
    try:
        from_jid = address_from_jid(jid)
    except AddressError:
        assert any("\ud800" <= c <= "\udfff" or c in "\ufffe\uffff" for c in resource)
        return
    assert from_jid == (address, resource)
    back = SipUri.parse(str(address_to_sip_uri(address, resource)))
    found, device = address_from_sip_uri(back)
    assert (found, resolve_device(device, [resource])) == (address, resource)


@given(locals_hard, locals_hard)
def test_mapping_is_injective(one: str, other: str) -> None:
    """Two JIDs never share a person unless they are one JID after normalisation."""
    found = []
    for localpart in (one, other):
        try:
            found.append(address_from_jid(f"{localpart}@corp.test"))
        except AddressError:
            return
    jids = [address_to_jid(address, resource) for address, resource in found]
    assert (found[0] == found[1]) == (jids[0] == jids[1])
    for localpart, jid in zip((one, other), jids, strict=True):
        bare = localpart.partition("/")[0].partition("@")[0]
        assert jid.partition("@")[0].casefold() == bare.casefold() or not bare.isascii()


@given(st.text(max_size=60))
def test_no_text_breaks_the_mapping(text: str) -> None:
    for mapping in (address_from_jid, address_from_uri_text, address_from_legacy):
        try:
            mapping(text)
        except AddressError:
            continue
