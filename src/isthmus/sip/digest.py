"""Digest authentication in both roles (RFC 3261 section 22, RFC 7616, RFC 8760).

As a server: put `challenges(...)` into a 401, read the answer with `find_authorization`, verify it with
`check_credentials`, and only then count the nonce with `NonceSource.check`. A right response to a nonce that is not
"ok" gets a challenge with `stale=true`, so that no phone asks its owner for the password again.

As a client: `answer_challenge` turns a 401 or 407 into the request to send next.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isthmus.errors import SipParseError
from isthmus.sip.digest_nonces import NonceSource, NonceVerdict
from isthmus.sip.message import SipRequest, SipResponse
from isthmus.sip.syntax import quote, unquote

__all__ = [
    "ALGORITHMS",
    "Authorization",
    "Challenge",
    "NonceSource",
    "NonceVerdict",
    "answer_challenge",
    "build_authorization",
    "challenges",
    "check_credentials",
    "choose_challenge",
    "find_authorization",
    "ha1",
    "parse_authorization",
    "parse_credentials",
]

# Token to hashlib name, strongest first: the order in which challenges are sent (RFC 8760 section 2.3).
_HASHES = {"SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"}
ALGORITHMS: tuple[str, ...] = tuple(_HASHES)
"""Algorithm tokens we know, most preferred first."""

_SESSION = "-SESS"
# Longest header line is 8 KiB; a digest response has about twelve parameters.
_MAXIMUM_PARAMETERS = 32
_SCHEME = re.compile(r"\s*([A-Za-z0-9!#$%&'*+\-.^_`|~]+)(?:\s+|$)")
_PARAMETER = re.compile(
    r"""[\s,]*+([A-Za-z0-9!#$%&'*+\-.^_`|~]++)\s*+=\s*+("(?:[^"\\]|\\.)*+"|[^\s,"]*+)\s*+(?:,|$)""", re.DOTALL
)
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]++=*+\s*")  # RFC 7235 section 2.1
_ONLY_SEPARATORS = re.compile(r"[\s,]*+")
_NONCE_COUNT = re.compile(r"[0-9A-Fa-f]{1,8}")


def _hash(algorithm: str, data: bytes) -> str:
    # MD5 stays for phones that know nothing else; whether it is offered is the operator's decision.
    return hashlib.new(_HASHES[algorithm], data, usedforsecurity=False).hexdigest()


def _family(algorithm: str) -> str | None:
    """Return the plain algorithm token of `algorithm` in our spelling, or None when we do not know it."""
    token = algorithm.upper().removesuffix(_SESSION)
    return token if token in _HASHES else None


def ha1(user: str, realm: str, password: str, algorithm: str = "SHA-256") -> str:
    """Return H(user:realm:password) in lower-case hex: all that needs to be kept of a password.

    Raises:
        ValueError: the algorithm is none of `ALGORITHMS`.
    """
    family = _family(algorithm)
    if family is None:
        raise ValueError(f"{algorithm!r} is not one of {', '.join(ALGORITHMS)}")
    return _hash(family, f"{user}:{realm}:{password}".encode())


def parse_credentials(text: str) -> tuple[str, dict[str, str]]:
    """Read an authentication header value of any scheme.

    Returns:
        The scheme in lower case ("digest", "bearer", ...), and its parameters unquoted, names in lower case. A scheme
        that has a single opaque value instead (Bearer, Basic) yields it under the name "".

    Raises:
        SipParseError: no scheme, a malformed or repeated parameter, or too many of them.
    """
    match = _SCHEME.match(text)
    if match is None:
        raise SipParseError("an authentication header field names no scheme")
    scheme = match.group(1).lower()
    parameters: dict[str, str] = {}
    position = match.end()
    if scheme != "digest" and _TOKEN68.fullmatch(text, position) is not None:
        return scheme, {"": text[position:].rstrip()}
    while position < len(text):
        found = _PARAMETER.match(text, position)
        if found is None:
            if _ONLY_SEPARATORS.fullmatch(text, position) is not None:
                break
            raise SipParseError("an authentication parameter is malformed")
        name, value = found.groups()
        name = name.lower()
        if name in parameters or len(parameters) >= _MAXIMUM_PARAMETERS:
            raise SipParseError("authentication parameters are repeated or too many")
        parameters[name] = unquote(value)
        position = found.end()
    return scheme, parameters


@dataclass(frozen=True, slots=True)
class Authorization:
    """A digest response: the value of Authorization or Proxy-Authorization.

    Attributes:
        username, realm, nonce, uri, opaque, cnonce: as sent, unquoted.
        response: hex digest, lower-case.
        algorithm: as sent; "MD5" when absent.
        qop: "auth", "auth-int", or "" for a client of RFC 2069.
        nc: nonce count, 0 when absent.
        nc_text: nonce count as sent; it goes into the digest literally.
    """

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str = "MD5"
    qop: str = ""
    nc: int = 0
    nc_text: str = ""
    cnonce: str = ""
    opaque: str = ""

    @property
    def family(self) -> str | None:
        """The plain algorithm in our spelling (key of `User.digests`), None when unknown."""
        return _family(self.algorithm)


