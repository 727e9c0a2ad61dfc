"""What every store promises, tried on the one in memory and on the databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.model import Address, Authorisation, AuthorisationState, Failure, Message, MessageKind, Origin, User
from isthmus.ports import (
    AuditRecord,
    Binding,
    CallRecord,
    Crossing,
    DomainRule,
    Flow,
    JournalEntry,
    Photo,
    PolicySetting,
    Publication,
    Store,
    SubscriptionRecord,
)
from isthmus.store.sql_store import SqlStore
from tests.support.clock import FakeClock
from tests.support.memory_store import MemoryStore

ANA = Address("ana", "corp.test")
BEN = Address("ben", "people.test")
ODD = Address("o'brien @home", "bücher.test")

Make = Callable[[], Store]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Make:
    """A function that makes a store on the same content again and again."""
    if request.param == "memory":
        store = MemoryStore(clock.wall, clock.monotonic)
        return lambda: store
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else ""
    return lambda: SqlStore(tmp_path / "data", url, wall=clock.wall, monotonic=clock.monotonic)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[Store]:
    store = make()
    await store.open()
    yield store
    await store.close()


async def reopened(store: Store, make: Make) -> Store:
    await store.close()
    again = make()
    await again.open()
    return again


def entry(origin_key: str = "", text: str = "hello") -> JournalEntry:
    message = Message(id="m1", sender=ANA, recipient=BEN, text=text)
    return JournalEntry(message, expires_at=1_900_000_000.5, origin_key=origin_key)


# --- journal ---


async def test_an_appended_entry_is_pending_after_a_restart_with_every_field(store: Store, make: Make) -> None:
    failure = Failure(Origin.POLICY, 403, "forbidden", "not today", "user.messages", is_temporary=True)
    full = JournalEntry(
        Message(
            id="id-\u2603",
            sender=ODD,
            recipient=BEN,
            kind=MessageKind.FAILED,
            sender_device="phone",
            recipient_device="tablet",
            text='"quoted"\n\x00 \U0001f600',
            language="de",
            subject="s",
            thread="t",
            refers_to="m0",
            wants_delivered=True,
            wants_displayed=True,
            failure=failure,
            sent_at=12.5,
            expires_at=99.25,
            hops=3,
        ),
        expires_at=1_900_000_000.5,
        origin_key="call-id|1 MESSAGE|tag",
        attempts=2,
    )
    sequence = await store.journal.append(full)
    store = await reopened(store, make)
    assert await store.journal.pending() == [replace(full, sequence=sequence)]
    await store.close()


async def test_entries_are_pending_in_the_order_they_were_appended(store: Store) -> None:
    sequences = await asyncio.gather(*(store.journal.append(entry(text=str(number))) for number in range(200)))
    assert sequences == sorted(set(sequences))
    assert [item.message.text for item in await store.journal.pending()] == [str(number) for number in range(200)]


async def test_a_settled_entry_is_gone_at_once_and_after_a_restart(store: Store, make: Make) -> None:
    first = await store.journal.append(entry(text="first"))
    await store.journal.append(entry(text="second"))
    store.journal.settle(first)
    assert [item.message.text for item in await store.journal.pending()] == ["second"]
    store = await reopened(store, make)
    assert [item.message.text for item in await store.journal.pending()] == ["second"]
    await store.close()


async def test_settling_twice_or_nothing_does_no_harm(store: Store) -> None:
    sequence = await store.journal.append(entry("key"))
    for number in (sequence, sequence, 0, sequence + 100):
        store.journal.settle(number)
        await store.journal.flush()
    assert await store.journal.pending() == []


async def test_the_same_origin_key_is_appended_once(store: Store) -> None:
    assert await store.journal.append(entry("key")) > 0
    assert await store.journal.append(entry("key")) == 0
    assert await store.journal.append(entry("other key")) > 0
    assert len(await store.journal.pending()) == 2


async def test_entries_without_origin_key_are_never_taken_for_repeats(store: Store) -> None:
    """Edge case 16: XMPP senders do not retransmit, equal messages are meant."""
    sequences = await asyncio.gather(*(store.journal.append(entry()) for _ in range(3)))
    assert len({*sequences, 0}) == 4


async def test_of_repeats_in_the_same_instant_one_is_appended(store: Store) -> None:
    sequences = await asyncio.gather(*(store.journal.append(entry("key")) for _ in range(5)))
    assert sorted(sequences)[:4] == [0, 0, 0, 0]
    assert len(await store.journal.pending()) == 1


async def test_an_origin_key_stays_known_70_seconds_after_its_message_was_settled(
    store: Store, clock: FakeClock
) -> None:
    store.journal.settle(await store.journal.append(entry("key")))
    await store.journal.flush()
    clock.advance(69)
    assert await store.journal.append(entry("key")) == 0
    clock.advance(7)
    await store.journal.append(entry())
    assert await store.journal.append(entry("key")) > 0


async def test_an_origin_key_stays_known_over_a_restart(store: Store, make: Make, clock: FakeClock) -> None:
    store.journal.settle(await store.journal.append(entry("settled")))
    await store.journal.append(entry("pending"))
    store = await reopened(store, make)
    clock.advance(60)
    assert await store.journal.append(entry("settled")) == 0
    assert await store.journal.append(entry("pending")) == 0
    clock.advance(20)
    store = await reopened(store, make)
    await store.journal.append(entry())
    assert await store.journal.append(entry("settled")) > 0
    assert await store.journal.append(entry("pending")) == 0
    await store.close()


async def test_a_jump_of_the_wall_clock_does_not_forget_origin_keys(store: Store, clock: FakeClock) -> None:
    store.journal.settle(await store.journal.append(entry("key")))
    await store.journal.flush()
    clock.jump_wall(86_400)
    clock.advance(10)
    await store.journal.append(entry())
    assert await store.journal.append(entry("key")) == 0


# --- people ---


async def test_users_keep_every_field_over_a_restart(store: Store, make: Make) -> None:
    ana = User(ANA, "Ana", {"SHA-256": "abc", "MD5": "def"}, is_disabled=True, groups=("sales", "all"), created_at=1.5)
    odd = User(ODD)
    other = User(Address("ana", "other.test"))
    for user in (odd, ana, other):
        await store.save_user(user)
    store = await reopened(store, make)
    found = await store.users()
    assert found == [ana, other, odd]
    assert found[0].digests == {"SHA-256": "abc", "MD5": "def"}
    assert await store.users("corp.test") == [ana]
    assert await store.users("nowhere.test") == []
    await store.close()


async def test_saving_a_user_again_replaces_it(store: Store) -> None:
    await store.save_user(User(ANA, "Ana"))
    await store.save_user(User(ANA, "Ana Maria"))
    assert [user.display_name for user in await store.users()] == ["Ana Maria"]


async def test_deleting_a_user_takes_bindings_and_publications_but_not_contacts(store: Store, clock: FakeClock) -> None:
    for address in (ANA, ODD):
        await store.save_user(User(address))
        await store.save_bindings(address, [binding(address, clock.wall() + 60)])
        store.note_publication(Publication(address, "e1", b"x", "application/pidf+xml", clock.wall() + 60))
    await store.save_authorisation(Authorisation(BEN, ANA, AuthorisationState.ACTIVE, 1.0))
    await store.delete_user(ANA)
    await store.delete_user(Address("nobody", "corp.test"))
    assert [user.address for user in await store.users()] == [ODD]
    assert [item.address for item in await store.bindings()] == [ODD]
    assert [item.address for item in await store.publications()] == [ODD]
    assert len(await store.authorisations()) == 1


async def test_photos_are_kept_whole_one_per_user_until_the_user_is_deleted(store: Store, make: Make) -> None:
    png, jpeg = Photo(b"\x89PNG\x00\xff" * 20_000, "image/png", "a1"), Photo(b"\xff\xd8", "image/jpeg", "b2")
    await store.save_photo(ANA, jpeg)
    await store.save_photo(ANA, png)
    await store.save_photo(ODD, jpeg)
    store = await reopened(store, make)
    assert await store.photo_hashes() == [(ANA, "a1"), (ODD, "b2")]
    assert await store.photo(ANA) == png
    assert await store.photo(BEN) is None
    await store.delete_photo(ODD)
    await store.delete_photo(ODD)
    await store.delete_user(ANA)
    assert await store.photo_hashes() == []
    assert await store.photo(ANA) is None
    await store.close()


async def test_consumers_are_kept_without_digests(store: Store) -> None:
    await store.save_consumer(User(BEN, "Ben", {"MD5": "def"}, groups=("g",), created_at=2.0))
    await store.save_consumer(User(BEN, "Benjamin", {"MD5": "def"}, groups=("g",), created_at=2.0))
    (ben,) = await store.consumers()
    assert ben == User(BEN, "Benjamin", groups=("g",), created_at=2.0)
    assert ben.digests == {}
    assert await store.users() == []


# --- contacts ---


async def test_authorisations_are_one_per_pair_and_direction(store: Store, make: Make) -> None:
    asked = Authorisation(BEN, ANA, AuthorisationState.PENDING, 1.0, note="Ben from Acme")
    granted = replace(asked, state=AuthorisationState.ACTIVE, decided_at=2.0)
    back = Authorisation(ANA, BEN, AuthorisationState.PENDING, 3.0)
    odd = Authorisation(ODD, BEN, AuthorisationState.PENDING, 3.0)
    for authorisation in (asked, granted, back, odd):
        await store.save_authorisation(authorisation)
    store = await reopened(store, make)
    assert set(await store.authorisations()) == {granted, back, odd}
    await store.delete_authorisation(ANA, BEN)
    await store.delete_authorisation(ANA, BEN)
    assert set(await store.authorisations()) == {granted, odd}
    await store.close()


async def test_blocks_are_pairs_with_a_direction(store: Store) -> None:
    await store.save_block(ANA, BEN)
    await store.save_block(ANA, BEN)
    await store.save_block(BEN, ODD)
    assert set(await store.blocks()) == {(ANA, BEN), (BEN, ODD)}
    await store.delete_block(BEN, ANA)
    await store.delete_block(ANA, BEN)
    assert await store.blocks() == [(BEN, ODD)]


# --- registrations, publications, subscriptions ---


def binding(address: Address, expires_at: float, contact: str = "sip:ana@192.0.2.1") -> Binding:
    return Binding(address, contact, "call-1", 1, expires_at, Flow("udp", "192.0.2.1", 5060))


async def test_bindings_keep_every_field_and_their_order_over_a_restart(
    store: Store, make: Make, clock: FakeClock
) -> None:
    full = Binding(
        address=ANA,
        contact='<sip:ana@192.0.2.1;x="y">',
        call_id="call-1",
        cseq=7,
        expires_at=clock.wall() + 60,
        flow=Flow("tls", "2001:db8::1", 40_000, "192.0.2.9", 5061, 12, ("a.test", "b.test")),
        parameters=(("q", "0.5"), ("+sip.instance", "<urn:uuid:1>")),
        q=500,
        instance="<urn:uuid:1>",
        reg_id=1,
        path=("<sip:edge.test;lr>", "<sip:edge2.test;lr>"),
        user_agent="Desk phone",
        accepts=frozenset({"text/plain", "message/cpim"}),
    )
    second = binding(ANA, clock.wall() + 30, "sip:second")
    await store.save_bindings(ANA, [full, second])
    store = await reopened(store, make)
    assert await store.bindings() == [full, second]
    await store.close()


async def test_saving_bindings_replaces_all_of_that_user_only(store: Store, clock: FakeClock) -> None:
    until = clock.wall() + 60
    await store.save_bindings(ANA, [binding(ANA, until, "sip:one"), binding(ANA, until, "sip:two")])
    await store.save_bindings(ODD, [binding(ODD, until)])
    await store.save_bindings(ANA, [binding(ANA, until, "sip:three")])
    assert {item.contact for item in await store.bindings()} == {"sip:three", "sip:ana@192.0.2.1"}
    await store.save_bindings(ANA, [])
    assert [item.address for item in await store.bindings()] == [ODD]


async def test_soft_state_is_read_until_it_expires(store: Store, clock: FakeClock) -> None:
    for number, seconds in enumerate((10, 100)):
        until = clock.wall() + seconds
        address = Address(f"u{number}", "corp.test")
        await store.save_bindings(address, [binding(address, until)])
        store.note_publication(Publication(address, "e", b"", "", until))
        store.note_subscription(SubscriptionRecord(f"s{number}", BEN, address, until))
    clock.advance(50)
    assert [item.address.local for item in await store.bindings()] == ["u1"]
    assert [item.address.local for item in await store.publications()] == ["u1"]
    assert [item.key for item in await store.subscriptions()] == ["s1"]


async def test_noted_publications_and_subscriptions_survive_close(store: Store, make: Make, clock: FakeClock) -> None:
    until = clock.wall() + 60
    first = Publication(ANA, "e1", b"\x00<presence/>", "application/pidf+xml", until)
    newer = replace(first, body=b"newer")
    record = SubscriptionRecord("k1", BEN, ODD, until, {"dialog": {"cseq": 1}, "routes": ["<sip:a;lr>"]})
    for publication in (first, newer, replace(first, etag="e2"), replace(first, etag="e3")):
        store.note_publication(publication)
    store.note_publication_gone(ANA, "e2")
    store.note_subscription(record)
    store.note_subscription(replace(record, key="k2"))
    store.note_subscription_gone("k2")
    store = await reopened(store, make)
    assert await store.publications() == [newer, replace(first, etag="e3")]
    assert await store.subscriptions() == [record]
    store.note_publication_gone(ANA, "e1")
    store.note_subscription_gone("k1")
    store = await reopened(store, make)
    assert await store.publications() == [replace(first, etag="e3")]
    assert await store.subscriptions() == []
    await store.close()


# --- policy ---


async def test_policy_settings_change_together(store: Store, make: Make) -> None:
    old = [PolicySetting("global", "messages", "on"), PolicySetting("user:ana@corp.test", "audio", "off")]
    await store.save_policy_settings(old, [])
    changed = PolicySetting("global", "messages", "off")
    await store.save_policy_settings([PolicySetting("global", "messages", "?"), changed], [old[1]])
    store = await reopened(store, make)
    assert await store.policy_settings() == [changed]
    await store.close()


async def test_domain_rules_are_one_per_domain(store: Store) -> None:
    rule = DomainRule("bad.test", "block", includes_subdomains=True, note="spam", since=5.5)
    await store.save_domain_rule(DomainRule("bad.test", "allow"))
    await store.save_domain_rule(rule)
    await store.save_domain_rule(DomainRule("good.test", "allow"))
    assert await store.domain_rules() == [rule, DomainRule("good.test", "allow")]
    await store.delete_domain_rule("good.test")
    await store.delete_domain_rule("unknown.test")
    assert await store.domain_rules() == [rule]


# --- what happened ---


async def test_crossings_add_up_before_and_after_they_are_written(store: Store, make: Make) -> None:
    failure = Failure(Origin.PEER, 404, "item-not-found", "unknown user")
    for at in (1.0, 3.0):
        store.note_crossing(ANA, BEN, MessageKind.TEXT, at)
    store.note_crossing(BEN, ANA, "text", 2.0)
    store.note_crossing(ANA, ODD, "text", 2.0)
    assert await store.crossings(BEN, ANA) == [
        Crossing(ANA, BEN, "text", delivered=2, last_at=3.0),
        Crossing(BEN, ANA, "text", delivered=1, last_at=2.0),
    ]
    store = await reopened(store, make)
    store.note_crossing(ANA, BEN, "text", 4.0, failure)
    store.note_crossing(ANA, BEN, "text", 5.0)
    assert (await store.crossings(ANA, BEN))[0] == Crossing(
        ANA, BEN, "text", delivered=3, failed=1, last_at=5.0, last_failure_at=4.0, last_failure="unknown user"
    )
    await store.close()


async def test_thousands_of_crossings_are_all_written(store: Store, make: Make) -> None:
    people = [Address(f"u{number}", "corp.test") for number in range(1000)]
    for person in people:
        store.note_crossing(person, BEN, "text", 1.0)
    store = await reopened(store, make)
    assert [len(await store.crossings(BEN, person)) for person in people[::100]] == [1] * 10
    await store.close()


async def test_the_audit_log_is_read_newest_first(store: Store, make: Make) -> None:
    records = [AuditRecord(float(at), "admin", "policy set", "global", "messages=off") for at in range(5)]
    for record in records:
        await store.save_audit(record)
    store = await reopened(store, make)
    assert await store.audit() == records[::-1]
    assert await store.audit(limit=2) == [records[4], records[3]]
    assert await store.audit(limit=0) == []
    await store.close()


# --- calls ---

CALL = CallRecord(
    id="c1",
    caller=ANA,
    callee=BEN,
    started_at=1_000.0,
    answered_at=1_005.0,
    ended_at=1_065.5,
    media=("audio", "video"),
    path="relayed",
    cause="hung up",
    text="The call was ended.",
    rule="global.audio",
    device="phone",
    quality=({"media": "audio", "party": "caller", "packets": 3_000, "lost": 2, "mos": 4.3},),
)


async def test_call_records_keep_every_field_over_a_restart(store: Store, make: Make, clock: FakeClock) -> None:
    store.note_call(CALL, clock.wall() + 60)
    assert await store.calls() == [CALL]
    store = await reopened(store, make)
    assert await store.call("c1") == CALL
    assert CALL.seconds == 60.5
    await store.close()


async def test_call_records_are_read_newest_first_by_person_and_until_they_expire(
    store: Store, clock: FakeClock
) -> None:
    for number, (caller, callee) in enumerate(((ANA, BEN), (BEN, ODD), (ODD, ANA))):
        record = replace(CALL, id=f"c{number}", caller=caller, callee=callee, started_at=float(number))
        store.note_call(record, clock.wall() + 60 * (number + 1))
    assert [call.id for call in await store.calls()] == ["c2", "c1", "c0"]
    assert [call.id for call in await store.calls(limit=1)] == ["c2"]
    assert [call.id for call in await store.calls(person=BEN)] == ["c1", "c0"]
    clock.advance(61)
    assert [call.id for call in await store.calls()] == ["c2", "c1"]
    assert await store.call("c0") is None


async def test_live_calls_are_what_the_next_run_finds(store: Store, make: Make) -> None:
    store.note_live_call("one", {"legs": [1]})
    store.note_live_call("two", {"legs": [2]})
    store.note_live_call("one", {"legs": [3]})
    store.note_live_call_gone("two")
    store = await reopened(store, make)
    assert await store.live_calls() == [("one", {"legs": [3]})]
    await store.close()
