"""`isthmus policy`: who may reach whom, with what."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli.completion import people, scopes, settings, values
from isthmus.cli.output import DryRunFlag, JsonFlag, changes, session, show, table

app = typer.Typer(help="Who may reach whom, with what.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Setting, see `isthmus policy show`.", autocompletion=settings)
]
ScopeOption = Annotated[
    str,
    typer.Option(
        "--for",
        metavar="SCOPE",
        help="global, group:NAME or user:ADDRESS; the most specific wins.",
        autocompletion=scopes,
    ),
]


@app.command("show")
def show_settings(
    context: typer.Context,
    person: Annotated[
        str, typer.Argument(metavar="[ADDRESS]", help="As it ends up for this person.", autocompletion=people)
    ] = "",
    json: JsonFlag = False,
) -> None:
    """Show the settings in force, with exceptions, or as they end up for one person."""
    run = session(context, json)
    rows = run.call("policy.show", person=person)
    columns = {"name": "SETTING", "value": "VALUE", "scope": "SET FOR"}
    if not person:
        columns["exceptions"] = "EXCEPTIONS"
    show(run, rows, table(rows, columns, "no settings"))


@app.command("set")
def set_value(
    context: typer.Context,
    name: Name,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="on, off, or a word of the setting.", autocompletion=values)
    ],
    scope: ScopeOption = "global",
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Set a value; it acts at once, on live subscriptions as well."""
    run = session(context, json)
    result = run.call("policy.set", scope=scope, name=name, value=value, dry_run=dry_run)
    verb = "would be" if dry_run else "is"
    show(run, result, [f"{result['name']} {verb} {result['value']} for {result['scope']}", *changes(result)])


@app.command("unset")
def unset_value(
    context: typer.Context,
    name: Name,
    scope: ScopeOption = "global",
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Take a value back, so that the less specific one holds again."""
    run = session(context, json)
    result = run.call("policy.unset", scope=scope, name=name, dry_run=dry_run)
    verb = "would no longer be" if dry_run else "is no longer"
    show(run, result, [f"{result['name']} {verb} set for {result['scope']}", *changes(result)])
