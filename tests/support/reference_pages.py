"""The outside as text: every setting and every command, for comparison with the reference pages."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from isthmus.cli import app
from isthmus.config import Configuration


@dataclass(frozen=True)
class Setting:
    """One setting: dotted name and default as TOML would write it ("required" without one)."""

    name: str
    default: str


def settings(model: type[BaseModel] = Configuration, prefix: str = "") -> Iterator[Setting]:
    """Every setting of the configuration, sections expanded, in order of definition."""
    for name, field in model.model_fields.items():
        inner = _section(field.annotation)
        if inner is not None:
            yield from settings(inner, f"{prefix}{name}.")
        if inner is None or typing.get_origin(field.annotation) is tuple:
            yield Setting(f"{prefix}{name}", _default(field.default))


def _section(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *typing.get_args(annotation))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    return _toml(value)


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return f'"{value.value}"'
    if isinstance(value, (str, Path)):
        return f'"{value}"'
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, SecretStr):
        return "secret"
    return str(value)


def command_page() -> str:
    """docs/reference/cli.md, whole."""
    group = typer.main.get_command(app)
    parts = [_PREFACE]
    parts += [_command(path, command) for path, command in _commands("isthmus", group)]
    return "\n".join(parts)


_PREFACE = """\
# Commands

This page is generated from the commands themselves (`python -m tests.support.reference_pages`); a test compares both.

- `--data DIR` (or `ISTHMUS_DATA`) names the data directory; it stands before the command: `isthmus --data DIR status`.
- With a running server a command asks it over the control socket; without one it works on the store directly.
- `--json` prints the result for a program; an error is then `{"error": ..., "exit_code": ...}` on standard error.
- Passwords are asked for, read with `--password-file` (`-` is standard input), or made and shown once. They are never
  arguments.
- `isthmus --install-completion` sets up completion for your shell: commands, options, settings, and the people and
  domains that the running server knows.

Exit codes: 0 done, 1 the doctor found a failure, 2 wrong usage, 64 cannot be done as asked, 65 the XMPP server refused
an account, 67 no such user, contact or rule, 69 needs a running server or a port, 70 a mistake of ours, 74 the store
cannot keep a promise (disk full, locked), 78 the configuration cannot be used.
"""


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, sub in inner.items():
        if not sub.hidden:
            yield from _commands(f"{path} {name}", sub)


def _command(path: str, command: Any) -> str:
    words, lines = [path], []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.metavar or parameter.name.upper()
            words.append(name)
            text = parameter.help
        elif parameter.name == "help":
            continue
        else:
            name = parameter.opts[0] if parameter.is_flag else f"{parameter.opts[0]} {_value(parameter)}"
            words.append(f"[{name}]")
            text = parameter.help
        if text:
            lines.append(f"- `{name}`: {text}")
    body = "\n".join(lines)
    return f"## {path}\n\n    {' '.join(words)}\n\n{command.help}\n" + (f"\n{body}\n" if body else "")


def _value(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper().replace("_", "-"))


if __name__ == "__main__":
    (Path(__file__).parents[2] / "docs/reference/cli.md").write_text(command_page(), encoding="utf-8")
