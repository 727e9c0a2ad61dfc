"""The settings an administrator can make: their names, values, scopes and defaults, as one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol

from isthmus.errors import AddressError, OperationError
from isthmus.model import Address, Modality


class Strangers(StrEnum):
    """What reaches a person from people who are not contacts."""

    ALLOW = "allow"  # messages and contact requests
    CONTACTS = "contacts"  # contact requests; the rest only from approved contacts
    NOBODY = "nobody"  # neither


class PresenceView(StrEnum):
    """What a person in the other realm sees of somebody's presence."""

    EVERYTHING = "everything"
    AVAILABILITY = "availability"  # the state, without note, activities and idle time
    NOTHING = "nothing"


class ScopeKind(IntEnum):
    """Where a value was set; the higher number is the more specific one and wins."""

    DEFAULT = 0
    GLOBAL = 1
    GROUP = 2
    USER = 3

    @property
    def word(self) -> str:
        """First part of a rule name: `user.messages`."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Scope:
    """A parsed scope: `global`, `group:sales` or `user:ana@corp.test`."""

    kind: ScopeKind
    group: str = ""
    person: Address | None = None

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read a scope as it is stored and typed. Raises OperationError."""
        kind, colon, name = text.strip().partition(":")
        name = name.strip()
        if kind == "global" and not colon:
            return cls(ScopeKind.GLOBAL)
        if kind == "group" and name:
            return cls(ScopeKind.GROUP, group=name.casefold())
        if kind == "user" and name:
            try:
                return cls(ScopeKind.USER, person=Address.parse(name))
            except AddressError as error:
                raise OperationError(f"the scope {text!r} names no person: {error}") from error
        raise OperationError(f"{text!r} is not a scope: write global, group:NAME or user:name@domain")

    def __str__(self) -> str:
        match self.kind:
            case ScopeKind.GROUP:
                return f"group:{self.group}"
            case ScopeKind.USER:
                return f"user:{self.person}"
            case _:
                return self.kind.word


@dataclass(frozen=True, slots=True)
class SettingKind:
    """One row of the table of settings.

    Attributes:
        name: as typed, e.g. `messages`.
        values: what it can be; the first is the default.
        text: what it does, for the reference page and `policy show`.
        is_global_only: it belongs to the organisation and cannot be set for a group or a person.
    """

    name: str
    values: tuple[str, ...]
    text: str
    is_global_only: bool = False

    @property
    def default(self) -> str:
        """The value when nobody set one."""
        return self.values[0]


_ON_OFF = ("on", "off")

SETTINGS: Mapping[str, SettingKind] = {
    kind.name: kind
    for kind in (
        SettingKind("connectivity", _ON_OFF, "Whether anything crosses between the realms at all.", True),
        SettingKind("discovery", _ON_OFF, "Whether unlisted partner domains may be reached, within limits.", True),
        SettingKind("presence", _ON_OFF, "Contact requests and presence."),
        SettingKind("messages", _ON_OFF, "Messages, typing notices and receipts."),
        SettingKind("audio", _ON_OFF, "Audio calls."),
        SettingKind("video", _ON_OFF, "Video in calls."),
        SettingKind("files", _ON_OFF, "File transfer."),
        SettingKind("conferences", _ON_OFF, "Meetings with people of the other realm."),
        SettingKind(
            "strangers",
            tuple(Strangers),
            "What reaches a person from people who are not contacts: everything (allow), contact requests only "
            "(contacts), or nothing (nobody).",
        ),
        SettingKind(
            "presence_view",
            tuple(PresenceView),
            "What the other realm sees of a person's presence: everything, availability without note and activity, "
            "or nothing.",
        ),
        SettingKind(
            "media",
            ("auto", "direct", "relayed"),
            "How the media of calls go: direct between the two devices where both speak ICE and DTLS-SRTP and through "
            "a relay otherwise (auto), only direct, or always through a relay.",
        ),
        SettingKind("encryption", ("optional", "required"), "Whether calls may use media that are not encrypted."),
    )
}

DEFAULTS: Mapping[str, str] = {kind.name: str(kind.default) for kind in SETTINGS.values()}

# Every modality has a flag of the same name; a new one without a row fails at import, not at the first message.
if missing := [str(modality) for modality in Modality if modality.value not in SETTINGS]:
    raise AssertionError(f"modalities without a policy flag: {missing}")


class SettingLike(Protocol):
    """What a stored policy value looks like (`ports.PolicySetting`)."""

    @property
    def scope(self) -> str:
        """`global`, `group:NAME` or `user:ADDRESS`."""

    @property
    def name(self) -> str:
        """Name of the setting."""

    @property
    def value(self) -> str:
        """Its value."""


def check_setting(scope: str, name: str, value: str | None = None) -> Scope:
    """Return the parsed scope when this may be set (or, without `value`, unset).

    Raises:
        OperationError: unknown scope, name or value; the text lists what there is.
    """
    parsed = Scope.parse(scope)
    kind = SETTINGS.get(name)
    if kind is None:
        raise OperationError(f"there is no policy setting {name!r}; there are: {', '.join(SETTINGS)}")
    if kind.is_global_only and parsed.kind is not ScopeKind.GLOBAL:
        raise OperationError(f"{name} belongs to the whole organisation: set it with the scope global")
    if value is not None and value not in kind.values:
        raise OperationError(f"{name} cannot be {value!r}; it can be: {', '.join(kind.values)}")
    return parsed


@dataclass(frozen=True, slots=True)
class Effective:
    """A resolved value and where it comes from.

    `scope` names the place exactly (`group:sales`); `kind` ranks it.
    """

    value: str
    kind: ScopeKind
    scope: str


@dataclass(frozen=True, slots=True)
class Values:
    """All settings, arranged for look-up by person.

    Attributes:
        memberships: groups of each person, most important first.
    """

    global_values: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    people: Mapping[Address, Mapping[str, str]] = field(default_factory=dict)
    memberships: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=lambda: DEFAULTS)

    @classmethod
    def arrange(
        cls,
        settings: Iterable[SettingLike],
        memberships: Mapping[Address, tuple[str, ...]],
        defaults: Mapping[str, str],
    ) -> Values:
        """Build the tables. Raises OperationError for a setting that cannot exist."""
        global_values: dict[str, str] = {}
        groups: dict[str, dict[str, str]] = {}
        people: dict[Address, dict[str, str]] = {}
        for setting in settings:
            scope = check_setting(setting.scope, setting.name, setting.value)
            if scope.person is not None:
                people.setdefault(scope.person, {})[setting.name] = setting.value
            elif scope.group:
                groups.setdefault(scope.group, {})[setting.name] = setting.value
            else:
                global_values[setting.name] = setting.value
        folded = {address: tuple(name.casefold() for name in names) for address, names in memberships.items() if names}
        return cls(global_values, groups, people, folded, {**DEFAULTS, **defaults})

    def effective(self, person: Address, name: str) -> Effective:
        """The value for one person: own, else of the most important group that has one, else global, else default."""
        own = self.people.get(person)
        if own is not None and name in own:
            return Effective(own[name], ScopeKind.USER, f"user:{person}")
        for group in self.memberships.get(person, ()):
            values = self.groups.get(group)
            if values is not None and name in values:
                return Effective(values[name], ScopeKind.GROUP, f"group:{group}")
        return self.organisation(name)

    def organisation(self, name: str) -> Effective:
        """The value for the whole organisation."""
        if name in self.global_values:
            return Effective(self.global_values[name], ScopeKind.GLOBAL, "global")
        return Effective(self.defaults[name], ScopeKind.DEFAULT, "default")
