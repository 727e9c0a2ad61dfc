"""Watcher information (RFC 3857, 3858) and resource lists (RFC 4662, 4826)."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import PayloadError
from isthmus.model import Address
from isthmus.presence.rlmi import (
    MAXIMUM_LIST_ENTRIES,
    ListedResource,
    parse_resource_lists,
    write_resource_lists,
    write_rlmi,
)
from isthmus.presence.timestamps import format_precise_timestamp, format_timestamp, parse_timestamp
from isthmus.presence.winfo import Watcher, parse_winfo, write_winfo
from isthmus.sip.mime import parse_multipart

ANA = Address("ana", "corp.test")
BEN = Address("ben", "people.test")
RLMI = "{urn:ietf:params:xml:ns:rlmi}"


def test_watcher_information_is_read_as_it_was_written() -> None:
    watchers = (
        Watcher(BEN, "pending", "subscribe", "w1", "Ben <b>"),
        Watcher(Address("o'hara", "people.test"), "waiting", "timeout", "w2"),
    )
    assert parse_winfo(write_winfo(ANA, watchers, 7)) == (7, True, watchers)
    assert parse_winfo(write_winfo(ANA, [], 8, "partial")) == (8, False, ())


def test_watcher_information_names_the_presentity_and_package() -> None:
    root = fromstring(write_winfo(ANA, [], 0))
    listed = root[0]
    assert (root.get("version"), root.get("state")) == ("0", "full")
    assert (listed.get("resource"), listed.get("package")) == ("sip:ana@corp.test", "presence")


def test_an_unknown_watcher_state_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="no state of a watcher"):
        write_winfo(ANA, [Watcher(BEN, "curious", "subscribe", "w1")], 0)


@pytest.mark.parametrize(
    "body", [b"<x/>", b"", b"<watcherinfo xmlns='urn:ietf:params:xml:ns:watcherinfo' version='x'/>"]
)
def test_what_is_no_watcher_information_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadError):
        parse_winfo(body)


def test_a_list_notification_has_the_list_first_and_a_part_per_known_person() -> None:
    resources = [
        ListedResource(BEN, "active", body=b"<presence/>", name="Ben"),
        ListedResource(Address("eve", "people.test"), "terminated", "rejected"),
    ]
    content_type, body = write_rlmi("sip:friends@corp.test", resources, version=0, is_full=True)
    assert content_type.startswith("multipart/related;")
    assert 'type="application/rlmi+xml"' in content_type
    root_part, ben_part = parse_multipart(body, content_type)
    assert root_part.content_type == "application/rlmi+xml"
    assert f'start="<{root_part.content_id}>"' in content_type
    listed = fromstring(root_part.body)
    assert (listed.get("version"), listed.get("fullState"), listed.get("uri")) == ("0", "true", "sip:friends@corp.test")
    ben, eve = listed.findall(f"{RLMI}resource")
    instance = ben.find(f"{RLMI}instance")
    assert instance is not None
    assert (ben.get("uri"), instance.get("state"), instance.get("cid")) == (
        "sip:ben@people.test",
        "active",
        ben_part.content_id,
    )
    assert ben_part.body == b"<presence/>"
    instance = eve.find(f"{RLMI}instance")
    assert instance is not None
    assert (instance.get("state"), instance.get("reason"), instance.get("cid")) == ("terminated", "rejected", None)


def test_a_partial_list_notification_says_so() -> None:
    content_type, body = write_rlmi("sip:friends@corp.test", [], version=3, is_full=False)
    listed = fromstring(parse_multipart(body, content_type)[0].body)
    assert (listed.get("version"), listed.get("fullState")) == ("3", "false")


def test_a_list_is_read_with_its_nested_lists_and_without_duplicates() -> None:
    body = (
        b"<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'><list name='a'>"
        b"<entry uri='sip:ben@people.test'><display-name>Ben</display-name></entry>"
        b"<list><entry uri='pres:BEN@people.test'/><entry uri='sip:ana@corp.test'/></list>"
        b"<entry uri='http://x'/><external anchor='http://evil.test/list'/></list></resource-lists>"
    )
    assert parse_resource_lists(body) == (BEN, ANA)


def test_a_list_has_a_limit() -> None:
    people = [Address(f"u{number}", "people.test") for number in range(MAXIMUM_LIST_ENTRIES + 1)]
    assert len(parse_resource_lists(write_resource_lists(people[:-1]))) == MAXIMUM_LIST_ENTRIES
    with pytest.raises(PayloadError) as caught:
        parse_resource_lists(write_resource_lists(people))
    assert caught.value.status == 413


def test_what_is_no_list_is_refused() -> None:
    with pytest.raises(PayloadError):
        parse_resource_lists(b"<list/>")


@given(st.integers(0, 4_000_000_000))
def test_timestamps_survive(at: int) -> None:
    assert parse_timestamp(format_timestamp(at)) == at
    assert parse_timestamp(format_precise_timestamp(at + 0.25)) == at + 0.25


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-22T17:40:00", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"]
)
def test_a_time_without_meaning_is_none_or_bounded(text: str) -> None:
    found = parse_timestamp(text)
    assert found is None or found < 0
