"""The rules in force, as one immutable object that answers with verdicts.

Order of decision, first match wins:

1. `block.recipient`, `block.sender`: one of the two blocked the other. Blocks always win.
2. `relay`: neither lives in a business domain of ours; we carry nobody else's traffic.
3. `internal`: both live in our business domains; connectivity policy is about the border only.
4. `global.connectivity`: the organisation's switch.
5. `domain.blocked`, `domain.unlisted`: the partner domain. Our own consumer realm has no domain rule.
6. `user.messages`, `group.messages`, `global.messages`, `default.messages`: the flag of the modality. Most specific
   wins; where both people have one of equal rank, off wins.
7. `user.strangers` ...: what reaches the recipient from people who are not contacts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from isthmus.model import Address, Modality, Verdict
from isthmus.policy.domains import DomainRuleLike, DomainStanding, PartnerDomains
from isthmus.policy.settings import Effective, PresenceView, ScopeKind, SettingLike, Strangers, Values

# Some 10 MB of answers; beyond that all are forgotten, which costs less than keeping order among them.
MAXIMUM_CACHED_VERDICTS = 65_536

_Key = tuple[Address, Address, Modality, bool]

_NOUNS = {
    Modality.PRESENCE: "presence and contact requests are",
    Modality.MESSAGES: "messages are",
    Modality.AUDIO: "audio calls are",
    Modality.VIDEO: "video is",
    Modality.FILES: "file transfer is",
    Modality.CONFERENCES: "meetings are",
}
_INTERNAL = Verdict(True, "internal", "both people live in our own business domains")
_RELAY = Verdict(False, "relay", "this server carries messages for its own domains only")


@dataclass(frozen=True, slots=True)
class Rules:
    """An immutable snapshot of the policy.

    Attributes:
        values: settings by scope.
        partners: domain rules.
        blocks: pairs (owner, blocked peer).
        business_domains: canonical names of our SIP domains.
        consumer_domain: our own consumer realm; it needs no domain rule.
        services: addresses of our own services (consent questions, echo); they are strangers to nobody.
    """

    values: Values = field(default_factory=Values)
    partners: PartnerDomains = field(default_factory=PartnerDomains)
    blocks: Set[tuple[Address, Address]] = frozenset()
    business_domains: Set[str] = frozenset()
    consumer_domain: str = ""
    services: Set[Address] = frozenset()
    _verdicts: dict[_Key, Verdict] = field(default_factory=dict, init=False, repr=False, compare=False)
    _views: dict[tuple[Address, Address], tuple[PresenceView, Verdict]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def build(
        cls,
        *,
        settings: Iterable[SettingLike] = (),
        domain_rules: Iterable[DomainRuleLike] = (),
        blocks: Iterable[tuple[Address, Address]] = (),
        memberships: Mapping[Address, tuple[str, ...]] | None = None,
        business_domains: Iterable[str] = (),
        consumer_domain: str = "",
        services: Iterable[Address] = (),
        defaults: Mapping[str, str] | None = None,
    ) -> Rules:
        """Build rules from stored rows. Raises OperationError for a row that cannot exist."""
        return cls(
            values=Values.arrange(settings, memberships or {}, defaults or {}),
            partners=PartnerDomains.arrange(domain_rules),
            blocks=frozenset(blocks),
            business_domains=frozenset(business_domains),
            consumer_domain=consumer_domain,
            services=frozenset(services),
        )

    def with_blocks(self, blocks: Iterable[tuple[Address, Address]]) -> Rules:
        """The same rules with other blocks between people."""
        return replace(self, blocks=frozenset(blocks))

    # --- questions ---

    def verdict(self, sender: Address, recipient: Address, modality: Modality, *, is_contact: bool) -> Verdict:
        """May `sender` reach `recipient` with this? For PRESENCE the sender is the one who asks to see.

        Args:
            is_contact: the recipient approved the sender, or asked for them.
        """
        key = (sender, recipient, modality, is_contact)
        found = self._verdicts.get(key)
        if found is None:
            found = self._decide(sender, recipient, modality, is_contact)
            if len(self._verdicts) >= MAXIMUM_CACHED_VERDICTS:
                self._verdicts.clear()
            self._verdicts[key] = found
        return found

    def view(self, presentity: Address, watcher: Address) -> PresenceView:
        """What `watcher`, whom `presentity` approved, may see of its presence."""
        return self.view_verdict(presentity, watcher)[0]

    def view_verdict(self, presentity: Address, watcher: Address) -> tuple[PresenceView, Verdict]:
        """As `view`, with the reason; the verdict refuses exactly when the view is NOTHING."""
        key = (presentity, watcher)
        found = self._views.get(key)
        if found is None:
            found = self._decide_view(presentity, watcher)
            if len(self._views) >= MAXIMUM_CACHED_VERDICTS:
                self._views.clear()
            self._views[key] = found
        return found

    def is_business(self, address: Address) -> bool:
        """True when the address lives in one of our business domains."""
        return address.domain in self.business_domains

    def partner_domain(self, sender: Address, recipient: Address) -> str:
        """The foreign domain of a crossing; empty within our own realms (business and consumer)."""
        for domain in (sender.domain, recipient.domain):
            if domain not in self.business_domains and domain != self.consumer_domain:
                return domain
        return ""

    # --- decisions ---

    def _decide(self, sender: Address, recipient: Address, modality: Modality, is_contact: bool) -> Verdict:
        blocked = self._blocked(sender, recipient)
        if blocked is not None:
            return blocked
        sender_is_ours, recipient_is_ours = self.is_business(sender), self.is_business(recipient)
        if not (sender_is_ours or recipient_is_ours):
            return _RELAY
        if sender_is_ours and recipient_is_ours:
            return _INTERNAL
        refused = self._closed(sender, recipient)
        if refused is not None:
            return refused
        flag, person = self._flag(sender, recipient, modality)
        rule = f"{flag.kind.word}.{modality.value}"
        if flag.value == "off":
            return Verdict(False, rule, f"{_NOUNS[modality]} switched off {_for(flag, person)}")
        if not is_contact:
            stopped = self._stranger(sender, recipient, modality)
            if stopped is not None:
                return stopped
        return Verdict(True, rule, f"{_NOUNS[modality]} allowed {_for(flag, person)}")

    def _blocked(self, sender: Address, recipient: Address) -> Verdict | None:
        if (recipient, sender) in self.blocks:
            # What the sender reads must not differ from somebody who is away (edge case 15); the rule tells us.
            return Verdict(False, "block.recipient", f"{recipient} cannot be reached")
        if (sender, recipient) in self.blocks:
            return Verdict(False, "block.sender", f"{sender} blocked {recipient}")
        return None

    def _closed(self, sender: Address, recipient: Address) -> Verdict | None:
        switch = self.values.organisation("connectivity")
        if switch.value == "off":
            return Verdict(False, f"{switch.kind.word}.connectivity", "the company does not connect to other networks")
        partner = self.partner_domain(sender, recipient)
        if not partner:
            return None
        standing, _ = self.partners.standing(partner)
        if standing is DomainStanding.BLOCKED:
            return Verdict(False, "domain.blocked", f"the company does not exchange anything with {partner}")
        if standing is DomainStanding.DISCOVERED and self.values.organisation("discovery").value == "off":
            return Verdict(False, "domain.unlisted", f"{partner} is not among the company's partner domains")
        return None

    def _flag(self, sender: Address, recipient: Address, modality: Modality) -> tuple[Effective, Address]:
        one, other = self.values.effective(sender, modality.value), self.values.effective(recipient, modality.value)
        if one.kind != other.kind:
            return (one, sender) if one.kind > other.kind else (other, recipient)
        return (other, recipient) if other.value == "off" else (one, sender)

    def _stranger(self, sender: Address, recipient: Address, modality: Modality) -> Verdict | None:
        if sender in self.services or recipient in self.services:
            return None
        found = self.values.effective(recipient, "strangers")
        if found.kind < ScopeKind.GROUP and not self.is_business(recipient):
            return None  # the organisation's own setting protects its own people
        if found.value == Strangers.ALLOW or (found.value == Strangers.CONTACTS and modality is Modality.PRESENCE):
            return None
        what = "nobody who is not a contact" if found.value == Strangers.NOBODY else "contacts only"
        return Verdict(False, f"{found.kind.word}.strangers", f"{recipient} can be reached by {what}")

    def _decide_view(self, presentity: Address, watcher: Address) -> tuple[PresenceView, Verdict]:
        verdict = self.verdict(watcher, presentity, Modality.PRESENCE, is_contact=True)
        if not verdict:
            return PresenceView.NOTHING, verdict
        if verdict is _INTERNAL:
            return PresenceView.EVERYTHING, verdict
        found = self.values.effective(presentity, "presence_view")
        if found.kind < ScopeKind.GROUP and not self.is_business(presentity):
            return PresenceView.EVERYTHING, verdict
        view = PresenceView(found.value)
        rule = f"{found.kind.word}.presence_view"
        text = f"the other realm sees {view.value} of {presentity}'s presence"
        return view, Verdict(view is not PresenceView.NOTHING, rule, text)


def _for(flag: Effective, person: Address) -> str:
    """End of the sentence for a flag; group names stay inside the company."""
    if flag.kind is ScopeKind.USER:
        return f"for {person}"
    return f"for {person}'s group" if flag.kind is ScopeKind.GROUP else "by the company's policy"
