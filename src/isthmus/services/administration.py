"""What administrators do, as one table of operations for the command line and the API (and later the admin centre).

The same object works inside a running server and, without one, directly on the store; operations that need live
connections say so. Arguments and results are plain (strings, numbers, lists, dictionaries).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from isthmus import __version__
from isthmus.config import Configuration
from isthmus.errors import AddressError, OperationError, ServerNotRunningError, UnknownSubjectError
from isthmus.model import Address, Authorisation, AuthorisationState, Contact, canonical_domain
from isthmus.policy import SETTINGS, Difference, DomainStanding, check_setting
from isthmus.ports import AuditRecord, Clock, DomainRule, PolicySetting, Store
from isthmus.services.accounts import Accounts, parse_address
from isthmus.services.contact_import import ContactImport
from isthmus.services.explanation import Explanation
from isthmus.services.operations import Function, Operation, Plain, to_plain
from isthmus.services.policing import Policing

# A dry run of a global change may touch everybody; the answer stays readable, the count stays true.
MAXIMUM_LISTED_CHANGES = 1_000
MAXIMUM_LISTED_AUDIT = 1_000


class ContactsService(Protocol):
    """The part of `services.contacts` that administrators use."""

    async def approve(self, presentity: Address, watcher: Address, *, by: str = "") -> bool:
        """Grant; False when nobody asked."""

    async def decline(self, presentity: Address, watcher: Address, *, text: str = "") -> bool:
        """Refuse or take back; False when there was nothing."""

    async def block(self, owner: Address, peer: Address, *, by: str = "") -> None:
        """Owner blocks peer; both directions end."""

    async def unblock(self, owner: Address, peer: Address, *, by: str = "") -> None:
        """Take a block back."""

    def contacts(self, owner: Address) -> list[Contact]:
        """One person's contact list."""

    def pending(self, presentity: Address) -> list[Authorisation]:
        """Requests that wait for one person."""

    def all(self) -> Iterator[Authorisation]:
        """Every authorisation."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of the doctor found.

    Attributes:
        name: what was looked at, e.g. `dns corp.test`.
        outcome: "ok", "warn" or "fail".
        detail: what was found.
        remedy: what to do; empty when ok.
    """

    name: str
    outcome: str
    detail: str
    remedy: str = ""


class Doctor(Protocol):
    """Examines configuration and surroundings (`admin.doctor`)."""

    async def examine(self) -> list[Finding]:
        """Run all checks; never raises."""


