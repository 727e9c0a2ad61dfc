"""Typed configuration: `isthmus.toml` in the data directory, overridden by `ISTHMUS_*` environment variables.

Only shapes, defaults and checks live here; reading files and printing help belong to the command line.
"""

from __future__ import annotations

import functools
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

# Fewer do not carry a handful of calls, and are a typing mistake: a call with pictures takes up to eight.
MINIMUM_MEDIA_PORTS = 100


class Strict(BaseModel):
    """A section that refuses unknown settings, so that a typing mistake is an error and not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Transport(StrEnum):
    """SIP transports (RFC 3261 section 18, RFC 7118)."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"
    WS = "ws"
    WSS = "wss"


class Listener(Strict):
    """One socket that SIP is served on."""

    transport: Transport
    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)


class TlsSettings(Strict):
    """Our certificate and whom we trust. Paths are relative to the data directory."""

    certificate: Path | None = None
    private_key: Path | None = None
    trusted_authorities: Path | None = None  # PEM bundle; None: the system's


class SipSettings(Strict):
    """The SIP side."""

    listeners: tuple[Listener, ...] = (
        Listener(transport=Transport.UDP, port=5060),
        Listener(transport=Transport.TCP, port=5060),
        Listener(transport=Transport.WS, port=5066),
    )
    advertised_host: str = ""  # what peers reach us by in Via and Contact; empty: the listener's address
    tls: TlsSettings = TlsSettings()
    allow_md5: bool = True  # many desk phones know only MD5; SHA-256 is always offered first
    nonce_seconds: float = 300.0
    minimum_expires_seconds: int = 60
    maximum_expires_seconds: int = 7200
    default_expires_seconds: int = 3600
    maximum_bindings: int = 10  # per address of record: a person's devices, not a botnet's
    websocket_origins: tuple[str, ...] = ()  # allowed Origin values; empty: same host only
    dns_servers: tuple[str, ...] = ()  # empty: the system's resolver


class SipPeer(Strict):
    """A static SIP neighbour (PBX, proxy, SBC) that owns the users of a routed domain."""

    host: str
    port: int = Field(default=0, ge=0, le=65535)  # 0: by RFC 3263
    transport: Transport = Transport.UDP
    allow_from: tuple[IPv4Network | IPv6Network, ...] = ()  # sources believed; empty: the peer's own address
    tls_names: tuple[str, ...] = ()  # names accepted in the peer's certificate (mutual TLS)
    priority: int = 0  # lower is tried first; equal ones share


class DomainKind(StrEnum):
    """Who owns the users of a business domain."""

    HOSTED = "hosted"
    ROUTED = "routed"


class BusinessDomain(Strict):
    """One SIP domain, joined to XMPP by one component connection of the same name."""

    name: str
    kind: DomainKind = DomainKind.HOSTED
    component_secret: SecretStr
    peers: tuple[SipPeer, ...] = ()

    @model_validator(mode="after")
    def _routed_needs_peers(self) -> BusinessDomain:
        if self.kind is DomainKind.ROUTED and not self.peers:
            raise ValueError(f"domain {self.name} is routed: name at least one peer (domains.peers)")
        return self


class XmppSettings(Strict):
    """The XMPP side: the server whose component we are, and the embedded Prosody."""

    host: str = "127.0.0.1"
    component_port: int = Field(default=5347, ge=1, le=65535)
    consumer_domain: str = "people.test"
    embedded: bool = True  # start and watch our own Prosody
    interface: str = "127.0.0.1"  # embedded only: where clients and servers connect
    c2s_port: int = Field(default=5222, ge=0, le=65535)
    s2s_port: int = Field(default=5269, ge=0, le=65535)
    websocket_port: int = Field(default=5280, ge=0, le=65535)
    # embedded only; relative to the data directory
    trusted_authorities: Path | None = None  # PEM bundle for certificates of other servers; None: the system's
    hosts_file: Path | None = None  # addresses of servers that DNS does not know, in the form of hosts(5)
    reconnect_maximum_seconds: float = 30.0


def _numeric_address(host: str) -> str:
    """Media go to numbers: neither program resolves names. Raises ValueError."""
    if host:
        ip_address(host.strip("[]"))
    return host


class MediaSettings(Strict):
    """Media relays (rtpengine): the embedded one, and others."""

    embedded: bool = True  # start and watch our own rtpengine, where it is installed
    host: str = "127.0.0.1"  # embedded only: address of this machine that sound and pictures go through
    advertised_host: str = ""  # embedded only: address that people are told instead, behind a one-to-one NAT
    first_port: int = Field(default=30_000, ge=1_024, le=65_535)
    last_port: int = Field(default=39_999, ge=1_024, le=65_535)
    control_port: int = Field(default=22_222, ge=1, le=65_535)  # embedded only: commands, on loopback
    ng: tuple[str, ...] = ()  # further relays: udp:HOST:PORT
    silence_seconds: float = Field(default=60.0, ge=0.0)  # an end that sends nothing for so long has gone; 0: never

    _numeric = field_validator("host", "advertised_host")(_numeric_address)

    @field_validator("ng")
    @classmethod
    def _relays_have_addresses(cls, relays: tuple[str, ...]) -> tuple[str, ...]:
        for relay in relays:
            parse_relay(relay)
        return relays

    @model_validator(mode="after")
    def _range_is_one(self) -> MediaSettings:
        if self.last_port - self.first_port < MINIMUM_MEDIA_PORTS:
            raise ValueError(f"media.first_port to media.last_port must be at least {MINIMUM_MEDIA_PORTS} ports")
        return self


