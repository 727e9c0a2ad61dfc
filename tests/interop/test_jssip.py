"""ana@corp.test uses a web page: JsSIP over WebSocket (RFC 7118)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.certificates import TestAuthority
from tests.support.isthmus_process import PASSWORD, IsthmusProcess
from tests.support.jssip import JsSip, needs_jssip
from tests.support.prosody import needs_prosody
from tests.support.stage import Stage

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module"), needs_jssip, needs_prosody]

ANA, TOM, BEN = "ana@corp.test", "tom@corp.test", "ben@people.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    folder = tmp_path_factory.mktemp("isthmus")
    tls = TestAuthority(folder).issue("corp.test", "localhost")
    async with IsthmusProcess(folder, tls=tls).running() as installation:
        await installation.add_people(ANA, TOM, consumers=(BEN,))
        yield installation


async def page(stage: Stage, address: str, password: str = PASSWORD, *, is_encrypted: bool = False) -> JsSip:
    isthmus = stage.isthmus
    if is_encrypted:
        authority = isthmus.folder / "test-authority.pem"
        made = JsSip(f"wss://localhost:{isthmus.wss_port}", address, password, authority)
    else:
        made = JsSip(f"ws://127.0.0.1:{isthmus.ws_port}", address, password)
    stage.leave_at_the_end(made)
    await made.start()
    return made


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["ws", "wss"])
async def test_a_web_page_and_an_app_write_to_each_other(stage: Stage, is_encrypted: bool) -> None:
    ana, ben = await page(stage, ANA, is_encrypted=is_encrypted), await stage.app(BEN)
    await ana.command("message", to=BEN, text="From the browser äöü <&>")
    assert (await ana.expect("sent", "not sent"))["status"] == 202
    await ben.message("From the browser äöü <&>", sender=ANA)
    ben.send_message(ANA, "To the browser äöü &lt;&amp;&gt;")
    received = await ana.message("To the browser äöü <&>")
    assert received["from"] == f"sip:{BEN};gr=app"


async def test_a_message_too_long_for_a_datagram_fits_a_websocket(stage: Stage) -> None:
    """Edge case 18: one message, not pieces."""
    ana, ben = await page(stage, ANA), await stage.app(BEN)
    text = "A long letter. " * 400
    ben.send_message(ANA, text)
    await ana.message(text)
    await ana.command("message", to=BEN, text=text)
    await ben.message(text, sender=ANA)


async def test_a_web_page_and_a_colleagues_phone_write_to_each_other(stage: Stage) -> None:
    ana, tom = await page(stage, ANA), await stage.phone(TOM, ANA)
    await ana.command("message", to=TOM, text="Page to phone")
    await tom.wait_for_message("Page to phone")
    await tom.send_message(ANA, "Phone to page")
    await ana.message("Phone to page")


async def test_a_wrong_password_does_not_sign_in(stage: Stage) -> None:
    with pytest.raises(AssertionError, match="registration failed"):
        await page(stage, ANA, "not the password")


async def test_a_page_that_lost_its_connection_gets_what_it_missed(stage: Stage) -> None:
    """RFC 5626: the binding dies with its flow; the message waits for the next registration."""
    ana, ben = await page(stage, ANA), await stage.app(BEN)
    await ana.command("drop")
    await ana.expect("disconnected")
    ben.send_message(ANA, "Did you miss this?")
    await ana.expect("registered")
    await ana.message("Did you miss this?")