class Administration:
    """The table of operations.

    Args:
        is_live: we are inside a running server, whose connections carry what is decided.
        status: numbers of the running server for `isthmus status`.
        more: operations of other services, by name.
    """

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        policing: Policing,
        contacts: ContactsService,
        accounts: Accounts,
        explanation: Explanation,
        clock: Clock,
        *,
        contact_import: ContactImport,
        is_live: bool,
        doctor: Doctor | None = None,
        status: Callable[[], Mapping[str, object]] | None = None,
        more: Mapping[str, Function] | None = None,
    ) -> None:
        self._configuration = configuration
        self._store = store
        self._policing = policing
        self._contacts = contacts
        self._explanation = explanation
        self._clock = clock
        self._is_live = is_live
        self._doctor = doctor
        self._status = status
        functions: dict[str, Function] = {
            "user.add": accounts.add_user,
            "user.list": accounts.list_users,
            "user.disable": accounts.disable_user,
            "user.enable": accounts.enable_user,
            "user.remove": accounts.remove_user,
            "user.password": accounts.set_password,
            "user.groups": accounts.set_groups,
            "consumer.add": accounts.add_consumer,
            "consumer.list": accounts.list_consumers,
            "contact.list": self.list_contacts,
            "contact.approve": self.approve_contact,
            "contact.decline": self.decline_contact,
            "contact.block": self.block_contact,
            "contact.unblock": self.unblock_contact,
            "contact.import": contact_import.run,
            "domain.allow": self.allow_domain,
            "domain.block": self.block_domain,
            "domain.remove": self.remove_domain,
            "domain.list": self.list_domains,
            "policy.show": self.show_policy,
            "policy.set": self.set_policy,
            "policy.unset": self.unset_policy,
            "audit": self.list_audit,
            "explain": self.explain,
            "doctor": self.examine,
            "status": self.status,
            **(more or {}),
        }
        self.operations: Mapping[str, Operation] = {
            name: Operation.of(name, function) for name, function in functions.items()
        }

    async def call(self, name: str, arguments: Mapping[str, object], *, actor: str) -> Plain:
        """Run one operation by name.

        Args:
            actor: who does it, for the audit log.

        Raises:
            LocalError: it cannot be done; the text says why and what to do.
        """
        operation = self.operations.get(name)
        if operation is None:
            raise OperationError(f"there is no operation {name!r}; there are: {', '.join(self.operations)}")
        return await operation.call(arguments, actor)

    # --- contacts ---

    async def list_contacts(self, owner: str = "", is_pending_only: bool = False) -> Plain:
        """Contacts of one business user, or of all; with the requests that wait for an answer."""
        owners = [parse_address(owner)] if owner else self._owners()
        rows = [contact for person in owners for contact in self._contacts.contacts(person)]
        return [to_plain(row) for row in rows if row.is_pending_in or not is_pending_only]

    async def approve_contact(self, owner: str, peer: str, *, actor: str) -> Plain:
        """Let `peer` see `owner`'s presence and reach them, as `peer` asked."""
        one, other = self._live_pair(owner, peer)
        if not await self._contacts.approve(one, other, by=actor):
            raise UnknownSubjectError(f"{other} has not asked {one}; `isthmus contact list {one}` shows who has")
        await self._record(actor, "contact approve", str(one), str(other))
        return self._contact(one, other)

    async def decline_contact(self, owner: str, peer: str, *, actor: str) -> Plain:
        """Refuse the request of `peer`, or take an approval back."""
        one, other = self._live_pair(owner, peer)
        if not await self._contacts.decline(one, other, text="declined by the administrator"):
            raise UnknownSubjectError(f"{other} has not asked {one} and does not see them")
        await self._record(actor, "contact decline", str(one), str(other))
        return self._contact(one, other)

    async def block_contact(self, owner: str, peer: str, *, actor: str) -> Plain:
        """Let nothing from `peer` reach `owner`; to `peer` it looks as if `owner` were away."""
        one, other = parse_address(owner), parse_address(peer)
        await self._contacts.block(one, other, by=actor)
        return self._contact(one, other)

    async def unblock_contact(self, owner: str, peer: str, *, actor: str) -> Plain:
        """Undo `block`."""
        one, other = parse_address(owner), parse_address(peer)
        if not self._policing.is_blocked(one, other):
            raise UnknownSubjectError(f"{one} has not blocked {other}")
        await self._contacts.unblock(one, other, by=actor)
        return self._contact(one, other)

    # --- partner domains ---

    async def allow_domain(
        self, domain: str, subdomains: bool = False, note: str = "", dry_run: bool = False, *, actor: str
    ) -> Plain:
        """List a partner domain as allowed: no limits of discovered domains apply to it."""
        return await self._rule_domain(domain, DomainStanding.ALLOWED, subdomains, note, dry_run, actor)

    async def block_domain(
        self, domain: str, subdomains: bool = False, note: str = "", dry_run: bool = False, *, actor: str
    ) -> Plain:
        """Exchange nothing with a partner domain; live subscriptions end."""
        return await self._rule_domain(domain, DomainStanding.BLOCKED, subdomains, note, dry_run, actor)

    async def remove_domain(self, domain: str, dry_run: bool = False, *, actor: str) -> Plain:
        """Forget what was said of a partner domain."""
        name = _domain(domain)
        changes = self._policing.preview_domain(name, None, self._pairs())
        if not dry_run:
            await self._policing.delete_domain_rule(name, actor=actor)
        return {"domain": name, "is_applied": not dry_run, **_listed(changes)}

    async def list_domains(self) -> Plain:
        """Our own domains, and partner domains: allowed, blocked, discovered."""
        own = [
            {"domain": canonical_domain(domain.name), "action": f"ours ({domain.kind.value})"}
            for domain in self._configuration.domains
        ]
        own.append({"domain": self._policing.rules.consumer_domain, "action": "ours (consumer)"})
        partners = [
            {**to_plain(rule), "people_addressed": self._policing.addressed_by(rule.domain)}
            for rule in self._policing.domain_rules()
        ]
        return [*own, *partners]

    # --- policy ---

    async def show_policy(self, person: str = "") -> Plain:
        """Settings in force: of the organisation with its exceptions, or as they end up for one person."""
        rules = self._policing.rules
        address = parse_address(person) if person else None
        rows = []
        for kind in SETTINGS.values():
            found = rules.values.effective(address, kind.name) if address else rules.values.organisation(kind.name)
            row: dict[str, Plain] = {"name": kind.name, "value": found.value, "scope": found.scope, "text": kind.text}
            if address is None:
                row["exceptions"] = {
                    setting.scope: setting.value
                    for setting in self._policing.settings()
                    if setting.name == kind.name and setting.scope != "global"
                }
            rows.append(row)
        return rows

    async def set_policy(self, scope: str, name: str, value: str, dry_run: bool = False, *, actor: str) -> Plain:
        """Set one value for `global`, `group:NAME` or `user:ADDRESS`; acts on live subscriptions at once."""
        setting = PolicySetting(str(check_setting(scope, name, value)), name, value)
        return await self._change([setting], [], dry_run, actor)

    async def unset_policy(self, scope: str, name: str, dry_run: bool = False, *, actor: str) -> Plain:
        """Take one value back, so that the less specific one holds again."""
        parsed = str(check_setting(scope, name))
        known = next((old for old in self._policing.settings() if (old.scope, old.name) == (parsed, name)), None)
        if known is None:
            raise UnknownSubjectError(f"{name} is not set for {parsed}; `isthmus policy show` shows what is")
        return await self._change([], [known], dry_run, actor)

    async def list_audit(self, limit: int = 100) -> Plain:
        """Who changed what, newest first."""
        return [to_plain(record) for record in await self._store.audit(max(0, min(limit, MAXIMUM_LISTED_AUDIT)))]

    # --- diagnosis ---

    async def explain(self, one: str, other: str) -> Plain:
        """What may cross between two people, what did, and why not."""
        return await self._explanation.explain(parse_address(one), parse_address(other))

    async def examine(self) -> Plain:
        """Run the doctor's checks."""
        if self._doctor is None:
            raise OperationError("there is no doctor here")
        return [to_plain(finding) for finding in await self._doctor.examine()]

    async def status(self) -> Plain:
        """Whether the server runs, and its numbers."""
        numbers = dict(self._status()) if self._status else {}
        authorisations = list(self._contacts.all())
        return {
            "version": __version__,
            "is_running": self._is_live,
            "domains": [canonical_domain(domain.name) for domain in self._configuration.domains],
            "users": len(await self._store.users()),
            "contacts": sum(row.state is AuthorisationState.ACTIVE for row in authorisations),
            "waiting_requests": sum(row.state is AuthorisationState.PENDING for row in authorisations),
            "connectivity": self._policing.rules.values.organisation("connectivity").value,
            **to_plain(numbers),
        }

    # --- inside ---

    def _owners(self) -> list[Address]:
        ends = {end for row in self._contacts.all() for end in (row.watcher, row.presentity)}
        ends |= {owner for owner, _ in self._policing.rules.blocks}
        return sorted(end for end in ends if self._policing.rules.is_business(end))

    def _live_pair(self, owner: str, peer: str) -> tuple[Address, Address]:
        if not self._is_live:
            raise ServerNotRunningError(
                "the answer to a contact request has to reach the other side: start the server (`isthmus serve`) first"
            )
        return parse_address(owner), parse_address(peer)

    def _contact(self, owner: Address, peer: Address) -> Plain:
        rows = self._contacts.contacts(owner)
        return to_plain(next((row for row in rows if row.peer == peer), Contact(owner, peer)))

    async def _rule_domain(
        self, domain: str, standing: DomainStanding, subdomains: bool, note: str, dry_run: bool, actor: str
    ) -> Plain:
        rule = DomainRule(_domain(domain), standing.value, subdomains, note.strip(), self._clock.wall())
        self._policing.check_partner(rule.domain)
        changes = self._policing.preview_domain(rule.domain, rule, self._pairs())
        if not dry_run:
            await self._policing.save_domain_rule(rule, actor=actor)
        return {**to_plain(rule), "is_applied": not dry_run, **_listed(changes)}

    async def _change(
        self, changed: list[PolicySetting], removed: list[PolicySetting], dry_run: bool, actor: str
    ) -> Plain:
        changes = self._policing.preview(changed, removed, self._pairs())
        if not dry_run:
            await self._policing.change(changed, removed, actor=actor)
        [setting] = changed or removed
        outcome = {"scope": setting.scope, "name": setting.name, "value": setting.value if changed else None}
        return {**outcome, "is_applied": not dry_run, **_listed(changes)}

    def _pairs(self) -> list[tuple[Address, Address]]:
        """People in touch now: whoever was granted a view."""
        return [(row.watcher, row.presentity) for row in self._contacts.all() if row.state is AuthorisationState.ACTIVE]

    async def _record(self, actor: str, action: str, subject: str, detail: str) -> None:
        await self._store.save_audit(AuditRecord(self._clock.wall(), actor, action, subject, detail))


def _domain(text: str) -> str:
    try:
        return canonical_domain(text.strip().removeprefix("*."))
    except AddressError as error:
        raise OperationError(str(error)) from error


def _listed(changes: Iterable[Difference]) -> dict[str, Plain]:
    rows = list(changes)
    return {"changes": [to_plain(row) for row in rows[:MAXIMUM_LISTED_CHANGES]], "change_count": len(rows)}
