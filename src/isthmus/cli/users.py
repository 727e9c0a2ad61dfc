"""`isthmus user`: hosted business users."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.completion import users
from isthmus.cli.output import JsonFlag, session, show, table
from isthmus.cli.passwords import Generate, PasswordFile, chosen_password, told
from isthmus.cli.photo_files import read_photo
from isthmus.errors import OperationError

app = typer.Typer(help="Business users who register with us.", no_args_is_help=True)

AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="name@domain", autocompletion=users)]
Groups = Annotated[
    list[str] | None, typer.Option("--group", help="Policy group, most important first; may be repeated.")
]


@app.command("add")
def add(
    context: typer.Context,
    address: AddressArgument,
    name: Annotated[str, typer.Option("--name", help="Name that contacts see.")] = "",
    group: Groups = None,
    password_file: PasswordFile = None,
    generate: Generate = False,
    json: JsonFlag = False,
) -> None:
    """Create a user. The password is asked for, read from a file, or made and shown once."""
    run = session(context, json)
    password = chosen_password(password_file, generate)
    result = run.call("user.add", address=address, password=password, display_name=name, groups=group or [])
    show(run, result, told(result, f"{result['address']} can register now"))


@app.command("list")
def list_all(
    context: typer.Context,
    domain: Annotated[str, typer.Argument(metavar="[DOMAIN]", help="Only this domain.")] = "",
    json: JsonFlag = False,
) -> None:
    """List users."""
    run = session(context, json)
    rows = run.call("user.list", domain=domain)
    columns = {
        "address": "ADDRESS",
        "display_name": "NAME",
        "groups": "GROUPS",
        "has_photo": "PHOTO",
        "is_disabled": "DISABLED",
    }
    show(run, rows, table(rows, columns, "no users yet; add one with `isthmus user add name@domain`"))


@app.command("disable")
def disable(context: typer.Context, address: AddressArgument, json: JsonFlag = False) -> None:
    """Keep the account, but let nothing in or out."""
    run = session(context, json)
    result = run.call("user.disable", address=address)
    show(run, result, [f"{result['address']} is disabled"])


@app.command("enable")
def enable(context: typer.Context, address: AddressArgument, json: JsonFlag = False) -> None:
    """Undo `disable`."""
    run = session(context, json)
    result = run.call("user.enable", address=address)
    show(run, result, [f"{result['address']} is enabled"])


@app.command("remove")
def remove(context: typer.Context, address: AddressArgument, json: JsonFlag = False) -> None:
    """Delete an account with its registrations; contacts stay for when it is made again."""
    run = session(context, json)
    result = run.call("user.remove", address=address)
    show(run, result, [f"{result['address']} is removed"])


@app.command("password")
def password(
    context: typer.Context,
    address: AddressArgument,
    password_file: PasswordFile = None,
    generate: Generate = False,
    json: JsonFlag = False,
) -> None:
    """Set another password."""
    run = session(context, json)
    result = run.call("user.password", address=address, password=chosen_password(password_file, generate))
    show(run, result, told(result, f"{result['address']} has another password"))


@app.command("photo")
def photo(
    context: typer.Context,
    address: AddressArgument,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="PNG or JPEG of up to 128 KiB; a small square is best.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the photo away.")] = False,
    json: JsonFlag = False,
) -> None:
    """Set the photo that contacts on XMPP see, or take it away."""
    run = session(context, json)
    if (file is None) is not remove:
        raise OperationError("name the FILE with the photo, or take the photo away with --remove")
    if file is None:
        result = run.call("user.remove_photo", address=address)
        show(run, result, [f"{result['address']} has no photo now"])
    else:
        result = run.call("user.photo", address=address, content=read_photo(file))
        show(run, result, [f"{result['address']} has a photo now ({result['media_type']}, {result['octets']} octets)"])


@app.command("groups")
def groups(
    context: typer.Context,
    address: AddressArgument,
    group: Annotated[list[str] | None, typer.Argument(metavar="[GROUP]...", help="None: out of all groups.")] = None,
    json: JsonFlag = False,
) -> None:
    """Put a user into policy groups, most important first."""
    run = session(context, json)
    result = run.call("user.groups", address=address, groups=group or [])
    show(run, result, [f"{result['address']} is in {', '.join(result['groups']) or 'no group'}"])
