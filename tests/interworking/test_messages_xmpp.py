"""Messages between stanzas and the model (RFC 7572, XEP-0085, 0184, 0308, 0333, 0424, 0428, 0444, 0461)."""

from __future__ import annotations

from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import AddressError, IsthmusError, PayloadError
from isthmus.interworking.messages import MAXIMUM_TEXT_OCTETS, message_from_stanza, message_to_stanza
from isthmus.model import Address, ChatState, Failure, Message, MessageKind, Origin

NOW = 1_795_369_200.0
ANA = Address("ana", "corp.test")
BEN = Address("ben", "people.test")
NS = "{jabber:component:accept}"


def stanza(content: str, attributes: str = "type='chat' id='m-81'", sender: str = "ben@people.test/phone") -> Element:
    return fromstring(
        f"<message xmlns='jabber:component:accept' {attributes} from='{sender}' to='ana@corp.test'>{content}</message>"
    )


def read(content: str, attributes: str = "type='chat' id='m-81'") -> list[Message]:
    return message_from_stanza(stanza(content, attributes), NOW)


def text_of(content: str) -> str:
    (message,) = read(content)
    assert message.kind is MessageKind.TEXT
    return message.text


def written(message: Message, now: float | None = None) -> Element:
    markup = message_to_stanza(message, now=now)
    return fromstring(markup.replace("<message ", "<message xmlns='jabber:component:accept' ", 1))


def text_message(**changes: object) -> Message:
    fields: dict[str, object] = {"id": "m-1", "sender": ANA, "recipient": BEN, "text": "Hi", "sent_at": NOW}
    return Message(**{**fields, **changes})  # type: ignore[arg-type]  # fields are checked by the tests themselves


def test_a_chat_message_is_read_with_all_its_wishes() -> None:
    (message,) = read(
        "<body>Shall we?</body><subject>Six</subject><thread>t1</thread>"
        "<active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>"
        "<markable xmlns='urn:xmpp:chat-markers:0'/>",
        "type='chat' id='m-81' xml:lang='en'",
    )
    assert (message.sender, message.sender_device, message.recipient) == (BEN, "phone", ANA)
    assert (message.text, message.subject, message.thread, message.language) == ("Shall we?", "Six", "t1", "en")
    assert (message.wants_delivered, message.wants_displayed) == (True, True)
    assert (message.id, message.sent_at, message.hops) == ("m-81", NOW, 0)


def test_a_message_without_id_cannot_be_confirmed_but_has_an_id() -> None:
    (message,) = read("<body>Hi</body><request xmlns='urn:xmpp:receipts'/>", "type='chat'")
    assert not message.wants_delivered
    assert len(message.id) == 32


def test_the_unmarked_body_is_the_text() -> None:
    (message,) = read("<body xml:lang='de'>Hallo</body><body>Hello</body>")
    assert message.text == "Hello"
    (message,) = read("<body xml:lang='de'>Hallo</body><body xml:lang='fr'>Salut</body>")
    assert (message.text, message.language) == ("Hallo", "de")


def test_a_waiting_message_keeps_its_time() -> None:
    (message,) = read("<body>Hi</body><delay xmlns='urn:xmpp:delay' stamp='2026-11-20T10:00:00Z'/>")
    assert message.sent_at < NOW
    assert written(text_message(sent_at=NOW - 3600), NOW).find("{urn:xmpp:delay}delay") is not None
    assert written(text_message(), NOW).find("{urn:xmpp:delay}delay") is None


@pytest.mark.parametrize("state", list(ChatState))
def test_a_chat_state_alone_is_typing(state: ChatState) -> None:
    (message,) = read(f"<{state} xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread>")
    assert (message.kind, message.state) == (MessageKind.TYPING, state)
    back = written(message)
    assert back.find(f"{{http://jabber.org/protocol/chatstates}}{state}") is not None
    assert back.find("{urn:xmpp:hints}no-store") is not None
    assert back.find(f"{NS}body") is None


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("<received xmlns='urn:xmpp:receipts' id='m-7'/>", MessageKind.DELIVERED),
        ("<received xmlns='urn:xmpp:chat-markers:0' id='m-7'/>", MessageKind.DELIVERED),
        ("<displayed xmlns='urn:xmpp:chat-markers:0' id='m-7'/>", MessageKind.DISPLAYED),
        ("<acknowledged xmlns='urn:xmpp:chat-markers:0' id='m-7'/>", MessageKind.DISPLAYED),
    ],
)
def test_receipts_and_markers_are_different_truths(content: str, kind: MessageKind) -> None:
    """Edge case 23: delivered and displayed never stand in for each other."""
    (message,) = read(content)
    assert (message.kind, message.refers_to, message.text) == (kind, "m-7", "")
    again = message_from_stanza(written(message), NOW)
    assert [(one.kind, one.refers_to) for one in again] == [(kind, "m-7")]
    assert written(message).find("{urn:xmpp:receipts}request") is None
    assert written(message).find("{urn:xmpp:hints}store") is not None


