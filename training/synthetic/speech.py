"""Spoken text: voices, their waveforms at 16 kHz, and what a room and a microphone do to them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import soxr
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from .espeak import SAMPLE_RATE as ESPEAK_RATE
from .espeak import say
from .example import Language, Split
from .speakers import random_speaker

SAMPLE_RATE = 16_000

# espeak's English accents: US, New York, British, received pronunciation, Scottish, West Midlands, Caribbean.
NAMES: dict[Language, tuple[str, ...]] = {
    "en": (
        "en-us",
        "en-us",
        "en-us",
        "en-us-nyc",
        "en",
        "en",
        "en-gb-x-rp",
        "en-gb-scotland",
        "en-gb-x-gbcwmd",
        "en-029",
    ),
    "zh": ("cmn",),
}
VARIANTS: dict[Split, tuple[str, ...]] = {
    "train": (
        "m1", "m3", "m4", "m6", "m7", "f1", "f2", "f4", "f5",
        "Andrea", "Alex", "Annie", "Michael", "Lee", "Mario", "steph", "david", "robert", "paul",
        "Andy", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Marco", "Mike", "adam",
        "anika", "antonio", "aunty", "benjamin", "boris", "gustave", "ian", "iven", "john", "marcelo",
        "michel", "miguel", "norbert", "pablo", "pedro", "quincy", "rob", "sandro", "shelby", "travis", "victor", "zac",
    ),
    "test": ("m2", "m5", "m8", "f3", "Alicia", "max", "belinda", "edward"),
}  # fmt: skip

# Both sweep the same spans on grids that never meet: words per minute, and pitch from 0 to 100.
RATES: dict[Split, range] = {"train": range(110, 191, 10), "test": range(115, 191, 10)}
PITCHES: dict[Split, range] = {"train": range(20, 81, 4), "test": range(22, 81, 4)}
RANGES = (30, 50, 70)

MADE_UP = 0.5
"""Of the speakers to learn from; the others are espeak's."""

SPEEDS = (0.88, 1.14)  # the voice's length of throat with them

ECHOES = 0.25
"""Of the recordings to learn from. Few voices bring their own, the test's Alicia one louder than nearly all."""
ECHO_SECONDS, ECHO_LOUDNESS = (0.02, 0.15), (0.1, 0.5)

SILENCE = 0.01  # of the peak; quieter samples at the ends are cut off


@dataclass(frozen=True)
class Voice:
    """`name` is espeak's voice, `variant` its speaker; `pitch` and `pitch_range` go from 0 to 100."""

    language: Language
    name: str
    variant: str
    rate_wpm: int
    pitch: int
    pitch_range: int = 50
    speaker: str = ""
    """The text of a variant that espeak doesn't bring, instead of `variant`."""


def random_voice(rng: random.Random, language: Language, split: Split) -> Voice:
    voice = Voice(
        language,
        rng.choice(NAMES[language]),
        rng.choice(VARIANTS[split]),
        rng.choice(RATES[split]),
        rng.choice(PITCHES[split]),
        rng.choice(RANGES),
    )
    if split == "train" and rng.random() < MADE_UP:
        return replace(voice, variant="", speaker=random_speaker(rng))
    return voice


def synthesise(text: str, voice: Voice) -> np.ndarray:
    """float32 [n] at 16 kHz, peak 1, without silence at its ends. The same arguments give the same samples."""
    name = f"{voice.name}+{voice.variant}" if voice.variant else voice.name
    samples = say(text, name, voice.rate_wpm, voice.pitch, voice.pitch_range, voice.speaker)
    samples = soxr.resample(samples.astype(np.float32), ESPEAK_RATE, SAMPLE_RATE, quality="HQ")
    size = np.abs(samples)
    loud = np.flatnonzero(size > SILENCE * size.max(initial=1.0))
    if not len(loud):
        raise ValueError(f"nothing is to be heard of {text!r}")
    return samples[loud[0] : loud[-1] + 1] / size.max()


def record(rng: random.Random, text: str, language: Language, split: Split) -> np.ndarray:
    """float32 [n] at 16 kHz: the text by some voice, between silences of 0.05 to 0.3 s, augmented."""
    samples = synthesise(text, random_voice(rng, language, split))
    if split == "train" and rng.random() < ECHOES:
        samples = _echoed(rng, samples)
    before, after = (int(rng.uniform(0.05, 0.3) * SAMPLE_RATE) for _ in range(2))
    return augment(rng, np.pad(samples, (before, after)))


def augment(rng: random.Random, samples: np.ndarray) -> np.ndarray:
    """float32 [n] -> float32 [about n]: speed, tone, noise and loudness vary; the peak is 0.2 to 0.95."""
    if rng.random() < 0.5:
        samples = soxr.resample(samples, SAMPLE_RATE, SAMPLE_RATE * rng.uniform(*SPEEDS), quality="MQ")
    if rng.random() < 0.4:
        samples = _filter(rng, samples)
    if rng.random() < 0.75:
        samples = samples + _noise(rng, len(samples), np.sqrt(np.mean(samples**2)) * 10 ** (-rng.uniform(12, 40) / 20))
    return (samples * (rng.uniform(0.2, 0.95) / np.abs(samples).max())).astype(np.float32)


def mask_mel(rng: random.Random, mel: np.ndarray) -> np.ndarray:
    """[mels, frames], sometimes with a band of mels or a moment at its mean (Park et al., "SpecAugment", 2019)."""
    mel = mel.copy()
    for axis, most in ((0, mel.shape[0] // 6), (1, min(mel.shape[1] // 12, 12))):
        if rng.random() < 0.4 and most > 1:
            width = rng.randint(1, most)
            start = rng.randrange(mel.shape[axis] - width)
            mel[(slice(None),) * axis + (slice(start, start + width),)] = mel.mean()
    return mel


def _echoed(rng: random.Random, samples: np.ndarray) -> np.ndarray:
    """[n] -> [n + delay]: once more, later and softer."""
    echo = np.pad(samples, (int(rng.uniform(*ECHO_SECONDS) * SAMPLE_RATE), 0)) * np.float32(rng.uniform(*ECHO_LOUDNESS))
    echo[: len(samples)] += samples
    return echo


def _filter(rng: random.Random, samples: np.ndarray) -> np.ndarray:
    """A slope over the frequencies, and sometimes a low-pass as of a telephone."""
    size = next_fast_len(len(samples), real=True)
    spectrum = rfft(samples, size)
    octaves = np.log2(rfftfreq(size, 1 / SAMPLE_RATE).clip(50) / 1000).astype(np.float32)  # from 1 kHz
    decibels = rng.uniform(-3, 3) * octaves
    if rng.random() < 0.4:
        decibels -= 24 * (octaves - np.log2(rng.uniform(3, 6))).clip(0)  # cut-off in kHz, 24 dB an octave
    return irfft(spectrum * 10 ** (decibels / 20), size)[: len(samples)]


def _noise(rng: random.Random, length: int, level: float) -> np.ndarray:
    """White or pink noise [length] of this root mean square."""
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(length, dtype=np.float32)
    if rng.random() < 0.5:
        size = next_fast_len(length, real=True)
        spectrum = rfft(noise, size) / np.sqrt(np.arange(size // 2 + 1, dtype=np.float32).clip(1))
        noise = irfft(spectrum, size)[:length]
    return noise * np.float32(level / np.sqrt(np.mean(noise**2)))
