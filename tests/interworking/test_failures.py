"""Every failure has words in both realms (RFC 7247 section 7)."""

from __future__ import annotations

from xml.etree.ElementTree import Element, fromstring

import pytest

from isthmus.errors import AddressError, PayloadError, SipParseError
from isthmus.interworking.failures import (
    CONDITION_BY_STATUS,
    STATUS_BY_CONDITION,
    bounce,
    condition_for_status,
    contact_for_failure,
    error_type_for_status,
    failure_from_peer_error,
    failure_from_sip,
    failure_from_stanza_error,
    failure_to_sip,
    failure_to_stanza_error,
)
from isthmus.model import Failure, Origin

STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
# RFC 6120 section 8.3.3, all of them.
CONDITIONS = [
    "bad-request",
    "conflict",
    "feature-not-implemented",
    "forbidden",
    "gone",
    "internal-server-error",
    "item-not-found",
    "jid-malformed",
    "not-acceptable",
    "not-allowed",
    "not-authorized",
    "policy-violation",
    "recipient-unavailable",
    "redirect",
    "registration-required",
    "remote-server-not-found",
    "remote-server-timeout",
    "resource-constraint",
    "service-unavailable",
    "subscription-required",
    "undefined-condition",
    "unexpected-request",
]
METHODS = ["MESSAGE", "SUBSCRIBE", "NOTIFY", "REFER", "INFO", "INVITE"]


def error(condition: str, text: str = "", content: str = "", kind: str = "cancel") -> Element:
    said = f"<text xmlns='{STANZAS}'>{text}</text>" if text else ""
    return fromstring(f"<error type='{kind}'><{condition} xmlns='{STANZAS}'>{content}</{condition}>{said}</error>")


@pytest.mark.parametrize("status", range(300, 700))
def test_every_sip_status_has_a_condition_and_a_way_back(status: int) -> None:
    failure = failure_from_sip(status, "Because")
    assert failure.condition in CONDITIONS
    written = fromstring(failure_to_stanza_error(failure))
    assert written[0].tag == f"{{{STANZAS}}}{failure.condition}"
    assert written.get("type") in {"auth", "cancel", "modify", "wait"}
    for method in METHODS:
        for is_only_target in (False, True):
            back, reason = failure_to_sip(failure, method, is_only_target=is_only_target)
            assert 300 <= back <= 699
            assert back not in (401, 407, 503)
            assert back != 408 or method == "INVITE"
            assert back < 600 or is_only_target
            assert reason == "Because"


@pytest.mark.parametrize("is_full_jid", [True, False])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_has_a_sip_status_and_a_way_back(condition: str, is_full_jid: bool) -> None:
    failure = failure_from_stanza_error(error(condition, "Because"), is_full_jid)
    assert failure.condition == condition
    assert failure.text == "Because"
    for method in METHODS:
        status, reason = failure_to_sip(failure, method)
        assert 400 <= status < 600
        assert status not in (401, 407, 503)
        assert status != 408 or method == "INVITE"
        assert reason == "Because"
    assert f"<{condition} " in failure_to_stanza_error(failure)


def test_the_tables_hold_every_condition_and_only_known_ones() -> None:
    assert sorted(STATUS_BY_CONDITION) == sorted(CONDITIONS)
    assert set(CONDITION_BY_STATUS.values()) <= set(CONDITIONS)


@pytest.mark.parametrize(
    ("status", "condition"),
    [(302, "redirect"), (399, "redirect"), (410, "gone"), (403, "forbidden"), (404, "item-not-found"),
     (407, "registration-required"), (415, "not-acceptable"), (423, "resource-constraint"), (499, "bad-request"),
     (480, "recipient-unavailable"), (486, "recipient-unavailable"), (491, "unexpected-request"),
     (502, "remote-server-not-found"), (504, "remote-server-timeout"), (513, "policy-violation"),
     (599, "internal-server-error"), (603, "recipient-unavailable"), (699, "recipient-unavailable")],
)  # fmt: skip
def test_sip_statuses_map_as_the_rfc_says(status: int, condition: str) -> None:
    assert condition_for_status(status) == condition


@pytest.mark.parametrize(
    ("condition", "is_full_jid", "status"),
    [("feature-not-implemented", True, 405), ("feature-not-implemented", False, 501), ("item-not-found", False, 404),
     ("recipient-unavailable", False, 480), ("service-unavailable", True, 403), ("forbidden", False, 403),
     ("not-authorized", True, 403), ("registration-required", True, 403), ("remote-server-timeout", False, 504),
     ("resource-constraint", True, 500), ("redirect", True, 480), ("gone", True, 410), ("not-acceptable", False, 406)],
)  # fmt: skip
def test_conditions_map_as_the_rfc_says_but_for_our_deviations(condition: str, is_full_jid: bool, status: int) -> None:
    failure = failure_from_stanza_error(error(condition), is_full_jid)
    assert failure_to_sip(failure, "MESSAGE")[0] == status


