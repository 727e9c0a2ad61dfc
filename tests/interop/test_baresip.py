"""Phones of corp.test are baresip; people of people.test use an XMPP app (slixmpp) on the embedded Prosody."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.certificates import TestAuthority
from tests.support.isthmus_process import IsthmusProcess
from tests.support.prosody import needs_prosody
from tests.support.stage import Stage

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("baresip") is None, reason="baresip is not installed"),
    needs_prosody,
]

# Each transport and each play has its own pair of people, so that plays do not see each other's contacts.
PAIRS = {
    "udp": ("ana@corp.test", "ben@people.test"),
    "tcp": ("tom@corp.test", "eva@people.test"),
    "tls": ("ute@corp.test", "ida@people.test"),
}
DORA, CARL, LEO = "dora@corp.test", "carl@corp.test", "leo@people.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    folder = tmp_path_factory.mktemp("isthmus")
    async with IsthmusProcess(folder, tls=TestAuthority(folder).issue("corp.test")).running() as installation:
        employees, consumers = zip(*PAIRS.values(), strict=True)
        await installation.add_people(*employees, DORA, CARL, consumers=(*consumers, LEO))
        yield installation


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_phone_registers_with_a_digest_and_meets_a_consumer(stage: Stage, transport: str) -> None:
    """Register, contact request, presence both ways, messages both ways."""
    employee, consumer = PAIRS[transport]
    app = await stage.app(consumer)
    phone = await stage.phone(employee, consumer, transport=transport)
    log = phone.process.output()
    assert "401 Unauthorized" in log, "the registrar asks for a digest"
    assert "[1 binding]" in log
    assert f"{transport.upper()} 127.0.0.1:" in log

    await app.presence("subscribe", sender=employee)
    app.send(f"<presence type='subscribed' to='{employee}'/>")
    await phone.wait_for_presence(consumer, "Online")
    app.send(f"<presence type='subscribe' to='{employee}'/>")
    await app.presence("subscribed", sender=employee)
    await app.presence(None, sender=employee)

    await phone.send_message(consumer, "Good morning & welcome <here> äöü")
    await app.message("Good morning & welcome <here> äöü", sender=employee)
    app.send_message(employee, "Thank you", stanza_id="m1", extra="<request xmlns='urn:xmpp:receipts'/>")
    await phone.wait_for_message("Thank you")
    await app.marked("{urn:xmpp:receipts}received", "m1")  # the phone's 200 is a receipt

    await phone.command("presence_offline")
    await app.presence("unavailable", sender=employee)
    await phone.command("presence_online")
    await app.presence(None, sender=employee)
    app.send("<presence><show>dnd</show></presence>")
    await phone.wait_for_presence(consumer, "Busy")
    app.send("<presence type='unavailable'/>")
    await phone.wait_for_presence(consumer, "Offline")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_what_came_while_the_phone_was_off_arrives_at_its_next_registration(stage: Stage, transport: str) -> None:
    app = await stage.app(LEO, resource=transport)
    for number in (1, 2):
        app.send_message(CARL, f"Waiting {transport} {number}", stanza_id=f"{transport}-{number}")
    await app.query("<iq type='get' id='p1' to='corp.test'><ping xmlns='urn:xmpp:ping'/></iq>")  # both have crossed
    phone = await stage.phone(CARL, transport=transport)
    for number in (1, 2):
        await phone.wait_for_message(f"Waiting {transport} {number}")
    log = phone.process.output()
    assert log.index(f"Waiting {transport} 1") < log.index(f"Waiting {transport} 2")


async def test_both_phones_of_one_person_get_a_message(stage: Stage) -> None:
    """Edge case 16: each gets a MESSAGE of its own; one of them is on TCP."""
    desk, laptop = await stage.phone(DORA), await stage.phone(DORA, transport="tcp")
    app = await stage.app(LEO)
    app.send_message(DORA, "To all your phones")
    await desk.wait_for_message("To all your phones")
    await laptop.wait_for_message("To all your phones")


async def test_colleagues_see_and_write_to_each_other(stage: Stage) -> None:
    """Inside corp.test nothing crosses a border, and nobody is asked."""
    dora, carl = await stage.phone(DORA, CARL), await stage.phone(CARL, DORA, transport="tcp")
    await dora.wait_for_presence(CARL, "Online")
    await carl.wait_for_presence(DORA, "Online")
    await dora.send_message(CARL, "Lunch?")
    await carl.wait_for_message("Lunch?")
    await carl.send_message(DORA, "In ten minutes")
    await dora.wait_for_message("In ten minutes")
    await carl.command("presence_offline")
    await dora.wait_for_presence(CARL, "Offline")


async def test_a_colleague_who_is_away_reads_it_later(stage: Stage) -> None:
    dora = await stage.phone(DORA, CARL)
    await dora.send_message(CARL, "Your coffee gets cold")
    await dora.process.wait_for_output("202 Accepted")
    carl = await stage.phone(CARL)
    await carl.wait_for_message("Your coffee gets cold")
