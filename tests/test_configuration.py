"""Configuration: the file that `init` writes, errors that name the setting, and reference pages that tell the truth."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from isthmus.cli.configuration_file import configuration_text, load_configuration, write_configuration
from isthmus.config import Configuration, DomainKind, MediaSettings, TurnSettings, parse_relay
from isthmus.errors import ConfigurationError, OperationError
from isthmus.policy import SETTINGS
from tests.support.reference_pages import command_page, settings

ROOT = Path(__file__).parents[1]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_configuration(tmp_path / "data", ["corp.test"], "people.test")
    return tmp_path / "data"


def test_what_init_writes_is_loaded_with_every_default(directory: Path) -> None:
    found = load_configuration(directory)
    assert [domain.name for domain in found.domains] == ["corp.test"]
    assert found.domains[0].kind is DomainKind.HOSTED
    assert len(found.domains[0].component_secret.get_secret_value()) >= 24
    assert found.data_directory == directory
    defaults = Configuration()
    for section in ("sip", "xmpp", "policy", "limits", "web", "log"):
        assert getattr(found, section) == getattr(defaults, section)


def test_the_commented_settings_are_real_and_show_the_defaults() -> None:
    text = configuration_text(["corp.test"], "people.test")
    samples = ("certificate", "private_key", "trusted_authorities", "hosts_file")
    uncommented = []
    for line in text.partition("# A domain whose users")[0].splitlines():
        setting = re.match(r"# (\w+ = .*|  \{.*\},|\])$", line)
        is_sample = setting is not None and setting.group(1).startswith(samples)
        uncommented.append(setting.group(1) if setting and not is_sample else line)
    found = Configuration(**tomllib.loads("\n".join(uncommented)))
    defaults = Configuration()
    for section in ("sip", "xmpp", "policy", "limits", "web", "log"):
        assert getattr(found, section) == getattr(defaults, section)


def test_the_example_of_a_routed_domain_works() -> None:
    tail = configuration_text([], "people.test").partition("# A domain whose users a PBX or proxy owns:\n")[2]
    example = "\n".join(line.removeprefix("# ") for line in tail.splitlines())
    assert Configuration(**tomllib.loads(example)).domains[0].kind is DomainKind.ROUTED


def test_the_environment_wins_over_the_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_XMPP__C2S_PORT", "15222")
    monkeypatch.setenv("ISTHMUS_DATA", str(directory))  # the command's own variable does no harm here
    found = load_configuration(directory)
    assert found.xmpp.c2s_port == 15222
    assert found.xmpp.consumer_domain == "people.test"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("[web]", "[web]\nprt = 9"), "web.prt"),
        (('kind = "hosted"', 'kind = "routed"'), "routed: name at least one peer"),
        (("[log]", "[log]\nlevel = 7"), "log.level"),
        (("[sip]", "[sip\n"), "is not TOML"),
    ],
)
def test_a_mistake_is_named_without_showing_secrets(directory: Path, change: tuple[str, str], named: str) -> None:
    path = directory / "isthmus.toml"
    secret = load_configuration(directory).domains[0].component_secret.get_secret_value()
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(ConfigurationError, match=re.escape(named)) as caught:
        load_configuration(directory)
    assert secret not in str(caught.value)
    assert "isthmus.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("domains", "consumers", "text"),
    [
        (["no domain"], "people.test", "not a domain name"),
        (["corp.test"], "corp.test", "different"),
        (["corp.test", "Corp.test"], "people.test", "named once"),
    ],
)
def test_names_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, domains: list[str], consumers: str, text: str
) -> None:
    with pytest.raises(OperationError, match=text):
        write_configuration(tmp_path / "data", domains, consumers)
    assert not (tmp_path / "data").exists()


def test_a_used_directory_keeps_its_mode_but_the_file_is_private(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    tmp_path.chmod(0o755)
    path = write_configuration(tmp_path, ["corp.test"], "people.test")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


# --- media ---


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("udp:10.0.0.7:22222", ("10.0.0.7", 22222)),
        ("udp:[2001:db8::7]:22222", ("2001:db8::7", 22222)),
        ("udp:relay.corp.test:1", ("relay.corp.test", 1)),
    ],
)
def test_a_relay_is_named_by_its_control_port(text: str, place: tuple[str, int]) -> None:
    assert parse_relay(text) == place
    assert MediaSettings(ng=(text,)).ng == (text,)


@pytest.mark.parametrize("text", ["10.0.0.7:22222", "tcp:10.0.0.7:22222", "udp:10.0.0.7", "udp::22222", "udp:a:70000"])
def test_what_names_no_relay_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="udp:HOST:PORT"):
        MediaSettings(ng=(text,))


def test_media_addresses_are_numbers_and_port_ranges_hold_some_calls() -> None:
    for section, wrong in (
        (MediaSettings, {"host": "gw.corp.test"}),
        (MediaSettings, {"advertised_host": "gw.corp.test"}),
        (MediaSettings, {"first_port": 40_000, "last_port": 40_010}),
        (MediaSettings, {"first_port": 40_000, "last_port": 30_000}),
        (TurnSettings, {"external_address": "turn.corp.test"}),
        (TurnSettings, {"first_port": 50_000, "last_port": 50_001}),
    ):
        with pytest.raises(ValidationError):
            section.model_validate(wrong)
    assert TurnSettings(advertised_host="turn.corp.test").told_host == "turn.corp.test"


def test_every_new_installation_has_a_turn_secret_of_its_own(tmp_path: Path) -> None:
    secrets = set()
    for name in ("one", "other"):
        write_configuration(tmp_path / name, ["corp.test"], "people.test")
        turn = load_configuration(tmp_path / name).turn
        assert turn.is_offered
        secrets.add(turn.secret.get_secret_value())
    assert len(secrets) == 2


# --- the reference pages (style habit 20: the outside is tested as well) ---


def test_the_configuration_page_has_every_setting_with_its_default() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| .+ \|$", page, re.MULTILINE))
    assert rows == {setting.name: setting.default for setting in settings()}


def test_the_command_page_is_what_the_commands_say() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    assert page == command_page(), "write it again with `python -m tests.support.reference_pages`"


def test_the_policy_page_names_every_setting_with_its_values() -> None:
    table = (ROOT / "docs/explanation/policy.md").read_text().partition("## Settings")[2].splitlines()
    for kind in SETTINGS.values():
        row = next((line for line in table if f"`{kind.name}`" in line), "")
        assert f"| {', '.join(kind.values)} |" in row, kind.name
