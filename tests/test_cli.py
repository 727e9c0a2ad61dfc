"""The command line as an administrator uses it, without a running server and with one."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from isthmus.admin.control import Control
from isthmus.cli import app
from isthmus.errors import ConfigurationError
from isthmus.model import Address
from isthmus.xmpp.vcard import MAXIMUM_PHOTO_OCTETS
from tests.support.administration import AdministrationWorld

ANA, BEN = "ana@corp.test", "ben@people.test"
PNG = b"\x89PNG\r\n\x1a\n and the picture itself"


class Command:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runner = CliRunner()

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        return self.runner.invoke(app, ["--data", str(self.directory), *arguments], input=stdin)

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output + result.stderr
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))


@pytest.fixture
def command(tmp_path: Path) -> Command:
    made = Command(tmp_path / "data")
    made.ok("init")
    return made


def test_init_writes_private_files_and_never_overwrites_secrets(command: Command) -> None:
    path = command.directory / "isthmus.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(command.directory.stat().st_mode) == 0o700
    before = path.read_text()
    result = command.run("init")
    assert result.exit_code == 64
    assert "exists already" in result.stderr
    assert path.read_text() == before


def test_two_inits_make_different_secrets(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        Command(tmp_path / name).ok("init", "--domain", "corp.test", "--domain", "sub.corp.test")
        texts.append((tmp_path / name / "isthmus.toml").read_text())
    secrets = [line for text in texts for line in text.splitlines() if line.startswith("component_secret")]
    assert len(set(secrets)) == 4


def test_a_user_is_added_listed_disabled_and_removed(command: Command) -> None:
    made = command.json("user", "add", ANA, "--name", "Ana", "--group", "sales", "--generate")
    assert made["password"]
    assert ANA in command.ok("user", "list")
    assert command.json("user", "disable", ANA)["is_disabled"]
    command.ok("user", "enable", ANA)
    assert command.json("user", "groups", ANA, "staff")["groups"] == ["staff"]
    command.ok("user", "remove", ANA)
    assert command.json("user", "list") == []


def test_a_photo_is_set_from_a_file_and_taken_away(command: Command, tmp_path: Path) -> None:
    command.ok("user", "add", ANA, "--generate")
    photo = tmp_path / "ana.png"
    photo.write_bytes(PNG)
    told = command.json("user", "photo", ANA, str(photo))
    assert (told["media_type"], told["octets"]) == ("image/png", len(PNG))
    assert "has a photo now (image/png" in command.ok("user", "photo", ANA, str(photo))
    assert command.json("user", "list")[0]["has_photo"] is True
    assert "has no photo now" in command.ok("user", "photo", ANA, "--remove")
    assert command.json("user", "list")[0]["has_photo"] is False


def test_a_photo_that_will_not_do_is_refused_with_the_reason(command: Command, tmp_path: Path) -> None:
    command.ok("user", "add", ANA, "--generate")
    huge, text = tmp_path / "huge.png", tmp_path / "note.txt"
    huge.write_bytes(PNG + bytes(10_000_000))
    text.write_text("my face")
    for arguments, reason in (
        ([str(huge)], "larger than 128 KiB"),
        ([str(text)], "neither PNG nor JPEG"),
        ([str(tmp_path / "gone.png")], "cannot be read from"),
        ([], "name the FILE"),
        ([str(text), "--remove"], "name the FILE"),
    ):
        result = command.run("user", "photo", ANA, *arguments)
        assert result.exit_code == 64
        assert reason in result.stderr


def test_a_password_comes_from_a_file_or_standard_input_never_from_an_argument(
    command: Command, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse\nsecond line\n")
    shown = command.ok("user", "add", ANA, "--password-file", str(secret))
    assert "password" not in shown
    command.ok("user", "password", ANA, "--password-file", "-", stdin="battery staple\n")
    assert command.run("user", "password", ANA, "--password", "battery staple").exit_code == 2
    empty = tmp_path / "empty"
    empty.write_text("\n")
    refused = command.run("user", "password", ANA, "--password-file", str(empty))
    assert refused.exit_code == 64
    assert "empty" in refused.stderr


def test_policy_is_set_shown_tried_and_unset(command: Command) -> None:
    assert "would be off" in command.ok("policy", "set", "messages", "off", "--for", f"user:{ANA}", "--dry-run")
    command.ok("policy", "set", "messages", "off", "--for", f"user:{ANA}")
    assert f"user:{ANA}=off" in command.ok("policy", "show")
    rows = {row["name"]: row["value"] for row in command.json("policy", "show", ANA)}
    assert rows["messages"] == "off"
    explained = command.ok("explain", ANA, BEN)
    assert "policy stops messages" in explained
    assert "no calls yet" in explained
    command.ok("policy", "unset", "messages", "--for", f"user:{ANA}")
    assert command.json("audit")[0]["action"] == "policy unset"


def test_domains_are_also_called_providers(command: Command) -> None:
    command.ok("provider", "allow", "partner.example", "--note", "our supplier")
    command.ok("domain", "block", "bad.example", "--subdomains")
    assert {row["domain"] for row in command.json("domain", "list")} >= {"partner.example", "bad.example"}
    command.ok("domain", "remove", "bad.example")


def test_contact_lists_of_an_older_federation_are_imported(command: Command, tmp_path: Path) -> None:
    command.ok("user", "add", ANA, "--generate")
    lists = tmp_path / "contacts.txt"
    people = "".join(f"{ANA}, p{number}%people.test@gw.corp.test\n" for number in range(150))
    lists.write_text(f"# from the old server\n\n{ANA}\tben(people.test)@msn.com\n{people}", encoding="utf-8-sig")
    arguments = ("contact", "import", str(lists), "--gateway", "gw.corp.test")
    assert command.ok(*arguments, "--dry-run") == "would be: 151 asked, 0 granted, 0 there already, 0 refused\n"
    assert command.ok(*arguments) == "151 asked, 0 granted, 0 there already, 0 refused\n"
    assert {row["outcome"] for row in command.json(*arguments)} == {"there already"}
    assert "waits for the peer's answer" in command.ok("contact", "list", ANA)


def test_what_an_import_cannot_take_is_named_and_a_torn_file_changes_nothing(command: Command) -> None:
    command.ok("user", "add", ANA, "--generate")
    result = command.run("contact", "import", "-", stdin=f"{ANA} {BEN}\nold@corp.test {BEN}\n")
    assert result.exit_code == 64
    assert f"old@corp.test {BEN}: there is no user old@corp.test" in result.stdout
    assert "1 of 2 contacts could not be taken over" in result.stderr
    torn = command.run("contact", "import", "-", stdin=f"{ANA} eva@people.test\n{ANA}\n")
    assert torn.exit_code == 64
    assert "line 2 of - is no pair" in torn.stderr
    assert "eva@people.test" not in command.ok("contact", "list")
    assert "cannot be read" in command.run("contact", "import", "no-such-file").stderr


def test_errors_are_one_sentence_with_a_remedy_and_an_exit_code(command: Command) -> None:
    refused = command.run("contact", "approve", ANA, BEN)
    assert refused.exit_code == 69
    assert "isthmus serve" in refused.stderr
    told = json.loads(command.run("contact", "approve", ANA, BEN, "--json").stderr)
    assert told["exit_code"] == 69
    assert command.run("user", "disable", ANA).exit_code == 67
    assert command.run("trace").exit_code == 69


def test_without_a_configuration_the_remedy_is_init(tmp_path: Path) -> None:
    refused = Command(tmp_path).run("user", "list")
    assert refused.exit_code == ConfigurationError.exit_code
    assert "isthmus init" in refused.stderr


def test_the_doctor_reports_a_broken_configuration_instead_of_giving_up(command: Command) -> None:
    path = command.directory / "isthmus.toml"
    path.write_text(path.read_text().replace('kind = "hosted"', 'kind = "hostd"', 1))
    result = command.run("doctor")
    assert result.exit_code == 1
    assert "domains.0.kind" in result.stdout
    assert "component_secret" not in result.stdout


def test_the_component_snippet_names_every_domain(command: Command) -> None:
    assert 'Component "corp.test"' in command.ok("prosody-config")
    assert 'VirtualHost "people.test"' in command.ok("prosody-config", "--embedded")


def test_status_says_that_no_server_runs(command: Command) -> None:
    assert "is not running" in command.ok("status")
    assert command.json("status")["is_running"] is False


@pytest.fixture
def server(command: Command) -> Iterator[AdministrationWorld]:
    """A server's control socket in the data directory, on its own loop."""
    ready, stopped = threading.Event(), threading.Event()
    worlds: list[AdministrationWorld] = []

    async def serve() -> None:
        world = AdministrationWorld()
        await world.start()
        control = Control(world.administration, world.trace, command.directory)
        await control.start()
        worlds.append(world)
        ready.set()
        await asyncio.to_thread(stopped.wait)
        await control.stop()
        await world.bus.drained()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    yield worlds[0]
    stopped.set()
    thread.join(10)


