"""TLS contexts and the identity rules of RFC 5922.

The names in a certificate are compared here and not by OpenSSL: a SIP domain must be named in full (no wildcard, no
suffix), either as a DNS name or as a `sip:` URI, and the name looked for is the domain that was asked for, not the
host that DNS answered with (RFC 5922 section 7.1, RFC 3263 section 4).
"""

from __future__ import annotations

import datetime
import logging
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography import x509

from isthmus.config import TlsSettings
from isthmus.errors import AddressError, ConfigurationError
from isthmus.model import canonical_domain

_LOG = logging.getLogger(__name__)


def server_context(settings: TlsSettings, data_directory: Path, *, asks_for_certificate: bool) -> ssl.SSLContext:
    """Return the context of a `tls` or `wss` listener.

    Args:
        settings: our certificate and whom we trust.
        data_directory: where relative paths begin.
        asks_for_certificate: ask the client for a certificate (mutual TLS between domains). A client without one is
            still served, then without proven names. False for `wss`: a browser would bother its user.

    Raises:
        ConfigurationError: certificate or key are missing, unreadable or do not belong together.
    """
    if settings.certificate is None or settings.private_key is None:
        raise ConfigurationError(
            "a tls or wss listener needs sip.tls.certificate and sip.tls.private_key (PEM files); "
            "set both or remove the listener from sip.listeners"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_certificate(context, settings, data_directory)
    _warn_of_validity(data_directory / settings.certificate, datetime.datetime.now(datetime.UTC))
    if asks_for_certificate:
        _load_authorities(context, settings, data_directory, ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(settings: TlsSettings, data_directory: Path) -> ssl.SSLContext:
    """Return the context of outgoing connections; it shows our certificate, if we have one, to who asks.

    The chain is verified by OpenSSL, the name afterwards by `is_proven`.

    Raises:
        ConfigurationError: a configured file is missing or unreadable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # OpenSSL would take wildcards, which RFC 5922 section 7.2 forbids
    context.verify_mode = ssl.CERT_REQUIRED
    if settings.certificate is not None and settings.private_key is not None:
        _load_certificate(context, settings, data_directory)
    _load_authorities(context, settings, data_directory, ssl.Purpose.SERVER_AUTH)
    return context


def proven_names(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the SIP domains that a verified certificate proves, canonical, without duplicates.

    Args:
        certificate: as `ssl.SSLObject.getpeercert()` gives it; None or empty when there is none.

    RFC 5922 section 7.1: `sip:` URIs without user part and DNS names of subjectAltName; the common name only when
    there is no subjectAltName at all. Wildcards prove nothing.
    """
    if not certificate:
        return ()
    alternatives: Iterable[tuple[str, str]] = certificate.get("subjectAltName", ())
    if alternatives:
        candidates = [_name_of(kind, value) for kind, value in alternatives]
    else:
        candidates = [
            value
            for relative_name in certificate.get("subject", ())
            for kind, value in relative_name
            if kind == "commonName"
        ]
    return tuple(dict.fromkeys(name for name in map(_canonical, candidates) if name))


def is_proven(names: Iterable[str], domain: str) -> bool:
    """True when `domain` is exactly one of the `names` that a certificate proves."""
    return _canonical(domain) in set(names) - {""}


def _name_of(kind: str, value: str) -> str:
    if kind == "DNS":
        return value
    if kind == "URI":
        scheme, _, rest = value.partition(":")
        # sips: is not an identity, and a user part names a person and not a domain (RFC 5922 section 7.1).
        if scheme.lower() == "sip" and "@" not in rest:
            return rest.partition(";")[0].partition("?")[0]
    return ""


def _canonical(name: str) -> str:
    if "*" in name:
        return ""
    try:
        return canonical_domain(name)
    except AddressError:
        return ""


def _load_certificate(context: ssl.SSLContext, settings: TlsSettings, data_directory: Path) -> None:
    assert settings.certificate is not None
    certificate = data_directory / settings.certificate
    key = data_directory / settings.private_key if settings.private_key is not None else None
    try:
        context.load_cert_chain(certificate, key)
    except FileNotFoundError as error:
        missing = next((path for path in (certificate, key) if path is not None and not path.exists()), certificate)
        raise ConfigurationError(f"{missing} does not exist: correct sip.tls or put the file there") from error
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the certificate {certificate} and key {key} cannot be used ({error}): "
            "both must be PEM, readable, and belong together (sip.tls)"
        ) from error


def _warn_of_validity(path: Path, now: datetime.datetime) -> None:
    """An expired certificate is no reason to refuse phones on other transports, but somebody must be told."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return  # OpenSSL took it, so it is in order; only its dates stay unknown
    if now > certificate.not_valid_after_utc:
        since = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        _LOG.error("the certificate %s expired on %s: renew it, until then peers refuse our TLS", path, since)
    elif now < certificate.not_valid_before_utc:
        begin = f"{certificate.not_valid_before_utc:%Y-%m-%d}"
        _LOG.error("the certificate %s is valid only from %s: is the clock of this machine right?", path, begin)


def _load_authorities(
    context: ssl.SSLContext, settings: TlsSettings, data_directory: Path, purpose: ssl.Purpose
) -> None:
    if settings.trusted_authorities is None:
        context.load_default_certs(purpose)
        return
    path = data_directory / settings.trusted_authorities
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the authorities in {path} cannot be used ({error}): sip.tls.trusted_authorities must be a PEM bundle"
        ) from error
