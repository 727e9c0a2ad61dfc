"""Header fields: the multimap, and the structured values in it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.headers import COMPACT_FORMS, CSeq, Headers, NameAddr, Via, parse_parameterised, quote, unquote
from isthmus.sip.syntax import split_list
from isthmus.sip.uri import SipUri
from tests.sip.wire_strategies import cseqs, name_addrs, texts, vias


@given(vias)
def test_a_via_reads_back_as_it_was_written(via: Via) -> None:
    assert Via.parse(str(via)) == via


@given(name_addrs)
def test_a_name_addr_reads_back_as_it_was_written(address: NameAddr) -> None:
    assert NameAddr.parse(str(address)) == address


@given(st.lists(name_addrs, min_size=1, max_size=4))
def test_a_list_of_addresses_is_cut_at_its_own_commas_only(addresses: list[NameAddr]) -> None:
    headers = Headers([("Contact", ", ".join(map(str, addresses)))])
    assert [NameAddr.parse(text) for text in headers.get_list("m")] == addresses


@given(cseqs)
def test_a_cseq_reads_back_as_it_was_written(cseq: CSeq) -> None:
    assert CSeq.parse(str(cseq)) == cseq


@given(texts)
def test_any_text_survives_quoting(text: str) -> None:
    assert unquote(quote(text)) == text


@given(st.text(max_size=60))
def test_any_text_is_a_value_or_a_parse_error(text: str) -> None:
    for parse in (Via.parse, NameAddr.parse, CSeq.parse, parse_parameterised, split_list):
        for candidate in (text, "SIP/2.0/UDP " + text, '"' + text, "<sip:a@b>" + text):
            with contextlib.suppress(SipParseError):
                parse(candidate)


def test_names_compare_without_case_and_compact_forms_are_known() -> None:
    headers = Headers([("v", "1"), ("VIA", "2"), ("x-Own", "3"), ("cSEQ", "4")])
    assert headers.get_all("Via") == ["1", "2"]
    assert headers.get("X-OWN") == "3"
    assert [name for name, _ in headers.items()] == ["Via", "Via", "x-Own", "CSeq"]
    for compact, name in COMPACT_FORMS.items():
        assert Headers([(compact, "x")]).get(name) == "x"
        assert Headers([(name, "x")]).get(compact.upper()) == "x"


def test_lines_are_added_replaced_and_removed_in_order() -> None:
    headers = Headers([("Route", "a"), ("To", "t"), ("Route", "b")])
    headers.prepend("Route", "first")
    assert headers.get_all("route") == ["first", "a", "b"]
    headers.replace_first("Route", "changed")
    assert headers.get_all("Route") == ["changed", "a", "b"]
    headers.set("Route", "only")
    assert list(headers.items()) == [("Route", "only"), ("To", "t")]
    headers.remove("route")
    assert "Route" not in headers
    headers.set("Expires", " 60 ")
    headers.replace_first("Event", "presence")
    assert list(headers.items()) == [("To", "t"), ("Expires", "60"), ("Event", "presence")]
    assert len(headers) == 3
    assert headers.get("absent", "default") == "default"


def test_a_copy_is_independent() -> None:
    headers = Headers([("To", "t")])
    other = headers.copy()
    other.add("X", "y")
    assert "X" not in headers
    assert headers != other


def test_changing_a_field_forgets_what_was_parsed_from_it() -> None:
    headers = Headers([("To", "t")])
    headers.cache["to"] = "parsed"
    headers.cache["from"] = "kept"
    headers.set("t", "u")
    assert headers.cache == {"from": "kept"}


@pytest.mark.parametrize(
    ("text", "display_name", "uri", "params"),
    [
        ("sip:ana@corp.test;tag=1", "", "sip:ana@corp.test", (("tag", "1"),)),
        ("<sip:ana@corp.test;lr>;tag=1", "", "sip:ana@corp.test;lr", (("tag", "1"),)),
        ("Ana Maria <sip:ana@corp.test>", "Ana Maria", "sip:ana@corp.test", ()),
        ('"Bell, A. \\"x\\" <y>" <sip:ana@corp.test>', 'Bell, A. "x" <y>', "sip:ana@corp.test", ()),
        ("Anna(mobile)<tel:+123>", "Anna(mobile)", "tel:+123", ()),
        (
            'sip:ana@10.0.0.9;+sip.instance="<urn:uuid:1>"',
            "",
            "sip:ana@10.0.0.9",
            (("+sip.instance", '"<urn:uuid:1>"'),),
        ),
        ("<sip:a,b@corp.test?x=y>;q=0.5", "", "sip:a,b@corp.test?x=y", (("q", "0.5"),)),
    ],
)
def test_addresses_of_all_forms_are_read(
    text: str, display_name: str, uri: str, params: tuple[tuple[str, str | None], ...]
) -> None:
    address = NameAddr.parse(text)
    assert (address.display_name, str(address.uri), address.params) == (display_name, uri, params)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "<>",
        "<sip:a@b",
        '"Ana" sip:a@b',
        '"Ana <sip:a@b>',
        "Bell, A <sip:a@b>",
        "<sip:a@b>;",
        "<sip:a@b>;;x",
        "<sip:a@b>x",
        "<sip:a@b>;x=a b",
        '<sip:a@b>;x="a',
        "< sip:a@b >",
        "sip:a@b?x=y",
        "sip:a,b@c",
        "<sip:a@b>;tag=1, <sip:c@d>",
        "a;b <sip:a@b>",
    ],
)
def test_malformed_addresses_are_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        NameAddr.parse(text)


def test_parameter_values_are_quoted_and_unquoted_where_they_must_be() -> None:
    address = NameAddr(SipUri("sip", "a")).with_param("+sip.instance", "<urn:uuid:1>").with_param("OB", None)
    assert str(address) == '<sip:a>;+sip.instance="<urn:uuid:1>";ob'
    assert address.param("+sip.instance") == "<urn:uuid:1>"
    assert (address.param("ob"), address.param("x"), address.tag) == ("", None, "")
    assert address.with_param("ob", "1").params[1] == ("ob", "1")
    assert address.without_params("ob").params == address.params[:1]
    assert str(address.without_params()) == "<sip:a>"


def test_rport_and_received_of_a_via_are_read_and_filled_in() -> None:
    via = Via.parse("SIP/2.0/udp Host:5062;rport;branch=z9hG4bKa")
    assert (via.transport, via.host, via.port, via.branch, via.rport, via.received) == (
        "UDP",
        "host",
        5062,
        "z9hG4bKa",
        0,
        "",
    )
    filled = via.with_param("rport", "40000").with_param("received", "192.0.2.1")
    assert str(filled) == "SIP/2.0/UDP host:5062;rport=40000;branch=z9hG4bKa;received=192.0.2.1"
    assert (filled.rport, filled.received, filled.is_rfc3261_branch) == (40000, "192.0.2.1", True)
    assert Via.parse("SIP/2.0/TCP host").rport is None
    assert Via.parse("SIP / 2.0 / TCP  host : 5070 ; branch = x").port == 5070


@pytest.mark.parametrize(
    "text", ["", "SIP/2.0/UDP", "SIP/2.0/UDP ", "SIP/3.0/UDP a", "SIP/2.0/U<P a", "SIP/2.0/UDP a b", "SIP/2.0/UDP a:b"]
)
def test_malformed_vias_are_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        Via.parse(text)


@pytest.mark.parametrize("text", ["", "1", "INVITE", "-1 INVITE", "4294967296 INVITE", "1 INVITE x", "1 I<", "² A"])
def test_malformed_cseqs_are_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        CSeq.parse(text)


def test_values_with_parameters_are_read_unquoted() -> None:
    assert parse_parameterised("presence ; id=3") == ("presence", (("id", "3"),))
    assert parse_parameterised('text/plain;Charset="utf-8";x') == ("text/plain", (("charset", "utf-8"), ("x", None)))
    assert parse_parameterised("active") == ("active", ())
