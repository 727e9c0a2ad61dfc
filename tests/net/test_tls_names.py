"""RFC 5922: which names a certificate proves, and the contexts built from the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.config import TlsSettings
from isthmus.errors import ConfigurationError
from isthmus.net.tls import client_context, is_proven, proven_names, server_context
from tests.support.certificates import TestAuthority


def alternatives(*names: tuple[str, str]) -> dict[str, object]:
    return {"subject": ((("commonName", "cn.test"),),), "subjectAltName": names}


def test_dns_names_and_sip_uris_are_identities() -> None:
    names = proven_names(alternatives(("DNS", "Corp.Test"), ("URI", "sip:sales.corp.test"), ("URI", "SIP:x.test")))
    assert names == ("corp.test", "sales.corp.test", "x.test")


@pytest.mark.parametrize(
    "name",
    [("DNS", "*.corp.test"), ("URI", "sips:corp.test"), ("URI", "sip:ana@corp.test"), ("IP Address", "127.0.0.1")],
)
def test_wildcards_sips_people_and_addresses_prove_nothing(name: tuple[str, str]) -> None:
    assert proven_names(alternatives(name)) == ()


def test_the_common_name_counts_only_without_alternative_names() -> None:
    assert proven_names({"subject": ((("commonName", "cn.test"),),)}) == ("cn.test",)
    assert proven_names(alternatives(("DNS", "other.test"))) == ("other.test",)
    assert proven_names(None) == ()


def test_names_match_exactly_and_by_their_unicode_form() -> None:
    assert is_proven(("corp.test",), "CORP.test.")
    assert not is_proven(("corp.test",), "sip.corp.test")
    assert not is_proven(("sip.corp.test",), "corp.test")
    assert is_proven(proven_names(alternatives(("DNS", "xn--bcher-kva.test"))), "bücher.test")
    assert not is_proven(("",), "*")


def test_a_tls_listener_without_certificate_names_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"sip\.tls\.certificate"):
        server_context(TlsSettings(), tmp_path, asks_for_certificate=True)


def test_a_missing_certificate_file_is_named(tmp_path: Path) -> None:
    settings = TlsSettings(certificate=Path("absent.pem"), private_key=Path("absent-key.pem"))
    with pytest.raises(ConfigurationError, match=r"absent\.pem does not exist"):
        server_context(settings, tmp_path, asks_for_certificate=False)


def test_a_certificate_with_another_key_is_refused(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    one, other = authority.issue("one.test"), authority.issue("other.test")
    settings = TlsSettings(certificate=one.certificate, private_key=other.private_key)
    with pytest.raises(ConfigurationError, match="belong together"):
        server_context(settings, tmp_path, asks_for_certificate=False)


def test_a_broken_authority_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bundle.pem").write_text("not PEM")
    with pytest.raises(ConfigurationError, match="trusted_authorities"):
        client_context(TlsSettings(trusted_authorities=Path("bundle.pem")), tmp_path)
