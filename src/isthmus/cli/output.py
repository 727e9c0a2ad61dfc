"""What all commands share: where the data is, how results and errors are shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from isthmus.errors import IsthmusError, LocalError

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Only tell what would change for people in touch now.")]


@dataclass(slots=True)
class Session:
    """One run of the command.

    Attributes:
        data_directory: absolute.
        is_json: results and errors are for a program.
    """

    data_directory: Path
    is_json: bool = False

    def call(self, operation: str, **arguments: object) -> Any:
        """Run an operation in the running server, or without one directly on the store. Raises LocalError."""
        from isthmus.admin.client import ControlClient  # noqa: PLC0415 - start fast

        client = ControlClient(self.data_directory)
        if client.is_running():
            return client.call(operation, arguments)
        from isthmus.cli.offline import call_offline  # noqa: PLC0415 - start fast

        return call_offline(self.data_directory, operation, arguments)


class Errors(TyperGroup):
    """Shows our errors as a sentence and ends with their exit code; anything else is a mistake of ours."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except IsthmusError as error:
            exit_code = error.exit_code if isinstance(error, LocalError) else LocalError.exit_code
            is_json = isinstance(ctx.obj, Session) and ctx.obj.is_json
            text = json.dumps({"error": str(error), "exit_code": exit_code}) if is_json else f"isthmus: {error}"
            typer.echo(text, err=True)
            raise typer.Exit(exit_code) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None  # as a shell tells it: 128 + SIGINT


def session(context: typer.Context, is_json: bool = False) -> Session:
    """Return the session of this run; call it first in every command."""
    found = context.find_object(Session)
    if found is None:
        raise LocalError("the command was started without its group")
    found.is_json = is_json
    return found


def show(run: Session, result: Any, lines: Iterable[str]) -> None:
    """Print the result for a program, or the lines for a person."""
    if run.is_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for line in lines:
        typer.echo(line)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], empty: str) -> list[str]:
    """Lay rows out in columns.

    Args:
        columns: key -> heading.
        empty: what to say when there are no rows.
    """
    if not rows:
        return [empty]
    cells = [list(columns.values()), *([_cell(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def moment(seconds: float | None) -> str:
    """Local date and time of Unix seconds; empty for never."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "-"
    return str(value)


def changes(result: Mapping[str, Any]) -> list[str]:
    """Tell what a change cuts, opens, reduces or widens between people in touch."""
    verb = "would be" if not result["is_applied"] else "are"
    if not result["change_count"]:
        return [f"nothing {'would change' if not result['is_applied'] else 'changes'} between people in touch now"]
    lines = [f"{result['change_count']} things {verb} different between people in touch now:"]
    for row in result["changes"]:
        lines.append(f"  {row['effect']}: {row['modality']} {row['sender']} -> {row['recipient']} ({row['rule']})")
    missing = result["change_count"] - len(result["changes"])
    return [*lines, f"  ... and {missing} more"] if missing else lines
