"""What rtpengine 10.5 was measured to do, held against the real one: where it changes, our table must."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from isthmus.errors import RelayError
from isthmus.interworking.relay_commands import negotiation, query, trickled
from isthmus.metrics import Metrics
from isthmus.model import MediaForm
from isthmus.net.rtpengine import RtpengineRelays
from isthmus.net.rtpengine_ng import NgClient, NgConversation
from isthmus.net.rtpengine_session import RtpengineSession
from isthmus.sdp.offer_answer import form_of
from isthmus.sdp.session_description import SessionDescription
from isthmus.sdp.trickle import fragment_to_text
from isthmus.trace import Trace
from tests.support.media_descriptions import BROWSER_OFFER, audio
from tests.support.rtpengine import Rtpengine, needs_rtpengine

pytestmark = [needs_rtpengine, pytest.mark.interop]

WEB, PHONE = MediaForm.WEBRTC, MediaForm.RTP


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rtpengine]:
    server = Rtpengine(tmp_path_factory.mktemp("relay"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(relay: Rtpengine) -> AsyncIterator[NgClient]:
    found = NgClient(relay.address)
    yield found
    found.close()


@pytest.fixture
async def session(relay: Rtpengine) -> AsyncIterator[RtpengineSession]:
    pool = RtpengineRelays([relay.address], identity="b", trace=Trace(lambda: 0.0), metrics=Metrics())
    await pool.start()
    yield pool.open(lambda: None)
    await pool.stop()


def names(sdp: SessionDescription, index: int = 0) -> list[str]:
    return [codec.name for codec in sdp.media[index].codecs]


async def ask(client: NgClient, step: str, sdp: SessionDescription, /, **changes: Any) -> Mapping[str, Any]:
    """A command of the table, with changes to it, and what the relay made of the description."""
    source = form_of(sdp)
    target = changes.pop("target", PHONE)
    command = negotiation(
        "offer" if step == "offer" else "answer",
        call_id="behaviour",
        offerer="A",
        answerer="B",
        sdp=sdp.to_text(),
        source=source,
        target=target,
    )
    return await client.ask({**command, **changes})


@pytest.fixture(autouse=True)
async def forget(client: NgClient) -> AsyncIterator[None]:
    yield
    await client.ask({"command": "delete", "call-id": "behaviour"})


@pytest.mark.parametrize(("a", "b"), list(itertools.product(MediaForm, MediaForm)))
async def test_every_form_is_turned_into_every_other_one_and_back(
    session: RtpengineSession, a: MediaForm, b: MediaForm
) -> None:
    said = BROWSER_OFFER.with_media(BROWSER_OFFER.media[:1]) if a is WEB else audio(a, 8, 0, 101)
    offer = await session.offer(said, by="A", to="B", form=b)
    assert form_of(offer) is b
    te = next(c.payload_type for c in offer.media[0].codecs if c.name == "telephone-event" and c.clock_rate == 8000)
    assert te in {101, 126}
    answer = await session.answer(audio(b, 0, te, setup="active"), by="B", to="A", form=a)
    assert form_of(answer) is a
    assert names(answer) == ["PCMU", "telephone-event"]
    assert answer.direction(answer.media[0]) == offer.direction(offer.media[0]) == "sendrecv"
    for shown, form in ((offer, b), (answer, a)):
        section = shown.media[0]
        assert shown.address(section) == "127.0.0.1"
        assert "192.0.2.7" not in shown.to_text()  # the other end's address
        assert bool(section.candidates) == bool(section.value_of("ice-ufrag")) == (form is WEB)
        assert section.has_rtcp_mux == (form is WEB)
        assert shown.bundles == ()
        has_fingerprint = form in {WEB, MediaForm.DTLS} or (form is MediaForm.SDES and shown is offer)
        assert bool(shown.fingerprints(section)) == has_fingerprint
        assert section.has_attribute("crypto") == (form is MediaForm.SDES)
    if a in {WEB, MediaForm.DTLS}:
        assert answer.media[0].value_of("setup") == "active"
    if b in {WEB, MediaForm.DTLS}:
        assert offer.media[0].value_of("setup") == "actpass"
    if b is MediaForm.SDES:
        suites = {value.split()[1] for value in offer.media[0].values_of("crypto")}
        assert suites == {"AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"}


async def test_a_phone_that_answers_keys_with_a_fingerprint_is_understood(session: RtpengineSession) -> None:
    """COMPAT: baresip with mediaenc=dtls_srtp answers RTP/SAVP in RTP/SAVP, without a word about the keys."""
    await session.offer(audio(WEB, 111, 0), by="A", to="B", form=MediaForm.SDES)
    said = audio(MediaForm.DTLS, 0, setup="active").to_text().replace("UDP/TLS/RTP/SAVP", "RTP/SAVP")
    answer = await session.answer(SessionDescription.parse(said), by="B", to="A", form=WEB)
    assert names(answer) == ["PCMU"]
    reply = await session._query()
    assert "DTLS-SRTP" in reply["tags"]["B"]["medias"][0]["flags"]


async def test_a_phone_is_offered_what_the_browser_has_and_what_phones_have(session: RtpengineSession) -> None:
    offer = await session.offer(audio(WEB, 111, 126), by="A", to="B", form=PHONE)
    assert names(offer) == ["opus", "PCMA", "PCMU", "G722", "telephone-event"]
    answer = await session.answer(audio(PHONE, 111, 126), by="B", to="A", form=WEB)
    assert names(answer) == ["opus", "telephone-event"]


async def test_a_browser_is_offered_opus_and_events_at_both_clock_rates(session: RtpengineSession) -> None:
    offer = await session.offer(audio(PHONE, 8, 101), by="A", to="B", form=WEB)
    events = {codec.clock_rate for codec in offer.media[0].codecs if codec.name == "telephone-event"}
    assert names(offer)[:2] == ["PCMA", "opus"]
    assert events == {8_000, 48_000}
    opus, event = (next(str(c.payload_type) for c in offer.media[0].codecs if c.clock_rate == 48_000 and c.name == n)
                   for n in ("opus", "telephone-event"))  # fmt: skip
    assert (opus, event) == ("96", "97")


async def test_events_survive_transcoding_where_the_browser_has_them_at_the_rate_of_opus(
    session: RtpengineSession,
) -> None:
    await session.offer(audio(WEB, 111, 126, 110), by="A", to="B", form=PHONE)
    answer = await session.answer(audio(PHONE, 0, 126), by="B", to="A", form=WEB)
    assert [(c.name, c.payload_type) for c in answer.media[0].codecs] == [("opus", 111), ("telephone-event", 110)]


async def test_an_event_type_that_was_not_offered_is_lost_without_a_word(session: RtpengineSession) -> None:
    await session.offer(audio(PHONE, 0, 126), by="A", to="B", form=PHONE)
    answer = await session.answer(audio(PHONE, 0, 101), by="B", to="A", form=PHONE)
    assert names(answer) == ["PCMU"]


async def test_a_placeholder_address_is_taken_for_hold_unless_trickling_is_announced(
    client: NgClient, session: RtpengineSession
) -> None:
    sdp = audio(WEB, 0)
    raw = SessionDescription.parse((await ask(client, "offer", sdp))["sdp"])
    assert (raw.direction(raw.media[0]), raw.address(raw.media[0])) == ("sendonly", "0.0.0.0")
    ours = await session.offer(sdp, by="A", to="B", form=PHONE)
    assert (ours.direction(ours.media[0]), ours.address(ours.media[0])) == ("sendrecv", "127.0.0.1")


async def test_lines_of_browsers_leak_and_the_group_is_stripped(client: NgClient) -> None:
    raw = SessionDescription.parse((await ask(client, "offer", BROWSER_OFFER))["sdp"])
    found = {attribute.name for section in raw.media for attribute in section.attributes}
    assert {"extmap", "ssrc", "msid", "mid"} <= found
    assert {"msid-semantic", "extmap-allow-mixed"} <= {attribute.name for attribute in raw.attributes}
    assert raw.bundles == ()
    assert "red" not in names(raw)
    assert "rtx" not in names(raw, 1)


async def test_pictures_have_a_transport_of_their_own_and_can_be_refused(session: RtpengineSession) -> None:
    offer = await session.offer(BROWSER_OFFER, by="A", to="B", form=PHONE)
    assert names(offer, 1) == ["VP8"]
    assert offer.media[1].values_of("rtcp-fb") == ["96 nack", "96 nack pli"]
    phone = audio(PHONE, 0, 126, extra=("m=video 40002 RTP/AVP 96", "a=rtpmap:96 VP8/90000"))
    answer = await session.answer(phone, by="B", to="A", form=WEB)
    assert answer.bundles == ()
    assert len({section.port for section in answer.media}) == 2
    assert len({section.value_of("ice-ufrag") for section in answer.media}) == 2

    refusing = audio(PHONE, 0, 126, extra=("m=video 0 RTP/AVP 96", "a=rtpmap:96 VP8/90000"))
    again = await session.answer(refusing, by="B", to="A", form=WEB)
    assert [section.is_rejected for section in again.media] == [False, True]
    assert [section.mid for section in again.media] == ["0", "1"]
    assert again.bundles == ()


async def test_a_bundled_section_without_a_port_is_passed_on_as_rejected(session: RtpengineSession) -> None:
    text = BROWSER_OFFER.to_text().replace("m=video 9", "m=video 0") + "a=bundle-only\r\n"
    offer = await session.offer(SessionDescription.parse(text), by="A", to="B", form=PHONE)
    assert [section.is_rejected for section in offer.media] == [False, True]


async def test_pictures_come_and_go_in_a_call_and_the_sound_stays_where_it_is(session: RtpengineSession) -> None:
    def described(video_port: int | None, port: int) -> SessionDescription:
        extra = (f"m=video {video_port} RTP/AVP 96", "a=rtpmap:96 VP8/90000") if video_port is not None else ()
        return audio(PHONE, 0, port=port, extra=extra)

    sound, pictures = [], []
    for video_port in (None, 40_200, 0, 40_200):
        offer = await session.offer(described(video_port, 40_000), by="A", to="B", form=PHONE)
        answer = await session.answer(described(video_port, 40_100), by="B", to="A", form=PHONE)
        sound.append((offer.media[0].port, answer.media[0].port))
        pictures.append([bool(section.port) for section in (*offer.media[1:], *answer.media[1:])])
    assert len(set(sound)) == 1
    assert pictures == [[], [True, True], [False, False], [True, True]]
    assert offer.origin.version - answer.origin.version == 0
    assert offer.origin.version > 1


async def test_a_client_that_changes_its_network_gets_fresh_credentials_at_the_same_port(
    session: RtpengineSession,
) -> None:
    """ICE restart (RFC 8839 section 4.4.1.1.1)."""
    before = audio(WEB, 0)
    after = SessionDescription.parse(before.to_text().replace("ufrag:q1Zx", "ufrag:Zx1q").replace("pwd:7Yk", "pwd:8Yk"))
    answers = []
    for offer in (before, before, after):
        await session.offer(offer, by="A", to="B", form=PHONE)
        answers.append(await session.answer(audio(PHONE, 0), by="B", to="A", form=WEB))
    first, again, restarted = [answer.media[0] for answer in answers]
    assert first.port == again.port == restarted.port
    assert first.ice_ufrag == again.ice_ufrag != restarted.ice_ufrag
    assert first.ice_pwd != restarted.ice_pwd


async def test_candidates_come_in_fragments_before_and_after_the_answer(
    client: NgClient, session: RtpengineSession
) -> None:
    await session.offer(audio(WEB, 0), by="A", to="B", form=PHONE)
    candidates = ("a=candidate:1 1 UDP 2130706431 127.0.0.1 45000 typ host",)
    fragment = audio(WEB, 0, extra=candidates)
    await session.add_candidates(fragment, by="A")
    await session.answer(audio(PHONE, 0), by="B", to="A", form=WEB)
    await session.add_candidates(fragment, by="A")
    # Before the offer they are no error either, but the relay keeps them for a call of this name.
    reply = await client.ask(trickled(call_id="behaviour", tag="A", fragment=fragment_to_text(fragment)))
    assert reply["result"] == "ok"


async def test_candidates_by_name_or_tcp_do_no_harm(session: RtpengineSession) -> None:
    extra = ("a=candidate:1 1 udp 2122260223 6a9c.local 5000 typ host", "a=candidate:2 1 tcp 1 192.0.2.9 9 typ host")
    offer = await session.offer(audio(WEB, 0, extra=extra), by="A", to="B", form=PHONE)
    assert offer.media[0].port


async def test_the_relays_candidate_has_a_foundation_that_jingle_cannot_carry(session: RtpengineSession) -> None:
    offer = await session.offer(audio(PHONE, 0), by="A", to="B", form=WEB)
    foundation, component, transport, *_, kind = offer.media[0].candidates[0].split()
    assert (component, transport, kind) == ("1", "UDP", "host")
    assert not foundation.isdigit()  # XEP-0176 wants 0 to 255: the Jingle writer numbers them


async def test_unknown_flags_are_ignored_so_that_only_the_result_tells(client: NgClient) -> None:
    reply = await ask(client, "offer", audio(PHONE, 0), flags=["WebRTC", "no such flag"])
    assert "m=audio" in reply["sdp"]
    assert "RTP/AVP 0" in reply["sdp"]


async def test_a_repeat_under_the_same_cookie_is_answered_with_the_same_bytes(
    relay: Rtpengine, client: NgClient
) -> None:
    cookies = iter(["cookie-1", "cookie-1", "cookie-2"])
    command = negotiation(
        "offer", call_id="behaviour", offerer="A", answerer="B", sdp=audio(PHONE, 0).to_text(), source=PHONE, target=WEB
    )
    conversation = NgConversation(lambda: next(cookies))
    replies = []
    for _ in range(3):
        _, datagram = conversation.ask(command, 0.0)
        replies.append(await exchange(relay, datagram))
        conversation.receive(replies[-1])
    assert replies[0] == replies[1] != replies[2]


async def exchange(relay: Rtpengine, datagram: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.setblocking(False)
        plain.connect(relay.address)
        plain.send(datagram)
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(plain, 65_536)


async def test_what_the_relay_says_when_it_cannot(client: NgClient) -> None:
    with pytest.raises(RelayError, match=r"^Unknown call-id$"):
        await ask(client, "answer", audio(PHONE, 0))
    with pytest.raises(RelayError, match=r"^Unknown call-id$"):
        await client.ask(query("behaviour"))
    with pytest.raises(RelayError, match=r"^Failed to parse SDP$"):
        await ask(client, "offer", audio(PHONE, 0), sdp="v=0\r\nm=audi")
    with pytest.raises(RelayError, match=r"^Unrecognized command$"):
        await client.ask({"command": "frobnicate"})
    assert "not found" in (await client.ask({"command": "delete", "call-id": "behaviour"}))["warning"]