def parse_authorization(text: str) -> Authorization | None:
    """Read the value of an Authorization or Proxy-Authorization header field.

    Returns:
        None when the scheme is not Digest: then challenge as if it were absent (RFC 4475 regaut01).

    Raises:
        SipParseError: Digest, but malformed or incomplete.
    """
    scheme, parameters = parse_credentials(text)
    if scheme != "digest":
        return None
    missing = [name for name in ("username", "realm", "nonce", "uri", "response") if name not in parameters]
    if missing:
        raise SipParseError(f"the digest response lacks {missing[0]}")
    qop = parameters.get("qop", "").lower()
    nc_text = parameters.get("nc", "")
    if qop:
        if qop not in ("auth", "auth-int"):
            raise SipParseError("the quality of protection of a digest response is unknown")
        if _NONCE_COUNT.fullmatch(nc_text) is None or int(nc_text, 16) == 0 or not parameters.get("cnonce"):
            raise SipParseError("a digest response with qop needs a nonce count and a client nonce")
    return Authorization(
        username=parameters["username"],
        realm=parameters["realm"],
        nonce=parameters["nonce"],
        uri=parameters["uri"],
        response=parameters["response"].lower(),
        algorithm=parameters.get("algorithm") or "MD5",
        qop=qop,
        nc=int(nc_text, 16) if qop else 0,
        nc_text=nc_text,
        cnonce=parameters.get("cnonce", ""),
        opaque=parameters.get("opaque", ""),
    )


def find_authorization(request: SipRequest, realm: str, field: str = "Authorization") -> Authorization | None:
    """Return the strongest digest response of a request for our realm, or None.

    Responses for other realms belong to others, and other schemes are left alone.

    Raises:
        SipParseError: a digest response is malformed.
    """
    found: list[Authorization] = []
    for value in request.headers.get_all(field):
        authorization = parse_authorization(value)
        if authorization is not None and authorization.realm == realm:
            found.append(authorization)
    if not found:
        return None
    return min(found, key=lambda a: ALGORITHMS.index(a.family) if a.family else len(ALGORITHMS))


def _response(family: str, stored: str, authorization: Authorization, method: str, body: bytes) -> str:
    """Compute the expected response (RFC 7616 sections 3.4.1 to 3.4.3)."""
    if authorization.algorithm.upper().endswith(_SESSION):
        stored = _hash(family, f"{stored}:{authorization.nonce}:{authorization.cnonce}".encode())
    a2 = f"{method}:{authorization.uri}"
    if authorization.qop == "auth-int":
        a2 = f"{a2}:{_hash(family, body)}"
    hashed_a2 = _hash(family, a2.encode())
    if not authorization.qop:
        return _hash(family, f"{stored}:{authorization.nonce}:{hashed_a2}".encode())
    counted = f"{authorization.nonce}:{authorization.nc_text}:{authorization.cnonce}:{authorization.qop}"
    return _hash(family, f"{stored}:{counted}:{hashed_a2}".encode())


def check_credentials(
    authorization: Authorization, method: str, ha1_by_algorithm: Mapping[str, str], body: bytes = b""
) -> bool:
    """Tell whether a digest response proves the password.

    The work and the comparison take the same time for a wrong password and for a user we do not know.

    Args:
        authorization: what the client sent.
        method: of the request.
        ha1_by_algorithm: `ha1` per algorithm token; empty for an unknown user. Algorithms the operator does not allow
            must not be in it, or a client could choose them unasked (downgrade).
        body: message body, for auth-int.
    """
    family = authorization.family
    stored = ha1_by_algorithm.get(family) if family else None
    expected = _response(family or "SHA-256", stored or "0" * 64, authorization, method, body)
    is_equal = hmac.compare_digest(expected.encode(), authorization.response.encode("utf-8", "replace"))
    return is_equal and stored is not None


@dataclass(frozen=True, slots=True)
class Challenge:
    """A digest challenge: the value of WWW-Authenticate or Proxy-Authenticate.

    Attributes:
        realm, nonce, opaque: as sent, unquoted.
        algorithm: token; "MD5" when absent.
        qop: offered qualities of protection; empty for a server of RFC 2069.
        is_stale: the nonce was old but the password right.
    """

    realm: str
    nonce: str
    algorithm: str = "MD5"
    qop: tuple[str, ...] = ("auth",)
    opaque: str = ""
    is_stale: bool = False

    @classmethod
    def parse(cls, text: str) -> Challenge | None:
        """Read a challenge; None when it is of another scheme. Raises SipParseError when malformed."""
        scheme, parameters = parse_credentials(text)
        if scheme != "digest":
            return None
        if "realm" not in parameters or not parameters.get("nonce"):
            raise SipParseError("a digest challenge lacks realm or nonce")
        qop = tuple(option.strip().lower() for option in parameters.get("qop", "").split(",") if option.strip())
        return cls(
            realm=parameters["realm"],
            nonce=parameters["nonce"],
            algorithm=parameters.get("algorithm") or "MD5",
            qop=qop,
            opaque=parameters.get("opaque", ""),
            is_stale=parameters.get("stale", "").lower() == "true",
        )

    def __str__(self) -> str:
        text = f"Digest realm={quote(self.realm)}, nonce={quote(self.nonce)}"
        if self.opaque:
            text += f", opaque={quote(self.opaque)}"
        if self.is_stale:
            text += ", stale=true"
        text += f", algorithm={self.algorithm}"
        return f'{text}, qop="{",".join(self.qop)}"' if self.qop else text


