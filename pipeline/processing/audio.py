"""Bytes of a recording -> log-mel spectrograms of its real length (Whisper-large-v3's front end)."""

from __future__ import annotations

import io
from functools import cache

import librosa
import numpy as np
import soundfile
from librosa.filters import mel as mel_filters

from ..config import AudioProcessorConfig
from ..errors import InvalidMedia, MediaTooLarge

FORMATS = ("WAV", "WAVEX", "MP3", "FLAC", "OGG")
MAX_RATE = 192_000
MAX_CHANNELS = 8
READ_FRAMES = 1 << 16
MAX_AMPLITUDE = 1e6  # far over full scale, which is 1; the spectrum of more overflows

# The fewest mel frames that leave one embedding after two convolutions and the pooling.
MIN_MEL_FRAMES = 3


UNKNOWN_FRAMES = 2**63 - 1
"""What libsndfile says of a FLAC that was written as a stream, without its length."""


class _Recording(soundfile.SoundFile):
    def seekable(self) -> bool:
        """soundfile would seek to where it is after each block, which fails at the end of an unknown length."""
        return super().seekable() and self.frames != UNKNOWN_FRAMES


def decode_audio(data: bytes, max_seconds: float, config: AudioProcessorConfig) -> np.ndarray:
    """Mono float32 [n] at 16 kHz from WAV, MP3, FLAC or OGG. Raises InvalidMedia, MediaTooLarge.

    Decoding stops at `max_seconds`, whatever the header claims.
    """
    try:
        with _Recording(io.BytesIO(data)) as file:
            if file.format not in FORMATS:
                raise InvalidMedia(f"{file.format} sound isn't supported; send WAV, MP3, FLAC or OGG")
            if not 1_000 <= file.samplerate <= MAX_RATE or file.channels > MAX_CHANNELS:
                raise InvalidMedia(
                    f"sound of {file.samplerate} Hz and {file.channels} channels isn't supported; "
                    f"send 1,000 to {MAX_RATE:,} Hz and at most {MAX_CHANNELS} channels"
                )
            rate, samples = file.samplerate, _read_mono(file, max_seconds)
    except soundfile.LibsndfileError:
        raise InvalidMedia("the recording can't be read; WAV, MP3, FLAC and OGG are supported") from None
    return prepare_waveform(samples, rate, max_seconds, config)


def _read_mono(file: soundfile.SoundFile, max_seconds: float) -> np.ndarray:
    limit, total, parts = int(max_seconds * file.samplerate), 0, []
    while len(block := file.read(READ_FRAMES, dtype="float32", always_2d=True)):
        total += len(block)
        if total > limit:
            raise MediaTooLarge(f"the recording is longer than the {max_seconds:g} s that are allowed")
        parts.append(block.mean(axis=1))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def prepare_waveform(samples: np.ndarray, rate: int, max_seconds: float, config: AudioProcessorConfig) -> np.ndarray:
    """Mono float32 [n] -> the same at 16 kHz, by soxr's high quality. Refuses what can't be heard."""
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise InvalidMedia("a waveform must be mono: floating-point numbers [n]")
    if len(samples) > max_seconds * rate:
        raise MediaTooLarge(f"the recording is longer than the {max_seconds:g} s that are allowed")
    if not np.isfinite(samples).all() or np.abs(samples).max(initial=0) > MAX_AMPLITUDE:
        raise InvalidMedia("the recording holds samples that are not finite numbers of a sound's size (-1 to 1)")
    if rate != config.sampling_rate:
        samples = librosa.resample(samples, orig_sr=rate, target_sr=config.sampling_rate, res_type="soxr_hq")
    shortest = MIN_MEL_FRAMES * config.hop_length
    if len(samples) < shortest:
        raise InvalidMedia(
            f"the recording holds {len(samples) / config.sampling_rate:.3f} s of sound; "
            f"at least {shortest / config.sampling_rate:.2f} s are needed"
        )
    return np.ascontiguousarray(samples, dtype=np.float32)


def split_waveform(samples: np.ndarray, config: AudioProcessorConfig) -> list[np.ndarray]:
    """Consecutive stretches of at most 30 s. A last one too short to encode is padded with silence."""
    parts = [samples[i : i + config.chunk_samples] for i in range(0, len(samples), config.chunk_samples)]
    shortest = MIN_MEL_FRAMES * config.hop_length
    if len(parts[-1]) < shortest:
        parts[-1] = np.pad(parts[-1], (0, shortest - len(parts[-1])))
    return parts


def log_mel(samples: np.ndarray, config: AudioProcessorConfig) -> np.ndarray:
    """One stretch, float32 [n] -> [n_mels, 2 * frames]: the mel frames that the encoder sees.

    Equal to the spectrogram over the stretch padded to 30 s, cut to the frames that carry sound;
    only so much silence is appended as these frames can see.
    """
    hop = config.hop_length
    mel_frames = len(samples) // hop
    wanted = 2 * ((mel_frames - 1) // 2 + 1)  # frames after the stride-2 convolution, doubled
    padded = np.pad(samples, (0, min(4 * config.n_fft, max(config.chunk_samples - len(samples), 0))))
    spectrum = librosa.stft(padded, n_fft=config.n_fft, hop_length=hop, window="hann", center=True, pad_mode="reflect")
    mel = _filters(config) @ (np.abs(spectrum[:, :-1]) ** 2)  # the last frame is dropped, as Whisper does
    log = np.log10(np.maximum(mel, 1e-10))
    log = (np.maximum(log, log.max() - 8.0) + 4.0) / 4.0
    return log[:, :wanted].astype(np.float32)


@cache
def _filters(config: AudioProcessorConfig) -> np.ndarray:
    """Slaney-normalised mel filter bank, float32 [n_mels, n_fft / 2 + 1]."""
    return mel_filters(sr=config.sampling_rate, n_fft=config.n_fft, n_mels=config.n_mels)
