"""The doctor: each check names what fails and what to do (edge cases 44, 45, 48)."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from isthmus.admin.doctor import Examination
from isthmus.admin.doctor_certificates import check_certificates, check_peer_certificates
from isthmus.admin.doctor_configuration import check_configuration, check_ports
from isthmus.admin.doctor_names import check_names
from isthmus.admin.doctor_xmpp import check_xmpp
from isthmus.config import (
    BusinessDomain,
    Configuration,
    DomainKind,
    Listener,
    SipPeer,
    SipSettings,
    TlsSettings,
    Transport,
    WebSettings,
    XmppSettings,
)
from isthmus.services.administration import Finding
from isthmus.services.echo_probe import ProbeResult
from tests.support.administration import example_configuration
from tests.support.certificates import TestAuthority

NOW = time.time()
DAY = 86_400.0


def outcomes(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.outcome for finding in findings}


# --- certificates ---


class Authority:
    """Makes certificates of its own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.certificate = self._sign(self.name, self.key, NOW - DAY, NOW + 3650 * DAY, None)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begins: float, ends: float, names: list[str] | None
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime.fromtimestamp(begins, datetime.UTC))
            .not_valid_after(datetime.datetime.fromtimestamp(ends, datetime.UTC))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names is None:
            usage = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), False
            )
            usage |= dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False)
            builder = builder.add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
        else:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(
        self, directory: Path, names: list[str], *, begins: float = NOW - DAY, ends: float = NOW + 365 * DAY
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ignored.test")])
        certificate = self._sign(subject, key, begins, ends, names)
        (directory / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        (directory / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (directory / "authorities.pem").write_bytes(self.certificate.public_bytes(Encoding.PEM))


def with_tls(directory: Path) -> Configuration:
    tls = TlsSettings(
        certificate=Path("certificate.pem"), private_key=Path("key.pem"), trusted_authorities=Path("authorities.pem")
    )
    listeners = (Listener(transport=Transport.TLS, port=5061),)
    return example_configuration(data_directory=directory, sip=SipSettings(listeners=listeners, tls=tls))


async def test_a_good_certificate_passes_in_every_part(tmp_path: Path) -> None:
    Authority().issue(tmp_path, ["corp.test", "pbx.test"])
    found = await check_certificates(with_tls(tmp_path), NOW)
    assert outcomes(found) == {
        "certificate key": "ok",
        "certificate dates": "ok",
        "certificate names": "ok",
        "certificate chain": "ok",
    }


@pytest.mark.parametrize(
    ("names", "begins", "ends", "part", "outcome", "text"),
    [
        (["corp.test"], -1, 365, "certificate names", "fail", "does not name pbx.test"),
        (["*.test"], -1, 365, "certificate names", "fail", "wildcard does not count"),
        (["corp.test", "pbx.test"], -9, -1, "certificate dates", "fail", "expired"),
        (["corp.test", "pbx.test"], 1, 9, "certificate dates", "fail", "not valid yet"),
        (["corp.test", "pbx.test"], -1, 9, "certificate dates", "warn", "ends soon"),
    ],
)
async def test_the_part_of_a_certificate_that_fails_is_named(
    tmp_path: Path, names: list[str], begins: int, ends: int, part: str, outcome: str, text: str
) -> None:
    """Edge case 44."""
    Authority().issue(tmp_path, names, begins=NOW + begins * DAY, ends=NOW + ends * DAY)
    found = {finding.name: finding for finding in await check_certificates(with_tls(tmp_path), NOW)}
    assert found[part].outcome == outcome
    assert text in found[part].detail
    assert found[part].remedy


async def test_an_unknown_authority_and_a_foreign_key_are_named(tmp_path: Path) -> None:
    """Edge case 44: private authority of a partner."""
    Authority().issue(tmp_path, ["corp.test", "pbx.test"])
    other = tmp_path / "other"
    other.mkdir()
    Authority().issue(other, ["corp.test"])
    (tmp_path / "authorities.pem").write_bytes((other / "authorities.pem").read_bytes())
    (tmp_path / "key.pem").write_bytes((other / "key.pem").read_bytes())
    found = outcomes(await check_certificates(with_tls(tmp_path), NOW))
    assert found["certificate chain"] == "warn"
    assert found["certificate key"] == "fail"


async def test_a_missing_certificate_is_a_finding(tmp_path: Path) -> None:
    [found] = await check_certificates(with_tls(tmp_path), NOW)
    assert (found.name, found.outcome) == ("certificate file", "fail")
    [none] = await check_certificates(example_configuration(), NOW)
    assert none.outcome == "ok"


@asynccontextmanager
async def tls_partner(certificate: Path, key: Path) -> AsyncIterator[int]:
    """A PBX that speaks TLS and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # the doctor breaks off when it does not trust us
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def with_tls_peer(directory: Path, port: int, authority: Path | None, names: tuple[str, ...]) -> Configuration:
    peer = SipPeer(host="127.0.0.1", port=port, transport=Transport.TLS, tls_names=names)
    return example_configuration(
        data_directory=directory,
        sip=SipSettings(tls=TlsSettings(trusted_authorities=authority)),
        domains=(
            BusinessDomain(name="pbx.test", kind=DomainKind.ROUTED, component_secret="s", peers=(peer,)),  # type: ignore[arg-type]  # pydantic wraps it
        ),
    )


async def test_a_partners_certificate_is_examined_part_by_part(tmp_path: Path) -> None:
    """Edge case 44: names, dates and chain each have their own finding."""
    authority = TestAuthority(tmp_path)
    issued = authority.issue("pbx.test")
    async with tls_partner(issued.certificate, issued.private_key) as port:
        good = with_tls_peer(tmp_path, port, authority.authority, ("pbx.test",))
        assert set(outcomes(await check_peer_certificates(good, NOW)).values()) == {"ok"}
        strange = with_tls_peer(tmp_path, port, None, ("other.test",))
        found = {finding.name.rpartition(" ")[2]: finding for finding in await check_peer_certificates(strange, NOW)}
    assert (found["names"].outcome, found["dates"].outcome, found["chain"].outcome) == ("fail", "ok", "fail")
    assert "tls_names" in found["names"].remedy
    assert "trusted_authorities" in found["chain"].remedy


async def test_an_expired_certificate_of_a_partner_is_named_as_such(tmp_path: Path) -> None:
    """Edge case 44."""
    authority = TestAuthority(tmp_path)
    issued = authority.issue("pbx.test", is_expired=True)
    async with tls_partner(issued.certificate, issued.private_key) as port:
        configuration = with_tls_peer(tmp_path, port, authority.authority, ("pbx.test",))
        found = {
            finding.name.rpartition(" ")[2]: finding for finding in await check_peer_certificates(configuration, NOW)
        }
    assert (found["names"].outcome, found["dates"].outcome, found["chain"].outcome) == ("ok", "fail", "fail")
    assert "expired" in found["chain"].remedy


async def test_a_partner_that_does_not_answer_is_one_finding(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        configuration = with_tls_peer(tmp_path, unused.getsockname()[1], None, ())
        [found] = await check_peer_certificates(configuration, NOW)
    assert found.outcome == "fail"
    assert "firewall" in found.remedy


# --- names ---


@dataclass
class Srv:
    target: str
    port: int


class Names:
    """DNS as a table."""

    def __init__(self, services: dict[str, list[Srv]], hosts: set[str]) -> None:
        self.services, self.hosts = services, hosts

    async def records(self, name: str, kind: str) -> tuple[Any, ...]:
        return tuple(self.services.get(name, ())) if kind == "SRV" else ()

    async def addresses(self, host: str) -> tuple[str, ...]:
        return ("192.0.2.1",) if host in self.hosts else ()


def public_configuration() -> Configuration:
    return example_configuration(
        domains=(BusinessDomain(name="corp.org", component_secret="s"),),  # type: ignore[arg-type]  # pydantic wraps it
        xmpp=XmppSettings(consumer_domain="people.org"),
    )


async def test_complete_dns_is_fine() -> None:
    gate = "gate.corp.org."
    names = Names(
        {
            "_sips._tcp.corp.org": [Srv(gate, 5061)],
            "_xmpp-server._tcp.corp.org": [Srv(gate, 5269)],
            "_xmpp-server._tcp.people.org": [Srv(gate, 5269)],
            "_xmpp-client._tcp.people.org": [Srv(gate, 5222)],
        },
        {"gate.corp.org"},
    )
    assert set(outcomes(await check_names(public_configuration(), names)).values()) == {"ok"}


async def test_missing_and_dead_dns_is_told_record_by_record() -> None:
    names = Names({"_xmpp-server._tcp.corp.org": [Srv("gone.corp.org.", 5269)]}, {"people.org"})
    found = {finding.name: finding for finding in await check_names(public_configuration(), names)}
    assert found["dns corp.org sip"].outcome == "fail"
    assert "_sips._tcp.corp.org" in found["dns corp.org sip"].remedy
    assert "gone.corp.org" in found["dns corp.org _xmpp-server._tcp"].detail
    assert found["dns people.org _xmpp-client._tcp"].outcome == "warn"


async def test_reserved_names_need_no_dns() -> None:
    assert set(outcomes(await check_names(example_configuration(), Names({}, set()))).values()) == {"ok"}


# --- ports, files ---


async def test_a_taken_port_is_named_with_how_to_find_who_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sip = SipSettings(listeners=(Listener(transport=Transport.TCP, port=port),))
        configuration = example_configuration(sip=sip, web=WebSettings(port=0))
        [stopped] = await check_ports(configuration, is_live=False)
        [running] = await check_ports(configuration, is_live=True)
    assert (stopped.outcome, running.outcome) == ("fail", "ok")
    assert str(port) in stopped.remedy


async def test_readable_secrets_and_clear_text_websockets_are_found(tmp_path: Path) -> None:
    (tmp_path / "isthmus.toml").touch(mode=0o644)
    sip = SipSettings(listeners=(Listener(transport=Transport.WS, host="192.0.2.1", port=80),))
    found = await check_configuration(example_configuration(data_directory=tmp_path, sip=sip))
    assert {finding.outcome for finding in found} == {"warn", "fail"}
    assert any("chmod 600" in finding.remedy for finding in found)


# --- the XMPP server ---


@asynccontextmanager
async def xmpp_server(answer: Callable[[str], str]) -> AsyncIterator[int]:
    """A component port; `answer(proof)` is what it says to the handshake."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b">")
        await reader.readuntil(b">")
        writer.write(b"<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' id='abc'>")
        proof = re.search(rb"<handshake>(\w+)</handshake>", await reader.readuntil(b"</handshake>"))
        assert proof is not None
        writer.write(answer(proof.group(1).decode()).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def existing_server(port: int) -> Configuration:
    return example_configuration(
        domains=(BusinessDomain(name="corp.test", component_secret="secret"),),  # type: ignore[arg-type]  # pydantic wraps it
        xmpp=XmppSettings(embedded=False, component_port=port),
    )


async def test_the_handshake_with_an_existing_server_is_tried() -> None:
    expected = hashlib.sha1(b"abcsecret").hexdigest()
    async with xmpp_server(lambda proof: "<handshake/>" if proof == expected else "</stream:stream>") as port:
        [found] = await check_xmpp(existing_server(port), None)
    assert found.outcome == "ok"


@pytest.mark.parametrize(
    ("condition", "remedy"),
    [("not-authorized", "component_secret"), ("host-unknown", "prosody-config"), ("conflict", "stop one of them")],
)
async def test_why_the_server_refuses_us_is_told(condition: str, remedy: str) -> None:
    """Edge case 45: a clear error."""
    refusal = f"<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
    async with xmpp_server(lambda _: refusal) as port:
        [found] = await check_xmpp(existing_server(port), None)
    assert found.outcome == "fail"
    assert condition in found.detail
    assert remedy in found.remedy


async def test_an_absent_server_and_a_lost_link_are_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        [absent] = await check_xmpp(existing_server(unused.getsockname()[1]), None)
    assert absent.outcome == "fail"
    found = await check_xmpp(example_configuration(), lambda: {"corp.test": True, "pbx.test": False})
    assert outcomes(found) == {"xmpp corp.test": "ok", "xmpp pbx.test": "fail"}


# --- all together ---


class Probe:
    def __init__(self) -> None:
        self.directions: list[str] = []

    async def round_trip(self, direction: str) -> ProbeResult:
        self.directions.append(direction)
        return ProbeResult(
            direction == "sip", 0.012, "the echo came back" if direction == "sip" else "nothing came back"
        )


async def test_both_directions_begin_a_conversation() -> None:
    """Edge case 48."""
    probe = Probe()
    examination = Examination(
        example_configuration(sip=SipSettings(listeners=()), web=WebSettings(port=0)),
        Names({}, set()),
        lambda: NOW,
        links=lambda: {"corp.test": True},
        probe=probe,
    )
    found = outcomes(await examination.examine())
    assert probe.directions == ["sip", "xmpp"]
    assert (found["round trip sip"], found["round trip xmpp"]) == ("ok", "fail")


async def test_a_check_that_breaks_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> list[Finding]:
        raise RuntimeError("oops")

    async def slow(*_: object) -> list[Finding]:
        await asyncio.Event().wait()
        return []

    checks: dict[str, Callable[..., Awaitable[list[Finding]]]] = {"check_names": broken, "check_xmpp": slow}
    for name, check in checks.items():
        monkeypatch.setattr(f"isthmus.admin.doctor.{name}", check)
    monkeypatch.setattr("isthmus.admin.doctor.CHECK_SECONDS", 0.2)
    found = outcomes(await Examination(example_configuration(), Names({}, set()), lambda: NOW).examine())
    assert (found["dns"], found["xmpp"], found["round trip"]) == ("fail", "fail", "warn")
    assert "certificate" in found
