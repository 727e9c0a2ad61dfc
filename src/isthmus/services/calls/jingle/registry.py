"""Which sessions and proposals live, by the names their peers call them, and which have lived a short while ago.

A session is found only by all of: our person, the peer's full JID, and the sid. Whoever guesses a sid but is not its
peer therefore asks for a session that does not exist (STANDARDS 1.7.1 rule 6).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from isthmus.model import Address
from isthmus.ports import Clock
from isthmus.services.deadlines import Deadlines

if TYPE_CHECKING:
    from isthmus.services.calls.jingle.leg import JingleLeg
    from isthmus.services.calls.jingle.proposals import Proposal

# Some 10 KiB each with their descriptions: beyond this no more calls are taken.
MAXIMUM_SESSIONS = 10_000
# Sessions and proposals that one person may have with us at once; a person has one mouth and a few devices.
MAXIMUM_PER_PERSON = 32
# STANDARDS 1.7.1: what arrives for a session this long after its end is late, and not new.
TOMBSTONE_SECONDS = 300.0
MAXIMUM_TOMBSTONES = 100_000


_Pair = tuple[Address, Address]  # ours, theirs
_Outer = TypeVar("_Outer")
_Inner = TypeVar("_Inner")
_Item = TypeVar("_Item")


class SessionName(NamedTuple):
    """What identifies a session in a stanza: our person, the peer's full JID as its server writes it, the sid."""

    ours: Address
    peer: str
    sid: str


class ProposalName(NamedTuple):
    """What identifies a proposal: our person, the other person, the id."""

    ours: Address
    theirs: Address
    id: str


class JingleRegistry:
    """All living sessions and proposals of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[SessionName, JingleLeg] = {}
        self._by_peer: dict[str, dict[SessionName, JingleLeg]] = {}
        self._by_pair: dict[_Pair, dict[SessionName, JingleLeg]] = {}
        self._proposals: dict[_Pair, dict[str, Proposal]] = {}
        self._per_person: Counter[Address] = Counter()
        self._tombstones: dict[SessionName, None] = {}
        self._burials: Deadlines[SessionName] = Deadlines(
            clock, lambda name: self._tombstones.pop(name, None), width_seconds=5.0
        )

    def __len__(self) -> int:
        return len(self._sessions)

    def has_room(self, person: Address) -> bool:
        """True when one more session or proposal with this person may begin."""
        return len(self._sessions) < MAXIMUM_SESSIONS and self._per_person[person] < MAXIMUM_PER_PERSON

    # --- sessions ---

    def add(self, name: SessionName, leg: JingleLeg) -> None:
        """Let stanzas find this session."""
        self._sessions[name] = leg
        self._by_peer.setdefault(name.peer, {})[name] = leg
        self._by_pair.setdefault((name.ours, leg.party), {})[name] = leg
        self._per_person[leg.party] += 1

    def session(self, name: SessionName) -> JingleLeg | None:
        """The living session of this name."""
        return self._sessions.get(name)

    def leg(self, key: str) -> JingleLeg | None:
        """Return the living session whose leg has this key."""
        return next((leg for leg in self._sessions.values() if leg.key == key), None)

    def is_buried(self, name: SessionName) -> bool:
        """True when the session ended a short while ago."""
        return name in self._tombstones

    def bury(self, name: SessionName) -> None:
        """The session is over, or must not come about; late stanzas find its tombstone."""
        leg = self._sessions.pop(name, None)
        if leg is not None:
            _take(self._by_peer, name.peer, name)
            _take(self._by_pair, (name.ours, leg.party), name)
            self._leave(leg.party)
        if name not in self._tombstones and len(self._tombstones) < MAXIMUM_TOMBSTONES:
            self._tombstones[name] = None
            self._burials.add(name, self._clock.monotonic() + TOMBSTONE_SECONDS)

    def of_peer(self, peer: str) -> tuple[JingleLeg, ...]:
        """Sessions with this full JID."""
        return tuple(self._by_peer.get(peer, {}).values())

    def between(self, ours: Address, theirs: Address) -> tuple[JingleLeg, ...]:
        """Sessions of these two people."""
        return tuple(self._by_pair.get((ours, theirs), {}).values())

    def all_of(self, domain: str) -> tuple[JingleLeg, ...]:
        """Sessions of the people of one of our domains."""
        return tuple(leg for name, leg in self._sessions.items() if name.ours.domain == domain)

    # --- proposals ---

    def add_proposal(self, name: ProposalName, proposal: Proposal) -> None:
        """Let messages find this proposal."""
        self._proposals.setdefault((name.ours, name.theirs), {})[name.id] = proposal
        self._per_person[name.theirs] += 1

    def proposal(self, name: ProposalName) -> Proposal | None:
        """The living proposal of this name."""
        return self._proposals.get((name.ours, name.theirs), {}).get(name.id)

    def proposals_between(self, ours: Address, theirs: Address) -> tuple[Proposal, ...]:
        """Living proposals of these two people, in either direction."""
        return tuple(self._proposals.get((ours, theirs), {}).values())

    def forget_proposal(self, name: ProposalName) -> None:
        """The proposal is over; harmless when it is gone."""
        if self.proposal(name) is not None:
            _take(self._proposals, (name.ours, name.theirs), name.id)
            self._leave(name.theirs)

    def _leave(self, person: Address) -> None:
        self._per_person[person] -= 1
        if not self._per_person[person]:
            del self._per_person[person]


def _take(index: dict[_Outer, dict[_Inner, _Item]], outer: _Outer, inner: _Inner) -> None:
    items = index[outer]
    del items[inner]
    if not items:
        del index[outer]
