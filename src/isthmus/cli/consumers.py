"""`isthmus consumer`: accounts of our own consumer realm."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli.output import JsonFlag, session, show, table
from isthmus.cli.passwords import Generate, PasswordFile, chosen_password, told

app = typer.Typer(help="Accounts of our own consumer realm (XMPP).", no_args_is_help=True)


@app.command("add")
def add(
    context: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="name@domain")],
    name: Annotated[str, typer.Option("--name", help="Name that contacts see.")] = "",
    password_file: PasswordFile = None,
    generate: Generate = False,
    json: JsonFlag = False,
) -> None:
    """Create an account on the embedded XMPP server, or set its password."""
    run = session(context, json)
    password = chosen_password(password_file, generate)
    result = run.call("consumer.add", address=address, password=password, display_name=name)
    show(run, result, told(result, f"{result['address']} can sign in with any XMPP client"))


@app.command("list")
def list_all(context: typer.Context, json: JsonFlag = False) -> None:
    """List the accounts made here."""
    run = session(context, json)
    rows = run.call("consumer.list")
    columns = {"address": "ADDRESS", "display_name": "NAME"}
    show(run, rows, table(rows, columns, "no accounts yet; add one with `isthmus consumer add name@domain`"))
