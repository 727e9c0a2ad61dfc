"""Consent of business users: the question "may they see you?" reaches a person, and so does the answer.

Clients that watch `presence.winfo` (RFC 3857) show the request themselves. Everybody else gets a message from the
service address, which can be answered in words; the administrator can answer with `isthmus contact approve`.
A request stays pending over restarts, because it is an authorisation in the store and not a memory of this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from isthmus.errors import IsthmusError, PeerError
from isthmus.model import Address, AuthorisationState, Contact, Realm
from isthmus.ports import Bus
from isthmus.services.contacts import Answer, Contacts, People
from isthmus.services.events import AuthorisationChanged, RequestUnseen

# A reply in a chat window stays readable; longer lists are for the command line.
MAXIMUM_LISTED = 30

HELP = (
    "I can do this for you: list (your contacts), add ADDRESS, remove ADDRESS, "
    "accept ADDRESS, decline ADDRESS, block ADDRESS, unblock ADDRESS."
)


class Notices(Protocol):
    """Sends a message from the service address of the recipient's domain; durable like any other message."""

    async def send_notice(self, recipient: Address, text: str) -> None:
        """Journal a notice. Raises StoreError."""


class Consent:
    """Asks business users and understands their answers.

    Args:
        has_request_viewer: True when a device of this user shows contact requests by itself (winfo subscription).
    """

    def __init__(
        self,
        contacts: Contacts,
        people: People,
        bus: Bus,
        notices: Notices,
        has_request_viewer: Callable[[Address], bool],
    ) -> None:
        self._contacts = contacts
        self._people = people
        self._notices = notices
        self._has_request_viewer = has_request_viewer
        self._commands: dict[str, Callable[[Address, Address], Awaitable[str]]] = {
            "accept": self._accept,
            "decline": self._decline,
            "block": self._block,
            "unblock": self._unblock,
            "add": self._add,
            "remove": self._remove,
        }
        bus.register(AuthorisationChanged, self._authorisation_changed)
        bus.register(RequestUnseen, self._request_unseen)

    def _authorisation_changed(self, _: Address, event: AuthorisationChanged) -> Awaitable[None] | None:
        is_new_request = event.state is AuthorisationState.PENDING and event.reason == "subscribe"
        if not is_new_request or self._people.realm_of(event.presentity.domain) is not Realm.BUSINESS_HOSTED:
            return None
        # Asked now and not in a task: a viewer that turns out to have crashed is told of by `RequestUnseen`.
        return None if self._has_request_viewer(event.presentity) else self.prompt(event.watcher, event.presentity)

    async def _request_unseen(self, _: Address, event: RequestUnseen) -> None:
        await self.prompt(event.watcher, event.presentity)

    async def prompt(self, watcher: Address, presentity: Address) -> None:
        """Ask `presentity` by message. Raises StoreError."""
        row = self._contacts.authorisation(watcher, presentity)
        note = f" They say: {row.note}" if row is not None and row.note else ""
        await self._notices.send_notice(
            presentity,
            f"{watcher} would like to be your contact and see your presence.{note} "
            f"Reply: accept {watcher} | decline {watcher} | block {watcher}",
        )

    async def command_received(self, user: Address, text: str) -> str:
        """Carry out what `user` wrote to the service address and return the reply. Raises StoreError."""
        words = text.strip().split()
        verb = words[0].lower().strip(".!,") if words else ""
        if verb == "list":
            return self._listing(user)
        command = self._commands.get(verb)
        if command is None:
            return HELP
        peer, problem = self._peer(user, verb, words[1:])
        if peer is None:
            return problem
        try:
            return await command(user, peer)
        except PeerError as error:
            return f"That did not work: {error}"

    def _peer(self, user: Address, verb: str, rest: list[str]) -> tuple[Address | None, str]:
        """The address a command is about; `accept` alone means the only request waiting."""
        if rest:
            try:
                return Address.parse(rest[0].strip("<>.,;").removeprefix("sip:").removeprefix("xmpp:")), ""
            except IsthmusError as error:
                return None, f"I do not understand the address: {error}"
        waiting = self._contacts.pending(user)
        if verb in ("accept", "decline", "block") and len(waiting) == 1:
            return waiting[0].watcher, ""
        if verb in ("accept", "decline", "block") and waiting:
            return None, "Whom? These requests wait: " + ", ".join(str(row.watcher) for row in waiting[:MAXIMUM_LISTED])
        if verb in ("accept", "decline"):
            return None, "No contact request is waiting."
        return None, f"Whom? Write: {verb} name@domain"

    async def _accept(self, user: Address, peer: Address) -> str:
        if not await self._contacts.approve(user, peer, by=str(user)):
            return f"No contact request from {peer} is waiting."
        return f"{peer} can now see your presence."

    async def _decline(self, user: Address, peer: Address) -> str:
        if not await self._contacts.decline(user, peer):
            return f"No contact request from {peer} is waiting."
        return f"Declined. {peer} does not see your presence."

    async def _block(self, user: Address, peer: Address) -> str:
        await self._contacts.block(user, peer)
        return f"{peer} is blocked: nothing from them reaches you. Take it back with: unblock {peer}"

    async def _unblock(self, user: Address, peer: Address) -> str:
        await self._contacts.unblock(user, peer)
        return f"{peer} is no longer blocked."

    async def _add(self, user: Address, peer: Address) -> str:
        if peer == user:
            return "That is you."
        if self._people.realm_of(peer.domain) is Realm.BUSINESS_HOSTED and not self._people.is_known_user(peer):
            return f"{peer} is not known here."
        if await self._contacts.ask(user, peer) is Answer.GRANTED:
            return f"{peer} is your contact."
        return f"{peer} was asked; you will see their presence when they agree."

    async def _remove(self, user: Address, peer: Address) -> str:
        gave_up = await self._contacts.give_up(user, peer)
        ended = await self._contacts.decline(user, peer)
        return f"{peer} is removed." if gave_up or ended else f"{peer} is not among your contacts."

    def _listing(self, user: Address) -> str:
        contacts = self._contacts.contacts(user)
        if not contacts:
            return "You have no contacts yet. Add one with: add name@domain"
        lines = [_describe(contact) for contact in contacts[:MAXIMUM_LISTED]]
        if len(contacts) > MAXIMUM_LISTED:
            lines.append(f"and {len(contacts) - MAXIMUM_LISTED} more")
        return "\n".join(lines)


def _describe(contact: Contact) -> str:
    """One line of the contact list, in words rather than in protocol terms."""
    words = {
        "both": "you see each other",
        "to": "you see them",
        "from": "they see you",
        "none": "",
    }[contact.subscription]
    extra = [words] if words else []
    if contact.is_pending_in:
        extra.append(f"waits for your answer (accept {contact.peer})")
    if contact.is_pending_out:
        extra.append("has not answered yet")
    if contact.is_blocked:
        extra.append("blocked")
    return f"{contact.peer}: {', '.join(extra)}"
