"""Every IQ gets exactly one answer, and strangers learn nothing from it."""

from __future__ import annotations

import asyncio
from xml.etree.ElementTree import Element, SubElement, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import StoreError
from isthmus.model import Address, Modality
from isthmus.net import xmpp_queries
from isthmus.net.xmpp_queries import QueryResponder
from isthmus.ports import IqRefusal, Photo, Profile
from isthmus.xmpp import capabilities as caps
from tests.support.clock import FakeClock
from tests.support.xmpp import stanza

NS = "{jabber:component:accept}"
BEN = "ben@people.test/phone"
ANA = "ana@corp.test"
NO_CALLS: frozenset[Modality] = frozenset()
AUDIO = frozenset({Modality.AUDIO})
VIDEO = frozenset({Modality.AUDIO, Modality.VIDEO})


class Profiles:
    """Implements ports.Profiles: ana is known to ben and to nobody else."""

    def __init__(
        self,
        *,
        failure: Exception | None = None,
        hangs: bool = False,
        calls: frozenset[Modality] = frozenset(),
        photo: Photo | None = None,
    ) -> None:
        self.photos_fetched = 0
        self._photo = photo
        self._calls = calls
        self._failure = failure
        self._hangs = hangs

    async def profile(self, user: Address, asked_by: Address) -> Profile | None:
        if self._failure is not None:
            raise self._failure
        if self._hangs:
            await asyncio.Event().wait()
        if (str(user), str(asked_by)) == (ANA, "ben@people.test"):
            return Profile(display_name="Ana <3 & Co", photo=self._photo_of_ana, idle_seconds=7, calls=self._calls)
        return None

    async def _photo_of_ana(self) -> Photo | None:
        self.photos_fetched += 1
        return self._photo


def responder(profiles: Profiles | None = None, clock: FakeClock | None = None) -> QueryResponder:
    return QueryResponder("corp.test", profiles or Profiles(), clock=clock or FakeClock(), version="0.1.0")


def ask(iq: str | Element, by: QueryResponder | None = None) -> Element | None:
    """The answer to one IQ, parsed; None when there is none."""
    element = stanza(iq) if isinstance(iq, str) else iq
    answer = (by or responder()).answer(element)
    if answer is None:
        return None
    return stanza(answer if isinstance(answer, str) else asyncio.run(_awaited(answer)))


async def _awaited(answer: object) -> str:
    return await answer  # type: ignore[no-any-return, misc]  # a coroutine, as the test before it has seen


def get(payload: str, *, to: str = ANA, sender: str = BEN) -> str:
    return f"<iq type='get' id='i1' from='{sender}' to='{to}'>{payload}</iq>"


def answered(payload: str, *, to: str = ANA, sender: str = BEN, by: QueryResponder | None = None) -> Element:
    answer = ask(get(payload, to=to, sender=sender), by)
    assert answer is not None, "the IQ was not answered"
    assert (answer.get("id"), answer.get("from"), answer.get("to")) == ("i1", to, sender)
    return answer


def condition(answer: Element) -> str:
    """The error condition of an answer, "" for a result."""
    if answer.get("type") != "error":
        assert answer.get("type") == "result"
        return ""
    return str(answer.find(f"{NS}error")[0].tag).removeprefix("{urn:ietf:params:xml:ns:xmpp-stanzas}")  # type: ignore[index]  # an error stanza has one


INFO = f"<query xmlns='{caps.DISCO_INFO}'/>"
ITEMS = f"<query xmlns='{caps.DISCO_ITEMS}'/>"
VCARD = "<vCard xmlns='vcard-temp'/>"
PING = "<ping xmlns='urn:xmpp:ping'/>"
LAST = "<query xmlns='jabber:iq:last'/>"
VERSION = "<query xmlns='jabber:iq:version'/>"
TIME = "<time xmlns='urn:xmpp:time'/>"
GATEWAY = "<query xmlns='jabber:iq:gateway'/>"
REGISTER = "<query xmlns='jabber:iq:register'/>"


def identities(answer: Element) -> set[tuple[str | None, str | None]]:
    return {(i.get("category"), i.get("type")) for i in answer.iter(f"{{{caps.DISCO_INFO}}}identity")}


def features(answer: Element) -> set[str | None]:
    return {feature.get("var") for feature in answer.iter(f"{{{caps.DISCO_INFO}}}feature")}


