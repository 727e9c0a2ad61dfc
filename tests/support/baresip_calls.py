"""baresip with a voice, a camera and ears: a sine tone as its microphone, what it hears in a file, real codecs."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.baresip import Baresip
from tests.support.processes import wait_until
from tests.support.tones import NOTHING, Sound, read_wave, wait_for_tone

PCMU, PCMA, G722, OPUS = "PCMU/8000/1", "PCMA/8000/1", "G722/8000/1", "opus/48000/2"
MODULES = Path("/usr/lib/baresip/modules")

needs_baresip = pytest.mark.skipif(shutil.which("baresip") is None, reason="baresip is not installed")
needs_baresip_video = pytest.mark.skipif(
    not (MODULES / "avcodec.so").exists(), reason="baresip's video modules (baresip-ffmpeg) are not installed"
)

# The menu's status line is written ten times a second over itself, into the log of a failed test.
_CONFIGURATION = """\
statmode_default off
call_local_timeout 60
ausrc_format s16
auplay_format s16
jitter_buffer_type fixed
jitter_buffer_delay 1-5
opus_bitrate 28000
module g722.so
module opus.so
module sndfile.so
snd_path {recordings}
module stun.so
module turn.so
module ice.so
module srtp.so
module dtls_srtp.so
"""

_VIDEO = """\
module {codec}.so
module fakevideo.so
video_source fakevideo,camera
video_display fakevideo,screen
video_size 320x240
video_fps 15
videnc_format yuv420p
"""

_VIDEO_CODECS = {"VP8": "vp8", "H264": "avcodec"}


@dataclass
class CallPhone(Baresip):
    """A baresip for calls.

    Args:
        hertz: the tone that it says.
        codecs: audio codecs in its order of preference.
        encryption: "" for plain RTP, `srtp-mand` or `srtp` (SDES, required or wished), `dtls_srtp`.
        nat: "" or `ice`; ICE needs an interface besides loopback.
        video: "", `VP8` or `H264`.
        is_answering: takes every call at once; otherwise `answer` does.
    """

    hertz: int = 440
    codecs: tuple[str, ...] = (PCMU,)
    encryption: str = ""
    nat: str = ""
    video: str = ""
    is_answering: bool = False

    @property
    def uri(self) -> str:
        """Where it is reached without a proxy."""
        return f"sip:{self.address.partition('@')[0]}@127.0.0.1:{self.sip_port}"

    @property
    def _recordings(self) -> Path:
        return self.folder / "recordings"

    def account(self) -> str:
        parameters = [f"audio_codecs={','.join(self.codecs)}", "ptime=20"]
        if self.encryption:
            parameters.append(f"mediaenc={self.encryption}")
        if self.nat:
            parameters.append(f"medianat={self.nat}")
        if self.video:
            parameters.append(f"video_codecs={self.video.lower()}")
        parameters.append(f"answermode={'auto' if self.is_answering else 'manual'}")
        return ";".join((super().account(), *parameters))

    def configuration(self, control_port: int) -> str:
        self._recordings.mkdir(exist_ok=True)
        text = super().configuration(control_port).replace("ausine,440", f"ausine,{self.hertz}")
        text += _CONFIGURATION.format(recordings=self._recordings)
        return text + (_VIDEO.format(codec=_VIDEO_CODECS[self.video]) if self.video else "")

    async def dial(self, target: str) -> None:
        """Call a SIP address (`ben@people.test`) or URI."""
        await self.command("dial", target if target.startswith("sip:") else f"sip:{target}")

    async def answer(self) -> None:
        """Take the call that rings here."""
        await self.command("accept")

    async def hang_up(self) -> None:
        """End the current call, or decline the one that rings."""
        await self.command("hangup")

    async def rings(self, seconds: float = 15.0) -> None:
        """Return when somebody calls."""
        await self.expect("CALL_INCOMING", seconds=seconds)

    async def hears_ringing(self) -> None:
        """Return when the phone that is called rings (180)."""
        await self.expect("CALL_RINGING")

    async def is_in_call(self) -> None:
        """Return when the call stands."""
        await self.expect("CALL_ESTABLISHED")

    async def is_over(self, seconds: float = 15.0) -> str:
        """Return, when the call has ended, what baresip says of why."""
        return str((await self.expect("CALL_CLOSED", seconds=seconds)).get("param", ""))

    async def hold(self) -> None:
        """Re-INVITE with sendonly."""
        await self.command("hold")

    async def resume(self) -> None:
        """Re-INVITE with sendrecv."""
        await self.command("resume")

    async def mute(self) -> None:
        """Say nothing from now on, or speak again; nothing is signalled."""
        await self.command("mute")

    async def say(self, hertz: int) -> None:
        """Say another tone, which nobody can have heard before."""
        await self.command("ausrc", f"ausine,{hertz}")

    async def press(self, digits: str) -> None:
        """Send digits as telephone-events (RFC 4733)."""
        for digit in digits:
            await self.command("sndcode", digit)

    async def digit(self) -> str:
        """Return the next digit that came as a telephone-event."""
        return str((await self.expect("CALL_DTMF_START"))["param"])

    async def transfer(self, target: str) -> None:
        """Blind transfer: REFER with this target."""
        await self.command("transfer", target if target.startswith("sip:") else f"sip:{target}")

    async def show_video(self, direction: str = "sendrecv") -> None:
        """Re-INVITE with video of this direction; `inactive` takes it out (port 0)."""
        await self.command("video_dir", direction)

    async def sees(self, frames: int = 5, seconds: float = 15.0) -> None:
        """Return when this many more frames arrived (their count begins anew with every change of the call)."""
        before = await self.frames_received()

        async def has_seen() -> bool:
            return await self.frames_received() not in range(before + frames)

        await wait_until(has_seen, "pictures to arrive", seconds)

    async def frames_received(self) -> int:
        """Video frames decoded and shown in the current call."""
        found = re.search(r"vidisp:.* frames=(\d+)", await self.command("video_debug"))
        return int(found[1]) if found else 0

    def heard(self) -> Sound:
        """What it heard in its latest call."""
        files = sorted(self._recordings.glob("*-dec.wav"), key=lambda file: file.stat().st_mtime_ns)
        return read_wave(files[-1]) if files else NOTHING

    async def goes_on_hearing(self, packets: int = 25, seconds: float = 15.0) -> None:
        """Return when this many more packets of sound arrived.

        What `hears` needs, baresip 1.0 stops to record with the first re-INVITE.
        """
        before = await self._packets_received()

        async def has_more() -> bool:
            return await self._packets_received() >= before + packets

        await wait_until(has_more, "packets of sound", seconds)

    async def _packets_received(self) -> int:
        found = re.search(r"rcvd=(\d+)", await self.command("audio_debug"))
        return int(found[1]) if found else 0

    async def hears(self, hertz: float, seconds: float = 15.0) -> None:
        """Return when it hears this tone."""
        await wait_for_tone(self.heard, hertz, seconds)
