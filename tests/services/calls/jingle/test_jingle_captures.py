"""Captured stanzas of Dino, as they came: it calls ana, and it answers her (verified-clients names the versions)."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.model import EndCause
from isthmus.services.calls.jingle.proposal_leg import JingleProposalLeg
from isthmus.services.calls.leg import LegAccepted, LegEnded
from tests.support.jingle_house import ANA, ANA_JID, BEN, Device, House, MemoryServer, PromptClock, sdp, settle
from tests.support.xmpp import stanza

CAPTURES = Path(__file__).parents[3] / "messages" / "jingle"
DINO = "ben@people.test/dino"


def captured(name: str, **changed: str) -> str:
    """The captured stanza as one from Dino to ana, which half of them were; `changed` replaces texts in it."""
    text = (CAPTURES / f"{name}.xml").read_text().strip().replace(f"to='{DINO}'", f"to='{ANA_JID}'", 1)
    for old, new in changed.items():
        text = text.replace(old, new)
    return text.replace(" to=", f" from='{DINO}' to=", 1)


@pytest.mark.parametrize(("kind", "media"), [("audio", ["audio"]), ("video", ["audio", "video"])])
class TestDino:
    async def test_calls_ana_and_hangs_up(self, kind: str, media: list[str]) -> None:
        server = MemoryServer()
        house = House(server, PromptClock())
        dino = Device(server, DINO)
        assert stanza(await server.ask(captured(f"dino_{kind}_session_initiate"))).get("type") == "result"
        call = house.call
        assert call.offer is not None
        assert [section.media for section in call.offer.media] == media
        assert {section.protocol for section in call.offer.media} == {"UDP/TLS/RTP/SAVPF"}
        assert all(section.candidates for section in call.offer.media)
        call.leg.ring()
        call.leg.accept(sdp(*media, setup="active"))
        await settle()
        assert dino.kinds == ["session-info", "session-accept"]
        assert house.ear.kinds() == ["LegConfirmed"]
        assert stanza(await server.ask(captured(f"dino_{kind}_session_terminate"))).get("type") == "result"
        await settle()
        (ended,) = house.ear.take()
        assert isinstance(ended, LegEnded)
        assert ended.ending.cause is EndCause.HUNG_UP

    async def test_takes_a_proposal_and_answers(self, kind: str, media: list[str]) -> None:
        server = MemoryServer()
        house = House(server, PromptClock())
        dino = Device(server, DINO)
        leg = JingleProposalLeg(house.around, ours=ANA, our_jid=ANA_JID, party=BEN)
        leg.attach(house.ear)
        leg.invite(sdp(*media))
        await settle()
        sid = stanza(captured(f"dino_{kind}_jmi_proceed"))[0].get("id", "")
        server.deliver(captured(f"dino_{kind}_jmi_proceed", **{sid: leg.sid}))
        await settle()
        assert dino.kinds == ["propose", "session-initiate"]
        answered = stanza(await server.ask(captured(f"dino_{kind}_session_accept", **{sid: leg.sid})))
        assert answered.get("type") == "result"
        await settle()
        (event,) = house.ear.take()
        assert isinstance(event, LegAccepted)
        assert event.device == "dino"
        assert [section.setup for section in event.answer.media] == ["active"] * len(media)
        assert event.answer.media[0].codecs[0].name == "opus"