class TestTheDomain:
    def test_it_is_a_sip_gateway(self) -> None:
        answer = answered(INFO, to="corp.test")
        assert identities(answer) == {("gateway", "sip")}
        assert features(answer) == set(caps.GATEWAY_FEATURES)

    def test_it_lists_no_users(self) -> None:
        answer = answered(ITEMS, to="corp.test")
        assert condition(answer) == ""
        assert not list(answer[0])

    def test_it_answers_a_ping(self) -> None:
        answer = answered(PING, to="corp.test")
        assert (condition(answer), len(answer)) == ("", 0)

    async def test_a_ping_is_answered_when_everything_before_it_is_kept(self) -> None:
        kept = asyncio.Event()

        async def when_kept() -> None:
            await kept.wait()

        by = QueryResponder("corp.test", Profiles(), clock=FakeClock(), version="0", kept=when_kept)
        answering = by.answer(stanza(get(PING, to="corp.test")))
        assert not isinstance(answering, str)
        assert answering is not None
        task = asyncio.create_task(answering)
        await asyncio.sleep(0)
        assert not task.done()
        kept.set()
        assert condition(stanza(await task)) == ""

    async def test_a_ping_is_answered_also_when_the_store_refuses(self) -> None:
        async def refused() -> None:
            raise StoreError("the disk is full")

        by = QueryResponder("corp.test", Profiles(), clock=FakeClock(), version="0", kept=refused)
        answering = by.answer(stanza(get(PING, to="corp.test")))
        assert not isinstance(answering, str)
        assert answering is not None
        assert condition(stanza(await answering)) == ""

    def test_it_tells_version_uptime_and_time(self) -> None:
        clock = FakeClock(wall=1_000_000_000.0)
        by = responder(clock=clock)
        clock.advance(60)
        assert answered(VERSION, to="corp.test", by=by).findtext(".//{jabber:iq:version}name") == "Isthmus"
        assert answered(LAST, to="corp.test", by=by)[0].get("seconds") == "60"
        assert answered(TIME, to="corp.test", by=by).findtext(".//{urn:xmpp:time}utc") == "2001-09-09T01:47:40Z"

    @pytest.mark.parametrize("payload", [GATEWAY, REGISTER, "<query xmlns='jabber:iq:roster'/>"])
    def test_it_needs_no_registration(self, payload: str) -> None:
        """XEP-0100 registration is for account gateways."""
        assert condition(answered(payload, to="corp.test")) == "service-unavailable"


