"""The ears of the plays with calls: a tone is told from another one, from noise, and from silence."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.sipp_call_steps import write_mu_law
from tests.support.tones import NOTHING, Sound, read_wave, tone, wait_for_silence, wait_for_tone, write_tone


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("hertz", [440, 1_000, 1_500])
def test_a_tone_written_to_a_file_is_found_in_it(hertz: int, rate: int, tmp_path: Path) -> None:
    sound = read_wave(write_tone(tmp_path / "tone.wav", hertz, 1.0, rate))
    assert (sound.rate, sound.seconds) == (rate, 1.0)
    assert sound.hertz == pytest.approx(hertz, abs=2)
    assert sound.is_tone(hertz)
    assert not sound.is_tone(hertz + 60)


def test_a_file_that_is_still_written_is_heard_to_its_end(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "tone.wav", 440, 1.0)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\0\0\0\0"
    path.write_bytes(bytes(content[:-1]))
    assert read_wave(path).is_tone(440)


def test_a_header_without_sound_is_nothing(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "tone.wav", 440, 1.0)
    path.write_bytes(path.read_bytes()[:44])
    assert read_wave(path).seconds == 0
    path.write_bytes(b"")
    assert read_wave(path) == NOTHING


def test_noise_and_silence_and_two_tones_are_no_tone() -> None:
    noise = np.random.default_rng(1).normal(0, 5_000, 48_000)
    assert not any(Sound(noise, 48_000).is_tone(hertz) for hertz in range(100, 3_000, 10))
    assert Sound(np.zeros(48_000), 48_000).hertz == 0
    assert Sound(np.zeros(48_000), 48_000).is_silent()
    both = tone(440, 1.0).astype(np.float64) + 1.5 * tone(1_000, 1.0)
    assert not Sound(both, 48_000).is_tone(440)


def test_a_tone_with_a_tenth_of_its_packets_lost_is_still_heard() -> None:
    samples = tone(440, 1.0).astype(np.float64).reshape(50, -1)
    samples[::10] = 0
    assert Sound(samples.reshape(-1), 48_000).is_tone(440)


def test_pieces_of_a_tone_fit_together() -> None:
    pieces = [tone(440, 0.02, start=number * 960) for number in range(50)]
    assert (np.concatenate(pieces) == tone(440, 1.0)).all()


async def test_waiting_for_another_tone_says_what_was_heard() -> None:
    sound = Sound(tone(440, 1.0).astype(np.float64), 48_000)
    await wait_for_tone(lambda: sound, 440)
    with pytest.raises(AssertionError, match=r"heard: 0\.50 s, 440 Hz"):
        await wait_for_tone(lambda: sound, 1_000, timeout_seconds=0.1)


async def test_silence_is_heard_when_it_comes_and_when_nothing_comes() -> None:
    said = tone(440, 1.0).astype(np.float64)
    await wait_for_silence(lambda: Sound(np.append(said, np.zeros(48_000)), 48_000))
    await wait_for_silence(lambda: Sound(said, 48_000))
    growing = iter(range(1, 10_000))
    with pytest.raises(AssertionError, match="silence"):
        await wait_for_silence(lambda: Sound(tone(440, 1.0 + next(growing) / 100).astype(np.float64), 48_000), 1.5)


def test_a_tone_in_mu_law_is_what_others_read_as_mu_law(tmp_path: Path) -> None:
    path = write_mu_law(tmp_path / "tone.ulaw", 800, 1.0)
    with av.open(str(path), format="mulaw", options={"sample_rate": "8000"}) as container:
        decoded = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    sound = Sound(np.concatenate(decoded).astype(np.float64), 8_000)
    assert sound.is_tone(800)
    assert sound.loudness == pytest.approx(Sound(tone(800, 1.0).astype(np.float64), 48_000).loudness, rel=0.01)
