"""The journal's payload: everything comes back, and what is not ours is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import StoreError
from isthmus.model import Address, ChatState, Failure, Message, MessageKind, Origin
from isthmus.ports import JournalEntry
from isthmus.store.journal_format import VERSION, decode_entry, encode_entry

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
times = st.floats(allow_nan=False, allow_infinity=False)
addresses = st.builds(Address, texts, texts)
failures = st.builds(
    Failure, st.sampled_from(Origin), st.integers(400, 699), texts, texts, texts, is_temporary=st.booleans()
)
messages = st.builds(
    Message,
    id=texts,
    sender=addresses,
    recipient=addresses,
    kind=st.sampled_from(MessageKind),
    sender_device=texts,
    recipient_device=texts,
    text=texts,
    language=texts,
    subject=texts,
    thread=texts,
    state=st.sampled_from(ChatState),
    refers_to=texts,
    wants_delivered=st.booleans(),
    wants_displayed=st.booleans(),
    failure=st.none() | failures,
    sent_at=times,
    expires_at=st.none() | times,
    hops=st.integers(0, 100),
)
entries = st.builds(JournalEntry, messages, times, texts, st.integers(1, 2**53), st.integers(0, 1000))


@given(entries)
def test_every_entry_reads_back_as_it_was(entry: JournalEntry) -> None:
    decoded = decode_entry(entry.sequence, encode_entry(entry))
    assert decoded == entry
    assert type(decoded.message.kind) is MessageKind
    assert type(decoded.message.state) is ChatState


@given(st.binary(max_size=100))
def test_bytes_that_are_no_entry_raise_a_store_error_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(StoreError, match="journal entry 7"):
        decode_entry(7, payload)
    with pytest.raises(StoreError, match="journal entry 7 is damaged"):
        decode_entry(7, bytes((VERSION,)) + payload)


@pytest.mark.parametrize("text", ["[]", "{}", "null", "[[[", '["a","b"]'])
def test_json_that_is_no_entry_raises_a_store_error(text: str) -> None:
    with pytest.raises(StoreError, match="is damaged"):
        decode_entry(7, bytes((VERSION,)) + text.encode())


def test_a_lone_surrogate_cannot_be_journalled() -> None:
    message = Message(id="m1", sender=Address("a", "b"), recipient=Address("c", "d"), text="\ud800")
    with pytest.raises(StoreError, match="cannot be written"):
        encode_entry(JournalEntry(message, 1.0))


def test_version_one_stays_readable() -> None:
    """A payload as the first release writes it; it must not change when the code does."""
    payload = (
        b'\x01[1900000000.5,"call|1 MESSAGE|tag|ben",2,"m1","ana","corp.test","ben","people.test","text","phone","",'
        b'"hello","de","","t1","active","",true,false,["policy",403,"forbidden","no","user.messages",false],5.0,null,1]'
    )
    assert decode_entry(9, payload) == JournalEntry(
        Message(
            id="m1",
            sender=Address("ana", "corp.test"),
            recipient=Address("ben", "people.test"),
            sender_device="phone",
            text="hello",
            language="de",
            thread="t1",
            wants_delivered=True,
            failure=Failure(Origin.POLICY, 403, "forbidden", "no", "user.messages"),
            sent_at=5.0,
            hops=1,
        ),
        expires_at=1_900_000_000.5,
        origin_key="call|1 MESSAGE|tag|ben",
        sequence=9,
        attempts=2,
    )