class TestAUser:
    def test_the_bare_jid_is_an_account(self) -> None:
        answer = answered(INFO)
        assert identities(answer) == {("account", "registered")}
        assert "vcard-temp" in features(answer)

    def test_the_full_jid_is_a_phone_without_calls(self) -> None:
        answer = answered(INFO, to=f"{ANA}/isthmus")
        assert identities(answer) == {("client", "phone")}
        assert features(answer) == set(caps.DEVICE_FEATURES)
        assert {"urn:xmpp:receipts", "http://jabber.org/protocol/chatstates", "urn:xmpp:chat-markers:0"} <= features(
            answer
        )
        assert not [feature for feature in features(answer) if feature and "jingle" in feature]

    def test_items_are_an_empty_list_so_that_callers_ring_the_bare_jid(self) -> None:
        """Edge case 32: no device list to depend on."""
        assert not list(answered(ITEMS)[0])

    def test_the_vcard_has_name_and_photo_escaped(self) -> None:
        answer = answered(VCARD, by=responder(Profiles(photo=Photo(b"png", "image/png", "0"))))
        assert answer.findtext(".//{vcard-temp}FN") == "Ana <3 & Co"
        assert answer.findtext(".//{vcard-temp}PHOTO/{vcard-temp}TYPE") == "image/png"
        assert answer.findtext(".//{vcard-temp}PHOTO/{vcard-temp}BINVAL") == "cG5n"

    def test_a_vcard_without_photo_says_nothing_of_one(self) -> None:
        assert answered(VCARD).find(".//{vcard-temp}PHOTO") is None

    @pytest.mark.parametrize(("payload", "times"), [(VCARD, 1), (PING, 0), (LAST, 0), (INFO, 0)])
    def test_the_photo_is_fetched_for_a_vcard_alone(self, payload: str, times: int) -> None:
        profiles = Profiles()
        answered(payload, by=responder(profiles))
        assert profiles.photos_fetched == times

    def test_idle_time_is_told(self) -> None:
        assert answered(LAST)[0].get("seconds") == "7"

    @pytest.mark.parametrize("to", [ANA, f"{ANA}/isthmus"])
    def test_a_ping_is_answered(self, to: str) -> None:
        assert condition(answered(PING, to=to)) == ""

    @pytest.mark.parametrize(("calls", "with_audio", "with_video"), [(AUDIO, True, False), (VIDEO, True, True)])
    def test_calls_are_offered_without_proposals_when_they_may_be_placed(
        self, calls: frozenset[Modality], with_audio: bool, with_video: bool
    ) -> None:
        """A client that finds XEP-0353 here would propose without saying what it can do."""
        told = features(answered(INFO, to=f"{ANA}/isthmus", by=responder(Profiles(calls=calls))))
        assert ("urn:xmpp:jingle:apps:rtp:audio" in told) is with_audio
        assert ("urn:xmpp:jingle:apps:rtp:video" in told) is with_video
        assert told >= {"urn:xmpp:jingle:1", "urn:xmpp:jingle:transports:ice-udp:1", "urn:xmpp:jingle:apps:dtls:0"}
        assert "urn:xmpp:jingle-message:0" not in told

    @pytest.mark.parametrize("calls", [NO_CALLS, AUDIO, VIDEO])
    def test_the_caps_node_is_repeated_and_hashes_to_what_presence_said(self, calls: frozenset[Modality]) -> None:
        element = fromstring(caps.capabilities_element(calls))
        node = f"{element.get('node')}#{element.get('ver')}"
        answer = answered(f"<query xmlns='{caps.DISCO_INFO}' node='{node}'/>", to=f"{ANA}/isthmus")
        assert answer[0].get("node") == node
        got = [
            caps.Identity(str(i.get("category")), str(i.get("type")), i.get("name", ""))
            for i in answer[0]
            if i.get("category")
        ]
        assert caps.verification_string(got, [str(f) for f in features(answer)]) == element.get("ver")

    def test_an_unknown_node_is_not_found(self) -> None:
        assert condition(answered(f"<query xmlns='{caps.DISCO_INFO}' node='x'/>")) == "item-not-found"

    @pytest.mark.parametrize("payload", [INFO, ITEMS, VCARD, PING, LAST, VERSION, "<unheard-of xmlns='of:it'/>"])
    @pytest.mark.parametrize("resource", ["", "/isthmus"])
    def test_a_stranger_cannot_tell_a_user_from_nobody(self, payload: str, resource: str) -> None:
        stranger = "eve@elsewhere.test/x"
        known = answered(payload, to=ANA + resource, sender=stranger)
        unknown = answered(payload, to="nobody@corp.test" + resource, sender=stranger)
        assert condition(known) == condition(unknown) == "service-unavailable"

    def test_a_set_of_a_vcard_is_refused(self) -> None:
        answer = ask(f"<iq type='set' id='i1' from='{BEN}' to='{ANA}'>{VCARD}</iq>")
        assert answer is not None
        assert condition(answer) == "service-unavailable"


class Doorbell:
    """Implements ports.JingleSink."""

    def __init__(self, refusal: IqRefusal | None = None) -> None:
        self.rung: list[Element] = []
        self._refusal = refusal

    def jingle_received(self, iq: Element) -> IqRefusal | None:
        self.rung.append(iq)
        return self._refusal


class TestACall:
    INITIATE = "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s1'/>"

    def ring(self, bell: Doorbell | None, kind: str = "set", to: str = f"{ANA}/isthmus") -> Element:
        by = QueryResponder("corp.test", Profiles(), clock=FakeClock(), version="0", calls=bell)
        answer = ask(f"<iq type='{kind}' id='i1' from='{BEN}' to='{to}'>{self.INITIATE}</iq>", by)
        assert answer is not None
        return answer

    def test_it_is_taken_by_whoever_takes_calls_and_acknowledged(self) -> None:
        bell = Doorbell()
        assert (condition(self.ring(bell)), len(bell.rung)) == ("", 1)

    def test_a_refusal_says_the_condition_of_jingle_as_well(self) -> None:
        own = "<unknown-session xmlns='urn:xmpp:jingle:errors:1'/>"
        answer = self.ring(Doorbell(IqRefusal("item-not-found", own)))
        assert condition(answer) == "item-not-found"
        assert answer.find(".//{urn:xmpp:jingle:errors:1}unknown-session") is not None

    def test_while_calls_are_not_offered_it_is_refused(self) -> None:
        assert condition(self.ring(None)) == "service-unavailable"

    @pytest.mark.parametrize(("kind", "to"), [("get", f"{ANA}/isthmus"), ("set", "corp.test")])
    def test_neither_a_get_nor_a_call_to_the_domain_reaches_them(self, kind: str, to: str) -> None:
        bell = Doorbell()
        assert (condition(self.ring(bell, kind, to)), bell.rung) == ("service-unavailable", [])


