"""What one person may see of another: the composed presence, reduced by policy for this watcher.

Hosted people have one composed document; people elsewhere have one view per watcher. In both cases policy decides
how much of it crosses, and a hidden presence says that policy hides it instead of looking like "offline" (edge 13).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from isthmus.interworking.presence import reduce_document
from isthmus.model import Address, Presence, PresenceDocument, Realm, Verdict
from isthmus.policy.settings import PresenceView
from isthmus.services.contacts import People
from isthmus.services.remote_presence import RemotePresence


class ViewRules(Protocol):
    """The part of the rules that decides about views."""

    def view_verdict(self, presentity: Address, watcher: Address) -> tuple[PresenceView, Verdict]:
        """How much `watcher` may see, and why."""


class LiveViewRules(Protocol):
    """Holder of the rules in force."""

    @property
    def rules(self) -> ViewRules:
        """The rules now."""


class HostedDocuments(Protocol):
    """Composed presence of hosted users."""

    def hosted_document(self, presentity: Address) -> PresenceDocument:
        """The document as its owner's devices made it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a watcher gets to see.

    Attributes:
        document: None when nothing is known yet or policy hides everything.
        hidden_by: the refusing verdict when policy hides it.
        is_reduced: the watcher gets availability only: no activity, no idle time.
    """

    document: PresenceDocument | None
    hidden_by: Verdict | None = None
    is_reduced: bool = False

    @property
    def person_in_full(self) -> Presence | None:
        """The person with everything the devices told, or None: nothing known, or reduced to availability."""
        return None if self.document is None or self.is_reduced else self.document.person


class PresenceViews:
    """Answers "what does `watcher` see of `presentity` now?"."""

    def __init__(
        self, people: People, policing: LiveViewRules, hosted: HostedDocuments, remote: RemotePresence
    ) -> None:
        self._people = people
        self._policing = policing
        self._hosted = hosted
        self._remote = remote

    def seen(self, watcher: Address, presentity: Address) -> Seen:
        """The view of an authorised watcher; whether it is authorised is `services.contacts`' question."""
        if self._people.realm_of(presentity.domain) is Realm.BUSINESS_HOSTED:
            document: PresenceDocument | None = self._hosted.hosted_document(presentity)
        else:
            document = self._remote.document(watcher, presentity)
        return self.reduced(watcher, presentity, document)

    def reduced(self, watcher: Address, presentity: Address, document: PresenceDocument | None) -> Seen:
        """`document` as `watcher` may see it."""
        view, verdict = self._policing.rules.view_verdict(presentity, watcher)
        if view is PresenceView.NOTHING:
            return Seen(None, verdict)
        if view is PresenceView.AVAILABILITY and document is not None:
            return Seen(reduce_document(document), is_reduced=True)
        return Seen(document)
