"""A PBX owns the users of pbx.test (UDP) and branch.test (TCP); SIPp plays it, and strangers who pretend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.isthmus_process import IsthmusProcess
from tests.support.processes import free_port
from tests.support.prosody import needs_prosody, private_loopback_address
from tests.support.sipp import Sipp, SippMessage, needs_sipp, remember, respond, step
from tests.support.stage import Stage

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module"), needs_sipp, needs_prosody]

ANA, BEN, EVA = "ana@corp.test", "ben@people.test", "eva@people.test"

DOMAINS = """
[[domains]]
name = "pbx.test"
kind = "routed"
component_secret = "a-secret-of-the-pbx"
peers = [{{ host = "{host}", port = {udp}, transport = "udp" }}]

[[domains]]
name = "branch.test"
kind = "routed"
component_secret = "a-secret-of-the-branch"
peers = [{{ host = "{host}", port = {tcp}, transport = "tcp" }}]
"""


@dataclass
class Neighbourhood:
    """Isthmus, the PBX on an address of its own, and a stranger on another one."""

    isthmus: IsthmusProcess
    host: str
    ports: dict[str, int]
    folder: Path

    def pbx(self, transport: str) -> Sipp:
        return Sipp(self.folder, self.host, self.ports[transport], self._target, transport)

    def caller(self, transport: str) -> Sipp:
        """The PBX when it sends over TCP: the port of its listener is not that of its connections."""
        return Sipp(self.folder, self.host, free_port(host=self.host), self._target, transport)

    def stranger(self, transport: str = "udp") -> Sipp:
        return Sipp(self.folder, "127.0.0.1", free_port(), self._target, transport)

    @property
    def _target(self) -> str:
        return f"127.0.0.1:{self.isthmus.sip_port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbourhood(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Neighbourhood]:
    folder = tmp_path_factory.mktemp("pbx")
    host = private_loopback_address()
    ports = {transport: free_port(host=host) for transport in ("udp", "tcp")}
    isthmus = IsthmusProcess(folder, DOMAINS.format(host=host, **ports))
    async with isthmus.running():
        await isthmus.add_people(ANA, consumers=(BEN, EVA))
        yield Neighbourhood(isthmus, host, ports, folder)


@pytest.fixture
def isthmus(neighbourhood: Neighbourhood) -> IsthmusProcess:
    return neighbourhood.isthmus


over_both = pytest.mark.parametrize(
    ("transport", "pat"), [("udp", "pat@pbx.test"), ("tcp", "pat@branch.test")], ids=["udp", "tcp"]
)


@over_both
async def test_a_message_comes_in_from_the_pbx(
    neighbourhood: Neighbourhood, stage: Stage, transport: str, pat: str
) -> None:
    ben = await stage.app(BEN)
    answer = await neighbourhood.caller(transport).ask(
        "MESSAGE", f"sip:{BEN}", sender=f"sip:{pat}", status=202, body="Greetings from the desk äöü"
    )
    assert answer.body == ""
    message = await ben.message("Greetings from the desk äöü", sender=pat)
    assert message.get("type") == "chat"


@over_both
async def test_a_message_goes_out_to_the_pbx(
    neighbourhood: Neighbourhood, stage: Stage, transport: str, pat: str
) -> None:
    ben = await stage.app(BEN)
    pbx = neighbourhood.pbx(transport)
    stage.leave_at_the_end(pbx)
    run = await pbx.play('<recv request="MESSAGE"/>' + respond(200, "OK"), is_server=True)
    ben.send_message(pat, "Is the desk staffed? äöü", stanza_id="out-1")
    received = (await run.finished())[0]
    assert received.first_line == f"MESSAGE sip:{pat} SIP/2.0"
    assert received.body == "Is the desk staffed? äöü"
    assert received.header("From").startswith("<sip:ben@people.test;gr=app>;tag=")
    assert received.header("Content-Type").lower() == "text/plain;charset=utf-8"


@over_both
async def test_a_refusal_of_the_pbx_comes_back_as_an_error(
    neighbourhood: Neighbourhood, stage: Stage, transport: str, pat: str
) -> None:
    ben = await stage.app(BEN)
    pbx = neighbourhood.pbx(transport)
    stage.leave_at_the_end(pbx)
    run = await pbx.play('<recv request="MESSAGE"/>' + respond(404, "Not Found"), is_server=True)
    ben.send_message(f"no.{pat}", "Anybody?", stanza_id="lost-1")
    await run.finished()
    error = await ben.expect(lambda s: s.get("id") == "lost-1" and s.get("type") == "error", "the refusal")
    assert error.find("{jabber:client}error/{urn:ietf:params:xml:ns:xmpp-stanzas}item-not-found") is not None


NOTIFY = """NOTIFY sip:[$2] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
Max-Forwards: 70
From: <sip:{presentity}>;tag=[pid]s[call_number]
To: [$1]
Call-ID: [call_id]
CSeq: {number} NOTIFY
Contact: <sip:pbx@[local_ip]:[local_port];transport=[transport]>
Event: presence
Subscription-State: {state}
{type}Content-Length: [len]

