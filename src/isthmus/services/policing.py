"""Keeps the rules that are in force: loads them, applies changes as a whole, and discovers partner domains.

A change is put on record (audit), made durable, swapped in, and announced with `PolicyChanged`, in this order: what
the store refused never takes effect, and nothing takes effect without a record.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from isthmus.config import PolicyDefaults
from isthmus.errors import OperationError, StoreError, UnknownSubjectError
from isthmus.metrics import Metrics
from isthmus.model import Address, Modality, Verdict, canonical_domain
from isthmus.policy import (
    Difference,
    DomainStanding,
    PartnerDomains,
    PresenceView,
    Rules,
    check_setting,
    difference,
)
from isthmus.policy.settings import Values
from isthmus.ports import AuditRecord, Bus, Clock, DomainRule, PolicySetting, Store
from isthmus.services.discovery import MAXIMUM_DISCOVERED_DOMAINS, DiscoveredDomains
from isthmus.services.events import PolicyChanged
from isthmus.trace import Trace

# Who acts when nobody did: discovery.
ITSELF = "isthmus"


class Policing:
    """The policy in force.

    Args:
        business_domains: canonical names of our SIP domains.
        consumer_domain: our own consumer realm.
        service_locals: local parts of our own services in every business domain.
        defaults: policy of a new data directory, and the limits of discovered domains.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        clock: Clock,
        trace: Trace,
        *,
        business_domains: Iterable[str],
        consumer_domain: str,
        defaults: PolicyDefaults | None = None,
        service_locals: Iterable[str] = (),
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._trace = trace
        self._metrics = metrics or Metrics()
        defaults = defaults or PolicyDefaults()
        domains = tuple(canonical_domain(name) for name in business_domains)
        self._rules = Rules.build(
            business_domains=domains,
            consumer_domain=canonical_domain(consumer_domain),
            services=[Address.of(local, domain) for local in service_locals for domain in domains],
            defaults={"connectivity": "on" if defaults.connectivity else "off"},
        )
        self._own_domains = self._rules.business_domains | {self._rules.consumer_domain}
        self._settings: tuple[PolicySetting, ...] = ()
        self._domain_rules: dict[str, DomainRule] = {}
        self._memberships: dict[Address, tuple[str, ...]] = {}
        self._blocked: dict[Address, set[Address]] = {}
        self._discovered = DiscoveredDomains(
            defaults.discovered_messages_per_second, defaults.discovered_maximum_contacts
        )
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Read the policy at start. Raises StoreError; OperationError when a stored row cannot exist."""
        self._settings = tuple(await self._store.policy_settings())
        self._domain_rules = {rule.domain: rule for rule in await self._store.domain_rules()}
        blocks = frozenset(await self._store.blocks())
        await self._read_memberships()
        self._swap(self._rebuilt().with_blocks(blocks))

    async def close(self) -> None:
        """Finish what discovery is writing."""
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- questions (hot path) ---

    @property
    def rules(self) -> Rules:
        """The rules now; replaced as a whole when something changes."""
        return self._rules

    def verdict(self, sender: Address, recipient: Address, modality: Modality, *, is_contact: bool) -> Verdict:
        """May this cross now? As `Rules.verdict`, and the limits of discovered domains count this attempt."""
        verdict = self._rules.verdict(sender, recipient, modality, is_contact=is_contact)
        if verdict.is_allowed and not (sender.domain in self._own_domains and recipient.domain in self._own_domains):
            limit = self._limited(sender, recipient)
            verdict = verdict if limit is None else limit
        if not verdict.is_allowed:
            self._metrics.refusals.add(verdict.rule)
        return verdict

    def view(self, presentity: Address, watcher: Address) -> PresenceView:
        """What `watcher` may see of `presentity` now."""
        return self._rules.view(presentity, watcher)

    def is_blocked(self, owner: Address, peer: Address) -> bool:
        """True when `owner` blocked `peer`."""
        return (owner, peer) in self._rules.blocks

    def blocked_by(self, owner: Address) -> list[Address]:
        """Whom `owner` blocked, by address."""
        return sorted(self._blocked.get(owner, ()))

    def settings(self) -> tuple[PolicySetting, ...]:
        """Every stored setting."""
        return self._settings

    def domain_rules(self) -> list[DomainRule]:
        """Every stored domain rule and discovered domain, by name."""
        return [self._domain_rules[name] for name in sorted(self._domain_rules)]

    def addressed_by(self, domain: str) -> int:
        """How many of our people a discovered domain has addressed since start."""
        return self._discovered.contacts(domain)

    # --- settings ---

    def preview(
        self,
        changed: Sequence[PolicySetting],
        removed: Sequence[PolicySetting],
        pairs: Iterable[tuple[Address, Address]],
    ) -> list[Difference]:
        """What a change would do to `pairs` of people in touch. Raises OperationError."""
        settings = self._merged(changed, removed)
        return difference(self._rules, self._rebuilt(settings), pairs)

    async def change(
        self, changed: Sequence[PolicySetting], removed: Sequence[PolicySetting] = (), *, actor: str = ITSELF
    ) -> None:
        """Set and unset values as one change. Raises OperationError, StoreError (then nothing has changed)."""
        async with self._changing:
            settings = self._merged(changed, removed)
            for setting in changed:
                await self._record(actor, "policy set", setting.scope, f"{setting.name} = {setting.value}")
            for setting in removed:
                await self._record(actor, "policy unset", setting.scope, setting.name)
            await self._store.save_policy_settings(changed, removed)
            self._settings = settings
            self._swap(self._rebuilt())
        people = {check_setting(setting.scope, setting.name).person for setting in (*changed, *removed)}
        self._announce(PolicyChanged(next(iter(people)) if len(people) == 1 else None))

    # --- domains ---

    def preview_domain(
        self, domain: str, rule: DomainRule | None, pairs: Iterable[tuple[Address, Address]]
    ) -> list[Difference]:
        """What another rule for `domain` (None: no rule) would do to `pairs`."""
        rules = {name: old for name, old in self._domain_rules.items() if name != domain}
        if rule is not None:
            rules[domain] = rule
        after = replace(self._rules, partners=PartnerDomains.arrange(rules.values()))
        return difference(self._rules, after, pairs)

    async def save_domain_rule(self, rule: DomainRule, *, actor: str = ITSELF) -> None:
        """Allow or block a partner domain. Raises OperationError for a domain of ours, StoreError."""
        self.check_partner(rule.domain)
        async with self._changing:
            reach = " and everything below" if rule.includes_subdomains else ""
            await self._record(actor, f"domain {rule.action}", rule.domain, f"{rule.note}{reach}")
            await self._store.save_domain_rule(rule)
            self._domain_rules[rule.domain] = rule
            self._discovered.forget(rule.domain)
            self._swap(self._rebuilt())
        self._announce(PolicyChanged(domain="" if rule.includes_subdomains else rule.domain))

    async def delete_domain_rule(self, domain: str, *, actor: str = ITSELF) -> None:
        """Forget what was said of a partner domain. Raises UnknownSubjectError, StoreError."""
        async with self._changing:
            rule = self._domain_rules.get(domain)
            if rule is None:
                raise UnknownSubjectError(f"there is no rule for {domain}; `isthmus domain list` shows all")
            await self._record(actor, "domain remove", domain, rule.action)
            await self._store.delete_domain_rule(domain)
            del self._domain_rules[domain]
            self._discovered.forget(domain)
            self._swap(self._rebuilt())
        self._announce(PolicyChanged(domain="" if rule.includes_subdomains else domain))

    def check_partner(self, domain: str) -> None:
        """Raise OperationError when `domain` is one of ours, where domain rules have no meaning."""
        if domain in self._own_domains:
            raise OperationError(
                f"{domain} is one of our own domains; close or open the border with `isthmus policy set`"
            )

    # --- people ---

    async def block(self, owner: Address, peer: Address, *, actor: str = ITSELF) -> None:
        """`owner` blocks `peer`, durably. Raises StoreError."""
        async with self._changing:
            await self._record(actor, "contact block", str(owner), str(peer))
            await self._store.save_block(owner, peer)
            self._swap(self._rules.with_blocks(self._rules.blocks | {(owner, peer)}))
        self._announce(PolicyChanged(owner))

    async def unblock(self, owner: Address, peer: Address, *, actor: str = ITSELF) -> None:
        """Take a block back, durably. Raises StoreError."""
        async with self._changing:
            await self._record(actor, "contact unblock", str(owner), str(peer))
            await self._store.delete_block(owner, peer)
            self._swap(self._rules.with_blocks(self._rules.blocks - {(owner, peer)}))
        self._announce(PolicyChanged(owner))

    async def reload_memberships(self) -> None:
        """Groups of people have changed: read them again. Raises StoreError."""
        async with self._changing:
            before = self._memberships
            await self._read_memberships()
            if self._memberships == before:
                return
            self._swap(self._rebuilt())
        self._announce(PolicyChanged())

    # --- inside ---

    def _limited(self, sender: Address, recipient: Address) -> Verdict | None:
        domain = self._rules.partner_domain(sender, recipient)
        if not domain or self._rules.partners.standing(domain)[0] is not DomainStanding.DISCOVERED:
            return None
        if domain not in self._domain_rules:
            self._discover(domain)
        if sender.domain != domain:
            return None  # our own people are limited as people, not by whom they write to
        return self._discovered.admit(domain, recipient, self._clock.monotonic())

    def _discover(self, domain: str) -> None:
        if len(self._domain_rules) >= MAXIMUM_DISCOVERED_DOMAINS:
            return
        rule = DomainRule(domain, DomainStanding.DISCOVERED.value, since=self._clock.wall())
        self._domain_rules[domain] = rule
        self._trace.decision(
            f"partner domain {domain} discovered; it is limited until `isthmus domain allow {domain}`",
            people=(domain,),
            rule="domain.discovered",
        )
        task = asyncio.ensure_future(self._write_down(rule))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write_down(self, rule: DomainRule) -> None:
        try:
            async with self._changing:
                if self._domain_rules.get(rule.domain) is rule:
                    await self._record(ITSELF, "domain discovered", rule.domain, "")
                    await self._store.save_domain_rule(rule)
        except StoreError as error:
            # Known in memory, so the limits hold; forgotten rows are discovered again after a restart.
            self._trace.decision(f"{rule.domain} could not be written down: {error}", mark="!")

    def _merged(self, changed: Sequence[PolicySetting], removed: Sequence[PolicySetting]) -> tuple[PolicySetting, ...]:
        for setting in changed:
            check_setting(setting.scope, setting.name, setting.value)
        for setting in removed:
            check_setting(setting.scope, setting.name)
        gone = {(setting.scope, setting.name) for setting in (*changed, *removed)}
        return (*(old for old in self._settings if (old.scope, old.name) not in gone), *changed)

    def _rebuilt(self, settings: tuple[PolicySetting, ...] | None = None) -> Rules:
        chosen = self._settings if settings is None else settings
        return replace(
            self._rules,
            values=Values.arrange(chosen, self._memberships, self._rules.values.defaults),
            partners=PartnerDomains.arrange(self._domain_rules.values()),
        )

    async def _read_memberships(self) -> None:
        people = (*await self._store.users(), *await self._store.consumers())
        self._memberships = {person.address: person.groups for person in people if person.groups}

    async def _record(self, actor: str, action: str, subject: str, detail: str) -> None:
        await self._store.save_audit(AuditRecord(self._clock.wall(), actor, action, subject, detail.strip()))

    def _swap(self, rules: Rules) -> None:
        if rules.blocks is not self._rules.blocks:
            self._blocked = defaultdict(set)
            for owner, peer in rules.blocks:
                self._blocked[owner].add(peer)
        self._rules = rules

    def _announce(self, event: PolicyChanged) -> None:
        """Events travel to an address; what concerns everybody travels to an address of our own."""
        to = event.address or next(iter(sorted(self._rules.services)), None)
        self._trace.decision(
            f"policy changed for {event.address or event.domain or 'everybody'}", rule="policy.changed"
        )
        if to is not None:
            self._bus.send(to, event)
