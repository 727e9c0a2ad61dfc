"""`isthmus init`, `serve`, `status`, `prosody-config`: the server itself."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli.output import JsonFlag, session, show


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(init)
    app.command("serve")(serve)
    app.command("status")(status)
    app.command("prosody-config")(prosody_config)


def init(
    context: typer.Context,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", help="Business (SIP) domain that we host; may be repeated.")
    ] = None,
    consumer_domain: Annotated[str, typer.Option("--consumer-domain", help="Our own XMPP domain.")] = "people.test",
    json: JsonFlag = False,
) -> None:
    """Write isthmus.toml with comments and fresh secrets into a new data directory."""
    from isthmus.cli.configuration_file import write_configuration  # noqa: PLC0415 - start fast

    run = session(context, json)
    path = write_configuration(run.data_directory, domain or ["corp.test"], consumer_domain)
    result = {"configuration": str(path)}
    show(run, result, [f"wrote {path}", "next: read it, then `isthmus serve`, and `isthmus user add name@domain`"])


def serve(context: typer.Context) -> None:
    """Run the server until it is told to stop (SIGTERM, Ctrl-C)."""
    from isthmus.cli.configuration_file import load_configuration  # noqa: PLC0415 - start fast
    from isthmus.logs import configure_logs  # noqa: PLC0415 - start fast

    run = session(context)
    configuration = load_configuration(run.data_directory)
    log = configuration.log
    configure_logs(log.level, log.format, shows_bodies=log.bodies)

    import asyncio  # noqa: PLC0415 - start fast

    import uvloop  # noqa: PLC0415 - start fast

    from isthmus.app import serve as serve_all  # noqa: PLC0415 - start fast

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(serve_all(configuration))
    raise typer.Exit(code)


def status(context: typer.Context, json: JsonFlag = False) -> None:
    """Tell whether the server runs, and its numbers."""
    run = session(context, json)
    result = run.call("status")
    lines = [f"isthmus {result['version']} {'is running' if result['is_running'] else 'is not running'}"]
    lines += [
        f"  {key.replace('_', ' ')}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in result.items()
        if key not in ("version", "is_running")
    ]
    show(run, result, lines)


def prosody_config(
    context: typer.Context,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="The whole configuration of the embedded server instead.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Print what an existing Prosody needs to know about us (it holds the component secrets)."""
    from isthmus.cli.configuration_file import load_configuration  # noqa: PLC0415 - start fast
    from isthmus.net.prosody_configuration import (  # noqa: PLC0415 - start fast
        component_snippet,
        embedded_configuration,
    )
    from isthmus.net.prosody_process import prosody_paths  # noqa: PLC0415 - start fast

    run = session(context, json)
    configuration = load_configuration(run.data_directory)
    if embedded:
        text = embedded_configuration(configuration, prosody_paths(configuration))
    else:
        text = component_snippet(configuration)
    show(run, {"configuration": text}, [text.rstrip("\n")])