def test_the_same_commands_talk_to_a_running_server(command: Command, server: AdministrationWorld) -> None:
    command.ok("user", "add", ANA, "--generate")
    assert [str(user.address) for user in server.directory.users()] == [ANA]
    assert command.json("status")["is_running"] is True
    refused = command.run("user", "disable", "nobody@corp.test")
    assert refused.exit_code == 67
    assert "user list" in refused.stderr


def test_the_largest_photo_reaches_a_running_server(
    command: Command, server: AdministrationWorld, tmp_path: Path
) -> None:
    command.ok("user", "add", ANA, "--generate")
    photo = tmp_path / "ana.png"
    photo.write_bytes(PNG.ljust(MAXIMUM_PHOTO_OCTETS))
    assert command.json("user", "photo", ANA, str(photo))["octets"] == MAXIMUM_PHOTO_OCTETS
    photo.write_bytes(PNG.ljust(MAXIMUM_PHOTO_OCTETS + 1))
    assert "larger than 128 KiB" in command.run("user", "photo", ANA, str(photo)).stderr
    assert len(server.photos.update(Address.parse(ANA))) > 40


def test_help_comes_at_once() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "isthmus.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "policy" in done.stdout
    # The goal is 0.5 s on an idle machine; tests share theirs.
    assert time.monotonic() - began < 2.0


