"""Callees played by SIPp: what answers an INVITE, well or in ways that hurt. `play_call` runs them as servers."""

from __future__ import annotations

from pathlib import Path

from tests.support.sipp import step
from tests.support.sipp_call_steps import HERE, answer, pause, receive, respond_in_dialog, response, say, session

_RING = answer(180, "Ringing")
_ENDED = receive("BYE") + respond_in_dialog(200, "OK")
_KEEP_PARTIES = (
    '<ereg regexp=".*" search_in="hdr" header="From:" assign_to="1"/>'
    '<ereg regexp=".*" search_in="hdr" header="To:" assign_to="2"/>'
    '<ereg regexp="sip:[^&gt;]*" search_in="hdr" header="Contact:" assign_to="3"/>'
)


_KEEP_CSEQ = '<ereg regexp="[0-9]+ INVITE" search_in="hdr" header="CSeq:" assign_to="4"/>'
_KEEP_VIA = '<ereg regexp=".*" search_in="hdr" header="Via:" assign_to="5"/>'


def request_from_callee(method: str, number: int, *headers: str, sdp: str = "") -> str:
    """A request in the dialog of an INVITE that was received with `_KEEP_PARTIES`."""
    lines = [
        f"{method} [$3] SIP/2.0",
        "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]",
        "Max-Forwards: 70",
        "From:[$2];tag=[pid]a[call_number]",
        "To:[$1]",
        "Call-ID: [call_id]",
        f"CSeq: {number} {method}",
        f"Contact: <{HERE}>",
        *headers,
        *(["Content-Type: application/sdp"] if sdp else []),
        "Content-Length: [len]",
    ]
    return step("send", "\n".join(lines) + f"\n\n{sdp}", 'retrans="500"' if method != "ACK" else "")


def echoes(milliseconds: int = 0) -> str:
    """Rings, answers, and (with `-rtp_echo`) sends back what it hears until the caller hangs up."""
    ok = answer(200, "OK", sdp=session(port="[media_port]"))
    return "".join((receive("INVITE"), _RING, pause(milliseconds), ok, receive("ACK"), _ENDED))


def speaks(sound: Path) -> str:
    """Answers at once and says a tone until the caller hangs up."""
    return "".join((receive("INVITE"), answer(200, "OK", sdp=session()), receive("ACK"), say(sound), _ENDED))


def refuses(status: int, reason: str, *headers: str, contact: str = HERE) -> str:
    """A final answer to the INVITE: 486, 603, or 302 to another `contact`."""
    return "".join((receive("INVITE"), answer(status, reason, *headers, contact=contact), receive("ACK")))


def rings_until_cancelled() -> str:
    """Rings; the CANCEL gets its 200, the INVITE its 487."""
    ok, gone = answer(200, "OK"), answer(487, "Request Terminated", cseq="CSeq: [$4]")
    return "".join((receive("INVITE", _KEEP_CSEQ), _RING, receive("CANCEL"), ok, gone, receive("ACK")))


def answers_although_cancelled() -> str:
    """Rings, and the 200 crosses the CANCEL: the caller must acknowledge and end the call (RFC 3261 section 9.1)."""
    crossing, ok = answer(200, "OK", sdp=session(), cseq="CSeq: [$4]"), answer(200, "OK")
    # The 200 of the CANCEL goes first, as the ACK may come before SIPp has sent the next message.
    return "".join((receive("INVITE", _KEEP_CSEQ), _RING, receive("CANCEL"), ok, crossing, receive("ACK"), _ENDED))


def answers_twice() -> str:
    """Two phones behind a proxy answer: both dialogs are acknowledged, and the second one is ended.

    RFC 3261 section 13.2.2.4. The first one then goes on.
    """
    first = answer(200, "OK", sdp=session())
    second = answer(200, "OK", sdp=session(), tag="b", via="Via:[$5]", cseq="CSeq: [$4]").replace(
        "[last_To:]", "To:[$6]"
    )
    keep_to = '<ereg regexp=".*" search_in="hdr" header="To:" assign_to="6"/>'
    called = receive("INVITE", _KEEP_CSEQ, _KEEP_VIA, keep_to)
    return "".join((called, first, receive("ACK"), second, receive("ACK"), _ENDED, _ENDED))


