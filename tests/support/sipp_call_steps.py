"""The pieces that a call played by SIPp is made of; `sipp_callers` and `sipp_callees` put them together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.support.sipp import SECONDS, Sipp, SippRun, step
from tests.support.tones import tone

PCMU = "0 PCMU/8000"
TELEPHONE_EVENT = "101 telephone-event/8000"
RATE = 8_000
HERE = "sip:sipp@[local_ip]:[local_port];transport=[transport]"


def pause(milliseconds: int) -> str:
    return f'<pause milliseconds="{milliseconds}"/>'


def receive(request: str, *actions: str, is_optional: bool = False) -> str:
    """Wait for a request."""
    return _receive(f'request="{request}"', actions, is_optional)


def response(status: int, *actions: str, is_optional: bool = False) -> str:
    """Wait for a response."""
    return _receive(f'response="{status}" rrs="true"', actions, is_optional)


def _receive(what: str, actions: Iterable[str], is_optional: bool) -> str:
    optional = ' optional="true"' if is_optional else ""
    inner = "".join(actions)
    return f"<recv {what}{optional}>{f'<action>{inner}</action>' if inner else ''}</recv>"


def say(sound: Path) -> str:
    """Start to send a raw mu-law file again and again."""
    return f'<nop><action><exec rtp_stream="{sound},-1,0"/></action></nop>'


def write_mu_law(path: Path, hertz: float, seconds: float) -> Path:
    """A tone as raw G.711 mu-law (ITU-T G.711 table 2a), 8000 samples a second."""
    samples = tone(hertz, seconds, RATE).astype(np.int32)
    sign = np.where(samples < 0, 0x80, 0)
    magnitude = np.minimum(np.abs(samples), 32_635) + 132
    segment = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (segment + 3)) & 0x0F
    path.write_bytes((~(sign | segment << 4 | mantissa) & 0xFF).astype(np.uint8).tobytes())
    return path


def session(
    *,
    direction: str = "sendrecv",
    port: str = "[rtpstream_audio_port]",
    version: int = 1,
    codecs: Iterable[str] = (PCMU,),
) -> str:
    """An SDP with one audio stream in plain RTP."""
    kept = [codec.partition(" ") for codec in codecs]
    maps = "".join(f"a=rtpmap:{number} {name}\n" for number, _, name in kept)
    return (
        f"v=0\no=sipp 1 {version} IN IP[local_ip_type] [local_ip]\ns=-\nc=IN IP[media_ip_type] [media_ip]\nt=0 0\n"
        f"m=audio {port} RTP/AVP {' '.join(number for number, _, _ in kept)}\n{maps}a={direction}\n"
    )


def respond_in_dialog(status: int, reason: str, *headers: str, sdp: str = "") -> str:
    """Answer a request of the other side; its To has our tag already."""
    return answer(status, reason, *headers, sdp=sdp, tag="")


def answer(
    status: int,
    reason: str,
    *headers: str,
    sdp: str = "",
    tag: str = "a",
    via: str = "[last_Via:]",
    cseq: str = "[last_CSeq:]",
    contact: str = HERE,
) -> str:
    """Answer the first INVITE.

    Args:
        tag: another one is another dialog (a fork); "" when To has one already.
        via, cseq: of the INVITE, when another request came after it.
    """
    lines = [
        f"SIP/2.0 {status} {reason}",
        via,
        "[last_Record-Route:]",
        "[last_From:]",
        f"[last_To:];tag=[pid]{tag}[call_number]" if tag else "[last_To:]",
        "[last_Call-ID:]",
        cseq,
        f"Contact: <{contact}>",
        *headers,
        *(["Content-Type: application/sdp"] if sdp else []),
        "Content-Length: [len]",
    ]
    return step("send", "\n".join(lines) + f"\n\n{sdp}")


async def play_call(
    sipp: Sipp, scenario: str, *, is_server: bool = False, echo: bool = False, seconds: float = SECONDS
) -> SippRun:
    """Run one of these with media ports of its own."""
    return await sipp.play(scenario, is_server=is_server, has_media=True, echoes_media=echo, seconds=seconds)
