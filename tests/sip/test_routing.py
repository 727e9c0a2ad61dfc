"""RFC 3263 as a plan, SRV order, hop bounds and loop detection."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import SipParseError
from isthmus.sip.headers import Via
from isthmus.sip.message import SipRequest
from isthmus.sip.routing import (
    MAXIMUM_TARGETS,
    LoopDetector,
    NaptrRecord,
    Question,
    Record,
    SrvRecord,
    Target,
    next_hop_uri,
    next_max_forwards,
    order_by_weight,
    resolution_plan,
    split_max_breadth,
)
from isthmus.sip.uri import SipUri

Zone = dict[tuple[str, str], Sequence[Record]]


class Resolution:
    """Runs a plan against a zone and notes what was asked."""

    def __init__(self, uri: str, zone: Zone | None = None, **options: object) -> None:
        self.rounds: list[tuple[Question, ...]] = []
        # The options are those of resolution_plan, of several types.
        plan = resolution_plan(SipUri.parse(uri), random=random.Random(1).random, **options)  # type: ignore[arg-type]
        self.targets: list[Target] = []
        answers: list[Sequence[Record]] | None = None
        try:
            while True:
                questions = next(plan) if answers is None else plan.send(answers)
                self.rounds.append(questions)
                answers = [(zone or {}).get((question.kind, question.name), ()) for question in questions]
        except StopIteration as stop:
            self.targets = stop.value

    @property
    def asked(self) -> list[str]:
        return [f"{question.kind} {question.name}" for questions in self.rounds for question in questions]

    @property
    def places(self) -> list[str]:
        return [f"{target.transport} {target.host}:{target.port}" for target in self.targets]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sip:ana@192.0.2.1", "udp 192.0.2.1:5060"),
        ("sip:ana@192.0.2.1:5070", "udp 192.0.2.1:5070"),
        ("sip:ana@192.0.2.1;transport=tcp", "tcp 192.0.2.1:5060"),
        ("sip:ana@192.0.2.1;transport=TLS", "tls 192.0.2.1:5061"),
        ("sips:ana@192.0.2.1", "tls 192.0.2.1:5061"),
        ("sips:ana@192.0.2.1;transport=tcp", "tls 192.0.2.1:5061"),
        ("sip:[2001:db8::1]:5080", "udp 2001:db8::1:5080"),
        ("sip:ana@corp.test;maddr=192.0.2.7", "udp 192.0.2.7:5060"),
    ],
)
def test_a_numeric_host_needs_no_dns(uri: str, expected: str) -> None:
    resolution = Resolution(uri)
    assert resolution.asked == []
    assert resolution.places == [expected]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sip:corp.test:5070", "udp 192.0.2.1:5070"),
        ("sips:corp.test:5070", "tls 192.0.2.1:5070"),
        ("sip:corp.test:5070;transport=tcp", "tcp 192.0.2.1:5070"),
    ],
)
def test_an_explicit_port_needs_only_addresses(uri: str, expected: str) -> None:
    resolution = Resolution(uri, {("A", "corp.test"): ["192.0.2.1"]})
    assert resolution.asked == ["A corp.test", "AAAA corp.test"]
    assert resolution.places == [expected]


def test_an_explicit_transport_skips_naptr() -> None:
    zone: Zone = {
        ("SRV", "_sip._tcp.corp.test"): [SrvRecord(1, 1, 5062, "one.corp.test.")],
        ("A", "one.corp.test"): ["192.0.2.1"],
    }
    resolution = Resolution("sip:corp.test;transport=tcp", zone)
    assert resolution.asked[0] == "SRV _sip._tcp.corp.test"
    assert resolution.places == ["tcp 192.0.2.1:5062"]


def test_an_explicit_transport_without_srv_falls_back_to_addresses() -> None:
    resolution = Resolution("sip:corp.test;transport=tls", {("AAAA", "corp.test"): ["2001:db8::5"]})
    assert resolution.targets == [Target("tls", "2001:db8::5", 5061, "corp.test")]


def test_naptr_leads_to_srv_leads_to_addresses_in_order() -> None:
    """The example of RFC 3263 section 4.1."""
    zone: Zone = {
        ("NAPTR", "example.test"): [
            NaptrRecord(100, 50, "s", "SIP+D2U", "_sip._udp.example.test."),
            NaptrRecord(90, 50, "S", "SIP+D2T", "_sip._tcp.example.test."),
            NaptrRecord(50, 50, "s", "SIPS+D2T", "_sips._tcp.example.test."),
            NaptrRecord(10, 50, "u", "E2U+sip", ""),
            NaptrRecord(10, 50, "s", "SIP+D2S", "_sip._sctp.example.test."),
        ],
        ("SRV", "_sips._tcp.example.test"): [SrvRecord(0, 1, 5061, "s1.test"), SrvRecord(1, 1, 5061, "s2.test")],
        ("SRV", "_sip._tcp.example.test"): [SrvRecord(0, 1, 5060, "s1.test")],
        ("SRV", "_sip._udp.example.test"): [SrvRecord(0, 1, 5060, "s1.test")],
        ("A", "s1.test"): ["192.0.2.1", "192.0.2.2"],
        ("AAAA", "s2.test"): ["2001:db8::2"],
    }
    resolution = Resolution("sip:bob@example.test", zone)
    assert resolution.places == [
        "tls 192.0.2.1:5061",
        "tls 192.0.2.2:5061",
        "tls 2001:db8::2:5061",
        "tcp 192.0.2.1:5060",
        "tcp 192.0.2.2:5060",
        "udp 192.0.2.1:5060",
        "udp 192.0.2.2:5060",
    ]
    assert [target.tls_name for target in resolution.targets[:4]] == ["example.test"] * 3 + [""]
    assert len(resolution.rounds) == 3
    assert len(set(resolution.asked)) == len(resolution.asked)


def test_without_naptr_every_usable_service_is_asked_for_at_once() -> None:
    zone: Zone = {
        ("SRV", "_sip._udp.corp.test"): [SrvRecord(0, 0, 5060, "a.test")],
        ("SRV", "_sip._tcp.corp.test"): [SrvRecord(0, 0, 5060, "a.test")],
        ("A", "a.test"): ["192.0.2.1"],
    }
    resolution = Resolution("sip:corp.test", zone)
    assert resolution.rounds[1] == (
        Question("SRV", "_sips._tcp.corp.test"),
        Question("SRV", "_sip._tcp.corp.test"),
        Question("SRV", "_sip._udp.corp.test"),
    )
    assert resolution.places == ["tcp 192.0.2.1:5060", "udp 192.0.2.1:5060"]
    assert Resolution("sip:corp.test", zone, transports=("udp",)).places == ["udp 192.0.2.1:5060"]


@pytest.mark.parametrize(
    ("uri", "place"), [("sip:corp.test", "udp 192.0.2.1:5060"), ("sips:corp.test", "tls 192.0.2.1:5061")]
)
def test_without_any_record_the_domain_itself_is_tried(uri: str, place: str) -> None:
    assert Resolution(uri, {("A", "corp.test"): ["192.0.2.1"]}).places == [place]


def test_a_secure_uri_never_leads_to_a_clear_transport() -> None:
    zone: Zone = {
        ("NAPTR", "corp.test"): [
            NaptrRecord(1, 1, "s", "SIP+D2U", "_sip._udp.corp.test"),
            NaptrRecord(2, 1, "s", "SIP+D2T", "_sip._tcp.corp.test"),
            NaptrRecord(3, 1, "s", "SIPS+D2T", "_sips._tcp.corp.test"),
        ],
        ("SRV", "_sip._udp.corp.test"): [SrvRecord(0, 0, 5060, "a.test")],
        ("SRV", "_sip._tcp.corp.test"): [SrvRecord(0, 0, 5060, "a.test")],
        ("SRV", "_sips._tcp.corp.test"): [SrvRecord(0, 0, 5061, "a.test")],
        ("A", "a.test"): ["192.0.2.1"],
    }
    assert Resolution("sips:corp.test", zone).places == ["tls 192.0.2.1:5061"]
    assert Resolution("sips:corp.test", zone, transports=("tcp", "udp")).places == []
    assert Resolution("sips:192.0.2.1;transport=udp").places == []


@pytest.mark.parametrize("uri", ["sip:192.0.2.1;transport=sctp", "sip:192.0.2.1;transport=ws"])
def test_a_transport_we_cannot_use_leads_nowhere(uri: str) -> None:
    assert Resolution(uri).targets == []


def test_a_service_that_is_decidedly_not_offered_is_not_tried() -> None:
    """RFC 2782: the target "."."""
    zone: Zone = {("SRV", "_sip._udp.corp.test"): [SrvRecord(0, 0, 0, ".")], ("A", "corp.test"): ["192.0.2.1"]}
    assert Resolution("sip:corp.test;transport=udp", zone).targets == []


def test_the_certificate_must_name_the_domain_and_not_the_srv_target() -> None:
    """Edge case 44; RFC 5922 section 4."""
    zone: Zone = {
        ("SRV", "_sips._tcp.corp.test"): [SrvRecord(0, 0, 5061, "sbc.provider.test")],
        ("A", "sbc.provider.test"): ["192.0.2.1"],
    }
    (target,) = Resolution("sips:corp.test", zone).targets
    assert target.tls_name == "corp.test"
    (target,) = Resolution("sips:corp.test;maddr=192.0.2.1").targets
    assert target.tls_name == "corp.test"


def test_a_domain_cannot_make_us_ask_or_try_without_end() -> None:
    many: list[Record] = [SrvRecord(0, n, 5060 + n, f"h{n}.test") for n in range(500)]
    naptr: list[Record] = [NaptrRecord(1, n, "s", "SIP+D2U", f"_sip._udp.s{n}.test") for n in range(500)]
    zone: Zone = {("NAPTR", "corp.test"): naptr}
    for number in range(500):
        zone["SRV", f"_sip._udp.s{number}.test"] = many
        zone["A", f"h{number}.test"] = [f"192.0.{number % 256}.{n}" for n in range(250)]
    resolution = Resolution("sip:corp.test", zone)
    assert len(resolution.targets) == MAXIMUM_TARGETS
    assert len(resolution.asked) < 60


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100)), max_size=12), st.integers())
def test_srv_order_keeps_every_record_and_the_priorities(records: list[tuple[int, int]], seed: int) -> None:
    given_records = [SrvRecord(p, w, 5060, f"h{i}") for i, (p, w) in enumerate(records)]
    ordered = order_by_weight(given_records, random.Random(seed).random)
    assert sorted(ordered) == sorted(given_records)
    assert [record.priority for record in ordered] == sorted(record.priority for record in given_records)


def test_srv_weights_share_the_load() -> None:
    source = random.Random(7)
    records = [
        SrvRecord(1, 60, 1, "large"),
        SrvRecord(1, 30, 1, "small"),
        SrvRecord(1, 10, 1, "tiny"),
        SrvRecord(1, 0, 1, "zero"),
    ]
    first = Counter(order_by_weight(records, source.random)[0].target for _ in range(4000))
    assert 2200 < first["large"] < 2600
    assert 1000 < first["small"] < 1400
    assert 300 < first["tiny"] < 500
    assert first["zero"] == 0
    even = [SrvRecord(1, 0, 1, name) for name in "abc"]
    assert set(Counter(order_by_weight(even, source.random)[0].target for _ in range(300))) == set("abc")


# --- the next hop and its bounds ----------------------------------------------------------------------------------


def make_request(uri: str = "sip:ben@people.test", routes: Sequence[str] = (), vias: Sequence[str] = ()) -> SipRequest:
    headers = [("Via", via) for via in vias] + [("Route", route) for route in routes]
    return SipRequest("INVITE", SipUri.parse(uri), headers)


def test_the_topmost_route_is_resolved_before_the_request_uri() -> None:
    assert next_hop_uri(make_request()).host == "people.test"
    assert next_hop_uri(make_request(routes=["<sip:p1.test;lr>", "<sip:p2.test;lr>"])).host == "p1.test"
    with pytest.raises(SipParseError) as caught:
        next_hop_uri(make_request(routes=["<tel:+49301>"]))
    assert caught.value.status == 416


@pytest.mark.parametrize(("received", "sent"), [(None, 70), (70, 69), (1, 0), (255, 254), (300, 254)])
def test_max_forwards_counts_down_and_is_added(received: int | None, sent: int) -> None:
    assert next_max_forwards(received) == sent


def test_a_request_without_hops_left_is_refused_483() -> None:
    with pytest.raises(SipParseError) as caught:
        next_max_forwards(0)
    assert caught.value.status == 483


@given(st.none() | st.integers(0, 300), st.integers(1, 80))
def test_max_breadth_is_shared_and_never_grows(received: int | None, branches: int) -> None:
    """RFC 5393 section 5.3."""
    allowed = min(60 if received is None else received, 60)
    if allowed < branches:
        with pytest.raises(SipParseError) as caught:
            split_max_breadth(received, branches)
        assert caught.value.status == 440
    else:
        shares = split_max_breadth(received, branches)
        assert sum(shares) == allowed
        assert len(shares) == branches
        assert min(shares) >= 1


def test_a_loop_is_told_from_a_spiral() -> None:
    detector = LoopDetector(b"secret")
    first = make_request()
    branch = detector.branch("u1", first)
    assert branch.startswith("z9hG4bKu1.")
    passed = f"SIP/2.0/UDP gw.test;branch={branch}"

    def is_ours(via: Via) -> bool:
        return via.host == "gw.test"

    assert detector.is_looping(make_request(vias=["SIP/2.0/UDP other.test;branch=z9hG4bKx", passed]), is_ours)
    assert not detector.is_looping(make_request("sip:carl@people.test", vias=[passed]), is_ours), "a spiral is legal"
    assert not detector.is_looping(make_request(routes=["<sip:p.test;lr>"], vias=[passed]), is_ours)
    assert not detector.is_looping(make_request(vias=[passed]), lambda via: False)
    assert not detector.is_looping(first, is_ours)
    assert detector.branch("u1", first) != detector.branch("u2", first)


def test_a_cancel_has_the_branch_hash_of_its_invite() -> None:
    detector = LoopDetector(b"secret")
    cancel = SipRequest("CANCEL", SipUri.parse("sip:ben@people.test"))
    assert detector.branch("u", cancel) == detector.branch("u", make_request())
