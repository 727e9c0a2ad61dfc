"""Hypothesis strategies for SIP wire types; everything they make is legal by the grammar of RFC 3261 section 25."""

from __future__ import annotations

from hypothesis import strategies as st

from isthmus.sip.headers import CSeq, Headers, NameAddr, Via
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.syntax import quote
from isthmus.sip.uri import OtherUri, SipUri, escape_user

TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFXYZ0123456789-.!%*_+`'~"

tokens = st.text(TOKEN, min_size=1, max_size=12)
names = tokens.map(str.lower)
# Any text a person may have in a display name; line breaks and lone surrogates cannot go over the wire.
texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
display_names = texts.map(str.strip)

hosts = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9\-]{0,8}[a-z0-9])?(\.[a-z]{2,5}){0,2}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
ports = st.integers(0, 65535)
uri_params = st.lists(
    st.tuples(
        st.text("abcdefgxyz0123456789-_", min_size=1, max_size=8),
        st.none() | st.text("abcXYZ0189-_.!~*'()[]/:&+$", max_size=10),
    ),
    max_size=3,
).map(tuple)
users = st.text(st.characters(exclude_categories=["Cs"]), max_size=10).map(escape_user)


@st.composite
def sip_uris(draw: st.DrawFn) -> SipUri:
    user = draw(users)
    return SipUri(
        scheme=draw(st.sampled_from(["sip", "sips"])),
        host=draw(hosts),
        user=user,
        password=draw(st.text("abc0189&=+$,", max_size=4)) if user else "",
        port=draw(ports),
        params=draw(uri_params),
        headers=draw(st.sampled_from(["", "subject=hello", "Route=%3Csip:a%3E&priority=urgent"])),
    )


other_uris = st.builds(
    OtherUri,
    st.sampled_from(["tel", "urn", "http", "im", "soap.beep"]),
    st.text("abcXYZ019-_.!~*'();/?:@&=+$,", min_size=1, max_size=20),
)
uris = st.one_of(sip_uris(), other_uris)

parameter_values = st.one_of(
    st.none(), st.text(TOKEN + ":[]@/=", max_size=10), texts.map(quote), st.just('"<urn:uuid:f81d4fae;x,y>"')
)
parameters = st.lists(st.tuples(names, parameter_values), max_size=4, unique_by=lambda item: item[0]).map(tuple)

vias = st.builds(Via, st.sampled_from(["UDP", "TCP", "TLS", "WS", "WSS", "SCTP"]), hosts, ports, parameters)
name_addrs = st.builds(NameAddr, uris, display_names, parameters)
cseqs = st.builds(CSeq, st.integers(0, 2**32 - 1), tokens)

header_names = st.one_of(
    st.sampled_from(["Subject", "User-Agent", "Supported", "Call-ID", "Expires", "Date", "X-Odd"]),
    tokens.filter(lambda name: name.lower() not in ("content-length", "l")),
)
header_values = texts.map(lambda text: text.strip(" \t"))


@st.composite
def headers(draw: st.DrawFn) -> Headers:
    lines = [("Via", str(via)) for via in draw(st.lists(vias, min_size=1, max_size=3))]
    lines += [("From", str(draw(name_addrs))), ("To", str(draw(name_addrs))), ("CSeq", str(draw(cseqs)))]
    lines += [("Contact", str(contact)) for contact in draw(st.lists(name_addrs, max_size=2))]
    lines += draw(st.lists(st.tuples(header_names, header_values), max_size=4))
    return Headers(draw(st.permutations(lines)))


requests = st.builds(SipRequest, tokens.filter(lambda t: not t.upper().startswith("SIP")), uris, headers(), st.binary())
reasons = texts.filter(lambda text: text == text.strip(" \t"))
responses = st.builds(SipResponse, st.integers(100, 699), reasons, headers(), st.binary())
messages = st.one_of(requests, responses)