def parse_relay(text: str) -> tuple[str, int]:
    """Return host and port of `udp:HOST:PORT` (IPv6 in brackets). Raises ValueError."""
    kind, _, place = text.partition(":")
    host, _, port = place.rpartition(":")
    if kind != "udp" or not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65_535):
        raise ValueError(f"{text!r} is not udp:HOST:PORT")
    return host.strip("[]"), int(port)


class TurnSettings(Strict):
    """TURN (coturn): for media that go directly between two people, through whatever is between them."""

    embedded: bool = True  # start and watch our own coturn, where it is installed
    host: str = "127.0.0.1"  # embedded only: address to listen and relay on
    port: int = Field(default=3_478, ge=1, le=65_535)
    advertised_host: str = ""  # name or address that clients are told; empty: host
    external_address: str = ""  # embedded only: our public address, behind a NAT that maps one to one
    first_port: int = Field(default=49_152, ge=1_024, le=65_535)
    last_port: int = Field(default=65_535, ge=1_024, le=65_535)
    secret: SecretStr = SecretStr("")  # shared with the TURN server; empty: no TURN
    credential_seconds: int = Field(default=86_400, ge=60)  # how long a credential that we hand out is good
    # embedded only: of the private networks, what may be reached through it all the same (a media relay, say)
    allowed_peers: tuple[IPv4Network | IPv6Network, ...] = ()

    _numeric = field_validator("host", "external_address")(_numeric_address)

    @property
    def is_offered(self) -> bool:
        """True when there is a server that takes our credentials."""
        return bool(self.secret.get_secret_value()) and (self.embedded or bool(self.advertised_host))

    @property
    def told_host(self) -> str:
        """Where clients are sent."""
        return self.advertised_host or self.host

    @model_validator(mode="after")
    def _range_is_one(self) -> TurnSettings:
        if self.last_port - self.first_port < MINIMUM_MEDIA_PORTS:
            raise ValueError(f"turn.first_port to turn.last_port must be at least {MINIMUM_MEDIA_PORTS} ports")
        return self


class PolicyDefaults(Strict):
    """Policy of a new data directory; later changes are made with `isthmus policy set` and live in the store."""

    connectivity: bool = True
    discovered_messages_per_second: float = 20.0
    discovered_maximum_contacts: int = 1_000


class LimitSettings(Strict):
    """Rates and sizes. Each protects something; see docs/reference/configuration."""

    user_requests_per_second: float = 20.0
    user_burst: int = 100
    peer_requests_per_second: float = 20_000.0
    peer_burst: int = 40_000
    unauthenticated_per_second: float = 50.0  # per source address, before digest
    unauthenticated_burst: int = 200
    message_octets: int = 65_536  # text of one message towards our own users
    offline_messages_per_user: int = 1_000
    offline_seconds: float = 7 * 86_400
    subscriptions_per_watcher: int = 1_000
    pending_requests_per_user: int = 200  # contact requests waiting for one person


class CallSettings(Strict):
    """Calls between people of the two realms, and between colleagues."""

    enabled: bool = True
    ring_seconds: float = Field(default=60.0, ge=5, le=180)  # SIP proxies give up after three minutes (Timer C)
    maximum_calls: int = Field(default=2_000, ge=1)  # at once; the relay's ports are a limit of their own
    maximum_calls_per_user: int = Field(default=8, ge=1)  # at once: call waiting and a meeting, not a dialler
    maximum_devices: int = Field(default=10, ge=1, le=60)  # rung at once for one call (RFC 5393 section 5)
    keep_records_days: float = Field(default=90.0, ge=0)  # call records; 0 keeps none


class WebSettings(Strict):
    """Health and metrics."""

    host: str = "127.0.0.1"
    port: int = Field(default=9090, ge=0, le=65535)


class LogSettings(Strict):
    """Structured logs on standard error."""

    level: str = "info"
    format: str = Field(default="text", pattern="^(text|json)$")
    bodies: bool = False  # message bodies in logs and traces: off unless the operator accepts it


class Configuration(BaseSettings):
    """Everything the operator decides before start."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="ISTHMUS_", env_nested_delimiter="__", toml_file=None
    )

    data_directory: Path = Path("data")
    store_url: str = ""  # empty: SQLite in the data directory
    service_name: str = "isthmus"  # local part of the address that consent questions come from
    sip: SipSettings = SipSettings()
    xmpp: XmppSettings = XmppSettings()
    domains: tuple[BusinessDomain, ...] = ()
    media: MediaSettings = MediaSettings()
    turn: TurnSettings = TurnSettings()
    policy: PolicyDefaults = PolicyDefaults()
    limits: LimitSettings = LimitSettings()
    calls: CallSettings = CallSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()

    @field_validator("domains")
    @classmethod
    def _domains_are_distinct(cls, domains: tuple[BusinessDomain, ...]) -> tuple[BusinessDomain, ...]:
        names = [domain.name.lower() for domain in domains]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"business domain configured twice: {', '.join(twice)}")
        return domains

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file over defaults."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))

    def business_domain(self, name: str) -> BusinessDomain | None:
        """Return the business domain called `name` (canonical form), or None."""
        return next((domain for domain in self.domains if domain.name == name), None)


@functools.lru_cache(maxsize=4_096)  # asked for every request that is sent
def is_loopback(host: str) -> bool:
    """True when `host` is an address of this machine alone (clear-text WebSocket is served only there)."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