def challenges(
    realm: str, nonce: str, algorithms: Iterable[str] = ("SHA-256",), *, is_stale: bool = False
) -> list[tuple[str, str]]:
    """Return the WWW-Authenticate header fields of a 401: one per algorithm, strongest first (RFC 8760 section 2.3)."""
    wanted = set(algorithms)
    return [
        ("WWW-Authenticate", str(Challenge(realm, nonce, algorithm, ("auth", "auth-int"), is_stale=is_stale)))
        for algorithm in ALGORITHMS
        if algorithm in wanted
    ]


def choose_challenge(values: Iterable[str], algorithms: Sequence[str] = ALGORITHMS) -> Challenge | None:
    """Return the topmost challenge we can answer (RFC 8760 section 2.4), or None; what we cannot read is ignored."""
    for value in values:
        try:
            challenge = Challenge.parse(value)
        except SipParseError:
            continue
        if challenge is None or _family(challenge.algorithm) not in algorithms:
            continue
        if not challenge.qop or "auth" in challenge.qop or "auth-int" in challenge.qop:
            return challenge
    return None


def build_authorization(
    challenge: Challenge,
    *,
    username: str,
    password: str,
    method: str,
    uri: str,
    cnonce: str,
    nc: int = 1,
    body: bytes = b"",
) -> str:
    """Return the Authorization (or Proxy-Authorization) value that answers a challenge.

    Args:
        challenge: from `choose_challenge`.
        username, password: our account at the peer.
        method, uri: of the request that will carry it; the Request-URI as text.
        cnonce: fresh random text.
        nc: how many requests were sent with this nonce, this one included.
        body: message body, for auth-int, which is used only when auth is not offered.

    Raises:
        ValueError: the algorithm is unknown.
    """
    family = _family(challenge.algorithm)
    if family is None:
        raise ValueError(f"{challenge.algorithm!r} is not one of {', '.join(ALGORITHMS)}")
    qop = "auth" if "auth" in challenge.qop else ("auth-int" if "auth-int" in challenge.qop else "")
    unsigned = Authorization(
        username=username,
        realm=challenge.realm,
        nonce=challenge.nonce,
        uri=uri,
        response="",
        algorithm=challenge.algorithm,
        qop=qop,
        nc_text=f"{nc:08x}",
        cnonce=cnonce,
    )
    response = _response(family, ha1(username, challenge.realm, password, family), unsigned, method, body)
    text = (
        f"Digest username={quote(username)}, realm={quote(challenge.realm)}, nonce={quote(challenge.nonce)}, "
        f'uri={quote(uri)}, response="{response}", algorithm={challenge.algorithm}'
    )
    if qop or challenge.algorithm.upper().endswith(_SESSION):
        text += f", cnonce={quote(cnonce)}"
    if qop:
        text += f", qop={qop}, nc={nc:08x}"
    return f"{text}, opaque={quote(challenge.opaque)}" if challenge.opaque else text


def answer_challenge(
    request: SipRequest, response: SipResponse, *, username: str, password: str, cnonce: str
) -> SipRequest | None:
    """Return the request to send after a 401 or 407, or None when giving up is right.

    It is the same request with credentials, the next CSeq and without the Vias of the first try (section 22.2).
    Giving up is right when no challenge can be answered, or when the credentials were refused and not merely stale.

    Args:
        request: what was challenged.
        response: the 401 or 407.
        username, password: our account at the peer.
        cnonce: fresh random text.
    """
    answers = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}
    if response.status not in answers:
        return None
    challenged, answer = answers[response.status]
    challenge = choose_challenge(response.headers.get_all(challenged))
    if challenge is None:
        return None
    kept: list[str] = []
    for value in request.headers.get_all(answer):
        previous = parse_authorization(value)
        if previous is None or previous.realm != challenge.realm:
            kept.append(value)
        elif not challenge.is_stale:
            return None
    value = build_authorization(
        challenge,
        username=username,
        password=password,
        method=request.method,
        uri=str(request.uri),
        cnonce=cnonce,
        body=request.body,
    )
    retry = request.copy()
    retry.headers.remove("Via")
    retry.headers.remove(answer)
    for line in [*kept, value]:
        retry.headers.add(answer, line)
    retry.headers.set("CSeq", f"{request.cseq.number + 1} {request.method}")
    return retry
