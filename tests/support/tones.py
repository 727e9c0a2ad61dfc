"""Tones that are played at one end of a call and looked for in what the other end heard."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support.processes import wait_until

AMPLITUDE = 8_000  # of 32,767: loud enough for every codec, far from clipping after resampling
SILENCE = 100  # root mean square below which nothing was said; comfort noise and codec hiss stay under it
TOLERANCE_HERTZ = 15  # codecs and clocks that are not ours; the tones of our plays are far further apart
PURE = 0.5  # share of the energy: a tone with packets lost still has most of its energy where it belongs


@dataclass(frozen=True)
class Sound:
    """Some mono sound.

    Attributes:
        samples: signed 16-bit values, in any numeric type.
        rate: samples per second.
    """

    samples: NDArray[np.float64]
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def loudness(self) -> float:
        """Root mean square of the samples; 0 of nothing."""
        return float(np.sqrt(np.mean(self.samples**2))) if len(self.samples) else 0.0

    @property
    def hertz(self) -> float:
        """The strongest frequency; 0 of silence."""
        return self._peak()[0]

    def last(self, seconds: float) -> Sound:
        """Its end."""
        return Sound(self.samples[-int(seconds * self.rate) :], self.rate)

    def is_silent(self) -> bool:
        return self.loudness < SILENCE

    def is_tone(self, hertz: float) -> bool:
        """Whether this frequency is the strongest one and holds most of the energy."""
        found, share = self._peak()
        return abs(found - hertz) < TOLERANCE_HERTZ and share > PURE

    def __str__(self) -> str:
        found, share = self._peak()
        return f"{self.seconds:.2f} s, {found:.0f} Hz with {share:.0%} of the energy, loudness {self.loudness:.0f}"

    def _peak(self) -> tuple[float, float]:
        """Frequency of the strongest line, and the share of the energy within three lines of it."""
        if len(self.samples) < self.rate // 10 or self.is_silent():
            return 0.0, 0.0
        steady = (self.samples - np.mean(self.samples)) * np.hanning(len(self.samples))
        energy = np.abs(np.fft.rfft(steady)) ** 2
        strongest = int(energy.argmax())
        near = energy[max(0, strongest - 3) : strongest + 4]
        return strongest * self.rate / len(self.samples), float(near.sum() / energy.sum())


NOTHING = Sound(np.zeros(0), 8_000)


def tone(hertz: float, seconds: float, rate: int = 48_000, *, start: int = 0) -> NDArray[np.int16]:
    """A sine tone; `start` is the number of its first sample, so that pieces fit together."""
    times = np.arange(start, start + round(seconds * rate)) / rate
    return (AMPLITUDE * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


def write_tone(path: Path, hertz: float, seconds: float, rate: int = 48_000) -> Path:
    """A mono WAV file of 16 bits with a tone."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(tone(hertz, seconds, rate).tobytes())
    return path


def read_wave(path: Path) -> Sound:
    """The first channel of a 16-bit WAV file, also of one that is still being written.

    The sizes in the header of an unfinished file say nothing, so everything behind the start of the data counts.
    """
    content = path.read_bytes()
    if content[:4] != b"RIFF" or b"data" not in content:
        return NOTHING
    form = content.index(b"fmt ") + 8
    _, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content, form)
    assert bits == 16, f"{path} has {bits} bits a sample"
    data = content[content.index(b"data") + 8 :]
    samples = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], np.int16)[::channels]
    return Sound(samples.astype(np.float64), rate)


async def wait_for_tone(heard: Callable[[], Sound], hertz: float, timeout_seconds: float = 15.0) -> None:
    """Return when the last half second of what is heard is this tone.

    Args:
        heard: everything that one end has heard so far, or the end of it.
    """
    await wait_until(
        lambda: (last := heard().last(0.5)).seconds >= 0.5 and last.is_tone(hertz),
        f"a tone of {hertz:.0f} Hz",
        timeout_seconds,
        detail=lambda: f"heard: {heard().last(0.5)}",
    )


async def wait_for_silence(heard: Callable[[], Sound], timeout_seconds: float = 10.0) -> None:
    """Return when nothing is heard any more: silence arrives, or no sound at all does.

    Args:
        heard: everything that one end has heard so far; a file or list that only grows.
    """
    length = [-1.0, 0.0]

    def is_quiet() -> bool:
        sound = heard()
        if sound.last(0.5).is_silent():
            return True
        length[0], length[1] = (length[0], length[1] + 1) if sound.seconds == length[0] else (sound.seconds, 0)
        return length[1] >= 50  # a second in which nothing was added

    await wait_until(is_quiet, "silence", timeout_seconds, detail=lambda: f"heard: {heard().last(0.5)}")