def test_the_only_target_may_be_told_a_global_failure() -> None:
    failure = failure_from_stanza_error(error("item-not-found"), is_full_jid=False)
    assert failure_to_sip(failure, "MESSAGE", is_only_target=True)[0] == 604


def test_a_bounced_call_finds_nobody() -> None:
    for condition in ("service-unavailable", "recipient-unavailable"):
        failure = failure_from_stanza_error(error(condition), is_full_jid=True, is_call=True)
        assert failure_to_sip(failure, "INVITE")[0] == 480


def test_a_timeout_may_be_408_for_invite_only() -> None:
    failure = failure_from_stanza_error(error("remote-server-timeout"))
    assert failure.origin is Origin.TIMEOUT
    assert failure_to_sip(failure, "INVITE")[0] == 408
    assert failure_to_sip(failure, "SUBSCRIBE")[0] == 504


def test_a_new_address_travels_both_ways() -> None:
    failure = failure_from_stanza_error(error("gone", content="xmpp:ben@new.test"))
    assert failure_to_sip(failure, "MESSAGE")[0] == 301
    assert contact_for_failure(failure) == "sip:ben@new.test"
    failure = failure_from_sip(301, contact="sip:ana@new.test")
    assert "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>xmpp:ana@new.test</gone>" in failure_to_stanza_error(
        failure
    )
    failure = failure_from_sip(302, contact="sip:ana@new.test")
    assert failure_to_sip(failure)[0] == 302


def test_a_move_without_an_address_does_not_claim_to_know_one() -> None:
    assert failure_from_sip(301).condition == "item-not-found"
    assert failure_to_sip(failure_from_sip(302))[0] == 480


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "auth"), (407, "auth"), (408, "wait"), (480, "wait"), (486, "wait"), (503, "wait"), (400, "modify"),
     (415, "modify"), (488, "modify"), (403, "cancel"), (404, "cancel"), (603, "cancel")],
)  # fmt: skip
def test_the_type_of_an_error_follows_from_the_status(status: int, kind: str) -> None:
    assert error_type_for_status(status) == kind


def test_an_error_without_content_is_still_a_failure() -> None:
    for broken in (None, fromstring("<error/>"), fromstring("<error><strange xmlns='x'/></error>")):
        failure = failure_from_stanza_error(broken)
        assert failure.condition == "undefined-condition"
        assert failure.text


def test_a_wait_error_is_worth_another_try() -> None:
    assert failure_from_stanza_error(error("resource-constraint", kind="wait")).is_temporary
    assert not failure_from_stanza_error(error("item-not-found")).is_temporary


def test_a_bounce_swaps_addresses_and_keeps_the_id() -> None:
    stanza = fromstring(
        "<message xmlns='jabber:component:accept' id='m&lt;1' from='ben@people.test/a' to='x@corp.test'/>"
    )
    answer = fromstring(bounce(stanza, Failure(Origin.ADDRESS, 404, "item-not-found", "Nobody <here>")))
    assert (answer.get("from"), answer.get("to")) == ("x@corp.test", "ben@people.test/a")
    assert (answer.get("id"), answer.get("type")) == ("m<1", "error")


@pytest.mark.parametrize(
    "stanza",
    ["<message type='error' from='a@b' to='c@d'/>", "<presence from='a@b' to='c@d'/>",
     "<presence type='subscribe' from='a@b' to='c@d'/>", "<iq type='result' from='a@b' to='c@d'/>", "<message/>"],
)  # fmt: skip
def test_errors_and_presence_are_never_bounced(stanza: str) -> None:
    assert bounce(fromstring(stanza), failure_from_sip(404)) == ""


def test_the_text_of_a_peer_stays_one_short_line() -> None:
    failure = failure_from_sip(480, "Not\r\nhere:  " + "x" * 1000)
    assert "\n" not in failure.text
    assert len(failure.text) <= 300


def test_our_own_refusals_say_whether_address_or_format_was_wrong() -> None:
    assert failure_from_peer_error(AddressError("no")).origin is Origin.ADDRESS
    assert failure_from_peer_error(PayloadError("no")).origin is Origin.FORMAT
    assert failure_from_peer_error(SipParseError("no", status=415)).status == 415
