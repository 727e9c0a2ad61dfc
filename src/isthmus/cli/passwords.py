"""Where passwords come from: a prompt, a file, or made by us; never an argument, which everybody can see."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from isthmus.errors import OperationError

PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", help="Read the password from the first line of this file; - is standard input."),
]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password and show it once.")]
# Far more than any password; a wrong file must not be read into memory whole.
MAXIMUM_OCTETS = 4_096


def chosen_password(password_file: Path | None, generate: bool) -> str | None:
    """Return the password, or None when one shall be made.

    Raises:
        OperationError: the file cannot be read, is empty, or both ways were asked for.
    """
    if password_file is not None:
        if generate:
            raise OperationError("--generate and --password-file exclude each other")
        return _from_file(password_file)
    if generate or not sys.stdin.isatty():
        return None
    prompt = "Password (empty: one is made for you)"
    typed: str = typer.prompt(prompt, default="", hide_input=True, show_default=False, confirmation_prompt=True)
    return typed or None


def _from_file(path: Path) -> str:
    try:
        if str(path) == "-":
            text = sys.stdin.readline(MAXIMUM_OCTETS)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.readline(MAXIMUM_OCTETS)
    except (OSError, UnicodeDecodeError) as error:
        raise OperationError(f"the password cannot be read from {path}: {error}") from error
    password = text.rstrip("\r\n")
    if not password:
        raise OperationError(f"the first line of {path} is empty: no password")
    return password


def told(result: dict[str, object], text: str) -> list[str]:
    """Say what was done, and a made password once."""
    password = result.get("password")
    return [text, f"password (shown only now): {password}"] if password else [text]