def test_a_receipt_without_id_says_nothing() -> None:
    assert read("<received xmlns='urn:xmpp:receipts'/>") == []


def test_one_stanza_may_say_several_things_with_different_ids() -> None:
    found = read(
        "<body>Hi</body><displayed xmlns='urn:xmpp:chat-markers:0' id='m-7'/>"
        "<received xmlns='urn:xmpp:receipts' id='m-7'/>"
    )
    assert [message.kind for message in found] == [MessageKind.TEXT, MessageKind.DISPLAYED, MessageKind.DELIVERED]
    assert len({message.id for message in found}) == 3


def test_receipts_are_asked_for_only_when_the_sender_asked() -> None:
    """Edge case 23: we never invent a wish, and so never a receipt."""
    plain = written(text_message())
    assert plain.find("{urn:xmpp:receipts}request") is None
    assert plain.find("{urn:xmpp:chat-markers:0}markable") is None
    asked = written(text_message(wants_delivered=True, wants_displayed=True))
    assert asked.find("{urn:xmpp:receipts}request") is not None
    assert asked.find("{urn:xmpp:chat-markers:0}markable") is not None


def test_a_text_is_a_chat_stanza_with_everything_in_it() -> None:
    message = text_message(text="a < b & c ]]>", subject="S", thread="t", language="en", sender_device="urn:uuid:1")
    element = written(message)
    assert (element.get("type"), element.get("id"), element.get("to")) == ("chat", "m-1", "ben@people.test")
    assert element.get("from") == "ana@corp.test/urn:uuid:1"
    assert element.get("{http://www.w3.org/XML/1998/namespace}lang") == "en"
    assert element.findtext(f"{NS}body") == "a < b & c ]]>"
    assert element.findtext(f"{NS}subject") == "S"
    assert element.findtext(f"{NS}thread") == "t"
    assert element.find("{http://jabber.org/protocol/chatstates}active") is not None
    silent = message_to_stanza(message, with_chat_state=False)
    assert "chatstates" not in silent


def test_an_error_stanza_is_a_late_failure_of_the_same_id() -> None:
    (message,) = read(
        "<body>echo</body><error type='cancel'>"
        "<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
        "type='error' id='m-81'",
    )
    assert (message.kind, message.refers_to, message.text) == (MessageKind.FAILED, "m-81", "")
    assert message.failure is not None
    assert message.failure.condition == "service-unavailable"
    assert read("<body>x</body>", "type='error'") == []


def test_a_failure_becomes_an_error_stanza_of_the_original_id() -> None:
    failure = Failure(Origin.NO_DEVICE, 480, "recipient-unavailable", "Ana has no device online.")
    element = written(text_message(kind=MessageKind.FAILED, text="", refers_to="m-7", failure=failure))
    assert (element.get("type"), element.get("id")) == ("error", "m-7")
    assert element.find(f"{NS}error/{{urn:ietf:params:xml:ns:xmpp-stanzas}}recipient-unavailable") is not None


def test_groupchat_to_a_person_is_refused() -> None:
    with pytest.raises(PayloadError) as caught:
        read("<body>Hi</body>", "type='groupchat' id='1'")
    assert caught.value.condition == "service-unavailable"


def test_a_headline_is_read_but_never_confirmed() -> None:
    (message,) = read("<body>News</body><request xmlns='urn:xmpp:receipts'/>", "type='headline' id='1'")
    assert not message.wants_delivered
    assert read("<composing xmlns='http://jabber.org/protocol/chatstates'/>", "type='headline'") == []


