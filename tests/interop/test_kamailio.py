"""kim@partner.test has a phone (baresip) at a Kamailio that owns partner.test: a routed domain with a real notifier."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.baresip import Baresip
from tests.support.certificates import TestAuthority
from tests.support.isthmus_process import IsthmusProcess
from tests.support.kamailio import PASSWORD, Kamailio, needs_kamailio
from tests.support.processes import free_port
from tests.support.prosody import needs_prosody, private_loopback_address
from tests.support.stage import Stage

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("baresip") is None, reason="baresip is not installed"),
    needs_kamailio,
    needs_prosody,
]

ANA, KIM, LIZ, NOA = "ana@corp.test", "kim@partner.test", "liz@partner.test", "noa@partner.test"
OTTO = "otto@partner.test"
BEN, EVA = "ben@people.test", "eva@people.test"

DOMAIN = """
[[domains]]
name = "partner.test"
kind = "routed"
component_secret = "a-secret-of-the-partner"
peers = [{{ host = "{host}", port = {port}, transport = "{transport}"{names} }}]
"""


@dataclass
class Partnership:
    """Isthmus and the partner's server."""

    isthmus: IsthmusProcess
    kamailio: Kamailio

    def phone(self, address: str, *contacts: str) -> Baresip:
        """A phone that registers with Kamailio and knows nothing of us."""
        folder = self.kamailio.folder.parent / f"{address.partition('@')[0]}-{free_port()}"
        proxy = f"{self.kamailio.host}:{self.kamailio.port}"
        return Baresip(folder, address, PASSWORD, proxy, contacts=contacts, publish_seconds=60)


def over_mutual_tls(folder: Path, host: str, port: int) -> tuple[IsthmusProcess, Kamailio]:
    """Each believes the other's certificate and nothing else: no network is allowed (RFC 5922)."""
    authority, tls_port = TestAuthority(folder), free_port(host=host)
    names = ', tls_names = ["partner.test"]'
    isthmus = IsthmusProcess(
        folder,
        DOMAIN.format(host=host, port=tls_port, transport="tls", names=names),
        environment={"ISTHMUS_SIP__TLS__TRUSTED_AUTHORITIES": str(authority.authority)},
        tls=authority.issue("corp.test"),
    )
    shown = authority.issue("partner.test"), authority.authority
    gateway = f"127.0.0.1:{isthmus.tls_port}"
    return isthmus, Kamailio(folder / "kamailio", "partner.test", host, port, gateway, "tls", shown, tls_port)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["udp", "tcp", "tls"])
async def partnership(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Partnership]:
    folder = tmp_path_factory.mktemp("partner")
    host = private_loopback_address()
    port = free_port(host=host)
    if request.param == "tls":
        isthmus, kamailio = over_mutual_tls(folder, host, port)
    else:
        isthmus = IsthmusProcess(folder, DOMAIN.format(host=host, port=port, transport=request.param, names=""))
        gateway = f"127.0.0.1:{isthmus.sip_port}"
        kamailio = Kamailio(folder / "kamailio", "partner.test", host, port, gateway, request.param)
    try:
        await isthmus.start()
        await kamailio.start()
        await isthmus.add_people(ANA, consumers=(BEN, EVA))
        yield Partnership(isthmus, kamailio)
    finally:
        await kamailio.stop()
        await isthmus.stop()


@pytest.fixture
def isthmus(partnership: Partnership) -> IsthmusProcess:
    return partnership.isthmus


async def enter(stage: Stage, phone: Baresip) -> Baresip:
    stage.leave_at_the_end(phone)
    await phone.start()
    return phone


async def test_a_consumer_watches_and_writes_to_a_phone_at_the_partner(stage: Stage, partnership: Partnership) -> None:
    """State machine A of STANDARDS 1.4 with Kamailio's presence agent as the notifier."""
    ben, phone = await stage.app(BEN), await enter(stage, partnership.phone(KIM, BEN))
    ben.send(f"<presence type='subscribe' to='{KIM}'/>")
    await ben.presence("subscribed", sender=KIM)
    await ben.presence(None, sender=KIM)
    ben.send_message(KIM, "Hello partner", stanza_id="k1")
    await phone.wait_for_message("Hello partner")
    await phone.send_message(BEN, "Hello customer")
    await ben.message("Hello customer", sender=KIM)
    await phone.command("presence_offline")
    await ben.presence("unavailable", sender=KIM)
    await phone.command("presence_online")
    await ben.presence(None, sender=KIM)
    ben.send(f"<presence type='unsubscribe' to='{KIM}'/>")
    await partnership.kamailio.process.wait_for_output(f"SUBSCRIBE for {KIM} expires 0")


async def test_a_phone_at_the_partner_watches_a_consumer(stage: Stage, partnership: Partnership) -> None:
    """State machine B through a proxy that stays in the dialog (Record-Route)."""
    eva, phone = await stage.app(EVA), await enter(stage, partnership.phone(LIZ, EVA))
    await eva.presence("subscribe", sender=LIZ)
    eva.send(f"<presence type='subscribed' to='{LIZ}'/>")
    await phone.wait_for_presence(EVA, "Online")
    eva.send("<presence><show>dnd</show></presence>")
    await phone.wait_for_presence(EVA, "Busy")


async def test_a_colleague_of_the_company_and_the_partner_write_to_each_other(
    stage: Stage, partnership: Partnership
) -> None:
    """A hosted and a routed domain of one installation; no XMPP is on the way."""
    ana, noa = await stage.phone(ANA, NOA), await enter(stage, partnership.phone(NOA, ANA))
    await ana.send_message(NOA, "From the company")
    await noa.wait_for_message("From the company")
    await noa.send_message(ANA, "From the partner")
    await ana.wait_for_message("From the partner")


async def test_a_message_to_a_phone_that_is_off_waits_for_it(stage: Stage, partnership: Partnership) -> None:
    """Kamailio says 480: we keep the message and try again after five seconds (edge case 26)."""
    ben = await stage.app(BEN, "other")
    ben.send_message(OTTO, "Are you there?", stanza_id="off-1")
    await partnership.kamailio.process.wait_for_output(f"MESSAGE for {OTTO}")
    phone = await enter(stage, partnership.phone(OTTO))
    await phone.wait_for_message("Are you there?")
