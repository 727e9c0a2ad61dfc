"""Doctor: certificates, part by part, so that the administrator sees *which* part fails (edge case 44).

Parts: file, key, dates, names (RFC 5922 section 7.2: the SIP domain in full, no wildcards), chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from isthmus.config import Configuration, SipPeer, Transport
from isthmus.services.administration import Finding

# Long enough to act without haste when renewal by a program has stopped working.
WARN_BEFORE_SECONDS = 21 * 86_400
CONNECT_SECONDS = 10.0
_ENCRYPTED = (Transport.TLS, Transport.WSS)

# OpenSSL's verification errors (X509_V_ERR_*) as what to do about them.
_CHAIN_REMEDIES = {
    10: "the certificate has expired: its owner must renew it",
    9: "the certificate is not valid yet: compare the clocks",
    18: "it is self-signed: put it into sip.tls.trusted_authorities if you trust it",
    19: "a private authority signed it: put that authority into sip.tls.trusted_authorities",
    20: "an unknown authority signed it, or the partner does not send its chain: ask for the intermediate "
    "certificates, or put the authority into sip.tls.trusted_authorities",
    21: "the partner sends only its own certificate: it must send the intermediate ones as well",
    23: "the certificate was revoked: its owner must get another one",
}


async def check_certificates(configuration: Configuration, now: float) -> list[Finding]:
    """Examine our own certificate when a listener or a partner needs one."""
    tls = configuration.sip.tls
    is_needed = any(listener.transport in _ENCRYPTED for listener in configuration.sip.listeners)
    if tls.certificate is None or tls.private_key is None:
        if is_needed:
            remedy = "set sip.tls.certificate and sip.tls.private_key"
            return [Finding("certificate", "fail", "a tls or wss listener has no certificate", remedy)]
        return [Finding("certificate", "ok", "none needed: no tls or wss listener")]
    base = configuration.data_directory
    authorities = base / tls.trusted_authorities if tls.trusted_authorities else None
    domains = [domain.name for domain in configuration.domains]
    return await asyncio.to_thread(_own, base / tls.certificate, base / tls.private_key, authorities, domains, now)


def _own(certificate: Path, key: Path, authorities: Path | None, domains: list[str], now: float) -> list[Finding]:
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except OSError as error:
        return [Finding("certificate file", "fail", f"{certificate}: {error.strerror}", "correct sip.tls.certificate")]
    except ValueError as error:
        text = f"{certificate} is no PEM certificate: {error}"
        return [Finding("certificate file", "fail", text, "convert it to PEM")]
    found = [_key(chain[0], key), _dates("certificate dates", chain[0], now)]
    found.append(_names("certificate names", chain[0], domains))
    found.append(_chain(chain, authorities, now))
    return found


def _key(certificate: x509.Certificate, path: Path) -> Finding:
    name = "certificate key"
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        return Finding(name, "fail", f"{path}: {error.strerror}", "correct sip.tls.private_key")
    except (ValueError, TypeError) as error:
        return Finding(name, "fail", f"{path} cannot be used: {error}", "give an unencrypted PEM key")

    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
        return Finding(name, "fail", "key and certificate do not belong together", "give the key of this certificate")
    return Finding(name, "ok", "belongs to the certificate")


def _dates(name: str, certificate: x509.Certificate, now: float) -> Finding:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    text = f"valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}"
    if now < begins.timestamp():
        return Finding(name, "fail", f"not valid yet: {text}", "compare the clock of this machine with the real time")
    if now >= ends.timestamp():
        return Finding(name, "fail", f"expired: {text}", "renew it")
    if now >= ends.timestamp() - WARN_BEFORE_SECONDS:
        return Finding(name, "warn", f"ends soon: {text}", "renew it")
    return Finding(name, "ok", text)


def certificate_names(certificate: x509.Certificate) -> set[str]:
    """Domains that a certificate proves (RFC 5922 section 7.1): SAN `sip:` URIs and DNS names; CN only without SAN."""
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        subject = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return {str(attribute.value).lower() for attribute in subject}
    if not isinstance(found, x509.SubjectAlternativeName):
        return set()
    uris = found.get_values_for_type(x509.UniformResourceIdentifier)
    sip = {uri.partition(":")[2].lower() for uri in uris if uri.lower().startswith(("sip:", "sips:"))}
    return sip or {name.lower() for name in found.get_values_for_type(x509.DNSName)}


def _names(name: str, certificate: x509.Certificate, wanted: Sequence[str]) -> Finding:
    has = certificate_names(certificate)
    shown = ", ".join(sorted(has)) or "nothing"
    missing = [domain for domain in wanted if domain not in has]
    if not missing:
        return Finding(name, "ok", f"names {shown}")
    covered = [domain for domain in missing if f"*.{domain.partition('.')[2]}" in has]
    why = " (a wildcard does not count for SIP, RFC 5922 section 7.2)" if covered else ""
    text = f"does not name {', '.join(missing)}{why}; it names {shown}"
    return Finding(name, "fail", text, "get one that names every SIP domain")


def _chain(chain: Sequence[x509.Certificate], authorities: Path | None, now: float) -> Finding:
    name, leaf = "certificate chain", chain[0]
    if leaf.issuer == leaf.subject:
        return Finding(name, "warn", "self-signed: nobody believes it unless told to", "fine for a trial; else get one")
    path = authorities or Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    names = sorted(certificate_names(leaf))
    try:
        roots = x509.load_pem_x509_certificates(path.read_bytes())
        at = datetime.datetime.fromtimestamp(now, datetime.UTC)
        builder = PolicyBuilder().store(Store(roots)).time(at)
        subject = x509.DNSName(names[0]) if names else x509.DNSName("unnamed.invalid")
        builder.build_server_verifier(subject).verify(leaf, list(chain[1:]))
    except OSError as error:
        return Finding(name, "warn", f"not examined: {path}: {error.strerror}", "install ca-certificates")
    except (VerificationError, ValueError) as error:
        remedy = "put the intermediate certificates after your own in the file; partners must trust the authority"
        return Finding(name, "warn", f"no trusted authority can be reached from it: {error}", remedy)
    return Finding(name, "ok", f"leads to a trusted authority ({len(chain)} certificates in the file)")


# --- partners ---


async def check_peer_certificates(configuration: Configuration, now: float) -> list[Finding]:
    """Call every TLS neighbour of a routed domain and examine what it shows."""
    peers = [
        (domain.name, peer)
        for domain in configuration.domains
        for peer in domain.peers
        if peer.transport is Transport.TLS
    ]
    return [finding for name, peer in peers for finding in await _peer(configuration, name, peer, now)]


async def _peer(configuration: Configuration, domain: str, peer: SipPeer, now: float) -> list[Finding]:
    name, port = f"peer {peer.host} ({domain})", peer.port or 5061
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            certificate = await _shown(peer.host, port)
    except (OSError, TimeoutError, ValueError) as error:
        return [Finding(name, "fail", f"no TLS on port {port}: {error or 'no answer'}", _remedy_for_refusal(error))]
    wanted = peer.tls_names or (peer.host,)
    has = certificate_names(certificate)
    if any(one.lower() in has for one in wanted):
        names = Finding(f"{name} names", "ok", f"names {', '.join(sorted(has))}")
    else:
        text = f"names {', '.join(sorted(has)) or 'nothing'}, not {' or '.join(wanted)}"
        names = Finding(
            f"{name} names", "fail", text, "put a name it shows into domains.peers.tls_names, if it is right"
        )
    chain = await _peer_chain(configuration, f"{name} chain", peer.host, port)
    return [names, _dates(f"{name} dates", certificate, now), chain]


def _remedy_for_refusal(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError) and "UNRECOGNIZED_NAME" in str(error).upper():
        return "it refuses the name we call it by (SNI): put its own name into domains.peers.host"
    return "see whether it listens there, and whether a firewall is between"


async def _shown(host: str, port: int) -> x509.Certificate:
    """Fetch the certificate without judging it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if shown is None:
            raise ValueError("it shows no certificate")
        return x509.load_der_x509_certificate(shown)
    finally:
        await _closed(writer)


async def _peer_chain(configuration: Configuration, name: str, host: str, port: int) -> Finding:
    tls = configuration.sip.tls
    try:
        authorities = str(configuration.data_directory / tls.trusted_authorities) if tls.trusted_authorities else None
        context = await asyncio.to_thread(ssl.create_default_context, ssl.Purpose.SERVER_AUTH, cafile=authorities)
        context.check_hostname = False  # names are compared by SIP's rules, above
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        remedy = _CHAIN_REMEDIES.get(error.verify_code, "ask its administrator")
        return Finding(name, "fail", f"not trusted: {error.verify_message}", remedy)
    except (OSError, TimeoutError) as error:
        return Finding(name, "fail", f"no TLS connection: {error or 'no answer'}", _remedy_for_refusal(error))
    await _closed(writer)
    return Finding(name, "ok", "leads to a trusted authority")


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()