@pytest.mark.parametrize("name", ["sent", "received"])
def test_carbon_copies_are_not_messages_to_us(name: str) -> None:
    """Edge case 25: a copy of what was said elsewhere never loops through the gateway."""
    copy = "<message xmlns='jabber:client' to='x@y'><body>Hi</body></message>"
    forwarded = f"<forwarded xmlns='urn:xmpp:forward:0'>{copy}</forwarded>"
    assert read(f"<{name} xmlns='urn:xmpp:carbons:2'>{forwarded}</{name}>") == []
    assert read(forwarded) == []


def test_crossings_are_counted_for_loop_protection() -> None:
    """Edge case 25: no echo loops through the gateway."""
    message = text_message()
    for crossing in range(1, 4):
        (message,) = message_from_stanza(written(message), NOW)
        assert message.hops == crossing
    assert read("<body>Hi</body><x xmlns='urn:isthmus:hop:0' hops='-3'/>")[0].hops > 5
    assert read("<body>Hi</body><x xmlns='urn:isthmus:hop:0'/>")[0].hops > 5


@pytest.mark.parametrize(
    ("content", "method"),
    [
        ("<encrypted xmlns='eu.siacs.conversations.axolotl'><header/><payload>x</payload></encrypted>", "OMEMO"),
        ("<encrypted xmlns='urn:xmpp:omemo:2'><header/><payload>x</payload></encrypted>", "OMEMO"),
        ("<openpgp xmlns='urn:xmpp:openpgp:0'>x</openpgp>", "OpenPGP"),
        ("<x xmlns='jabber:x:encrypted'>x</x>", "OpenPGP"),
        ("<encryption xmlns='urn:xmpp:eme:0' namespace='urn:x' name='Newcrypt'/>", "Newcrypt"),
    ],
)
def test_an_encrypted_body_becomes_a_clear_notice(content: str, method: str) -> None:
    """Edge case 24: the fallback text is not passed on as if the person had said it."""
    (message,) = read(f"<body>I sent you an encrypted message</body>{content}<request xmlns='urn:xmpp:receipts'/>")
    assert "I sent you" not in message.text
    assert f"encrypted with {method}" in message.text
    assert not message.wants_delivered


def test_otr_is_told_by_its_body() -> None:
    """Edge case 24."""
    assert "encrypted with OTR" in text_of("<body>?OTR:AAMC...</body>")
    assert "encrypted with OTR" in text_of("<body>?OTRv23? Ben requests a private conversation</body>")


def test_a_key_exchange_says_nothing() -> None:
    """Edge case 24: OMEMO sends stanzas without payload that no person wrote."""
    assert read("<encrypted xmlns='eu.siacs.conversations.axolotl'><header/></encrypted><body>fallback</body>") == []


def test_a_correction_is_marked() -> None:
    assert text_of("<body>at seven</body><replace xmlns='urn:xmpp:message-correct:0' id='m-80'/>") == "✎ at seven"


REPLY = "<reply xmlns='urn:xmpp:reply:0' to='ana@corp.test' id='m-5'/>"


def test_a_reply_quotes_in_one_line() -> None:
    body = "&gt; Ana wrote:\n&gt; Shall we talk?\nYes!"
    fallback = "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='30'/></fallback>"
    assert text_of(f"<body>{body}</body>{REPLY}{fallback}") == "> Ana wrote: Shall we talk?\nYes!"
    assert text_of(f"<body>Yes!</body>{REPLY}") == "Yes!"


def test_a_reply_may_quote_from_what_we_remember() -> None:
    element = stanza(f"<body>Yes!</body>{REPLY}")
    (message,) = message_from_stanza(element, NOW, quote_of=lambda identifier: {"m-5": "Shall we?"}[identifier])
    assert message.text == "> Shall we?\nYes!"


@pytest.mark.parametrize("fallback_range", ["start='9' end='3'", "start='x' end='3'", "start='0' end='99'"])
def test_a_broken_fallback_range_keeps_the_whole_body(fallback_range: str) -> None:
    fallback = f"<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body {fallback_range}/></fallback>"
    assert text_of(f"<body>Yes!</body>{REPLY}{fallback}") == "Yes!"


