"""`isthmus call`: calls that are live or over, why they ended, and how they sounded."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli.output import JsonFlag, moment, session, show, table

app = typer.Typer(help="Calls: who, when, how long, with what quality, and why they ended.", no_args_is_help=True)

CallId = Annotated[str, typer.Argument(metavar="CALL", help="Id of the call, as the lists show it.")]

_PEOPLE = {"id": "CALL", "caller": "FROM", "callee": "TO", "when": "WHEN"}
_MEASURES = {"jitter_ms": "jitter {:.0f} ms", "round_trip_ms": "round trip {:.0f} ms", "mos": "MOS {:.1f}"}
_MEDIA = {"talked": "TALKED", "media": "MEDIA", "path": "PATH"}


@app.command("list")
def list_all(
    context: typer.Context,
    person: Annotated[str, typer.Argument(metavar="[PERSON]", help="Only this person's calls.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, newest first.")] = 50,
    json: JsonFlag = False,
) -> None:
    """List calls that are over, newest first."""
    run = session(context, json)
    rows = run.call("call.list", person=person, limit=limit)
    show(run, rows, records_table(rows))


@app.command("show")
def show_one(context: typer.Context, call: CallId, json: JsonFlag = False) -> None:
    """Tell everything about one call."""
    run = session(context, json)
    row = run.call("call.show", call_id=call)
    show(run, row, _told(row))


@app.command("live")
def live(context: typer.Context, json: JsonFlag = False) -> None:
    """List calls that are not over."""
    run = session(context, json)
    rows = run.call("call.live")
    columns = {**_PEOPLE, "state": "STATE", **_MEDIA, "device": "DEVICE"}
    show(run, rows, table([_shown(row) for row in rows], columns, "no calls now"))


@app.command("end")
def end(context: typer.Context, call: CallId, json: JsonFlag = False) -> None:
    """End a live call; both sides are told that the administrator did."""
    run = session(context, json)
    result = run.call("call.end", call_id=call)
    show(run, result, [f"the call of {result['caller']} and {result['callee']} is ended"])


def records_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines that list calls that are over."""
    return table([_shown(row) for row in rows], {**_PEOPLE, **_MEDIA, "end": "END"}, "no calls yet")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    rule = f" ({row['rule']})" if row.get("rule") else ""
    end = f"{row.get('cause', '')}{rule}"
    return {**row, "when": moment(row["started_at"]), "talked": _duration(row), "end": end}


def _duration(row: dict[str, Any]) -> str:
    if row["answered_at"] is None:
        return "-"
    minutes, seconds = divmod(round(row["seconds"]), 60)
    return f"{minutes}:{seconds:02d}"


def _told(row: dict[str, Any]) -> list[str]:
    lines = [f"{row['caller']} called {row['callee']} at {moment(row['started_at'])}"]
    if row["answered_at"] is None:
        lines.append("nobody answered")
    else:
        device = f" on {row['device']}" if row["device"] else ""
        lines.append(f"answered at {moment(row['answered_at'])}{device}, talked for {_duration(row)}")
        lines.append(f"media: {', '.join(row['media']) or 'none'}, {row['path'] or 'no path'}")
    if "cause" in row:
        rule = f" ({row['rule']})" if row["rule"] else ""
        lines.append(f"ended: {row['cause']}: {row['text']}{rule}")
    else:
        lines.append(f"not over: {row['state']}")
    for counted in row.get("quality", ()):
        lines.append(f"{counted['media']} from {counted['sender']}: {_quality(counted)}")
    return lines


def _quality(counted: dict[str, Any]) -> str:
    said = [f"{counted['packets']} packets, {counted['lost']} lost"]
    for key, text in _MEASURES.items():
        if counted[key] is not None:
            said.append(text.format(counted[key]))
    return ", ".join(said)
