"""Resource lists: one subscription for a phone's whole contact list (RFC 4662, RFC 5367).

`SUBSCRIBE sip:contacts@corp.test` means "everybody I asked to see" and follows the contacts; a body of type
`application/resource-lists+xml` names the people instead. Each NOTIFY carries one RLMI document and the members'
PIDFs: all of them at first and on refresh, afterwards only those that changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from isthmus.interworking.addresses import address_to_sip_uri
from isthmus.interworking.sip_bodies import unpacked_body
from isthmus.model import Address
from isthmus.presence.rlmi import (
    MAXIMUM_LIST_ENTRIES,
    RESOURCE_LISTS_TYPE,
    ListedResource,
    parse_resource_lists,
    write_rlmi,
)
from isthmus.services.watch import Watch
from isthmus.sip.message import SipRequest

# The local part that names everybody's own contact list.
LIST_NAME = "contacts"
# RLMI instance state, reason when terminated, and body of one member of a list.
MemberState = Callable[[Watch, Address], tuple[str, str, bytes | None]]


class WatchedBy(Protocol):
    """The part of `services.contacts` that knows contact lists."""

    def watched_by(self, watcher: Address) -> tuple[Address, ...]:
        """Everybody whom `watcher` asked to see."""


def is_list(resource: Address, watcher: Address) -> bool:
    """True when a Request-URI names the watcher's contact list."""
    return resource.local == LIST_NAME and resource.domain == watcher.domain


def list_members(watcher: Address, request: SipRequest, contacts: WatchedBy) -> tuple[Address, ...]:
    """Return the people on the list that this SUBSCRIBE asks for, in order, without duplicates.

    Raises:
        UnsupportedBodyError: an encoding we do not know (415); its `headers` belong into the response.
        PayloadError, SipParseError: the body is not a resource list, or the list is too long.
    """
    if request.content_type == RESOURCE_LISTS_TYPE:
        return parse_resource_lists(unpacked_body(request))
    return contact_list(watcher, contacts)


def contact_list(watcher: Address, contacts: WatchedBy) -> tuple[Address, ...]:
    """Return the people whom a phone sees that follows the contact list of its user, in order.

    Of a longer list the first MAXIMUM_LIST_ENTRIES: a phone that added one contact too many would rather miss that one
    than everybody.
    """
    return tuple(sorted(contacts.watched_by(watcher)))[:MAXIMUM_LIST_ENTRIES]


class ResourceLists:
    """Which list subscriptions show whom, and the bodies of their notifications."""

    def __init__(self) -> None:
        self._by_member: dict[Address, dict[str, Watch]] = {}
        self._following: dict[Address, dict[str, Watch]] = {}
        self._refused: dict[str, set[Address]] = {}

    def add(self, watch: Watch) -> None:
        """A list subscription began."""
        for member in watch.members:
            self._by_member.setdefault(member, {})[watch.key] = watch
        if watch.follows_contacts:
            self._following.setdefault(watch.watcher, {})[watch.key] = watch

    def remove(self, watch: Watch) -> None:
        """It ended."""
        for member in watch.members:
            _discard(self._by_member, member, watch)
        _discard(self._following, watch.watcher, watch)
        self._refused.pop(watch.key, None)

    def show(self, watch: Watch, members: tuple[Address, ...]) -> None:
        """Other people are on the list from now on: the next notification tells all of it (RFC 4662 section 5.1)."""
        self.remove(watch)
        watch.members = members
        watch.is_full = True
        self.add(watch)

    def following(self, watcher: Address) -> list[Watch]:
        """Subscriptions to the contact list of `watcher`."""
        return list(self._following.get(watcher, {}).values())

    def refused(self, watch: Watch, member: Address) -> None:
        """`member` said no: on this list that stays visible until they are asked again."""
        self._refused.setdefault(watch.key, set()).add(member)

    def asked(self, watch: Watch, member: Address) -> None:
        """`member` was asked (again)."""
        self._refused.get(watch.key, set()).discard(member)

    def has_refused(self, watch: Watch, member: Address) -> bool:
        """True when `member` said no."""
        return member in self._refused.get(watch.key, ())

    def watches_with(self, member: Address) -> list[Watch]:
        """List subscriptions that show `member`."""
        return list(self._by_member.get(member, {}).values())

    def body(self, watch: Watch, state_of: MemberState) -> tuple[str, bytes]:
        """Content type and body of the next notification; counts the version (RFC 4662 section 5.3)."""
        watch.version += 1
        changed = watch.take_changes()
        shown = watch.members if watch.is_full else tuple(m for m in watch.members if m in changed)
        resources: list[ListedResource] = []
        for member in shown:
            state, reason, document = state_of(watch, member)
            resources.append(ListedResource(member, state, reason, document or b""))
        content_type, body = write_rlmi(
            str(address_to_sip_uri(watch.resource)),
            resources,
            version=watch.version,
            is_full=watch.is_full,
        )
        watch.is_full = False
        return content_type, body


def _discard(rows: dict[Address, dict[str, Watch]], address: Address, watch: Watch) -> None:
    same = rows.get(address)
    if same is not None:
        same.pop(watch.key, None)
        if not same:
            del rows[address]