def test_a_reaction_is_a_short_text() -> None:
    reactions = (
        "<reactions xmlns='urn:xmpp:reactions:0' id='m-5'><reaction>👍</reaction><reaction>🎉</reaction></reactions>"
    )
    assert text_of(reactions) == "👍 🎉"
    (message,) = message_from_stanza(stanza(reactions), NOW, quote_of=lambda identifier: "Shall we?")
    assert message.text == "👍 🎉 to: “Shall we?”"
    assert read("<reactions xmlns='urn:xmpp:reactions:0' id='m-5'/>") == []


def test_a_retraction_is_a_notice() -> None:
    fallback = "<body>tried to retract</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'/>"
    notice = text_of(f"{fallback}<retract xmlns='urn:xmpp:message-retract:1' id='m-5'/>")
    assert notice == "[The sender took back an earlier message.]"
    old = "<apply-to xmlns='urn:xmpp:fasten:0' id='m-5'><retract xmlns='urn:xmpp:message-retract:0'/></apply-to>"
    assert text_of(f"<body>x</body>{old}") == notice


def test_attachments_are_links() -> None:
    oob = "<x xmlns='jabber:x:oob'><url>https://up.test/cat.png</url></x>"
    assert text_of(f"<body>https://up.test/cat.png</body>{oob}") == "https://up.test/cat.png"
    assert text_of(f"<body>A cat</body>{oob}") == "A cat\nhttps://up.test/cat.png"
    assert text_of(oob) == "https://up.test/cat.png"
    sfs = (
        "<file-sharing xmlns='urn:xmpp:sfs:0'><sources>"
        "<url-data xmlns='http://jabber.org/protocol/url-data' target='https://up.test/d.pdf'/></sources></file-sharing>"
    )
    assert text_of(f"<body>The plan</body>{sfs}") == "The plan\nhttps://up.test/d.pdf"


def test_an_invitation_to_a_room_is_told() -> None:
    assert "room@muc.test" in text_of("<x xmlns='jabber:x:conference' jid='room@muc.test'/>")


def test_a_stanza_that_says_nothing_is_nothing() -> None:
    assert read("<unknown xmlns='urn:strange'/>") == []
    assert read("<body/>") == []


def test_a_text_has_a_limit() -> None:
    with pytest.raises(PayloadError) as caught:
        read(f"<body>{'ü' * (MAXIMUM_TEXT_OCTETS // 2 + 1)}</body>")
    assert caught.value.condition == "policy-violation"
    assert len(text_of(f"<body>{'u' * MAXIMUM_TEXT_OCTETS}</body>")) == MAXIMUM_TEXT_OCTETS


def test_a_server_is_nobody_to_talk_to() -> None:
    with pytest.raises(AddressError):
        message_from_stanza(stanza("<body>Hi</body>", sender="people.test"), NOW)


@given(st.text(), st.text(max_size=20), st.text(max_size=20))
def test_any_text_survives_the_way_through_a_stanza(text: str, subject: str, thread: str) -> None:
    element = written(text_message(text=text, subject=subject, thread=thread))
    illegal = {*range(9), 11, 12, *range(14, 32), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF}
    assert (element.findtext(f"{NS}body") or "") == "".join(c for c in text if ord(c) not in illegal)


SPECIALS = st.lists(
    st.sampled_from(
        [REPLY, "<fallback xmlns='urn:xmpp:fallback:0'/>", "<replace xmlns='urn:xmpp:message-correct:0'/>",
         "<retract xmlns='urn:xmpp:message-retract:1'/>",
         "<reactions xmlns='urn:xmpp:reactions:0'><reaction/></reactions>",
         "<encryption xmlns='urn:xmpp:eme:0'/>", "<body>Hi</body>", "<body xml:lang='x'/>", "<error/>", "<subject/>",
         "<x xmlns='jabber:x:oob'/>", "<delay xmlns='urn:xmpp:delay' stamp='9999-99'/>", "<thread/>",
         "<gone xmlns='http://jabber.org/protocol/chatstates'/>", "<displayed xmlns='urn:xmpp:chat-markers:0' id=''/>"]
    ),
    max_size=6,
)  # fmt: skip


@given(SPECIALS, st.sampled_from(["chat", "normal", "error", "headline", "groupchat", "strange"]))
def test_no_combination_of_extensions_breaks_the_reader(parts: list[str], kind: str) -> None:
    try:
        found = read("".join(parts), f"type='{kind}' id='1'")
    except IsthmusError:
        return
    assert all(written(message).tag == f"{NS}message" for message in found)
