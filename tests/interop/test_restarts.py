"""Prosody or Isthmus dies while a phone (baresip) and an app (slixmpp) are in touch: nothing lost, nobody flickers."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.baresip import Baresip
from tests.support.isthmus_process import IsthmusProcess
from tests.support.processes import wait_for_port, wait_until
from tests.support.prosody import needs_prosody
from tests.support.stage import Stage
from tests.support.xmpp_client import XmppClient

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("baresip") is None, reason="baresip is not installed"),
    needs_prosody,
]

ANA, TOM, UTE, MIA = (f"{name}@corp.test" for name in ("ana", "tom", "ute", "mia"))
BEN, EVA, LEO, IDA = (f"{name}@people.test" for name in ("ben", "eva", "leo", "ida"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    async with IsthmusProcess(tmp_path_factory.mktemp("isthmus")).running() as installation:
        await installation.add_people(ANA, TOM, UTE, MIA, consumers=(BEN, EVA, LEO, IDA))
        yield installation


async def befriended(stage: Stage, employee: str, consumer: str) -> tuple[Baresip, XmppClient]:
    """Both see each other."""
    app = await stage.app(consumer)
    phone = await stage.phone(employee, consumer)
    await app.presence("subscribe", sender=employee)
    app.send(f"<presence type='subscribed' to='{employee}'/><presence type='subscribe' to='{employee}'/>")
    await app.presence(None, sender=employee)
    await phone.wait_for_presence(consumer, "Online")
    return phone, app


async def kept(isthmus: IsthmusProcess, employee: str) -> None:
    """Soft state (dialogs, publications) is written within half a second; what is younger dies with a crash."""

    def look() -> bool:
        with contextlib.closing(sqlite3.connect(f"file:{isthmus.data}/isthmus.db?mode=ro", uri=True)) as database:
            rows = "SELECT count(*) FROM subscriptions WHERE watcher = ? AND state LIKE '%\"is_pending\":false%'"
            publications = "SELECT count(*) FROM publications WHERE address = ?"
            return all(database.execute(query, (employee,)).fetchone()[0] for query in (rows, publications))

    await wait_until(look, f"the soft state of {employee} to be on disk")


def flickered(app: XmppClient, employee: str) -> bool:
    """True when the app was told that the employee went away."""
    return any(
        stanza.get("type") == "unavailable" and stanza.get("from", "").startswith(employee) for stanza in app.received
    )


async def test_prosody_dies_mid_traffic(isthmus: IsthmusProcess, stage: Stage) -> None:
    """Edge case 49: every message that was answered 202 arrives, in order, and the contacts are as before."""
    phone, app = await befriended(stage, ANA, BEN)
    before = await isthmus.prosody_pid()
    await stage.kill(before)
    written = [f"Number {number}" for number in range(6)]
    for text in written:
        await phone.send_message(BEN, text)
    await wait_until(
        lambda: phone.process.output().count("SIP/2.0 202 Accepted") >= len(written), "six messages to be accepted"
    )
    await app.stop()
    await isthmus.prosody_pid(after=before)
    await wait_for_port(isthmus.c2s_port)

    again = await stage.app(BEN)
    for text in written:
        await again.message(text, sender=ANA)
    await again.presence(None, sender=ANA)
    assert not flickered(again, ANA)
    assert "Offline" not in phone.process.output().split("Number 0")[-1]
    again.send_message(ANA, "We are back")
    await phone.wait_for_message("We are back")
    again.send("<presence><show>dnd</show></presence>")
    await phone.wait_for_presence(BEN, "Busy")


async def test_isthmus_dies_and_the_next_one_takes_over(isthmus: IsthmusProcess, stage: Stage) -> None:
    """Registrations, subscriptions and publications go on; the app hears of no absence (hard case f of RFC 8048)."""
    phone, app = await befriended(stage, TOM, EVA)
    prosody = await isthmus.prosody_pid()
    await kept(isthmus, TOM)
    await isthmus.kill()
    await isthmus.start()
    assert await isthmus.prosody_pid() == prosody, "the customers' server was not touched"

    app.send_message(TOM, "Still there?")
    await phone.wait_for_message("Still there?")  # the phone did not register again
    app.send("<presence><show>dnd</show></presence>")
    await phone.wait_for_presence(EVA, "Busy")  # in the dialog of before
    await phone.send_message(EVA, "Still here")
    await app.message("Still here", sender=TOM)
    assert not flickered(app, TOM)
    assert "Offline" not in phone.process.output().split("Still there?")[-1]
    await phone.command("presence_offline")  # modifies the publication of before
    await app.presence("unavailable", sender=TOM)


async def test_isthmus_is_restarted_by_its_operator(isthmus: IsthmusProcess, stage: Stage) -> None:
    """A clean stop ends the embedded Prosody as well; messages sent meanwhile wait in the phone or in the journal."""
    phone, app = await befriended(stage, UTE, LEO)
    await isthmus.stop()
    await app.stop()
    await isthmus.start()
    again = await stage.app(LEO)
    await again.presence(None, sender=UTE)
    await phone.send_message(LEO, "Good morning again")
    await again.message("Good morning again", sender=UTE)
    again.send_message(UTE, "Morning")
    await phone.wait_for_message("Morning")
    assert not flickered(again, UTE)


async def test_an_imported_contact_is_kept_by_an_app_that_holds_it_already(
    isthmus: IsthmusProcess, stage: Stage
) -> None:
    """Edge cases 2, 14, 52: a new installation imports the contact in its old form; Prosody agrees, nobody is asked."""
    await befriended(stage, MIA, IDA)
    await stage.clear()
    await isthmus.stop()
    with contextlib.closing(sqlite3.connect(isthmus.data / "isthmus.db")) as database, database:
        database.execute("DELETE FROM authorisations WHERE ? IN (watcher, presentity)", (MIA,))
    lists = isthmus.folder / "contacts.txt"
    lists.write_text(f"{MIA} ida(people.test)@msn.com\n")
    assert "1 asked" in await isthmus.cli("contact", "import", str(lists))
    await isthmus.start()

    phone, app = await stage.phone(MIA, IDA), await stage.app(IDA)
    await app.presence(None, sender=MIA)
    await phone.wait_for_presence(IDA, "Online")
    told = [stanza.get("type") for stanza in app.received if stanza.get("from", "").startswith(MIA)]
    assert not {"subscribe", "unsubscribed"} & set(told), "neither asked nor cut off"
