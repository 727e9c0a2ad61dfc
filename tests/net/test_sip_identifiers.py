"""Tags, Call-IDs and branches: as long as the standard wants, and never the same twice."""

from __future__ import annotations

import re

from isthmus.net.sip_identifiers import FreshIdentifiers


def test_identifiers_have_their_length_wherever_the_stock_ends() -> None:
    fresh = FreshIdentifiers()
    for _ in range(2_000):  # many stocks, so that each kind meets the end of one
        assert re.fullmatch(r"[0-9a-f]{16}", fresh.new_tag())
        assert re.fullmatch(r"[0-9a-f]{32}", fresh.new_call_id())
        assert re.fullmatch(r"z9hG4bK[0-9a-f]{24}", fresh.new_branch())


def test_no_digits_are_given_away_twice() -> None:
    one, other = FreshIdentifiers(), FreshIdentifiers()
    tags = [fresh.new_tag() for _ in range(5_000) for fresh in (one, other)]
    branches = [one.new_branch().removeprefix("z9hG4bK")[:16] for _ in range(5_000)]
    assert len({*tags, *branches}) == 15_000
