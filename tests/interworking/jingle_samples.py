"""Jingle to try things with: captured, written by hand, and sent over the wire."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import fromstring

from isthmus.sdp.session_description import SessionDescription
from isthmus.xmpp.jingle import Jingle, jingle_iq, jingle_of

MESSAGES = Path(__file__).parents[1] / "messages"
RTP, ICE, DTLS = "urn:xmpp:jingle:apps:rtp:1", "urn:xmpp:jingle:transports:ice-udp:1", "urn:xmpp:jingle:apps:dtls:0"


def captured_sdp(name: str) -> SessionDescription:
    return SessionDescription.parse((MESSAGES / f"sdp/{name}.sdp").read_bytes())


def parse(jingle: str) -> Jingle:
    found = jingle_of(fromstring(f"<iq xmlns='jabber:component:accept'>{jingle}</iq>"))
    assert found is not None
    return found


def captured_jingle(name: str) -> Jingle:
    found = jingle_of(fromstring((MESSAGES / f"jingle/{name}.xml").read_text()))
    assert found is not None
    return found


def over_the_wire(jingle: Jingle) -> Jingle:
    """Written as a stanza and read again, as the other side would."""
    text = jingle_iq(jingle, sender="ana@corp.test/isthmus", recipient="ben@people.test/phone", stanza_id="j1")
    found = jingle_of(fromstring(text.replace("<iq ", "<iq xmlns='jabber:component:accept' ", 1)))
    assert found is not None
    return found


def initiate(*contents: str, more: str = "") -> Jingle:
    inner = "".join(contents)
    return parse(f"<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s-77'>{more}{inner}</jingle>")


def content(
    description: str = "<payload-type id='0' name='PCMU' clockrate='8000'/>",
    transport: str = "",
    *,
    name: str = "audio",
    media: str = "audio",
    senders: str = "both",
) -> str:
    return (
        f"<content creator='initiator' name='{name}' senders='{senders}'>"
        f"<description xmlns='{RTP}' media='{media}'>{description}</description>"
        f"<transport xmlns='{ICE}' ufrag='q1Zx' pwd='7Yk2mD0sWv4pLr8nTb6cHg'>{transport}</transport></content>"
    )
