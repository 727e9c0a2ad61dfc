"""Two XMPP implementations on the embedded Prosody, slixmpp and profanity, and the same phone opposite them."""

from __future__ import annotations

import hashlib
import shutil
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.isthmus_process import PASSWORD, IsthmusProcess
from tests.support.profanity import Profanity, needs_profanity
from tests.support.prosody import needs_prosody
from tests.support.stage import Stage
from tests.support.xmpp_client import XmppClient

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("baresip") is None, reason="baresip is not installed"),
    needs_prosody,
]

ANA, TOM, UTE, VERA, MIA, INA = (f"{name}@corp.test" for name in ("ana", "tom", "ute", "vera", "mia", "ina"))
BEN, EVA, LEO = (f"{name}@people.test" for name in ("ben", "eva", "leo"))
SERVICE = "isthmus@corp.test"
# The smallest picture there is: one grey point.
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
CARD = "<vCard xmlns='vcard-temp'/>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    async with IsthmusProcess(tmp_path_factory.mktemp("isthmus")).running() as installation:
        await installation.add_people(ANA, TOM, UTE, VERA, MIA, INA, consumers=(BEN, EVA, LEO))
        yield installation


async def terminal(stage: Stage, address: str) -> Profanity:
    isthmus = stage.isthmus
    folder = isthmus.folder / f"profanity-{address}-{id(stage)}"
    client = Profanity(folder, address, PASSWORD, isthmus.xmpp_interface, isthmus.c2s_port)
    stage.leave_at_the_end(client)
    await client.start()
    return client


@needs_profanity
async def test_a_phone_adds_a_person_who_uses_profanity(stage: Stage) -> None:
    ben = await terminal(stage, BEN)
    phone = await stage.phone(ANA, BEN)
    await ben.wait_for(f"Received authorization request from {ANA}")
    await ben.type(f"/sub allow {ANA}")
    await phone.wait_for_presence(BEN, "Online")
    await ben.type(f"/sub request {ANA}")
    await ben.wait_for(f"++ {ANA} (isthmus) is online")

    await ben.type('/status set dnd "Busy bee"')
    await phone.wait_for_presence(BEN, "Busy")
    await phone.command("presence_offline")
    await ben.wait_for(f"-- {ANA} (isthmus) is offline")

    await ben.type(f"/msg {ANA} Hello from a terminal äöü <&>")
    await phone.wait_for_message("Hello from a terminal äöü <&>")
    await phone.send_message(BEN, "And to you ☎")
    await ben.wait_for(f"{ANA}: And to you ☎")


@needs_profanity
async def test_a_person_who_uses_profanity_adds_a_phone_that_accepts_by_message(stage: Stage) -> None:
    """The request is a message of the service address; the answer is one, too."""
    phone = await stage.phone(TOM, SERVICE)
    eva = await terminal(stage, EVA)
    await eva.type(f"/sub request {TOM}")
    await phone.wait_for_message(EVA)
    await phone.send_message(SERVICE, f"accept {EVA}")
    await eva.wait_for(f"Subscription received from {TOM}")
    await eva.wait_for(f"++ {TOM} (isthmus) is online")


async def test_a_person_who_uses_slixmpp_adds_a_phone_that_accepts_by_message(stage: Stage) -> None:
    phone, leo = await stage.phone(UTE, SERVICE), await stage.app(LEO)
    leo.send(f"<presence type='subscribe' to='{UTE}'><status>We met at the fair</status></presence>")
    await phone.wait_for_message("We met at the fair")
    await phone.send_message(SERVICE, "accept")
    await leo.presence("subscribed", sender=UTE)
    await leo.presence(None, sender=UTE)


async def test_a_phone_declines_a_person_who_uses_slixmpp(stage: Stage) -> None:
    phone, leo = await stage.phone(VERA, SERVICE), await stage.app(LEO)
    leo.send(f"<presence type='subscribe' to='{VERA}'/>")
    await phone.wait_for_message(LEO)
    await phone.send_message(SERVICE, f"decline {LEO}")
    await leo.presence("unsubscribed", sender=VERA)


async def test_an_app_learns_whom_it_talks_to(stage: Stage) -> None:
    """Every IQ is answered: what apps ask about a contact and its server, and what nobody has heard of."""
    phone, leo = await stage.phone(MIA, SERVICE), await stage.app(LEO)
    leo.send(f"<presence type='subscribe' to='{MIA}'/>")
    await phone.wait_for_message(LEO)
    await phone.send_message(SERVICE, "accept")
    await leo.presence(None, sender=MIA)
    disco = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
    questions = (
        (MIA, disco),
        (MIA, "<vCard xmlns='vcard-temp'/>"),
        (MIA, "<ping xmlns='urn:xmpp:ping'/>"),
        (MIA, "<query xmlns='jabber:iq:last'/>"),
        ("corp.test", disco),
        ("corp.test", "<query xmlns='jabber:iq:version'/>"),
        ("corp.test", "<query xmlns='jabber:iq:last'/>"),
    )
    for number, (to, payload) in enumerate(questions):
        answer = await leo.query(f"<iq type='get' id='q{number}' to='{to}'>{payload}</iq>")
        assert answer.get("type") == "result", payload
    answer = await leo.query(f"<iq type='get' id='q-last' to='{MIA}'><what xmlns='urn:example:unheard-of'/></iq>")
    assert answer.find("{jabber:client}error/{urn:ietf:params:xml:ns:xmpp-stanzas}service-unavailable") is not None


async def test_an_app_shows_the_photo_that_the_administrator_gave_a_phone(stage: Stage, tmp_path: Path) -> None:
    """XEP-0153: presence names another photo, the app fetches the card, and its hash is the one that was named."""
    phone, leo = await stage.phone(INA, SERVICE), await stage.app(LEO)
    leo.send(f"<presence type='subscribe' to='{INA}'/>")
    await phone.wait_for_message(LEO)
    await phone.send_message(SERVICE, "accept")
    assert await photo_told(leo) == "", "there is none, which clients are told"
    (tmp_path / "ina.png").write_bytes(PNG)
    await stage.isthmus.cli("user", "photo", INA, str(tmp_path / "ina.png"))
    assert await photo_told(leo) == hashlib.sha1(PNG, usedforsecurity=False).hexdigest()
    card = await leo.query(f"<iq type='get' id='card-1' to='{INA}'>{CARD}</iq>")
    assert card.findtext(".//{vcard-temp}PHOTO/{vcard-temp}TYPE") == "image/png"
    assert b64decode(card.findtext(".//{vcard-temp}PHOTO/{vcard-temp}BINVAL", "")) == PNG

    stranger = await stage.app(EVA)
    refused = await stranger.query(f"<iq type='get' id='card-2' to='{INA}'>{CARD}</iq>")
    assert refused.get("type") == "error"

    await stage.isthmus.cli("user", "photo", INA, "--remove")
    assert await photo_told(leo) == ""
    card = await leo.query(f"<iq type='get' id='card-3' to='{INA}'>{CARD}</iq>")
    assert card.find(".//{vcard-temp}PHOTO") is None


async def photo_told(app: XmppClient) -> str:
    """The hash in the next presence of ina's that names a photo, "" for none."""
    path = "{vcard-temp:x:update}x/{vcard-temp:x:update}photo"
    told = await app.expect(
        lambda stanza: stanza.get("from", "").startswith(INA) and stanza.find(path) is not None, "which photo is ina's"
    )
    return told.findtext(path, "")
