"""`isthmus turn-credentials`: a way through firewalls for one client, for a day."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from isthmus.cli.output import JsonFlag, session, show


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("turn-credentials")(turn)


def turn(
    context: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Whose they are: name@domain.")],
    json: JsonFlag = False,
) -> None:
    """Make credentials for the TURN server that expire by themselves, for a client that cannot ask for them."""
    from isthmus.cli.configuration_file import load_configuration  # noqa: PLC0415 - start fast
    from isthmus.services.accounts import parse_address  # noqa: PLC0415 - start fast
    from isthmus.services.turn_credentials import turn_credentials  # noqa: PLC0415 - start fast

    run = session(context, json)
    settings = load_configuration(run.data_directory).turn
    made = turn_credentials(settings, str(parse_address(address)), time.time())
    lines = [f"username  {made.username}", f"password  {made.password}"]
    lines += [f"server    {uri}" for uri in made.uris]
    lines.append(f"good for  {made.seconds // 3600} h {made.seconds % 3600 // 60:02} min")
    show(run, made.to_json(), lines)
