"""What an event package is to the notifier (RFC 6665 section 5.4), and whether a subscriber takes its documents."""

from __future__ import annotations

from typing import Protocol

from isthmus.model import Address
from isthmus.services.watch import Admission, Watch
from isthmus.sip.message import SipRequest


class EventPackage(Protocol):
    """An event package as the notifier sees it (RFC 6665 section 5.4)."""

    name: str
    body_types: tuple[str, ...]

    def admit(self, watcher: Address, resource: Address, request: SipRequest) -> Admission:
        """May this subscription begin, and in which state?"""

    def content(self, watch: Watch) -> tuple[str, bytes] | None:
        """Media type and body of the next NOTIFY, or None for an empty one."""

    def polled(self, watch: Watch) -> None:
        """The state was fetched once; there is no subscription."""

    def began(self, watch: Watch) -> None:
        """A subscription was accepted (its first NOTIFY is on the way)."""

    def refreshed(self, watch: Watch, request: SipRequest) -> None:
        """It goes on (its NOTIFY is on the way). Raises PeerError when the request cannot be taken."""

    def restored(self, watch: Watch) -> None:
        """A subscription from before a restart goes on; nothing is sent for it now."""

    def ended(self, watch: Watch) -> None:
        """A subscription is over, for whatever reason."""


def accepted_types(request: SipRequest) -> frozenset[str]:
    """Media types of Accept, without parameters; empty when the header is absent (the package's default applies)."""
    return frozenset(value.partition(";")[0].strip().lower() for value in request.headers.get_list("Accept"))


def is_acceptable(request: SipRequest, body_types: tuple[str, ...]) -> bool:
    """True when the subscriber takes one of `body_types`, by name or by wildcard (RFC 3261 section 20.1)."""
    accepted = accepted_types(request)
    wildcards = {"*/*", *(f"{kind.partition('/')[0]}/*" for kind in body_types)}
    return not accepted or not accepted.isdisjoint({*body_types, *wildcards})
