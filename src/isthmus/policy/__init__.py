"""Who may reach whom, with what: pure decisions, each with its reason.

An immutable `Rules` answers `verdict` and `view`; `difference` compares two of them for a dry run.
`services.policing` keeps the rules that are in force.
"""

from isthmus.policy.difference import Difference, Effect, difference
from isthmus.policy.domains import DomainStanding, PartnerDomains
from isthmus.policy.refusals import is_discreet, refusal
from isthmus.policy.rules import Rules
from isthmus.policy.settings import SETTINGS, PresenceView, Scope, ScopeKind, SettingKind, Strangers, check_setting

__all__ = [
    "SETTINGS",
    "Difference",
    "DomainStanding",
    "Effect",
    "PartnerDomains",
    "PresenceView",
    "Rules",
    "Scope",
    "ScopeKind",
    "SettingKind",
    "Strangers",
    "check_setting",
    "difference",
    "is_discreet",
    "refusal",
]
