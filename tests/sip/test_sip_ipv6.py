"""The IPv6 messages of RFC 5118, by the section that prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.errors import SipParseError
from isthmus.sip.headers import Via
from isthmus.sip.message import SipRequest, build_response
from isthmus.sip.parser import BadMessage, parse_message
from isthmus.sip.uri import SipUri
from isthmus.sip.validation import check_request

MESSAGES = Path(__file__).parents[1] / "messages" / "rfc5118"
VALID = sorted(path.stem for path in MESSAGES.glob("*.dat") if path.stem != "ipv6-bad")


def request(name: str) -> SipRequest:
    message = parse_message((MESSAGES / f"{name}.dat").read_bytes())
    assert isinstance(message, SipRequest)
    return message


def uri(name: str) -> SipUri:
    target = request(name).uri
    assert isinstance(target, SipUri)
    return target


def test_all_twelve_messages_are_here() -> None:
    assert len(VALID) == 11


@pytest.mark.parametrize("name", VALID)
def test_valid_ipv6_message_is_accepted_and_survives_writing(name: str) -> None:
    message = request(name)
    check_request(message)
    assert parse_message(message.to_bytes()) == message
    assert parse_message(build_response(message, 200).to_bytes()).vias == message.vias


def test_an_ipv6_reference_is_kept_without_brackets_and_written_with_them() -> None:
    assert uri("ipv6-good").host == "2001:db8::10"
    assert str(uri("ipv6-good")) == "sip:[2001:db8::10]"
    assert request("ipv6-good").top_via.host == "2001:db8::9:1"


def test_an_ipv6_address_without_brackets_is_answered_400() -> None:
    with pytest.raises(BadMessage) as caught:
        request("ipv6-bad")
    assert caught.value.status == 400
    assert caught.value.partial is not None


def test_a_port_inside_the_brackets_is_part_of_the_address() -> None:
    assert (uri("port-ambiguous").host, uri("port-ambiguous").port) == ("2001:db8::10:5070", 0)
    assert (uri("port-unambiguous").host, uri("port-unambiguous").port) == ("2001:db8::10", 5070)


@pytest.mark.parametrize("name", ["via-received-param-with-delim", "via-received-param-no-delim"])
def test_received_is_read_with_and_without_brackets(name: str) -> None:
    assert request(name).top_via.received == "2001:db8::9:255"


def test_received_is_written_without_brackets() -> None:
    via = Via.parse("SIP/2.0/UDP [2001:db8::9:1]").with_param("received", "2001:db8::9:255")
    assert str(via) == "SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255"


def test_vias_of_both_families_mix() -> None:
    vias = request("mult-ip-in-header").vias
    assert [(via.host, via.port) for via in vias] == [
        ("2001:db8::9:1", 6050),
        ("192.0.2.1", 0),
        ("2001:db8::9:255", 0),
    ]
    assert vias[2].received == "192.0.2.200"


def test_an_ipv4_mapped_address_is_an_ipv6_address() -> None:
    vias = request("ipv4-mapped-ipv6").vias
    assert [(via.host, via.port) for via in vias] == [("::ffff:192.0.2.10", 19823), ("::ffff:192.0.2.2", 0)]


def test_the_third_colon_of_the_grammar_bug_is_read_and_never_written() -> None:
    assert uri("ipv6-bug-abnf-3-colons") == uri("ipv6-correct-abnf-2-colons")
    assert b":::" not in request("ipv6-bug-abnf-3-colons").to_bytes().split(b"\r\n")[0]


@pytest.mark.parametrize(
    "text", ["sip:[::1", "sip:[]", "sip:[fe80::1%25eth0]", "sip:[1.2.3.4]", "sip:[::1]x", "sip:[::1]:"]
)
def test_broken_ipv6_references_are_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        SipUri.parse(text)


def test_ipv6_hosts_compare_by_value() -> None:
    assert SipUri.parse("sip:ana@[2001:db8:0::1]").is_equivalent(SipUri.parse("sip:ana@[2001:DB8::1]"))
