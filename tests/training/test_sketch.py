"""A sketch becomes the sum of its tokens' embeddings where a picture or a recording would stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.collator import collate
from training.features import Featuriser
from training.model import BLANK, IGNORED, OmniForTraining
from training.sketch import PictureSketch, SpeechSketch, place_of

from .tiny import assistant, tone, user


@pytest.fixture
def model(tiny_path: Path) -> OmniForTraining:
    return OmniForTraining.from_pretrained(tiny_path).eval()


@pytest.fixture
def featurise(tiny_path: Path) -> Featuriser:
    return Featuriser.from_pretrained(tiny_path)


def test_places_go_down_the_columns() -> None:
    assert [place_of(x, y) for x, y in ((0, 0), (0, 0.99), (0.07, 0.3), (1, 1), (-0.1, 2))] == [0, 3, 5, 63, 3]


def test_features_name_the_tokens_of_every_embed(featurise: Featuriser) -> None:
    picture = PictureSketch([[("a", "b")] + [()] * 14 + [("c",)]] * 3, grid=(2, 1))
    sound = SpeechSketch([("d",), ()])
    made = featurise([user("hi", picture, sound), assistant("ab")])
    encode, unk = featurise.tokenizer.encode, featurise.tokenizer.special("unk")
    (a,), (b,), (c,), (d,) = (encode(letter, allow_special=False) for letter in "abcd")
    assert list(made.sketched.values()) == ([[a, b], *[[unk]] * 14, [c]] * 3) + [[unk], [d], [unk], [unk]]
    assert all(made.input_ids[position] == unk for position in made.sketched)
    assert not made.patches
    assert not made.mels
    assert not made.image_positions
    assert not made.audio_positions


def test_words_that_are_no_token_are_our_mistake(featurise: Featuriser) -> None:
    with pytest.raises(AssertionError, match="not one token"):
        featurise([user("hi", PictureSketch([[("unheard of",)] * 16]))])


def test_the_sum_of_the_embeddings_is_seen(model: OmniForTraining, featurise: Featuriser) -> None:
    """As if the embeds were an encoder's: beside real media, and without noise in evaluation."""
    picture, sound = PictureSketch([[("a", "b")] * 16]), tone(300)
    batch = collate([featurise([user("x", picture, sound), assistant("a")]), featurise([user("y"), assistant("b")])])
    seen = {}
    model.llm.hidden = lambda embeds, *_: seen.setdefault("embeds", embeds)
    model.hidden(batch["input_ids"], batch["lengths"], batch["media"])
    table = model.llm.weight
    (a,), (b,) = (featurise.tokenizer.encode(letter, allow_special=False) for letter in "ab")
    torch.testing.assert_close(seen["embeds"][batch["media"]["sketch_positions"]], (table[a] + table[b]).expand(16, -1))
    heard = model.audio([torch.from_numpy(mel) for mel in featurise([user("x", None, sound)]).mels])[0]
    torch.testing.assert_close(seen["embeds"][batch["media"]["positions"]], heard)


def test_in_training_it_is_as_far_off_as_encoders_are(model: OmniForTraining) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(40, len(model.llm.weight), (3000, 2))
    tokens[::2, 1] = IGNORED
    tokens[torch.arange(3000) % 10 > 1, 0] = BLANK
    tokens[tokens[:, 0] == BLANK, 1] = IGNORED
    plain, noisy = model._sketched(tokens), model.train()._sketched(tokens)
    likeness, said = torch.cosine_similarity(plain, noisy, -1), tokens[:, 0] != BLANK
    assert 0.6 < likeness[said].mean() < 0.8 < likeness[~said].mean() < 0.95
    assert 0.05 < likeness.std() < 0.2
    assert abs(noisy.norm(dim=-1).mean() / plain.norm(dim=-1).mean() - 1) < 0.2
    model.noise = 0.2
    assert torch.cosine_similarity(plain, model._sketched(tokens), -1)[said].mean() > 0.95
    model.noise = 0.0
    torch.testing.assert_close(model._sketched(tokens), plain)


@pytest.mark.parametrize("token", [BLANK, 40])
def test_where_all_or_nothing_is_said_it_is_too(model: OmniForTraining, token: int) -> None:
    tokens = torch.full((64, 1), token)
    assert model.train()._sketched(tokens).isfinite().all()
    assert not torch.equal(model._sketched(tokens), model.eval()._sketched(tokens))
