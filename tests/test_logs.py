"""Logs for people and machines, without secrets and bodies."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from isthmus.logs import configure_logs


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_carry_level_name_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("isthmus.test").info("link up", domain="corp.test")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["logger"], line["domain"]) == (
        "link up",
        "info",
        "isthmus.test",
        "corp.test",
    )


def test_the_standard_logging_ends_in_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning", "json")
    logging.getLogger("isthmus.net").warning("port %s taken", 5060)
    logging.getLogger("isthmus.net").info("not shown")
    assert json.loads(capsys.readouterr().err)["event"] == "port 5060 taken"


def test_secrets_are_hidden_always_and_bodies_unless_switched_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("x").info("login", password="s3cret", body="dear Ben")
    hidden = capsys.readouterr().err
    assert "s3cret" not in hidden
    assert "dear Ben" not in hidden
    configure_logs("info", "json", shows_bodies=True)
    structlog.get_logger("y").info("login", password="s3cret", body="dear Ben")
    shown = capsys.readouterr().err
    assert "s3cret" not in shown
    assert "dear Ben" in shown


def test_a_library_that_quotes_what_it_received_is_silent_unless_bodies_are_switched_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("info", "json")
    logging.getLogger("slixmpp.xmlstream").error("Parse error: %r", "<body>dear Ben</body>")
    assert "dear Ben" not in capsys.readouterr().err
    configure_logs("info", "json", shows_bodies=True)
    logging.getLogger("slixmpp.xmlstream").error("Parse error: %r", "<body>dear Ben</body>")
    assert "dear Ben" in capsys.readouterr().err


def test_text_lines_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "text")
    structlog.get_logger("isthmus.test").info("ready", seconds=2)
    assert "ready" in capsys.readouterr().err
