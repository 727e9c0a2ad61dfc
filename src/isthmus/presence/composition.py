"""Many devices, one person: how the presence of a person is composed (RFC 4479 section 3.6 leaves the rules to us).

Set by the person > a call that we control > the calendar > the devices. Of the devices a deliberate "busy" wins
over the default "available" of another one, then the most available counts; somebody is idle only when every device
is (RFC 8048 section 5.2 with an override for calls and dnd).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from isthmus.model import Address, Availability, Device, Presence, PresenceDocument, PresenceSource
from isthmus.presence.rpid import IDLE_STATES

# From the state that says most about a person to the one that says least.
PRECEDENCE: tuple[Availability, ...] = (
    Availability.DO_NOT_DISTURB,
    Availability.PRESENTING,
    Availability.IN_A_CONFERENCE,
    Availability.IN_A_CALL,
    Availability.IN_A_MEETING,
    Availability.BUSY,
    Availability.BUSY_INACTIVE,
    Availability.AVAILABLE,
    Availability.INACTIVE,
    Availability.BE_RIGHT_BACK,
    Availability.AWAY,
    Availability.OFF_WORK,
    Availability.OUT_OF_OFFICE,
    Availability.OFFLINE,
    Availability.UNKNOWN,
)
_RANK = {state: rank for rank, state in enumerate(PRECEDENCE)}
_UNKNOWN = Presence(Availability.UNKNOWN)


def compose(
    devices: Iterable[Device],
    *,
    manual: Presence | None = None,
    call: Presence | None = None,
    calendar: Presence | None = None,
) -> Presence:
    """Return the presence of a person.

    Args:
        devices: what each device says; none at all means that nothing is known.
        manual: set by the person. Appearing offline always holds; any other state needs a device that is online.
        call: state from our own call control, None when there is no call.
        calendar: state from a calendar, None when free.
    """
    listed = tuple(devices)
    composed = _compose_devices(listed)
    if manual is not None and manual.state is Availability.OFFLINE:
        return replace(manual, source=PresenceSource.MANUAL)
    if call is not None and not composed.state.is_online:
        # A call proves that somebody is there, even when no device has published anything.
        composed = replace(call, source=PresenceSource.CALL)
    if not composed.state.is_online:
        return replace(composed, note=manual.note, note_language=manual.note_language) if manual else composed
    for told, source in (
        (manual, PresenceSource.MANUAL),
        (call, PresenceSource.CALL),
        (calendar, PresenceSource.CALENDAR),
    ):
        if told is not None and told.state is not Availability.UNKNOWN:
            note = told if told.note or source is PresenceSource.MANUAL else composed
            return replace(told, note=note.note, note_language=note.note_language, source=source)
    return composed


def _compose_devices(devices: Sequence[Device]) -> Presence:
    if not devices:
        return _UNKNOWN
    # With equal states the device of the highest priority speaks; the id makes the choice stable.
    best = min(devices, key=lambda device: (_RANK[device.presence.state], -_priority(device), device.id)).presence
    online = [device.presence for device in devices if device.presence.state.is_online]
    are_all_idle = bool(online) and all(
        presence.idle_since is not None or presence.state in IDLE_STATES for presence in online
    )
    state = best.state
    if state is Availability.BUSY_INACTIVE and not are_all_idle:
        state = Availability.BUSY
    idle_times = [presence.idle_since for presence in online if presence.idle_since is not None]
    is_idle = are_all_idle or state in IDLE_STATES
    return replace(best, state=state, idle_since=max(idle_times) if is_idle and idle_times else None)


def _priority(device: Device) -> int:
    return -129 if device.priority is None else device.priority


def compose_document(
    entity: Address,
    devices: Iterable[Device],
    *,
    manual: Presence | None = None,
    call: Presence | None = None,
    calendar: Presence | None = None,
) -> PresenceDocument:
    """Return the whole document of a person: `compose` and every device that is online.

    Devices that went offline stay out while another is online; when the last one goes, the document closes once
    (edge case 9).
    """
    listed = tuple(devices)
    person = compose(listed, manual=manual, call=call, calendar=calendar)
    shown = tuple(device for device in listed if device.presence.state.is_online) if person.state.is_online else ()
    return PresenceDocument(entity, person, shown)


def devices_with_person(document: PresenceDocument) -> tuple[Device, ...]:
    """Return the devices of one received document, each with the person's note where it has none of its own.

    Documents of several devices are composed later; a note that only the person element carries would be lost then.
    """
    note, language = document.person.note, document.person.note_language
    if not note:
        return document.devices
    return tuple(
        device
        if device.presence.note
        else replace(device, presence=replace(device.presence, note=note, note_language=language))
        for device in document.devices
    )
