"""What the shell may complete besides commands and options: people, domains, settings and their values.

People and domains come from the running server alone: opening the store would make every press of the key slow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from isthmus.errors import IsthmusError

# A shell shows no more than a screenful; whoever has more types another letter.
MAXIMUM_SUGGESTIONS = 100

Suggest = Callable[[typer.Context, str], list[str]]


def users(context: typer.Context, incomplete: str) -> list[str]:
    """Hosted business users."""
    return _beginning((row["address"] for row in _asked(context, "user.list")), incomplete)


def people(context: typer.Context, incomplete: str) -> list[str]:
    """Hosted business users, and whoever is a contact of one."""
    contacts = [row[end] for row in _asked(context, "contact.list") for end in ("owner", "peer")]
    return _beginning([*contacts, *(row["address"] for row in _asked(context, "user.list"))], incomplete)


def peers(context: typer.Context, incomplete: str) -> list[str]:
    """Contacts of the owner named before, and those who ask to become one."""
    owner = context.params.get("owner") or ""
    return _beginning((row["peer"] for row in _asked(context, "contact.list", owner=owner)), incomplete)


def domains(context: typer.Context, incomplete: str) -> list[str]:
    """Partner domains with a rule."""
    rows = _asked(context, "domain.list")
    return _beginning((row["domain"] for row in rows if not row["action"].startswith("ours")), incomplete)


def settings(_context: typer.Context, incomplete: str) -> list[str]:
    """Policy settings."""
    from isthmus.policy.settings import SETTINGS  # noqa: PLC0415 - start fast

    return _beginning(SETTINGS, incomplete)


def values(context: typer.Context, incomplete: str) -> list[str]:
    """What the setting named before can be."""
    from isthmus.policy.settings import SETTINGS  # noqa: PLC0415 - start fast

    kind = SETTINGS.get(context.params.get("name") or "")
    return _beginning(kind.values if kind else (), incomplete)


def scopes(context: typer.Context, incomplete: str) -> list[str]:
    """Whom a setting can be made for."""
    rows = _asked(context, "user.list")
    groups = {f"group:{group}" for row in rows for group in row["groups"]}
    return _beginning(["global", *groups, *(f"user:{row['address']}" for row in rows)], incomplete)


def _beginning(words: Any, incomplete: str) -> list[str]:
    return sorted({str(word) for word in words if str(word).startswith(incomplete)})[:MAXIMUM_SUGGESTIONS]


def _asked(context: typer.Context, operation: str, **arguments: object) -> list[dict[str, Any]]:
    """Ask the running server; nobody wants to read an error in the middle of a command line."""
    from isthmus.admin.client import ControlClient  # noqa: PLC0415 - start fast

    client = ControlClient(Path(context.find_root().params.get("data") or "data").absolute())
    try:
        return list(client.call(operation, arguments)) if client.is_running() else []
    except IsthmusError:
        return []
