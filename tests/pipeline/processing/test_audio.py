from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from pipeline.config import AudioProcessorConfig
from pipeline.errors import InvalidMedia, MediaTooLarge
from pipeline.processing.audio import decode_audio, log_mel, prepare_waveform, split_waveform
from tests.golden import DATA, META, reference, relative_error

CONFIG = AudioProcessorConfig()


def tone(seconds: float, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def encode(samples: np.ndarray, rate: int = 16000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def decode(data: bytes, max_seconds: float = 600.0) -> np.ndarray:
    samples = decode_audio(data, max_seconds, CONFIG)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    return samples


@pytest.fixture(scope="module")
def whisper() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=128)


class TestDecode:
    def test_golden_mp3(self) -> None:
        wanted = META["audios"]["sample_audio"]
        samples = decode((DATA / wanted["path"]).read_bytes())
        assert len(samples) == wanted["samples"]
        mel = log_mel(samples, CONFIG)
        assert mel.shape[1] == 2 * wanted["frames_after_conv"]
        assert relative_error(mel[:, :64], reference()["audio/sample_audio/mel_head"]) < 1e-4

    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
    def test_wav(self, subtype: str) -> None:
        np.testing.assert_allclose(decode(encode(tone(1), subtype=subtype)), tone(1), atol=1e-4)

    def test_flac(self) -> None:
        np.testing.assert_allclose(decode(encode(tone(1), kind="FLAC")), tone(1), atol=1e-4)

    def test_flac_of_unknown_length(self) -> None:
        """As it comes out of a pipe: its header holds no number of samples."""
        data = bytearray(encode(tone(5), kind="FLAC"))
        assert int.from_bytes(data[22:26], "big") == 80_000
        data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])
        np.testing.assert_allclose(decode(bytes(data)), tone(5), atol=1e-4)
        with pytest.raises(MediaTooLarge):
            decode(bytes(data), max_seconds=4)

    @pytest.mark.parametrize(("kind", "subtype"), [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
    def test_lossy_formats_keep_the_tone(self, kind: str, subtype: str | None) -> None:
        samples = decode(encode(tone(1), kind=kind, subtype=subtype))
        assert abs(len(samples) - 16000) < 2500  # an encoder may add its padding
        middle = samples[4000:12000]
        peak = np.abs(np.fft.rfft(middle)).argmax() * 16000 / len(middle)
        assert abs(peak - 440) < 5
        assert 0.2 < np.abs(middle).max() < 0.6

    @pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
    def test_other_rates_are_resampled(self, rate: int) -> None:
        samples = decode(encode(tone(1, rate), rate))
        assert abs(len(samples) - 16000) <= 1
        np.testing.assert_allclose(samples[1000:-1000], tone(1)[1000 : len(samples) - 1000], atol=5e-3)

    def test_channels_are_averaged(self) -> None:
        left, right = tone(1, hertz=440), tone(1, hertz=1000)
        samples = decode(encode(np.stack([left, right], 1), subtype="FLOAT"))
        np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)

    def test_the_real_recordings(self) -> None:
        for file in sorted((DATA / "audios").iterdir()):
            info = soundfile.info(file)
            assert len(decode(file.read_bytes())) == pytest.approx(info.duration * 16000, abs=2)

    @given(st.binary(max_size=300))
    def test_garbage_is_refused(self, data: bytes) -> None:
        with pytest.raises(InvalidMedia):
            decode(data)

    @given(st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]), st.data())
    def test_flipped_bytes_give_sound_or_a_refusal(self, kind: str, data: Any) -> None:
        good = bytearray(encode(tone(0.2), kind=kind))
        for _ in range(data.draw(st.integers(1, 8))):
            good[data.draw(st.integers(0, min(len(good), 400) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(InvalidMedia):
            assert np.isfinite(decode(bytes(good))).all()

    @pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF"])
    def test_other_formats_are_refused(self, kind: str) -> None:
        with pytest.raises(InvalidMedia, match="WAV, MP3, FLAC"):
            decode(encode(tone(0.2), kind=kind, subtype="PCM_16"))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_samples_that_are_no_numbers_are_refused(self, value: float) -> None:
        samples = tone(0.5)
        samples[100] = value
        with pytest.raises(InvalidMedia, match="finite"):
            decode(encode(samples, subtype="FLOAT"))

    @pytest.mark.parametrize("samples", [0, 1, 479])
    def test_too_short(self, samples: int) -> None:
        with pytest.raises(InvalidMedia, match=r"at least 0\.03 s"):
            decode(encode(tone(1)[:samples]))

    def test_the_shortest_that_is_heard(self) -> None:
        assert log_mel(decode(encode(tone(1)[:480])), CONFIG).shape == (128, 4)

    def test_too_long(self) -> None:
        data = encode(tone(2.1))
        with pytest.raises(MediaTooLarge, match="2 s"):
            decode(data, max_seconds=2)
        assert len(decode(data, max_seconds=2.2)) == 33600

    def test_decoding_stops_at_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read = 0
        original = soundfile.SoundFile.read

        def counting(self: soundfile.SoundFile, *args: Any, **options: Any) -> np.ndarray:
            nonlocal read
            block = original(self, *args, **options)
            read += len(block)
            return block

        monkeypatch.setattr(soundfile.SoundFile, "read", counting)
        with pytest.raises(MediaTooLarge):
            decode(encode(np.zeros(16000 * 120, np.float32), kind="FLAC"), max_seconds=1)
        assert read < 16000 * 10

    @pytest.mark.parametrize(("rate", "channels"), [(500, 1), (16000, 9)])
    def test_strange_rates_and_channel_counts_are_refused(self, rate: int, channels: int) -> None:
        with pytest.raises(InvalidMedia, match="isn't supported"):
            decode(encode(np.zeros((2000, channels), np.float32), rate))


class TestSplit:
    @pytest.mark.parametrize("samples", [480, 479_999, 480_000, 480_001, 960_000, 1_000_000])
    def test_nothing_is_lost(self, samples: int) -> None:
        whole = noise(samples)
        parts = split_waveform(whole, CONFIG)
        assert len(parts) == -(-samples // 480_000)
        assert all(len(part) == 480_000 for part in parts[:-1])
        joined = np.concatenate(parts)
        np.testing.assert_array_equal(joined[:samples], whole)
        assert not joined[samples:].any()

    def test_a_last_stretch_too_short_is_padded_with_silence(self) -> None:
        parts = split_waveform(noise(480_001), CONFIG)
        assert [len(part) for part in parts] == [480_000, 480]

    def test_an_empty_waveform_is_refused(self) -> None:
        with pytest.raises(InvalidMedia):
            prepare_waveform(np.zeros(0, np.float32), 16000, 30.0, CONFIG)


class TestLogMel:
    @pytest.mark.parametrize("samples", [480, 800, 1600, 5000, 16_001, 24_576, 160_000, 479_000, 479_999, 480_000])
    def test_equals_whispers(self, whisper: WhisperFeatureExtractor, samples: int) -> None:
        # Loud noise, then near silence: the floor of max - 8 and the reflected edges both matter.
        wave = noise(samples, seed=samples)
        wave[samples // 2 :] *= 1e-3
        ours = log_mel(wave, CONFIG)
        mel_frames = samples // 160
        assert ours.shape == (128, 2 * ((mel_frames - 1) // 2 + 1))
        theirs = whisper(wave, sampling_rate=16000, return_tensors="np")["input_features"][0]
        assert relative_error(ours, theirs[:, : ours.shape[1]].astype(np.float32)) < 1e-4

    def test_silence(self, whisper: WhisperFeatureExtractor) -> None:
        wave = np.zeros(16000, np.float32)
        theirs = whisper(wave, sampling_rate=16000, return_tensors="np")["input_features"][0]
        np.testing.assert_allclose(log_mel(wave, CONFIG), theirs[:, :100], atol=1e-5)
