"""Credentials for TURN: as coturn computes them, good for a time, and none without a server."""

from __future__ import annotations

import base64
import hmac

import pytest
from pydantic import SecretStr

from isthmus.config import TurnSettings
from isthmus.errors import ConfigurationError
from isthmus.services.turn_credentials import turn_credentials, turn_uris

NOW = 1_800_000_000.9


def test_the_name_holds_the_end_and_the_owner_and_the_password_is_their_keyed_hash() -> None:
    turn = TurnSettings(secret=SecretStr("north"), credential_seconds=3_600)
    made = turn_credentials(turn, "ana@corp.test", NOW)
    assert made.username == "1800003600:ana@corp.test"
    assert base64.b64decode(made.password) == hmac.digest(b"north", made.username.encode(), "sha1")
    assert made.seconds == 3_600
    assert made.to_json() == {
        "username": made.username,
        "password": made.password,
        "ttl": 3_600,
        "uris": ["stun:127.0.0.1:3478", "turn:127.0.0.1:3478?transport=udp", "turn:127.0.0.1:3478?transport=tcp"],
    }


def test_clients_are_told_the_public_name_and_ipv6_in_brackets() -> None:
    named = TurnSettings(secret=SecretStr("s"), host="10.0.0.5", advertised_host="turn.corp.test", port=443)
    assert turn_uris(named)[0] == "stun:turn.corp.test:443"
    assert turn_uris(TurnSettings(secret=SecretStr("s"), host="2001:db8::1"))[0] == "stun:[2001:db8::1]:3478"


@pytest.mark.parametrize(
    "turn", [TurnSettings(), TurnSettings(secret=SecretStr("s"), embedded=False)], ids=["no secret", "no server"]
)
def test_without_a_server_there_is_nothing_to_hand_out(turn: TurnSettings) -> None:
    with pytest.raises(ConfigurationError, match=r"turn\.secret"):
        turn_credentials(turn, "ana@corp.test", NOW)
