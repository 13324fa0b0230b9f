"""Before training, words of one meaning are alike, and what has an order is alike as it is near."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from pipeline.processing.tokenizer import Tokenizer
from training.initialise_tokens import Relation, relate
from training.model import EMBEDDINGS
from training.synthetic.sketching import ACROSS, DOWN

Likeness = Callable[[str, str], float]


@pytest.fixture(scope="module")
def likeness(mini_initial: Path) -> Likeness:
    """The cosine of two tokens' embeddings."""
    tokenizer, table = Tokenizer(mini_initial), load_file(mini_initial / "model.safetensors")[EMBEDDINGS].float()

    def cosine(first: str, second: str) -> float:
        one, other = (table[tokenizer.encode(word, allow_special=False)] for word in (first, second))
        assert len(one) == len(other) == 1
        return float(cosine_similarity(one[0], other[0], dim=0))

    return cosine


@pytest.mark.parametrize("pair", [("circle", "circles"), ("square", "方"), ("crosses", "字"), ("red", "红")])
def test_names_of_one_thing_are_alike(pair: tuple[str, str], likeness: Likeness) -> None:
    assert 0.35 < likeness(*pair) < 0.65


@pytest.mark.parametrize("pair", [("circle", "square"), ("red", "star"), ("红", "圆"), ("7", "K")])
def test_others_are_not(pair: tuple[str, str], likeness: Likeness) -> None:
    assert abs(likeness(*pair)) < 0.25


@pytest.mark.parametrize("words", [DOWN, ACROSS, tuple("0123456789")])
def test_what_has_an_order_is_alike_as_it_is_near(words: tuple[str, ...], likeness: Likeness) -> None:
    neighbours = [likeness(*pair) for pair in pairwise(words)]
    assert min(neighbours) > likeness(words[0], words[-1])
    assert max(neighbours) < 0.75  # they can be told apart


def test_places_can_be_compared_along_one_direction() -> None:
    """Their projections on a line rise, or fall, with their order."""
    drawn = torch.randn(20, 4096, generator=torch.manual_seed(0), dtype=torch.float64)
    table = relate(drawn, [Relation(tuple(range(12)), 0.5, ordered=True)], seed=1)
    line = table[8:12].sum(0) - table[:4].sum(0)
    along = (table[:12] @ line).tolist()
    assert all(after > before for before, after in pairwise(along))
    torch.testing.assert_close(table[12:], drawn[12:])
    assert 0.9 < float(table[:12].std() / drawn.std()) < 1.1
