"""Which digest algorithms a client is offered, and what clients that give up are offered instead."""

from __future__ import annotations

from isthmus.ports import Flow
from isthmus.services.digest_algorithms import DigestAlgorithms
from tests.support.sip import register_request

PHONE = Flow("udp", "192.0.2.10", 5060)
OTHER = Flow("udp", "192.0.2.11", 5060)


def test_the_best_is_offered_first() -> None:
    assert DigestAlgorithms(allows_md5=True).offer(register_request("a@corp.test", ""), PHONE) == ("SHA-256", "MD5")


def test_md5_is_never_offered_when_the_operator_forbids_it() -> None:
    algorithms = DigestAlgorithms(allows_md5=False)
    for _ in range(5):
        assert algorithms.offer(register_request("a@corp.test", ""), PHONE) == ("SHA-256",)


def test_a_client_that_is_known_to_give_up_is_offered_md5_alone() -> None:
    algorithms = DigestAlgorithms(allows_md5=True)
    agent = [("User-Agent", "baresip v1.0.0 (x86_64/linux)")]
    assert algorithms.offer(register_request("a@corp.test", "", headers=agent), PHONE) == ("MD5",)
    # Its PUBLISH need not say who it is.
    assert algorithms.offer(register_request("a@corp.test", ""), PHONE) == ("MD5",)
    assert algorithms.offer(register_request("a@corp.test", ""), OTHER) == ("SHA-256", "MD5")


def test_a_client_that_never_answers_falls_back_to_md5() -> None:
    algorithms = DigestAlgorithms(allows_md5=True)
    offers = [algorithms.offer(register_request("a@corp.test", ""), PHONE) for _ in range(3)]
    assert offers == [("SHA-256", "MD5"), ("SHA-256", "MD5"), ("MD5",)]


def test_a_client_that_used_sha_256_keeps_being_offered_it() -> None:
    algorithms = DigestAlgorithms(allows_md5=True)
    for _ in range(10):
        assert algorithms.offer(register_request("a@corp.test", ""), PHONE) == ("SHA-256", "MD5")
        algorithms.answered("SHA-256", PHONE)
