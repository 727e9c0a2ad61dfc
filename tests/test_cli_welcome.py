"""`isthmus welcome`: what a person needs to sign in, taken from the configuration and from the running server."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from isthmus.cli import app
from isthmus.cli.configuration_file import load_configuration
from isthmus.cli.welcome import collected
from isthmus.net.prosody_certificate import ensure_certificate
from isthmus.net.prosody_configuration import certificate_paths
from isthmus.net.prosody_process import prosody_paths

ROUTED = """
[[domains]]
name = "pbx.test"
kind = "routed"
component_secret = "secret"
peers = [{ host = "192.0.2.5" }]
"""


class Installation:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.run("init")

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["--data", str(self.directory), *arguments])

    def ok(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output + result.stderr
        return result.stdout

    def json(self) -> Any:
        return json.loads(self.ok("welcome", "--json"))

    def change(self, old: str, new: str) -> None:
        path = self.directory / "isthmus.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "data")


def test_both_sides_learn_address_and_server(installation: Installation) -> None:
    text = installation.ok("welcome")
    for needed in (
        "sip:NAME@corp.test",
        "127.0.0.1:5060 (UDP or TCP)",
        "ws://127.0.0.1:5066",
        "NAME@people.test",
        "127.0.0.1 port 5222",
        "ws://127.0.0.1:5280/xmpp-websocket",
        "isthmus@corp.test",
        "doctor",
    ):
        assert needed in text


def test_without_a_server_it_says_how_to_start_one(installation: Installation) -> None:
    text = installation.ok("welcome")
    assert text.startswith("Isthmus is not running: `isthmus serve` starts it.")
    assert "To stop" not in text
    assert installation.json()["is_running"] is False


def test_the_ports_of_a_running_server_are_the_real_ones(installation: Installation) -> None:
    installation.change(
        "[sip]", '[sip]\nlisteners = [{ transport = "udp", port = 0 }, { transport = "wss", port = 0 }]'
    )
    ready = {"listeners": ["udp 127.0.0.1:43210", "wss ::1:43211"]}
    (installation.directory / "ready").write_text(json.dumps(ready))
    told = collected(load_configuration(installation.directory), is_running=True)
    assert told["listeners"] == [
        {"transport": "udp", "host": "127.0.0.1", "port": 43210},
        {"transport": "wss", "host": "::1", "port": 43211},
    ]


def test_what_a_killed_server_left_behind_is_not_believed(installation: Installation) -> None:
    (installation.directory / "ready").write_text(json.dumps({"listeners": ["udp 127.0.0.1:43210"]}))
    assert installation.json()["listeners"][0]["port"] == 5060


def test_the_file_with_the_first_passwords_is_named_while_it_exists(installation: Installation) -> None:
    assert installation.json()["passwords"] is None
    path = installation.directory / "first-accounts.txt"
    path.write_text("secret-of-ana")
    assert installation.json()["passwords"] == str(path)
    text = installation.ok("welcome")
    assert "first-accounts.txt" in text
    assert "secret-of-ana" not in text


def test_the_fingerprint_is_that_of_the_certificate_a_client_will_see(installation: Installation) -> None:
    assert installation.json()["consumers"]["certificate_sha256"] is None
    configuration = load_configuration(installation.directory)
    certificate, key = certificate_paths(configuration, prosody_paths(configuration))
    certificate.parent.mkdir(parents=True)
    ensure_certificate(certificate, key, ["people.test"], datetime.datetime.now(datetime.UTC))
    told = installation.json()["consumers"]
    assert told["is_self_signed"] is True
    assert len(told["certificate_sha256"].split(":")) == 32
    text = installation.ok("welcome")
    assert told["certificate_sha256"][:47] in text
    assert told["certificate_sha1"] in text


def test_a_broken_certificate_does_not_hide_the_rest(installation: Installation) -> None:
    configuration = load_configuration(installation.directory)
    certificate, _ = certificate_paths(configuration, prosody_paths(configuration))
    certificate.parent.mkdir(parents=True)
    certificate.write_text("no certificate")
    assert "sip:NAME@corp.test" in installation.ok("welcome")


def test_an_existing_xmpp_server_keeps_its_own_accounts(installation: Installation) -> None:
    installation.change("# embedded = true ", "embedded = false # ")
    text = installation.ok("welcome")
    assert "your own XMPP server" in text
    assert "consumer add" not in text
    assert "port" not in installation.json()["consumers"]


def test_users_of_a_routed_domain_are_not_told_to_register(installation: Installation) -> None:
    with (installation.directory / "isthmus.toml").open("a") as file:
        file.write(ROUTED)
    text = installation.ok("welcome")
    assert "pbx.test: its users sign in where they always do" in text
    assert "NAME@pbx.test" not in text


def test_names_of_the_public_dns_need_no_server_by_hand(tmp_path: Path) -> None:
    made = tmp_path / "data"
    CliRunner().invoke(app, ["--data", str(made), "init", "--domain", "corp.example.org"])
    text = Installation(made).ok("welcome")
    assert "none if DNS leads to it" in text
    assert "corp.example.org is in no DNS" not in text


def test_listening_everywhere_and_outside_is_told_as_such(installation: Installation) -> None:
    installation.change("[sip]", '[sip]\nlisteners = [{ transport = "tls", host = "0.0.0.0", port = 5061 }]')
    installation.change('# interface = "127.0.0.1" ', 'interface = "*" # ')
    text = installation.ok("welcome")
    assert "<address of this machine>:5061 (TLS)" in text
    assert "STARTTLS is required" in text
    installation.change("[sip]", '[sip]\nadvertised_host = "sip.corp.test"')
    assert "sip.corp.test:5061 (TLS)" in installation.ok("welcome")


def test_without_a_configuration_the_remedy_is_init(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--data", str(tmp_path), "welcome"])
    assert result.exit_code == 78
    assert "isthmus init" in result.stderr


def test_a_person_learns_how_to_hear_themselves_where_there_are_calls(installation: Installation) -> None:
    assert "call echo@corp.test" in installation.ok("welcome")
    with (installation.directory / "isthmus.toml").open("a") as configuration:
        configuration.write("\n[calls]\nenabled = false\n")
    assert "call echo@corp.test" not in installation.ok("welcome")
