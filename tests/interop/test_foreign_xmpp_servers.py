"""carl@elsewhere.test lives on another company's XMPP server, reached by s2s with certificates: Prosody or ejabberd."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from tests.support.certificates import TestAuthority
from tests.support.ejabberd import EjabberdServer, needs_ejabberd
from tests.support.isthmus_process import IsthmusProcess
from tests.support.prosody import S2S_PORT, ProsodyServer, needs_prosody, private_loopback_address
from tests.support.stage import Stage
from tests.support.xmpp_client import XmppClient

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("baresip") is None, reason="baresip is not installed"),
    needs_prosody,
]

ANA, TOM, UTE = (f"{name}@corp.test" for name in ("ana", "tom", "ute"))
CARL, DINA, ELLA = (f"{name}@elsewhere.test" for name in ("carl", "dina", "ella"))
SERVICE = "isthmus@corp.test"
ACCOUNTS = {address.partition("@")[0]: "pw" for address in (CARL, DINA, ELLA)}
OURS, THEIRS = ("people.test", "corp.test"), "elsewhere.test"


class ForeignServer(Protocol):
    """What a play needs to know of the other company's server."""

    interface: str
    c2s_port: int

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass
class Federation:
    """Isthmus with its Prosody, the other server, and the names they find each other by."""

    isthmus: IsthmusProcess
    elsewhere: ForeignServer


def foreign_server(kind: str, folder: Path, authority: TestAuthority, ours: str, theirs: str) -> ForeignServer:
    issued = authority.issue(THEIRS)
    hosts = {**dict.fromkeys(OURS, ours), THEIRS: theirs}
    if kind == "ejabberd":
        return EjabberdServer(folder / "ejabberd", THEIRS, issued, authority.authority, ACCOUNTS, theirs, hosts)
    directory = folder / "prosody"
    directory.mkdir()
    trust = (
        f'ssl = {{ certificate = "{issued.certificate}", key = "{issued.private_key}",'
        f' cafile = "{authority.authority}" }}\ns2s_secure_auth = true'
    )
    return ProsodyServer(directory, THEIRS, {}, ACCOUNTS, interface=theirs, hosts=hosts, options=trust)


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["prosody", pytest.param("ejabberd", marks=needs_ejabberd)]
)
async def federation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Federation]:
    folder = tmp_path_factory.mktemp(request.param)
    authority = TestAuthority(folder)
    ours, theirs = private_loopback_address(), private_loopback_address()
    (folder / "hosts").write_text(f"{theirs} {THEIRS}\n")
    isthmus = IsthmusProcess(
        folder,
        xmpp_interface=ours,
        environment={
            "ISTHMUS_XMPP__S2S_PORT": str(S2S_PORT),
            "ISTHMUS_XMPP__HOSTS_FILE": str(folder / "hosts"),
            "ISTHMUS_XMPP__TRUSTED_AUTHORITIES": str(authority.authority),
        },
    )
    await isthmus.initialise()
    isthmus.install_certificate("people.test", authority.issue(*OURS))
    elsewhere = foreign_server(request.param, folder, authority, ours, theirs)
    try:
        await elsewhere.start()
        await isthmus.start()
        await isthmus.add_people(ANA, TOM, UTE)
        yield Federation(isthmus, elsewhere)
    finally:
        await isthmus.stop()
        await elsewhere.stop()


@pytest.fixture
def isthmus(federation: Federation) -> IsthmusProcess:
    return federation.isthmus


async def sign_in(stage: Stage, federation: Federation, address: str) -> XmppClient:
    server = federation.elsewhere
    client = XmppClient(f"{address}/app", "pw", server.interface, server.c2s_port)
    stage.leave_at_the_end(client)
    await client.start()
    return client


