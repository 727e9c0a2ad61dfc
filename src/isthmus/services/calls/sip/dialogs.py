"""The dialogs of all calls by their ids: where requests within them, CANCELs and Replaces find their call."""

from __future__ import annotations

import contextlib
from typing import Protocol, TypeVar

from isthmus.errors import SipParseError
from isthmus.model import Address
from isthmus.ports import Flow, IncomingRequest
from isthmus.services.calls.leg import Leg
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.uri import OtherUri, SipUri


class DialogOwner(Protocol):
    """Who takes the requests of one dialog (`services.calls.sip.session`)."""

    @property
    def party(self) -> Address:
        """The person at the other end of the dialog."""

    @property
    def peer(self) -> Address:
        """The person at the other end of the call."""

    @property
    def leg(self) -> Leg | None:
        """The leg that the dialog belongs to."""

    def is_heard_on(self, flow: Flow) -> bool:
        """True when a request on this flow comes from where the device was last proven to be."""

    def receive(self, incoming: IncomingRequest) -> None:
        """Take a request within the dialog, ACK among them."""

    def cancelled(self, incoming: IncomingRequest, cancel: SipRequest) -> None:
        """An INVITE of this dialog, also the first, was cancelled."""

    def flow_closed(self, flow: Flow) -> None:
        """A connection is gone."""


DialogKey = tuple[str, str, str]
"""Call-ID, our tag, the peer's tag."""


class DialogTable:
    """The dialogs of all calls, by id."""

    def __init__(self) -> None:
        self._owners: dict[DialogKey, DialogOwner] = {}
        self._callers: dict[tuple[str, str], DialogOwner] = {}

    def add(self, key: DialogKey, owner: DialogOwner) -> None:
        """Let `owner` take the requests of a dialog."""
        self._owners[key] = owner
        self._callers[key[0], key[2]] = owner

    def discard(self, key: DialogKey, owner: DialogOwner) -> None:
        """Forget a dialog, if it is still this owner's."""
        if self._owners.get(key) is owner:
            del self._owners[key]
        if self._callers.get((key[0], key[2])) is owner:
            del self._callers[key[0], key[2]]

    def find(self, call_id: str, local_tag: str, remote_tag: str) -> DialogOwner | None:
        """Return who takes the requests of this dialog, or None: 481."""
        return self._owners.get((call_id, local_tag, remote_tag))

    def of_sender(self, call_id: str, remote_tag: str) -> DialogOwner | None:
        """Return the dialog that an INVITE without our tag has made, for its CANCEL."""
        return self._callers.get((call_id, remote_tag))

    def leg_named(self, replaces: tuple[str, str, str]) -> Leg | None:
        """Return the leg whose dialog a Replaces means: (Call-ID, to-tag, from-tag), RFC 3891 section 3."""
        owner = self._owners.get(replaces)
        return None if owner is None else owner.leg

    def flow_closed(self, flow: Flow) -> None:
        """Tell all dialogs that a connection is gone."""
        for owner in tuple(self._owners.values()):
            owner.flow_closed(flow)

    def __len__(self) -> int:
        return len(self._owners)


Message = TypeVar("Message", SipRequest, SipResponse)


def with_contact(message: Message, otherwise: SipUri | OtherUri) -> Message:
    """Return a message that has a Contact to make a dialog with, if need be `otherwise`.

    COMPAT: peers of RFC 2543 (RFC 4475 inv2543) need not send one; they are where their From, or the request, says.
    """
    with contextlib.suppress(SipParseError):
        if message.contacts:
            return message
    copy = message.copy()
    copy.headers.set("Contact", f"<{otherwise}>")
    return copy
