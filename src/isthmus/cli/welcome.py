"""`isthmus welcome`: how people sign in on both sides, with any client; where passwords are; how to stop."""

from __future__ import annotations

import json as encoder
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from isthmus.cli.output import JsonFlag, session, show

if TYPE_CHECKING:
    from isthmus.config import Configuration

READY_FILE = "ready"  # as `app` writes it once everything is up; imported from there it would cost half a second
# Written by scripts/run for the accounts of a first start; whoever has read it deletes it.
PASSWORDS_FILE = "first-accounts.txt"
_FOR_BROWSERS = ("ws", "wss")  # each is the scheme of its URL as well
_WILDCARDS = ("0.0.0.0", "::", "*")  # noqa: S104 - compared, not bound


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("welcome")(welcome)


def welcome(context: typer.Context, json: JsonFlag = False) -> None:
    """Tell how to sign in with any SIP and any XMPP client, and how to go on from there."""
    from isthmus.admin.client import ControlClient  # noqa: PLC0415 - start fast
    from isthmus.cli.configuration_file import load_configuration  # noqa: PLC0415 - start fast

    run = session(context, json)
    configuration = load_configuration(run.data_directory)
    result = collected(configuration, is_running=ControlClient(run.data_directory).is_running())
    show(
        run, result, [*_heading(result), *_sip(result), *_xmpp(result), *_onwards(result, _command(run.data_directory))]
    )


def collected(configuration: Configuration, *, is_running: bool) -> dict[str, Any]:
    """Return everything that is told, as `--json` prints it.

    Args:
        configuration: of the data directory.
        is_running: ports are those the server really has; otherwise those it is configured to take.
    """
    passwords = configuration.data_directory / PASSWORDS_FILE
    return {
        "is_running": is_running,
        "domains": [
            {"name": domain.name, "kind": domain.kind.value, "is_public": _is_public(domain.name)}
            for domain in configuration.domains
        ],
        "service_name": configuration.service_name,
        "listeners": (_bound(configuration.data_directory) if is_running else []) or _configured(configuration),
        "advertised_host": configuration.sip.advertised_host,
        "consumers": _consumers(configuration),
        "passwords": str(passwords) if passwords.exists() else None,
        "has_calls": configuration.calls.enabled,
    }


def _bound(directory: Path) -> list[dict[str, Any]]:
    """What the running server wrote: `udp 127.0.0.1:5060`; nothing while it is still starting."""
    try:
        lines: Sequence[str] = encoder.loads((directory / READY_FILE).read_text(encoding="utf-8"))["listeners"]
    except (OSError, ValueError, KeyError):
        return []
    found = []
    for line in lines:
        transport, _, place = line.partition(" ")
        host, _, port = place.rpartition(":")
        found.append({"transport": transport, "host": host, "port": int(port)})
    return found


def _configured(configuration: Configuration) -> list[dict[str, Any]]:
    return [
        {"transport": listener.transport.value, "host": listener.host, "port": listener.port}
        for listener in configuration.sip.listeners
    ]


def _consumers(configuration: Configuration) -> dict[str, Any]:
    from isthmus.config import is_loopback  # noqa: PLC0415 - start fast

    xmpp = configuration.xmpp
    told: dict[str, Any] = {
        "domain": xmpp.consumer_domain,
        "is_public": _is_public(xmpp.consumer_domain),
        "is_embedded": xmpp.embedded,
        "host": xmpp.interface if xmpp.embedded else xmpp.host,
    }
    if not xmpp.embedded:
        return told
    told |= {
        "port": xmpp.c2s_port or None,
        "websocket_port": xmpp.websocket_port or None,
        "is_tls_required": not is_loopback(xmpp.interface),
    }
    return told | _certificate(configuration)


def _certificate(configuration: Configuration) -> dict[str, Any]:
    """Fingerprint of the embedded server's certificate, to compare with what a client shows; None before a start."""
    from cryptography import x509  # noqa: PLC0415 - start fast
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256  # noqa: PLC0415 - start fast

    from isthmus.net.prosody_configuration import certificate_paths  # noqa: PLC0415 - start fast
    from isthmus.net.prosody_process import prosody_paths  # noqa: PLC0415 - start fast

    path, _ = certificate_paths(configuration, prosody_paths(configuration))
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return {"certificate": str(path), "certificate_sha256": None, "certificate_sha1": None, "is_self_signed": None}
    return {
        "certificate": str(path),
        "certificate_sha256": certificate.fingerprint(SHA256()).hex(":").upper(),
        # COMPAT: profanity and others show the SHA-1 alone; to recognise one's own certificate it will do.
        "certificate_sha1": certificate.fingerprint(SHA1()).hex(),  # noqa: S303 - compared by eye, proves nothing else
        "is_self_signed": certificate.issuer == certificate.subject,
    }


def _is_public(domain: str) -> bool:
    from isthmus.admin.doctor_names import RESERVED  # noqa: PLC0415 - start fast

    return domain.rpartition(".")[2] not in RESERVED


