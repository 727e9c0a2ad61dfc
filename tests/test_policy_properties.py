"""What holds for every policy: total, blocks win, the more specific wins (edge case 47)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.model import Address, Modality
from isthmus.policy import SETTINGS, PresenceView, Rules, difference
from isthmus.ports import DomainRule, PolicySetting

BUSINESS = [Address(name, "corp.test") for name in ("ana", "dan")]
CONSUMERS = [Address("ben", "people.test"), Address("eve", "elsewhere.test"), Address("sub", "chat.elsewhere.test")]
PEOPLE = BUSINESS + CONSUMERS
GROUPS = ["sales", "staff"]

people = st.sampled_from(PEOPLE)
modalities = st.sampled_from(list(Modality))
scopes = st.sampled_from(["global", *(f"group:{name}" for name in GROUPS), *(f"user:{person}" for person in PEOPLE)])


@st.composite
def settings(draw: st.DrawFn) -> PolicySetting:
    kind = draw(st.sampled_from(list(SETTINGS.values())))
    scope = "global" if kind.is_global_only else draw(scopes)
    return PolicySetting(scope, kind.name, str(draw(st.sampled_from(kind.values))))


setting_lists = st.lists(settings(), max_size=8, unique_by=lambda setting: (setting.scope, setting.name))
domain_rules = st.lists(
    st.builds(
        DomainRule,
        st.sampled_from(["elsewhere.test", "chat.elsewhere.test", "test", "other.test"]),
        st.sampled_from(["allow", "block", "discovered"]),
        st.booleans(),
    ),
    max_size=3,
    unique_by=lambda rule: rule.domain,
)
blocks = st.lists(st.tuples(people, people), max_size=2)
memberships = st.dictionaries(
    st.sampled_from(BUSINESS), st.lists(st.sampled_from(GROUPS), unique=True, max_size=2).map(tuple)
)


def build(
    chosen: list[PolicySetting],
    partners: list[DomainRule],
    blocked: list[tuple[Address, Address]],
    groups: dict[Address, tuple[str, ...]],
) -> Rules:
    return Rules.build(
        settings=chosen,
        domain_rules=partners,
        blocks=blocked,
        memberships=groups,
        business_domains=("corp.test",),
        consumer_domain="people.test",
    )


policies = st.builds(build, setting_lists, domain_rules, blocks, memberships)


@given(policies, people, people, modalities, st.booleans())
def test_every_question_has_an_answer_with_rule_and_sentence_and_it_stays(
    policy: Rules, sender: Address, recipient: Address, modality: Modality, is_contact: bool
) -> None:
    verdict = policy.verdict(sender, recipient, modality, is_contact=is_contact)
    assert verdict.rule
    assert verdict.text
    assert policy.verdict(sender, recipient, modality, is_contact=is_contact) is verdict
    view, reason = policy.view_verdict(recipient, sender)
    assert (view is PresenceView.NOTHING) == (not reason.is_allowed)


@given(setting_lists, domain_rules, memberships, people, people, modalities, st.booleans())
def test_a_block_always_wins(
    chosen: list[PolicySetting],
    partners: list[DomainRule],
    groups: dict[Address, tuple[str, ...]],
    sender: Address,
    recipient: Address,
    modality: Modality,
    is_contact: bool,
) -> None:
    policy = build(chosen, partners, [(recipient, sender)], groups)
    assert policy.verdict(sender, recipient, modality, is_contact=is_contact).rule == "block.recipient"
    assert policy.view(recipient, sender) is PresenceView.NOTHING


@given(setting_lists, memberships, st.sampled_from(BUSINESS), modalities, st.sampled_from(["on", "off"]))
def test_a_persons_own_flag_wins_over_group_and_global(
    chosen: list[PolicySetting],
    groups: dict[Address, tuple[str, ...]],
    person: Address,
    modality: Modality,
    value: str,
) -> None:
    ben = CONSUMERS[0]
    others = [
        setting
        for setting in chosen
        if setting.name != "connectivity"
        and not (setting.name == modality.value and setting.scope in (f"user:{person}", f"user:{ben}"))
    ]
    policy = build([*others, PolicySetting(f"user:{person}", modality.value, value)], [], [], groups)
    for sender, recipient in ((person, ben), (ben, person)):
        verdict = policy.verdict(sender, recipient, modality, is_contact=True)
        assert verdict.rule == f"user.{modality.value}"
        assert verdict.is_allowed == (value == "on")


@given(setting_lists, st.sampled_from(BUSINESS), modalities, st.sampled_from(["on", "off"]))
def test_a_groups_flag_wins_over_global(
    chosen: list[PolicySetting], person: Address, modality: Modality, value: str
) -> None:
    ben = CONSUMERS[0]
    others = [
        setting
        for setting in chosen
        if setting.name != "connectivity"
        and not (setting.name == modality.value and setting.scope.startswith(("user:", "group:")))
    ]
    policy = build([*others, PolicySetting("group:sales", modality.value, value)], [], [], {person: ("sales",)})
    verdict = policy.verdict(ben, person, modality, is_contact=True)
    assert (verdict.rule, verdict.is_allowed) == (f"group.{modality.value}", value == "on")


@given(setting_lists, domain_rules, blocks, memberships, st.sampled_from(BUSINESS), people, modalities, st.booleans())
def test_settings_of_others_never_change_a_verdict(
    chosen: list[PolicySetting],
    partners: list[DomainRule],
    blocked: list[tuple[Address, Address]],
    groups: dict[Address, tuple[str, ...]],
    person: Address,
    peer: Address,
    modality: Modality,
    is_contact: bool,
) -> None:
    concerned = {"global", f"user:{person}", f"user:{peer}"}
    concerned |= {f"group:{group}" for one in (person, peer) for group in groups.get(one, ())}
    asked = {modality.value, "connectivity", "discovery", "strangers"}
    related = [setting for setting in chosen if setting.scope in concerned and setting.name in asked]
    related_blocks = [pair for pair in blocked if set(pair) <= {person, peer}]
    full = build(chosen, partners, blocked, groups)
    reduced = build(related, partners, related_blocks, groups)
    for sender, recipient in ((person, peer), (peer, person)):
        assert full.verdict(sender, recipient, modality, is_contact=is_contact) == reduced.verdict(
            sender, recipient, modality, is_contact=is_contact
        )


@given(setting_lists, domain_rules, blocks, memberships, people, people, modalities)
def test_a_contact_is_never_worse_off_than_a_stranger(
    chosen: list[PolicySetting],
    partners: list[DomainRule],
    blocked: list[tuple[Address, Address]],
    groups: dict[Address, tuple[str, ...]],
    sender: Address,
    recipient: Address,
    modality: Modality,
) -> None:
    policy = build(chosen, partners, blocked, groups)
    stranger = policy.verdict(sender, recipient, modality, is_contact=False)
    assert not stranger or policy.verdict(sender, recipient, modality, is_contact=True)


@given(policies, policies, st.lists(st.tuples(people, people), max_size=3))
def test_a_dry_run_is_empty_exactly_when_nothing_changes_for_the_pairs(
    before: Rules, after: Rules, pairs: list[tuple[Address, Address]]
) -> None:
    rows = difference(before, after, pairs)
    backwards = difference(after, before, pairs)
    assert {(row.sender, row.recipient, row.modality) for row in rows} == {
        (row.sender, row.recipient, row.modality) for row in backwards
    }
    assert difference(before, before, pairs) == []