async def test_a_phone_adds_a_person_elsewhere_and_they_talk(stage: Stage, federation: Federation) -> None:
    carl = await sign_in(stage, federation, CARL)
    phone = await stage.phone(ANA, CARL)
    await carl.presence("subscribe", sender=ANA)
    carl.send(f"<presence type='subscribed' to='{ANA}'/>")
    await phone.wait_for_presence(CARL, "Online")
    await phone.send_message(CARL, "Hello over there")
    await carl.message("Hello over there", sender=ANA)
    carl.send_message(ANA, "Hello yourself")
    await phone.wait_for_message("Hello yourself")
    carl.send("<presence><show>dnd</show></presence>")
    await phone.wait_for_presence(CARL, "Busy")


async def test_a_person_elsewhere_adds_a_phone(stage: Stage, federation: Federation) -> None:
    phone, dina = await stage.phone(TOM, SERVICE), await sign_in(stage, federation, DINA)
    dina.send(f"<presence type='subscribe' to='{TOM}'/>")
    await phone.wait_for_message(DINA)
    await phone.send_message(SERVICE, "accept")
    await dina.presence("subscribed", sender=TOM)
    await dina.presence(None, sender=TOM)
    dina.send_message(TOM, "Thanks", stanza_id="m1", extra="<request xmlns='urn:xmpp:receipts'/>")
    await phone.wait_for_message("Thanks")
    await dina.marked("{urn:xmpp:receipts}received", "m1")
    await phone.command("presence_offline")
    await dina.presence("unavailable", sender=TOM)


async def test_blocking_the_domain_ends_what_lives_at_once_and_allowing_brings_it_back(
    stage: Stage, federation: Federation
) -> None:
    """Edge cases 13 and 47."""
    ella = await sign_in(stage, federation, ELLA)
    phone = await stage.phone(UTE, ELLA)
    await ella.presence("subscribe", sender=UTE)
    ella.send(f"<presence type='subscribed' to='{UTE}'/>")
    ella.send(f"<presence type='subscribe' to='{UTE}'/>")
    await ella.presence(None, sender=UTE)
    await phone.wait_for_presence(ELLA, "Online")

    planned = await stage.isthmus.cli("domain", "block", "elsewhere.test", "--dry-run")
    assert UTE in planned
    assert ELLA in planned
    await stage.isthmus.cli("domain", "block", "elsewhere.test")
    gone = await ella.presence("unavailable", sender=UTE)
    assert "elsewhere.test" in (gone.findtext("{jabber:client}status") or ""), "hidden by policy says so"
    await phone.wait_for_presence(ELLA, "Unknown")
    ella.send_message(UTE, "Does this arrive?", stanza_id="blocked-1")
    refusal = await ella.expect(lambda s: s.get("id") == "blocked-1" and s.get("type") == "error", "a refusal")
    assert "elsewhere.test" in "".join(refusal.itertext())
    await phone.send_message(ELLA, "And this?")
    await phone.process.wait_for_output("SIP/2.0 403")
    assert "domain.blocked" in await stage.isthmus.cli("explain", UTE, ELLA)

    await stage.isthmus.cli("domain", "allow", "elsewhere.test")
    await ella.presence(None, sender=UTE)
    ella.send_message(UTE, "There we are again")
    await phone.wait_for_message("There we are again")
    assert "Does this arrive?" not in phone.process.output()


async def test_a_server_whose_certificate_nobody_vouches_for_gets_nothing_in(
    stage: Stage, federation: Federation, tmp_path: Path
) -> None:
    """Edge case 44: its own authority is not one of ours, so it cannot be who it says."""
    address = private_loopback_address()
    hosts = {**dict.fromkeys(OURS, federation.isthmus.xmpp_interface), "impostor.test": address}
    impostor = ProsodyServer(tmp_path, "impostor.test", {}, {"mallory": "pw"}, interface=address, hosts=hosts)
    await impostor.start()
    stage.leave_at_the_end(impostor)
    mallory = XmppClient("mallory@impostor.test/app", "pw", address, impostor.c2s_port)
    stage.leave_at_the_end(mallory)
    await mallory.start()
    mallory.send_message(ANA, "Trust me", stanza_id="m1")
    await mallory.expect(lambda s: s.get("id") == "m1" and s.get("type") == "error", "a refusal")
    assert "nothing has crossed" in await stage.isthmus.cli("explain", ANA, "mallory@impostor.test")
