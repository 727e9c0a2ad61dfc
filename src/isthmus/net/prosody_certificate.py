"""A self-signed certificate for the embedded server's first start, until the operator brings a real one."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from isthmus.net.private_files import write_private

# Clients pin a self-signed certificate at first sight: a short life would only ask them again and again.
VALID_DAYS = 3650


def ensure_certificate(certificate: Path, key: Path, names: Sequence[str], now: datetime.datetime) -> bool:
    """Make a certificate for `names` unless both files exist; return True when it was made.

    Args:
        certificate, key: PEM files; the key gets mode 0600.
        names: DNS names, the first is the common name; U-labels are written as A-labels.
        now: the present, with a time zone.
    """
    if certificate.exists() and key.exists():
        return False
    private_key = ec.generate_private_key(ec.SECP256R1())
    ascii_names = [name.encode("idna").decode() if not name.isascii() else name for name in names]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ascii_names[0][:64])])  # RFC 5280: at most 64
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in ascii_names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private_key, hashes.SHA256())
    )
    write_private(
        key,
        private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    write_private(certificate, signed.public_bytes(serialization.Encoding.PEM))
    return True
