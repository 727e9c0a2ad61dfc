"""ana@corp.test with a SIP phone (baresip) and ben@people.test with an XMPP app (Jingle) call each other.

Each says a tone; "hears" is printed only when that tone was found in what the other device received and decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.demo.telling import ANA, BEN, say_aloud
from tests.support.baresip_calls import PCMA, PCMU, CallPhone
from tests.support.call_stage import CallStage
from tests.support.isthmus_process import IsthmusProcess
from tests.support.jingle_call import JingleCall
from tests.support.jingle_client import JingleClient
from tests.support.jingle_media import use_addresses

TOM = "tom@corp.test"
_ANA, _BEN, _TOM = "ana (baresip, SIP)", "ben (Jingle app, XMPP)", "tom (baresip, SIP)"
_ANA_HERTZ, _BEN_HERTZ, _TOM_HERTZ = 440, 1_000, 600

Say = Callable[[str, str], None]


async def tell(folder: Path, say: Say = say_aloud) -> None:
    """Make the calls; every line printed was seen or heard by a real client."""
    use_addresses("127.0.0.1")
    isthmus = IsthmusProcess(folder)
    stage = CallStage(isthmus)
    try:
        await isthmus.start()
        await isthmus.add_people(ANA, TOM, consumers=(BEN,))
        say("isthmus", "started with its own Prosody, rtpengine and coturn; three accounts made")
        await stage.make_contacts(ANA, BEN)
        say("isthmus", "ana and ben are contacts of each other")
        phone = await stage.call_phone(ANA, hertz=_ANA_HERTZ, codecs=(PCMU,))
        say(_ANA, f"registered; takes PCMU over plain RTP, and says {_ANA_HERTZ} Hz")
        app = await stage.call_app(BEN, hertz=_BEN_HERTZ, audio=("opus",))
        say(_BEN, f"signed in; takes Opus over ICE and DTLS-SRTP alone, and says {_BEN_HERTZ} Hz")
        await _app_calls_phone(app, phone, say)
        call = await _phone_calls_app(phone, app, say)
        await _hold(phone, call, say)
        await _transfer(stage, phone, call, say)
        await _records(isthmus, say)
    finally:
        await stage.clear()
        await isthmus.stop()


async def _app_calls_phone(app: JingleClient, phone: CallPhone, say: Say) -> None:
    call = await app.call(ANA)
    say(_BEN, "calls ana@corp.test")
    await phone.rings()
    say(_ANA, "rings: ben@people.test calls")
    await call.is_ringing()
    say(_BEN, "hears that it rings")
    await phone.answer()
    await phone.is_in_call()
    await call.is_accepted()
    say(_ANA, "takes the call")
    await _hear_each_other(phone, call, say)
    seen = await app.presence(None, sender=ANA, show="dnd")
    say(_BEN, f"sees ana: {seen.findtext('{jabber:client}status')}")
    await call.hang_up()
    await phone.is_over()
    say(_BEN, "hangs up; ana's phone is idle again")


async def _phone_calls_app(phone: CallPhone, app: JingleClient, say: Say) -> JingleCall:
    await phone.dial(BEN)
    say(_ANA, "dials ben@people.test")
    call = await app.incoming()
    say(_BEN, f"rings: ana@corp.test calls, with {' and '.join(call.media)}")
    await call.ring()
    await phone.hears_ringing()
    say(_ANA, "hears that it rings")
    await call.accept()
    await phone.is_in_call()
    say(_BEN, "takes the call")
    await _hear_each_other(phone, call, say)
    return call


async def _hear_each_other(phone: CallPhone, call: JingleCall, say: Say) -> None:
    await call.hears(_ANA_HERTZ)
    say(_BEN, f"hears ana: {call.heard().last(0.5).hertz:.0f} Hz")
    await phone.hears(_BEN_HERTZ)
    say(_ANA, f"hears ben: {phone.heard().last(0.5).hertz:.0f} Hz")


async def _hold(phone: CallPhone, call: JingleCall, say: Say) -> None:
    await phone.hold()
    await call.told("content-modify")
    say(_ANA, "holds; ben's app is told (content-modify), and sends nothing")
    await phone.resume()
    await call.told("content-modify")
    await phone.goes_on_hearing()
    say(_ANA, "is back; sound arrives again")


async def _transfer(stage: CallStage, phone: CallPhone, call: JingleCall, say: Say) -> None:
    colleague = await stage.call_phone(TOM, hertz=_TOM_HERTZ, codecs=(PCMA,))
    say(_TOM, f"registered; takes PCMA over plain RTP, and says {_TOM_HERTZ} Hz")
    await phone.transfer(TOM)
    say(_ANA, "transfers the call to tom (REFER)")
    await colleague.rings()
    await colleague.answer()
    await colleague.is_in_call()
    await phone.is_over()
    say(_TOM, "takes it; ana's phone is out of the call")
    await call.hears(_TOM_HERTZ)
    say(_BEN, f"hears tom, in the same session: {call.heard().last(0.5).hertz:.0f} Hz")
    await colleague.hears(_BEN_HERTZ)
    say(_TOM, f"hears ben: {colleague.heard().last(0.5).hertz:.0f} Hz")
    await colleague.hang_up()
    reason = await call.is_over()
    say(_TOM, f"hangs up; ben's app is told: {reason}")


async def _records(isthmus: IsthmusProcess, say: Say) -> None:
    say("administrator", "asks `isthmus call list`:")
    for line in (await isthmus.cli("call", "list")).splitlines():
        say("", line)