{body}"""

PIDF = """<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"
  xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" entity="sip:{presentity}">
<tuple id="desk"><status><basic>open</basic></status></tuple>
<dm:person id="p"><rpid:activities><rpid:busy/></rpid:activities><dm:note>Budget round</dm:note></dm:person>
</presence>
"""


def notifying(presentity: str, number: int, state: str, body: str = "") -> str:
    kind = "Content-Type: application/pidf+xml\n" if body else ""
    text = NOTIFY.format(presentity=presentity, number=number, state=state, type=kind, body=body)
    return step("send", text, 'retrans="500"') + '\n<recv response="200"/>'


@over_both
async def test_presence_of_a_desk_phone_is_subscribed_to_at_the_pbx(
    neighbourhood: Neighbourhood, stage: Stage, transport: str, pat: str
) -> None:
    """State machine A of STANDARDS 1.4: pending says nothing, active grants before it shows, rejected takes it back."""
    eva = await stage.app(EVA)
    pbx = neighbourhood.pbx(transport)
    stage.leave_at_the_end(pbx)
    keep = remember("From", "(.*)", 3, 1) + remember("Contact", "sip:([^>]*)", 4, 2)
    run = await pbx.play(
        f'<recv request="SUBSCRIBE"><action>{keep}</action></recv>\n'
        + respond(200, "OK", "Expires: 600")
        + notifying(pat, 1, "pending;expires=600")
        + notifying(pat, 2, "active;expires=600", PIDF.format(presentity=pat))
        + notifying(pat, 3, "terminated;reason=rejected")
        + '<Reference variables="3,4"/>',
        is_server=True,
    )
    eva.send(f"<presence type='subscribe' to='{pat}'/>")
    subscribe = await run.wait_for("SUBSCRIBE sip:")
    assert subscribe.first_line == f"SUBSCRIBE sip:{pat} SIP/2.0"
    assert subscribe.header("Event") == "presence"
    assert "application/pidf+xml" in subscribe.header("Accept")
    assert int(subscribe.header("Expires")) == 3600
    await eva.presence("subscribed", sender=pat)
    shown = await eva.presence(None, sender=pat, show="dnd")
    assert shown.findtext("{jabber:client}status") == "Budget round"
    await eva.presence("unsubscribed", sender=pat)
    await eva.presence("unavailable", sender=pat)
    await run.finished()


@over_both
async def test_a_neighbour_may_ask_whether_we_are_there(neighbourhood: Neighbourhood, transport: str, pat: str) -> None:
    answer = await neighbourhood.caller(transport).ask(
        "OPTIONS", f"sip:127.0.0.1:{neighbourhood.isthmus.sip_port}", sender=f"sip:{pat}", status=200
    )
    allowed = {method.strip() for method in answer.header("Allow").split(",")}
    assert {"MESSAGE", "SUBSCRIBE", "NOTIFY", "PUBLISH", "REGISTER", "OPTIONS"} <= allowed
    assert "text/plain" in answer.header("Accept")


@over_both
async def test_a_call_to_somebody_without_a_device_is_declined_with_a_reason(
    neighbourhood: Neighbourhood, transport: str, pat: str
) -> None:
    sdp = "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n"
    answer = await neighbourhood.caller(transport).ask(
        "INVITE", f"sip:{ANA}", sender=f"sip:{pat}", status=480, body=sdp, content_type="application/sdp"
    )
    assert answer.first_line != "SIP/2.0 480 Temporarily Unavailable", "the phrase says why"
    assert answer.header("Warning")


@over_both
async def test_what_we_lack_cannot_be_required(neighbourhood: Neighbourhood, transport: str, pat: str) -> None:
    answer = await neighbourhood.caller(transport).ask(
        "INVITE", f"sip:{BEN}", sender=f"sip:{pat}", status=420, headers=("Require: 100rel, precondition",)
    )
    assert answer.header("Unsupported") == "precondition"


# --- receipts: CPIM (RFC 3862) and IMDN (RFC 5438), written by hand so that our own code does not read itself ---

CPIM_TEXT = """From: <im:{sender}>
To: <im:{recipient}>
DateTime: 2026-11-22T17:40:00Z
NS: imdn <urn:ietf:params:imdn>
imdn.Message-ID: {identifier}
imdn.Disposition-Notification: positive-delivery, display

