"""Watcher information: who watches a person, and who asks to (RFC 3857, document of RFC 3858)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.errors import PayloadError
from isthmus.model import Address
from isthmus.presence.entities import address_from_entity, address_to_entity
from isthmus.xml_text import escape_attribute, escape_text, parse_xml

WINFO_TYPE = "application/watcherinfo+xml"
WINFO_NAMESPACE = "urn:ietf:params:xml:ns:watcherinfo"

# RFC 3858 section 3.2.1 and RFC 3857 section 4.7.1; "waiting" is a request that outlived its subscription.
STATUSES = frozenset({"pending", "active", "waiting", "terminated"})
EVENTS = frozenset({"subscribe", "approved", "deactivated", "probation", "rejected", "timeout", "giveup", "noresource"})


@dataclass(frozen=True, slots=True)
class Watcher:
    """One watcher of a presentity.

    Attributes:
        watcher: who watches.
        status: one of STATUSES.
        event: what brought it there, one of EVENTS.
        id: stable over documents; unique per watcher.
        display_name: shown to the presentity.
    """

    watcher: Address
    status: str
    event: str
    id: str
    display_name: str = ""


def write_winfo(
    presentity: Address, watchers: Iterable[Watcher], version: int, state: str = "full", package: str = "presence"
) -> bytes:
    """Return the document for one notification of `presence.winfo`.

    Args:
        presentity: whose watchers; only they may see this (RFC 3857 section 4.6).
        watchers: all of them for state "full", the changed ones for "partial".
        version: one more than in the notification before on the same subscription, from 0.
        state: "full" or "partial".
        package: the watched event package.

    Raises:
        ValueError: a status or event that RFC 3858 does not know.
    """
    rows: list[str] = []
    for entry in watchers:
        if entry.status not in STATUSES or entry.event not in EVENTS:
            raise ValueError(f"{entry.status!r} after {entry.event!r} is no state of a watcher")
        name = f" display-name='{escape_attribute(entry.display_name)}'" if entry.display_name else ""
        rows.append(
            f"<watcher id='{escape_attribute(entry.id)}' event='{entry.event}' status='{entry.status}'{name}>"
            f"{escape_text(address_to_entity(entry.watcher))}</watcher>"
        )
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>\r\n<watcherinfo xmlns='{WINFO_NAMESPACE}' version='{version}'"
        f" state='{state}'><watcher-list resource='{escape_attribute(address_to_entity(presentity))}'"
        f" package='{escape_attribute(package)}'>{''.join(rows)}</watcher-list></watcherinfo>"
    ).encode()


def parse_winfo(body: bytes) -> tuple[int, bool, tuple[Watcher, ...]]:
    """Return (version, is_full, watchers) of a document; entries that are no persons are left out.

    Raises:
        PayloadError: not a watcherinfo document.
    """
    root = parse_xml(body)
    version = root.get("version", "")
    if root.tag != f"{{{WINFO_NAMESPACE}}}watcherinfo" or not (version.isascii() and version.isdigit()):
        raise PayloadError("the document is not watcher information")
    watchers: list[Watcher] = []
    for row in root.iter(f"{{{WINFO_NAMESPACE}}}watcher"):
        status, event = row.get("status", ""), row.get("event", "")
        if status not in STATUSES or event not in EVENTS:
            continue
        try:
            watcher = address_from_entity(row.text or "")
        except PayloadError:
            continue
        watchers.append(Watcher(watcher, status, event, row.get("id", ""), row.get("display-name", "")))
    return int(version), root.get("state") == "full", tuple(watchers)
