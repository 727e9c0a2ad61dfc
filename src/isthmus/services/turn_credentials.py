"""Credentials for the TURN server that expire: made from a secret that we share with it, so that it keeps no accounts.

The form is that of draft-uberti-behave-turn-rest-00, which coturn (`use-auth-secret`) and Prosody (`turn_external`)
speak as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.config import TurnSettings
from isthmus.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class TurnCredentials:
    """What a client needs.

    Attributes:
        username: when it expires and whose it is.
        password: proves that we made it.
        seconds: how long it is good.
        uris: of the server (RFC 7065), the best way first.
    """

    username: str
    password: str
    seconds: int
    uris: tuple[str, ...]

    def to_json(self) -> Mapping[str, object]:
        """Return the object of section 2.2 of the draft."""
        return {
            "username": self.username,
            "password": self.password,
            "ttl": self.seconds,
            "uris": list(self.uris),
        }


def turn_credentials(turn: TurnSettings, owner: str, now: float) -> TurnCredentials:
    """Return fresh credentials.

    Args:
        turn: settings with the secret.
        owner: whose they are, for the TURN server's log and quota: an address.
        now: Unix seconds.

    Raises:
        ConfigurationError: there is no TURN server.
    """
    if not turn.is_offered:
        raise ConfigurationError("there is no TURN server: set turn.secret, and turn.advertised_host or turn.embedded")
    expires_at = int(now) + turn.credential_seconds
    username = f"{expires_at}:{owner}"
    # The protocol of the draft is HMAC-SHA1, which is not weakened by what is known of SHA-1.
    digest = hmac.new(turn.secret.get_secret_value().encode(), username.encode(), hashlib.sha1).digest()
    return TurnCredentials(username, base64.b64encode(digest).decode(), turn.credential_seconds, turn_uris(turn))


def turn_uris(turn: TurnSettings) -> tuple[str, ...]:
    """Return where the server is, for clients (RFC 7064, RFC 7065)."""
    host = turn.told_host
    place = f"[{host}]:{turn.port}" if ":" in host and not host.startswith("[") else f"{host}:{turn.port}"
    return (f"stun:{place}", f"turn:{place}?transport=udp", f"turn:{place}?transport=tcp")