def _command(directory: Path) -> str:
    """The command as it can be typed where we stand, for the data directory that was meant."""
    program = Path(sys.argv[0])
    name = _relative(program) if program.is_absolute() else str(program)
    return (
        shlex.quote(name)
        if directory == Path("data").absolute()
        else shlex.join([name, "--data", _relative(directory)])
    )


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


# --- for people ---


def _heading(result: dict[str, Any]) -> list[str]:
    if result["is_running"]:
        return ["Isthmus is running."]
    return ["Isthmus is not running: `isthmus serve` starts it. Once it runs:"]


def _row(label: str, text: str) -> str:
    return f"  {label:<14}{text}"


def _place(host: str, advertised: str = "") -> str:
    if advertised:
        return advertised
    return "<address of this machine>" if host in _WILDCARDS else f"[{host}]" if ":" in host else host


def _sip(result: dict[str, Any]) -> list[str]:
    hosted = [domain for domain in result["domains"] if domain["kind"] == "hosted"]
    lines = []
    for domain in result["domains"]:
        if domain["kind"] != "hosted":
            lines += ["", f"{domain['name']}: its users sign in where they always do; a neighbour of ours owns them."]
    if not hosted:
        return lines
    names = [domain["name"] for domain in hosted]
    lines += ["", "At the company, with any SIP softphone or desk phone:"]
    lines.append(_row("address", " or ".join(f"sip:NAME@{name}" for name in names)))
    lines.append(_row("user name", "NAME (the part before the @; clients ask for it as authentication user, too)"))
    lines += [_row("proxy", _proxy(result, domain)) for domain in hosted]
    for listener in result["listeners"]:
        if listener["transport"] in _FOR_BROWSERS:
            place = _place(listener["host"], result["advertised_host"])
            lines.append(_row("in a browser", f"{listener['transport']}://{place}:{listener['port']}"))
    return lines


def _proxy(result: dict[str, Any], domain: dict[str, Any]) -> str:
    places: dict[str, list[str]] = {}
    for listener in result["listeners"]:
        if listener["transport"] not in _FOR_BROWSERS:
            place = f"{_place(listener['host'], result['advertised_host'])}:{listener['port']}"
            places.setdefault(place, []).append(listener["transport"].upper())
    listed = ", ".join(f"{place} ({' or '.join(transports)})" for place, transports in places.items())
    if domain["is_public"]:
        return f"{listed}; none if DNS leads to it (`isthmus doctor` looks)"
    return f"{listed}; needed, because {domain['name']} is in no DNS"


def _xmpp(result: dict[str, Any]) -> list[str]:
    consumers = result["consumers"]
    if not consumers["is_embedded"]:
        where = f"your own XMPP server ({consumers['host']})"
        return ["", f"Everybody else, with any XMPP client: accounts of {consumers['domain']} are on {where}."]
    lines = ["", "Everybody else, with any XMPP client:", _row("address", f"NAME@{consumers['domain']}")]
    if consumers["port"]:
        why = "none if DNS leads to it" if consumers["is_public"] else f"needed, as {consumers['domain']} is in no DNS"
        lines.append(_row("server", f"{_place(consumers['host'])} port {consumers['port']}; {why}"))
    if consumers["websocket_port"]:
        place = _place(consumers["host"])
        lines.append(_row("in a browser", f"ws://{place}:{consumers['websocket_port']}/xmpp-websocket"))
    return lines + _encryption(consumers)


def _encryption(consumers: dict[str, Any]) -> list[str]:
    rule = "required" if consumers["is_tls_required"] else "offered; not required on this machine alone"
    lines = [_row("encryption", f"STARTTLS is {rule}")]
    if consumers["is_self_signed"]:
        lines.append(_row("certificate", "self-signed: accept it if the client shows one of these fingerprints"))
        digits = consumers["certificate_sha256"]
        lines += [_row("", f"SHA-256 {digits[:47]}"), _row("", f"        {digits[48:]}")]  # 16 octets a line
        lines.append(_row("", f"SHA-1   {consumers['certificate_sha1']}"))
    return lines


def _onwards(result: dict[str, Any], command: str) -> list[str]:
    lines = [""]
    if result["passwords"]:
        path = _relative(Path(result["passwords"]))
        lines.append(f"The first passwords are in {path}: delete that file when you have read it.")
    hosted = next((domain["name"] for domain in result["domains"] if domain["kind"] == "hosted"), "")
    lines.append("New accounts:")
    if hosted:
        lines.append(f"  {command} user add NAME@{hosted}")
    if result["consumers"]["is_embedded"]:
        lines.append(f"  {command} consumer add NAME@{result['consumers']['domain']}")
    lines.append("To meet, add each other's plain address as a contact.")
    if hosted:
        service = f"{result['service_name']}@{hosted}"
        lines.append(f"A phone without a contact list writes `add NAME@{result['consumers']['domain']}` to {service}.")
    if hosted and result["has_calls"]:
        lines.append(f"To hear yourself, call echo@{hosted}: it plays back what you say.")
    lines += [f"Does it work?   {command} doctor", f"Why not?        {command} explain ADDRESS ADDRESS"]
    if result["is_running"]:
        lines.append("To stop:        Ctrl-C where it runs (or SIGTERM to `isthmus serve`)")
    return lines
