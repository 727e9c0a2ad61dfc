"""`isthmus contact`: contacts of business users, and the requests that wait for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus.cli.completion import peers, users
from isthmus.cli.contact_lists import read_contact_list
from isthmus.cli.output import DryRunFlag, JsonFlag, session, show, table
from isthmus.errors import OperationError

app = typer.Typer(help="Contacts of business users, and requests that wait.", no_args_is_help=True)

Owner = Annotated[str, typer.Argument(metavar="OWNER", help="The business user: name@domain", autocompletion=users)]
Peer = Annotated[str, typer.Argument(metavar="PEER", help="The other person: name@domain", autocompletion=peers)]


@app.command("list")
def list_all(
    context: typer.Context,
    owner: Annotated[
        str, typer.Argument(metavar="[OWNER]", help="Only this user's contacts.", autocompletion=users)
    ] = "",
    pending: Annotated[bool, typer.Option("--pending", help="Only requests that wait for an answer.")] = False,
    json: JsonFlag = False,
) -> None:
    """List contacts."""
    run = session(context, json)
    rows = run.call("contact.list", owner=owner, is_pending_only=pending)
    shown = [{**row, "state": _state(row)} for row in rows]
    columns = {"owner": "OWNER", "peer": "PEER", "subscription": "SUBSCRIPTION", "state": "STATE"}
    show(run, rows, table(shown, columns, "no requests wait" if pending else "no contacts yet"))


@app.command("approve")
def approve(context: typer.Context, owner: Owner, peer: Peer, json: JsonFlag = False) -> None:
    """Grant the request of PEER to be a contact of OWNER."""
    run = session(context, json)
    result = run.call("contact.approve", owner=owner, peer=peer)
    show(run, result, [f"{result['peer']} is a contact of {result['owner']} now"])


@app.command("decline")
def decline(context: typer.Context, owner: Owner, peer: Peer, json: JsonFlag = False) -> None:
    """Refuse the request of PEER, or take an approval back."""
    run = session(context, json)
    result = run.call("contact.decline", owner=owner, peer=peer)
    show(run, result, [f"{result['peer']} does not see {result['owner']}"])


@app.command("block")
def block(context: typer.Context, owner: Owner, peer: Peer, json: JsonFlag = False) -> None:
    """Let nothing from PEER reach OWNER; to PEER it looks as if OWNER were away."""
    run = session(context, json)
    result = run.call("contact.block", owner=owner, peer=peer)
    show(run, result, [f"{result['owner']} has blocked {result['peer']}"])


@app.command("unblock")
def unblock(context: typer.Context, owner: Owner, peer: Peer, json: JsonFlag = False) -> None:
    """Undo `block`."""
    run = session(context, json)
    result = run.call("contact.unblock", owner=owner, peer=peer)
    show(run, result, [f"{result['owner']} no longer blocks {result['peer']}"])


@app.command("import")
def import_list(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Lines of OWNER and PEER; - is standard input.")],
    gateway: Annotated[
        list[str] | None,
        typer.Option("--gateway", help="Domain of the old gateway, as in name%domain@GATEWAY; may be repeated."),
    ] = None,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Ask for the contacts of an older federation; name(domain)@msn.com and name%domain@GATEWAY are read, too."""
    run = session(context, json)
    rows: list[dict[str, Any]] = []
    for entries in list(read_contact_list(file)):  # the whole file is read before anything is asked
        rows += run.call("contact.import", entries=entries, gateways=gateway or [], dry_run=dry_run)
    refused = [row for row in rows if row["outcome"] == "refused"]
    lines = [f"{row['owner']} {row['peer']}: {row['text']}" for row in refused]
    counts = Counter(row["outcome"] for row in rows)
    told = ", ".join(f"{counts[word]} {word}" for word in ("asked", "granted", "there already", "refused"))
    show(run, rows, [*lines, f"would be: {told}" if dry_run else told])
    if refused:
        raise OperationError(f"{len(refused)} of {len(rows)} contacts could not be taken over")


def _state(row: dict[str, Any]) -> str:
    words = {
        "is_blocked": "blocked",
        "is_pending_in": "waits for the owner's answer",
        "is_pending_out": "waits for the peer's answer",
    }
    return ", ".join(text for key, text in words.items() if row[key])
