"""ana@corp.test with a SIP softphone (baresip) and ben@people.test with an XMPP app (slixmpp) meet and talk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.demo.telling import ANA, BEN, say_aloud
from tests.support.isthmus_process import IsthmusProcess


async def tell(folder: Path, say: Callable[[str, str], None] = say_aloud) -> None:
    """Run the conversation; every line printed was seen by a real client."""
    isthmus = IsthmusProcess(folder)
    ana_says, ben_says = "ana (baresip, SIP)", "ben (slixmpp, XMPP)"
    phone = isthmus.phone(ANA, BEN)
    app = isthmus.app(f"{BEN}/app")
    try:
        await isthmus.start()
        await isthmus.add_people(ANA, consumers=(BEN,))
        say("isthmus", "started with its own Prosody; two accounts made")

        await app.start()
        say(ben_says, "signed in")
        await phone.start()
        say(ana_says, "registered with a digest; subscribed to ben's presence: ben is in the phone's contact list")

        await app.presence("subscribe", sender=ANA)
        say(ben_says, "sees: ana@corp.test wants to be a contact")
        app.send(f"<presence type='subscribed' to='{ANA}'/>")
        say(ben_says, "approves")
        await phone.wait_for_presence(BEN, "Online")
        say(ana_says, "sees ben: Online")

        app.send(f"<presence type='subscribe' to='{ANA}'/>")
        say(ben_says, "adds ana in return")
        await app.presence("subscribed", sender=ANA)
        await app.presence(None, sender=ANA)
        say(ben_says, "sees ana: available (ana had asked for ben, so that is agreed)")

        app.send("<presence><show>dnd</show><status>In the theatre</status></presence>")
        say(ben_says, "sets do-not-disturb")
        await phone.wait_for_presence(BEN, "Busy")
        say(ana_says, "sees ben: Busy")

        await phone.command("presence_offline")
        say(ana_says, "switches the phone's presence to offline")
        await app.presence("unavailable", sender=ANA)
        say(ben_says, "sees ana: offline")
        await phone.command("presence_online")
        await app.presence(None, sender=ANA)
        say(ben_says, "sees ana: available")

        await phone.send_message(BEN, "Shall we talk at six?")
        say(ana_says, "writes: Shall we talk at six?")
        received = await app.message("Shall we talk at six?", sender=ANA)
        say(ben_says, f"reads: Shall we talk at six?   (id {received.get('id', '')[:12]})")

        receipt = "<request xmlns='urn:xmpp:receipts'/>"
        app.send_message(ANA, "Gladly. I call you.", stanza_id="answer-1", extra=receipt)
        say(ben_says, "writes: Gladly. I call you.   (and asks for a receipt)")
        await phone.wait_for_message("Gladly. I call you.")
        say(ana_says, "reads: Gladly. I call you.")
        await app.marked("{urn:xmpp:receipts}received", "answer-1")
        say(ben_says, "gets the receipt: it is on ana's phone")

        await phone.stop()
        say(ana_says, "goes home: the phone is off")
        app.send_message(ANA, "One more thing: bring the papers.", stanza_id="answer-2", extra=receipt)
        say(ben_says, "writes: One more thing: bring the papers.")
        again = isthmus.phone(ANA, BEN)
        await again.start()
        phone = again
        await phone.wait_for_message("bring the papers")
        say(ana_says, "comes back, and reads: One more thing: bring the papers.")
        await app.marked("{urn:xmpp:receipts}received", "answer-2")
        say(ben_says, "gets the receipt only now")

        explained = await isthmus.cli("explain", ANA, BEN)
        say("administrator", "asks `isthmus explain ana@corp.test ben@people.test`:")
        for line in explained.splitlines():
            say("", line)
    finally:
        await phone.stop()
        await app.stop()
        await isthmus.stop()
