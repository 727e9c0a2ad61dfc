"""`isthmus explain ana@corp.test ben@people.test`: what may cross between two people, what did, and why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from isthmus.config import Configuration
from isthmus.model import Address, Contact, Modality, Realm
from isthmus.ports import Store
from isthmus.services.calls.operations import plain_record
from isthmus.services.operations import Plain, to_plain
from isthmus.services.policing import Policing
from isthmus.trace import Trace

MAXIMUM_RECENT = 20
MAXIMUM_CALLS = 5
# Calls of the first person that are looked through for those with the second; records are kept for some months.
MAXIMUM_EXAMINED_CALLS = 1_000

_SUBSCRIPTIONS = {
    "both": "see each other's presence",
    "to": "the first sees the second's presence",
    "from": "the second sees the first's presence",
    "none": "neither sees the other's presence",
}


# What this version carries; the other modalities have policy already, so that it is in force from their first day.
OFFERED = frozenset({Modality.PRESENCE, Modality.MESSAGES, Modality.AUDIO, Modality.VIDEO})


def offered_by(configuration: Configuration) -> frozenset[Modality]:
    """Return what can cross at all with this configuration."""
    return OFFERED if configuration.calls.enabled else OFFERED - {Modality.AUDIO, Modality.VIDEO}


class People(Protocol):
    """The part of `services.directory` that explanations ask."""

    def realm_of(self, domain: str) -> Realm:
        """Which network a domain belongs to."""

    def may_exist(self, address: Address) -> bool:
        """False only when we own the domain and know that there is no such user."""


class ContactList(Protocol):
    """The part of `services.contacts` that explanations ask."""

    def contacts(self, owner: Address) -> list[Contact]:
        """The contact list of one person."""

    def is_contact(self, sender: Address, recipient: Address) -> bool:
        """True when the recipient wants to hear from the sender."""


class Explanation:
    """Joins policy, contacts, totals, calls and recent decisions into one answer.

    Args:
        devices: how many devices a business user has registered now; None outside a running server.
        offered: what can cross here at all, whatever policy says.
    """

    def __init__(
        self,
        store: Store,
        policing: Policing,
        people: People,
        contacts: ContactList,
        trace: Trace,
        *,
        devices: Callable[[Address], int] | None = None,
        offered: frozenset[Modality] = OFFERED,
    ) -> None:
        self._store = store
        self._policing = policing
        self._people = people
        self._contacts = contacts
        self._trace = trace
        self._devices = devices
        self._offered = offered

    async def explain(self, one: Address, other: Address) -> Plain:
        """Everything that is known between two people. Raises StoreError."""
        contact = self._contact(one, other)
        crossings = [to_plain(crossing) for crossing in await self._store.crossings(one, other)]
        directions = [row for pair in ((one, other), (other, one)) for row in self._directions(*pair)]
        return {
            "people": [self._person(person) for person in (one, other)],
            "contact": to_plain(contact),
            "verdicts": directions,
            "views": [self._view(one, other), self._view(other, one)],
            "crossed": crossings,
            "calls": await self._calls(one, other),
            "recent": self._recent(one, other),
            "summary": self._summary(one, other, contact, directions, crossings),
        }

    def _contact(self, one: Address, other: Address) -> Contact:
        return next((row for row in self._contacts.contacts(one) if row.peer == other), Contact(one, other))

    def _person(self, person: Address) -> dict[str, Plain]:
        realm = self._people.realm_of(person.domain)
        row: dict[str, Plain] = {
            "address": str(person),
            "realm": realm.value,
            "exists": self._people.may_exist(person),
            "blocked": [str(peer) for peer in self._policing.blocked_by(person)],
        }
        if self._devices is not None and realm is Realm.BUSINESS_HOSTED:
            row["devices"] = self._devices(person)
        if realm is Realm.CONSUMER:
            standing, rule = self._policing.rules.partners.standing(person.domain)
            is_own = person.domain == self._policing.rules.consumer_domain
            row["domain"] = "our consumer realm" if is_own else f"{standing.value} {rule}".strip()
        return row

    def _is_hosted(self, person: Address) -> bool:
        return self._people.realm_of(person.domain) is Realm.BUSINESS_HOSTED and self._people.may_exist(person)

    def _directions(self, sender: Address, recipient: Address) -> list[dict[str, Plain]]:
        is_contact = self._contacts.is_contact(sender, recipient)
        rows = []
        for modality in Modality:
            # The rules, not the live policing: asking must not use up a discovered domain's allowance.
            verdict = self._policing.rules.verdict(sender, recipient, modality, is_contact=is_contact)
            rows.append(
                {
                    "sender": str(sender),
                    "recipient": str(recipient),
                    "modality": modality.value,
                    "is_allowed": verdict.is_allowed,
                    "is_offered": modality in self._offered,
                    "rule": verdict.rule,
                    "text": self._for_administrator(verdict.rule, verdict.text, sender, recipient),
                    "scope": self._scope(verdict.rule, modality, sender, recipient),
                }
            )
        return rows

    @staticmethod
    def _for_administrator(rule: str, text: str, sender: Address, recipient: Address) -> str:
        """What the sender must not learn, the administrator must (edge case 15)."""
        return f"{recipient} blocked {sender}" if rule == "block.recipient" else text

    def _scope(self, rule: str, modality: Modality, sender: Address, recipient: Address) -> str:
        """The exact scope behind a rule such as `group.messages`; empty for rules that are no settings."""
        kind, _, name = rule.partition(".")
        values = self._policing.rules.values
        if name == modality.value:
            found = (values.effective(sender, name), values.effective(recipient, name))
        elif name == "strangers":
            found = (values.effective(recipient, name),) * 2
        else:
            return kind if name == "connectivity" else ""
        return next((effective.scope for effective in found if effective.kind.word == kind), "")

    def _view(self, presentity: Address, watcher: Address) -> dict[str, Plain]:
        view, verdict = self._policing.rules.view_verdict(presentity, watcher)
        return {
            "presentity": str(presentity),
            "watcher": str(watcher),
            "view": view.value,
            "rule": verdict.rule,
            "text": self._for_administrator(verdict.rule, verdict.text, watcher, presentity),
        }

    async def _calls(self, one: Address, other: Address) -> list[Plain]:
        """The last calls of the two, newest first."""
        records = await self._store.calls(person=one, limit=MAXIMUM_EXAMINED_CALLS)
        found = [record for record in records if other in (record.caller, record.callee)]
        return [plain_record(record) for record in found[:MAXIMUM_CALLS]]

    def _recent(self, one: Address, other: Address) -> list[Plain]:
        both = {str(one), str(other)}
        found = [line for line in self._trace.recent if both <= set(line.people)]
        return [to_plain(line) for line in found[-MAXIMUM_RECENT:]]

    def _summary(
        self,
        one: Address,
        other: Address,
        contact: Contact,
        directions: list[dict[str, Plain]],
        crossings: list[dict[str, Plain]],
    ) -> list[str]:
        lines = [f"{person} does not exist" for person in (one, other) if not self._people.may_exist(person)]
        lines.append(f"{one} and {other}: {_SUBSCRIPTIONS[contact.subscription]}")
        if contact.is_pending_out:
            lines.append(f"{one} asked {other} and waits for an answer")
        if contact.is_pending_in:
            lines.append(f"{other} asked {one}: `isthmus contact approve {one} {other}` or decline")
        refused = [row for row in directions if not row["is_allowed"]]
        if not refused:
            lines.append("policy lets everything cross")
        missing = [modality.value for modality in Modality if modality not in self._offered]
        lines.append(f"not offered here, whatever policy says: {', '.join(missing)}")
        for person in (one, other):
            if self._devices is not None and self._is_hosted(person) and not self._devices(person):
                lines.append(f"{person} has no registered device: messages wait")
        for reason in dict.fromkeys((row["rule"], row["text"]) for row in refused):
            what = ", ".join(dict.fromkeys(row["modality"] for row in refused if (row["rule"], row["text"]) == reason))
            lines.append(f"policy stops {what}: {reason[1]} ({reason[0]})")
        lines.extend(
            f"last failure {row['sender']} -> {row['recipient']} ({row['kind']}): {row['last_failure']}"
            for row in crossings
            if row["last_failure_at"] > row["last_at"]
        )
        return lines
