"""The command line. Commands import what they need when they run, so that help and completion come at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import calls, consumers, contacts, diagnosis, domains, policies, server, turn, users, welcome
from isthmus.cli.output import Errors, Session

DATA_VARIABLE = "ISTHMUS_DATA"

app = typer.Typer(
    name="isthmus",
    cls=Errors,
    help="Contacts, presence, messages and calls between a company's SIP domain and XMPP.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(users.app, name="user")
app.add_typer(consumers.app, name="consumer")
app.add_typer(contacts.app, name="contact")
app.add_typer(calls.app, name="call")
app.add_typer(domains.app, name="domain")
app.add_typer(domains.app, name="provider", hidden=True)
app.add_typer(policies.app, name="policy")
server.register(app)
welcome.register(app)
diagnosis.register(app)
turn.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        from isthmus import __version__  # noqa: PLC0415 - see the module's docstring

        typer.echo(f"isthmus {__version__}")
        raise typer.Exit


@app.callback()
def everything(
    context: typer.Context,
    data: Annotated[
        Path, typer.Option("--data", envvar=DATA_VARIABLE, help="Data directory: configuration, store, control socket.")
    ] = Path("data"),
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Contacts, presence, messages and calls between a company's SIP domain and XMPP."""
    context.obj = Session(data.absolute())


def main() -> None:
    """Entry point of the command `isthmus`."""
    app(prog_name="isthmus")
