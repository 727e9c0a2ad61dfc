"""What the documentation says of the outside is true: links, commands, settings, standards, versions (habit 20)."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from isthmus.cli import app
from isthmus.config import Configuration
from isthmus.interworking.sip_bodies import ACCEPTED_TYPES
from isthmus.metrics import Metrics
from isthmus.model import Modality
from isthmus.services.user_agent_server import ALLOW, SUPPORTED
from isthmus.xmpp.capabilities import ACCOUNT_FEATURES, GATEWAY_FEATURES, device_features
from tests.support.reference_pages import settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
STANDARDS = (ROOT / "docs/reference/standards.md").read_text(encoding="utf-8")
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").glob("**/*.py"))

# Programs of the system that the blocks marked as run may use.
SYSTEM_PROGRAMS = frozenset(
    ("apt-get", "baresip", "cat", "cd", "cp", "git", "install", "mkdir", "sqlite3", "systemd-analyze", "tar", "umask")
) | {"useradd"}
ISTHMUS = re.compile(r"(?:(?:runuser -u isthmus -- )?\S*/)?isthmus$")
# Options of the command itself: they stand before the subcommand.
GLOBAL_OPTIONS_WITH_VALUE = ("--data",)


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(params=PAGES, ids=_id)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


# --- links ---


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(page.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{_id(page)} links to {target}"
        if anchor:
            assert anchor in _anchors(found), f"{_id(page)} links to {target}, and {_id(found)} has no such heading"


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs/index.md"
    listed = {(index.parent / name).resolve() for name in re.findall(r"\]\(([^)#\s]+)\)", index.read_text())}
    pages = {path for path in PAGES if path.is_relative_to(ROOT / "docs")} - {index}
    assert pages <= listed, f"not in the index: {sorted(map(_id, pages - listed))}"


# --- commands ---


def _run_blocks(text: str) -> Iterator[str]:
    return iter(re.findall(r"<!-- run -->\n```sh\n(.*?)```", text, re.DOTALL))


def _commands(block: str) -> Iterator[list[str]]:
    """Each simple command of a block, without here-documents, assignments and redirections."""
    block = re.sub(r"<<'?(\w+)'?(.*?)\n.*?\n\1\n", r"\2\n", block, flags=re.DOTALL)
    for line in block.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            words = shlex.split(re.sub(r"\w+=\$\(.*\)|[<>]+ ?\S+", "", line), comments=True)
            if words:
                yield words


def _inner(command: Any, name: str) -> Any:
    return getattr(command, "commands", {}).get(name)


def _check_isthmus(words: list[str]) -> str:
    """Return what is wrong with the words after `isthmus`, or ""."""
    command: Any = typer.main.get_command(app)
    path, rest = "isthmus", list(words)
    while rest and rest[0].startswith("--"):
        option = rest.pop(0)
        if option not in {name for parameter in command.params for name in parameter.opts} | {
            "--help",
            "--install-completion",
        }:
            return f"isthmus has no option {option}"
        if option in GLOBAL_OPTIONS_WITH_VALUE:
            rest.pop(0)
    while rest and getattr(command, "commands", None):
        name = rest.pop(0)
        inner = _inner(command, name)
        if inner is None:
            return f"{path} has no command {name}"
        command, path = inner, f"{path} {name}"
    known = {name for parameter in command.params for name in parameter.opts}
    unknown = [word for word in rest if word.startswith("--") and word not in known]
    return f"{path} has no option {unknown[0]}" if unknown else ""


def _check_script(path: Path, words: list[str]) -> str:
    if not path.exists():
        return f"{path} does not exist"
    text = path.read_text(encoding="utf-8")
    missing = [word for word in words if word.startswith("--") and word not in text]
    return f"{path.name} does not know {missing[0]}" if missing else ""


def _problem(words: list[str]) -> str:
    if words[:2] == ["runuser", "-u"]:
        words = words[words.index("--") + 1 :]
    program, rest = words[0], words[1:]
    if ISTHMUS.match(program):
        return _check_isthmus(rest)
    if program.startswith("scripts/"):
        return _check_script(ROOT / program, rest)
    return "" if program in SYSTEM_PROGRAMS else f"{program} is not a program that readers have"


def test_commands_marked_as_run_exist(page: Path) -> None:
    for block in _run_blocks(page.read_text(encoding="utf-8")):
        for words in _commands(block):
            assert not _problem(words), f"{_id(page)}: {' '.join(words)}: {_problem(words)}"


def test_readme_and_tutorial_have_commands_that_were_run() -> None:
    for name in ("README.md", "docs/tutorial/first-message.md"):
        assert list(_run_blocks((ROOT / name).read_text(encoding="utf-8"))), name


def test_commands_in_the_text_exist(page: Path) -> None:
    """`isthmus policy set ...` between backticks, placeholders in capitals or dots left out."""
    for inline in re.findall(r"`isthmus ([^`\n]+)`", page.read_text(encoding="utf-8")):
        words = [word.strip("[]") for word in inline.split() if word != "..."]
        if words and words[0].islower():
            assert not _check_isthmus(words), f"{_id(page)}: isthmus {inline}: {_check_isthmus(words)}"


def test_scripts_in_the_text_exist(page: Path) -> None:
    for name in re.findall(r"`(scripts/\w+)", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"{_id(page)}: {name}"


# --- settings ---


def test_every_setting_named_exists(page: Path) -> None:
    names = {setting.name for setting in settings()}
    sections = {name.partition(".")[0] for name in names if "." in name}
    for name in re.findall(r"`([a-z]+\.[a-z_.0-9]+)(?: = [^`]*)?`", page.read_text(encoding="utf-8")):
        if name.partition(".")[0] in sections and "..." not in name and not name.endswith((".md", ".py", "_")):
            is_section = any(known.startswith(f"{name}.") for known in names)
            assert name in names or is_section, f"{_id(page)}: {name}"


def test_every_example_of_a_configuration_is_accepted(page: Path) -> None:
    for block in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        Configuration(**tomllib.loads(block))


# --- standards ---


def _cited(pattern: str, text: str) -> set[str]:
    return {re.sub(r"\D", "", found) for found in re.findall(pattern, text)}


def test_every_rfc_that_the_source_cites_is_on_the_standards_page() -> None:
    missing = _cited(r"RFC ?\d{4}", SOURCES) - _cited(r"RFC \d{4}", STANDARDS)
    assert not missing, f"add to docs/reference/standards.md: {sorted(missing)}"


def test_every_xep_that_the_source_cites_is_on_the_standards_page() -> None:
    missing = _cited(r"XEP-\d{4}", SOURCES) - _cited(r"XEP-\d{4}", STANDARDS)
    assert not missing, f"add to docs/reference/standards.md: {sorted(missing)}"


def test_what_is_offered_to_peers_is_on_the_standards_page() -> None:
    offered = [*ALLOW.split(", "), *SUPPORTED, *ACCEPTED_TYPES, "presence", "presence.winfo"]
    missing = [name for name in offered if name not in STANDARDS]
    assert not missing, f"not on the page: {missing}"


def test_every_feature_told_to_xmpp_clients_is_on_the_standards_page() -> None:
    features = {*device_features(frozenset(Modality)), *ACCOUNT_FEATURES, *GATEWAY_FEATURES} - {
        "http://jabber.org/protocol/disco#items"
    }
    missing = {feature for feature in features if f"`{feature}`" not in STANDARDS}
    assert not missing, f"not on the page: {sorted(missing)}"


def test_what_is_not_offered_is_not_claimed() -> None:
    for row in STANDARDS.splitlines():
        for tag in re.findall(r"option tag `([^`]+)`", row):
            assert tag in SUPPORTED, f"{tag} is claimed and not offered"
    assert not any("jingle-message" in feature for feature in device_features(frozenset(Modality)))


# --- the rest of the outside ---


def test_metrics_named_in_the_documentation_exist(page: Path) -> None:
    metrics = Metrics()
    names = {name for counter in metrics.counters() for name in (counter.name, f"{counter.name}_total")}
    names |= {durations.name for durations in metrics.durations()}
    names |= set(re.findall(r'"(isthmus_\w+)"', SOURCES))
    for name in re.findall(r"`(isthmus_[a-z_]+)", page.read_text(encoding="utf-8")):
        assert name in names, f"{_id(page)}: {name}"


def test_versions_of_libraries_are_those_of_the_lock_file() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/decisions/libraries.md").read_text(), re.MULTILINE)
    named = [pair for heading in headings for pair in re.findall(r"([A-Za-z][\w-]+) (\d[\d.]*)", heading)]
    assert len(named) > 10
    for name, version in named:
        assert f"{locked[name.lower()]}.".startswith(f"{version}."), f"{name} {version}: {locked[name.lower()]}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = (ROOT / "deploy/systemd/isthmus.service").read_text(encoding="utf-8")
    # Only the paths of an installation differ from those of this checkout.
    program = tmp_path / "isthmus"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / "isthmus.service"
    copy.write_text(unit.replace("/opt/isthmus/.venv/bin/isthmus", str(program)).replace("/opt/isthmus", str(ROOT)))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "isthmus.service" not in done.stderr, done.stderr
