"""`isthmus explain`, `doctor`, `trace`, `audit`: what happens, and why not."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from isthmus.cli.calls import records_table
from isthmus.cli.completion import people
from isthmus.cli.output import JsonFlag, Session, moment, session, show, table
from isthmus.errors import IsthmusError, ServerNotRunningError

_SIGNS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("explain")(explain)
    app.command("doctor")(doctor)
    app.command("trace")(trace)
    app.command("audit")(audit)


def explain(
    context: typer.Context,
    one: Annotated[str, typer.Argument(metavar="A", help="name@domain", autocompletion=people)],
    other: Annotated[str, typer.Argument(metavar="B", help="name@domain", autocompletion=people)],
    json: JsonFlag = False,
) -> None:
    """Tell what may cross between two people, what did, and why not."""
    run = session(context, json)
    result = run.call("explain", one=one, other=other)
    show(run, result, _explained(result))


def _explained(result: dict[str, Any]) -> list[str]:
    lines = [*result["summary"], ""]
    verdicts = {"sender": "FROM", "recipient": "TO", "modality": "WHAT", "is_allowed": "MAY", "rule": "BECAUSE OF"}
    offered = [row for row in result["verdicts"] if row["is_offered"]]
    lines += table(offered, {**verdicts, "scope": "SET FOR"}, "")
    for view in result["views"]:
        lines.append(f"{view['watcher']} may see {view['view']} of {view['presentity']}'s presence ({view['rule']})")
    crossed = [{**row, "last_at": moment(row["last_at"])} for row in result["crossed"]]
    columns = {"sender": "FROM", "recipient": "TO", "kind": "WHAT", "delivered": "DELIVERED", "failed": "FAILED"}
    lines += [
        "",
        *table(crossed, {**columns, "last_at": "LAST", "last_failure": "LAST FAILURE"}, "nothing has crossed"),
    ]
    lines += ["", *records_table(result["calls"])]
    if result["recent"]:
        lines += ["", "recent decisions:", *(_traced(line) for line in result["recent"])]
    return lines


def doctor(context: typer.Context, json: JsonFlag = False) -> None:
    """Examine configuration, DNS, certificates, ports, the XMPP server, and the way there and back."""
    run = session(context, json)
    findings = _examined(run)
    lines = []
    for row in findings:
        lines.append(f"{_SIGNS[row['outcome']]}  {row['name']}: {row['detail']}")
        if row["remedy"]:
            lines.append(f"      -> {row['remedy']}")
    show(run, findings, lines)
    if any(row["outcome"] == "fail" for row in findings):
        raise typer.Exit(1)


def _examined(run: Session) -> list[dict[str, Any]]:
    """A configuration or store that cannot be used is a finding, not the end of the examination."""
    try:
        findings: list[dict[str, Any]] = run.call("doctor")
    except IsthmusError as error:
        return [{"name": "start", "outcome": "fail", "detail": str(error), "remedy": "put this right, then ask again"}]
    return findings


def trace(
    context: typer.Context,
    person: Annotated[
        str, typer.Argument(metavar="[ADDRESS]", help="Only what concerns this person.", autocompletion=people)
    ] = "",
    call_id: Annotated[str, typer.Option("--call-id", help="Only this call, dialog or message.")] = "",
    recent: Annotated[int, typer.Option("--recent", min=0, help="Begin with this many past decisions.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Follow what crosses the wires and what is decided, live, until Ctrl-C."""
    from isthmus.admin.client import ControlClient  # noqa: PLC0415 - start fast

    run = session(context, json)
    client = ControlClient(run.data_directory)
    if not client.is_running():
        raise ServerNotRunningError("there is nothing to follow: start the server with `isthmus serve`")
    import json as encoder  # noqa: PLC0415 - the flag has the name

    for line in client.trace(person, call_id, recent):
        typer.echo(encoder.dumps(line, ensure_ascii=False) if json else _traced(line))


def _traced(line: dict[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(line["at"])) + f".{int(line['at'] % 1 * 1000):03d}"
    rule = f" ({line['rule']})" if line["rule"] else ""
    text = line["text"].replace("\r\n", "\n").rstrip("\n").replace("\n", "\n    ")
    return f"{at} {line['mark']} [{line['link']}] {text}{rule}"


def audit(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, newest first.")] = 50,
    json: JsonFlag = False,
) -> None:
    """Tell who changed what, newest first."""
    run = session(context, json)
    rows = run.call("audit", limit=limit)
    shown = [{**row, "at": moment(row["at"])} for row in rows]
    columns = {"at": "WHEN", "actor": "WHO", "action": "WHAT", "subject": "WHOM", "detail": "DETAIL"}
    show(run, rows, table(shown, columns, "nothing was changed yet"))
