"""The signed hop marker that survives translation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.sip.loop_marker import MAXIMUM_HOPS, Hop, LoopError, LoopMarker

MARKER = LoopMarker(b"0123456789abcdef", "node-1")


def test_a_marker_counts_each_passage_and_stops_the_loop() -> None:
    """STANDARDS 3.9: ana forwards to ben, whose account forwards to ana."""
    value = MARKER.advance()
    assert MARKER.read(value) == Hop("node-1", 1)
    for hops in range(2, MAXIMUM_HOPS + 1):
        value = MARKER.advance([value])
        assert MARKER.read(value) == Hop("node-1", hops)
    with pytest.raises(LoopError) as caught:
        MARKER.advance([value])
    assert caught.value.status == 482


def test_another_node_with_the_same_secret_counts_on() -> None:
    other = LoopMarker(b"0123456789abcdef", "node 2/ü")
    assert other.read(other.advance([MARKER.advance()])) == Hop("node-2--", 2)


def test_a_forged_marker_counts_as_none() -> None:
    stranger = LoopMarker(b"another secret!!", "node-1")
    value = MARKER.advance()
    for forged in (
        stranger.advance(),
        value.replace("hops=1", "hops=5"),
        value.replace("node-1", "node-2"),
        value[:-1],
    ):
        assert MARKER.read(forged) is None
        assert MARKER.read(MARKER.advance([forged])) == Hop("node-1", 1)


def test_the_highest_of_several_markers_counts() -> None:
    one = MARKER.advance()
    three = MARKER.advance([MARKER.advance([one])])
    assert MARKER.read(MARKER.advance([one, three, "nonsense"])) == Hop("node-1", 4)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        LoopMarker(b"short", "node")


@given(st.text(max_size=100))
def test_no_text_raises(text: str) -> None:
    assert MARKER.read(text) is None
