import random

import numpy as np
import pytest

from training.synthetic.dictation import spoken_example, transcription_example
from training.synthetic.words import ctc_targets


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_recording_alone_is_written_down(language):
    examples = [transcription_example(random.Random(seed), language, "train") for seed in range(40)]
    for example in examples:
        question, answer = (turn["content"] for turn in example.conversations)
        assert question["audio"].dtype == np.float32
        assert ctc_targets(answer["text"], language)
    silent = sum("text" not in example.conversations[0]["content"] for example in examples)
    assert 2 <= silent <= 20


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_spoken_questions_come_with_a_picture(language, split):
    for seed in range(10):
        turns = [turn["content"] for turn in spoken_example(random.Random(seed), language, split).conversations]
        assert turns[0]["image"].mode == "RGB"
        assert all("audio" in turn and "text" not in turn for turn in turns[::2])
        assert not any("image" in turn for turn in turns[1:])
        assert len(turns) == 2 or (split == "train" and len(turns) <= 8)


def test_the_same_seed_gives_the_same_example():
    for generator in (transcription_example, spoken_example):
        first, second = (generator(random.Random(5), "en", "test").conversations for _ in range(2))
        assert np.array_equal(first[0]["content"]["audio"], second[0]["content"]["audio"])
        assert first[1] == second[1]
