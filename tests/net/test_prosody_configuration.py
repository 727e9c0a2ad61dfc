"""The generated Prosody configuration, as text; that Prosody takes it is shown in test_prosody_process."""

from __future__ import annotations

import datetime
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from isthmus.config import BusinessDomain, Configuration, TurnSettings, XmppSettings
from isthmus.net.prosody_certificate import ensure_certificate
from isthmus.net.prosody_configuration import ProsodyPaths, component_snippet, embedded_configuration, lua_string

DEPLOYED = Path(__file__).parents[2] / "deploy" / "prosody" / "isthmus-components.cfg.lua"


def configuration(**xmpp: object) -> Configuration:
    return Configuration(
        xmpp=XmppSettings.model_validate(xmpp),
        domains=(
            BusinessDomain(name="Corp.test", component_secret=SecretStr("change-me")),
            BusinessDomain(name="büro.test", component_secret=SecretStr('quo"te\n')),
        ),
    )


PATHS = ProsodyPaths(Path("/srv/isthmus/prosody"))


def test_every_business_domain_is_a_component_with_its_secret() -> None:
    text = embedded_configuration(configuration(), PATHS)
    assert 'Component "corp.test"\n  component_secret = "change-me"\n' in text
    assert 'Component "b\\195\\188ro.test"\n  component_secret = "quo\\034te\\010"\n' in text


def test_everything_stays_in_the_directory_given() -> None:
    text = embedded_configuration(configuration(), PATHS)
    for name in ("pidfile", "data_path", "certificates", "admin_socket"):
        assert f'{name} = "/srv/isthmus/prosody/' in text


def test_clear_text_clients_are_served_on_loopback_only() -> None:
    assert "c2s_require_encryption = false" in embedded_configuration(configuration(), PATHS)
    public = embedded_configuration(configuration(interface="192.0.2.1"), PATHS)
    assert "c2s_require_encryption = true" in public
    assert "consider_websocket_secure" not in public


def test_a_port_of_zero_is_not_served() -> None:
    text = embedded_configuration(configuration(websocket_port=0, s2s_port=0), PATHS)
    assert "http_ports = { }" in text
    assert '"websocket"' not in text
    assert "s2s_ports = { }" in text


def test_private_names_and_authorities_are_used_only_when_given() -> None:
    text = embedded_configuration(configuration(), PATHS)
    assert "unbound" not in text
    assert "cafile" not in text
    text = embedded_configuration(configuration(hosts_file="hosts", trusted_authorities="/etc/partners.pem"), PATHS)
    assert f'unbound = {{ hoststxt = "{Path("data/hosts").absolute()}", resolvconf = true }}' in text
    assert 'capath = false, cafile = "/etc/partners.pem"' in text


def test_root_is_mentioned_only_for_root() -> None:
    assert "run_as_root" not in embedded_configuration(configuration(), PATHS)
    assert "run_as_root = true" in embedded_configuration(configuration(), ProsodyPaths(PATHS.directory, is_root=True))


def test_a_path_too_long_for_a_socket_goes_without() -> None:
    paths = ProsodyPaths(Path("/srv") / ("x" * 100))
    assert not paths.has_admin_socket
    assert "admin_socket =" not in embedded_configuration(configuration(), paths)


def test_the_snippet_for_an_existing_server_holds_components_and_nothing_else() -> None:
    text = component_snippet(configuration())
    settings = [line for line in text.splitlines() if line and not line.startswith("--")]
    assert [line.split()[0] for line in settings] == ["Component", "component_secret"] * 2


def test_the_deployed_example_is_what_the_generator_writes() -> None:
    example = Configuration(domains=(BusinessDomain(name="corp.test", component_secret=SecretStr("change-me")),))
    assert DEPLOYED.read_text() == component_snippet(example)


@given(st.text())
def test_no_text_escapes_from_a_lua_string(text: str) -> None:
    literal = lua_string(text) if text.isprintable() else lua_string(text.encode("utf-8", "replace").decode())
    assert literal.isascii()
    assert literal[0] == literal[-1] == '"'
    assert '"' not in literal[1:-1]
    assert "\n" not in literal


@pytest.mark.skipif(shutil.which("lua5.4") is None, reason="no Lua")
def test_lua_reads_back_what_was_written() -> None:
    text = "a\"b\\c\n\0ü漢]]--'{}"
    printed = subprocess.run(
        ["lua5.4", "-e", f"io.write({lua_string(text)})"], capture_output=True, check=True, timeout=20
    )
    assert printed.stdout.decode() == text


def test_the_first_certificate_names_all_domains_and_is_kept(tmp_path: Path) -> None:
    certificate, key = tmp_path / "people.test.crt", tmp_path / "people.test.key"
    now = datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC)
    assert ensure_certificate(certificate, key, ["people.test", "büro.test"], now)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    made = certificate.read_bytes()
    names = x509.load_pem_x509_certificate(made).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["people.test", "xn--bro-hoa.test"]
    assert not ensure_certificate(certificate, key, ["other.test"], now)
    assert certificate.read_bytes() == made


# --- TURN ---


def test_clients_get_a_turn_server_from_the_embedded_prosody_when_there_is_one() -> None:
    assert "turn_external" not in embedded_configuration(configuration(), PATHS)
    turn = TurnSettings(secret=SecretStr("s3cret"), advertised_host="turn.corp.test", port=443, credential_seconds=600)
    text = embedded_configuration(configuration().model_copy(update={"turn": turn}), PATHS)
    assert '"turn_external"' in text
    assert 'turn_external_host = "turn.corp.test"\nturn_external_port = 443\nturn_external_secret = "s3cret"\n' in text
    assert "turn_external_ttl = 600" in text


def test_an_existing_prosody_is_told_in_comments_what_to_add_at_the_top() -> None:
    assert "turn_external" not in component_snippet(configuration())
    turn = TurnSettings(secret=SecretStr("s3cret"))
    lines = component_snippet(configuration().model_copy(update={"turn": turn})).splitlines()
    told = [line for line in lines if "turn_external" in line]
    assert '-- turn_external_secret = "s3cret"' in told
    assert all(line.startswith("--") for line in told)
