"""Token embeddings before training: words that mean the same begin alike, and what has an order lies on an arc.

The recipe leaves them as they are drawn, so what they have in common need not be learnt: that "circles" and "圆" ask
for what a sketch tells as "circle", and that one place is left of another, or one digit less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.processing.tokenizer import Tokenizer

from .synthetic.scene_wordings import COLOURS_ZH, SHAPES_ZH, plural
from .synthetic.sketching import ACROSS, DOWN

ARC = 2 * math.pi / 3
"""From the first to the last of what has an order: differences can be read off along one direction."""

ALIKE, PLACES, DIGITS = 0.5, 0.5, 0.3
"""Shares of an embedding's variance that its relatives have in common. Digits must be told apart when they are read."""

TELLING = {"square": "方", "triangle": "角", "cross": "字"}
"""The character that tells a shape from others, where it isn't the name's first."""


@dataclass(frozen=True)
class Relation:
    """Tokens with a share of their embeddings' variance in common; or in order, alike as they are near."""

    tokens: tuple[int, ...]
    share: float
    ordered: bool = False


def relations(tokenizer: Tokenizer) -> list[Relation]:
    """Those of the little world's words; names that are more than one token have none."""
    found = [
        Relation(_known(tokenizer, words), share, ordered=True)
        for words, share in ((DOWN, PLACES), (ACROSS, PLACES), ("0123456789", DIGITS))
    ]
    names: list[tuple[str, ...]] = [
        (shape, plural(shape), TELLING.get(shape, name[0])) for shape, name in SHAPES_ZH.items()
    ]
    names += [(colour, name[0]) for colour, name in COLOURS_ZH.items()]
    return found + [Relation(_known(tokenizer, (*words, words[0].capitalize())), ALIKE) for words in names]


def _known(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[int, ...]:
    spelled = [tokenizer.encode(word, allow_special=False) for word in words]
    return tuple(ids[0] for ids in spelled if len(ids) == 1)


def relate(embeddings: torch.Tensor, relations: Sequence[Relation], seed: int) -> torch.Tensor:
    """[tokens, D], drawn with mean 0 -> like it: the variance of each embedding stays what it was."""
    rng, out = torch.Generator().manual_seed(seed), embeddings.clone()
    for relation in relations:
        tokens = list(relation.tokens)
        common, aside = torch.randn(2, embeddings.shape[1], generator=rng) * embeddings.std()
        angles = torch.linspace(0, ARC, len(tokens)) if relation.ordered else torch.zeros(len(tokens))
        shared = angles.cos()[:, None] * common + angles.sin()[:, None] * aside
        out[tokens] = (1 - relation.share) ** 0.5 * embeddings[tokens] + relation.share**0.5 * shared
    return out
