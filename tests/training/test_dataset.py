"""What becomes of records before training: their media decode, their tokens fit, files are weighted."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import MegrezError
from training.dataset import MANY, Mixture, RecordDataset, prepare
from training.features import Featuriser
from training.records import DataError, read_records

from .tiny import Turn, assistant, user, write_picture, write_records, write_tone


@pytest.fixture(scope="module")
def featurise(tiny_path: Path) -> Featuriser:
    return Featuriser.from_pretrained(tiny_path)


def texts(count: int, word: str = "item") -> list[list[Turn]]:
    return [[user(f"{word} {number}"), assistant(str(number))] for number in range(count)]


def dataset(file: Path, records: list[list[Turn]], featurise: Featuriser, **options: str) -> RecordDataset:
    return prepare(read_records(write_records(file, records)), featurise, model_max_length=512, **options)


def answers(data: Mixture) -> list[str]:
    return [part.records[item].conversations[0]["content"]["text"] for part, item in data.places]


def test_undecodable_media_are_told_at_once(tmp_path: Path, featurise: Featuriser) -> None:
    good = write_picture(tmp_path / "good.png", "red")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing")
    write_tone(tmp_path / "short.wav", 440, seconds=0.001)
    media = [{"image": good}, {"image": [good, "bad.png"]}, {"audio": "bad.wav"}, {"audio": "short.wav"}]
    turns = [[user("x"), assistant("y"), user("x", **medium), assistant("y")] for medium in media]
    file = write_records(tmp_path / "records.jsonl", turns)
    with pytest.raises(DataError) as caught:
        prepare(read_records(file), featurise, model_max_length=512, speech_text="both")
    found = caught.value.problems
    named = [("image", "bad.png"), ("audio", "bad.wav"), ("audio", "short.wav")]
    said = ("picture", "recording can't be read", "at least 0.03 s")
    assert len(found) == 3
    for line, problem, (kind, name), what in zip((2, 3, 4), found, named, said, strict=True):
        assert problem.startswith(f"{file}:{line}: conversations[2].content.{kind}: {tmp_path / name}: ")
        assert what in problem


def test_what_is_too_long_is_left_out_and_named(
    tmp_path: Path, featurise: Featuriser, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [*texts(1), [user("long " * 200), assistant("no")], *texts(1, "other")]
    records = read_records(write_records(tmp_path / "records.jsonl", turns))
    whole = [len(featurise(record.conversations).input_ids) for record in records]
    assert whole[1] > max(whole[0], whole[2]) + 100
    with caplog.at_level(logging.WARNING):
        kept = prepare(records, featurise, model_max_length=max(whole[0], whole[2]))
    assert kept.records == [records[0], records[2]]
    assert kept.lengths == [whole[0], whole[2]] == [len(item.input_ids) for item in kept]
    (warning,) = caplog.messages
    assert f"{records[1].where} ({whole[1]} tokens)" in warning
    assert warning.startswith("1 of 3 records")


def test_when_nothing_fits_it_is_an_error(tmp_path: Path, featurise: Featuriser) -> None:
    records = read_records(write_records(tmp_path / "records.jsonl", texts(2)))
    with pytest.raises(DataError, match="no record fits model_max_length 5"):
        prepare(records, featurise, model_max_length=5)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("keep", ["beside", None, "x"]), ("drop", [None, None, "x"]), ("both", ["beside", None, None, "x"])],
)
def test_text_beside_speech(mode: str, expected: list[str | None], tmp_path: Path, featurise: Featuriser) -> None:
    low = write_tone(tmp_path / "low.wav", 200)
    asked = [user("beside", audio=low), user(audio=low), user("x")]
    turns = [[question, assistant("a")] for question in asked]
    data = dataset(tmp_path / "records.jsonl", turns, featurise, speech_text=mode)
    assert [record.conversations[0]["content"].get("text") for record in data.records] == expected
    assert [len(item.mels) for item in data] == [1] * (len(expected) - 1) + [0]


def test_texts_that_are_instructions_are_told(
    tmp_path: Path, featurise: Featuriser, caplog: pytest.LogCaptureFixture
) -> None:
    """Two answers to one recording: only its text says which."""
    low, high = write_tone(tmp_path / "low.wav", 200), write_tone(tmp_path / "high.wav", 900)
    asked = [("write it down", low, "la"), ("translate it", low, "ah"), ("hum", high, "hm"), ("hum", high, "hm")]
    turns = [[user(text, audio=sound), assistant(answer)] for text, sound, answer in asked]
    with caplog.at_level(logging.INFO):
        dataset(tmp_path / "records.jsonl", turns, featurise, speech_text="keep")
        assert not caplog.messages
        dataset(tmp_path / "records.jsonl", turns, featurise, speech_text="both")
    told, warned = caplog.messages
    assert told.startswith("speech_text both: 4 records count twice, the second time without the text beside their")
    assert warned.startswith("without those texts, 1 recordings have several answers")


def test_many_records_are_checked_by_several_processes(tmp_path: Path, featurise: Featuriser) -> None:
    """With the same lengths and problems, in the same order."""
    red = write_picture(tmp_path / "red.png", "red")
    turns = [[user(f"item {i}" * (i % 7), image=red), assistant(str(i))] for i in range(MANY)]
    data = dataset(tmp_path / "records.jsonl", turns, featurise)
    assert data.lengths == [len(item.input_ids) for item in data]
    assert len(set(data.lengths)) > 7
    (tmp_path / "bad.png").write_bytes(b"nothing")
    for i in (3, 77):
        turns[i][0]["content"]["image"] = "bad.png"
    with pytest.raises(DataError) as caught:
        dataset(tmp_path / "records.jsonl", turns, featurise)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        f"{tmp_path}/records.jsonl:{i}" for i in (4, 78)
    ]


def test_pictures_may_be_large(tmp_path: Path, tiny_path: Path) -> None:
    """Larger than a server takes from strangers, up to a limit that can be set."""
    photo = write_picture(tmp_path / "photo.png", "red", (9000, 6000))
    records = [[user("x", image=photo), assistant("y")]]
    assert len(dataset(tmp_path / "records.jsonl", records, Featuriser.from_pretrained(tiny_path))) == 1
    with pytest.raises(DataError, match="9000 x 6000 = 54,000,000 pixels; at most 53,000,000"):
        dataset(tmp_path / "records.jsonl", records, Featuriser.from_pretrained(tiny_path, max_pixels=53_000_000))


def test_weights_repeat_and_thin_out(tmp_path: Path, featurise: Featuriser, caplog: pytest.LogCaptureFixture) -> None:
    words = ("one", "two", "half", "more")
    parts = [dataset(tmp_path / f"{word}.jsonl", texts(6, word), featurise) for word in words]
    mixture = Mixture(parts, [1.0, 2.0, 0.5, 1.5], seed=3)
    counts = Counter(answers(mixture))
    by_word = {word: sorted(n for text, n in counts.items() if text.startswith(word)) for word in words}
    assert by_word == {"one": [1] * 6, "two": [2] * 6, "half": [1] * 3, "more": [1, 1, 1, 2, 2, 2]}
    assert caplog.messages == ["by weight 0.5, 3 of 6 records of data file 3 are not used"]
    assert mixture.lengths == [len(item.input_ids) for item in mixture]
    assert answers(Mixture(parts, [1.0, 2.0, 0.5, 1.5], seed=3)) == answers(mixture)
    drawn = {tuple(answers(Mixture(parts[2:3], [0.5], seed))) for seed in range(8)}
    assert len(drawn) > 1


def test_the_smallest_weight_leaves_a_record(tmp_path: Path, featurise: Featuriser) -> None:
    assert len(Mixture([dataset(tmp_path / "a.jsonl", texts(3), featurise)], [0.01], seed=0)) == 1


@pytest.mark.parametrize("weights", [[], [1.0, 1.0], [0.0], [-1.0]])
def test_weights_that_make_no_sense_are_refused(weights: list[float], tmp_path: Path, featurise: Featuriser) -> None:
    part = dataset(tmp_path / "a.jsonl", texts(2), featurise)
    with pytest.raises(MegrezError, match="1 data files need as many weights over 0"):
        Mixture([part], weights, seed=0)


def test_no_line_is_on_both_sides_of_a_split(tmp_path: Path, featurise: Featuriser) -> None:
    """Neither as a repetition nor with and without its text."""
    low = write_tone(tmp_path / "low.wav", 200)
    spoken = [[user(f"spoken {n}", audio=low), assistant(str(n))] for n in range(6)]
    parts = [
        dataset(tmp_path / "spoken.jsonl", spoken, featurise, speech_text="both"),
        dataset(tmp_path / "text.jsonl", texts(6), featurise),
    ]
    mixture = Mixture(parts, [2.0, 1.0], seed=0)
    for seed in range(5):
        train, held = mixture.split(0.25, seed)
        sides = [{part.records[item].where for part, item in side.places} for side in (train, held)]
        assert sides[0].isdisjoint(sides[1])
        assert [len(side) for side in sides] == [9, 3]
        assert len(train) + len(held) == len(mixture)
        for side in (train, held):
            assert side.lengths == [part.lengths[item] for part, item in side.places]
        assert mixture.split(0.25, seed)[1].places == held.places


def test_a_split_holds_out_at_least_one_record_and_never_all(tmp_path: Path, featurise: Featuriser) -> None:
    mixture = Mixture([dataset(tmp_path / "a.jsonl", texts(3), featurise)], [1.0], seed=0)
    assert [len(side) for side in mixture.split(0.01, 0)] == [2, 1]
    with pytest.raises(MegrezError, match=r"eval_share 0\.9 leaves nothing"):
        mixture.split(0.9, 0)
