"""Digest authentication in both roles, with the vectors of RFC 7616 and RFC 8760."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.digest import (
    ALGORITHMS,
    Authorization,
    Challenge,
    NonceSource,
    answer_challenge,
    build_authorization,
    challenges,
    check_credentials,
    choose_challenge,
    find_authorization,
    ha1,
    parse_authorization,
    parse_credentials,
)
from isthmus.sip.headers import NameAddr, Via
from isthmus.sip.message import SipRequest, SipResponse, build_request, build_response
from isthmus.sip.uri import SipUri

# RFC 7616 section 3.9.1.
MUFASA = (
    'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm={algorithm}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
    'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="{response}", '
    'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
VECTORS = [
    ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
    ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
]
TARGET = SipUri.parse("sip:peer.test")


def parsed(text: str) -> Authorization:
    authorization = parse_authorization(text)
    assert authorization is not None
    return authorization


@pytest.mark.parametrize(("algorithm", "response"), VECTORS)
def test_the_vectors_of_the_standard_verify(algorithm: str, response: str) -> None:
    authorization = parsed(MUFASA.format(algorithm=algorithm, response=response))
    digests = {algorithm: ha1("Mufasa", "http-auth@example.org", "Circle of Life", algorithm)}
    assert check_credentials(authorization, "GET", digests)
    assert not check_credentials(authorization, "PUT", digests)
    assert not check_credentials(replace(authorization, nc_text="00000002"), "GET", digests)
    assert not check_credentials(authorization, "GET", {})


def test_the_corrected_vector_for_sha_512_256_verifies() -> None:
    # RFC 7616 section 3.9.2 prints digests of a truncated SHA-512; erratum 4897 has those of SHA-512/256.
    user, realm = "J\u00e4s\u00f8n Doe", "api@example.org"
    authorization = Authorization(
        username=user,
        realm=realm,
        nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
        uri="/doe.json",
        response="3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5",
        algorithm="SHA-512-256",
        qop="auth",
        nc=1,
        nc_text="00000001",
        cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
    )
    digests = {"SHA-512-256": ha1(user, realm, "Secret, or not?", "SHA-512-256")}
    assert check_credentials(authorization, "GET", digests)


def test_an_empty_body_is_hashed_as_the_empty_string() -> None:
    """RFC 8760 section 2.6, bullet 7."""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    secret = ha1("ana", "corp.test", "pw")
    a2 = hashlib.sha256(f"OPTIONS:sip:corp.test:{empty}".encode()).hexdigest()
    response = hashlib.sha256(f"{secret}:n:00000001:c:auth-int:{a2}".encode()).hexdigest()
    authorization = Authorization(
        "ana", "corp.test", "n", "sip:corp.test", response, "SHA-256", "auth-int", 1, "00000001", "c"
    )
    assert check_credentials(authorization, "OPTIONS", {"SHA-256": secret})
    assert not check_credentials(authorization, "OPTIONS", {"SHA-256": secret}, b"x")


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from([*ALGORITHMS, "MD5-sess", "SHA-256-sess"]),
    st.sampled_from([("auth",), ("auth-int",), ("auth", "auth-int"), ()]),
    st.binary(max_size=20),
)
def test_our_client_convinces_our_server(
    user: str, password: str, algorithm: str, qop: tuple[str, ...], body: bytes
) -> None:
    challenge = Challenge("corp.test", "n1", algorithm, qop, opaque="o")
    assert Challenge.parse(str(challenge)) == challenge
    text = build_authorization(
        challenge, username=user, password=password, method="MESSAGE", uri="sip:a@b", cnonce="c1", body=body
    )
    authorization = parsed(text)
    family = authorization.family
    assert family is not None
    assert check_credentials(authorization, "MESSAGE", {family: ha1(user, "corp.test", password, family)}, body)
    wrong = {family: ha1(user, "corp.test", password + "x", family)}
    assert not check_credentials(authorization, "MESSAGE", wrong, body)


def test_an_algorithm_the_operator_does_not_keep_is_refused() -> None:
    authorization = parsed(MUFASA.format(algorithm="MD5", response=VECTORS[0][1]))
    digests = {"SHA-256": ha1("Mufasa", "http-auth@example.org", "Circle of Life")}
    assert not check_credentials(authorization, "GET", digests)
    assert not check_credentials(replace(authorization, algorithm="ROT13"), "GET", digests)
    with pytest.raises(ValueError, match="ROT13"):
        ha1("a", "b", "c", "ROT13")


def test_challenges_stand_strongest_first_whatever_their_order() -> None:
    fields = challenges("corp.test", "n", ["MD5", "SHA-256", "SHA-512-256"], is_stale=True)
    assert [name for name, _ in fields] == ["WWW-Authenticate"] * 3
    read = [Challenge.parse(value) for _, value in fields]
    assert [challenge.algorithm for challenge in read if challenge] == ["SHA-512-256", "SHA-256", "MD5"]
    assert all(challenge and challenge.is_stale and "auth" in challenge.qop for challenge in read)


@given(st.text(max_size=80))
def test_any_text_is_credentials_or_a_parse_error(text: str) -> None:
    for prefix in ("", "Digest ", 'Digest username="a", realm="b", nonce="c", uri="d", response="e",'):
        for parse in (parse_credentials, parse_authorization, Challenge.parse):
            with contextlib.suppress(SipParseError):
                parse(prefix + text)


def test_other_schemes_are_left_alone() -> None:
    assert parse_authorization("NoOneKnowsThisScheme opaque-data=here") is None
    assert parse_credentials("Bearer eyJhbGciOi.x_y-z==") == ("bearer", {"": "eyJhbGciOi.x_y-z=="})
    assert parse_credentials("Negotiate") == ("negotiate", {})
    assert Challenge.parse('Bearer authz_server="https://id.corp.test"') is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Digest",
        "Digest garbage",
        'Digest username="a", username="b", realm="r", nonce="n", uri="u", response="x"',
        'Digest username="a", realm="r", nonce="n", uri="u"',
        'Digest username="a, realm="r", nonce="n", uri="u", response="x"',
        'Digest username="a", realm="r", nonce="n", uri="u", response="x", qop=auth',
        'Digest username="a", realm="r", nonce="n", uri="u", response="x", qop=auth, nc=00000000, cnonce="c"',
        'Digest username="a", realm="r", nonce="n", uri="u", response="x", qop=auth, nc=zz, cnonce="c"',
        'Digest username="a", realm="r", nonce="n", uri="u", response="x", qop=best, nc=00000001, cnonce="c"',
        "Digest " + ",".join(f"p{n}=x" for n in range(40)),
    ],
)
def test_malformed_digest_responses_are_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        parse_authorization(text)


def test_untidy_but_clear_digest_responses_are_read() -> None:
    authorization = parsed(
        'digest USERNAME = "a\\"b" , realm="r",nonce="n",,uri=sip:x , response="AB", qop="auth",nc=A,cnonce=c,'
    )
    assert (authorization.username, authorization.uri, authorization.response) == ('a"b', "sip:x", "ab")
    assert (authorization.qop, authorization.nc, authorization.algorithm) == ("auth", 10, "MD5")


def test_the_strongest_response_for_our_realm_is_found() -> None:
    line = 'Digest username="a", realm="{}", nonce="n", uri="u", response="x", algorithm={}'
    request = SipRequest(
        "REGISTER",
        TARGET,
        [
            ("Authorization", "Other x=y"),
            ("Authorization", line.format("ours", "MD5")),
            ("Authorization", line.format("theirs", "SHA-512-256")),
            ("Authorization", line.format("ours", "SHA-256")),
        ],
    )
    found = find_authorization(request, "ours")
    assert found is not None
    assert found.algorithm == "SHA-256"
    assert find_authorization(request, "nobody's") is None
    assert find_authorization(request, "ours", "Proxy-Authorization") is None


# --- client ------------------------------------------------------------------------------------------------------


def message() -> SipRequest:
    request = build_request(
        "MESSAGE",
        TARGET,
        from_address=NameAddr.parse("<sip:ana@corp.test>;tag=a"),
        to_address=NameAddr.parse("<sip:ben@peer.test>"),
        call_id="c",
        cseq=5,
        body=b"Hi",
        content_type="text/plain",
    )
    request.push_via(Via.parse("SIP/2.0/UDP us;branch=z9hG4bK1"))
    return request


def challenged(request: SipRequest, status: int, *values: str) -> SipResponse:
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    return build_response(request, status, headers=[(name, value) for value in values])


@pytest.mark.parametrize(("status", "field"), [(401, "Authorization"), (407, "Proxy-Authorization")])
def test_a_challenge_is_answered_with_the_next_cseq_and_without_via(status: int, field: str) -> None:
    request = message()
    response = challenged(request, status, "Bearer x", "Digest broken", str(Challenge("peer.test", "n", "SHA-256")))
    retry = answer_challenge(request, response, username="trunk", password="pw", cnonce="c")
    assert retry is not None
    assert (retry.cseq.number, retry.call_id, retry.body, retry.vias) == (6, "c", b"Hi", [])
    authorization = find_authorization(retry, "peer.test", field)
    assert authorization is not None
    assert check_credentials(authorization, "MESSAGE", {"SHA-256": ha1("trunk", "peer.test", "pw")})
    assert request.cseq.number == 5


def test_a_second_refusal_is_final_unless_the_nonce_was_stale() -> None:
    request = message()
    first = answer_challenge(
        request, challenged(request, 401, str(Challenge("r", "n1"))), username="u", password="p", cnonce="c"
    )
    assert first is not None
    refused = challenged(first, 401, str(Challenge("r", "n2")))
    assert answer_challenge(first, refused, username="u", password="p", cnonce="c") is None
    stale = challenged(first, 401, str(Challenge("r", "n2", is_stale=True)))
    second = answer_challenge(first, stale, username="u", password="p", cnonce="c")
    assert second is not None
    assert [parsed(value).nonce for value in second.headers.get_all("Authorization")] == ["n2"]


def test_credentials_for_another_realm_are_kept_beside_the_new_ones() -> None:
    request = message()
    first = answer_challenge(
        request, challenged(request, 407, str(Challenge("r1", "n"))), username="u", password="p", cnonce="c"
    )
    assert first is not None
    second = answer_challenge(
        first, challenged(first, 407, str(Challenge("r2", "n"))), username="u", password="p", cnonce="c"
    )
    assert second is not None
    assert [parsed(value).realm for value in second.headers.get_all("Proxy-Authorization")] == ["r1", "r2"]


def test_challenges_we_cannot_answer_are_given_up() -> None:
    request = message()
    for response in (
        build_response(request, 401),
        build_response(request, 403),
        challenged(request, 401, 'Digest realm="r", nonce="n", algorithm=ROT13'),
        challenged(request, 401, 'Digest realm="r", nonce="n", qop="best"'),
    ):
        assert answer_challenge(request, response, username="u", password="p", cnonce="c") is None
    with pytest.raises(ValueError, match="ROT13"):
        build_authorization(Challenge("r", "n", "ROT13"), username="", password="", method="", uri="", cnonce="")


def test_the_topmost_challenge_we_know_is_chosen() -> None:
    values = [str(Challenge("r", "n", algorithm)) for algorithm in ("ROT13", "MD5", "SHA-256")]
    chosen = choose_challenge(values)
    assert chosen is not None
    assert chosen.algorithm == "MD5"
    chosen = choose_challenge(values, ["SHA-256"])
    assert chosen is not None
    assert chosen.algorithm == "SHA-256"


# --- nonces ------------------------------------------------------------------------------------------------------


def source(**settings: int) -> NonceSource:
    counter = iter(range(10**9))
    return NonceSource(
        b"0123456789abcdef",
        300,
        random_octets=lambda size: next(counter).to_bytes(size, "big"),
        **settings,
    )


def test_a_nonce_is_good_until_it_expires() -> None:
    nonces = source()
    nonce = nonces.make(1000.0)
    assert nonces.check(nonce, 1, 1000.0) == "ok"
    assert nonces.check(nonce, 2, 1300.0) == "ok"
    assert nonces.check(nonce, 3, 1300.1) == "stale"
    assert nonces.check(nonces.make(1000.0), 1, 900.0) == "stale"


def test_nonces_of_other_sources_bindings_and_shapes_are_bad() -> None:
    nonces = source()
    nonce = nonces.make(1.0, "corp.test")
    assert nonces.verify(nonce, 1.0, "corp.test") == "ok"
    assert nonces.verify(nonce, 1.0, "other.test") == "bad"
    assert NonceSource(b"another secret..").verify(nonce, 1.0, "corp.test") == "bad"
    for wrong in ("", "x", nonce + "=", nonce + "A", nonce[:-1], " " + nonce, "é" * 30, nonce * 3, "!" + nonce[1:]):
        assert nonces.check(wrong, 1, 1.0, "corp.test") == "bad"


def test_nonces_of_the_same_moment_differ() -> None:
    nonces = NonceSource(b"0123456789abcdef")
    assert len({nonces.make(5.0) for _ in range(100)}) == 100


def test_a_nonce_count_is_used_once_in_any_order_within_the_window() -> None:
    nonces = source()
    nonce = nonces.make(0.0)
    for count in (1, 3, 2, 70, 65):
        assert nonces.check(nonce, count, 0.0) == "ok"
    for count in (1, 2, 3, 65, 70, 6):
        assert nonces.check(nonce, count, 0.0) == "replayed"
    assert nonces.check(nonce, 7, 0.0) == "ok"


@given(st.lists(st.integers(1, 200), max_size=80))
def test_no_nonce_count_is_ever_accepted_twice(counts: list[int]) -> None:
    nonces = source()
    nonce = nonces.make(0.0)
    accepted = [count for count in counts if nonces.check(nonce, count, 0.0) == "ok"]
    assert len(accepted) == len(set(accepted))
    highest = 0
    for count in counts:
        # A count above all before it is always good.
        assert count <= highest or count in accepted
        highest = max(highest, count)


def test_a_nonce_without_count_and_in_strict_mode_is_good_once() -> None:
    nonces = source()
    legacy, strict = nonces.make(0.0), nonces.make(0.0)
    assert nonces.check(legacy, 0, 0.0) == "ok"
    assert nonces.check(legacy, 0, 0.0) == "replayed"
    assert nonces.check(legacy, 1, 0.0) == "replayed"
    assert nonces.check(strict, 1, 0.0, is_single_use=True) == "ok"
    assert nonces.check(strict, 2, 0.0, is_single_use=True) == "replayed"


def test_the_replay_table_is_bounded_and_never_forgets_into_a_replay() -> None:
    nonces = source(maximum_in_use=3)
    made = [nonces.make(float(second)) for second in range(5)]
    assert [nonces.check(nonce, 1, 5.0) for nonce in made] == ["ok"] * 5
    assert [nonces.check(nonce, 1, 5.0) for nonce in made] == ["stale", "stale", "replayed", "replayed", "replayed"]
    assert nonces.check(nonces.make(6.0), 1, 6.0) == "ok"
