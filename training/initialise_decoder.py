"""The decoder before training: its heads begin with what copying and looking up are made of.

In a small budget the heads that find what followed an earlier token like this one ("induction heads", Olsson et al.,
2022) take the longest to appear, and nothing is read off a picture or written down from a recording without them. They
are given: with them the loss after 300 steps was what it was after 1,000 without.

- In the first layer some heads look 1, 2 or 3 tokens back, and some at the last token of a medium that says something;
  both leave what they find in dimensions of their own.
- In the second layer heads look for what followed such a token.
- All others look for tokens like the one they stand at, and hand on what they find (Trockman and Kolter, "Mimetic
  Initialization of Self-Attention Layers", 2023).

Contents are compared in the dimensions of a head that the rotation hardly turns, and places in those that it turns
fast. The keys of places come from a constant, the first dimension of every token's embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pipeline.config import DecoderConfig

from .model import BLANK, EMBEDDINGS

FAST = 0.02  # radians a token: rotations above it tell places apart
PLACE_SHARPNESS, CONTENT_SHARPNESS = 6.5, 1.4  # the entries of projections of places and of contents

BLANK_PENALTY = 12.5
"""The last token of a medium that said something is no blank."""

LAST_WRITTEN = ((-0.8, 8.3, 21.4, 28.0, 28.0), (1.0, 2.0, 28.0, 28.0, -4.4))
"""Cosines and sines of the five fastest rotations of 32 dimensions at theta 5,000,000. By linear programming: scores
fall by at least 1 a token from 3 to 12 tokens back, and the token itself and all further ones have no more than 12."""

COPY = 0.5  # how much of what a head has found it hands on


def associative_decoder(config: DecoderConfig, drawn: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Attention's projections and the token embeddings, by released name; the rest stays as drawn."""
    d, size, half = config.hidden_size, config.head_size, config.head_size // 2
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    share = heads // groups
    frequencies = config.rope_theta ** -(torch.arange(half) / half)
    fast = int((frequencies > FAST).sum())
    still = torch.cat([torch.arange(fast, half), torch.arange(half + fast, size)])
    rng = torch.Generator().manual_seed(seed)

    embeddings = drawn[EMBEDDINGS].clone()
    before, said = (
        torch.eye(d)[1 + i * size : 1 + (i + 1) * size] for i in (0, 1)
    )  # dimensions for findings [size, D]
    embeddings[:, 1 : 1 + 2 * size] = 0
    embeddings[:, 0] = embeddings[:, -1].std()
    blank = torch.cat([torch.zeros(1), embeddings[BLANK, 1:]])
    blank /= blank.pow(2).sum()  # its product with the blank's embedding is 1, and 0 with all others
    others = torch.arange(len(embeddings)) != BLANK
    embeddings[others] -= torch.outer(embeddings[others] @ blank, blank / blank.pow(2).sum())
    read = _orthonormal(size, d, rng)  # what of a token is found

    out = {EMBEDDINGS: embeddings}
    for layer in range(config.num_hidden_layers):
        query, output = torch.zeros(heads, size, d), torch.zeros(d, heads, size)
        key, value = torch.zeros(2, groups, size, d)
        for group in range(groups):
            value[group] = read if layer == 0 and group < 2 else _orthonormal(size, d, rng)
            asked = known = _orthonormal(size, d, rng)
            if layer == 1:  # what followed a token like this one, or like the one before it
                asked, known = (read, read, before, before)[group % 4], (before, said, before, said)[group % 4]
            key[group, still] = known[: len(still)] * CONTENT_SHARPNESS
            key[group, :fast, 0] = PLACE_SHARPNESS
            for head in range(group * share, (group + 1) * share):
                query[head, still] = asked[: len(still)] * CONTENT_SHARPNESS
                output[:, head] = value[group].T * COPY
            if layer % 2:
                continue
            head, turn = group * share, frequencies[:fast] * max(group, 1)
            cosines, sines = PLACE_SHARPNESS * turn.cos(), PLACE_SHARPNESS * turn.sin()
            output[:, head] = _orthonormal(size, d, rng).T * COPY
            if layer == 0 and group < 2:
                output[:, head] = (before, said)[group].T
            query[head] = 0
            if layer == 0 and group == 1:
                cosines, sines = torch.tensor(LAST_WRITTEN)[:, :fast]
                key[group, still[-1]], query[head, still[-1], 0] = -blank * BLANK_PENALTY, BLANK_PENALTY
            query[head, : len(cosines), 0] = cosines
            query[head, half : half + len(sines), 0] = -sines
        prefix = f"llm.model.layers.{layer}.self_attn."
        out |= {
            f"{prefix}q_proj.weight": query.flatten(0, 1),
            f"{prefix}k_proj.weight": key.flatten(0, 1),
            f"{prefix}v_proj.weight": value.flatten(0, 1),
            f"{prefix}o_proj.weight": output.flatten(1),
        }
    return out


def _orthonormal(rows: int, columns: int, rng: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(columns, rows, generator=rng, dtype=torch.float64))[0].T.float().contiguous()