Content-Type: text/plain; charset=utf-8

{text}"""

CPIM_IMDN = """From: <im:{sender}>
To: <im:{recipient}>
DateTime: 2026-11-22T17:41:00Z
NS: imdn <urn:ietf:params:imdn>
imdn.Message-ID: {identifier}

Content-Type: message/imdn+xml
Content-Disposition: notification

<?xml version="1.0" encoding="UTF-8"?>
<imdn xmlns="urn:ietf:params:xml:ns:imdn"><message-id>{about}</message-id><datetime>2026-11-22T17:40:00Z</datetime>
<recipient-uri>im:{sender}</recipient-uri>
<{what}-notification><status><{status}/></status></{what}-notification></imdn>
"""

RECEIVED = "<message to='{to}' id='{id}'><received xmlns='urn:xmpp:receipts' id='{about}'/></message>"
DISPLAYED = "<message to='{to}' id='{id}'><displayed xmlns='urn:xmpp:chat-markers:0' id='{about}'/></message>"
TAKES = '<recv request="MESSAGE"/>'


async def say_in_cpim(neighbourhood: Neighbourhood, transport: str, sender: str, identifier: str, text: str) -> None:
    body = CPIM_TEXT.format(sender=sender, recipient=BEN, identifier=identifier, text=text)
    await neighbourhood.caller(transport).ask(
        "MESSAGE", f"sip:{BEN}", sender=f"sip:{sender}", status=202, body=body, content_type="message/cpim"
    )


@over_both
async def test_receipts_of_a_consumer_reach_a_desk_phone_that_asked(
    neighbourhood: Neighbourhood, stage: Stage, transport: str, pat: str
) -> None:
    """Edge case 23: delivered and displayed are two truths."""
    rita, ben = f"rita.{pat}", await stage.app(BEN)
    await say_in_cpim(neighbourhood, transport, rita, "rita-1", "Tell me when you read this")
    message = await ben.message("Tell me when you read this", sender=rita)
    assert message.get("id") == "rita-1"
    assert message.find("{urn:xmpp:receipts}request") is not None
    assert message.find("{urn:xmpp:chat-markers:0}markable") is not None
    pbx = neighbourhood.pbx(transport)
    stage.leave_at_the_end(pbx)
    for answer, status in ((RECEIVED, "<delivered/>"), (DISPLAYED, "<displayed/>")):
        run = await pbx.play(TAKES + respond(200, "OK"), is_server=True)
        ben.send(answer.format(to=rita, id=f"r-{status[1:4]}", about="rita-1"))
        notification = (await run.finished())[0]
        assert notification.header("Content-Type") == "message/cpim"
        assert "message/imdn+xml" in notification.body
        assert "<message-id>rita-1</message-id>" in notification.body
        assert status in notification.body
        assert "Disposition-Notification" not in notification.body


@over_both
async def test_notifications_of_a_desk_phone_become_receipts_and_markers(
    neighbourhood: Neighbourhood, stage: Stage, transport: str, pat: str
) -> None:
    saul, ben = f"saul.{pat}", await stage.app(BEN)
    await say_in_cpim(neighbourhood, transport, saul, "saul-1", "I speak CPIM")
    await ben.message("I speak CPIM", sender=saul)
    pbx = neighbourhood.pbx(transport)
    stage.leave_at_the_end(pbx)
    run = await pbx.play(TAKES + respond(200, "OK"), is_server=True)
    wishes = "<request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>"
    ben.send_message(saul, "Did you get it?", stanza_id="ben-1", extra=wishes)
    received = (await run.finished())[0]
    assert received.header("Content-Type") == "message/cpim"
    assert "imdn.Message-ID: ben-1" in received.body
    assert "imdn.Disposition-Notification: positive-delivery, display" in received.body
    for what, status, mark in (
        ("delivery", "delivered", "{urn:xmpp:receipts}received"),
        ("display", "displayed", "{urn:xmpp:chat-markers:0}displayed"),
    ):
        body = CPIM_IMDN.format(
            sender=saul, recipient=BEN, identifier=f"saul-{what}", about="ben-1", what=what, status=status
        )
        await neighbourhood.caller(transport).ask(
            "MESSAGE", f"sip:{BEN}", sender=f"sip:{saul}", status=200, body=body, content_type="message/cpim"
        )
        told = await ben.marked(mark, "ben-1")
        assert told.get("from", "").partition("/")[0] == saul


@over_both
@pytest.mark.parametrize("refusal", [(415, "Unsupported Media Type"), (488, "Not Acceptable Here")])
async def test_a_desk_phone_that_refuses_cpim_gets_plain_text(
    neighbourhood: Neighbourhood, stage: Stage, transport: str, pat: str, refusal: tuple[int, str]
) -> None:
    """Edge case 17."""
    theo, ben = f"theo{refusal[0]}.{pat}", await stage.app(BEN)
    await say_in_cpim(neighbourhood, transport, theo, f"theo-{refusal[0]}", "I send what I cannot read")
    await ben.message("I send what I cannot read", sender=theo)
    pbx = neighbourhood.pbx(transport)
    stage.leave_at_the_end(pbx)
    run = await pbx.play(TAKES + respond(*refusal) + TAKES + respond(200, "OK"), is_server=True)
    ben.send_message(theo, "Plainly, then")
    received = [message for message in await run.finished() if message.is_received]
    assert received[0].header("Content-Type") == "message/cpim"
    assert received[-1].header("Content-Type").lower() == "text/plain;charset=utf-8"
    assert received[-1].body == "Plainly, then"


# --- whom we believe ---


@pytest.mark.parametrize("method", ["MESSAGE", "SUBSCRIBE"])
async def test_a_stranger_who_claims_to_be_of_the_pbx_is_refused(neighbourhood: Neighbourhood, method: str) -> None:
    """Edge case 43: the right name from the wrong address."""
    headers = ("Event: presence", "Expires: 600") if method == "SUBSCRIBE" else ()
    answer = await neighbourhood.stranger().ask(
        method, f"sip:{BEN}", sender="sip:pat@pbx.test", status=403, headers=headers, body="Trust me"
    )
    assert "pbx" not in answer.first_line, "no word about who would have been believed"


async def test_the_pbx_cannot_speak_for_a_domain_that_is_not_its_own(neighbourhood: Neighbourhood) -> None:
    """Edge case 43: a hosted user signs in wherever the request comes from; a consumer never sends SIP."""
    pbx = neighbourhood.caller("udp")
    await pbx.ask("MESSAGE", f"sip:{BEN}", sender=f"sip:{ANA}", status=401, body="It is Ana, really")
    await pbx.ask("MESSAGE", f"sip:{ANA}", sender=f"sip:{BEN}", status=403, body="It is Ben, really")


async def test_two_senders_in_one_request_are_a_bad_request(neighbourhood: Neighbourhood) -> None:
    """Edge case 43."""
    doubled = (f"From: <sip:{ANA}>;tag=second",)
    await neighbourhood.caller("udp").ask(
        "MESSAGE", f"sip:{BEN}", sender="sip:pat@pbx.test", status=400, headers=doubled, body="Who am I?"
    )


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("method", ["MESSAGE", "SUBSCRIBE", "PUBLISH", "REGISTER"])
async def test_whoever_claims_to_be_a_user_is_asked_for_a_digest(
    neighbourhood: Neighbourhood, method: str, transport: str
) -> None:
    headers = () if method in ("MESSAGE", "REGISTER") else ("Event: presence", "Expires: 600")
    uri = {"PUBLISH": f"sip:{ANA}", "REGISTER": "sip:corp.test"}.get(method, f"sip:{BEN}")
    body = "Hi" if method == "MESSAGE" else ""
    answer = await neighbourhood.stranger(transport).ask(
        method, uri, sender=f"sip:{ANA}", status=401, headers=headers, body=body
    )
    assert answer.header("WWW-Authenticate").startswith('Digest realm="corp.test"')


async def test_who_exists_cannot_be_found_out(neighbourhood: Neighbourhood) -> None:
    """Edge case 46: the same challenge for a user and for nobody, and the same answer about both to the PBX."""
    stranger = neighbourhood.stranger()
    challenges = [
        await stranger.ask("MESSAGE", f"sip:{BEN}", sender=f"sip:{name}@corp.test", status=401, body="Hi")
        for name in ("ana", "nobody")
    ]
    assert _shape(challenges[0]) == _shape(challenges[1])
    requests = [
        await stranger.ask("OPTIONS", f"sip:{name}@corp.test", sender="sip:x@example.test", status=200)
        for name in ("ana", "nobody")
    ]
    assert _shape(requests[0]) == _shape(requests[1])


def _shape(message: SippMessage) -> list[str]:
    """Status line and header names: what is left of an answer without what differs in any two."""
    head = message.text.replace("\r\n", "\n").partition("\n\n")[0].split("\n")
    return [head[0], *(line.partition(":")[0] for line in head[1:])]
