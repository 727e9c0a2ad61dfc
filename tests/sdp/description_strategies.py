"""Hypothesis strategies for session descriptions; what they make is legal by RFC 8866 section 9 and in normal form."""

from __future__ import annotations

from hypothesis import strategies as st

from isthmus.sdp.session_description import (
    DIRECTIONS,
    Attribute,
    MediaDescription,
    SessionDescription,
    SessionOrigin,
)

tokens = st.text("abcXYZ019-._!~*'+", min_size=1, max_size=10)
# A line ends at a control character, and what ends in white space is written without it.
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(str.strip).filter(bool)
addresses = st.one_of(
    st.ip_addresses(v=4).map(lambda address: f"IN IP4 {address}"),
    st.ip_addresses(v=6).map(lambda address: f"IN IP6 {address}"),
)
bandwidths = st.lists(
    st.builds("{}:{}".format, st.sampled_from(["AS", "TIAS", "CT"]), st.integers(0, 10**7)), max_size=2
)
attributes = st.lists(st.builds(Attribute, tokens, st.none() | texts), max_size=6).map(tuple)
origins = st.builds(
    SessionOrigin,
    tokens,
    st.integers(0, 2**64).map(str),
    st.integers(0, 2**64),
    st.just("IN"),
    st.just("IP4"),
    st.ip_addresses(v=4).map(str),
)
media = st.builds(
    MediaDescription,
    media=st.sampled_from(["audio", "video", "application", "text", "image"]),
    port=st.integers(0, 65_535),
    protocol=st.sampled_from(["RTP/AVP", "RTP/SAVP", "RTP/SAVPF", "UDP/TLS/RTP/SAVPF", "TCP/MSRP", "udptl"]),
    formats=st.lists(tokens, min_size=1, max_size=6).map(tuple),
    port_count=st.integers(1, 4),
    title=st.just("") | texts,
    connection=st.just("") | addresses,
    bandwidths=bandwidths.map(tuple),
    key=st.just("") | tokens,
    attributes=attributes,
)
others = st.lists(st.builds("{}={}".format, st.sampled_from("iuep"), texts), max_size=3)
later_others = st.lists(st.builds("{}={}".format, st.sampled_from("rzk"), texts), max_size=3)
descriptions = st.builds(
    SessionDescription,
    origin=origins,
    name=texts,
    connection=st.just("") | addresses,
    bandwidths=bandwidths.map(tuple),
    times=st.lists(st.just("0 0") | st.just("2873397496 2873404696"), min_size=1, max_size=2).map(tuple),
    others=st.builds(lambda before, after: (*before, *after), others, later_others),
    attributes=attributes,
    media=st.lists(media, max_size=4).map(tuple),
)
directions = st.sampled_from(DIRECTIONS)
