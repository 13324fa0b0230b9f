import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest

from training.synthetic.espeak import SAMPLE_RATE, say
from training.synthetic.speakers import random_speaker
from training.synthetic.speech import (
    NAMES,
    PITCHES,
    RATES,
    VARIANTS,
    Voice,
    _echoed,
    augment,
    mask_mel,
    random_voice,
    record,
    synthesise,
)

ENGLISH = Voice("en", "en-us", "m1", 150, 50)


def test_a_text_always_sounds_the_same_in_one_voice():
    first = synthesise("open the window", ENGLISH)
    synthesise("打开红色的灯", Voice("zh", "cmn", "f2", 120, 30))
    assert np.array_equal(synthesise("open the window", ENGLISH), first)
    assert first.dtype == np.float32
    assert np.abs(first).max() == pytest.approx(1)
    assert 0.5 < len(first) / 16_000 < 2


def test_every_voice_sounds_different():
    def sound(voice: str, rate: int = 150, pitch: int = 50, pitch_range: int = 50) -> bytes:
        return say("hello 你好", voice, rate, pitch, pitch_range).tobytes()

    names = sorted({name for names in NAMES.values() for name in names})
    variants = [variant for variants in VARIANTS.values() for variant in variants]
    sounds = [sound(name) for name in names] + [sound(f"en-us+{variant}") for variant in variants]
    sounds += [sound("en-us", rate=180), sound("en-us", pitch=20), sound("en-us", pitch_range=70)]
    assert len(set(sounds)) == len(sounds)


def test_training_and_test_voices_never_meet():
    for settings in (VARIANTS, RATES, PITCHES):
        assert not set(settings["train"]) & set(settings["test"])
    voice = random_voice(random.Random(3), "zh", "test")
    assert voice == random_voice(random.Random(3), "zh", "test")
    assert (voice.name, voice.variant in VARIANTS["test"]) == ("cmn", True)


def test_half_of_the_speakers_to_learn_from_are_made_up_and_none_of_the_test_s():
    train = [random_voice(random.Random(seed), "en", "train") for seed in range(400)]
    made = [voice for voice in train if voice.speaker]
    assert 150 < len(made) < 250
    assert len({voice.speaker for voice in made}) == len(made)
    assert all((voice.variant in VARIANTS["train"]) != bool(voice.speaker) for voice in train)
    assert not any(random_voice(random.Random(seed), "en", "test").speaker for seed in range(100))


def test_a_speaker_may_be_given_as_the_text_of_a_variant():
    text = (Path(espeakng_loader.get_data_path()) / "voices" / "!v" / "Annie").read_text("utf-8")
    plain, annie = (say("hello", voice, 150, 50, 50) for voice in ("en-us", "en-us+Annie"))
    assert np.array_equal(say("hello", "en-us", 150, 50, 50, text), annie)
    assert not np.array_equal(annie, plain)


@pytest.mark.parametrize(("name", "language", "text"), [("en-us", "en", "hello"), ("cmn", "zh", "你好")])
def test_speakers_that_are_made_up_sound_each_their_own_way_and_always_the_same(name, language, text):
    voices = [Voice(language, name, "", 150, 50, 50, random_speaker(random.Random(seed))) for seed in range(30)]
    sounds = {synthesise(text, voice).tobytes() for voice in voices}
    assert len(sounds) == len(voices)
    assert sounds == {synthesise(text, voice).tobytes() for voice in voices}


def test_an_unknown_voice_and_a_text_without_sound_are_refused():
    with pytest.raises(ValueError, match="nobody"):
        say("hello", "nobody", 150, 50, 50)
    with pytest.raises(ValueError, match="nothing is to be heard"):
        synthesise("", ENGLISH)


def test_a_recording_is_reproducible_and_in_range():
    for seed in range(20):
        samples = record(random.Random(seed), "good morning", "en", "train")
        assert np.array_equal(samples, record(random.Random(seed), "good morning", "en", "train"))
        assert samples.dtype == np.float32
        assert 0.2 <= np.abs(samples).max() <= 0.951


@pytest.mark.parametrize("variant", [*VARIANTS["train"], *VARIANTS["test"]])
def test_each_speaker_says_the_same_twice(variant: str) -> None:
    voice = Voice("en", "en-us", variant, 190, 20)
    assert np.array_equal(synthesise("good morning", voice), synthesise("good morning", voice))


def test_breath_is_the_same_at_another_time_of_day():
    breathy = Voice("en", "en-us", "victor", 190, 20)
    before = synthesise("good morning", breathy)
    time.sleep(1.1)  # the library's seed is in seconds
    assert np.array_equal(synthesise("good morning", breathy), before)


def test_augmenting_keeps_the_sound():
    tone = np.sin(np.arange(16_000) * 0.2).astype(np.float32)
    for seed in range(20):
        heard = augment(random.Random(seed), tone)
        assert abs(len(heard) - len(tone)) <= 0.15 * len(tone)
        assert np.isfinite(heard).all()


def test_an_echo_comes_later_and_softer():
    click = np.zeros(1000, np.float32)
    click[0] = 1
    for seed in range(20):
        heard = _echoed(random.Random(seed), click)
        (_, at) = np.flatnonzero(heard)
        assert heard[0] == 1
        assert 0.1 <= heard[at] <= 0.5
        assert 0.02 <= at / 16_000 <= 0.15
        assert len(heard) == 1000 + at


def test_a_masked_mel_stays_a_mel():
    mel = np.random.default_rng(0).standard_normal((128, 300)).astype(np.float32)
    before = mel.copy()
    masked = [mask_mel(random.Random(seed), mel) for seed in range(40)]
    assert np.array_equal(mel, before)
    changed = [(m != mel).mean() for m in masked]
    assert 0.2 < sum(share == 0 for share in changed) / len(changed) < 0.6
    assert max(changed) < 0.25
    assert all(m.shape == mel.shape and m.dtype == mel.dtype for m in masked)


def test_forked_processes_speak_as_this_one():
    voices = [Voice("en", "en-us", "", 150, 50, 50, random_speaker(random.Random(seed))) for seed in range(8)]
    voices.append(ENGLISH)
    here = [synthesise("good morning", voice) for voice in voices]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        there = pool.starmap(synthesise, [("good morning", voice) for voice in voices * 4], chunksize=1)
    assert all(np.array_equal(one, other) for one, other in zip(there, here * 4, strict=True))


def test_nothing_is_left_of_a_speaker_that_is_made_up_when_processes_end(tmp_path):
    program = (
        "import multiprocessing, random, sys\n"
        "from training.synthetic.espeak import say\n"
        "from training.synthetic.speakers import random_speaker\n"
        "words = ('hello', 'en-us', 150, 50, 50, random_speaker(random.Random(1)))\n"
        "if sys.argv[1] == 'before':\n"
        "    say(*words)\n"
        "child = multiprocessing.get_context('fork').Process(target=say, args=words)\n"
        "child.start()\n"
        "child.join()\n"
        "assert child.exitcode == 0\n"
        "say(*words)\n"
    )
    for when in ("before", "after"):
        subprocess.run([sys.executable, "-c", program, when], check=True, env=os.environ | {"TMPDIR": str(tmp_path)})
        assert not list(tmp_path.iterdir())


def test_speech_lasts_as_long_as_its_words():
    short, long = (len(say(text, "cmn", 150, 50, 50)) / SAMPLE_RATE for text in ("一", "一二三四五六七八九十"))
    assert long > 2 * short
