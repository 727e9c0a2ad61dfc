"""The state table (STANDARDS 2.2) between canonical availability and what PIDF, RPID (RFC 4480) and `<show/>` say.

State is read from markup only, never from a note or another text made for people (edge case 11), and nothing
unclear ever becomes "available" (edge case 7).
"""

from __future__ import annotations

from collections.abc import Collection

from isthmus.model import Availability

RPID_NAMESPACE = "urn:ietf:params:xml:ns:pidf:rpid"

# RFC 4480 section 3.2.
ACTIVITIES = frozenset(
    {
        "appointment",
        "away",
        "breakfast",
        "busy",
        "dinner",
        "holiday",
        "in-transit",
        "looking-for-work",
        "lunch",
        "meal",
        "meeting",
        "on-the-phone",
        "other",
        "performance",
        "permanent-absence",
        "playing",
        "presentation",
        "shopping",
        "sleeping",
        "spectator",
        "steering",
        "travel",
        "tv",
        "unknown",
        "vacation",
        "working",
        "worship",
    }
)

# What each state adds to the activities of a person; a state that is missing here says nothing in RPID.
ACTIVITIES_BY_STATE: dict[Availability, tuple[str, ...]] = {
    Availability.BUSY: ("busy",),
    Availability.IN_A_CALL: ("on-the-phone",),
    Availability.IN_A_CONFERENCE: ("meeting", "on-the-phone"),
    Availability.IN_A_MEETING: ("meeting",),
    Availability.BUSY_INACTIVE: ("busy",),
    Availability.DO_NOT_DISTURB: ("busy",),
    Availability.PRESENTING: ("presentation",),
    Availability.BE_RIGHT_BACK: ("away",),
    Availability.AWAY: ("away",),
    Availability.OFF_WORK: ("away", "other"),
    Availability.OUT_OF_OFFICE: ("vacation",),
}

# `<show/>` of RFC 6121 section 4.7.2.1; "" is the absent element. Offline is no show but `unavailable`.
SHOW_BY_STATE: dict[Availability, str] = {
    Availability.AVAILABLE: "",
    Availability.INACTIVE: "away",
    Availability.BUSY: "dnd",
    Availability.IN_A_CALL: "dnd",
    Availability.IN_A_CONFERENCE: "dnd",
    Availability.IN_A_MEETING: "dnd",
    Availability.BUSY_INACTIVE: "dnd",
    Availability.DO_NOT_DISTURB: "dnd",
    Availability.PRESENTING: "dnd",
    Availability.BE_RIGHT_BACK: "away",
    Availability.AWAY: "away",
    Availability.OFF_WORK: "xa",
    Availability.OUT_OF_OFFICE: "xa",
}

# States that mean "has not touched a device for a while".
IDLE_STATES = frozenset({Availability.INACTIVE, Availability.BUSY_INACTIVE})

_STATE_BY_SHOW = {
    "": Availability.AVAILABLE,
    "chat": Availability.AVAILABLE,
    "away": Availability.AWAY,
    "xa": Availability.OFF_WORK,
    "dnd": Availability.BUSY,  # RFC 8048 section 5.2: dnd says busy, not "block everything"
}
_IDLE_FORM = {
    Availability.AVAILABLE: Availability.INACTIVE,
    Availability.AWAY: Availability.INACTIVE,
    Availability.BUSY: Availability.BUSY_INACTIVE,
}

# First row with a matching activity decides; rows are ordered by how much a caller needs to know of it.
_STATE_BY_ACTIVITY: tuple[tuple[frozenset[str], Availability], ...] = (
    (frozenset({"on-the-phone"}), Availability.IN_A_CALL),
    (frozenset({"presentation"}), Availability.PRESENTING),
    (frozenset({"meeting", "appointment"}), Availability.IN_A_MEETING),
    (frozenset({"busy", "performance", "spectator", "steering", "worship"}), Availability.BUSY),
    (frozenset({"vacation", "holiday", "travel", "permanent-absence"}), Availability.OUT_OF_OFFICE),
    (frozenset({"sleeping"}), Availability.OFF_WORK),
    (
        frozenset({"away", "breakfast", "lunch", "dinner", "meal", "in-transit", "shopping", "playing", "tv"}),
        Availability.AWAY,
    ),
)
# At the desk: says no more than an open tuple.
_NEUTRAL = frozenset({"working", "looking-for-work"})


def known_activity(name: str) -> str:
    """Return an activity name of RFC 4480; any other becomes "other"."""
    return name if name in ACTIVITIES else "other"


def state_from_show(show: str, *, is_idle: bool = False) -> Availability:
    """Return the state behind an XMPP `<show/>`; an unknown value counts as away, not as available."""
    state = _STATE_BY_SHOW.get(show.strip(), Availability.AWAY)
    return _IDLE_FORM.get(state, state) if is_idle else state


def state_from_pidf(
    is_open: bool | None, activities: Collection[str], show: str | None = None, *, is_idle: bool = False
) -> Availability:
    """Return the state that a tuple's basic status and a person's RPID say together.

    Args:
        is_open: `<basic/>`; None when absent.
        activities: known activity names.
        show: text of `<show xmlns='jabber:client'/>` inside the status (RFC 8048 section 5.2), None when absent.
        is_idle: RPID user-input says idle.
    """
    if is_open is False:
        return Availability.OFFLINE
    if {"on-the-phone", "meeting"} <= set(activities):
        return Availability.IN_A_CONFERENCE
    for names, state in _STATE_BY_ACTIVITY:
        if not names.isdisjoint(activities):
            return _refined(state, activities, show, is_idle=is_idle)
    if show is not None:
        return state_from_show(show, is_idle=is_idle)
    if not _NEUTRAL.issuperset(activities):
        # An activity without a word of ours, in the best case "other": somebody is there, but not free for sure.
        return Availability.AWAY
    if is_open is None:
        return Availability.UNKNOWN
    return Availability.INACTIVE if is_idle else Availability.AVAILABLE


def _refined(state: Availability, activities: Collection[str], show: str | None, *, is_idle: bool) -> Availability:
    if state is Availability.AWAY and (show == "xa" or "other" in activities):
        return Availability.OFF_WORK
    if state is Availability.BUSY and is_idle:
        return Availability.BUSY_INACTIVE
    return state


# Lync aggregate availability (STANDARDS 2.2): lower bound of each range, descending.
_LYNC_RANGES = (
    (18000, Availability.OFFLINE),
    (15000, Availability.AWAY),
    (12000, Availability.BE_RIGHT_BACK),
    (9000, Availability.DO_NOT_DISTURB),
    (7500, Availability.BUSY_INACTIVE),
    (6000, Availability.BUSY),
    (4500, Availability.INACTIVE),
    (3000, Availability.AVAILABLE),
)


def state_from_lync(number: int) -> Availability:
    """Return the state of a Lync aggregate availability number; below 3000 nothing is known."""
    return next((state for bound, state in _LYNC_RANGES if number >= bound), Availability.UNKNOWN)


def state_by_name(name: str | None) -> Availability | None:
    """Return the state of our own `state` attribute, None when it is absent or unknown."""
    try:
        return Availability(name) if name else None
    except ValueError:
        return None