def test_help_loads_neither_the_store_nor_the_network() -> None:
    heavy = ("sqlalchemy", "slixmpp", "pydantic", "uvicorn", "asyncio")
    code = f"import sys, isthmus.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def completed(command: Command, *words: str) -> list[str]:
    """What bash offers for the last word, through the function that `--show-completion` prints."""
    program = Path(sys.executable).parent / "isthmus"
    function = subprocess.run(
        [program, "--show-completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},  # no shell started us
    )
    line = ["isthmus", "--data", str(command.directory), *words]
    script = f'{function.stdout}\nCOMP_WORDS=("$@"); COMP_CWORD={len(line) - 1}; _isthmus_completion {program}\n'
    done = subprocess.run(
        ["bash", "-c", f"{script}printf '%s\\n' \"${{COMPREPLY[@]}}\"", "bash", *line],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_commands_settings_and_their_values(command: Command) -> None:
    assert completed(command, "con") == ["consumer", "contact"]
    assert completed(command, "policy", "set", "pre") == ["presence", "presence_view"]
    assert completed(command, "policy", "set", "strangers", "") == ["allow", "contacts", "nobody"]
    assert completed(command, "explain", "a") == [], "without a server nobody is known, and nothing is said"


def test_the_shell_completes_people_and_domains_that_the_server_knows(
    command: Command, server: AdministrationWorld
) -> None:
    command.ok("user", "add", ANA, "--generate", "--group", "sales")
    command.ok("domain", "block", "bad.example")
    command.ok("contact", "import", "-", stdin=f"{ANA} {BEN}\n")
    assert completed(command, "explain", "") == [ANA, BEN]
    assert completed(command, "contact", "block", "an") == [ANA]
    assert completed(command, "contact", "block", ANA, "") == [BEN]
    assert completed(command, "policy", "set", "messages", "off", "--for", "") == [
        "global",
        "group:sales",
        f"user:{ANA}",
    ]
    assert completed(command, "domain", "remove", "b") == ["bad.example"]