class TestTrouble:
    def test_a_failing_directory_is_an_internal_error(self, caplog: pytest.LogCaptureFixture) -> None:
        assert condition(answered(VCARD, by=responder(Profiles(failure=OSError("disk"))))) == "internal-server-error"
        assert "profile" in caplog.text

    def test_a_directory_that_hangs_is_a_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(xmpp_queries, "PROFILE_SECONDS", 0.01)
        assert condition(answered(VCARD, by=responder(Profiles(hangs=True)))) == "remote-server-timeout"

    @pytest.mark.parametrize("kind", ["result", "error"])
    def test_answers_are_never_answered(self, kind: str) -> None:
        assert ask(f"<iq type='{kind}' id='i1' from='{BEN}' to='{ANA}'/>") is None


ADDRESSES = st.sampled_from(
    [
        *("corp.test", "corp.test/x", ANA, f"{ANA}/isthmus", "nobody@corp.test", "a\\20b@corp.test"),
        *("\\5c20@corp.test", "\\20@corp.test", "@corp.test", "é@corp.test/ü", "a@b@corp.test", " @corp.test"),
        "x" * 1100 + "@corp.test",
    ]
)
SENDERS = st.sampled_from([BEN, "ben@people.test", "people.test", "@", "\\20@x", "eve@elsewhere.test/r"])
TAGS = st.sampled_from(
    [
        *(f"{{{namespace}}}query" for namespace in (caps.DISCO_INFO, caps.DISCO_ITEMS, caps.VERSION)),
        *("{jabber:iq:last}query", "{jabber:iq:register}query", "{jabber:iq:gateway}query", "no-namespace"),
        *("{vcard-temp}vCard", "{urn:xmpp:ping}ping", "{urn:xmpp:time}time", "{urn:xmpp:jingle:1}jingle"),
    ]
)


@given(
    kind=st.sampled_from(["get", "set", "", "subscribe", "GET"]),
    stanza_id=st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)),
    to=st.one_of(st.none(), ADDRESSES),
    sender=SENDERS,
    payloads=st.lists(
        st.tuples(TAGS, st.dictionaries(st.sampled_from(["node", "x"]), st.text(max_size=5))), max_size=3
    ),
)
def test_every_request_gets_exactly_one_wellformed_answer_to_its_sender(
    kind: str,
    stanza_id: str | None,
    to: str | None,
    sender: str,
    payloads: list[tuple[str, dict[str, str]]],
) -> None:
    iq = Element(f"{NS}iq", {"type": kind, "from": sender})
    if stanza_id is not None:
        iq.set("id", stanza_id)
    if to is not None:
        iq.set("to", to)
    for tag, attributes in payloads:
        SubElement(iq, tag, attributes)
    answer = ask(iq)
    assert answer is not None
    assert answer.tag == f"{NS}iq"
    assert answer.get("type") in ("result", "error")
    assert answer.get("to") == sender
    assert (answer.get("id"), answer.get("from")) == (stanza_id, to)
    if answer.get("type") == "error":
        assert condition(answer)


def test_the_hash_is_that_of_the_example_in_xep_0115() -> None:
    """XEP-0115 section 5.2."""
    identity = caps.Identity("client", "pc", "Exodus 0.9.1")
    example = [
        "http://jabber.org/protocol/muc",
        "http://jabber.org/protocol/disco#info",
        "http://jabber.org/protocol/disco#items",
        "http://jabber.org/protocol/caps",
    ]
    assert caps.verification_string([identity], example) == "QgayPKawpkPSDYmwT/WM94uAlu0="


@pytest.mark.parametrize("calls", [NO_CALLS, AUDIO, VIDEO])
def test_the_advertised_hash_does_not_depend_on_order(calls: frozenset[Modality]) -> None:
    ver = caps.verification_string([caps.DEVICE_IDENTITY], reversed(caps.device_features(calls)))
    assert f"'{ver}'" in caps.capabilities_element(calls)


def test_there_are_three_hashes() -> None:
    assert len(caps.FEATURES_BY_VER) == 3
