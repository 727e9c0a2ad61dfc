"""`isthmus domain` (also `provider`): partner domains."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli.completion import domains
from isthmus.cli.output import DryRunFlag, JsonFlag, changes, moment, session, show, table

app = typer.Typer(help="Partner domains: allowed, blocked, discovered.", no_args_is_help=True)

DomainArgument = Annotated[str, typer.Argument(metavar="DOMAIN", help="e.g. partner.example", autocompletion=domains)]
Subdomains = Annotated[bool, typer.Option("--subdomains", help="Also every domain below.")]
Note = Annotated[str, typer.Option("--note", help="Why, for the next administrator.")]


@app.command("allow")
def allow(
    context: typer.Context,
    domain: DomainArgument,
    subdomains: Subdomains = False,
    note: Note = "",
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """List a partner domain as allowed: the limits of discovered domains no longer apply to it."""
    run = session(context, json)
    result = run.call("domain.allow", domain=domain, subdomains=subdomains, note=note, dry_run=dry_run)
    show(run, result, [f"{result['domain']} {'would be' if dry_run else 'is'} allowed", *changes(result)])


@app.command("block")
def block(
    context: typer.Context,
    domain: DomainArgument,
    subdomains: Subdomains = False,
    note: Note = "",
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Exchange nothing with a partner domain; live subscriptions end at once."""
    run = session(context, json)
    result = run.call("domain.block", domain=domain, subdomains=subdomains, note=note, dry_run=dry_run)
    show(run, result, [f"{result['domain']} {'would be' if dry_run else 'is'} blocked", *changes(result)])


@app.command("remove")
def remove(context: typer.Context, domain: DomainArgument, dry_run: DryRunFlag = False, json: JsonFlag = False) -> None:
    """Forget what was said of a partner domain."""
    run = session(context, json)
    result = run.call("domain.remove", domain=domain, dry_run=dry_run)
    show(run, result, [f"{result['domain']} {'would have' if dry_run else 'has'} no rule", *changes(result)])


@app.command("list")
def list_all(context: typer.Context, json: JsonFlag = False) -> None:
    """List our own domains and partner domains."""
    run = session(context, json)
    rows = run.call("domain.list")
    shown = [{**row, "since": moment(row.get("since"))} for row in rows]
    columns = {
        "domain": "DOMAIN",
        "action": "STANDING",
        "includes_subdomains": "SUBDOMAINS",
        "people_addressed": "ADDRESSED",
        "since": "SINCE",
        "note": "NOTE",
    }
    show(run, rows, table(shown, columns, "no domains"))
