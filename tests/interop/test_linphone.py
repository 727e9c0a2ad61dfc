"""Phones of corp.test are Linphone: SHA-256 digests, presence, plain messages, CPIM, and notifications to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.certificates import TestAuthority
from tests.support.isthmus_process import PASSWORD, IsthmusProcess
from tests.support.linphone import Linphone, needs_linphone
from tests.support.prosody import needs_prosody
from tests.support.stage import Stage

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module"), needs_linphone, needs_prosody]

PAIRS = {
    "udp": ("ana@corp.test", "ben@people.test"),
    "tcp": ("tom@corp.test", "eva@people.test"),
    "tls": ("sam@corp.test", "ida@people.test"),
}
UTE, LEO = "ute@corp.test", "leo@people.test"
MIA, TIM = "mia@corp.test", "tim@people.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isthmus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IsthmusProcess]:
    folder = tmp_path_factory.mktemp("isthmus")
    async with IsthmusProcess(folder, tls=TestAuthority(folder).issue("corp.test")).running() as installation:
        employees, consumers = zip(*PAIRS.values(), strict=True)
        await installation.add_people(*employees, UTE, MIA, consumers=(*consumers, LEO, TIM))
        yield installation


async def phone(
    stage: Stage, address: str, *contacts: str, transport: str = "udp", speaks_cpim: bool = False, list_uri: str = ""
) -> Linphone:
    isthmus = stage.isthmus
    folder = isthmus.folder / f"linphone-{transport}-{address.partition('@')[0]}"
    proxy = f"127.0.0.1:{isthmus.tls_port if transport == 'tls' else isthmus.sip_port}"
    authority = isthmus.folder / "test-authority.pem"
    made = Linphone(folder, address, PASSWORD, proxy, transport, contacts, speaks_cpim, authority, list_uri)
    stage.leave_at_the_end(made)
    await made.start()
    return made


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_linphone_registers_with_a_digest_and_meets_a_consumer(stage: Stage, transport: str) -> None:
    employee, consumer = PAIRS[transport]
    app = await stage.app(consumer)
    linphone = await phone(stage, employee, consumer, transport=transport)
    if transport != "tls":  # there the password typed at its prompt makes it forget the better algorithm
        assert "algorithm=SHA-256" in await linphone.wait_for_log(r"Authorization: +Digest [^\n]*")

    await app.presence("subscribe", sender=employee)
    app.send(f"<presence type='subscribed' to='{employee}'/>")
    await linphone.wait_for(f"<sip:{consumer}> is Online")
    app.send(f"<presence type='subscribe' to='{employee}'/>")
    await app.presence("subscribed", sender=employee)
    await app.presence(None, sender=employee)

    await linphone.send_message(consumer, "Hello from Linphone äöü <&>")
    await app.message("Hello from Linphone äöü <&>", sender=employee)
    app.send_message(employee, "Hello Linphone äöü", stanza_id="l1", extra="<request xmlns='urn:xmpp:receipts'/>")
    await linphone.wait_for(f"Message received from sip:{consumer}: Hello Linphone äöü")
    await app.marked("{urn:xmpp:receipts}received", "l1")


async def test_receipts_and_markers_reach_a_linphone_that_asked_for_notifications(stage: Stage) -> None:
    """Edge case 23: delivered and displayed are two truths; CPIM goes to a device that was heard speaking it."""
    leo, linphone = await stage.app(LEO), await phone(stage, UTE, LEO, transport="tcp", speaks_cpim=True)
    await leo.presence("subscribe", sender=UTE)
    leo.send(f"<presence type='subscribed' to='{UTE}'/>")
    await linphone.send_message(LEO, "Tell me when you have read this")
    message = await leo.message("Tell me when you have read this", sender=UTE)
    assert message.find("{urn:xmpp:receipts}request") is not None
    assert message.find("{urn:xmpp:chat-markers:0}markable") is not None
    identifier = message.get("id")
    leo.send(f"<message to='{UTE}' id='r1'><received xmlns='urn:xmpp:receipts' id='{identifier}'/></message>")
    await linphone.wait_for_log("to DeliveredToUser")
    leo.send(f"<message to='{UTE}' id='r2'><displayed xmlns='urn:xmpp:chat-markers:0' id='{identifier}'/></message>")
    await linphone.wait_for_log("to Displayed")

    leo.send_message(UTE, "I have", stanza_id="l2", extra="<request xmlns='urn:xmpp:receipts'/>")
    await linphone.wait_for_log(r"\[CPIM\] Sender authentication successful")
    await linphone.wait_for(": I have")


async def test_a_linphone_watches_its_whole_contact_list_with_one_subscription(stage: Stage) -> None:
    """RFC 4662, RFC 5367; edge case 19: it requires the extension and compresses the list."""
    tim = await stage.app(TIM)
    linphone = await phone(stage, MIA, TIM, UTE, transport="tcp", list_uri="sip:contacts@corp.test")
    await linphone.wait_for_log("Require: recipient-list-subscribe")
    await tim.presence("subscribe", sender=MIA)
    await linphone.wait_for_log(rf"fullState='true'>.*{TIM}'><instance id='1' state='pending'")
    tim.send(f"<presence type='subscribed' to='{MIA}'/>")
    await linphone.wait_for_log(rf"{TIM}'><instance id='1' state='active' cid=")
    await linphone.wait_for_log(r"200 Ok\n(?:[^\n]+\n)*CSeq: 2 NOTIFY")
    assert "body not starting by specified boundary" not in linphone.log
