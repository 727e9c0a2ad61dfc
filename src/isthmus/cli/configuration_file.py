"""`isthmus.toml` in the data directory: written with comments, read with errors that name the setting."""

from __future__ import annotations

import os
import secrets
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict, SettingsError

from isthmus.config import Configuration
from isthmus.errors import AddressError, ConfigurationError, OperationError
from isthmus.model import canonical_domain

FILE_NAME = "isthmus.toml"


# Pydantic's words for what people really did.
_PROBLEMS = {"extra_forbidden": "there is no such setting", "missing": "this setting is needed"}


def load_configuration(data_directory: Path) -> Configuration:
    """Read the configuration of a data directory; environment variables `ISTHMUS_...` win over the file.

    Raises:
        ConfigurationError: no file, not TOML, or a setting that cannot be; the text names it.
    """
    path = data_directory / FILE_NAME
    if not path.exists():
        raise ConfigurationError(
            f"there is no {path}: make one with `isthmus init`, or name the right directory with --data or ISTHMUS_DATA"
        )

    class FromFile(Configuration):
        """Configuration bound to this file."""

        model_config = SettingsConfigDict(toml_file=path)

    try:
        return FromFile(data_directory=data_directory.absolute())
    except ValidationError as error:
        # Pydantic's own text repeats values, which may be secrets.
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'file'}: {_PROBLEMS.get(problem['type'], problem['msg'])}"
            for problem in error.errors()
        )
        raise ConfigurationError(f"{path}: {problems}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    except SettingsError as error:
        raise ConfigurationError(f"an ISTHMUS_... environment variable cannot be read: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def write_configuration(data_directory: Path, domains: Sequence[str], consumer_domain: str) -> Path:
    """Write a new configuration file (0600) into the data directory (0700) and return its path.

    Raises:
        OperationError: there is one already, or a name is not a domain name.
        ConfigurationError: the directory cannot be written.
    """
    try:
        names = [canonical_domain(name) for name in domains]
        consumers = canonical_domain(consumer_domain)
    except AddressError as error:
        raise OperationError(str(error)) from error
    if consumers in names or len(set(names)) < len(names):
        raise OperationError("every domain is named once: business and consumer domains are different")
    path = data_directory / FILE_NAME
    try:
        data_directory.mkdir(parents=True, exist_ok=True)
        if not any(data_directory.iterdir()):
            data_directory.chmod(0o700)
        # Exclusive: an existing configuration holds secrets that the XMPP server knows as well.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(configuration_text(names, consumers))
    except FileExistsError as error:
        raise OperationError(f"{path} exists already: edit it, or choose another directory with --data") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
    return path


def configuration_text(domains: Sequence[str], consumer_domain: str) -> str:
    """The commented file; every secret in it is fresh."""
    parts = [_HEAD.format(consumer_domain=consumer_domain, turn_secret=secrets.token_urlsafe(24))]
    parts += [_DOMAIN.format(name=name, secret=secrets.token_urlsafe(24)) for name in domains]
    return "\n".join([*parts, _TAIL])


_HEAD = """\
# Isthmus. Every setting can also be given in the environment, e.g. ISTHMUS_XMPP__C2S_PORT=5223.
# What is commented out shows the default. Reference: docs/reference/configuration.md
# This file holds secrets: keep it readable by the server's user alone.

# store_url = ""                # empty: SQLite in this directory; or postgresql+psycopg://...
# service_name = "isthmus"      # consent questions come from this name at each business domain

[sip]
# One socket per entry. ws without TLS is served on loopback only; outside use tls and wss.
# listeners = [
#   {{ transport = "udp", host = "127.0.0.1", port = 5060 }},
#   {{ transport = "tcp", host = "127.0.0.1", port = 5060 }},
#   {{ transport = "ws", host = "127.0.0.1", port = 5066 }},
# ]
# allow_md5 = true              # many desk phones know only MD5 digests; SHA-256 is offered first
# websocket_origins = []        # pages that may connect; empty: the same host only

[sip.tls]
# certificate = "certificate.pem"      # with its chain; must name every SIP domain in full, no wildcards (RFC 5922)
# private_key = "key.pem"
# trusted_authorities = "partners.pem" # instead of the system's, for partners with their own authority

[xmpp]
consumer_domain = "{consumer_domain}"
# embedded = true               # start and watch our own Prosody; false: an existing server, see prosody-config
# host = "127.0.0.1"            # where the XMPP server takes components
# component_port = 5347
# interface = "127.0.0.1"       # embedded only: where clients and other servers connect
# c2s_port = 5222
# s2s_port = 5269
# websocket_port = 5280
# trusted_authorities = "partners.pem" # embedded only: instead of the system's, for other servers' certificates
# hosts_file = "hosts"          # embedded only: addresses of servers that DNS does not know, like /etc/hosts

[media]
# embedded = true               # start and watch our own rtpengine, where it is installed
# host = "127.0.0.1"            # address of this machine that calls of others than this machine's go through
# advertised_host = ""          # the public address, behind a NAT that maps one to one
# first_port = 30000            # open these (UDP) to everybody who calls
# last_port = 39999
# ng = ["udp:10.0.0.7:22222"]   # further relays

[turn]
secret = "{turn_secret}"
# embedded = true               # start and watch our own coturn, where it is installed
# host = "127.0.0.1"
# port = 3478                   # open it (UDP and TCP), and the ports below (UDP)
# advertised_host = ""          # name or address that clients are told
# external_address = ""         # the public address, behind a NAT that maps one to one
# first_port = 49152
# last_port = 65535

[policy]
# connectivity = true           # of a new data directory; later `isthmus policy set connectivity on|off`
# discovered_messages_per_second = 20.0
# discovered_maximum_contacts = 1000

[web]
# host = "127.0.0.1"            # /healthz, /readyz, /metrics
# port = 9090

[log]
# level = "info"
# format = "text"               # or "json"
# bodies = false                # message bodies in logs and traces
"""

_DOMAIN = """\
[[domains]]
name = "{name}"
kind = "hosted"                 # its users register with us
component_secret = "{secret}"
"""

_TAIL = """\
# A domain whose users a PBX or proxy owns:
# [[domains]]
# name = "pbx.example"
# kind = "routed"
# component_secret = "make one with: openssl rand -base64 24"
# peers = [{ host = "10.0.0.5", transport = "tcp", allow_from = ["10.0.0.5/32"] }]
"""
