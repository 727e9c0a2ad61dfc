"""What a contact may know of one of our people: the answers to vCard, last activity and discovery queries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from isthmus.model import Address, AuthorisationState, Modality
from isthmus.ports import Clock, Photo, Profile
from isthmus.services.contacts import Contacts
from isthmus.services.directory import Directory
from isthmus.services.presence_views import PresenceViews


class ContactProfiles:
    """Implements `ports.Profiles`: strangers get the answer for an unknown user (edge case 46).

    Args:
        directory: names, and who exists.
        contacts: who is whose contact.
        views: what of a presence crosses; the time of the last activity is presence, too (XEP-0012 section 7).
        calls: what calls to somebody may carry.
        photo: fetches the photo of one of our people.
    """

    def __init__(
        self,
        directory: Directory,
        contacts: Contacts,
        views: PresenceViews,
        clock: Clock,
        calls: Callable[[Address], frozenset[Modality]] = lambda _user: frozenset(),
        photo: Callable[[Address], Awaitable[Photo | None]] | None = None,
    ) -> None:
        self._directory = directory
        self._contacts = contacts
        self._views = views
        self._clock = clock
        self._calls = calls
        self._photo = photo

    async def profile(self, user: Address, asked_by: Address) -> Profile | None:
        """Return what `asked_by` may know of `user`, or None (answered as for an unknown user)."""
        if self._directory.is_automaton(user):
            name = self._directory.display_name(user) or "Echo"
            calls = self._calls(user) if self._directory.is_echo(user) else frozenset()
            return Profile(display_name=name, idle_seconds=0, calls=calls)
        if not self._directory.may_exist(user) or not self._contacts.is_contact(asked_by, user):
            return None
        return Profile(
            self._directory.display_name(user),
            photo=None if self._photo is None else partial(self._photo, user),
            idle_seconds=self._idle_seconds(user, asked_by),
            calls=self._calls(user),
        )

    def _idle_seconds(self, user: Address, asked_by: Address) -> int | None:
        """0 while somebody is active; None where presence does not cross, or nobody knows (offline, unknown)."""
        if self._contacts.state(asked_by, user) is not AuthorisationState.ACTIVE:
            return None
        person = self._views.seen(asked_by, user).person_in_full
        if person is None or not person.state.is_online:
            return None  # when somebody left is not kept, and to guess would be to claim
        return 0 if person.idle_since is None else int(self._clock.wall() - person.idle_since)