def rings_reliably(sound: Path) -> str:
    """183 with early media that must be acknowledged (RFC 3262), a tone in it, then the answer."""
    early = answer(183, "Session Progress", "Require: 100rel", "RSeq: 1", sdp=session())
    ok = answer(200, "OK", tag="", via="Via:[$5]", cseq="CSeq: [$4]")  # To of the PRACK has our tag
    return "".join(
        (
            receive("INVITE", _KEEP_CSEQ, _KEEP_VIA),
            early,
            receive("PRACK"),
            respond_in_dialog(200, "OK"),
            say(sound),
            pause(1_000),
            ok,
            receive("ACK"),
            _ENDED,
        )
    )


def hangs_up_before_the_ack() -> str:
    """BYE right behind the 200: it may overtake the ACK (RFC 3261 section 15)."""
    return "".join(
        (
            receive("INVITE", _KEEP_PARTIES),
            answer(200, "OK", sdp=session()),
            request_from_callee("BYE", 1),
            receive("ACK", is_optional=True),
            response(200),
        )
    )


def holds(milliseconds: int) -> str:
    """Answers, holds with inactive, resumes, and is hung up on."""
    steps = [receive("INVITE", _KEEP_PARTIES), answer(200, "OK", sdp=session()), receive("ACK"), pause(milliseconds)]
    for number, direction in ((1, "inactive"), (2, "sendrecv")):
        steps.append(request_from_callee("INVITE", number, sdp=session(direction=direction, version=number + 1)))
        steps += [response(100, is_optional=True), response(200), request_from_callee("ACK", number)]
        steps.append(pause(milliseconds))
    return "".join((*steps, _ENDED))


def is_glared(direction: str = "sendonly") -> str:
    """Answers, and offers something just when the other side does: that one refuses, and so do we.

    RFC 3261 section 14.2: the call goes on as it was; the other side tries again, and is heard.
    """
    refused = answer(491, "Request Pending", tag="", via="Via:[$5]", cseq="CSeq: [$4]")
    ack = request_from_callee("ACK", 1).replace("[branch]", "[branch-2]")
    return "".join(
        (
            receive("INVITE", _KEEP_PARTIES),
            answer(200, "OK", sdp=session()),
            receive("ACK"),
            receive("INVITE", _KEEP_CSEQ, _KEEP_VIA),
            request_from_callee("INVITE", 1, sdp=session(direction=direction, version=2)),
            response(491),
            ack,
            refused.replace("[last_From:]", "From:[$1]").replace("[last_To:]", "To:[$2];tag=[pid]a[call_number]"),
            receive("ACK"),
            receive("INVITE"),
            respond_in_dialog(200, "OK", sdp=session(version=2)),
            receive("ACK"),
            _ENDED,
        )
    )


def offers_without_offer(milliseconds: int) -> str:
    """Answers, and sends a re-INVITE without an offer, as a PBX does that resumes a call or connects it elsewhere."""
    return "".join(
        (
            receive("INVITE", _KEEP_PARTIES),
            answer(200, "OK", sdp=session()),
            receive("ACK"),
            pause(milliseconds),
            request_from_callee("INVITE", 1),
            response(100, is_optional=True),
            response(200),
            request_from_callee("ACK", 1, sdp=session(version=2)),
            _ENDED,
        )
    )


def is_redirected_and_rings(contact: str) -> str:
    """302 to another desk of the same PBX, where the call is then taken."""
    return "".join(
        (
            receive("INVITE"),
            answer(302, "Moved Temporarily", contact=contact),
            receive("ACK"),
            receive("INVITE"),
            answer(200, "OK", sdp=session(), tag="b"),
            receive("ACK"),
            _ENDED,
        )
    )
